//! Modbus RTU as a client on a serial line (*Modbus over Serial Line* V1.02, section 2.5.1):
//! unit id, PDU, CRC with the low byte first.
//!
//! The specification ends a frame by silence of 3.5 characters, but operating systems and
//! USB adapters deliver bytes in bursts with gaps of their own. So an answer is read to the
//! length that its function and byte count state, and silence ends only what states none.

use std::time::Duration;

use crate::exception::EXCEPTION_BIT;
use crate::function::FunctionCode;
use crate::mbap::MAX_PDU;
use crate::pdu::{MEI_DEVICE_IDENTIFICATION, word};

/// Longest ADU on a serial line in bytes.
pub const MAX_ADU: usize = 256;
/// Unit id that every server hears and none answers.
pub const BROADCAST: u8 = 0;

/// Unit id and CRC around a PDU, in bytes.
const OVERHEAD: usize = 3;
/// Unit id, function code and CRC.
const MIN_ADU: usize = 4;
/// Start, eight data bits, parity or second stop bit, stop: section 2.5.1.
const BITS_PER_CHAR: u64 = 11;
/// Start, eight data bits, one stop bit and no parity, as some lines are set against the standard.
const LEAST_BITS_PER_CHAR: u64 = 10;
/// Above 19200 baud the silence is fixed, to spare the receiver's interrupts (section 2.5.1.1).
const FAST_BAUD: u32 = 19_200;
const FAST_SILENCE: Duration = Duration::from_micros(1_750);

const _: () = assert!(OVERHEAD + MAX_PDU == MAX_ADU);

/// How far `buffer` has come towards an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// At least so many further bytes, never 0. A frame that stops short stays here until
    /// the request's deadline: a gap inside it proves nothing.
    NeedMore { at_least: usize },
    /// Nothing but silence ends this frame. Call again when more bytes came, or the line was
    /// quiet for the frame gap.
    UntilSilence,
    /// Complete, with a CRC that fits. Bytes after it are ignored: transceivers often add
    /// one when they turn the line around.
    Frame { unit: u8, pdu: &'a [u8] },
}

/// Why bytes on the line are no answer. Drain the line until it is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtuError {
    #[error("CRC {got:#06x}, computed {computed:#06x}")]
    Crc { got: u16, computed: u16 },
    #[error("frame of {got} bytes, at least 4 expected")]
    TooShort { got: usize },
    #[error("frame of {got} bytes, at most 256 allowed")]
    TooLong { got: usize },
}

/// Looks for one answer at the start of `buffer`. `silent`: the line has been quiet for the
/// frame gap since the last byte.
pub fn decode_answer(buffer: &[u8], silent: bool) -> Result<Progress<'_>, RtuError> {
    let len = match stated_len(buffer) {
        Stated::Exactly(len) => len,
        Stated::AtLeast(len) => {
            return fits(len).map(|()| Progress::NeedMore {
                at_least: len - buffer.len(),
            });
        }
        Stated::Nothing => {
            fits(buffer.len())?;
            if !silent {
                return Ok(Progress::UntilSilence);
            }
            buffer.len()
        }
    };
    fits(len)?;
    match buffer.get(..len) {
        Some(frame) => check_frame(frame),
        None => Ok(Progress::NeedMore {
            at_least: len - buffer.len(),
        }),
    }
}

/// Appends one frame. `pdu` has 1 to 253 bytes.
pub fn encode(out: &mut Vec<u8>, unit: u8, pdu: &[u8]) {
    debug_assert!((1..=MAX_PDU).contains(&pdu.len()));
    let start = out.len();
    out.push(unit);
    out.extend_from_slice(pdu);
    let crc = crc(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// CRC-16/MODBUS: reflected 0x8005, starting from 0xFFFF (section 2.5.1.2).
pub fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        crc >> 8 ^ CRC_TABLE[usize::from(crc as u8 ^ byte)]
    })
}

/// The time of one character of 11 bits. A speed of 0 is taken for 1.
pub fn char_time(baud: u32) -> Duration {
    Duration::from_nanos(BITS_PER_CHAR * 1_000_000_000 / u64::from(baud.max(1)))
}

/// The least time that so many characters take on the wire: 10 bits each, without parity and with
/// one stop bit.
pub fn least_time(baud: u32, chars: usize) -> Duration {
    let bits = LEAST_BITS_PER_CHAR * chars as u64;
    Duration::from_nanos(bits * 1_000_000_000 / u64::from(baud.max(1)))
}

/// The silence before each frame: 3.5 characters, above 19200 baud 1.75 ms.
pub fn silent_interval(baud: u32) -> Duration {
    if baud > FAST_BAUD {
        FAST_SILENCE
    } else {
        char_time(baud) * 7 / 2
    }
}

