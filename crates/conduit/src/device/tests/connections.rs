//! When connections open, close and open again.

use std::time::Duration;

use super::MS;
use super::bench::{Ask, Bench};
use crate::device::{CloseReason, DeviceSettings, Loss, Outcome};

#[test]
fn nothing_is_connected_before_the_first_request() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.pass(10_000);
    assert!(bench.connecting.is_empty());
    bench.ask(Ask::read(1, 1));
    assert_eq!(bench.connecting.len(), 1);
}

#[test]
fn the_first_connection_can_be_opened_ahead_and_serves_the_first_request() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.connect_ahead();
    bench.connect_ahead();
    assert_eq!(bench.connecting.len(), 1);
    bench.connect();
    bench.connect_ahead();
    assert!(bench.connecting.is_empty());
    bench.ask(Ask::read(7, 1));
    assert_eq!(bench.sent_as(7).conn, bench.open[0]);
}

#[test]
fn a_request_goes_out_once_connected_and_its_answer_comes_back() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.ask(Ask::read(7, 1).unit(9));
    assert!(bench.sent.is_empty());
    bench.connect();
    assert_eq!(bench.sent[0].pdu, [3, 0, 7, 0, 1]);
    assert_eq!(bench.sent[0].unit, 9);
    bench.answer(7);
    assert_eq!(bench.outcome(7), Some(Outcome::Answered));
    assert_eq!(bench.pdu(7), [3, 2, 0, 1]);
}

#[test]
fn an_exception_of_the_device_is_an_answer() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(7, 1));
    bench.answer_with(7, 1, &[0x83, 2]);
    assert_eq!(bench.outcome(7), Some(Outcome::Answered));
    assert_eq!(bench.pdu(7), [0x83, 2]);
    assert_eq!(bench.open.len(), 1);
}

#[test]
fn a_further_connection_opens_only_when_the_others_are_full() {
    let mut bench = Bench::connected(DeviceSettings {
        max_connections: 2,
        in_flight: 2,
        ..DeviceSettings::default()
    });
    for key in 0..2 {
        bench.ask(Ask::read(key, key));
        assert!(bench.connecting.is_empty());
    }
    bench.ask(Ask::read(2, 2));
    assert_eq!(bench.connecting.len(), 1);
    bench.connect();
    bench.ask(Ask::read(3, 3));
    bench.ask(Ask::read(4, 4));
    assert!(bench.connecting.is_empty(), "two is the limit");
    assert_eq!(bench.sent_keys(), [0, 1, 2, 3]);
    assert_eq!(bench.sent_as(1).conn, bench.open[0]);
    assert_eq!(bench.sent_as(3).conn, bench.open[1]);
    let stats = bench.device.stats();
    assert_eq!(
        (stats.connections, stats.in_flight, stats.queued),
        (2, 4, 1)
    );
}

#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.ask(Ask::read(1, 1).within(5000));
    let conn = bench.connecting[0];
    bench.pass(1999);
    assert!(bench.closed.is_empty());
    bench.pass(1);
    assert_eq!(bench.closed, [(conn, CloseReason::ConnectTimeout)]);
    bench.pass(50);
    assert_eq!(bench.connecting.len(), 1, "and tried again");
    assert_eq!(bench.outcome(1), None);
}

#[test]
fn refused_connects_are_repeated_ever_slower() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.ask(Ask::read(1, 1).within(60_000));
    let mut attempts = Vec::new();
    for _ in 0..10 {
        attempts.push(bench.now - bench.start);
        bench.refuse_connect();
        while bench.connecting.is_empty() {
            bench.pass(1);
        }
    }
    let gaps: Vec<Duration> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] <= 51 * MS && gaps[0] >= 25 * MS, "{gaps:?}");
    assert!(gaps[8] <= 5001 * MS && gaps[8] >= 2500 * MS, "{gaps:?}");
}

