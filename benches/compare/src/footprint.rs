//! What a pair takes that has nothing to do.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use fieldlock_testkit::modbus::{Client, read};
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_testkit::usage::Snapshot;
use fieldlock_testkit::wait::wait_until;

use crate::Failure;
use crate::contender::Kind;
use crate::load::UNIT;
use crate::pair::{Fieldlock, Pair};
use crate::seconds;
use crate::server::{self, READ_HOLDING, REGISTERS};

const SOON: Duration = Duration::from_secs(15);
/// After the last request, until a pair counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Seconds of idleness that are watched
    #[arg(long, default_value = "20", value_parser = seconds)]
    seconds: Duration,
    /// Starts of the edge, each timed
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=100))]
    starts: u16,
    /// The `fieldlock` binary; default: beside this one
    #[arg(long)]
    fieldlock: Option<PathBuf>,
    /// Another build for the edge, such as one without the other commands
    #[arg(long)]
    edge: Option<PathBuf>,
}

pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    let directory = Directory::new()?;
    let fieldlock = Fieldlock::prepare(plan.fieldlock.as_deref(), None, directory.path())?;
    let server = free_address()?;
    let _server = server::start(server, directory.path())?;
    let mut out = std::io::stdout();
    let edge_program = plan.edge.as_deref().unwrap_or(fieldlock.program());
    for (role, program) in [("headend", fieldlock.program()), ("edge", edge_program)] {
        let size = fs::metadata(program)?.len();
        writeln!(out, "binary of the {role}: {:.1} MB", size as f64 / 1e6)?;
    }
    for kind in [Kind::FieldlockQuic1, Kind::FieldlockTls1] {
        let pair = fieldlock.configure(kind, server)?;
        let headend = pair.start("headend")?;
        wait_until("the headend", SOON, || ask(&pair).is_some())
            .map_err(|_| Failure::NotReady(headend.log_tail()))?;
        let mut starts = Vec::new();
        let mut edge = None;
        for _ in 0..plan.starts {
            // The last one has to be gone before the next: its killing comes first.
            drop(edge.take());
            wait_until("the headend to be alone", SOON, || {
                ask(&pair) == Some(false)
            })
            .map_err(|_| Failure::NotReady(headend.log_tail()))?;
            let (process, took) = start_edge(&pair, edge_program)?;
            starts.push(took);
            edge = Some(process);
        }
        starts.sort_unstable();
        writeln!(
            out,
            "{}: start of the edge to its first answer: {:.0} ms (least {:.0}, greatest {:.0}, {} starts)",
            kind.name(),
            millis(starts[starts.len() / 2]),
            millis(starts[0]),
            millis(starts[starts.len() - 1]),
            starts.len(),
        )?;
        sleep(SETTLE);
        for (role, process) in [("headend", Some(&headend)), ("edge", edge.as_ref())] {
            let Some(process) = process else { continue };
            let ids = [process.id()];
            let (before, woken) = (Snapshot::take(&ids), wake_ups(process.id()));
            sleep(plan.seconds);
            let usage = Snapshot::take(&ids).since(&before);
            let woken = wake_ups(process.id()).saturating_sub(woken);
            let seconds = plan.seconds.as_secs_f64();
            writeln!(
                out,
                "  {role:7}  idle: {:.2} % of a core, {:.1} wake-ups/s, resident {:.1} MiB",
                100.0 * usage.cpu.as_secs_f64() / seconds,
                woken as f64 / seconds,
                usage.resident as f64 / f64::from(1 << 20),
            )?;
        }
    }
    Ok(())
}

fn start_edge(pair: &Pair, program: &Path) -> Result<(Process, Duration), Failure> {
    let begun = Instant::now();
    let edge = pair.start_of(program, "edge")?;
    while ask(pair) != Some(true) {
        if begun.elapsed() > SOON {
            return Err(Failure::NotReady(edge.log_tail()));
        }
        // Short beside what is measured.
        sleep(Duration::from_millis(1));
    }
    Ok((edge, begun.elapsed()))
}

/// Whether a read is answered with values; `Some(false)`: the headend says that it has no tunnel.
fn ask(pair: &Pair) -> Option<bool> {
    let mut client = Client::connect(pair.address).ok()?;
    let request = read(READ_HOLDING, 0, REGISTERS);
    match client.request(UNIT, &request).ok()?[..] {
        [READ_HOLDING, ..] => Some(true),
        [_, NO_TUNNEL] => Some(false),
        _ => None,
    }
}

/// "Gateway path unavailable".
const NO_TUNNEL: u8 = 0x0A;

/// How often its threads have gone to sleep, which is how often they were woken.
fn wake_ups(process: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter();
    let of = |thread: PathBuf| -> Option<u64> {
        let status = fs::read_to_string(thread.join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line?.trim().parse().ok()
    };
    threads
        .flatten()
        .flatten()
        .filter_map(|thread| of(thread.path()))
        .sum()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
