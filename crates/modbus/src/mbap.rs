//! Modbus/TCP framing (*Modbus Messaging on TCP/IP* V1.0b, section 3.1.3).
//!
//! | bytes | field | allowed |
//! |---|---|---|
//! | 0-1 | transaction id | any |
//! | 2-3 | protocol id | 0 |
//! | 4-5 | length of what follows (unit id and PDU) | 2 to 254 |
//! | 6 | unit id | any |
//! | 7.. | PDU | 1 to 253 bytes |

use std::ops::RangeInclusive;

use crate::function::FunctionCode;

/// Header with the unit id, in bytes.
pub const HEADER_LEN: usize = 7;
/// Longest PDU in bytes (section 4.1).
pub const MAX_PDU: usize = 253;
/// Longest ADU on TCP in bytes.
pub const MAX_ADU: usize = 260;
/// Longest PDU of UMAS (function 90), which does not keep to the specification.
pub const MAX_UMAS_PDU: usize = 1022;
const UMAS: u8 = 90;
/// Lengths of function 16 with 124 to 127 registers: a unit, six bytes, and the registers.
const TOO_MANY: RangeInclusive<u16> = 7 + 2 * 124..=7 + 2 * 127;

const _: () = assert!(HEADER_LEN + MAX_PDU == MAX_ADU);

/// One frame, borrowed from the bytes it was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adu<'a> {
    pub transaction: u16,
    pub unit: u8,
    /// 1 to [`MAX_PDU`] bytes.
    pub pdu: &'a [u8],
}

/// Cuts the first frame off `input`: the frame and the number of bytes it took, or `None`
/// while it is incomplete. A header field is judged as soon as both its bytes are there, so
/// that a stream which isn't Modbus is known after 4 bytes and not after the length it seems
/// to state. After an error the stream has lost its framing: close it.
pub fn decode(input: &[u8]) -> Result<Option<(Adu<'_>, usize)>, FramingError> {
    decode_up_to(input, MAX_PDU)
}

/// As [`decode`], of requests: one of UMAS may have [`MAX_UMAS_PDU`] bytes, and one that writes 124 to
/// 127 registers by function 16, as several libraries let a program do, up to 260. It is no
/// [`Request`](crate::Request) then, but its sender can be told so, and what follows it is not lost.
pub fn decode_request(input: &[u8]) -> Result<Option<(Adu<'_>, usize)>, FramingError> {
    let decoded = decode(input);
    let Err(FramingError::Length { got }) = decoded else {
        return decoded;
    };
    let long = (MAX_PDU + 2..=MAX_UMAS_PDU + 1).contains(&usize::from(got));
    match input.get(HEADER_LEN) {
        None if long => Ok(None),
        Some(&UMAS) if long => decode_up_to(input, MAX_UMAS_PDU),
        Some(_) if TOO_MANY.contains(&got) => match writes_too_many(input, got) {
            Some(true) => decode_up_to(input, usize::from(got) - 1),
            Some(false) => decoded,
            None => Ok(None),
        },
        _ => decoded,
    }
}

/// Whether this is function 16, whose quantity and byte count agree with the length; `None` as long as
/// that can't be told.
fn writes_too_many(input: &[u8], length: u16) -> Option<bool> {
    let registers = (length - 7) / 2;
    let [high, low] = registers.to_be_bytes();
    let expected = [
        (7, FunctionCode::WRITE_MULTIPLE_REGISTERS.0),
        (10, high),
        (11, low),
        (12, (2 * registers) as u8),
    ];
    if length != 7 + 2 * registers {
        return Some(false);
    }
    for (at, expected) in expected {
        if *input.get(at)? != expected {
            return Some(false);
        }
    }
    Some(true)
}

fn decode_up_to(input: &[u8], max_pdu: usize) -> Result<Option<(Adu<'_>, usize)>, FramingError> {
    let Some(protocol) = word(input, 2) else {
        return Ok(None);
    };
    if protocol != 0 {
        return Err(FramingError::ProtocolId { got: protocol });
    }
    let Some(length) = word(input, 4) else {
        return Ok(None);
    };
    if !(2..=1 + max_pdu).contains(&usize::from(length)) {
        return Err(FramingError::Length { got: length });
    }
    let consumed = HEADER_LEN - 1 + usize::from(length);
    let Some(
        [
            transaction_high,
            transaction_low,
            _,
            _,
            _,
            _,
            unit,
            pdu @ ..,
        ],
    ) = input.get(..consumed)
    else {
        return Ok(None);
    };
    let adu = Adu {
        transaction: u16::from_be_bytes([*transaction_high, *transaction_low]),
        unit: *unit,
        pdu,
    };
    Ok(Some((adu, consumed)))
}

