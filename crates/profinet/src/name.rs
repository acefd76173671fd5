//! Names of stations.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// A name-of-station: labels of lower-case letters, digits and `-`, joined by dots; 1 to 240
/// octets, a label 1 to 63 (IEC 61158-6-10, 4.3.1.4.15). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StationName(Arc<str>);

impl StationName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Shared, for records.
    pub fn to_arc(&self) -> Arc<str> {
        self.0.clone()
    }
}

/// Why a text is no name-of-station.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("a name of {0} octets, allowed are 1 to 240")]
    Length(usize),
    #[error("a label of {0} octets, allowed are 1 to 63")]
    Label(usize),
    #[error("character {0:?}; allowed are a-z, 0-9, `-` and `.`")]
    Character(char),
    #[error("a label that begins or ends with `-`")]
    Hyphen,
}

impl FromStr for StationName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > 240 {
            return Err(NameError::Length(text.len()));
        }
        let allowed = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
        if let Some(wrong) = text.chars().find(|c| !allowed(c)) {
            return Err(NameError::Character(wrong));
        }
        for label in text.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(NameError::Label(label.len()));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(NameError::Hyphen);
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for StationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_standard_pass_and_others_do_not() {
        for right in ["drive-1", "a", "xn--m-1.line2.plant", "0"] {
            assert!(right.parse::<StationName>().is_ok(), "{right}");
        }
        for (wrong, error) in [
            ("", NameError::Length(0)),
            ("Drive", NameError::Character('D')),
            ("a..b", NameError::Label(0)),
            ("a.-b", NameError::Hyphen),
            ("a b", NameError::Character(' ')),
        ] {
            assert_eq!(wrong.parse::<StationName>(), Err(error), "{wrong}");
        }
        assert_eq!(
            "a".repeat(241).parse::<StationName>(),
            Err(NameError::Length(241))
        );
        assert_eq!(
            "a".repeat(64).parse::<StationName>(),
            Err(NameError::Label(64))
        );
    }
}
