//! All tunnels are lost at once. How long until all are back, and what do others feel meanwhile?

use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::clients::{Clients, Polls};
use crate::fleet::{Dialling, Fleet};
use crate::headend::Headend;
use crate::site::Ca;
use crate::{Failure, PACE, Plan, fleet, mib};

/// How far the threads of the many step back behind that of the few that stay up: in a plant they
/// run elsewhere.
const NICE: i32 = 10;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, value_enum, default_value_t = Kind::Drop)]
    kind: Kind,
    /// Tunnels that stay up and are polled ten times a second; none with `--kind kill`
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
    live: u32,
    /// Seconds of calm before the storm, twice (1 to 60)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    calm: u64,
    /// Edges that dial at once: all that do share these processors, where in a plant each has its own
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    dials: u32,
    /// How often, one after another
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The edges drop their tunnels and dial again
    Drop,
    /// The headend is killed and started again
    Kill,
}

pub(crate) fn run(plan: &Plan, options: &Options) -> Result<(), Failure> {
    let ca = Ca::new()?;
    let live = match options.kind {
        Kind::Drop => options.live,
        Kind::Kill => 0,
    };
    for &count in &plan.tunnels {
        let (mut headend, dialling) = plan.headend(&ca, live + count)?;
        let steady = Dialling {
            threads: 1,
            net: 101,
            ..dialling.clone()
        };
        let few = fleet(&ca, &steady, 0..live, 0)?;
        let many = fleet(&ca, &dialling, live..live + count, NICE)?;
        many.let_dial((options.dials as usize).saturating_sub(PACE));
        let polled = &headend.devices[..live as usize];
        let clients = Clients::start(polled, Duration::from_millis(100));
        for _ in 0..options.times {
            once(&mut headend, &clients, &few, &many, count, options)?;
        }
    }
    Ok(())
}

fn once(
    headend: &mut Headend,
    clients: &Clients,
    few: &Fleet,
    many: &Fleet,
    count: u32,
    options: &Options,
) -> Result<(), Failure> {
    let calm = Duration::from_secs(options.calm);
    sleep(calm);
    clients.take();
    sleep(calm);
    println!(
        "{count} tunnels up, {:.1} MiB",
        mib(headend.usage().resident())
    );
    print("polls before", &clients.take());
    for tally in [&few.tally, &many.tally] {
        tally.take_failures();
        tally.ended.store(0, Relaxed);
        tally.dialled.store(0, Relaxed);
        tally.came_up.store(0, Relaxed);
    }
    let begun = Instant::now();
    let mut before = headend.usage();
    match options.kind {
        Kind::Drop => many.drop_all(),
        Kind::Kill => {
            headend.kill();
            let started = headend.start()?;
            before = headend.usage();
            println!(
                "headend killed, serves again after {:.2} s",
                started.as_secs_f64()
            );
        }
    }
    many.wait(count as usize * 99 / 100, &many.tally.ended)?;
    for share in [50, 90, 99, 100] {
        many.wait(count as usize * share / 100, &many.tally.came_up)?;
        let elapsed = begun.elapsed().as_secs_f64();
        println!("{share:>3} % up again after {elapsed:.2} s");
    }
    many.wait(count as usize, &many.tally.up)?;
    let elapsed = begun.elapsed();
    print("polls meanwhile", &clients.take());
    let used = headend.usage().since(&before);
    println!(
        "all up after {:.2} s; {} dials, headend CPU {:.2} s ({:.2} ms a tunnel), {:.1} MiB; \
         tunnels of the others lost: {}",
        elapsed.as_secs_f64(),
        many.tally.dialled.load(Relaxed),
        used.cpu.as_secs_f64(),
        used.cpu.as_secs_f64() * 1e3 / f64::from(count),
        mib(used.resident),
        few.tally.ended.load(Relaxed),
    );
    let failures = many.tally.take_failures();
    if !failures.is_empty() {
        println!("failed attempts: {failures:#?}");
    }
    Ok(())
}

fn print(when: &str, polls: &Polls) {
    if polls.latency.is_empty() && polls.failed() == 0 {
        return;
    }
    println!(
        "{when}: {} answered, p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms, failed {:?}",
        polls.latency.len(),
        polls.quantile(0.5),
        polls.quantile(0.99),
        polls.quantile(1.0),
        polls.exceptions,
    );
}
