//! A policy with its signature, in one text file. The signature itself is judged elsewhere.
//!
//! ```text
//! fieldlock-policy-bundle: 1
//! version: 7
//! not-before: 2026-11-25T00:00:00Z        or none
//! edges: press-07, press-08               or any
//! signer: p256:BASE64
//! signature: BASE64
//!                                         an empty line
//! syntax = 1                              the policy file, octet for octet
//! ```
//!
//! Everything has one spelling. What is signed is all but the line of the signature.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use thiserror::Error;

use crate::error::PolicyErrors;
use crate::policy::Policy;

/// Octets of a bundle, at most.
pub const MAX_BUNDLE: usize = 1 << 20;
/// Versions go from 1 to this: 15 digits, so that a date and time fits in.
pub const MAX_VERSION: u64 = 999_999_999_999_999;
/// What a bundle begins with.
pub const MAGIC: &str = "fieldlock-policy-bundle: ";

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 1 to [`MAX_VERSION`].
    pub version: u64,
    /// Seconds since 1970-01-01 UTC, not before 1970; `None`: in force at once.
    pub not_before: Option<i64>,
    pub edges: Edges,
    /// Text of the public key.
    pub signer: String,
}

/// Which edges a bundle is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edges {
    Any,
    /// Names, ascending, none twice, at least one.
    Only(Vec<String>),
}

/// A bundle as it was read: well formed, and no more is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub header: Header,
    pub signature: Vec<u8>,
    /// The policy file.
    pub policy: String,
}

impl Header {
    /// What is signed for this header and policy file.
    pub fn signed_text(&self, policy: &str) -> String {
        format!("{self}\n{policy}")
    }
}

/// The lines before that of the signature.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            not_before,
            edges,
            signer,
        } = self;
        writeln!(f, "{MAGIC}{FORMAT}")?;
        writeln!(f, "version: {version}")?;
        match not_before {
            Some(time) => writeln!(f, "not-before: {}", time_text(*time))?,
            None => writeln!(f, "not-before: {NONE}")?,
        }
        writeln!(f, "edges: {edges}")?;
        writeln!(f, "signer: {signer}")
    }
}

impl Edges {
    /// In the one order in which names are written.
    pub fn only(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self::Only(names)
    }

    pub fn includes(&self, edge: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names
                .binary_search_by(|name| name.as_str().cmp(edge))
                .is_ok(),
        }
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        if text == ANY {
            return Ok(Self::Any);
        }
        let names: Vec<String> = text.split(", ").map(str::to_owned).collect();
        let well_formed = |name: &String| {
            (1..=MAX_NAME).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && name != ANY
        };
        match names.iter().all(well_formed) && names.is_sorted_by(|one, other| one < other) {
            true => Ok(Self::Only(names)),
            false => Err(Problem::Edges),
        }
    }
}

impl fmt::Display for Edges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::Only(names) => f.write_str(&names.join(", ")),
        }
    }
}

impl Bundle {
    /// True for what is meant to be a bundle, and not a plain policy file.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(MAGIC)
    }

    pub fn parse(octets: &[u8]) -> Result<Self, BundleError> {
        if octets.len() > MAX_BUNDLE {
            return Err(Problem::Length.at(1));
        }
        let text = std::str::from_utf8(octets).map_err(|error| {
            let before = &octets[..error.valid_up_to()];
            let line = before.iter().filter(|octet| **octet == b'\n').count() + 1;
            Problem::NotText.at(line)
        })?;
        let mut lines = Lines { text, number: 0 };
        lines.field(MAGIC, |text| (text == FORMAT).then_some(()))?;
        let version = lines.field("version: ", version)?;
        let not_before = lines.field("not-before: ", not_before)?;
        let edges = lines.value("edges: ", Edges::parse)?;
        let signer = lines.field("signer: ", |text| {
            let graphic = |b: u8| b.is_ascii_graphic();
            let fits = (1..=MAX_SIGNER).contains(&text.len()) && text.bytes().all(graphic);
            fits.then(|| text.to_owned())
        })?;
        let signature = lines.field("signature: ", |text| {
            let fits = (1..=MAX_SIGNATURE).contains(&text.len());
            BASE64_STANDARD.decode(text).ok().filter(|_| fits)
        })?;
        lines.field("", |text| text.is_empty().then_some(()))?;
        Ok(Self {
            header: Header {
                version,
                not_before,
                edges,
                signer,
            },
            signature,
            policy: lines.text.to_owned(),
        })
    }

    /// What the signature has to be over.
    pub fn signed_text(&self) -> String {
        self.header.signed_text(&self.policy)
    }

    /// Reads and checks the policy. `file` is the name of the bundle for error texts; places in
    /// them are those of the bundle.
    pub fn compile(&self, file: &str) -> Result<Policy, PolicyErrors> {
        let placed = "\n".repeat(HEADER_LINES) + &self.policy;
        Policy::parse(&placed, file)
    }
}

