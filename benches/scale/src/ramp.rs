//! Tunnels come up: what each costs while it does, and while nothing happens.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::site::Ca;
use crate::{Failure, PACE, Plan, mib};

/// Until what handshakes left behind has gone.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(5);

pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    let ca = Ca::new()?;
    let (headend, dialling) = plan.headend(&ca, plan.most())?;
    let fleet = Fleet::start(&dialling, PACE, 0);
    let empty = headend.usage().resident();
    println!(
        "{:>8} {:>14} {:>14} {:>12} {:>12} {:>14} {:>16}",
        "tunnels",
        "handshakes/s",
        "CPU ms each",
        "RSS MiB",
        "KiB/tunnel",
        "idle CPU %",
        "idle us/tunnel/s"
    );
    let mut have = 0;
    for &count in &plan.tunnels {
        let (before, begun) = (headend.usage(), Instant::now());
        let more = count.saturating_sub(have);
        // Their certificates are made before the clock starts.
        let took = fleet.grow(&ca, have..count)?;
        let begun = begun + took;
        fleet.wait(count as usize, &fleet.tally.up)?;
        let elapsed = begun.elapsed();
        let made = headend.usage().since(&before);
        have = count.max(have);
        sleep(SETTLE);
        let before = headend.usage();
        sleep(IDLE);
        let idle = headend.usage().since(&before);
        let resident = idle.resident;
        let busy = idle.cpu.as_secs_f64() / IDLE.as_secs_f64();
        println!(
            "{count:>8} {:>14.0} {:>14.2} {:>12.1} {:>12.1} {:>14.1} {:>16.1}",
            f64::from(more) / elapsed.as_secs_f64(),
            made.cpu.as_secs_f64() * 1e3 / f64::from(more.max(1)),
            mib(resident),
            resident.saturating_sub(empty) as f64 / 1024.0 / f64::from(have),
            busy * 100.0,
            busy * 1e6 / f64::from(have),
        );
    }
    let failures = fleet.tally.take_failures();
    if !failures.is_empty() {
        println!("failed attempts: {failures:#?}");
    }
    println!(
        "audit log {:.1} MiB, {} descriptors",
        mib(headend.audit()),
        headend.descriptors()
    );
    Ok(())
}
