//! A slow PLC under many pollers: what shared reads are for.
//!
//! The PLC accepts one connection and takes its time for each answer. Ten pollers ask it for the
//! same registers, each as fast as it gets answers. A relay that passes connections on can serve a
//! poller only while no other is connected: there the pollers connect anew for each request.

use std::env;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};

use crate::contender::Kind;
use crate::load::{Window, measure};
use crate::pair::Fieldlock;
use crate::shape::Shape;
use crate::{Failure, rivals, seconds};

#[derive(Debug, Args)]
pub(crate) struct Slow {
    /// Rounds; each measures every contender once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of one measurement (0.1 to 30)
    #[arg(long, default_value = "4", value_parser = seconds)]
    seconds: Duration,
    /// Milliseconds that the PLC takes for an answer
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    answer_after: u64,
    /// The `fieldlock` binary; default: beside this one
    #[arg(long)]
    fieldlock: Option<PathBuf>,
}

/// A connection that is kept keeps all others from the PLC, so it is no case for the plain proxy.
const CASES: [(Kind, Shape); 5] = [
    (Kind::OneAtATime, Shape::NewPollers),
    (Kind::FieldlockUnshared, Shape::NewPollers),
    (Kind::FieldlockShared, Shape::NewPollers),
    (Kind::FieldlockUnshared, Shape::Pollers),
    (Kind::FieldlockShared, Shape::Pollers),
];

/// The rounds of one case.
#[derive(Debug)]
pub(crate) struct Case {
    kind: Kind,
    shape: Shape,
    windows: Vec<Window>,
}

pub(crate) async fn run(slow: &Slow) -> Result<Vec<Case>, Failure> {
    let directory = Directory::new()?;
    let fieldlock = Fieldlock::prepare(slow.fieldlock.as_deref(), None, directory.path())?;
    let mut field = Vec::new();
    for kind in [
        Kind::OneAtATime,
        Kind::FieldlockUnshared,
        Kind::FieldlockShared,
    ] {
        // A PLC of its own for each: an edge keeps the one connection.
        let (plc, address) = start_plc(kind, slow.answer_after, directory.path())?;
        let contender = match kind {
            Kind::OneAtATime => rivals::one_at_a_time(address, directory.path()),
            _ => fieldlock.start(kind, address),
        };
        field.push((contender?, plc));
    }
    let mut cases = CASES.map(|(kind, shape)| Case {
        kind,
        shape,
        windows: Vec::new(),
    });
    for round in 0..slow.rounds {
        for case in &mut cases {
            let contender = field.iter().map(|(contender, _)| contender);
            for contender in contender.filter(|contender| contender.kind == case.kind) {
                let window = measure(contender.address, case.shape, slow.seconds, &[]).await;
                case.windows.push(window);
            }
        }
        eprintln!("round {} of {}", round + 1, slow.rounds);
    }
    Ok(cases.into())
}

fn start_plc(kind: Kind, after: u64, directory: &Path) -> Result<(Process, SocketAddr), Failure> {
    let address = free_address()?;
    let mut command = Command::new(env::current_exe()?);
    command
        .arg("serve-slowly")
        .arg(address.to_string())
        .arg(after.to_string());
    let name = format!("plc-of-{}", kind.name());
    Ok((Process::start(&name, &mut command, directory)?, address))
}

/// Medians of the rounds.
pub(crate) struct Report<'a>(pub(crate) &'a [Case]);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| ten pollers | through | answers/s | p50 ms | p99 ms | errors |"
        )?;
        write!(f, "|---|---|---|---|---|---|")?;
        for case in self.0 {
            let rate = |w: &Window| w.latencies.len() as f64 / w.elapsed.as_secs_f64();
            let errors: usize = case.windows.iter().map(|w| w.errors.len()).sum();
            write!(
                f,
                "\n| {} | {} | {:.0} | {:.1} | {:.1} | {errors} |",
                case.shape.title(),
                case.kind.name(),
                median(case, rate),
                median(case, |w| percentile(w, 50)),
                median(case, |w| percentile(w, 99)),
            )?;
        }
        Ok(())
    }
}

fn median(case: &Case, of: impl Fn(&Window) -> f64) -> f64 {
    let mut values: Vec<f64> = case.windows.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// In milliseconds.
fn percentile(window: &Window, percent: usize) -> f64 {
    let at = window.latencies.len() * percent / 100;
    let latency = window.latencies.get(at);
    latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
}
