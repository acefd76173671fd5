//! `fieldlock policy suggest`: an allow-list from what was seen.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, ValueEnum};
use fieldlock_learn::suggest::{Taken, from_capture, from_log};
use fieldlock_policy::{Policy, SuggestOptions, Traffic};
use serde_json::json;

use super::file::FileError;
use super::traffic::{self, ScopeArgs};
use super::{Error, print};

/// Write an allow-list of what was seen, for a person to review: from the audit log of an agent, or
/// from a capture.
///
/// The file allows every request that was seen and, beyond joining ranges, nothing else; `policy
/// check` takes it. Only Modbus is looked at, not PROFINET. Each rule says how often it was used, first and last. What was not seen, such as
/// the start of a season or an emergency stop, is not in it.
#[derive(Debug, clap::Args)]
#[command(
    group(ArgGroup::new("source").args(["capture", "log"]).required(true)),
    after_help = "\
Examples:
  fieldlock policy suggest --log /var/lib/fieldlock/edge/audit > policy.new
  fieldlock policy suggest --capture plant.pcap --device press-07=10.1.1.50 > policy.new
  fieldlock policy suggest --capture plant.pcap --gap 8 --values none > policy.new
  fieldlock policy check policy.new && fieldlock policy diff policy.toml policy.new

Exit codes: 0 written, 1 nothing was seen, 2 wrong usage or a file that can't be read."
)]
pub(super) struct Suggest {
    /// A capture, pcap or pcapng.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// An audit log, a file of it or the directory with all: every write that was allowed counts, and
    /// every read that was answered, where reads are recorded (`reads` under `[audit]`).
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Join ranges of reads with at most this many addresses between them, which were not seen.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    gap: u16,
    /// Bounds of written values: from the smallest to the largest seen, or none.
    #[arg(long, value_enum, default_value_t = Bounds::Exact)]
    values: Bounds,
    /// Allow function 23 also where it read other addresses than it wrote. A rule's addresses hold
    /// for both halves, so what was only read can be written then.
    #[arg(long)]
    joined_halves: bool,
    /// Print JSON, with the file as `policy`.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bounds {
    Exact,
    None,
}

pub(super) fn run(args: &Suggest) -> Result<ExitCode, Error> {
    if args.log.is_some() && args.scope.is_given() {
        return Err(Error::ScopeOfLog);
    }
    let mut traffic = Traffic::default();
    let taken = match (&args.capture, &args.log) {
        (Some(capture), _) => {
            let (taken, tally) = from_capture(capture, &args.scope.scope(), &mut traffic)?;
            traffic::notes(&tally, capture);
            taken
        }
        (None, Some(log)) => from_log(log, &mut traffic)?,
        (None, None) => Taken::default(),
    };
    if let Some(why) = &taken.why {
        eprintln!("warning: {} left out; the first: {why}", taken.left_out);
    }
    if taken.of_stations > 0 {
        let count = taken.of_stations;
        eprintln!(
            "warning: {count} records are of stations of PROFINET; rules for those are not suggested"
        );
    }
    if traffic.is_empty() {
        eprintln!("error: no allowed request was seen, so there is nothing to suggest");
        return Ok(ExitCode::FAILURE);
    }
    let options = SuggestOptions {
        gap: args.gap,
        bound_values: matches!(args.values, Bounds::Exact),
        joined_halves: args.joined_halves,
    };
    let text = traffic.suggest(&options);
    // What is printed must be a policy: one that is too large is told of here, not by an agent.
    Policy::parse(&text, "the suggestion").map_err(FileError::from)?;
    match args.json {
        true => print(json!({ "policy": text, "seen": taken })),
        false => print(text.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