/// Appends one frame. `pdu` has 1 to [`MAX_PDU`] bytes: it comes from [`decode`], a
/// [`Request`](crate::Request) or a checked answer, never straight from a peer.
pub fn encode(out: &mut Vec<u8>, transaction: u16, unit: u8, pdu: &[u8]) {
    debug_assert!((1..=MAX_PDU).contains(&pdu.len()));
    let [transaction_high, transaction_low] = transaction.to_be_bytes();
    let [length_high, length_low] = (pdu.len() as u16 + 1).to_be_bytes();
    out.extend_from_slice(&[
        transaction_high,
        transaction_low,
        0,
        0,
        length_high,
        length_low,
        unit,
    ]);
    out.extend_from_slice(pdu);
}

/// Why bytes are not Modbus/TCP. Each variant says what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("MBAP length {got}, allowed 2 to 254")]
    Length { got: u16 },
    #[error("MBAP protocol identifier {got:#06x}, expected 0x0000")]
    ProtocolId { got: u16 },
}

fn word(input: &[u8], at: usize) -> Option<u16> {
    match input.get(at..at + 2)? {
        [high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_field_edges() {
        let header = |length: u16| [&[0, 1, 0, 0][..], &length.to_be_bytes(), &[9]].concat();
        for bad in [0, 1, 255, 256, 0xFFFF] {
            assert_eq!(
                decode(&header(bad)),
                Err(FramingError::Length { got: bad }),
                "{bad}"
            );
        }
        for good in [2, 3, 254] {
            assert_eq!(decode(&header(good)), Ok(None), "{good}");
        }
    }

    #[test]
    fn a_request_of_umas_may_be_longer() {
        let long = |function: u8, pdu: usize| {
            let length = (pdu as u16 + 1).to_be_bytes();
            let mut bytes = [&[0, 1, 0, 0][..], &length, &[9, function]].concat();
            bytes.resize(HEADER_LEN + pdu, 0);
            bytes
        };
        for pdu in [254, 255, MAX_UMAS_PDU] {
            let bytes = long(UMAS, pdu);
            for end in 0..bytes.len() {
                assert_eq!(decode_request(&bytes[..end]), Ok(None), "{end} of {pdu}");
            }
            let (adu, used) = decode_request(&bytes).unwrap().unwrap();
            assert_eq!((adu.pdu.len(), used), (pdu, bytes.len()));
            assert!(decode(&bytes).is_err());
        }
        for (function, pdu) in [
            (UMAS, MAX_UMAS_PDU + 1),
            (3, 254),
            (91, 300),
            (UMAS, 60_000),
        ] {
            let got = pdu as u16 + 1;
            let lost = Err(FramingError::Length { got });
            assert_eq!(
                decode_request(&long(function, pdu)),
                lost,
                "{function} {pdu}"
            );
        }
    }

    #[test]
    fn too_many_registers_are_cut_out_whole_and_refused() {
        for registers in 124..=127_u16 {
            let mut pdu = vec![16, 0, 7, 0, registers as u8, 2 * registers as u8];
            pdu.extend(vec![0x41; 2 * usize::from(registers)]);
            let length = (pdu.len() as u16 + 1).to_be_bytes();
            let stream = [&[0, 9, 0, 0], &length[..], &[5], &pdu, &[0, 10]].concat();
            let size = stream.len() - 2;
            for cut in 0..size {
                assert_eq!(
                    decode_request(&stream[..cut]),
                    Ok(None),
                    "{registers} {cut}"
                );
            }
            let (adu, used) = decode_request(&stream).unwrap().unwrap();
            assert_eq!((adu.unit, adu.pdu, used), (5, &pdu[..], size));
            let refused = crate::Request::parse(adu.pdu).unwrap_err();
            assert_eq!(refused.exception, crate::Exception::IllegalDataValue);
            // From a device it is no frame.
            assert!(decode(&stream).is_err());
            // Nor is it if anything does not fit.
            for at in [7, 10, 11, 12] {
                let mut other = stream.clone();
                other[at] ^= 1;
                assert!(decode_request(&other).is_err(), "{registers} {at}");
            }
        }
    }

    #[test]
    fn protocol_id_is_judged_after_four_bytes() {
        assert_eq!(decode(b"GET"), Ok(None));
        assert_eq!(
            decode(b"GET "),
            Err(FramingError::ProtocolId { got: 0x5420 })
        );
    }

    #[test]
    fn two_frames_in_one_buffer() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 0x1234, 7, &[3, 0, 0, 0, 1]);
        encode(&mut bytes, 0x1235, 8, &[7]);
        let (first, used) = decode(&bytes).unwrap().unwrap();
        assert_eq!(
            (first.transaction, first.unit, first.pdu, used),
            (0x1234, 7, &[3, 0, 0, 0, 1][..], 12)
        );
        let (second, used) = decode(&bytes[used..]).unwrap().unwrap();
        assert_eq!(
            (second.transaction, second.unit, second.pdu, used),
            (0x1235, 8, &[7][..], 8)
        );
    }

    #[test]
    fn longest_frame() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 1, 1, &[0x41; MAX_PDU]);
        assert_eq!(bytes.len(), MAX_ADU);
        assert_eq!(decode(&bytes).unwrap().unwrap().1, MAX_ADU);
    }
}
