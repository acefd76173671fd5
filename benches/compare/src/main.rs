//! The Fieldlock pair beside what else one could put between a client and a PLC.
//!
//! Everything runs on loopback on this machine, at the same time: a fast Modbus server
//! ([`server`]), the pairs of relays ([`rivals`], [`vpn`], [`pair`]), and the load ([`load`]) in this
//! process. In each round every contender is measured once, in rotating order, and what is
//! reported are medians of the ratios *within* a round ([`report`]): on a busy machine the
//! figures move together, their ratios much less.

mod contender;
mod footprint;
mod load;
mod pair;
mod report;
mod rivals;
mod rounds;
mod server;
mod shape;
mod slow;
mod vpn;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use contender::Kind;
use fieldlock_rawsock::Namespace;
use shape::Shape;

/// Compares the Fieldlock pair with a direct connection and with other relays and tunnels.
#[derive(Debug, Parser)]
#[command(name = "fieldlock-compare")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    plan: Plan,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The Modbus server that everything leads to: a process of its own.
    #[command(hide = true)]
    Serve { address: SocketAddr },
    /// What a pair takes that does nothing: size, memory, processor time, wake-ups; and how soon
    /// an edge that is started answers its first request
    Footprint(footprint::Plan),
    /// A PLC with one connection and slow answers, and ten pollers that ask it the same
    Slow(slow::Slow),
    /// That PLC: a process of its own.
    #[command(hide = true)]
    ServeSlowly {
        address: SocketAddr,
        /// Milliseconds until an answer
        after: u64,
    },
}

/// What to measure.
#[derive(Debug, Args)]
struct Plan {
    /// Rounds; each measures every contender once in every shape
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of one measurement (0.1 to 30)
    #[arg(long, default_value = "0.7", value_parser = seconds)]
    seconds: Duration,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Shape::ALL)]
    shapes: Vec<Shape>,
    /// Contenders beside `direct`; one whose program is missing is named and left out
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::RELAYS)]
    peers: Vec<Kind>,
    /// The `fieldlock` binary; default: beside this one
    #[arg(long)]
    fieldlock: Option<PathBuf>,
    /// The `fieldlock` binary of another build, to be measured beside this one
    #[arg(long)]
    before: Option<PathBuf>,
    /// JSON with the figures of every round instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Serve { address }) => server::run(address),
        Some(Command::Footprint(plan)) => footprint::run(&plan),
        Some(Command::ServeSlowly { address, after }) => {
            server::run_slowly(address, Duration::from_millis(after))
        }
        Some(Command::Slow(slow)) => measured(slow::run(&slow)).and_then(|results| {
            let report = slow::Report(&results);
            Ok(writeln!(std::io::stdout(), "{report}")?)
        }),
        None => compare(&cli.plan),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fieldlock-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(plan: &Plan) -> Result<(), Failure> {
    if !plan.peers.iter().any(|peer| peer.is_vpn()) {
        return report_on(plan);
    }
    // Of its own, so that a VPN's addresses are nobody else's.
    match Namespace::create() {
        Ok(near) => near.run(|| {
            let up =
                rivals::run(std::process::Command::new("ip").args(["link", "set", "lo", "up"]));
            up.and_then(|_| report_on(plan))
        })?,
        Err(error) => {
            eprintln!("no network namespace, so no VPNs: {error}");
            report_on(plan)
        }
    }
}

/// The results, unless a signal comes first.
fn measured<R>(run: impl Future<Output = Result<R, Failure>>) -> Result<R, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Dropping the run ends every child process.
        tokio::select! {
            results = run => results,
            signal = interrupted() => Err(signal),
        }
    })
}

fn report_on(plan: &Plan) -> Result<(), Failure> {
    let results = measured(rounds::run(plan))?;
    let report = report::Report::of(&results);
    let text = if plan.json {
        serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?
    } else {
        report.to_string()
    };
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

async fn interrupted() -> Failure {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Failure::Interrupted
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=30.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("0.1 to 30".to_owned()),
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("no answer came through it\n{0}")]
    NotReady(String),
    #[error(transparent)]
    Missing(#[from] fieldlock_testkit::peers::Missing),
    #[error("{command}: {output}")]
    Command { command: String, output: String },
    #[error(
        "no `fieldlock` at {0}: build it with `cargo build --release`, or name it with --fieldlock"
    )]
    NoFieldlock(PathBuf),
}
