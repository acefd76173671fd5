//! What one client asks of one unit happens in the order in which it asked, whatever happens.

use super::MS;
use super::bench::{Ask, Bench};
use crate::device::{ConnId, DeviceSettings, Loss, Outcome};

fn pool(max_connections: u16, in_flight: u16) -> Bench {
    Bench::connected(DeviceSettings {
        max_connections,
        in_flight,
        ..DeviceSettings::default()
    })
}

/// A write that is released at once.
fn write(bench: &mut Bench, ask: Ask) {
    bench.ask(ask);
    bench.release(ask.key);
    bench.connect();
}

fn conns(bench: &Bench) -> Vec<ConnId> {
    bench.sent.iter().map(|sent| sent.conn).collect()
}

#[test]
fn a_write_and_the_next_of_the_same_client_never_are_on_two_connections() {
    let mut bench = pool(2, 1);
    write(&mut bench, Ask::held(1, 1));
    write(&mut bench, Ask::held(2, 1));
    bench.ask(Ask::read(3, 1));
    assert_eq!(bench.sent_keys(), [1]);
    assert!(
        bench.connecting.is_empty(),
        "a second one would be of no use"
    );
    bench.answer(1);
    assert_eq!(bench.sent_keys(), [1, 2]);
    bench.answer(2);
    assert_eq!(bench.sent_keys(), [1, 2, 3]);
}

#[test]
fn what_is_pipelined_stays_on_one_connection() {
    let mut bench = pool(2, 2);
    (1..=2).for_each(|key| bench.ask(Ask::read(key, 1)));
    (11..=12).for_each(|key| bench.ask(Ask::read(key, 2)));
    bench.connect();
    (3..=4).for_each(|key| bench.ask(Ask::read(key, 1)));
    assert_eq!(bench.sent_keys(), [1, 2, 11, 12]);
    bench.answer(11);
    assert_eq!(
        bench.sent_keys(),
        [1, 2, 11, 12],
        "room, and on the wrong one"
    );
    bench.answer(1);
    bench.answer(2);
    assert_eq!(bench.sent_keys(), [1, 2, 11, 12, 3, 4]);
    let conns = conns(&bench);
    assert_eq!(conns[4], conns[5]);
}

#[test]
fn units_of_one_client_do_not_wait_for_each_other() {
    let mut bench = pool(2, 1);
    bench.ask(Ask::held(1, 1).unit(1));
    bench.ask(Ask::read(2, 1).unit(2));
    assert_eq!(
        bench.sent_keys(),
        [2],
        "the write is held, the other unit's read is not"
    );
    bench.ask(Ask::read(3, 1).unit(3));
    bench.connect();
    assert_eq!(bench.sent_keys(), [2, 3]);
}

#[test]
fn a_newer_write_waits_until_the_device_has_closed_the_connection_of_one_whose_fate_is_unknown() {
    let mut bench = pool(1, 1);
    write(&mut bench, Ask::held(1, 1).within(100));
    bench.pass(100);
    assert_eq!(bench.outcomes(), [(1, Outcome::Unknown(Loss::Timeout))]);
    assert_eq!(bench.sealing.len(), 1);
    bench.connect();
    write(&mut bench, Ask::held(2, 1));
    bench.connect();
    bench.ask(Ask::read(3, 2));
    write(&mut bench, Ask::held(4, 1).unit(2));
    assert_eq!(bench.sent_keys(), [1, 3], "a read may go");
    bench.answer(3);
    assert_eq!(bench.sent_keys(), [1, 3, 4], "and a write to another unit");
    bench.answer(4);
    bench.seal();
    assert_eq!(bench.sent_keys(), [1, 3, 4, 2]);
}

#[test]
fn a_device_that_never_closes_is_waited_for_for_two_seconds() {
    let mut bench = pool(1, 1);
    write(&mut bench, Ask::held(1, 1).within(100));
    bench.pass(100);
    write(&mut bench, Ask::held(2, 1).within(1000));
    write(&mut bench, Ask::held(3, 1).within(2500));
    bench.pass(1999);
    assert_eq!(bench.sent_keys(), [1]);
    assert_eq!(bench.outcome(2), Some(Outcome::NotSent));
    assert_eq!(bench.pdu(2), [0x86, 0x06]);
    bench.pass(1);
    assert_eq!(bench.sent_keys(), [1, 3]);
}

