//! Which answer belongs to which request.

use fieldlock_modbus::{FramingError, Mismatch, Quirk};

use super::bench::{Ask, Bench};
use crate::device::{CloseReason, DeviceSettings, Fault, Loss, Outcome, What};

#[test]
fn wrong_answers_close_the_connection_and_end_the_request_at_once() {
    let unit = Fault::from(What::Unit {
        got: 2,
        expected: 1,
    });
    let function = Fault::from(Mismatch::Function {
        got: 4,
        expected: 3,
    });
    let count = Fault {
        quirk: Some(Quirk::FourByteRegisters),
        ..Fault::from(Mismatch::ByteCount {
            got: 4,
            expected: 2,
        })
    };
    for (answer_unit, pdu, reason) in [
        (2, &[3, 2, 0, 0][..], unit),
        (1, &[4, 2, 0, 0], function),
        (1, &[3, 4, 0, 0, 0, 0], count),
    ] {
        let mut bench = Bench::connected(DeviceSettings {
            in_flight: 2,
            ..DeviceSettings::default()
        });
        let conn = bench.open[0];
        bench.ask(Ask::read(1, 1));
        bench.ask(Ask::held(2, 2));
        bench.release(2);
        bench.answer_with(1, answer_unit, pdu);
        assert_eq!(
            bench.outcomes(),
            [
                (1, Outcome::Unknown(Loss::Mismatch)),
                (2, Outcome::Unknown(Loss::Closed))
            ]
        );
        assert_eq!(bench.closed, [(conn, reason.into())]);
        assert_eq!(bench.device.stats().mismatched, 1);
    }
}

#[test]
fn an_answer_with_an_id_that_is_not_pending_closes_the_connection() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
    let got = bench.sent[0].transaction.wrapping_add(1);
    let frame = bench.frame(got, 1, &bench.sent[0].right());
    bench.bytes(bench.sent[0].conn, &frame);
    assert_eq!(bench.outcome(1), Some(Outcome::Unknown(Loss::Mismatch)));
    let expected = Some(bench.sent[0].transaction);
    let fault = Fault::from(What::Transaction { got, expected });
    assert_eq!(bench.closed[0].1, CloseReason::Fault(fault));
}

#[test]
fn an_answer_that_comes_twice_closes_the_connection() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
    let sent = bench.sent[0].clone();
    let frame = bench.frame(sent.transaction, 1, &sent.right());
    bench.bytes(sent.conn, &[frame.clone(), frame].concat());
    assert_eq!(bench.outcomes(), [(1, Outcome::Answered)]);
    let fault = Fault::from(What::Unsolicited);
    assert_eq!(bench.closed[0].1, CloseReason::Fault(fault));
}

#[test]
fn bytes_that_are_not_modbus_close_the_connection() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
    bench.bytes(bench.open[0], b"HTTP/1.1 400 Bad Request");
    assert_eq!(bench.outcome(1), Some(Outcome::Unknown(Loss::Mismatch)));
    let fault = Fault::from(FramingError::ProtocolId { got: 0x5450 });
    assert_eq!(bench.closed[0].1, CloseReason::Fault(fault));
}

#[test]
fn answers_may_overtake_and_arrive_in_any_pieces() {
    let mut bench = Bench::connected(DeviceSettings {
        in_flight: 3,
        ..DeviceSettings::default()
    });
    (1..=3).for_each(|key| bench.ask(Ask::read(key, 1)));
    let conn = bench.open[0];
    let bytes: Vec<u8> = [3, 1, 2]
        .iter()
        .flat_map(|&key| {
            let sent = bench.sent_as(key);
            bench.frame(sent.transaction, 1, &sent.right())
        })
        .collect();
    for piece in bytes.chunks(5) {
        bench.bytes(conn, piece);
    }
    let answered = |key| (key, Outcome::Answered);
    assert_eq!(bench.outcomes(), [3, 1, 2].map(answered));
}

#[test]
fn transaction_ids_are_ours_and_wrap() {
    let mut bench = Bench::connected(DeviceSettings {
        in_flight: 2,
        ..DeviceSettings::default()
    });
    bench.ask(Ask::read(1, 1).within(1_000_000));
    let pending = bench.sent[0].transaction;
    let mut last = pending;
    for _ in 0..70_000 {
        bench.ask(Ask::read(2, 2));
        let sent = bench.sent.pop().unwrap();
        assert_ne!(sent.transaction, pending);
        assert_ne!(sent.transaction, last);
        last = sent.transaction;
        let frame = bench.frame(sent.transaction, 1, &sent.right());
        bench.bytes(sent.conn, &frame);
        assert_eq!(bench.outcomes().len(), 1);
    }
    bench.answer(1);
    assert_eq!(bench.outcome(1), Some(Outcome::Answered));
}
