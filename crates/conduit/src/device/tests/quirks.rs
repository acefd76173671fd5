//! Devices as they are: strict by default, and each deviation borne by its name.

use std::time::Duration;

use fieldlock_modbus::{Quirk, Quirks, Request, rtu};

use super::MS;
use super::bench::{Ask, Bench};
use crate::admit::Grounds;
use crate::device::{
    ClientKey, CloseReason, DeviceSettings, Framing, Key, Loss, Outcome, Submit, What,
};

const BAUD: u32 = 9600;

fn tcp(quirks: &[Quirk]) -> DeviceSettings {
    DeviceSettings {
        quirks: quirks.iter().copied().collect(),
        ..DeviceSettings::default()
    }
}

fn serial(quirks: &[Quirk]) -> DeviceSettings {
    DeviceSettings {
        framing: Framing::Rtu {
            baud: BAUD,
            frame_gap: 20 * MS,
            turnaround: 100 * MS,
        },
        ..tcp(quirks)
    }
}

/// A bench with one request under way, and its connection.
fn asked(settings: DeviceSettings, unit: u8, pdu: &[u8]) -> Bench {
    let mut bench = Bench::new(settings);
    let request = Request::parse(pdu).unwrap();
    let submit = Submit {
        key: Key(1),
        client: ClientKey(1),
        unit,
        request: &request,
        grounds: Grounds(0),
        deadline: bench.now + 1000 * MS,
        held: false,
    };
    bench.device.submit(bench.now, submit).unwrap();
    bench.drain();
    bench.connect();
    bench.pass(10);
    bench
}

/// Sends the device's octets, `TTTT` in front being the id that was sent, as they are or each alone.
#[track_caller]
fn meets(settings: &DeviceSettings, unit: u8, pdu: &[u8], answer: &[u8]) -> Bench {
    let mut whole = asked(settings.clone(), unit, pdu);
    let conn = whole.open[0];
    whole.bytes(conn, answer);
    let mut alone = asked(settings.clone(), unit, pdu);
    let conn = alone.open[0];
    answer.iter().for_each(|octet| alone.bytes(conn, &[*octet]));
    assert_eq!(whole.answers, alone.answers);
    whole
}

/// Refused by default, with this quirk named; with it, the client gets `right`.
#[track_caller]
fn borne(serial_line: bool, quirk: Quirk, unit: u8, pdu: &[u8], answer: &[u8], right: &[u8]) {
    let settings = |quirks: &[Quirk]| match serial_line {
        true => serial(quirks),
        false => tcp(quirks),
    };
    let strict = meets(&settings(&[]), unit, pdu, answer);
    let refused = |bench: &Bench| match serial_line {
        true => bench.refused.first().copied(),
        false => bench.closed.first().and_then(|(_, reason)| match reason {
            CloseReason::Fault(fault) => Some(*fault),
            _ => None,
        }),
    };
    let fault = refused(&strict).unwrap();
    assert_eq!(fault.quirk, Some(quirk), "{fault}");
    let told = fault.to_string();
    let setting = format!("add quirks = [\"{quirk}\"] to its [[device]]");
    assert!(told.contains("if this device always does so"), "{told}");
    assert!(told.contains(&setting), "{told}");
    let loss = match fault.what {
        What::Echo => Loss::Echo,
        _ => Loss::Mismatch,
    };
    assert_eq!(strict.outcome(1), Some(Outcome::Unknown(loss)));
    let lenient = meets(&settings(&[quirk]), unit, pdu, answer);
    assert_eq!(lenient.outcome(1), Some(Outcome::Answered), "{quirk}");
    assert_eq!(lenient.pdu(1), right);
    assert_eq!(lenient.borne[0].1.quirks, Quirks::NONE.with(quirk));
    assert_eq!(lenient.sent.len(), 1, "nothing is sent again");
    assert!(lenient.closed.is_empty());
}

/// The first id of a device has both octets.
const ID: [u8; 2] = [1, 1];

fn tcp_answer(id: [u8; 2], rest: &[u8]) -> Vec<u8> {
    [&id[..], rest].concat()
}

const READ: [u8; 5] = [3, 0, 0, 0, 1];
const WRITE: [u8; 5] = [6, 0, 1, 4, 0xB0];

#[test]
fn ids_that_lose_their_high_octet() {
    let data = [0, 0, 0, 5, 1, 3, 2, 0, 7];
    let low = Quirk::TransactionIdLowByte;
    borne(false, low, 1, &READ, &tcp_answer([0, 1], &data), &data[5..]);
    let zero = Quirk::TransactionIdZero;
    borne(
        false,
        zero,
        1,
        &READ,
        &tcp_answer([0, 0], &data),
        &data[5..],
    );
}

