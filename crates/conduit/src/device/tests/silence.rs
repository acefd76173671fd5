//! What a unit that does not answer may cost the others.

use super::MS;
use super::bench::{Ask, Bench, Sent};
use crate::device::{DeviceSettings, Framing, Loss, Outcome};

const TIMEOUT: Outcome = Outcome::Unknown(Loss::Timeout);

#[test]
fn a_dead_unit_gives_way_after_its_response_time_out_to_those_that_wait() {
    let mut bench = Bench::connected(DeviceSettings::default());
    for unit in 1..=4 {
        bench.ask(Ask::read(unit.into(), 1).unit(unit));
    }
    bench.answer(1);
    assert_eq!(bench.sent_keys(), [1, 2]);
    bench.pass(499);
    assert_eq!(bench.outcome(2), None);
    bench.pass(1);
    assert_eq!(bench.outcome(2), Some(TIMEOUT));
    bench.connect();
    bench.answer(3);
    bench.answer(4);
    assert_eq!(bench.outcome(4), Some(Outcome::Answered));
}

#[test]
fn where_nobody_else_waits_a_slow_unit_has_until_its_deadline() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
    bench.ask(Ask::read(2, 2));
    bench.pass(900);
    bench.answer(1);
    assert_eq!(bench.outcome(1), Some(Outcome::Answered));
    assert_eq!(
        bench.outcome(2),
        Some(Outcome::NotSent),
        "and 100 ms are not enough for another"
    );
    assert_eq!(bench.pdu(2), [0x83, 0x06]);
}

#[test]
fn one_that_comes_later_makes_a_slow_unit_give_way_at_once() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1).unit(1));
    bench.answer(1);
    bench.ask(Ask::read(2, 1).unit(2));
    bench.pass(700);
    assert_eq!(bench.outcome(2), None);
    bench.ask(Ask::read(3, 1).unit(1));
    assert_eq!(bench.outcome(2), Some(TIMEOUT));
    bench.connect();
    assert_eq!(bench.sent_keys(), [1, 2, 3]);
}

#[test]
fn a_unit_that_was_silent_lately_is_asked_when_nothing_else_waits() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1).unit(2));
    bench.ask(Ask::read(2, 2).unit(1));
    bench.pass(500);
    bench.connect();
    bench.ask(Ask::read(3, 1).unit(2));
    bench.ask(Ask::read(4, 2).unit(3));
    bench.ask(Ask::read(5, 3).unit(2));
    bench.answer(2);
    assert_eq!(bench.sent_keys(), [1, 2, 4]);
    bench.answer(4);
    assert_eq!(bench.sent_keys(), [1, 2, 4, 3]);
    bench.answer(3);
    assert_eq!(bench.sent_keys(), [1, 2, 4, 3, 5], "it is back");
}

/// Two clients, five units, one of them dead, each polled every 40 ms by both.
fn round(bench: &mut Bench, key: &mut u64, answered: &mut u16) -> u32 {
    for (client, unit) in (0..2_u64).flat_map(|client| (1..=5_u8).map(move |unit| (client, unit))) {
        *key += 1;
        let ask = Ask::read(*key % 60_000, client).unit(unit);
        bench.try_ask(ask).unwrap();
    }
    for _ in 0..40 {
        bench.connect();
        bench.pass(1);
        let last = bench.sent.last().cloned();
        let due = |sent: &Sent| sent.unit != 5 && sent.at < bench.now && sent.number != *answered;
        if let Some(sent) = last.filter(due) {
            *answered = sent.number;
            let frame = bench.frame(sent.transaction, sent.unit, &sent.right());
            bench.bytes(sent.conn, &frame);
        }
    }
    let last = bench.sent.pop();
    bench.sent = last.into_iter().collect();
    let outcomes = bench.outcomes().into_iter();
    outcomes
        .map(|(_, outcome)| u32::from(outcome == Outcome::Answered))
        .sum()
}

#[test]
fn the_others_keep_95_percent_of_what_they_do_without_a_dead_unit() {
    for framing in [
        Framing::Tcp,
        Framing::Rtu {
            baud: 115_200,
            frame_gap: MS / 4,
            turnaround: 100 * MS,
        },
    ] {
        let mut bench = Bench::connected(DeviceSettings {
            framing,
            queue: 1024,
            queue_per_client: 512,
            shared_reads: false,
            ..DeviceSettings::default()
        });
        let (mut key, mut last, mut healthy, mut rounds) = (0, 0, 0, 0);
        // Until it has been found dead, and then for five minutes.
        for number in 0..18_000 {
            let answered = round(&mut bench, &mut key, &mut last);
            if number >= 3_000 {
                healthy += answered;
                rounds += 1;
            }
        }
        let share = f64::from(healthy) / f64::from(rounds * 8);
        assert!(share > 0.95, "{framing:?}: {share}");
    }
}

fn held_off(bench: &Bench) -> Vec<u8> {
    bench.device.units_held_off(bench.now).collect()
}

#[test]
fn a_unit_that_is_held_off_is_refused_at_once_and_tried_again() {
    let mut bench = Bench::connected(DeviceSettings::default());
    let mut key = 0;
    let mut silence = |bench: &mut Bench| {
        bench.ask(Ask::read(key, 1).unit(2));
        bench.ask(Ask::read(key + 1, 2).unit(1));
        bench.pass(500);
        bench.connect();
        bench.answer(key + 1);
        key += 2;
        bench.outcomes()
    };
    let (sent, answered) = ((0, TIMEOUT), (1, Outcome::Answered));
    assert_eq!(silence(&mut bench), [sent, answered]);
    silence(&mut bench);
    bench.ask(Ask::read(100, 1).unit(2));
    assert_eq!(bench.outcomes(), [(100, Outcome::HeldOff)]);
    assert_eq!(held_off(&bench), [2]);
    bench.pass(2000);
    bench.ask(Ask::read(101, 1).unit(2));
    bench.ask(Ask::read(102, 3).unit(2));
    assert_eq!(bench.sent.last().unwrap().key(), 101, "one tries");
    bench.answer(101);
    bench.answer(102);
    assert_eq!(held_off(&bench), []);
}

#[test]
fn a_gateways_word_that_a_unit_is_silent_counts_as_its_silence() {
    let mut bench = Bench::connected(DeviceSettings::default());
    for key in [0, 10] {
        bench.ask(Ask::read(key, 1).unit(2));
        bench.pass(300);
        bench.answer_with(key, 2, &[0x83, 0x0B]);
        bench.ask(Ask::read(key + 1, 1).unit(1));
        bench.answer(key + 1);
    }
    bench.ask(Ask::read(20, 1).unit(2));
    assert_eq!(bench.outcome(20), Some(Outcome::HeldOff));
}

#[test]
fn what_can_not_be_in_time_is_not_sent() {
    let mut bench = Bench::connected(DeviceSettings::default());
    bench.ask(Ask::read(1, 1));
    bench.pass(330);
    for key in 2..=4 {
        bench.ask(Ask::read(key, key));
    }
    bench.answer(1);
    bench.pass(330);
    bench.answer(2);
    bench.pass(330);
    bench.answer(3);
    assert_eq!(bench.sent_keys(), [1, 2, 3]);
    assert_eq!(bench.outcome(4), Some(Outcome::NotSent));
    assert_eq!(bench.pdu(4), [0x83, 0x06]);
}
