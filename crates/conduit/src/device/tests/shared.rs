//! Reads that are answered together.

use super::MS;
use super::bench::{Ask, Bench};
use crate::device::{DeviceSettings, Framing, Loss, Outcome};

const BLOCK: u16 = 7000;

/// A device that is busy with a read of `BLOCK` by client 0, sent as the first.
fn busy() -> Bench {
    busy_with(DeviceSettings::default())
}

fn busy_with(settings: DeviceSettings) -> Bench {
    let mut bench = Bench::connected(settings);
    bench.ask(common(0, 0));
    bench.pass(10);
    assert_eq!(bench.sent.len(), 1);
    bench
}

fn common(key: u64, client: u64) -> Ask {
    Ask::read(key, client).of(BLOCK)
}

fn answer_last(bench: &mut Bench) {
    let last = bench.sent.last().unwrap().key();
    bench.answer(last);
}

#[test]
fn clients_that_wait_for_the_same_share_the_next_read() {
    let mut bench = busy();
    (1..10).for_each(|client| bench.ask(common(client, client)));
    answer_last(&mut bench);
    assert_eq!(bench.outcomes(), [(0, Outcome::Answered)]);
    assert_eq!(bench.sent.len(), 2);
    let right = bench.sent[1].right();
    answer_last(&mut bench);
    (1..10).for_each(|key| assert_eq!(bench.pdu(key), right));
    assert_eq!(bench.shared, (2..10).collect::<Vec<u64>>());
    let stats = bench.device.stats();
    assert_eq!((stats.sent, stats.shared, stats.answered), (3, 8, 3));
    assert_eq!((stats.queued, stats.in_flight), (0, 0));
}

#[test]
fn a_read_that_is_with_the_device_already_is_not_shared() {
    let mut bench = busy();
    bench.ask(common(1, 1));
    answer_last(&mut bench);
    assert_eq!(bench.outcomes(), [(0, Outcome::Answered)]);
    assert_eq!(bench.sent.len(), 2);
}

#[test]
fn nothing_is_shared_where_it_is_switched_off() {
    let mut bench = busy_with(DeviceSettings {
        shared_reads: false,
        ..DeviceSettings::default()
    });
    (1..4).for_each(|client| bench.ask(common(client, client)));
    (0..4).for_each(|_| answer_last(&mut bench));
    assert_eq!(bench.sent.len(), 4);
    assert!(bench.shared.is_empty());
}

#[test]
fn reads_differ_by_unit_address_grounds_and_policy() {
    let mut bench = busy();
    bench.ask(common(1, 1));
    bench.ask(common(2, 2).unit(2));
    bench.ask(common(3, 3).of(BLOCK + 1));
    bench.ask(common(4, 4).on(1));
    bench.device.policy_changed();
    bench.ask(common(5, 5));
    bench.ask(common(6, 6));
    (0..6).for_each(|_| answer_last(&mut bench));
    assert_eq!(bench.sent.len(), 6);
    assert_eq!(bench.shared, [6]);
}

#[test]
fn writes_are_never_shared() {
    let mut bench = busy();
    for client in 1..3 {
        bench.ask(Ask::held(client, client).of(BLOCK));
        bench.release(client);
    }
    (0..3).for_each(|_| answer_last(&mut bench));
    assert_eq!(bench.sent.len(), 3);
    assert!(bench.shared.is_empty());
}

#[test]
fn a_client_does_not_share_with_itself() {
    let mut bench = busy();
    bench.ask(common(1, 1));
    bench.ask(common(2, 1));
    bench.ask(common(3, 2));
    (0..3).for_each(|_| answer_last(&mut bench));
    assert_eq!(bench.shared, [3]);
    assert_eq!(bench.sent.len(), 3);
}

#[test]
fn a_read_after_a_write_of_the_same_client_shares_none_that_is_sent_before_the_write() {
    let mut bench = busy();
    bench.ask(Ask::held(1, 1));
    bench.ask(common(2, 1));
    bench.ask(common(3, 2));
    // The write still waits for its record, and its client with it.
    answer_last(&mut bench);
    assert!(bench.device.stats().in_flight == 1 && bench.shared.is_empty());
    answer_last(&mut bench);
    assert_eq!(
        bench.outcomes(),
        [(0, Outcome::Answered), (3, Outcome::Answered)]
    );
    bench.release(1);
    bench.answer(1);
    assert_eq!(bench.sent.last().unwrap().key(), u64::from(BLOCK));
    assert_eq!(bench.sent.len(), 4);
}