/// What the bytes received so far say about the length of the whole ADU.
enum Stated {
    Exactly(usize),
    /// More than there is: the length is behind bytes that have not come yet.
    AtLeast(usize),
    Nothing,
}

fn stated_len(buffer: &[u8]) -> Stated {
    let [_, function, body @ ..] = buffer else {
        return Stated::AtLeast(MIN_ADU);
    };
    let answer_len = match FunctionCode(*function) {
        FunctionCode(EXCEPTION_BIT..) | FunctionCode::READ_EXCEPTION_STATUS => 2,
        FunctionCode::WRITE_SINGLE_COIL
        | FunctionCode::WRITE_SINGLE_REGISTER
        | FunctionCode::WRITE_MULTIPLE_COILS
        | FunctionCode::WRITE_MULTIPLE_REGISTERS
        | FunctionCode::GET_COMM_EVENT_COUNTER => 5,
        FunctionCode::MASK_WRITE_REGISTER => 7,
        FunctionCode::READ_COILS
        | FunctionCode::READ_DISCRETE_INPUTS
        | FunctionCode::READ_HOLDING_REGISTERS
        | FunctionCode::READ_INPUT_REGISTERS
        | FunctionCode::GET_COMM_EVENT_LOG
        | FunctionCode::REPORT_SERVER_ID
        | FunctionCode::READ_FILE_RECORD
        | FunctionCode::WRITE_FILE_RECORD
        | FunctionCode::READ_WRITE_MULTIPLE_REGISTERS => match body {
            [bytes, ..] => 2 + usize::from(*bytes),
            [] => return Stated::AtLeast(1 + MIN_ADU),
        },
        FunctionCode::READ_FIFO_QUEUE => match body {
            [_, _, ..] => 3 + usize::from(word(body, 0)),
            _ => return Stated::AtLeast(2 + MIN_ADU),
        },
        FunctionCode::DIAGNOSTICS => match body {
            [0, 1..=4 | 10..=18 | 20, ..] => 5,
            [_, _, ..] => return Stated::Nothing,
            _ => return Stated::AtLeast(2 + MIN_ADU),
        },
        FunctionCode::ENCAPSULATED_INTERFACE => match body {
            [MEI_DEVICE_IDENTIFICATION, rest @ ..] => return stated_identification_len(rest),
            [_, ..] => return Stated::Nothing,
            [] => return Stated::AtLeast(1 + MIN_ADU),
        },
        _ => return Stated::Nothing,
    };
    Stated::Exactly(OVERHEAD + answer_len)
}

/// Device identification (section 6.21): the list of objects has to be walked. `rest` is
/// what follows the MEI type: four bytes, the number of objects, the objects.
fn stated_identification_len(rest: &[u8]) -> Stated {
    const BEFORE_OBJECTS: usize = 7;
    let [_, _, _, _, objects, list @ ..] = rest else {
        return Stated::AtLeast(OVERHEAD + BEFORE_OBJECTS);
    };
    let mut end = 0;
    for _ in 0..*objects {
        match list.get(end + 1) {
            Some(len) => end += 2 + usize::from(*len),
            None => return Stated::AtLeast(OVERHEAD + BEFORE_OBJECTS + end + 2),
        }
    }
    Stated::Exactly(OVERHEAD + BEFORE_OBJECTS + end)
}

fn fits(len: usize) -> Result<(), RtuError> {
    if len > MAX_ADU {
        Err(RtuError::TooLong { got: len })
    } else {
        Ok(())
    }
}

fn check_frame(frame: &[u8]) -> Result<Progress<'_>, RtuError> {
    let [unit, pdu @ .., crc_low, crc_high] = frame else {
        return Err(RtuError::TooShort { got: frame.len() });
    };
    if pdu.is_empty() {
        return Err(RtuError::TooShort { got: frame.len() });
    }
    let got = u16::from_le_bytes([*crc_low, *crc_high]);
    let computed = crc(&frame[..frame.len() - 2]);
    if got != computed {
        return Err(RtuError::Crc { got, computed });
    }
    Ok(Progress::Frame { unit: *unit, pdu })
}

const CRC_TABLE: [u16; 256] = crc_table();

