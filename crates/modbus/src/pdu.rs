//! Requests, validated to the last byte (section 6), as views on the bytes they came in.

mod check;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::exception::Exception;
use crate::function::FunctionCode;
use crate::quirk::{Quirk, Quirks};

/// Most coils or discrete inputs in one read (section 6.1).
pub const MAX_READ_BITS: u16 = 2000;
/// Most registers in one read (section 6.3).
pub const MAX_READ_REGISTERS: u16 = 125;
/// Most coils in one write (section 6.11).
pub const MAX_WRITE_COILS: u16 = 1968;
/// Most registers in one write (section 6.12).
pub const MAX_WRITE_REGISTERS: u16 = 123;
/// Most registers written by function 23 (section 6.17).
pub const MAX_READ_WRITE_REGISTERS: u16 = 121;

/// MEI type of device identification, function 43 (section 6.21).
pub const MEI_DEVICE_IDENTIFICATION: u8 = 14;

/// Value of a coil that is switched on by function 5; off is 0x0000 (section 6.5).
const COIL_ON: u16 = 0xFF00;
/// A data table of section 4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Coil,
    DiscreteInput,
    InputRegister,
    HoldingRegister,
}

/// Consecutive elements of one table, by 0-based address. Those of a [`Request`] hold
/// 1 to 2000 elements and end at 65536 or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    pub table: Table,
    pub start: u16,
    /// At least 1.
    pub count: u16,
}

impl Range {
    /// The address after the last, up to 65536.
    pub fn end(&self) -> u32 {
        u32::from(self.start) + u32::from(self.count)
    }

    pub fn last(&self) -> u16 {
        self.start.saturating_add(self.count.saturating_sub(1))
    }
}

/// A request that obeys the specification: every length, quantity, byte count and address
/// range in it has been checked. Codes that the specification leaves open (reserved,
/// user-defined, vendor) are carried as they are and yield no ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// 1 to 253 bytes.
    pdu: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn parse(pdu: &'a [u8]) -> Result<Request<'a>, Malformed> {
        Self::parse_for(pdu, Quirks::NONE)
    }

    /// For a device with these quirks: function 5 may have any value.
    pub fn parse_for(pdu: &'a [u8], quirks: Quirks) -> Result<Request<'a>, Malformed> {
        check::check(pdu, quirks.contains(Quirk::CoilAnyValue))?;
        Ok(Request { pdu })
    }

    pub fn pdu(&self) -> &'a [u8] {
        self.pdu
    }

    pub fn function(&self) -> FunctionCode {
        FunctionCode(self.pdu[0])
    }

    /// What is read: functions 1 to 4, and the read half of 23.
    pub fn read(&self) -> Option<Range> {
        let table = match self.function() {
            FunctionCode::READ_COILS => Table::Coil,
            FunctionCode::READ_DISCRETE_INPUTS => Table::DiscreteInput,
            FunctionCode::READ_HOLDING_REGISTERS | FunctionCode::READ_WRITE_MULTIPLE_REGISTERS => {
                Table::HoldingRegister
            }
            FunctionCode::READ_INPUT_REGISTERS => Table::InputRegister,
            _ => return None,
        };
        Some(Range {
            table,
            start: word(self.pdu, 1),
            count: word(self.pdu, 3),
        })
    }

    /// What is written: functions 5, 6, 15, 16, 22, and the write half of 23.
    pub fn write(&self) -> Option<Write<'a>> {
        let pdu = self.pdu;
        let (table, start, count, values) = match self.function() {
            FunctionCode::WRITE_SINGLE_COIL => {
                let value = match word(pdu, 3) {
                    0 => Values::Coil(false),
                    COIL_ON => Values::Coil(true),
                    other => Values::Register(other),
                };
                (Table::Coil, word(pdu, 1), 1, value)
            }
            FunctionCode::WRITE_SINGLE_REGISTER => {
                let value = Values::Register(word(pdu, 3));
                (Table::HoldingRegister, word(pdu, 1), 1, value)
            }
            FunctionCode::WRITE_MULTIPLE_COILS => {
                let count = word(pdu, 3);
                let bits = &pdu[6..];
                (
                    Table::Coil,
                    word(pdu, 1),
                    count,
                    Values::Coils { bits, count },
                )
            }
            FunctionCode::WRITE_MULTIPLE_REGISTERS => {
                let values = Values::Registers(&pdu[6..]);
                (Table::HoldingRegister, word(pdu, 1), word(pdu, 3), values)
            }
            FunctionCode::MASK_WRITE_REGISTER => {
                let (and, or) = (word(pdu, 3), word(pdu, 5));
                let values = Values::Mask { and, or };
                (Table::HoldingRegister, word(pdu, 1), 1, values)
            }
            FunctionCode::READ_WRITE_MULTIPLE_REGISTERS => {
                let values = Values::Registers(&pdu[10..]);
                (Table::HoldingRegister, word(pdu, 5), word(pdu, 7), values)
            }
            _ => return None,
        };
        let range = Range {
            table,
            start,
            count,
        };
        Some(Write { range, values })
    }

    /// Function 8: the sub-function. Function 43: the MEI type.
    pub fn sub_function(&self) -> Option<u16> {
        match self.function() {
            FunctionCode::DIAGNOSTICS => Some(word(self.pdu, 1)),
            FunctionCode::ENCAPSULATED_INTERFACE => Some(u16::from(self.pdu[1])),
            _ => None,
        }
    }

    /// False only for what certainly is a pure read. Diagnostics that restart, silence or
    /// clear a device, and every code of unknown meaning, count as changing it.
    pub fn changes_state(&self) -> bool {
        match self.function() {
            FunctionCode::READ_COILS
            | FunctionCode::READ_DISCRETE_INPUTS
            | FunctionCode::READ_HOLDING_REGISTERS
            | FunctionCode::READ_INPUT_REGISTERS
            | FunctionCode::READ_EXCEPTION_STATUS
            | FunctionCode::GET_COMM_EVENT_COUNTER
            | FunctionCode::GET_COMM_EVENT_LOG
            | FunctionCode::REPORT_SERVER_ID
            | FunctionCode::READ_FILE_RECORD
            | FunctionCode::READ_FIFO_QUEUE => false,
            FunctionCode::DIAGNOSTICS => !matches!(self.sub_function(), Some(0 | 2 | 11..=18)),
            FunctionCode::ENCAPSULATED_INTERFACE => {
                self.sub_function() != Some(u16::from(MEI_DEVICE_IDENTIFICATION))
            }
            _ => true,
        }
    }
}

