//! What a device sent that answers no request, and which quirk would bear it.

use std::fmt;

use fieldlock_modbus::rtu::RtuError;
use fieldlock_modbus::{FramingError, Mismatch, Quirk};

/// Why something that a device sent is not taken. The text says what was seen, what was expected
/// and, where a quirk of the device explains it, which setting bears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub what: What,
    /// The deviation that explains it.
    pub quirk: Option<Quirk>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum What {
    #[error("bytes without a request")]
    Unsolicited,
    #[error("answer with transaction id {got:#06x}, {}", Expected(*.expected))]
    Transaction {
        got: u16,
        /// If one request alone is in flight: its own.
        expected: Option<u16>,
    },
    #[error("answer from unit {got}, expected {expected}")]
    Unit { got: u8, expected: u8 },
    #[error("exception whose MBAP length says 4, expected 3")]
    ExceptionLength,
    /// The bytes of the request itself: the adapter delivers what it sends.
    #[error("echo of the request, expected an answer")]
    Echo,
    #[error("0x00 before the answer")]
    LeadingZero,
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Line(#[from] RtuError),
}

struct Expected(Option<u16>);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(expected) => write!(f, "expected {expected:#06x}"),
            None => f.write_str("which no request has"),
        }
    }
}

impl Fault {
    pub(super) fn deviates(what: What, quirk: Quirk) -> Self {
        Self {
            what,
            quirk: Some(quirk),
        }
    }

    pub(super) fn unit(got: u8, expected: u8) -> Self {
        Self {
            what: What::Unit { got, expected },
            quirk: Quirk::answers_as(got),
        }
    }
}

impl<T: Into<What>> From<T> for Fault {
    fn from(what: T) -> Self {
        Self {
            what: what.into(),
            quirk: None,
        }
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.fmt(f)?;
        match self.quirk {
            Some(quirk) => write!(
                f,
                ": if this device always does so, add quirks = [\"{quirk}\"] to its [[device]]"
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_was_seen_and_what_would_bear_it() {
        assert_eq!(
            Fault::unit(1, 255).to_string(),
            "answer from unit 1, expected 255: if this device always does so, \
             add quirks = [\"answers-as-unit-1\"] to its [[device]]"
        );
        assert_eq!(
            Fault::unit(7, 1).to_string(),
            "answer from unit 7, expected 1"
        );
        let id = What::Transaction {
            got: 1,
            expected: Some(0x0101),
        };
        assert_eq!(
            Fault::from(id).to_string(),
            "answer with transaction id 0x0001, expected 0x0101"
        );
    }
}
