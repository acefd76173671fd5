//! A policy with its signature, in one text file: a kind of signed text, whose form is that of
//! `fieldlock-signed`.
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

use std::fmt;

pub use fieldlock_signed::{Edges, MAX_VERSION, Malformed, Signature, time_text};
use fieldlock_signed::{Kind, Lines, Signed, time_or_none};

use crate::error::PolicyErrors;
use crate::policy::Policy;

/// Octets of a bundle, at most.
pub const MAX_BUNDLE: usize = 1 << 20;

/// A bundle; its body is the policy file.
pub type Bundle = Signed<Header>;

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 1 to [`MAX_VERSION`].
    pub version: u64,
    /// Seconds since 1970-01-01 UTC, not before 1970; `None`: in force at once.
    pub not_before: Option<i64>,
    pub edges: Edges,
}

impl Kind for Header {
    const NAME: &'static str = "policy-bundle";
    const CALLED: &'static str = "policy bundle";
    const MAX: usize = MAX_BUNDLE;
    const MAX_SIGNERS: usize = 1;
    const BODY: Option<&'static str> = Some("policy");

    fn read(lines: &mut Lines<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            version: lines.version()?,
            not_before: lines.time("not-before")?,
            edges: lines.edges()?,
        })
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version: {}", self.version)?;
        writeln!(f, "not-before: {}", time_or_none(self.not_before))?;
        writeln!(f, "edges: {}", self.edges)
    }
}

/// Reads and checks the policy of a bundle. `file` is the name of the bundle for error texts; places
/// in them are those of the bundle.
///
/// # Errors
/// The policy is not valid.
pub fn compile(bundle: &Bundle, file: &str) -> Result<Policy, PolicyErrors> {
    let placed = "\n".repeat(bundle.lines_before_body()) + &bundle.body;
    Policy::parse(&placed, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "syntax = 1\n\n[[allow]]\nname = \"all\"\ndevice = \"any\"\nfunction = \"read\"\naddress = \"any\"\n";

    fn bundle() -> Bundle {
        let header = Header {
            version: 7,
            not_before: Some(1_795_564_800),
            edges: Edges::only(vec!["press-08".into(), "press-07".into()]),
        };
        let mut bundle = Bundle::new(header, POLICY.into());
        bundle.sign(Signature {
            signer: "p256:BAAA".into(),
            octets: vec![1, 2, 3, 4],
        });
        bundle
    }

    #[test]
    fn a_bundle_is_a_text_of_one_spelling() {
        let text = bundle().to_string();
        let head = "fieldlock-policy-bundle: 1\nversion: 7\nnot-before: 2026-11-25T00:00:00Z\n\
                    edges: press-07, press-08\nsigner: p256:BAAA\nsignature: AQIDBA==\n\nsyntax = 1\n";
        assert!(text.starts_with(head), "{text}");
        assert_eq!(Bundle::parse(text.as_bytes()), Ok(bundle()));
        let signed = text.replace("signature: AQIDBA==\n", "");
        assert_eq!(bundle().signed_text("p256:BAAA"), signed);
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        for (old, new, message) in [
            (
                "bundle: 1",
                "bundle: 2",
                "line 1: in a policy bundle this line is `fieldlock-policy-bundle: 1`, the only format that this build knows",
            ),
            (
                "version: 7",
                "version: 0",
                "line 2: in a policy bundle this line is `version: ` and a number from 1 to 999999999999999",
            ),
            (
                "2026-",
                "1926-",
                "line 3: in a policy bundle this line is `not-before: ` and `none` or a time such as 2026-11-25T00:00:00Z",
            ),
            (
                "press-07, press-08",
                "press-08, press-07",
                "line 4: in a policy bundle this line is `edges: ` and `any`, or names of edges in ascending order, each once, with `, ` between them",
            ),
            (
                "signer: p256:BAAA",
                "signer: ",
                "line 5: in a policy bundle this line is `signer: ` and a public key",
            ),
            (
                "signature: AQIDBA==\n",
                "",
                "line 6: in a policy bundle this line is `signature: ` and its octets in Base64",
            ),
            (
                "\n\nsyntax",
                "\nsyntax",
                "line 7: in a policy bundle this line is empty: the policy comes after it",
            ),
        ] {
            let text = bundle().to_string();
            assert!(text.contains(old), "{old}");
            let error = Bundle::parse(text.replacen(old, new, 1).as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let error = Bundle::parse(&vec![b'a'; MAX_BUNDLE + 1]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 1: a policy bundle has at most 1048576 octets"
        );
    }

    #[test]
    fn what_is_wrong_with_the_policy_is_told_by_its_place_in_the_bundle() {
        let mut bundle = bundle();
        assert!(compile(&bundle, "fleet.bundle").is_ok());
        bundle.body = "syntax = 1\nunknown = 2\n".into();
        let error = compile(&bundle, "fleet.bundle").unwrap_err();
        assert_eq!(error.errors[0].line, 9);
    }
}