const fn crc_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u16;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xA001
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each answer as a PDU, known by its own length.
    const STATED: &[&[u8]] = &[
        &[1, 1, 0xAA],
        &[2, 2, 0xAA, 1],
        &[3, 4, 0, 1, 0, 2],
        &[4, 0],
        &[5, 0, 1, 0xFF, 0],
        &[6, 0, 1, 0, 2],
        &[7, 0x55],
        &[8, 0, 10, 0, 0],
        &[11, 0, 0, 0, 1],
        &[12, 6, 0, 0, 0, 0, 0, 0],
        &[15, 0, 1, 0, 9],
        &[16, 0, 1, 0, 2],
        &[17, 3, 1, 2, 0xFF],
        &[20, 4, 3, 6, 0, 1],
        &[21, 9, 6, 0, 1, 0, 2, 0, 1, 7, 8],
        &[22, 0, 1, 0, 2, 0, 3],
        &[23, 2, 1, 2],
        &[24, 0, 4, 0, 1, 9, 9],
        &[
            43, 14, 1, 1, 0, 0, 2, 0, 3, b'a', b'b', b'c', 1, 2, b'd', b'e',
        ],
        &[43, 14, 1, 1, 0, 0, 0],
        &[0x83, 2],
        &[0xDA, 1],
    ];

    /// Answers that state no length.
    const OPEN: &[&[u8]] = &[
        &[8, 0, 0, 1, 2],
        &[8, 0, 0],
        &[8, 0, 21, 0, 1, 2, 3, 4],
        &[43, 13, 1, 2, 3],
        &[90, 0, 0xFE],
        &[65],
    ];

    fn frame(pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, 17, pdu);
        out
    }

    #[test]
    fn crc_of_the_check_string_and_of_a_known_frame() {
        assert_eq!(crc(b"123456789"), 0x4B37);
        let mut out = Vec::new();
        encode(&mut out, 1, &[3, 0, 0, 0, 10]);
        assert_eq!(out, [1, 3, 0, 0, 0, 10, 0xC5, 0xCD]);
    }

    #[test]
    fn stated_lengths_end_a_frame_without_silence() {
        for &pdu in STATED {
            let bytes = frame(pdu);
            for end in 0..bytes.len() {
                for silent in [false, true] {
                    match decode_answer(&bytes[..end], silent) {
                        Ok(Progress::NeedMore { at_least }) => {
                            assert!((1..=bytes.len() - end).contains(&at_least), "{pdu:?} {end}");
                        }
                        other => panic!("{pdu:?} cut at {end}: {other:?}"),
                    }
                }
            }
            let whole = Ok(Progress::Frame { unit: 17, pdu });
            assert_eq!(decode_answer(&bytes, false), whole);
        }
    }

    #[test]
    fn open_lengths_end_by_silence_only() {
        for &pdu in OPEN {
            let bytes = frame(pdu);
            assert_eq!(decode_answer(&bytes, false), Ok(Progress::UntilSilence));
            assert_eq!(
                decode_answer(&bytes, true),
                Ok(Progress::Frame { unit: 17, pdu })
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = frame(&[3, 4, 0, 1, 0, 2]);
        for bit in 0..8 * bytes.len() {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let result = decode_answer(&bad, true);
            assert!(
                !matches!(result, Ok(Progress::Frame { .. })),
                "{bit}: {result:?}"
            );
        }
    }

    #[test]
    fn bytes_after_the_frame_are_ignored() {
        let mut bytes = frame(&[6, 0, 1, 0, 2]);
        bytes.push(0);
        let progress = decode_answer(&bytes, false).unwrap();
        assert_eq!(
            progress,
            Progress::Frame {
                unit: 17,
                pdu: &[6, 0, 1, 0, 2]
            }
        );
    }

    #[test]
    fn impossible_lengths_end_at_once() {
        assert_eq!(
            decode_answer(&[1, 3, 252], false),
            Err(RtuError::TooLong { got: 257 })
        );
        assert_eq!(
            decode_answer(&[1, 24, 0xFF, 0xFF], false),
            Err(RtuError::TooLong { got: 65541 })
        );
        assert_eq!(
            decode_answer(&[90; 257], false),
            Err(RtuError::TooLong { got: 257 })
        );
        // The second object can't fit behind the first, whatever its length.
        let objects = [1, 43, 14, 1, 1, 0, 0, 2, 0, 250];
        assert_eq!(
            decode_answer(&objects, false),
            Err(RtuError::TooLong { got: 264 })
        );
    }

    #[test]
    fn garbage_that_silence_ends() {
        assert_eq!(
            decode_answer(&[90, 90], true),
            Err(RtuError::TooShort { got: 2 })
        );
        assert_eq!(
            decode_answer(&[90, 90, 0], true),
            Err(RtuError::TooShort { got: 3 })
        );
        assert!(matches!(
            decode_answer(&[90; 9], true),
            Err(RtuError::Crc { .. })
        ));
    }

    #[test]
    fn times_on_the_line() {
        assert_eq!(char_time(9600), Duration::from_nanos(1_145_833));
        assert_eq!(silent_interval(9600), Duration::from_nanos(4_010_415));
        assert_eq!(silent_interval(19_200).as_micros(), 2_005);
        assert_eq!(silent_interval(38_400), Duration::from_micros(1_750));
        assert_eq!(silent_interval(115_200), Duration::from_micros(1_750));
        assert!(char_time(0) > Duration::ZERO);
        assert_eq!(least_time(9600, 16), Duration::from_nanos(16_666_666));
        assert!(least_time(9600, 16) < 16 * char_time(9600));
    }
}
