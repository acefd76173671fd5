//! Real processes in namespaces under load: a few of the faults of `fieldlock-chaos`, shorter.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fieldlock_tests::chaos::fault::{self, Deed, Fault};
use fieldlock_tests::chaos::field::{Field, Setup};
use fieldlock_tests::chaos::ledger::Account;
use fieldlock_tests::chaos::load::Load;
use fieldlock_tests::chaos::{kill, soak, trial};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::trial::{both, ignored, test};
use fieldlock_tests::{Transport, eventually};
use libtest_mimic::Trial;

/// The same ones in every run.
const SEED: u64 = 7;

/// Name of the trial, of the fault, how long it lasts at most, and how soon after its end a client must
/// have a good answer.
const ROWS: [(&str, &str, u64, u64); 8] = [
    ("a_fifth_of_all_packets_lost", "loss 20 %", 4, 2),
    (
        "damage_under_checksums_that_fit",
        "damage 5 %, checksums fit",
        4,
        2,
    ),
    (
        "packets_over_1200_octets_vanish",
        "black hole over 1200",
        4,
        2,
    ),
    ("a_nat_gives_another_port", "NAT forgets (other port)", 5, 2),
    (
        "the_edge_gets_another_address",
        "edge gets another address",
        5,
        5,
    ),
    (
        "a_headend_moves_and_its_name_follows",
        "headend moves",
        6,
        5,
    ),
    (
        "one_of_two_headends_is_killed_under_load",
        "one of two headends killed",
        4,
        2,
    ),
    ("both_disks_are_full_under_load", "both disks full", 4, 2),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("faults::kill_loop", kill_loop),
        both("faults::sigterm_under_load_headend", headend_stops),
        both("faults::sigterm_under_load_edge", edge_stops),
        both("faults::headend_out_of_descriptors", headend_descriptors),
        both("faults::edge_out_of_descriptors", edge_descriptors),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(test("faults::soak", soak_shortly));
    for (name, what, lasting, back) in ROWS {
        let faults = fault::all(0, SEED);
        let fault = faults
            .into_iter()
            .find(|it| it.name.contains(what))
            .unwrap();
        for &transport in fault.transports {
            let fault = Fault {
                lasting: fault.lasting.min(Duration::from_secs(lasting)),
                ..fault.clone()
            };
            let back = Duration::from_secs(back);
            let name = format!("faults::{name}::{transport}");
            trials.push(test(&name, move || row(&fault, transport, back)));
        }
    }
    match Rig::possible() {
        Ok(()) => trials,
        Err(skip) => {
            let name = |it: Trial| ignored(it.name(), &skip.to_string());
            trials.into_iter().map(name).collect()
        }
    }
}

fn row(fault: &Fault, transport: Transport, back: Duration) {
    let outcome = trial::run(fault, transport, SEED);
    let account = &outcome.account;
    account.assert_honest();
    assert!(account.good > 50, "{account:?}");
    // On a machine that is busy with other tests.
    let most = back + Duration::from_secs(3);
    assert!(account.back.is_some_and(|it| it < most), "{outcome:?}");
}

fn kill_loop(transport: Transport) {
    let outcome = kill::run(transport, Duration::from_secs(8), SEED);
    outcome.account.assert_honest();
    assert!(outcome.account.good > 50, "{outcome:?}");
    assert!(outcome.kills.iter().all(|it| *it > 0), "{outcome:?}");
}

fn soak_shortly() {
    let outcome = soak::run(Transport::Auto, Duration::from_secs(20), SEED);
    outcome.account.assert_honest();
    for growth in &outcome.growths {
        assert!(growth.is_flat(), "{growth:?}");
    }
}

fn under_load(transport: Transport) -> (Field, Load) {
    let mut field = Field::start(&Setup::new(transport));
    field.wait_up();
    let load = Load::start(field.clients(), &field.plan());
    sleep(Duration::from_secs(1));
    (field, load)
}

/// The `drain` of both, and what a busy machine may add.
const DRAINED: Duration = Duration::from_secs(5 + 2);

fn headend_stops(transport: Transport) {
    let (mut field, load) = under_load(transport);
    let asked = Instant::now();
    let status = field.headends[0].terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    stopped(field, load, asked);
}

fn edge_stops(transport: Transport) {
    let (mut field, load) = under_load(transport);
    let asked = Instant::now();
    let status = field.edge.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    stopped(field, load, asked);
}

/// Nobody is left in doubt of what was made.
fn stopped(mut field: Field, load: Load, asked: Instant) {
    assert!(asked.elapsed() < DRAINED, "{:?}", asked.elapsed());
    let notes = load.stop();
    field.settle();
    let account = Account::of(&notes, &field.plc.made(), asked);
    account.assert_honest();
    assert!(account.good > 20, "{account:?}");
    assert_eq!(account.unknown_made, 0, "{account:?}");
}

fn headend_descriptors(transport: Transport) {
    let (mut field, load) = under_load(transport);
    let fault = named("headend out of descriptors");
    let headend = field.headends[0].process().id();
    calmly(&mut field, &fault, headend, load);
}

fn edge_descriptors(transport: Transport) {
    let (mut field, load) = under_load(transport);
    let fault = named("edge out of descriptors");
    let edge = field.edge.process().id();
    calmly(&mut field, &fault, edge, load);
}

/// It waits for descriptors and does not spin, and is back once there are some.
fn calmly(field: &mut Field, fault: &Deed, process: u32, load: Load) {
    (fault.begin)(field);
    let before = processor_time(process);
    sleep(Duration::from_secs(2));
    let used = processor_time(process) - before;
    assert!(used < Duration::from_millis(800), "{used:?} of 2 s");
    (fault.end)(field);
    let ended = Instant::now();
    eventually("the tunnel, and service", || {
        field.transports().len() == 1 && load.is_served_since(ended)
    });
    let notes = load.stop();
    field.settle();
    let account = Account::of(&notes, &field.plc.made(), ended);
    account.assert_honest();
    assert!(account.back.is_some(), "{account:?}");
}

fn named(name: &str) -> Deed {
    let faults = fault::all(0, SEED);
    let found = faults.iter().find(|it| it.name == name);
    found.unwrap().deeds[0]
}

/// Of all threads, in user and kernel, to 10 ms.
fn processor_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, behind) = stat.rsplit_once(')').unwrap();
    let ticks = behind.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|it| it.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}