#[test]
fn who_shares_keeps_its_turn_for_its_next_request() {
    let mut bench = busy();
    for client in 1..4 {
        bench.ask(common(client, client));
        bench.ask(Ask::read(10 + client, client));
    }
    (0..4).for_each(|_| answer_last(&mut bench));
    let after: Vec<u64> = bench.sent_keys()[2..].to_vec();
    // Client 1 had its turn; 2 and 3 had not.
    assert_eq!(after, [12, 13, 11]);
}

#[test]
fn each_has_its_own_deadline_and_the_last_closes_the_connection() {
    let mut bench = busy();
    bench.ask(common(1, 1).within(200));
    bench.ask(common(2, 2).within(300));
    bench.ask(common(3, 3).within(400));
    answer_last(&mut bench);
    bench.pass(350);
    let timeout = Outcome::Unknown(Loss::Timeout);
    assert_eq!(
        bench.outcomes(),
        [(0, Outcome::Answered), (1, timeout), (2, timeout)]
    );
    assert_eq!((bench.open.len(), bench.device.stats().in_flight), (1, 1));
    bench.pass(50);
    assert_eq!(bench.outcomes(), [(3, timeout)]);
    assert!(bench.open.is_empty());
}

#[test]
fn a_client_that_leaves_takes_nothing_from_those_who_share_with_it() {
    let mut bench = busy();
    bench.ask(common(1, 1));
    bench.ask(common(2, 2));
    answer_last(&mut bench);
    bench.drop_client(1);
    answer_last(&mut bench);
    assert_eq!(bench.outcome(2), Some(Outcome::Answered));
    bench.ask(common(3, 3));
    bench.ask(common(4, 4));
    bench.ask(common(5, 5));
    bench.drop_client(4);
    assert_eq!(bench.outcome(4), Some(Outcome::NotSent));
    answer_last(&mut bench);
    answer_last(&mut bench);
    assert_eq!(bench.outcome(5), Some(Outcome::Answered));
}

#[test]
fn a_wrong_answer_and_a_lost_connection_end_it_for_all() {
    let mut bench = busy();
    bench.ask(common(1, 1));
    bench.ask(common(2, 2));
    answer_last(&mut bench);
    bench.answer_with(BLOCK.into(), 9, &[3, 2, 0, 0]);
    let mismatch = Outcome::Unknown(Loss::Mismatch);
    assert_eq!(
        bench.outcomes(),
        [(0, Outcome::Answered), (1, mismatch), (2, mismatch)]
    );
    bench.ask(common(3, 3));
    bench.ask(common(4, 4));
    bench.connect();
    for _ in 0..2 {
        assert_eq!(bench.outcomes(), [], "asked once more");
        let conn = bench.open[0];
        bench.close(conn);
        bench.pass(50);
        bench.connect();
    }
    let closed = Outcome::Unknown(Loss::Closed);
    assert_eq!(bench.outcomes(), [(3, closed), (4, closed)]);
}

#[test]
fn an_exception_is_shared_as_well() {
    let mut bench = busy();
    bench.ask(common(1, 1));
    bench.ask(common(2, 2));
    answer_last(&mut bench);
    bench.answer_with(BLOCK.into(), 1, &[0x83, 2]);
    assert_eq!(bench.pdu(1), [0x83, 2]);
    assert_eq!(bench.pdu(2), [0x83, 2]);
}

#[test]
fn who_shares_counts_against_the_limit_of_the_device() {
    let mut bench = busy_with(DeviceSettings {
        queue: 3,
        ..DeviceSettings::default()
    });
    (1..4).for_each(|client| bench.ask(common(client, client)));
    answer_last(&mut bench);
    // Three are with the device in one read: one more may wait.
    bench.ask(common(4, 4));
    assert!(bench.try_ask(common(5, 5)).is_err());
    answer_last(&mut bench);
    bench.ask(common(5, 5));
}

#[test]
fn a_serial_line_shares_as_well() {
    let mut bench = busy_with(DeviceSettings {
        framing: Framing::Rtu {
            baud: 19200,
            frame_gap: 20 * MS,
            turnaround: 100 * MS,
        },
        ..DeviceSettings::default()
    });
    (1..4).for_each(|client| bench.ask(common(client, client)));
    answer_last(&mut bench);
    bench.pass(10);
    answer_last(&mut bench);
    assert_eq!(bench.shared, [2, 3]);
    bench.ask(common(4, 4));
    bench.ask(common(5, 5));
    bench.pass(2000);
    let timeout = Outcome::Unknown(Loss::Timeout);
    assert_eq!(bench.outcome(4), Some(timeout));
    assert_eq!(bench.outcome(5), Some(timeout));
}