#[test]
fn a_connection_that_worked_is_replaced_at_once() {
    let mut bench = Bench::connected(DeviceSettings::default());
    let conn = bench.open[0];
    bench.close(conn);
    assert!(bench.connecting.is_empty(), "nobody needs it");
    bench.ask(Ask::read(1, 1));
    assert_eq!(bench.connecting.len(), 1);
    assert_ne!(bench.connecting[0], conn);
    assert_eq!(bench.connecting[0].index(), conn.index());
}

#[test]
fn a_device_that_accepts_and_closes_is_not_dialled_in_a_loop() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.ask(Ask::held(1, 1).within(60_000));
    let mut attempts = 0;
    while bench.now - bench.start < Duration::from_secs(10) {
        if !bench.connecting.is_empty() {
            attempts += 1;
            bench.connect();
            bench.close(bench.open[0]);
        }
        bench.pass(1);
    }
    assert!(attempts < 20, "{attempts}");
}

#[test]
fn the_pauses_after_connect_and_between_requests_are_kept() {
    let mut bench = Bench::new(DeviceSettings {
        in_flight: 4,
        pause_after_connect: 30 * MS,
        pause_between_requests: 10 * MS,
        ..DeviceSettings::default()
    });
    (0..3).for_each(|key| bench.ask(Ask::read(key, key)));
    bench.connect();
    bench.pass(24);
    assert!(bench.sent.is_empty());
    bench.pass(20);
    assert_eq!(bench.sent_keys(), [0, 1]);
    bench.answer(0);
    bench.pass(9);
    assert_eq!(bench.sent_keys(), [0, 1]);
    bench.pass(1);
    assert_eq!(bench.sent_keys(), [0, 1, 2]);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let mut bench = Bench::connected(DeviceSettings {
        idle_close: Some(100 * MS),
        ..DeviceSettings::default()
    });
    let conn = bench.open[0];
    bench.pass(50);
    bench.ask(Ask::read(1, 1));
    bench.pass(200);
    assert!(bench.closed.is_empty());
    bench.answer(1);
    bench.pass(99);
    assert!(bench.closed.is_empty());
    bench.pass(1);
    assert_eq!(bench.closed, [(conn, CloseReason::Idle)]);
    bench.pass(5000);
    assert_eq!(bench.device.poll_timeout(), None);
}

#[test]
fn what_a_past_connection_says_means_nothing() {
    let mut bench = Bench::connected(DeviceSettings::default());
    let past = bench.open[0];
    bench.close(past);
    bench.ask(Ask::read(1, 1));
    bench.connect();
    let late = bench.frame(bench.sent[0].transaction, 1, &bench.sent[0].right());
    bench.bytes(past, &late);
    bench.close(past);
    bench.device.handle_connected(bench.now, past);
    assert_eq!(bench.outcome(1), None);
    assert_eq!(bench.open.len(), 1);
    bench.answer(1);
    assert_eq!(bench.outcome(1), Some(Outcome::Answered));
}

#[test]
fn a_lost_connection_leaves_sent_requests_unknown_and_waiting_ones_waiting() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::held(1, 1));
    bench.release(1);
    bench.ask(Ask::read(2, 2));
    bench.close(bench.open[0]);
    assert_eq!(bench.outcomes(), [(1, Outcome::Unknown(Loss::Closed))]);
    bench.connect();
    assert_eq!(bench.sent_keys(), [1, 2]);
    bench.answer(2);
    assert_eq!(bench.outcomes(), [(2, Outcome::Answered)]);
}

#[test]
fn a_request_not_handed_out_was_not_sent() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.ask(Ask::read(1, 1).within(2000));
    let conn = bench.connecting[0];
    bench.device.handle_connected(bench.now, conn);
    bench.device.handle_closed(bench.now, conn, false);
    bench.connecting.clear();
    bench.drain();
    assert_eq!(bench.outcomes(), []);
    assert_eq!(bench.device.stats().sent, 0);
    bench.pass(100);
    bench.connect();
    assert_eq!(bench.sent_keys(), [1]);
}
