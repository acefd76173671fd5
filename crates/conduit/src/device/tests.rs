use std::time::Duration;

use fieldlock_modbus::{FramingError, Mismatch};

use super::bench::{Ask, Bench};
use super::{Backoff, CloseReason, DeviceSettings, Event, Framing, Key, Loss, Outcome, QueueFull};

const MS: Duration = Duration::from_millis(1);

// Connections

#[test]
fn nothing_is_connected_before_the_first_request() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.pass(10_000);
    assert!(bench.connecting.is_empty());
    bench.ask(Ask::read(1, 1));
    assert_eq!(bench.connecting.len(), 1);
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
    assert_eq!(bench.pdu(7), [3, 2, 0, 7]);
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

// Deadlines

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
fn a_time_out_ends_what_else_is_in_flight_but_not_what_waits() {
    let mut bench = Bench::connected(DeviceSettings {
        in_flight: 2,
        ..DeviceSettings::default()
    });
    bench.ask(Ask::read(1, 1).within(100));
    bench.ask(Ask::held(2, 2).within(900));
    bench.release(2);
    bench.ask(Ask::read(3, 3).within(900));
    bench.pass(100);
    assert_eq!(
        bench.outcomes(),
        [
            (1, Outcome::Unknown(Loss::Timeout)),
            (2, Outcome::Unknown(Loss::Closed))
        ]
    );
    bench.connect();
    assert_eq!(bench.sent_keys(), [1, 2, 3], "and the write only once");
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

// Loss of a connection

#[test]
fn a_lost_connection_leaves_sent_requests_unknown_and_waiting_ones_waiting() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
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

// Answers that do not match

#[test]
fn wrong_answers_close_the_connection_and_end_the_request_at_once() {
    let unit = CloseReason::Unit {
        got: 2,
        expected: 1,
    };
    let function = CloseReason::Mismatch(Mismatch::Function {
        got: 4,
        expected: 3,
    });
    let count = CloseReason::Mismatch(Mismatch::ByteCount {
        got: 4,
        expected: 2,
    });
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
        bench.ask(Ask::read(2, 1));
        bench.answer_with(1, answer_unit, pdu);
        assert_eq!(
            bench.outcomes(),
            [
                (1, Outcome::Unknown(Loss::Mismatch)),
                (2, Outcome::Unknown(Loss::Closed))
            ]
        );
        assert_eq!(bench.closed, [(conn, reason)]);
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
    assert_eq!(bench.closed[0].1, CloseReason::Transaction { got });
}

#[test]
fn an_answer_that_comes_twice_closes_the_connection() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
    let sent = bench.sent[0].clone();
    let frame = bench.frame(sent.transaction, 1, &sent.right());
    bench.bytes(sent.conn, &[frame.clone(), frame].concat());
    assert_eq!(bench.outcomes(), [(1, Outcome::Answered)]);
    assert_eq!(bench.closed[0].1, CloseReason::Unsolicited);
}

#[test]
fn bytes_that_are_not_modbus_close_the_connection() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
    bench.bytes(bench.open[0], b"HTTP/1.1 400 Bad Request");
    assert_eq!(bench.outcome(1), Some(Outcome::Unknown(Loss::Mismatch)));
    let framing = CloseReason::Framing(FramingError::ProtocolId { got: 0x5450 });
    assert_eq!(bench.closed[0].1, framing);
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

// Fairness, limits, held requests

#[test]
fn a_flood_delays_another_client_by_one_request() {
    let mut bench = Bench::connected(DeviceSettings::default());
    (0..16).for_each(|key| bench.ask(Ask::read(key, 1)));
    bench.ask(Ask::read(100, 2));
    bench.ask(Ask::read(200, 3));
    bench.ask(Ask::read(101, 2));
    for key in [0, 1, 100, 200, 2, 101, 3] {
        assert_eq!(bench.sent.last().unwrap().key(), key);
        bench.answer(key);
    }
}

