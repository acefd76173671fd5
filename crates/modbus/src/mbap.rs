//! Modbus/TCP framing (*Modbus Messaging on TCP/IP* V1.0b, section 3.1.3).
//!
//! | bytes | field | allowed |
//! |---|---|---|
//! | 0-1 | transaction id | any |
//! | 2-3 | protocol id | 0 |
//! | 4-5 | length of what follows (unit id and PDU) | 2 to 254 |
//! | 6 | unit id | any |
//! | 7.. | PDU | 1 to 253 bytes |

/// Header with the unit id, in bytes.
pub const HEADER_LEN: usize = 7;
/// Longest PDU in bytes (section 4.1).
pub const MAX_PDU: usize = 253;
/// Longest ADU on TCP in bytes.
pub const MAX_ADU: usize = 260;
/// Longest PDU of UMAS (function 90), which does not keep to the specification.
pub const MAX_UMAS_PDU: usize = 1022;
const UMAS: u8 = 90;

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

/// As [`decode`], of requests: one of UMAS may have [`MAX_UMAS_PDU`] bytes. It is no
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
        _ => decoded,
    }
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
