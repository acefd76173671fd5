//! A text with its signatures.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::lines::{Lines, Malformed, Problem};

/// A kind of signed texts: what stands between the first line and the signers. [`Display`] writes
/// these lines.
///
/// [`Display`]: fmt::Display
pub trait Kind: fmt::Display + Sized {
    /// In the first line.
    const NAME: &'static str;
    /// What people call it.
    const CALLED: &'static str;
    /// Octets of a whole text, at most.
    const MAX: usize;
    const MAX_SIGNERS: usize;
    /// What its body is, if it has one.
    const BODY: Option<&'static str> = None;

    /// Reads these lines.
    ///
    /// # Errors
    /// One of them is not as [`Display`](fmt::Display) writes it.
    fn read(lines: &mut Lines<'_>) -> Result<Self, Malformed>;
}

/// A text as it was read or is to be signed: well formed, and no more is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<K> {
    pub header: K,
    /// Ascending by signer. One that was read has at least one.
    signatures: Vec<Signature>,
    /// Empty for a kind that has none.
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Text of a public key, which it need not be.
    pub signer: String,
    pub octets: Vec<u8>,
}

impl<K: Kind> Signed<K> {
    /// Signed by nobody yet.
    pub fn new(header: K, body: String) -> Self {
        Self {
            header,
            signatures: Vec::new(),
            body,
        }
    }

    /// True for what is meant to be of this kind.
    pub fn is_meant(text: &str) -> bool {
        text.strip_prefix(PREFIX)
            .and_then(|text| text.strip_prefix(K::NAME))
            .is_some_and(|text| text.starts_with(": "))
    }

    /// # Errors
    /// The octets are not what [`Display`](fmt::Display) would write of any text of this kind.
    pub fn parse(octets: &[u8]) -> Result<Self, Malformed> {
        if octets.len() > K::MAX {
            let (called, max) = (K::CALLED, K::MAX);
            let problem = Problem::Length { called, max };
            return Err(Malformed { line: 1, problem });
        }
        let text = std::str::from_utf8(octets).map_err(|error| {
            let before = &octets[..error.valid_up_to()];
            let line = before.iter().filter(|octet| **octet == b'\n').count() + 1;
            let problem = Problem::NotText;
            Malformed { line, problem }
        })?;
        let mut lines = Lines::new(K::CALLED, text);
        let first = first_line::<K>();
        lines.line(
            |line| (line == first).then_some(()),
            || format!("is `{first}`, the only format that this build knows"),
        )?;
        let header = K::read(&mut lines)?;
        let signatures = signatures(&mut lines, K::MAX_SIGNERS)?;
        let body = match K::BODY {
            Some(body) => {
                lines.line(
                    |line| line.is_empty().then_some(()),
                    || format!("is empty: the {body} comes after it"),
                )?;
                lines.rest()
            }
            None => lines.end()?,
        };
        Ok(Self {
            header,
            signatures,
            body: body.to_owned(),
        })
    }

    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The signers as people read them.
    pub fn signers(&self) -> String {
        let signers: Vec<_> = self.signatures.iter().map(|s| s.signer.as_str()).collect();
        signers.join(", ")
    }

    /// What `signer` signs.
    pub fn signed_text(&self, signer: &str) -> String {
        let (first, header) = (first_line::<K>(), &self.header);
        format!("{first}\n{header}{SIGNER}: {signer}\n{}", self.tail())
    }

    /// Puts a signature in its place; one of the same signer goes.
    pub fn sign(&mut self, signature: Signature) {
        let place = self
            .signatures
            .binary_search_by(|known| known.signer.cmp(&signature.signer));
        match place {
            Ok(place) => self.signatures[place] = signature,
            Err(place) => self.signatures.insert(place, signature),
        }
    }

    /// How many lines are before the body.
    pub fn lines_before_body(&self) -> usize {
        let header = self.header.to_string();
        1 + header.matches('\n').count()
            + 2 * self.signatures.len()
            + usize::from(K::BODY.is_some())
    }

    fn tail(&self) -> String {
        match K::BODY {
            Some(_) => format!("\n{}", self.body),
            None => String::new(),
        }
    }
}

/// The text itself.
impl<K: Kind> fmt::Display for Signed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", first_line::<K>(), self.header)?;
        for Signature { signer, octets } in &self.signatures {
            let octets = BASE64_STANDARD.encode(octets);
            write!(f, "{SIGNER}: {signer}\n{SIGNATURE}: {octets}\n")?;
        }
        f.write_str(&self.tail())
    }
}

fn first_line<K: Kind>() -> String {
    format!("{PREFIX}{}: {FORMAT}", K::NAME)
}

fn signatures(lines: &mut Lines<'_>, most: usize) -> Result<Vec<Signature>, Malformed> {
    let mut signatures: Vec<Signature> = Vec::new();
    loop {
        let last = signatures.last().map(|last| last.signer.as_str());
        let form = match last {
            None => "a public key",
            Some(_) => "a public key whose text is above that of the signer before",
        };
        let signer = lines.field(SIGNER, form, |text| {
            let graphic = |b: u8| b.is_ascii_graphic();
            let fits = (1..=MAX_SIGNER).contains(&text.len()) && text.bytes().all(graphic);
            let ascends = last.is_none_or(|last| last < text);
            (fits && ascends).then(|| text.to_owned())
        })?;
        let octets = lines.field(SIGNATURE, "its octets in Base64", |text| {
            let fits = (1..=MAX_SIGNATURE).contains(&text.len());
            BASE64_STANDARD.decode(text).ok().filter(|_| fits)
        })?;
        signatures.push(Signature { signer, octets });
        if signatures.len() >= most || !lines.rest().starts_with(SIGNER) {
            return Ok(signatures);
        }
    }
}

const PREFIX: &str = "fieldlock-";
const FORMAT: &str = "1";
const SIGNER: &str = "signer";
const SIGNATURE: &str = "signature";
/// Octets of a public key's text, and of a signature's; those of P-256 have 93 and 96.
const MAX_SIGNER: usize = 256;
const MAX_SIGNATURE: usize = 256;

#[cfg(test)]
mod tests;
