//! One poll a second of every device.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;

use crate::clients::Clients;
use crate::site::Ca;
use crate::{Failure, Plan, fleet};

/// Until every client has connected and each device was asked once.
const WARM_UP: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds that are measured (1 to 600)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Milliseconds from one poll of a device to the next (10 to 60000)
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    every: u64,
}

pub(crate) fn run(plan: &Plan, options: &Options) -> Result<(), Failure> {
    let ca = Ca::new()?;
    println!(
        "{:>8} {:>10} {:>8} {:>8} {:>8} {:>8} {:>10} {:>14}",
        "tunnels", "polls/s", "p50 ms", "p99 ms", "max ms", "failed", "CPU %", "CPU us/poll"
    );
    for &count in &plan.tunnels {
        let (headend, dialling) = plan.headend(&ca, count)?;
        let fleet = fleet(&ca, &dialling, 0..count, 0)?;
        let every = Duration::from_millis(options.every);
        let clients = Clients::start(&headend.devices, every);
        sleep(WARM_UP);
        let (_, before) = (clients.take(), headend.usage());
        let seconds = Duration::from_secs(options.seconds);
        sleep(seconds);
        let (polls, used) = (clients.take(), headend.usage().since(&before));
        let answered = polls.latency.len();
        println!(
            "{count:>8} {:>10.0} {:>8.2} {:>8.2} {:>8.1} {:>8} {:>10.1} {:>14.1}",
            answered as f64 / seconds.as_secs_f64(),
            polls.quantile(0.5),
            polls.quantile(0.99),
            polls.quantile(1.0),
            polls.failed(),
            used.cpu.as_secs_f64() / seconds.as_secs_f64() * 100.0,
            used.cpu.as_secs_f64() * 1e6 / (answered.max(1)) as f64,
        );
        drop(clients);
        drop(fleet);
    }
    Ok(())
}
