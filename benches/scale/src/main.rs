//! Thousands of edges against one headend.
//!
//! The edges are simulated in this process, with real TLS, a certificate each and the frames of a
//! real tunnel; the headend is the real program. Both share this machine: what the headend costs
//! is read from /proc for its process alone, but the time that all takes is that of both.
//!
//! - [`site`]: the CA and what it issues.
//! - [`headend`]: the process that is measured.
//! - [`edge`], [`fleet`]: simulated edges, and how they dial.
//! - [`clients`]: Modbus clients that poll.
//! - [`ramp`], [`poll`], [`storm`]: the scenarios.

mod clients;
mod edge;
mod fleet;
mod headend;
mod poll;
mod ramp;
mod site;
mod storm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fieldlock_session::Transport;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use fleet::{Dialling, Fleet};
use headend::Headend;
use site::Ca;

/// Descriptors that 10,000 tunnels over TLS and as many clients need, with room.
const DESCRIPTORS: u64 = 65_536;

/// Thousands of simulated edges against one headend.
#[derive(Debug, Parser)]
#[command(
    name = "fieldlock-bench-scale",
    after_help = "Examples:\n  \
        fieldlock-bench-scale ramp --tunnels 100,1000,10000\n  \
        fieldlock-bench-scale poll --tunnels 1000 --transport tls\n  \
        fieldlock-bench-scale storm --tunnels 10000 --kind kill\n\n\
        Build both programs first: cargo build --release -p fieldlock -p fieldlock-bench-scale"
)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    plan: Plan,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Tunnels come up one after another: memory, handshakes per second, idle processor time
    Ramp,
    /// Every device is polled once a second
    Poll(poll::Options),
    /// All tunnels are lost at once and come back, beside some that stay up and are polled
    Storm(storm::Options),
}

#[derive(Debug, Args)]
struct Plan {
    /// Numbers of tunnels, ascending, 1 to 60000
    #[arg(long, global = true, value_delimiter = ',', default_value = "100,300,1000,3000,10000",
          value_parser = clap::value_parser!(u32).range(1..=60_000))]
    tunnels: Vec<u32>,
    #[arg(long, global = true, value_enum, default_value_t = Carrier::Quic)]
    transport: Carrier,
    /// Threads that the edges share
    #[arg(long, global = true, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Addresses of 127.0.0.0/8 that the edges of a thread dial from, each with one UDP socket
    #[arg(long, global = true, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    sources: u32,
    /// A listener for each device, not one for every 247
    #[arg(long, global = true)]
    own_listeners: bool,
    /// Lines for `[tunnel]` in headend.toml: 'max_handshakes = 64'
    #[arg(long, global = true, default_value = "")]
    tunnel_keys: String,
    /// The `fieldlock` binary; default: beside this one
    #[arg(long, global = true)]
    fieldlock: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Carrier {
    Quic,
    Tls,
    /// QUIC, and after 300 ms TLS as well, as agents do by default
    Auto,
}

impl Plan {
    fn most(&self) -> u32 {
        self.tunnels.iter().copied().max().unwrap_or(1)
    }

    /// A headend for `edges`, running, and how edges find it.
    fn headend(&self, ca: &Ca, edges: u32) -> Result<(Headend, Dialling), Failure> {
        let program = match &self.fieldlock {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("fieldlock"),
        };
        let mut headend =
            Headend::prepare(&program, ca, edges, self.own_listeners, &self.tunnel_keys)?;
        let started = headend.start()?;
        println!(
            "headend with {edges} devices: up in {:.2} s, {} descriptors, {:.1} MiB",
            started.as_secs_f64(),
            headend.descriptors(),
            mib(headend.usage().resident()),
        );
        let dialling = Dialling {
            only: match self.transport {
                Carrier::Quic => Some(Transport::Quic),
                Carrier::Tls => Some(Transport::Tls),
                Carrier::Auto => None,
            },
            headend: headend.tunnel,
            name: ca.headend(),
            threads: self.threads,
            sources: self.sources,
            net: 100,
        };
        Ok((headend, dialling))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = raise_limit().and_then(|()| match &cli.scenario {
        Scenario::Ramp => ramp::run(&cli.plan),
        Scenario::Poll(options) => poll::run(&cli.plan, options),
        Scenario::Storm(options) => storm::run(&cli.plan, options),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fieldlock-bench-scale: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As many descriptors as may be, for this process and the headend that inherits it.
fn raise_limit() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let more = |count| Rlimit {
        current: Some(count),
        maximum: Some(count),
    };
    if setrlimit(Resource::Nofile, more(hard.max(DESCRIPTORS))).is_err() {
        // Only root may go beyond the hard limit.
        setrlimit(Resource::Nofile, more(hard)).map_err(std::io::Error::from)?;
        if hard < DESCRIPTORS {
            println!("at most {hard} descriptors: enough for QUIC, perhaps not for TLS");
        }
    }
    Ok(())
}

fn mib(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    TimedOut(#[from] fieldlock_testkit::wait::TimedOut),
    #[error("certificates: {0}")]
    Certificate(String),
    #[error("waited for {count} tunnels in vain: after {PATIENCE:?} there are {up}\n{failures:#?}")]
    NotUp {
        count: usize,
        up: usize,
        failures: BTreeMap<String, usize>,
    },
    #[error("the thread of the edges has ended: is there room for their sockets?")]
    FleetEnded,
    #[error(
        "no `fieldlock` at {0}: build it with `cargo build --release -p fieldlock`, or name it with --fieldlock"
    )]
    NoFieldlock(PathBuf),
}

impl Failure {
    fn certificate(error: impl ToString) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// Edges that dial at once, where tunnels are to come up without a storm.
const PACE: usize = 32;
/// For all tunnels to come up.
const PATIENCE: Duration = Duration::from_secs(300);

/// A fleet with so many tunnels up.
fn fleet(
    ca: &Ca,
    dialling: &Dialling,
    edges: std::ops::Range<u32>,
    nice: i32,
) -> Result<Fleet, Failure> {
    let count = edges.len();
    let fleet = Fleet::start(dialling, PACE, nice);
    fleet.grow(ca, edges)?;
    fleet.wait(count, &fleet.tally.up)?;
    Ok(fleet)
}
