//! Whose turn it is: fairness, limits, held requests.

use super::bench::{Ask, Bench};
use crate::admit::Grounds;
use crate::device::{ClientKey, DeviceSettings, Event, Key, Loss, Outcome, QueueFull, Submit};

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
            Submit {
                key: Key(client),
                client: ClientKey(client),
                unit: 1,
                request: &request,
                grounds: Grounds(0),
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
