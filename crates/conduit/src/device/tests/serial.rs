//! Serial lines.

use super::MS;
use super::bench::{Ask, Bench};
use crate::admit::Grounds;
use crate::device::{ClientKey, DeviceSettings, Framing, Key, Loss, Outcome, Submit};

fn serial() -> DeviceSettings {
    DeviceSettings {
        framing: Framing::Rtu {
            baud: 19200,
            frame_gap: 20 * MS,
            turnaround: 100 * MS,
        },
        ..DeviceSettings::default()
    }
}

#[test]
fn a_serial_line_has_one_request_in_flight_and_silence_before_each() {
    let mut bench = Bench::connected(serial());
    bench.pass(10);
    bench.ask(Ask::read(1, 1));
    bench.ask(Ask::read(2, 2));
    assert_eq!(bench.sent_keys(), [1]);
    bench.answer(1);
    let answered = bench.now;
    assert_eq!(bench.sent_keys(), [1], "not without a pause");
    bench.pass(10);
    assert_eq!(bench.sent_keys(), [1, 2]);
    let silence = bench.sent[1].at - answered;
    assert_eq!(silence, fieldlock_modbus::rtu::silent_interval(19200));
}

#[test]
fn a_serial_answer_may_come_byte_by_byte_with_gaps() {
    let mut bench = Bench::connected(serial());
    bench.pass(10);
    bench.ask(Ask::read(1, 1));
    let frame = bench.frame(0, 1, &bench.sent[0].right());
    for byte in frame {
        bench.bytes(bench.open[0], &[byte]);
        bench.pass(30);
    }
    assert_eq!(bench.outcomes(), [(1, Outcome::Answered)]);
}

#[test]
fn silence_ends_an_answer_of_open_length() {
    let mut bench = Bench::connected(serial());
    bench.pass(10);
    let request = fieldlock_modbus::Request::parse(&[0x41, 1, 2]).unwrap();
    let submit = Submit {
        key: Key(1),
        client: ClientKey(1),
        unit: 5,
        request: &request,
        grounds: Grounds(0),
        deadline: bench.now + 1000 * MS,
        held: false,
    };
    bench.device.submit(bench.now, submit).unwrap();
    bench.drain();
    let frame = bench.frame(0, 5, &[0x41, 9, 9, 9, 9]);
    let (first, second) = frame.split_at(4);
    bench.bytes(bench.open[0], first);
    bench.pass(19);
    bench.bytes(bench.open[0], second);
    bench.pass(19);
    assert_eq!(bench.outcomes(), []);
    bench.pass(1);
    assert_eq!(bench.pdu(1), [0x41, 9, 9, 9, 9]);
    assert_eq!(bench.outcomes(), [(1, Outcome::Answered)]);
}

#[test]
fn a_damaged_serial_answer_ends_the_request_and_the_line_is_drained() {
    let mut bench = Bench::connected(serial());
    bench.pass(10);
    bench.ask(Ask::read(1, 1));
    bench.ask(Ask::read(2, 2));
    let mut frame = bench.frame(0, 1, &bench.sent[0].right());
    frame[3] ^= 1;
    bench.bytes(bench.open[0], &frame);
    assert_eq!(bench.outcomes(), [(1, Outcome::Unknown(Loss::Mismatch))]);
    assert!(bench.closed.is_empty(), "the port stays open");
    bench.pass(99);
    bench.bytes(bench.open[0], &[0x55; 300]);
    bench.pass(19);
    assert_eq!(bench.sent_keys(), [1]);
    bench.pass(1);
    assert_eq!(bench.sent_keys(), [1, 2]);
    let stats = bench.device.stats();
    assert_eq!((stats.mismatched, stats.late), (1, 1));
}

#[test]
fn a_late_serial_answer_is_not_taken_for_the_next() {
    let mut bench = Bench::connected(serial());
    bench.pass(10);
    bench.ask(Ask::read(1, 1).within(200));
    bench.ask(Ask::read(2, 2).within(2000));
    bench.pass(200);
    assert_eq!(bench.outcomes(), [(1, Outcome::Unknown(Loss::Timeout))]);
    bench.pass(50);
    bench.answer(1);
    assert_eq!(bench.outcomes(), []);
    bench.pass(50);
    assert_eq!(bench.sent_keys(), [1, 2]);
    bench.answer(2);
    assert_eq!(bench.outcomes(), [(2, Outcome::Answered)]);
}

#[test]
fn an_answer_of_another_serial_unit_is_not_taken() {
    let mut bench = Bench::connected(serial());
    bench.pass(10);
    bench.ask(Ask::read(1, 1));
    bench.answer_with(1, 2, &[3, 2, 0, 1]);
    assert_eq!(bench.outcomes(), [(1, Outcome::Unknown(Loss::Mismatch))]);
}

#[test]
fn a_broadcast_is_not_answered_and_blocks_the_line_for_the_turnaround() {
    let mut bench = Bench::connected(serial());
    bench.pass(10);
    bench.ask(Ask::held(1, 1).unit(0));
    bench.ask(Ask::read(2, 2));
    bench.release(1);
    bench.answer(2);
    bench.pass(10);
    assert_eq!(bench.sent_keys(), [2, 1]);
    bench.ask(Ask::read(3, 2));
    bench.pass(90);
    assert_eq!(bench.outcome(1), None);
    bench.pass(20);
    assert_eq!(bench.outcome(1), Some(Outcome::Broadcast));
    assert_eq!(bench.pdu(1), []);
    assert_eq!(bench.sent_keys(), [2, 1, 3]);
}

#[test]
fn a_broadcast_with_an_early_deadline_still_blocks_the_line() {
    let mut bench = Bench::connected(serial());
    bench.pass(10);
    bench.ask(Ask::held(1, 1).unit(0).within(30));
    bench.release(1);
    bench.ask(Ask::read(2, 2));
    bench.pass(30);
    assert_eq!(bench.outcomes(), [(1, Outcome::Broadcast)]);
    bench.pass(69);
    assert_eq!(bench.sent_keys(), [1]);
    bench.pass(10);
    assert_eq!(bench.sent_keys(), [1, 2]);
}

#[test]
fn unit_0_on_tcp_is_a_unit_like_others() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1).unit(0));
    bench.answer(1);
    assert_eq!(bench.outcomes(), [(1, Outcome::Answered)]);
}
