//! Requests, validated to the last byte (section 6), as views on the bytes they came in.

use std::fmt;

use crate::exception::{EXCEPTION_BIT, Exception};
use crate::function::FunctionCode;
use crate::mbap::MAX_PDU;

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
/// The only reference type of file records (section 6.14).
const FILE_REFERENCE: u8 = 6;
/// A file has records 0 to 9999 (section 6.14).
const RECORDS_PER_FILE: u32 = 10_000;

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
    /// 1 to [`MAX_PDU`] bytes.
    pdu: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn parse(pdu: &'a [u8]) -> Result<Request<'a>, Malformed> {
        let (&function, body) = pdu.split_first().ok_or(Malformed {
            function: 0,
            exception: Exception::IllegalFunction,
            what: "empty PDU",
        })?;
        if pdu.len() > MAX_PDU {
            return Err(Flaw::value("PDU longer than 253 bytes").of(function));
        }
        match check_body(function, body) {
            Ok(()) => Ok(Request { pdu }),
            Err(flaw) => Err(flaw.of(function)),
        }
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
                let value = Values::Coil(word(pdu, 3) == COIL_ON);
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
    /// Function 6.
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

/// A [`Malformed`] that does not know its function yet.
struct Flaw {
    exception: Exception,
    what: &'static str,
}

impl Flaw {
    fn value(what: &'static str) -> Self {
        Self {
            exception: Exception::IllegalDataValue,
            what,
        }
    }

    fn address(what: &'static str) -> Self {
        Self {
            exception: Exception::IllegalDataAddress,
            what,
        }
    }

    fn function(what: &'static str) -> Self {
        Self {
            exception: Exception::IllegalFunction,
            what,
        }
    }

    fn of(self, function: u8) -> Malformed {
        Malformed {
            function,
            exception: self.exception,
            what: self.what,
        }
    }
}

fn check_body(function: u8, body: &[u8]) -> Result<(), Flaw> {
    match FunctionCode(function) {
        FunctionCode(0) => Err(Flaw::function("function code 0 is not a request")),
        FunctionCode(EXCEPTION_BIT..) => Err(Flaw::function(
            "function codes from 128 are answers, not requests",
        )),
        FunctionCode::READ_COILS | FunctionCode::READ_DISCRETE_INPUTS => {
            check_read(body, MAX_READ_BITS, "quantity outside 1 to 2000")
        }
        FunctionCode::READ_HOLDING_REGISTERS | FunctionCode::READ_INPUT_REGISTERS => {
            check_read(body, MAX_READ_REGISTERS, "quantity outside 1 to 125")
        }
        FunctionCode::WRITE_SINGLE_COIL => check_write_coil(body),
        FunctionCode::WRITE_SINGLE_REGISTER => exactly(body, 4, "PDU not 5 bytes"),
        FunctionCode::READ_EXCEPTION_STATUS
        | FunctionCode::GET_COMM_EVENT_COUNTER
        | FunctionCode::GET_COMM_EVENT_LOG
        | FunctionCode::REPORT_SERVER_ID => exactly(body, 0, "PDU not 1 byte"),
        FunctionCode::DIAGNOSTICS => check_diagnostics(body),
        FunctionCode::WRITE_MULTIPLE_COILS => check_write_coils(body),
        FunctionCode::WRITE_MULTIPLE_REGISTERS => check_write_registers(
            body,
            MAX_WRITE_REGISTERS,
            "quantity to write outside 1 to 123",
        ),
        FunctionCode::READ_FILE_RECORD => check_read_file(body),
        FunctionCode::WRITE_FILE_RECORD => check_write_file(body),
        FunctionCode::MASK_WRITE_REGISTER => exactly(body, 6, "PDU not 7 bytes"),
        FunctionCode::READ_WRITE_MULTIPLE_REGISTERS => check_read_write(body),
        FunctionCode::READ_FIFO_QUEUE => exactly(body, 2, "PDU not 3 bytes"),
        FunctionCode::ENCAPSULATED_INTERFACE => check_encapsulated(body),
        _ => Ok(()),
    }
}

fn check_read(body: &[u8], max: u16, quantity_flaw: &'static str) -> Result<(), Flaw> {
    exactly(body, 4, "PDU not 5 bytes")?;
    check_range(word(body, 0), word(body, 2), max, quantity_flaw)
}

fn check_write_coil(body: &[u8]) -> Result<(), Flaw> {
    exactly(body, 4, "PDU not 5 bytes")?;
    match word(body, 2) {
        0x0000 | COIL_ON => Ok(()),
        _ => Err(Flaw::value("coil value neither 0x0000 nor 0xFF00")),
    }
}

fn check_write_coils(body: &[u8]) -> Result<(), Flaw> {
    let [
        start_high,
        start_low,
        count_high,
        count_low,
        bytes,
        bits @ ..,
    ] = body
    else {
        return Err(Flaw::value("PDU shorter than 6 bytes"));
    };
    let start = u16::from_be_bytes([*start_high, *start_low]);
    let count = u16::from_be_bytes([*count_high, *count_low]);
    check_range(
        start,
        count,
        MAX_WRITE_COILS,
        "quantity to write outside 1 to 1968",
    )?;
    if usize::from(*bytes) != usize::from(count).div_ceil(8) {
        return Err(Flaw::value("byte count does not fit the quantity"));
    }
    exactly(
        bits,
        usize::from(*bytes),
        "byte count does not fit the length of the PDU",
    )
}

/// Start, quantity, byte count and words: all of function 16, the second half of 23.
fn check_write_registers(body: &[u8], max: u16, quantity_flaw: &'static str) -> Result<(), Flaw> {
    let [
        start_high,
        start_low,
        count_high,
        count_low,
        bytes,
        words @ ..,
    ] = body
    else {
        return Err(Flaw::value("PDU too short for a register write"));
    };
    let start = u16::from_be_bytes([*start_high, *start_low]);
    let count = u16::from_be_bytes([*count_high, *count_low]);
    check_range(start, count, max, quantity_flaw)?;
    if usize::from(*bytes) != 2 * usize::from(count) {
        return Err(Flaw::value("byte count is not twice the quantity"));
    }
    exactly(
        words,
        usize::from(*bytes),
        "byte count does not fit the length of the PDU",
    )
}

fn check_read_write(body: &[u8]) -> Result<(), Flaw> {
    let Some((read, write)) = body.split_at_checked(4) else {
        return Err(Flaw::value("PDU shorter than 10 bytes"));
    };
    check_read(
        read,
        MAX_READ_REGISTERS,
        "quantity to read outside 1 to 125",
    )?;
    check_write_registers(
        write,
        MAX_READ_WRITE_REGISTERS,
        "quantity to write outside 1 to 121",
    )
}

/// Section 6.8: two bytes of data, only the echo (sub-function 0) may carry another amount.
fn check_diagnostics(body: &[u8]) -> Result<(), Flaw> {
    match body {
        [0, 0, ..] => Ok(()),
        [_, _, _, _] => Ok(()),
        [_, _, ..] => Err(Flaw::value("PDU not 5 bytes")),
        _ => Err(Flaw::value("no sub-function")),
    }
}

/// Section 6.14: byte count, then seven bytes for each sub-request.
fn check_read_file(body: &[u8]) -> Result<(), Flaw> {
    let groups = counted(body, 7..=245)?;
    let mut answer_len = 2;
    for group in groups.chunks(7) {
        let Some((record_count, [])) = check_file_group(group)? else {
            return Err(Flaw::value("byte count is not a multiple of 7"));
        };
        answer_len += 2 + 2 * usize::from(record_count);
    }
    if answer_len > MAX_PDU {
        return Err(Flaw::value("records asked for do not fit into one answer"));
    }
    Ok(())
}

/// Section 6.15: byte count, then seven bytes and the data for each sub-request.
fn check_write_file(body: &[u8]) -> Result<(), Flaw> {
    let mut groups = counted(body, 9..=251)?;
    while !groups.is_empty() {
        let (record_count, data) =
            check_file_group(groups)?.ok_or(Flaw::value("sub-request cut short"))?;
        groups = data
            .get(2 * usize::from(record_count)..)
            .ok_or(Flaw::value("record data shorter than the record length"))?;
    }
    Ok(())
}

/// The first sub-request of `groups`: its number of records, and what follows it. `None` if
/// there are fewer than seven bytes.
fn check_file_group(groups: &[u8]) -> Result<Option<(u16, &[u8])>, Flaw> {
    let Some((group, rest)) = groups.split_at_checked(7) else {
        return Ok(None);
    };
    if group[0] != FILE_REFERENCE {
        return Err(Flaw::address("reference type is not 6"));
    }
    let (file, record, count) = (word(group, 1), word(group, 3), word(group, 5));
    if file == 0 {
        return Err(Flaw::address("file number 0"));
    }
    if count == 0 {
        return Err(Flaw::value("record length 0"));
    }
    if u32::from(record) + u32::from(count) > RECORDS_PER_FILE {
        return Err(Flaw::address("record number beyond 9999"));
    }
    Ok(Some((count, rest)))
}

/// Section 6.21 for device identification; other MEI types are carried as they are.
fn check_encapsulated(body: &[u8]) -> Result<(), Flaw> {
    match body {
        [] => Err(Flaw::value("no MEI type")),
        [MEI_DEVICE_IDENTIFICATION, 1..=4, _] => Ok(()),
        [MEI_DEVICE_IDENTIFICATION, _, _] => {
            Err(Flaw::value("device identification code outside 1 to 4"))
        }
        [MEI_DEVICE_IDENTIFICATION, ..] => Err(Flaw::value("PDU not 4 bytes")),
        _ => Ok(()),
    }
}

/// A byte count and exactly so many bytes.
fn counted(body: &[u8], allowed: std::ops::RangeInclusive<u8>) -> Result<&[u8], Flaw> {
    let (bytes, rest) = body.split_first().ok_or(Flaw::value("no byte count"))?;
    if !allowed.contains(bytes) {
        return Err(Flaw::value("byte count out of bounds"));
    }
    exactly(
        rest,
        usize::from(*bytes),
        "byte count does not fit the length of the PDU",
    )?;
    Ok(rest)
}

fn check_range(start: u16, count: u16, max: u16, quantity_flaw: &'static str) -> Result<(), Flaw> {
    if !(1..=max).contains(&count) {
        return Err(Flaw::value(quantity_flaw));
    }
    if u32::from(start) + u32::from(count) > 0x1_0000 {
        return Err(Flaw::address("addresses beyond 65535"));
    }
    Ok(())
}

fn exactly(bytes: &[u8], len: usize, flaw: &'static str) -> Result<(), Flaw> {
    if bytes.len() == len {
        Ok(())
    } else {
        Err(Flaw::value(flaw))
    }
}

/// The big-endian word at `at`, which the caller knows to be there.
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
