//! Tests against the real binary: agents as child processes, real sockets, real files.
//!
//! `cargo test -p fieldlock-tests -- NAME` runs those whose names contain NAME;
//! `FIELDLOCK_KEEP=1` keeps their directories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod authority;
mod bundles;
mod captures;
mod cli;
mod clients;
mod clock;
mod control;
mod custody;
mod enroll;
mod est;
mod est_clients;
mod export;
mod faults;
mod floods;
mod hsm;
mod injection;
mod interop;
mod learn;
mod lint;
mod malformed;
mod mbaps;
mod monitor;
mod negative;
mod observe;
mod order;
mod profinet;
mod profinet_cm;
mod quirks;
mod rig;
mod rtu;
mod sandbox;
mod scale;
mod smoke;
mod splice;
mod stations;
mod steps;
mod supply;
mod systemd;
mod threat_model;
mod trust;

use std::num::NonZero;
use std::thread::available_parallelism;

use fieldlock_tests::{Site, binary};
use libtest_mimic::{Arguments, Trial};

/// Tests wait more than they compute; beyond this they disturb each other's times.
const MOST_AT_ONCE: usize = 8;

fn main() {
    let mut arguments = Arguments::from_args();
    let processors = available_parallelism().map_or(2, NonZero::get);
    arguments
        .test_threads
        .get_or_insert((2 * processors).clamp(2, MOST_AT_ONCE));
    if !arguments.list {
        binary::path();
    }
    let conclusion = libtest_mimic::run(&arguments, trials());
    Site::forget_shared();
    conclusion.exit();
}

fn trials() -> Vec<Trial> {
    // These have one that takes a minute: the others run beside it.
    let mut trials = trust::trials();
    trials.extend(audit::trials());
    trials.extend(malformed::trials());
    trials.extend(injection::trials());
    trials.extend(bundles::trials());
    trials.extend(stations::trials());
    trials.extend(export::trials());
    trials.extend(smoke::trials());
    trials.extend(captures::trials());
    trials.extend(cli::trials());
    trials.extend(clients::trials());
    trials.extend(faults::trials());
    trials.extend(floods::trials());
    trials.extend(scale::trials());
    trials.extend(interop::trials());
    trials.extend(profinet::trials());
    trials.extend(profinet_cm::trials());
    trials.extend(quirks::trials());
    trials.extend(rig::trials());
    trials.extend(rtu::trials());
    trials.extend(negative::trials());
    trials.extend(observe::trials());
    trials.extend(order::trials());
    trials.extend(splice::trials());
    trials.extend(steps::trials());
    trials.extend(enroll::trials());
    trials.extend(authority::trials());
    trials.extend(est::trials());
    trials.extend(est_clients::trials());
    trials.extend(control::trials());
    trials.extend(custody::trials());
    trials.extend(clock::trials());
    trials.extend(hsm::trials());
    trials.extend(learn::trials());
    trials.extend(lint::trials());
    trials.extend(mbaps::trials());
    trials.extend(monitor::trials());
    trials.extend(sandbox::trials());
    trials.extend(systemd::trials());
    trials.extend(supply::trials());
    trials.push(threat_model::trial(&trials));
    trials
}