/// Through thousands of requests, with as many in flight as can be told apart.
#[test]
fn ids_of_one_octet_are_told_apart_for_good() {
    let mut bench = Bench::connected(DeviceSettings {
        in_flight: 1000,
        ..tcp(&[])
    });
    bench.device = crate::device::DeviceSide::new(
        DeviceSettings {
            in_flight: 1000,
            queue: 2000,
            queue_per_client: 2000,
            shared_reads: false,
            ..tcp(&[Quirk::TransactionIdLowByte])
        },
        1,
        bench.now,
    );
    bench.open.clear();
    bench.ask(Ask::read(0, 1));
    bench.connect();
    (1..1000).for_each(|key| bench.ask(Ask::read(key, 1)));
    assert_eq!(bench.sent.len(), 256);
    let mut answered = 0;
    while let Some(sent) = bench.sent.get(answered).cloned() {
        answered += 1;
        let frame = bench.frame(sent.transaction & 0xFF, 1, &sent.right());
        bench.bytes(sent.conn, &frame);
        assert_eq!(bench.outcome(sent.key()), Some(Outcome::Answered));
    }
    assert_eq!(answered, 1000);
}

/// A device that does not repeat ids is found out by the first request of all.
#[test]
fn the_first_request_finds_such_a_device_out() {
    for id in [[0, 0], [0, 1]] {
        let answer = tcp_answer(id, &[0, 0, 0, 5, 1, 3, 2, 0, 7]);
        let bench = meets(&tcp(&[]), 1, &READ, &answer);
        assert_eq!(bench.outcome(1), Some(Outcome::Unknown(Loss::Mismatch)));
    }
}

#[test]
fn answers_as_another_unit() {
    for (got, quirk) in [
        (0, Quirk::AnswersAsUnit0),
        (1, Quirk::AnswersAsUnit1),
        (255, Quirk::AnswersAsUnit255),
    ] {
        let answer = tcp_answer(ID, &[0, 0, 0, 5, got, 3, 2, 0, 7]);
        borne(false, quirk, 17, &READ, &answer, &[3, 2, 0, 7]);
    }
    let answer = tcp_answer(ID, &[0, 0, 0, 5, 2, 3, 2, 0, 7]);
    let all = [
        Quirk::AnswersAsUnit0,
        Quirk::AnswersAsUnit1,
        Quirk::AnswersAsUnit255,
    ];
    let bench = meets(&tcp(&all), 17, &READ, &answer);
    assert_eq!(bench.outcome(1), Some(Outcome::Unknown(Loss::Mismatch)));
}

/// It takes no second: neither this request nor the next waits for an octet that never comes.
#[test]
fn an_exception_whose_length_says_4() {
    let answer = tcp_answer(ID, &[0, 0, 0, 4, 1, 0x83, 2]);
    borne(
        false,
        Quirk::ExceptionLength4,
        1,
        &READ,
        &answer,
        &[0x83, 2],
    );
}

#[test]
fn a_refusal_without_its_function() {
    let answer = tcp_answer(ID, &[0, 0, 0, 3, 1, 0x80, 1]);
    let bench = meets(&tcp(&[]), 1, &WRITE, &answer);
    assert_eq!(bench.outcome(1), Some(Outcome::Answered));
    assert_eq!(bench.pdu(1), [0x86, 1]);
    let known = Quirks::NONE.with(Quirk::ExceptionWithoutFunction);
    assert_eq!(bench.borne[0].1.quirks, known);
    let bench = meets(&serial(&[]), 1, &READ, &framed(1, &[0x80, 2]));
    assert_eq!(bench.pdu(1), [0x83, 2]);
}

#[test]
fn registers_of_four_octets() {
    let read = [3, 0x1B, 0x59, 0, 1];
    let right = [3, 4, 0x43, 0x3F, 0, 0];
    let answer = tcp_answer(ID, &[&[0, 0, 0, 7, 1], &right[..]].concat());
    borne(false, Quirk::FourByteRegisters, 1, &read, &answer, &right);
}

#[test]
fn a_write_that_tells_the_value_that_was_taken() {
    let answer = tcp_answer(ID, &[0, 0, 0, 6, 1, 6, 0, 1, 3, 0xE8]);
    let quirk = Quirk::WriteAnswerValue;
    borne(false, quirk, 1, &WRITE, &answer, &WRITE);
    let bench = meets(&tcp(&[quirk]), 1, &WRITE, &answer);
    assert_eq!(bench.borne[0].1.took, Some(1000));
}

