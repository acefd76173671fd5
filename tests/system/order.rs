//! What one client asks of one unit is carried out and answered in the order in which it was asked, as if there
//! were no gateway; and a unit that does not answer costs its own requests alone.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Outcome};
use fieldlock_testkit::modbus::{Client, read, registers, write_register};
use fieldlock_tests::answers::{BUSY, NO_ANSWER, exception, read_one};
use fieldlock_tests::machine::{Deed, Machine};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{Pair, Setup, Transport, eventually};
use libtest_mimic::Trial;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);
const NOW: Deed = Deed::After(Duration::ZERO);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both(
            "order::a_coil_switched_on_and_off_at_once_ends_off",
            on_and_off,
        ),
        both(
            "order::a_read_behind_a_write_reads_what_was_written",
            write_and_read,
        ),
        both("order::a_dead_unit_holds_up_nobody", dead_unit),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(test("order::rising_values_end_at_the_last", rising_values));
    trials.push(test(
        "order::a_write_that_was_given_up_never_comes_after_a_newer_one",
        given_up,
    ));
    trials.push(test(
        "order::a_time_out_costs_only_its_own_transaction",
        own_transaction,
    ));
    trials.push(test(
        "order::what_can_not_be_in_time_is_not_sent",
        not_in_time,
    ));
    trials.push(test(
        "order::a_read_on_a_forgotten_connection_is_asked_once_more",
        forgotten,
    ));
    trials
}

/// A device that takes from 0 to 2 ms, by the number of the request.
fn uneven() -> Machine {
    Machine::start(|number, _, _| Deed::After(MS / 2 * (number * 7 % 5) as u32))
}

fn pair(transport: Transport, machine: &Machine, keys: &str) -> Pair {
    Setup::new(transport)
        .plc(machine.address())
        .modbus_tcp(keys)
        .up()
}

fn coil(address: u16, on: bool) -> [u8; 5] {
    let [high, low] = address.to_be_bytes();
    [5, high, low, if on { 0xff } else { 0 }, 0]
}

fn on_and_off(transport: Transport) {
    let machine = uneven();
    let pair = pair(transport, &machine, "max_connections = 2, in_flight = 1");
    let mut client = pair.client();
    for round in 0..60 {
        let answers = client
            .pipeline(1, &[&coil(7, true), &coil(7, false)])
            .unwrap();
        assert_eq!(answers, [coil(7, true), coil(7, false)]);
        assert!(!machine.coil(1, 7), "left on in round {round}");
    }
}

fn rising_values() {
    let machine = uneven();
    let keys = "max_connections = 8, in_flight = 1";
    let pair = pair(Transport::Quic, &machine, keys);
    let mut client = pair.client();
    let mut value = 0;
    for _ in 0..30 {
        let writes: Vec<_> = (0..8).map(|n| write_register(101, value + n + 1)).collect();
        let writes: Vec<&[u8]> = writes.iter().map(|write| &write[..]).collect();
        value += 8;
        assert_eq!(client.pipeline(1, &writes).unwrap(), writes);
        assert_eq!(machine.register(1, 101), value);
    }
}

fn write_and_read(transport: Transport) {
    let machine = uneven();
    let pair = pair(transport, &machine, "max_connections = 2, in_flight = 1");
    let mut client = pair.client();
    for value in 1..=60 {
        let answers = client
            .pipeline(1, &[&write_register(101, value), &read_one(101)])
            .unwrap();
        assert_eq!(registers(&answers[1]), Some(vec![value]));
    }
}

/// The device stops for longer than a client waits, and then goes on with what it has.
fn given_up() {
    let stop = Arc::new(AtomicUsize::new(usize::MAX));
    let at = stop.clone();
    let machine = Machine::start(move |number, _, _| {
        Deed::After(if number == at.load(Ordering::SeqCst) {
            700 * MS
        } else {
            MS
        })
    });
    let pair = Setup::new(Transport::Quic)
        .plc(machine.address())
        .answer_within("300ms")
        .up();
    let mut client = pair.client();
    for (round, value) in (0..4).map(|round| (round, 10 * round)) {
        stop.store(machine_requests(&machine), Ordering::SeqCst);
        let answer = client.request(1, &write_register(5, value + 1)).unwrap();
        assert_eq!(exception(&answer), Some(NO_ANSWER));
        // Newer ones, until one is confirmed.
        let mut newer = value + 1;
        eventually("a newer write to be carried out", || {
            newer += 1;
            let write = write_register(5, newer);
            let answer = client.request(1, &write).unwrap();
            let code = exception(&answer);
            assert!(answer == write || code == Some(BUSY), "{answer:02x?}");
            answer == write
        });
        assert_eq!(machine.register(1, 5), newer, "round {round}");
        let done = machine.done();
        let values: Vec<u16> = done
            .iter()
            .filter(|done| done.pdu[0] == 6)
            .map(|done| u16::from_be_bytes([done.pdu[3], done.pdu[4]]))
            .collect();
        assert!(values.is_sorted(), "{values:?}");
    }
}

/// Of the requests so far: all were carried out.
fn machine_requests(machine: &Machine) -> usize {
    machine.done().len()
}

