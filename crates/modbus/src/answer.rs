//! Does an answer answer its request? A server that confuses two requests, or a stray
//! answer that comes late, is noticed here and not in the client.

#[cfg(test)]
mod tests;

use crate::exception::EXCEPTION_BIT;
use crate::function::FunctionCode;
use crate::mbap::MAX_PDU;
use crate::pdu::{MEI_DEVICE_IDENTIFICATION, Request, word};
use crate::quirk::{Quirk, Quirks};

/// Longest answer that is kept whole for comparison: function 22.
const HEAD_LEN: usize = 7;
/// Most registers in a FIFO queue (section 6.18).
const MAX_FIFO_COUNT: u16 = 31;
/// Status, event count and message count of function 12, and with 64 events (section 6.10).
const EVENT_LOG_BYTES: (u8, u8) = (6, 70);

/// What an answer to one request must look like. Small, and independent of the request's
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    function: u8,
    shape: Shape,
}

const _: () = assert!(size_of::<Expected>() <= 24);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Functions 1 to 4 and 23: a byte count of exactly this, and so many bytes.
    Data { bytes: u8 },
    /// The first `len` bytes of the request and no more.
    Head { head: [u8; HEAD_LEN], len: u8 },
    /// The whole request, too long to keep: its length and digest.
    Whole { len: u8, digest: u64 },
    /// So many bytes with any content.
    Fixed { len: u8 },
    /// Diagnostics: the sub-function comes back, the data is the device's. With `len` 0 the
    /// length is the device's too.
    Diagnostics { sub_function: u16, len: u8 },
    /// Functions 12 and 17: a byte count within these bounds, and so many bytes.
    Counted { min: u8, max: u8 },
    /// Function 20: so many groups, each with its own length.
    FileRecords { groups: u8 },
    /// Function 24.
    Fifo,
    /// Function 43, device identification with this read code.
    DeviceIdentification { code: u8 },
    /// Function 43, other MEI types.
    Encapsulated { mei: u8 },
    /// A code of unknown meaning.
    Opaque,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Normal,
    /// With the code, never 0, which need not be one that the specification knows.
    Exception(u8),
}

/// Why an answer does not belong to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("answer without a function code")]
    Empty,
    #[error("answer of {got} bytes, allowed 1 to 253")]
    TooLong { got: usize },
    #[error("answer with function {got}, expected {expected}")]
    Function { got: u8, expected: u8 },
    #[error("answer of {got} bytes, expected {expected}")]
    Length { got: usize, expected: usize },
    #[error("answer with byte count {got}, expected {expected}")]
    ByteCount { got: usize, expected: usize },
    #[error("answer with byte count {got}, allowed {min} to {max}")]
    ByteCountBounds { got: u8, min: u8, max: u8 },
    #[error("answer does not repeat the request")]
    Echo,
    #[error("answer with sub-function {got}, expected {expected}")]
    SubFunction { got: u16, expected: u16 },
    #[error("answer with {got} file record groups, expected {expected}")]
    FileGroups { got: u8, expected: u8 },
    #[error("file record group {group} is not consistent in itself")]
    FileGroup { group: u8 },
    #[error("answer with {got} registers from a FIFO queue, allowed 0 to 31")]
    FifoCount { got: u16 },
    #[error("device identification object {object} is cut short")]
    IdentificationObject { object: u8 },
    #[error("exception answer of {got} bytes, expected 2")]
    ExceptionLength { got: usize },
    #[error("exception answer with code 0")]
    ExceptionCode,
}

impl Expected {
    pub fn of(request: &Request<'_>) -> Self {
        let pdu = request.pdu();
        let shape = match request.function() {
            FunctionCode::READ_COILS | FunctionCode::READ_DISCRETE_INPUTS => Shape::Data {
                bytes: word(pdu, 3).div_ceil(8) as u8,
            },
            FunctionCode::READ_HOLDING_REGISTERS
            | FunctionCode::READ_INPUT_REGISTERS
            | FunctionCode::READ_WRITE_MULTIPLE_REGISTERS => Shape::Data {
                bytes: (2 * word(pdu, 3)) as u8,
            },
            FunctionCode::WRITE_SINGLE_COIL
            | FunctionCode::WRITE_SINGLE_REGISTER
            | FunctionCode::WRITE_MULTIPLE_COILS
            | FunctionCode::WRITE_MULTIPLE_REGISTERS => Shape::head(&pdu[..5]),
            FunctionCode::MASK_WRITE_REGISTER => Shape::head(&pdu[..7]),
            FunctionCode::READ_EXCEPTION_STATUS => Shape::Fixed { len: 2 },
            FunctionCode::GET_COMM_EVENT_COUNTER => Shape::Fixed { len: 5 },
            FunctionCode::GET_COMM_EVENT_LOG => Shape::Counted {
                min: EVENT_LOG_BYTES.0,
                max: EVENT_LOG_BYTES.1,
            },
            FunctionCode::REPORT_SERVER_ID => Shape::Counted { min: 0, max: 251 },
            FunctionCode::DIAGNOSTICS => Shape::diagnostics(pdu),
            FunctionCode::READ_FILE_RECORD => Shape::FileRecords { groups: pdu[1] / 7 },
            FunctionCode::WRITE_FILE_RECORD => Shape::whole(pdu),
            FunctionCode::READ_FIFO_QUEUE => Shape::Fifo,
            FunctionCode::ENCAPSULATED_INTERFACE => match pdu[1] {
                MEI_DEVICE_IDENTIFICATION => Shape::DeviceIdentification { code: pdu[2] },
                mei => Shape::Encapsulated { mei },
            },
            _ => Shape::Opaque,
        };
        Self {
            function: pdu[0],
            shape,
        }
    }