#[test]
fn queues_have_limits_and_shed_the_newest() {
    let mut bench = Bench::new(DeviceSettings {
        queue: 5,
        queue_per_client: 3,
        ..DeviceSettings::default()
    });
    (0..3).for_each(|key| bench.ask(Ask::read(key, 1)));
    let full = bench.try_ask(Ask::read(3, 1));
    assert_eq!(full, Err(QueueFull::Client { limit: 3 }));
    (3..5).for_each(|key| bench.ask(Ask::read(key, 2)));
    let full = bench.try_ask(Ask::read(5, 3));
    assert_eq!(full, Err(QueueFull::Device { limit: 5 }));
    bench.connect();
    bench.ask(Ask::read(5, 3));
    assert_eq!(bench.device.stats().queued, 5);
}

#[test]
fn answers_that_nobody_collects_count_against_the_limit() {
    let mut bench = Bench::new(DeviceSettings {
        queue: 2,
        ..DeviceSettings::default()
    });
    let conn = {
        bench.ask(Ask::read(0, 1));
        bench.connecting[0]
    };
    bench.device.handle_connected(bench.now, conn);
    bench.drop_client(1);
    for client in 0..50 {
        let request = fieldlock_modbus::Request::parse(&[3, 0, 0, 0, 1]).unwrap();
        let _ = bench.device.submit(
            bench.now,
            super::Submit {
                key: Key(client),
                client: super::ClientKey(client),
                unit: 1,
                request: &request,
                deadline: bench.now,
                held: false,
            },
        );
    }
    let mut collected = 0;
    while let Some(Event::Answer { .. }) = bench.device.poll_event() {
        collected += 1;
    }
    assert_eq!(collected, 3);
}

#[test]
fn a_held_request_waits_for_its_release_and_stops_only_its_own_client() {
    let mut bench = Bench::connected(DeviceSettings {
        in_flight: 8,
        ..DeviceSettings::default()
    });
    bench.ask(Ask::held(1, 1));
    bench.ask(Ask::read(2, 1));
    bench.ask(Ask::read(3, 2));
    assert_eq!(bench.sent_keys(), [3]);
    bench.release(1);
    assert_eq!(bench.sent_keys(), [3, 1, 2]);
    assert_eq!(bench.sent_as(1).pdu, [6, 0, 1, 0, 7]);
}

#[test]
fn a_held_request_opens_the_connection_that_it_will_need() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.ask(Ask::held(1, 1));
    assert_eq!(bench.connecting.len(), 1);
}

#[test]
fn a_held_request_can_be_taken_back_until_its_release() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::held(1, 1));
    bench.ask(Ask::held(2, 1));
    assert!(bench.device.refuse(Key(1)));
    assert!(!bench.device.refuse(Key(1)));
    bench.release(1);
    bench.release(2);
    assert!(!bench.device.refuse(Key(2)));
    assert_eq!(bench.sent_keys(), [2]);
    bench.pass(5000);
    assert_eq!(bench.outcomes(), [(2, Outcome::Unknown(Loss::Timeout))]);
}

#[test]
fn a_held_request_that_is_never_released_ends_at_its_deadline() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::held(1, 1).within(200));
    bench.pass(200);
    assert_eq!(bench.outcomes(), [(1, Outcome::NotSent)]);
    bench.release(1);
    assert!(bench.sent.is_empty());
}

#[test]
fn a_client_that_leaves_takes_along_what_was_not_sent() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::held(1, 1));
    bench.release(1);
    bench.ask(Ask::held(2, 1));
    bench.ask(Ask::read(3, 1));
    bench.ask(Ask::read(4, 2));
    bench.drop_client(1);
    assert_eq!(bench.pdu(2), [0x86, 0x0A]);
    assert_eq!(
        bench.outcomes(),
        [(2, Outcome::NotSent), (3, Outcome::NotSent)]
    );
    bench.answer(1);
    assert_eq!(bench.outcomes(), [(1, Outcome::Answered)]);
    assert_eq!(bench.sent_keys(), [1, 4]);
}

// Serial lines

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
    let submit = super::Submit {
        key: Key(1),
        client: super::ClientKey(1),
        unit: 5,
        request: &request,
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