/// What a request writes, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    pub range: Range,
    pub values: Values<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values<'a> {
    /// Function 15: `count` coils, the first in the lowest bit of the first byte.
    Coils { bits: &'a [u8], count: u16 },
    /// Functions 16 and 23: big-endian words.
    Registers(&'a [u8]),
    /// Function 5.
    Coil(bool),
    /// Function 6, and 5 with a value that is none of a coil.
    Register(u16),
    /// Function 22: the register becomes `(it & and) | (or & !and)`.
    Mask { and: u16, or: u16 },
}

impl<'a> Values<'a> {
    /// The values as written, coils as 0 and 1. A mask yields none: its result depends on
    /// what the register holds.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<'a> {
        let values = *self;
        (0..values.len()).map(move |index| values.at(index))
    }

    /// The value at `index`, from 0, as [`iter`](Self::iter) gives it.
    pub fn get(self, index: usize) -> Option<u16> {
        (index < self.len()).then(|| self.at(index))
    }

    fn len(self) -> usize {
        match self {
            Self::Coils { count, .. } => usize::from(count),
            Self::Registers(words) => words.len() / 2,
            Self::Coil(_) | Self::Register(_) => 1,
            Self::Mask { .. } => 0,
        }
    }

    /// `index` is below [`len`](Self::len).
    fn at(self, index: usize) -> u16 {
        match self {
            Self::Coils { bits, .. } => {
                let byte = bits.get(index / 8).copied().unwrap_or_default();
                u16::from(byte >> (index % 8) & 1)
            }
            Self::Registers(words) => word(words, 2 * index),
            Self::Coil(on) => u16::from(on),
            Self::Register(value) => value,
            Self::Mask { .. } => 0,
        }
    }
}

/// A PDU that is no valid request, and the exception that tells its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The first byte of the PDU, 0 if it is empty.
    pub function: u8,
    pub exception: Exception,
    pub what: &'static str,
}

/// `function 3 (0x03) read-holding-registers: quantity outside 1 to 125`
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function {}: {}", FunctionCode(self.function), self.what)
    }
}

impl std::error::Error for Malformed {}

/// The big-endian word at `at`, which the caller knows to be there.
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
