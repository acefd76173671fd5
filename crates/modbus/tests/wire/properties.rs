use fieldlock_modbus::rtu::{self, Progress};
use fieldlock_modbus::{Answer, Expected, FramingError, Request, mbap};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::reference::{self, is_valid, nearly_request, request};

type Frame = (u16, u8, Vec<u8>);

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

fn frame() -> impl Strategy<Value = Frame> {
    (
        any::<u16>(),
        any::<u8>(),
        vec(any::<u8>(), 1..=mbap::MAX_PDU),
    )
}

/// Bytes that begin like Modbus/TCP more often than not.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        bytes(),
        (vec(frame(), 0..4), bytes()).prop_map(|(frames, rest)| [encode(&frames), rest].concat()),
        (
            vec(frame(), 1..4),
            any::<prop::sample::Index>(),
            any::<u8>()
        )
            .prop_map(|(frames, index, byte)| {
                let mut bytes = encode(&frames);
                let index = index.index(bytes.len());
                bytes[index] = byte;
                bytes
            }),
    ]
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    for (transaction, unit, pdu) in frames {
        mbap::encode(&mut out, *transaction, *unit, pdu);
    }
    out
}

/// All frames of a stream that arrives in these pieces, and the error that ends it.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FramingError>) {
    let (mut buffer, mut frames) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match mbap::decode(&buffer) {
                Ok(None) => break,
                Ok(Some((adu, used))) => {
                    frames.push((adu.transaction, adu.unit, adu.pdu.to_vec()));
                    buffer.drain(..used);
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    assert!(buffer.len() < mbap::MAX_ADU);
    (frames, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mbap_decodes_what_it_encodes(frames in vec(frame(), 1..6)) {
        let encoded = encode(&frames);
        prop_assert_eq!(decode([&encoded[..]].into_iter()), (frames, None));
    }

    #[test]
    fn mbap_does_not_care_how_a_stream_is_split(stream in stream(), split: prop::sample::Index) {
        let whole = decode([&stream[..]].into_iter());
        let (left, right) = stream.split_at(split.index(stream.len() + 1));
        prop_assert_eq!(&decode([left, right].into_iter()), &whole);
        prop_assert_eq!(&decode(stream.chunks(1)), &whole);
    }

    #[test]
    fn parse_accepts_every_valid_request(pdu in request()) {
        prop_assert_eq!(is_valid(&pdu), Request::parse(&pdu).is_ok(), "{:02x?}", pdu);
    }

    #[test]
    fn parse_accepts_nothing_else(pdu in prop_oneof![bytes(), nearly_request()]) {
        prop_assert_eq!(is_valid(&pdu), Request::parse(&pdu).is_ok(), "{:02x?}", pdu);
    }

    #[test]
    fn a_parsed_request_can_be_looked_at(pdu in prop_oneof![bytes(), nearly_request(), request()]) {
        match Request::parse(&pdu) {
            Ok(request) => look_at(&request)?,
            Err(malformed) => {
                prop_assert_eq!(malformed.function, pdu.first().copied().unwrap_or(0));
                prop_assert!(!malformed.to_string().is_empty());
            }
        }
    }

    #[test]
    fn a_good_answer_is_accepted(pdu in request(), fill: u8, code in 1u8..) {
        if let Ok(request) = Request::parse(&pdu) {
            let expected = Expected::of(&request);
            prop_assert_eq!(expected.function(), pdu[0]);
            let answer = reference::answer(&pdu, fill);
            prop_assert_eq!(expected.check(&answer), Ok(Answer::Normal), "{:02x?}", answer);
            prop_assert_eq!(expected.check(&[pdu[0] | 0x80, code]), Ok(Answer::Exception(code)));
        }
    }

    #[test]
    fn any_answer_is_judged(pdu in request(), answer in bytes(), fill: u8, index: prop::sample::Index) {
        if let Ok(request) = Request::parse(&pdu) {
            let expected = Expected::of(&request);
            let _ = expected.check(&answer);
            let mut good = reference::answer(&pdu, fill);
            let index = index.index(good.len());
            good[index] ^= fill;
            let _ = expected.check(&good);
            let _ = expected.check(&good[..index]);
            good[0] = pdu[0] ^ 1;
            prop_assert!(expected.check(&good).is_err());
        }
    }

    #[test]
    fn rtu_finds_the_frame_it_encoded(pdu in request(), unit: u8, fill: u8) {
        let answer = reference::answer(&pdu, fill);
        let mut line = Vec::new();
        rtu::encode(&mut line, unit, &answer);
        for end in 0..line.len() {
            match rtu::decode_answer(&line[..end], false) {
                Ok(Progress::NeedMore { at_least }) => {
                    prop_assert!((1..=line.len() - end).contains(&at_least));
                }
                Ok(Progress::UntilSilence) => {}
                other => prop_assert!(false, "cut at {}: {:?}", end, other),
            }
        }
        let whole = rtu::decode_answer(&line, true);
        prop_assert_eq!(whole, Ok(Progress::Frame { unit, pdu: &answer[..] }));
    }

    #[test]
    fn rtu_judges_any_bytes(line in bytes(), silent: bool) {
        match rtu::decode_answer(&line, silent) {
            Ok(Progress::NeedMore { at_least }) => {
                prop_assert!(at_least > 0 && line.len() + at_least <= rtu::MAX_ADU);
            }
            Ok(Progress::UntilSilence) => prop_assert!(!silent && line.len() <= rtu::MAX_ADU),
            Ok(Progress::Frame { pdu, .. }) => prop_assert!((1..=253).contains(&pdu.len())),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// Every view of a request is there and within the limits of the specification.
fn look_at(request: &Request<'_>) -> Result<(), TestCaseError> {
    let _ = (request.sub_function(), request.changes_state());
    if let Some(read) = request.read() {
        prop_assert!((1..=2000).contains(&read.count) && read.end() <= 0x1_0000);
        prop_assert_eq!(u32::from(read.last()) + 1, read.end());
    }
    if let Some(write) = request.write() {
        prop_assert!(request.changes_state());
        prop_assert!((1..=1968).contains(&write.range.count) && write.range.end() <= 0x1_0000);
        let values = write.values.iter().count();
        let masked = request.function().0 == 22;
        prop_assert_eq!(
            values,
            if masked {
                0
            } else {
                usize::from(write.range.count)
            }
        );
    }
    Ok(())
}
