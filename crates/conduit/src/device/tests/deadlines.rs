//! How requests end when nothing comes.

use super::MS;
use super::bench::{Ask, Bench};
use crate::device::{Backoff, CloseReason, DeviceSettings, Loss, Outcome};

#[test]
fn a_request_without_answer_ends_at_its_deadline_and_with_it_the_connection() {
    let mut bench = Bench::connected(DeviceSettings::default());
    let conn = bench.open[0];
    bench.ask(Ask::read(1, 1));
    bench.ask(Ask::read(2, 2).within(3000));
    bench.pass(999);
    assert_eq!(bench.outcome(1), None);
    bench.pass(1);
    assert_eq!(bench.outcome(1), Some(Outcome::Unknown(Loss::Timeout)));
    assert_eq!(bench.pdu(1), [0x83, 0x0B]);
    assert_eq!(bench.closed, [(conn, CloseReason::Timeout)]);
    bench.connect();
    assert_eq!(bench.sent_keys(), [1, 2], "what waited goes on at once");
    assert_eq!(bench.device.stats().timeouts, 1);
}

#[test]
fn a_time_out_costs_only_its_own_transaction_where_ids_tell_answers_apart() {
    let mut bench = Bench::connected(DeviceSettings {
        in_flight: 2,
        ..DeviceSettings::default()
    });
    bench.ask(Ask::read(1, 1).unit(9).within(100));
    bench.ask(Ask::held(2, 2).within(900));
    bench.release(2);
    bench.ask(Ask::read(3, 3).within(900));
    bench.pass(100);
    assert_eq!(bench.outcomes(), [(1, Outcome::Unknown(Loss::Timeout))]);
    assert_eq!(
        bench.sent_keys(),
        [1, 2],
        "the device may be busy with the first yet"
    );
    bench.answer(2);
    assert_eq!(bench.sent_keys(), [1, 2, 3]);
    bench.answer(1);
    assert_eq!(bench.device.stats().late, 1);
    bench.answer(3);
    assert_eq!(
        bench.outcomes(),
        [(2, Outcome::Answered), (3, Outcome::Answered)]
    );
    assert_eq!(bench.closed, []);
}

#[test]
fn a_time_out_with_nothing_else_in_flight_closes_the_connection() {
    let mut bench = Bench::connected(DeviceSettings {
        in_flight: 3,
        ..DeviceSettings::default()
    });
    bench.ask(Ask::read(1, 1).within(100));
    bench.ask(Ask::read(2, 2).within(200));
    bench.pass(150);
    assert_eq!(bench.closed, []);
    bench.pass(50);
    assert_eq!(bench.closed.len(), 1);
    assert_eq!(bench.outcomes().len(), 2);
}

#[test]
fn a_request_whose_turn_does_not_come_ends_unsent() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1).within(1000));
    bench.ask(Ask::read(2, 1).within(500));
    bench.pass(500);
    assert_eq!(bench.outcomes(), [(2, Outcome::NotSent)]);
    bench.answer(1);
    assert_eq!(bench.sent_keys(), [1]);
}

#[test]
fn without_a_connection_a_request_ends_as_unreachable() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.ask(Ask::read(1, 1).within(500));
    bench.pass(500);
    assert_eq!(bench.outcome(1), Some(Outcome::Unreachable));
    assert_eq!(bench.pdu(1), [0x83, 0x0B]);
    assert_eq!(bench.device.stats().sent, 0);
}

#[test]
fn a_request_that_ends_before_the_next_attempt_to_connect_is_told_at_once() {
    let mut bench = Bench::new(DeviceSettings {
        reconnect: Backoff {
            first: 1000 * MS,
            max: 1000 * MS,
        },
        ..DeviceSettings::default()
    });
    bench.ask(Ask::read(1, 1).within(400));
    bench.ask(Ask::read(2, 2).within(5000));
    bench.refuse_connect();
    bench.ask(Ask::read(3, 3).within(400));
    bench.ask(Ask::read(4, 4).within(5000));
    assert_eq!(
        bench.outcomes(),
        [(1, Outcome::Unreachable), (3, Outcome::Unreachable)]
    );
    bench.pass(1000);
    bench.connect();
    assert_eq!(bench.sent_keys(), [2]);
}

#[test]
fn a_request_past_its_deadline_is_not_sent_even_before_the_timer_rang() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
    bench.ask(Ask::read(2, 2).within(500));
    bench.now += 600 * MS;
    bench.answer(1);
    assert_eq!(bench.sent_keys(), [1]);
    assert_eq!(bench.outcome(2), Some(Outcome::NotSent));
}

#[test]
fn a_steady_flow_costs_one_timer_per_deadline_and_not_per_request() {
    let mut bench = Bench::connected(DeviceSettings::default());
    let first = bench.device.poll_timeout();
    for key in 0..100 {
        bench.ask(Ask::read(key, 1));
        bench.answer(key);
        bench.now += MS;
    }
    assert_eq!(bench.device.poll_timeout(), first);
    bench.pass(10_000);
    assert_eq!(bench.device.poll_timeout(), None);
}