/// The text of the file.
impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = BASE64_STANDARD.encode(&self.signature);
        let (header, policy) = (&self.header, &self.policy);
        write!(f, "{header}signature: {signature}\n\n{policy}")
    }
}

/// A time as bundles have it; empty for one that is none.
pub fn time_text(time: i64) -> String {
    Timestamp::from_second(time).map_or_else(|_| String::new(), |time| time.to_string())
}

fn version(text: &str) -> Option<u64> {
    let version = text.parse().ok()?;
    let one_spelling = text.len() <= 15 && !text.starts_with(['0', '+']);
    ((1..=MAX_VERSION).contains(&version) && one_spelling).then_some(version)
}

fn not_before(text: &str) -> Option<Option<i64>> {
    if text == NONE {
        return Some(None);
    }
    let time = text.parse::<Timestamp>().ok()?.as_second();
    (time >= 0 && time_text(time) == text).then_some(Some(time))
}

struct Lines<'t> {
    /// What follows.
    text: &'t str,
    /// Of the line that was read last, from 1.
    number: usize,
}

impl<'t> Lines<'t> {
    fn field<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'t str) -> Option<T>,
    ) -> Result<T, BundleError> {
        self.value(key, |text| read(text).ok_or(Problem::Line { key }))
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'t str) -> Result<T, Problem>,
    ) -> Result<T, BundleError> {
        self.number += 1;
        let value = self.text.split_once('\n').and_then(|(line, rest)| {
            self.text = rest;
            line.strip_prefix(key)
        });
        let read = value.ok_or(Problem::Line { key }).and_then(read);
        read.map_err(|problem| problem.at(self.number))
    }
}

/// Why octets are not a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct BundleError {
    /// From 1.
    pub line: usize,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("a bundle has at most {MAX_BUNDLE} octets")]
    Length,
    #[error("not UTF-8")]
    NotText,
    #[error("{}", expected(.key))]
    Line { key: &'static str },
    #[error(
        "not `edges: any`, nor names of edges in ascending order, each once, with `, ` between them"
    )]
    Edges,
}

impl Problem {
    fn at(self, line: usize) -> BundleError {
        BundleError {
            line,
            problem: self,
        }
    }
}

fn expected(key: &str) -> String {
    let form = match key {
        MAGIC => "is `fieldlock-policy-bundle: 1`, the only format that this build knows",
        "version: " => "is `version: ` and a number from 1 to 999999999999999",
        "not-before: " => "is `not-before: ` and `none` or a time such as 2026-11-25T00:00:00Z",
        "signer: " => "is `signer: ` and a public key",
        "signature: " => "is `signature: ` and its octets in Base64",
        _ => "is empty: the policy comes after it",
    };
    format!("in a policy bundle this line {form}")
}