#[test]
fn a_write_answered_by_the_whole_request() {
    let write = [16, 0, 1, 0, 1, 2, 4, 0xB0];
    let answer = tcp_answer(ID, &[&[0, 0, 0, 9, 1], &write[..]].concat());
    let quirk = Quirk::WriteAnswerRequest;
    borne(false, quirk, 1, &write, &answer, &write[..5]);
}

/// What several deviations at once look like.
#[test]
fn quirks_go_together() {
    let quirks = [
        Quirk::TransactionIdZero,
        Quirk::AnswersAsUnit1,
        Quirk::ExceptionLength4,
    ];
    let answer = tcp_answer([0, 0], &[0, 0, 0, 4, 1, 0x83, 2]);
    let bench = meets(&tcp(&quirks), 17, &READ, &answer);
    assert_eq!(bench.pdu(1), [0x83, 2]);
    assert_eq!(bench.borne[0].1.quirks, quirks.into_iter().collect());
}

fn framed(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    rtu::encode(&mut frame, unit, pdu);
    frame
}

/// The least time of a request of 8 octets and an answer as long.
fn least() -> Duration {
    rtu::least_time(BAUD, 16)
}

/// Nobody is on the line, and the adapter delivers what it sends: while it sends, or all at once
/// with the last bit.
#[test]
fn an_echo_is_no_success() {
    for pdu in [
        [5, 0, 7, 0xFF, 0],
        [6, 0, 1, 4, 0xB0],
        [3, 0, 0, 0, 1],
        [8, 0, 0, 1, 2],
    ] {
        for quirks in [&[][..], &[Quirk::RtuEcho]] {
            for after in [
                Duration::ZERO,
                least() / 2,
                least() - Duration::from_micros(1),
            ] {
                let mut bench = asked(serial(quirks), 1, &pdu);
                bench.pass_time((bench.sent[0].at + after).saturating_duration_since(bench.now));
                bench.now = bench.now.min(bench.sent[0].at + after);
                bench.bytes(bench.open[0], &framed(1, &pdu));
                bench.pass(1000);
                let loss = match quirks {
                    [] => Loss::Echo,
                    _ => Loss::Timeout,
                };
                assert_eq!(bench.outcome(1), Some(Outcome::Unknown(loss)), "{pdu:02x?}");
                assert_eq!(bench.sent.len(), 1);
                if let [fault] = bench.refused[..] {
                    assert_eq!(fault.what, What::Echo);
                    assert_eq!(fault.quirk, Some(Quirk::RtuEcho));
                }
            }
        }
    }
}

/// The adapter's buffers may delay an echo beyond any doubt, but not for a read: after one, this line
/// is known.
#[test]
fn a_line_that_echoed_a_read_is_not_believed_a_write() {
    let mut bench = Bench::new(serial(&[]));
    bench.ask(Ask::read(1, 1));
    bench.connect();
    bench.pass(60);
    bench.bytes(bench.open[0], &framed(1, &[3, 0, 1, 0, 1]));
    assert_eq!(bench.outcome(1), Some(Outcome::Unknown(Loss::Echo)));
    bench.ask(Ask::held(2, 1));
    bench.release(2);
    bench.pass(200);
    bench.bytes(bench.open[0], &framed(1, &[6, 0, 2, 0, 7]));
    assert_eq!(bench.outcome(2), Some(Outcome::Unknown(Loss::Echo)));
    // A device that answers a read without an echo before it: the adapter is another.
    bench.ask(Ask::read(3, 1));
    bench.pass(200);
    bench.answer(3);
    assert_eq!(bench.outcome(3), Some(Outcome::Answered));
    bench.ask(Ask::held(4, 1));
    bench.release(4);
    bench.pass(200);
    bench.answer(4);
    assert_eq!(bench.outcome(4), Some(Outcome::Answered));
}

#[test]
fn an_echo_before_the_answer() {
    for (pdu, answer) in [
        (&READ[..], &[3, 2, 0, 7][..]),
        (&WRITE, &WRITE),
        (&[16, 0, 1, 0, 1, 2, 4, 0xB0], &[16, 0, 1, 0, 1]),
        (&WRITE, &[0x86, 2]),
    ] {
        let bytes = [framed(1, pdu), framed(1, answer)].concat();
        borne(true, Quirk::RtuEcho, 1, pdu, &bytes, answer);
    }
}

#[test]
fn a_zero_before_the_answer() {
    for (pdu, answer) in [
        (&READ[..], &[3, 2, 0, 7][..]),
        (&WRITE, &WRITE),
        (&WRITE, &[0x86, 2]),
    ] {
        let bytes = [vec![0], framed(1, answer)].concat();
        borne(true, Quirk::RtuLeadingZero, 1, pdu, &bytes, answer);
    }
}
