//! `fieldlock policy replay`: what a policy would have done with a capture.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use fieldlock_learn::replay::Replay;
use fieldlock_learn::traffic::{self as recorded, Seen, Tally};
use fieldlock_policy::Decision;
use jiff::Timestamp;
use serde_json::json;

use super::traffic::{self, ScopeArgs};
use super::{Error, REFUSED, load};

/// Judge the requests of a capture (pcap or pcapng): what would a policy have allowed and denied?
///
/// Only Modbus is judged, not PROFINET. Clients are judged by their addresses alone: a capture proves no identity and no role. Units are
/// those on the wire.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fieldlock policy replay plant.pcap --policy policy.toml --device press-07=10.1.1.50
  fieldlock policy replay plant.pcapng --policy policy.toml --verbose | grep denied
  fieldlock policy replay plant.pcap --policy edge.toml --via hd-1 --json

Exit codes: 0 all requests are allowed, 1 some are denied or there is none, 2 wrong usage, an invalid
policy, or a file that can't be read. Malformed frames are named on standard error.")]
pub(super) struct ReplayArgs {
    /// The capture.
    capture: PathBuf,
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Judge as an edge does for requests through this headend; without it, as a headend.
    #[arg(long, value_name = "HEADEND")]
    via: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print each request with its frame and time before the table.
    #[arg(short, long)]
    verbose: bool,
    /// Print JSON Lines: one object for each request, then one with `summary`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode, Error> {
    let policy = load(&args.policy)?;
    if policy.has_station_rules() {
        eprintln!(
            "note: only Modbus is judged; frames of PROFINET and the rules for stations are left out"
        );
    }
    let mut replay = Replay::new(&policy, args.via.as_deref());
    // A reader that closes the pipe early, such as `head`, is no error.
    let mut out = BufWriter::new(io::stdout().lock());
    let tally = recorded::read(&args.capture, &args.scope.scope(), |seen| {
        let decision = replay.handle(seen);
        let _ = match (args.json, args.verbose) {
            (true, _) => writeln!(out, "{}", line_json(&replay, seen, &decision)),
            (false, true) => writeln!(out, "{}", line(&mut replay, seen, &decision)),
            (false, false) => Ok(()),
        };
    })?;
    traffic::notes(&tally, &args.capture);
    let _ = match args.json {
        true => writeln!(out, "{}", json!({ "summary": summary(&replay, &tally) })),
        false => table(&replay, &tally, &mut out),
    };
    let _ = out.flush();
    if tally.requests == 0 {
        eprintln!(
            "warning: {}: no request to judge in {} frames; is the port another (--port), or the capture \
             of another place or time?",
            args.capture.display(),
            tally.frames
        );
    }
    Ok(match replay.denied() == 0 && tally.requests > 0 {
        true => ExitCode::SUCCESS,
        false => REFUSED.into(),
    })
}

fn line_json(replay: &Replay<'_>, seen: &Seen<'_>, decision: &Decision) -> serde_json::Value {
    let denied = !decision.allowed();
    json!({
        "frame": seen.frame,
        "time": seen.time.map(time),
        "client": seen.client,
        "client_names": replay.client_names(seen.client),
        "device": &*seen.device,
        "unit": seen.unit,
        "function": seen.request.function().0,
        "addresses": seen.spans().map(|span| span.to_string()).collect::<Vec<_>>(),
        "decision": if denied { "deny" } else { "allow" },
        "rule": replay.rule(decision),
        "why": denied.then(|| replay.why(decision)),
    })
}

fn line(replay: &mut Replay<'_>, seen: &Seen<'_>, decision: &Decision) -> impl Display + use<> {
    let spans: Vec<String> = seen.spans().map(|span| span.to_string()).collect();
    let time = seen.time.map(time);
    format!(
        "#{} {} {} {} -> {} unit {}: {} {} {}",
        seen.frame,
        time.as_deref().unwrap_or("-"),
        decided(!decision.allowed()),
        replay.client_name(seen.client),
        seen.device,
        seen.unit,
        seen.request.function(),
        spans.join(", "),
        replay.why(decision),
    )
}

fn summary(replay: &Replay<'_>, tally: &Tally) -> serde_json::Value {
    json!({ "allowed": replay.allowed(), "denied": replay.denied(), "capture": tally })
}

fn table(replay: &Replay<'_>, tally: &Tally, out: &mut impl Write) -> io::Result<()> {
    let head = [
        "decision",
        "client",
        "device",
        "unit",
        "function",
        "addresses",
        "count",
        "first",
        "last",
        "rule or reason",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(replay.groups().map(|(key, group)| {
        let end = |(frame, at): (u32, Option<SystemTime>)| match at {
            Some(at) => format!("#{frame} {}", time(at)),
            None => format!("#{frame}"),
        };
        [
            decided(key.denied).to_owned(),
            key.client.to_string(),
            key.device.to_string(),
            key.unit.to_string(),
            key.function.to_string(),
            group.addresses.to_string(),
            group.count.to_string(),
            end(group.first),
            end(group.last),
            key.why.clone(),
        ]
    }));
    aligned(&rows, out)?;
    if replay.ungrouped() > 0 {
        writeln!(out, "and {} requests in further groups", replay.ungrouped())?;
    }
    writeln!(
        out,
        "{} requests in {} frames: {} allowed, {} denied; {} answered ({} with exceptions), {} not; \
         {} malformed",
        tally.requests,
        tally.frames,
        replay.allowed(),
        replay.denied(),
        tally.answered,
        tally.exceptions,
        tally.unanswered,
        tally.malformed,
    )
}

fn decided(denied: bool) -> &'static str {
    match denied {
        true => "denied",
        false => "allowed",
    }
}

fn time(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default();
    format!("{time:.3}")
}

fn aligned<const N: usize>(rows: &[[String; N]], out: &mut impl Write) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}
