//! What section 6 demands of each function's request: length, quantities, byte counts,
//! address ranges, and the values that it leaves no choice in.

use super::{
    COIL_ON, MAX_READ_BITS, MAX_READ_REGISTERS, MAX_READ_WRITE_REGISTERS, MAX_WRITE_COILS,
    MAX_WRITE_REGISTERS, MEI_DEVICE_IDENTIFICATION, Malformed, word,
};
use crate::exception::{EXCEPTION_BIT, Exception};
use crate::function::FunctionCode;
use crate::mbap::MAX_PDU;

/// The only reference type of file records (section 6.14).
const FILE_REFERENCE: u8 = 6;
/// A file has records 0 to 9999 (section 6.14).
const RECORDS_PER_FILE: u32 = 10_000;

/// Accepts a PDU that is a valid request. `any_coil`: function 5 may have any value.
pub(super) fn check(pdu: &[u8], any_coil: bool) -> Result<(), Malformed> {
    let (&function, body) = pdu.split_first().ok_or(Malformed {
        function: 0,
        exception: Exception::IllegalFunction,
        what: "empty PDU",
    })?;
    if pdu.len() > MAX_PDU {
        return Err(Flaw::value("PDU longer than 253 bytes: not carried").of(function));
    }
    check_body(function, body, any_coil).map_err(|flaw| flaw.of(function))
}

/// `body` is what follows the function code.
fn check_body(function: u8, body: &[u8], any_coil: bool) -> Result<(), Flaw> {
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
        FunctionCode::WRITE_SINGLE_COIL => check_write_coil(body, any_coil),
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

fn check_write_coil(body: &[u8], any_coil: bool) -> Result<(), Flaw> {
    exactly(body, 4, "PDU not 5 bytes")?;
    match word(body, 2) {
        0x0000 | COIL_ON => Ok(()),
        _ if any_coil => Ok(()),
        _ => Err(Flaw::value(
            "coil value neither 0x0000 nor 0xFF00: if the device takes others, \
             add quirks = [\"coil-any-value\"] to its [[device]]",
        )),
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