    pub fn function(&self) -> u8 {
        self.function
    }

    /// Judges an answer PDU of any content and length.
    pub fn check(&self, answer: &[u8]) -> Result<Answer, Mismatch> {
        let (&function, body) = answer.split_first().ok_or(Mismatch::Empty)?;
        if answer.len() > MAX_PDU {
            return Err(Mismatch::TooLong { got: answer.len() });
        }
        if function == self.function | EXCEPTION_BIT {
            return check_exception(body);
        }
        if function != self.function {
            return Err(Mismatch::Function {
                got: function,
                expected: self.function,
            });
        }
        self.shape.check(answer, body)?;
        Ok(Answer::Normal)
    }

    /// As [`check`](Self::check), of a device whose registers may have four octets.
    pub fn check_of(&self, answer: &[u8], quirks: Quirks) -> Result<Answer, Mismatch> {
        let four = quirks.contains(Quirk::FourByteRegisters);
        match self.check(answer) {
            Err(_) if four && self.has_four_octets(answer) => Ok(Answer::Normal),
            checked => checked,
        }
    }

    /// Whether it is an answer to function 3 or 4 with four octets for each register asked.
    pub(crate) fn has_four_octets(&self, answer: &[u8]) -> bool {
        let registers =
            FunctionCode::READ_HOLDING_REGISTERS.0..=FunctionCode::READ_INPUT_REGISTERS.0;
        match (self.shape, answer) {
            (Shape::Data { bytes }, [function, got, data @ ..]) => {
                registers.contains(function)
                    && *function == self.function
                    && usize::from(*got) == 2 * usize::from(bytes)
                    && data.len() == usize::from(*got)
            }
            _ => false,
        }
    }
}

impl Shape {
    /// `start` has up to [`HEAD_LEN`] bytes.
    fn head(start: &[u8]) -> Self {
        let mut head = [0; HEAD_LEN];
        head[..start.len()].copy_from_slice(start);
        Self::Head {
            head,
            len: start.len() as u8,
        }
    }

    fn whole(pdu: &[u8]) -> Self {
        Self::Whole {
            len: pdu.len() as u8,
            digest: digest(pdu),
        }
    }

    /// Section 6.8.1. Sub-functions 19 and from 21 are reserved, their answers unknown.
    fn diagnostics(pdu: &[u8]) -> Self {
        match word(pdu, 1) {
            0 => Self::whole(pdu),
            1 | 3 | 4 | 10 | 20 => Self::head(pdu),
            sub_function @ (2 | 11..=18) => Self::Diagnostics {
                sub_function,
                len: 5,
            },
            sub_function => Self::Diagnostics {
                sub_function,
                len: 0,
            },
        }
    }

    /// `answer` is the PDU with a function code that fits, `body` what follows the code.
    fn check(&self, answer: &[u8], body: &[u8]) -> Result<(), Mismatch> {
        match *self {
            Self::Data { bytes } => check_data(body, bytes),
            Self::Head { head, len } => check_head(answer, &head[..usize::from(len)]),
            Self::Whole { len, digest } => check_whole(answer, usize::from(len), digest),
            Self::Fixed { len } => check_len(answer, usize::from(len)),
            Self::Diagnostics { sub_function, len } => check_diagnostics(answer, sub_function, len),
            Self::Counted { min, max } => check_counted(body, min, max),
            Self::FileRecords { groups } => check_file_records(body, groups),
            Self::Fifo => check_fifo(answer),
            Self::DeviceIdentification { code } => check_device_identification(answer, code),
            Self::Encapsulated { mei } => check_mei(answer, mei),
            Self::Opaque => Ok(()),
        }
    }
}

fn check_exception(body: &[u8]) -> Result<Answer, Mismatch> {
    match body {
        [0] => Err(Mismatch::ExceptionCode),
        [code] => Ok(Answer::Exception(*code)),
        _ => Err(Mismatch::ExceptionLength {
            got: body.len() + 1,
        }),
    }
}