const FORMAT: &str = "1";
const NONE: &str = "none";
const ANY: &str = "any";
const HEADER_LINES: usize = 7;
/// Octets of the name of an edge; certificates have no longer ones.
const MAX_NAME: usize = 63;
/// Octets of a public key's text, and of a signature's; those of P-256 have 93 and 96.
const MAX_SIGNER: usize = 256;
const MAX_SIGNATURE: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: &str = "syntax = 1\n\n[[allow]]\nname = \"all\"\ndevice = \"any\"\nfunction = \"read\"\naddress = \"any\"\n";

    fn bundle() -> Bundle {
        Bundle {
            header: Header {
                version: 7,
                not_before: Some(1_795_564_800),
                edges: Edges::only(vec!["press-08".into(), "press-07".into()]),
                signer: "p256:BAAA".into(),
            },
            signature: vec![1, 2, 3, 4],
            policy: POLICY.into(),
        }
    }

    #[test]
    fn a_bundle_is_a_text_of_one_spelling() {
        let text = bundle().to_string();
        let head = "fieldlock-policy-bundle: 1\nversion: 7\nnot-before: 2026-11-25T00:00:00Z\n\
                    edges: press-07, press-08\nsigner: p256:BAAA\nsignature: AQIDBA==\n\nsyntax = 1\n";
        assert!(text.starts_with(head), "{text}");
        assert_eq!(Bundle::parse(text.as_bytes()), Ok(bundle()));
        let signed = text.replace("signature: AQIDBA==\n", "");
        assert_eq!(bundle().signed_text(), signed);
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        for (line, old, new) in [
            (1, "bundle: 1", "bundle: 2"),
            (2, "version: 7", "version: 07"),
            (2, "version: 7", "version: +7"),
            (2, "version: 7", "version: 0"),
            (2, "version: 7", "version: 1000000000000000"),
            (2, "version: 7", "Version: 7"),
            (2, "version: 7\n", "version: 7\r\n"),
            (3, "T00:00:00Z", "T00:00:00+00:00"),
            (3, "T00:00:00Z", "T00:00:00.5Z"),
            (3, "2026-", "1926-"),
            (4, "press-07, press-08", "press-08, press-07"),
            (4, "press-07, press-08", "press-07, press-07"),
            (4, "press-07, press-08", "press-07,press-08"),
            (4, "press-07, press-08", "any, press-07"),
            (4, "press-07, press-08", ""),
            (5, "p256:BAAA", ""),
            (6, "AQIDBA==", "AQIDBB=="),
            (6, "AQIDBA==", "AQIDBA"),
            (6, "AQIDBA==", ""),
            (6, "signature: AQIDBA==\n", ""),
            (7, "\n\nsyntax", "\nsyntax"),
        ] {
            let text = bundle().to_string();
            assert!(text.contains(old), "{old}");
            let error = Bundle::parse(text.replacen(old, new, 1).as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{new}: {error}");
        }
        let too_long = vec![b'a'; MAX_BUNDLE + 1];
        let error = Bundle::parse(&too_long).unwrap_err();
        assert_eq!(error.problem, Problem::Length);
    }

    #[test]
    fn what_is_wrong_with_the_policy_is_told_by_its_place_in_the_bundle() {
        let mut bundle = bundle();
        assert!(bundle.compile("fleet.bundle").is_ok());
        bundle.policy = "syntax = 1\nunknown = 2\n".into();
        let error = bundle.compile("fleet.bundle").unwrap_err();
        assert_eq!(error.errors[0].line, 9);
    }

    #[test]
    fn a_bundle_is_for_the_edges_that_it_names() {
        let edges = bundle().header.edges;
        assert!(edges.includes("press-07") && !edges.includes("press-0"));
        assert!(Edges::Any.includes("press-0"));
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..300) {
            let _ = Bundle::parse(&octets);
            let text = bundle().to_string();
            let cut = cut.min(text.len());
            let _ = Bundle::parse(&[&text.as_bytes()[..cut], &octets].concat());
        }

        #[test]
        fn what_is_read_is_written_the_same(place in 0usize..200, octet in any::<u8>()) {
            let mut text = bundle().to_string().into_bytes();
            let place = place.min(text.len() - 1);
            text[place] = octet;
            if let Ok(read) = Bundle::parse(&text) {
                prop_assert_eq!(read.to_string().into_bytes(), text);
            }
        }
    }
}
