//! Function codes and their names.

use std::fmt;

/// The first byte of a request PDU. 1 to 127 are requests; 0 and 128 to 255 are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionCode(pub u8);

impl FunctionCode {
    pub const READ_COILS: Self = Self(1);
    pub const READ_DISCRETE_INPUTS: Self = Self(2);
    pub const READ_HOLDING_REGISTERS: Self = Self(3);
    pub const READ_INPUT_REGISTERS: Self = Self(4);
    pub const WRITE_SINGLE_COIL: Self = Self(5);
    pub const WRITE_SINGLE_REGISTER: Self = Self(6);
    pub const READ_EXCEPTION_STATUS: Self = Self(7);
    pub const DIAGNOSTICS: Self = Self(8);
    pub const GET_COMM_EVENT_COUNTER: Self = Self(11);
    pub const GET_COMM_EVENT_LOG: Self = Self(12);
    pub const WRITE_MULTIPLE_COILS: Self = Self(15);
    pub const WRITE_MULTIPLE_REGISTERS: Self = Self(16);
    pub const REPORT_SERVER_ID: Self = Self(17);
    pub const READ_FILE_RECORD: Self = Self(20);
    pub const WRITE_FILE_RECORD: Self = Self(21);
    pub const MASK_WRITE_REGISTER: Self = Self(22);
    pub const READ_WRITE_MULTIPLE_REGISTERS: Self = Self(23);
    pub const READ_FIFO_QUEUE: Self = Self(24);
    pub const ENCAPSULATED_INTERFACE: Self = Self(43);

    /// The specification's name (section 6) in kebab case; `None` for reserved,
    /// user-defined and vendor codes.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::READ_COILS => "read-coils",
            Self::READ_DISCRETE_INPUTS => "read-discrete-inputs",
            Self::READ_HOLDING_REGISTERS => "read-holding-registers",
            Self::READ_INPUT_REGISTERS => "read-input-registers",
            Self::WRITE_SINGLE_COIL => "write-single-coil",
            Self::WRITE_SINGLE_REGISTER => "write-single-register",
            Self::READ_EXCEPTION_STATUS => "read-exception-status",
            Self::DIAGNOSTICS => "diagnostics",
            Self::GET_COMM_EVENT_COUNTER => "get-comm-event-counter",
            Self::GET_COMM_EVENT_LOG => "get-comm-event-log",
            Self::WRITE_MULTIPLE_COILS => "write-multiple-coils",
            Self::WRITE_MULTIPLE_REGISTERS => "write-multiple-registers",
            Self::REPORT_SERVER_ID => "report-server-id",
            Self::READ_FILE_RECORD => "read-file-record",
            Self::WRITE_FILE_RECORD => "write-file-record",
            Self::MASK_WRITE_REGISTER => "mask-write-register",
            Self::READ_WRITE_MULTIPLE_REGISTERS => "read-write-multiple-registers",
            Self::READ_FIFO_QUEUE => "read-fifo-queue",
            Self::ENCAPSULATED_INTERFACE => "encapsulated-interface",
            _ => return None,
        })
    }
}

/// `3 (0x03) read-holding-registers`, or without a name `90 (0x5a)`.
impl fmt::Display for FunctionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0} ({0:#04x})", self.0)?;
        match self.name() {
            Some(name) => write!(f, " {name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_gives_decimal_hex_and_name() {
        assert_eq!(
            FunctionCode(3).to_string(),
            "3 (0x03) read-holding-registers"
        );
        assert_eq!(FunctionCode(90).to_string(), "90 (0x5a)");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = (0..=255).filter_map(|c| FunctionCode(c).name()).collect();
        assert_eq!(names.len(), 19);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 19);
    }
}
