//! Connections that end under a request, from either side: what was asked is carried out, and no
//! close of ours comes before an answer.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Outcome};
use fieldlock_testkit::modbus::{Client, adu, write_register};
use fieldlock_testkit::ports::free_address;
use fieldlock_tests::answers::{NO_ANSWER, exception, read_one, read_registers, write_one};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{OPEN_POLICY, Pair, SOON, Setup, Transport, eventually};
use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both(
            "clients::a_write_then_a_close_is_carried_out",
            write_and_close,
        ),
        both(
            "clients::a_half_closed_client_gets_its_answers",
            half_closed,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.extend([
        test("clients::no_close_without_an_answer::framing", framing),
        test("clients::no_close_without_an_answer::stop", stop),
        test("clients::no_close_without_an_answer::policy", policy),
        test("clients::no_close_without_an_answer::listener", listener),
        test("clients::no_close_without_an_answer::seats", seats),
        test("clients::idle_connections_stay_open", idle),
    ]);
    trials
}

/// Also where they wait at the edge for the one before.
fn write_and_close(transport: Transport) {
    let pair = Pair::up(transport);
    for value in 1..=20 {
        let mut client = pair.client();
        client.send(&adu(1, 1, &write_register(42, value))).unwrap();
        drop(client);
        eventually("the write", || pair.plc().register(42) == Some(value));
    }
    pair.plc().set_answer_delay(Duration::from_millis(50));
    let mut client = pair.client();
    let burst: Vec<u8> = (1..=8)
        .flat_map(|value| adu(value, 1, &write_register(42, 100 + value)))
        .collect();
    client.send(&burst).unwrap();
    drop(client);
    eventually("the last write", || pair.plc().register(42) == Some(108));
    assert_eq!(pair.plc().write_count(), 28);
    let written = |record: &fieldlock_audit::Record| {
        record.kind == Kind::WriteOutcome && record.outcome == Some(Outcome::Answered)
    };
    eventually("the outcomes on record", || {
        pair.headend_audit().iter().filter(|r| written(r)).count() == 28
    });
}

fn half_closed(transport: Transport) {
    let pair = Pair::up(transport);
    pair.plc().set_answer_delay(Duration::from_millis(100));
    let mut client = pair.client();
    let write = write_register(42, 7);
    let asked = [adu(1, 1, &write), adu(2, 1, &read_one(42))].concat();
    client.send(&asked).unwrap();
    client.stream().shutdown(Shutdown::Write).unwrap();
    let answers = client.read_to_close(SOON).unwrap();
    assert_eq!(
        answers,
        [adu(1, 1, &write), adu(2, 1, &[3, 2, 0, 7])].concat()
    );
}

/// A client with a write that the PLC has, and will not answer for a while.
fn under_way(pair: &Pair, delay: Duration) -> Client {
    under_way_with(pair, 7, delay)
}

fn under_way_with(pair: &Pair, value: u16, delay: Duration) -> Client {
    pair.plc().set_answer_delay(delay);
    let mut client = pair.client();
    let before = pair.plc().write_count();
    client.send(&adu(1, 1, &write_register(42, value))).unwrap();
    eventually("the write to be with the PLC", || {
        pair.plc().write_count() == before + 1
    });
    client
}

/// Its answer, and then the end.
#[track_caller]
fn answer_then_close(mut client: Client, expected: &[u8]) {
    let answers = client.read_to_close(SOON).unwrap();
    assert_eq!(answers, adu(1, 1, expected));
}

fn framing() {
    let pair = Pair::up(Transport::Quic);
    pair.plc().set_answer_delay(Duration::from_millis(200));
    let mut client = pair.client();
    let write = write_register(42, 7);
    let bytes = [&adu(1, 1, &write)[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    client.send(&bytes).unwrap();
    answer_then_close(client, &write);
}

fn stop() {
    let mut pair = Setup::new(Transport::Quic).answer_within("5s").prepare();
    pair.headend.set_environment("FIELDLOCK__DRAIN", "1s");
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    // Within `drain` it gets its answer, beyond it that nobody knows.
    let client = under_way(&pair, Duration::from_secs(4));
    let started = Instant::now();
    pair.headend.terminate();
    assert!(started.elapsed() < Duration::from_secs(4));
    answer_then_close(client, &[0x86, NO_ANSWER]);
    pair.plc().set_answer_delay(Duration::ZERO);
    pair.headend.start();
    pair.wait_up();
    pair.wait_served();
    // The same again would be a repeat.
    let client = under_way_with(&pair, 8, Duration::from_millis(400));
    pair.headend.terminate();
    answer_then_close(client, &write_register(42, 8));
}

/// A policy that forbids the next request does not end a connection, nor what is under way on it.
fn policy() {
    let pair = Setup::new(Transport::Quic).answer_within("5s").up();
    let mut client = under_way(&pair, Duration::from_secs(1));
    pair.headend.write_policy("syntax = 1\n");
    pair.headend
        .wait_record("the policy", |record| record.kind == Kind::Reload);
    let answer = client.read_adu(SOON).unwrap();
    assert_eq!(answer, adu(1, 1, &write_register(42, 7)));
    pair.headend.write_policy(OPEN_POLICY);
    pair.plc().set_answer_delay(Duration::ZERO);
    eventually("the client to be let in again", || {
        let answer = client.request(1, &read_one(42)).unwrap();
        exception(&answer).is_none()
    });
}

fn listener() {
    let pair = Setup::new(Transport::Quic).answer_within("5s").up();
    let mut client = under_way(&pair, Duration::from_secs(1));
    let elsewhere = free_address().unwrap();
    let moved = pair
        .headend_config
        .replace(&pair.clients.to_string(), &elsewhere.to_string());
    pair.headend.write_config(&moved);
    eventually("the new address", || Client::connect(elsewhere).is_ok());
    let answer = client.read_adu(SOON).unwrap();
    assert_eq!(answer, adu(1, 1, &write_register(42, 7)));
}

/// Who has been idle for the longest time makes room, and nobody who waits for an answer.
fn seats() {
    let limits = "[client]\nmax_connections = 3\nidle_timeout = \"100ms\"\n";
    let setup = Setup::new(Transport::Quic).headend(limits);
    let setup = setup.modbus_tcp("max_connections = 2");
    let pair = setup.answer_within("5s").up();
    let mut waits = under_way(&pair, Duration::from_secs(2));
    pair.plc().set_answer_delay(Duration::ZERO);
    let mut oldest = pair.client();
    let mut second = pair.client();
    let answered = |client: &mut Client| client.request(1, &read_one(0)).is_ok();
    assert!(answered(&mut oldest) && answered(&mut second));
    eventually("a place for one more", || {
        let mut third = pair.client();
        let served = answered(&mut third);
        drop(third);
        served
    });
    assert!(oldest.read_to_close(SOON).unwrap().is_empty());
    assert!(answered(&mut second));
    let answer = waits.read_adu(SOON).unwrap();
    assert_eq!(answer, adu(1, 1, &write_register(42, 7)));
}

/// Between two polls a connection may rest for as long as there is room.
fn idle() {
    let limits = "[client]\nidle_timeout = \"200ms\"\n";
    let pair = Setup::new(Transport::Quic).headend(limits).up();
    let mut client = pair.client();
    write_one(&mut client, 42, 1);
    client.read_adu(Duration::from_secs(1)).unwrap_err();
    read_registers(&mut client, 42, 1);
}