/// Three units behind a gateway are well, one is off.
fn dead_unit(transport: Transport) {
    let machine = Machine::start(|_, unit, _| match unit {
        2 => Deed::Nothing,
        _ => Deed::After(5 * MS),
    });
    let pair = Setup::new(transport)
        .plc(machine.address())
        .device("response_timeout = \"200ms\"")
        .up();
    let mut client = pair.client();
    for _ in 0..6 {
        let mut segment = Vec::new();
        let first = segment_of(&mut segment, [1, 2, 3, 4]);
        client.send(&segment).unwrap();
        let mut served = HashSet::new();
        for _ in 0..4 {
            let answer = client.read_adu(PATIENCE).unwrap();
            let unit = answer[6];
            let expected = u16::from_be_bytes([answer[0], answer[1]]) - first + 1;
            assert_eq!(u16::from(unit), expected);
            match unit {
                2 => assert_eq!(answer[7..], [0x83, NO_ANSWER]),
                _ => assert_eq!(answer[7..], [3, 2, 0, 0], "unit {unit}"),
            }
            served.insert(unit);
        }
        assert_eq!(served.len(), 4);
    }
    // Found dead, it is not asked each time.
    let asked = machine.done().len();
    assert_eq!(asked, 18);
    let status = pair.edge.status();
    assert_eq!(status["devices"][0]["units_held_off"][0], 2, "{status}");
}

fn segment_of(segment: &mut Vec<u8>, units: [u8; 4]) -> u16 {
    for (id, unit) in (1..).zip(units) {
        segment.extend([0, id, 0, 0, 0, 6, unit]);
        segment.extend(read(3, 1, 1));
    }
    1
}

/// A gateway that serves each unit by itself, four requests in flight: one unit does not answer, and
/// the writes of another client to another unit all go well.
fn own_transaction() {
    let machine = Machine::start(|_, unit, _| match unit {
        9 => Deed::Nothing,
        _ => NOW,
    });
    let pair = pair(Transport::Quic, &machine, "in_flight = 4");
    let polling = Arc::new(AtomicUsize::new(0));
    let address = pair.clients;
    let polls = polling.clone();
    let poller = thread::spawn(move || {
        let mut client = Client::connect(address).unwrap();
        for _ in 0..3 {
            let answer = client.request(9, &read_one(0)).unwrap();
            assert_eq!(exception(&answer), Some(NO_ANSWER));
            polls.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut client = pair.client();
    let mut value = 0;
    while polling.load(Ordering::SeqCst) < 3 {
        value += 1;
        let write = write_register(1, value);
        assert_eq!(client.request(1, &write).unwrap(), write);
        thread::sleep(MS);
    }
    poller.join().unwrap();
    let outcomes = pair.edge.audit_kind(Kind::WriteOutcome);
    let lost = outcomes
        .iter()
        .filter(|r| r.outcome != Some(Outcome::Answered));
    assert_eq!(lost.count(), 0);
}

/// More clients than a slow device can serve: what it can't do in time it does not get, so that
/// hardly a write is carried out and told as unknown.
fn not_in_time() {
    const CLIENTS: u16 = 16;
    let machine = Machine::start(|number, _, _| Deed::After(MS * (number * 67 % 300) as u32));
    let pair = pair(Transport::Quic, &machine, "in_flight = 1");
    let until = Instant::now() + Duration::from_secs(8);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let address = pair.clients;
            thread::spawn(move || {
                let mut client = Client::connect(address).unwrap();
                let (mut done, mut busy, mut unknown) = (0, 0, 0);
                for value in 0.. {
                    if Instant::now() > until {
                        break;
                    }
                    let write = write_register(number, value);
                    let answer = client.request(1, &write).unwrap();
                    match exception(&answer) {
                        None => done += 1,
                        Some(BUSY) => busy += 1,
                        Some(NO_ANSWER) => unknown += 1,
                        Some(other) => panic!("exception {other}"),
                    }
                }
                (done, busy, unknown)
            })
        })
        .collect();
    let clients = clients.into_iter().map(|client| client.join().unwrap());
    let sum = clients
        .reduce(|a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2))
        .unwrap();
    let (done, busy, unknown) = sum;
    assert!(busy > 0, "{sum:?}: not more than it can serve");
    assert!(unknown * 4 <= done, "{sum:?}: done, busy, unknown");
}

/// The device has forgotten a connection that was idle, and resets it at the next request.
fn forgotten() {
    let machine = Machine::start(|number, _, _| match number {
        1 | 3 => Deed::Reset,
        _ => NOW,
    });
    let pair = pair(Transport::Quic, &machine, "in_flight = 1");
    let mut client = pair.client();
    let mut ask = |pdu: &[u8]| client.request(1, pdu).unwrap();
    assert_eq!(ask(&read_one(0)), [3, 2, 0, 0]);
    assert_eq!(ask(&read_one(0)), [3, 2, 0, 0], "a read is asked once more");
    let write = write_register(1, 7);
    assert_eq!(exception(&ask(&write)), Some(NO_ANSWER), "a write never");
    assert_eq!(ask(&read_one(1)), [3, 2, 0, 0]);
    assert_eq!(pair.edge.status()["devices"][0]["asked_again"], 1);
}
