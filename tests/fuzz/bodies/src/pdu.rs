//! Requests, and answers to them.

use fieldlock_modbus::rtu::{self, Progress};
use fieldlock_modbus::{Answer, Expected, Range, Request, Values, Write, mbap};

use crate::input::Input;

const MAX_QUANTITY: u16 = 2000;

/// A PDU of a client: what is accepted is within all limits, and the view says all that a
/// device would read in the bytes.
pub fn modbus_request(data: &[u8]) {
    match Request::parse(data) {
        Ok(request) => check_request(&request, data),
        Err(malformed) => {
            assert_eq!(malformed.function, data.first().copied().unwrap_or(0));
            assert!((1..=3).contains(&malformed.exception.code()));
            assert!(!malformed.to_string().is_empty());
        }
    }
}

fn check_request(request: &Request<'_>, pdu: &[u8]) {
    assert!((1..=mbap::MAX_PDU).contains(&pdu.len()));
    assert_eq!(request.pdu(), pdu);
    let function = request.function().0;
    assert_eq!(function, pdu[0]);
    assert!((1..128).contains(&function));
    assert_eq!(Expected::of(request).function(), function);
    let (read, write) = (request.read(), request.write());
    for range in read.iter().chain(write.iter().map(|write| &write.range)) {
        assert!((1..=MAX_QUANTITY).contains(&range.count));
        assert!(range.end() <= 0x1_0000);
        assert_eq!(u32::from(range.last()) + 1, range.end());
    }
    assert_eq!(request.sub_function().is_some(), matches!(function, 8 | 43));
    if let Some(write) = &write {
        assert!(request.changes_state());
        check_values(write);
    }
    if let Some(again) = from_view(function, read, write) {
        assert_eq!(again, pdu);
    }
}

fn check_values(write: &Write<'_>) {
    let values: Vec<u16> = write.values.iter().collect();
    match write.values {
        Values::Mask { .. } => assert!(values.is_empty()),
        Values::Coil(_) | Values::Coils { .. } => assert!(values.iter().all(|&value| value <= 1)),
        Values::Register(_) | Values::Registers(_) => {}
    }
    if !matches!(write.values, Values::Mask { .. }) {
        assert_eq!(values.len(), usize::from(write.range.count));
    }
}

/// The PDU that a view stands for; `None` for functions without ranges.
fn from_view(function: u8, read: Option<Range>, write: Option<Write<'_>>) -> Option<Vec<u8>> {
    let mut pdu = vec![function];
    if let Some(range) = read {
        put_range(&mut pdu, range);
    }
    if let Some(Write { range, values }) = write {
        match values {
            Values::Coil(on) => {
                pdu.extend_from_slice(&range.start.to_be_bytes());
                pdu.extend_from_slice(if on { &[0xFF, 0] } else { &[0, 0] });
            }
            Values::Register(value) => {
                pdu.extend_from_slice(&range.start.to_be_bytes());
                pdu.extend_from_slice(&value.to_be_bytes());
            }
            Values::Mask { and, or } => {
                pdu.extend_from_slice(&range.start.to_be_bytes());
                pdu.extend_from_slice(&and.to_be_bytes());
                pdu.extend_from_slice(&or.to_be_bytes());
            }
            Values::Coils { bits, count } => {
                assert_eq!(count, range.count);
                assert_eq!(bits.len(), usize::from(count).div_ceil(8));
                put_range(&mut pdu, range);
                pdu.push(bits.len() as u8);
                pdu.extend_from_slice(bits);
            }
            Values::Registers(words) => {
                put_range(&mut pdu, range);
                pdu.push(words.len() as u8);
                pdu.extend_from_slice(words);
            }
        }
    }
    (pdu.len() > 1).then_some(pdu)
}

fn put_range(pdu: &mut Vec<u8>, range: Range) {
    pdu.extend_from_slice(&range.start.to_be_bytes());
    pdu.extend_from_slice(&range.count.to_be_bytes());
}

/// A request behind its length, then an answer: what is accepted has the one shape that the
/// request asks for and would come over a serial line as it is.
pub fn modbus_answer(data: &[u8]) {
    let mut input = Input::new(data);
    let pdu = input.field();
    let answer = input.rest();
    let Ok(request) = Request::parse(pdu) else {
        return;
    };
    let expected = Expected::of(&request);
    let function = pdu[0];
    assert_eq!(
        expected.check(&[function | 0x80, 2]),
        Ok(Answer::Exception(2))
    );
    if let Some(normal) = plain_answer(pdu) {
        assert_eq!(expected.check(&normal), Ok(Answer::Normal));
    }
    match expected.check(answer) {
        Ok(Answer::Exception(code)) => {
            assert_ne!(code, 0);
            assert_eq!(answer, [function | 0x80, code]);
            check_on_serial_line(answer);
        }
        Ok(Answer::Normal) => {
            check_shape(pdu, answer);
            check_on_serial_line(answer);
        }
        Err(mismatch) => assert!(!mismatch.to_string().is_empty()),
    }
}

/// The length and start of an answer as a device computes them from the request's bytes.
fn plain_answer(pdu: &[u8]) -> Option<Vec<u8>> {
    let quantity = || usize::from(u16::from_be_bytes([pdu[3], pdu[4]]));
    let data = |bytes: usize| {
        let mut answer = vec![pdu[0], bytes as u8];
        answer.resize(2 + bytes, 0xA5);
        answer
    };
    Some(match pdu[0] {
        1 | 2 => data(quantity().div_ceil(8)),
        3 | 4 | 23 => data(2 * quantity()),
        5 | 6 | 15 | 16 => pdu[..5].to_vec(),
        22 => pdu.to_vec(),
        _ => return None,
    })
}

fn check_shape(pdu: &[u8], answer: &[u8]) {
    assert!((1..=mbap::MAX_PDU).contains(&answer.len()));
    assert_eq!(answer[0], pdu[0]);
    let Some(plain) = plain_answer(pdu) else {
        return;
    };
    match pdu[0] {
        1..=4 | 23 => assert_eq!((answer.len(), answer[1]), (plain.len(), plain[1])),
        _ => assert_eq!(answer, plain),
    }
}

fn check_on_serial_line(answer: &[u8]) {
    let mut line = Vec::new();
    rtu::encode(&mut line, 1, answer);
    assert_eq!(
        rtu::decode_answer(&line, true),
        Ok(Progress::Frame {
            unit: 1,
            pdu: answer
        })
    );
}