#[test]
fn a_newer_write_may_follow_on_the_same_connection() {
    let mut bench = pool(2, 3);
    write(&mut bench, Ask::held(1, 1).within(100));
    bench.ask(Ask::read(2, 2).unit(2));
    bench.pass(100);
    assert_eq!(bench.outcomes(), [(1, Outcome::Unknown(Loss::Timeout))]);
    write(&mut bench, Ask::held(3, 1));
    assert_eq!(bench.sent_keys(), [1, 2, 3]);
    let conns = conns(&bench);
    assert_eq!(conns[0], conns[2]);
}

/// The late answer to the first says nothing of the second.
#[test]
fn each_of_several_writes_of_unknown_fate_is_waited_for() {
    let mut bench = pool(1, 3);
    for key in [1, 2] {
        write(&mut bench, Ask::held(key, 1).within(100));
    }
    bench.ask(Ask::read(3, 2).unit(2).within(400));
    bench.pass(100);
    let lost = Outcome::Unknown(Loss::Timeout);
    assert_eq!(bench.outcomes(), [(1, lost), (2, lost)]);
    bench.answer(1);
    bench.pass(300);
    assert_eq!(bench.sealing.len(), 1);
    bench.connect();
    write(&mut bench, Ask::held(4, 1));
    assert_eq!(bench.sent_keys(), [1, 2, 3]);
    bench.seal();
    assert_eq!(bench.sent_keys(), [1, 2, 3, 4]);
}

#[test]
fn a_read_whose_connection_is_lost_is_asked_once_more_and_a_write_never() {
    let mut bench = pool(1, 4);
    bench.ask(Ask::read(1, 1));
    bench.ask(Ask::read(2, 1));
    write(&mut bench, Ask::held(3, 2));
    bench.close(bench.open[0]);
    assert_eq!(bench.outcomes(), [(3, Outcome::Unknown(Loss::Closed))]);
    bench.connect();
    assert_eq!(bench.sent_keys(), [1, 2, 3, 1, 2]);
    assert_eq!(bench.device.stats().asked_again, 2);
    bench.close(bench.open[0]);
    let lost = Outcome::Unknown(Loss::Closed);
    assert_eq!(bench.outcomes(), [(1, lost), (2, lost)]);
}

#[test]
fn a_read_is_not_asked_again_behind_a_write_that_it_came_before() {
    let mut bench = pool(1, 4);
    bench.ask(Ask::read(1, 1));
    write(&mut bench, Ask::held(2, 1));
    bench.ask(Ask::read(3, 1));
    bench.close(bench.open[0]);
    let lost = Outcome::Unknown(Loss::Closed);
    assert_eq!(bench.outcomes(), [(1, lost), (2, lost)]);
    bench.connect();
    assert_eq!(bench.sent_keys(), [1, 2, 3, 3]);
}

#[test]
fn what_was_asked_again_and_finds_no_connection_is_lost_and_not_unsent() {
    let mut bench = pool(1, 1);
    bench.ask(Ask::read(1, 1).within(500));
    bench.close(bench.open[0]);
    bench.pass_time(500 * MS);
    assert_eq!(bench.outcomes(), [(1, Outcome::Unknown(Loss::Closed))]);
    assert_eq!(bench.sent_keys(), [1]);
}

#[test]
fn writes_wait_for_what_an_earlier_process_may_have_left_under_way() {
    let mut bench = Bench::new(DeviceSettings::default());
    bench.device.wait_for_earlier_writes();
    write(&mut bench, Ask::held(1, 1).within(5000));
    bench.ask(Ask::read(2, 2).within(5000));
    bench.connect();
    assert_eq!(bench.sent_keys(), [2]);
    bench.answer(2);
    bench.pass(1999);
    assert_eq!(bench.sent_keys(), [2]);
    bench.pass(1);
    assert_eq!(bench.sent_keys(), [2, 1]);
}