fn check_data(body: &[u8], bytes: u8) -> Result<(), Mismatch> {
    let expected = usize::from(bytes);
    match body.split_first() {
        Some((&got, data)) if got == bytes && data.len() == expected => Ok(()),
        Some((&got, _)) if got != bytes => Err(Mismatch::ByteCount {
            got: usize::from(got),
            expected,
        }),
        _ => Err(Mismatch::Length {
            got: body.len() + 1,
            expected: expected + 2,
        }),
    }
}

fn check_head(answer: &[u8], head: &[u8]) -> Result<(), Mismatch> {
    check_len(answer, head.len())?;
    if answer == head {
        Ok(())
    } else {
        Err(Mismatch::Echo)
    }
}

fn check_whole(answer: &[u8], len: usize, expected: u64) -> Result<(), Mismatch> {
    check_len(answer, len)?;
    if digest(answer) == expected {
        Ok(())
    } else {
        Err(Mismatch::Echo)
    }
}

fn check_diagnostics(answer: &[u8], sub_function: u16, len: u8) -> Result<(), Mismatch> {
    match len {
        0 if answer.len() >= 3 => {}
        0 => check_len(answer, 3)?,
        len => check_len(answer, usize::from(len))?,
    }
    check_sub_function(word(answer, 1), sub_function)
}

fn check_counted(body: &[u8], min: u8, max: u8) -> Result<(), Mismatch> {
    let Some((&got, data)) = body.split_first() else {
        return Err(Mismatch::Length {
            got: 1,
            expected: 2 + usize::from(min),
        });
    };
    if !(min..=max).contains(&got) {
        return Err(Mismatch::ByteCountBounds { got, min, max });
    }
    check_len(data, usize::from(got)).map_err(|_| Mismatch::Length {
        got: 2 + data.len(),
        expected: 2 + usize::from(got),
    })
}

/// Section 6.14: byte count, then for each group its length, reference type 6 and records.
fn check_file_records(body: &[u8], expected: u8) -> Result<(), Mismatch> {
    check_counted(body, 0, 251)?;
    let mut groups = &body[1..];
    let mut got = 0;
    while let [len, rest @ ..] = groups {
        match rest.split_at_checked(usize::from(*len)) {
            Some(([6, records @ ..], next)) if records.len() % 2 == 0 => groups = next,
            _ => return Err(Mismatch::FileGroup { group: got }),
        }
        got += 1;
    }
    if got == expected {
        Ok(())
    } else {
        Err(Mismatch::FileGroups { got, expected })
    }
}

/// Section 6.18: byte count and register count, both two bytes wide, then the registers.
fn check_fifo(answer: &[u8]) -> Result<(), Mismatch> {
    if answer.len() < 5 {
        return check_len(answer, 5);
    }
    let (bytes, count) = (usize::from(word(answer, 1)), word(answer, 3));
    if count > MAX_FIFO_COUNT {
        return Err(Mismatch::FifoCount { got: count });
    }
    let expected = 2 + 2 * usize::from(count);
    if bytes != expected {
        return Err(Mismatch::ByteCount {
            got: bytes,
            expected,
        });
    }
    check_len(answer, 3 + expected)
}

/// Section 6.21: MEI type, read code, conformity, more follows, next object, number of
/// objects, then id, length and value of each.
fn check_device_identification(answer: &[u8], code: u8) -> Result<(), Mismatch> {
    check_mei(answer, MEI_DEVICE_IDENTIFICATION)?;
    let [_, _, got, _, _, _, objects, list @ ..] = answer else {
        return check_len(answer, 7);
    };
    if *got != code {
        return Err(Mismatch::SubFunction {
            got: u16::from(*got),
            expected: u16::from(code),
        });
    }
    let mut list = list;
    for object in 0..*objects {
        list = match list {
            [_, len, rest @ ..] => rest.get(usize::from(*len)..),
            _ => None,
        }
        .ok_or(Mismatch::IdentificationObject { object })?;
    }
    check_len(answer, answer.len() - list.len())
}

fn check_mei(answer: &[u8], expected: u8) -> Result<(), Mismatch> {
    match answer {
        [_, mei, ..] => check_sub_function(u16::from(*mei), u16::from(expected)),
        _ => check_len(answer, 2),
    }
}

fn check_sub_function(got: u16, expected: u16) -> Result<(), Mismatch> {
    if got == expected {
        Ok(())
    } else {
        Err(Mismatch::SubFunction { got, expected })
    }
}

fn check_len(bytes: &[u8], expected: usize) -> Result<(), Mismatch> {
    if bytes.len() == expected {
        Ok(())
    } else {
        Err(Mismatch::Length {
            got: bytes.len(),
            expected,
        })
    }
}

/// FNV-1a. It finds mistakes, not forgeries: a device can answer what it likes anyway.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
