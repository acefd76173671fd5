//! `fieldlock policy replay`: what a policy would have done with a capture.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use fieldlock_modbus::FunctionCode;
use fieldlock_policy::{Client, Decision, Now, Origin, Phase, Policy, Reason, Side, Span, Spans};
use jiff::Timestamp;
use serde_json::json;

use super::traffic::{self, Scope, Seen, Tally};
use super::{Error, REFUSED, load};

/// Lines of the table; what goes beyond is in the summary alone.
const MAX_GROUPS: usize = 65_536;

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
pub(super) struct Replay {
    /// The capture.
    capture: PathBuf,
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Judge as an edge does for requests through this headend; without it, as a headend.
    #[arg(long, value_name = "HEADEND")]
    via: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Print each request with its frame and time before the table.
    #[arg(short, long)]
    verbose: bool,
    /// Print JSON Lines: one object for each request, then one with `summary`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Replay) -> Result<ExitCode, Error> {
    let policy = load(&args.policy)?;
    if policy.has_station_rules() {
        eprintln!(
            "note: only Modbus is judged; frames of PROFINET and the rules for stations are left out"
        );
    }
    let mut judged = Judged::new(args, &policy);
    // A reader that closes the pipe early, such as `head`, is no error.
    let mut out = BufWriter::new(io::stdout().lock());
    let tally = traffic::read(&args.capture, &args.scope, |seen| {
        judged.add(seen, &mut out)
    })?;
    traffic::notes(&tally, &args.capture);
    let _ = match args.json {
        true => writeln!(out, "{}", json!({ "summary": judged.summary(&tally) })),
        false => judged.table(&tally, &mut out),
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
    Ok(match judged.denied == 0 && tally.requests > 0 {
        true => ExitCode::SUCCESS,
        false => REFUSED.into(),
    })
}

/// A frame without a time is judged as if the clock were wrong.
fn now(time: Option<SystemTime>) -> Now {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds.map_or(Now::Unknown, Now::At)
}

struct Judged<'a> {
    args: &'a Replay,
    policy: &'a Policy,
    phase: Phase,
    /// How clients are called, by address.
    names: BTreeMap<IpAddr, Rc<str>>,
    groups: BTreeMap<Key, Group>,
    ungrouped: u64,
    allowed: u64,
    denied: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    client: Rc<str>,
    device: Rc<str>,
    unit: u8,
    function: u8,
    denied: bool,
    why: String,
}

#[derive(Debug)]
struct Group {
    addresses: Spans,
    count: u64,
    first: (u32, Option<SystemTime>),
    last: (u32, Option<SystemTime>),
}

impl<'a> Judged<'a> {
    fn new(args: &'a Replay, policy: &'a Policy) -> Self {
        Self {
            args,
            policy,
            phase: policy.phase(Now::Unknown),
            names: BTreeMap::new(),
            groups: BTreeMap::new(),
            ungrouped: 0,
            allowed: 0,
            denied: 0,
        }
    }

    fn add(&mut self, seen: &Seen<'_>, out: &mut impl Write) {
        let decision = self.decide(seen);
        match decision.allowed() {
            true => self.allowed += 1,
            false => self.denied += 1,
        }
        let client = self.client_name(seen.client);
        let key = Key {
            client,
            device: Rc::clone(&seen.device),
            unit: seen.unit,
            function: seen.request.function().0,
            denied: !decision.allowed(),
            why: self.kind(&decision),
        };
        if self.args.json || self.args.verbose {
            let why = self.why(&decision);
            let _ = match self.args.json {
                true => writeln!(out, "{}", self.line_json(seen, &key, &decision, &why)),
                false => writeln!(out, "{}", line(seen, &key, &why)),
            };
        }
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.ungrouped += 1;
            return;
        }
        let at = (seen.frame, seen.time);
        let group = self.groups.entry(key).or_insert_with(|| Group {
            addresses: Spans::default(),
            count: 0,
            first: at,
            last: at,
        });
        group.count += 1;
        group.last = at;
        for span in spans(seen) {
            group.addresses.insert(span);
        }
    }

    /// By the rules that applied when the frame was captured.
    fn decide(&mut self, seen: &Seen<'_>) -> Decision {
        let via = self.args.via.as_deref();
        let client = Client {
            address: Some(seen.client),
            ..Client::default()
        };
        let side = via.map_or(Side::Headend, |_| Side::Edge);
        let origin = Origin { side, via, client };
        let now = now(seen.time);
        if !self.phase.holds(now) {
            self.phase = self.policy.phase(now);
        }
        let view = self.policy.view(&origin, &seen.device, &self.phase);
        view.decide(seen.unit, &seen.request)
    }

    fn client_name(&mut self, address: IpAddr) -> Rc<str> {
        if let Some(name) = self.names.get(&address) {
            return Rc::clone(name);
        }
        let client = Client {
            address: Some(address),
            ..Client::default()
        };
        let names: Vec<&str> = self.policy.client_names(&client).collect();
        let name: Rc<str> = match names.as_slice() {
            [] => address.to_string().into(),
            names => format!("{} ({address})", names.join(" + ")).into(),
        };
        if self.names.len() < MAX_GROUPS {
            self.names.insert(address, Rc::clone(&name));
        }
        name
    }

    /// Why, with the numbers of the request.
    fn why(&self, decision: &Decision) -> String {
        match decision {
            Decision::Allow { rule, .. } => format!("{:?}", self.policy.rule_name(*rule)),
            Decision::Refuse(refusal) => match refusal.rule {
                Some(rule) => format!("{} {:?}", refusal.reason, self.policy.rule_name(rule)),
                None => refusal.reason.to_string(),
            },
        }
    }

    /// Why, without what differs from request to request.
    fn kind(&self, decision: &Decision) -> String {
        let Decision::Refuse(refusal) = decision else {
            return self.why(decision);
        };
        let rule = refusal.rule.map(|rule| self.policy.rule_name(rule));
        match (refusal.reason, rule) {
            (Reason::Address { .. }, _) => "outside every range".to_owned(),
            (Reason::ValueAbove { max, .. }, Some(rule)) => format!("value above {max} {rule:?}"),
            (Reason::ValueBelow { min, .. }, Some(rule)) => format!("value below {min} {rule:?}"),
            (Reason::NotFinite { .. }, Some(rule)) => format!("no finite number {rule:?}"),
            (Reason::PartOfValue { number, .. }, Some(rule)) => {
                format!("a part of a {number} {rule:?}")
            }
            _ => self.why(decision),
        }
    }

    fn line_json(
        &self,
        seen: &Seen<'_>,
        key: &Key,
        decision: &Decision,
        why: &str,
    ) -> serde_json::Value {
        let client = Client {
            address: Some(seen.client),
            ..Client::default()
        };
        let rule = match decision {
            Decision::Allow { rule, .. } => Some(*rule),
            Decision::Refuse(refusal) => refusal.rule,
        };
        json!({
            "frame": seen.frame,
            "time": seen.time.map(time),
            "client": seen.client,
            "client_names": self.policy.client_names(&client).collect::<Vec<_>>(),
            "device": &*key.device,
            "unit": key.unit,
            "function": key.function,
            "addresses": spans(seen).map(|span| span.to_string()).collect::<Vec<_>>(),
            "decision": if key.denied { "deny" } else { "allow" },
            "rule": rule.map(|rule| self.policy.rule_name(rule)),
            "why": key.denied.then_some(why),
        })
    }

    fn summary(&self, tally: &Tally) -> serde_json::Value {
        json!({ "allowed": self.allowed, "denied": self.denied, "capture": tally })
    }

    fn table(&self, tally: &Tally, out: &mut impl Write) -> io::Result<()> {
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
        rows.extend(self.groups.iter().map(|(key, group)| {
            let end = |(frame, at): (u32, Option<SystemTime>)| match at {
                Some(at) => format!("#{frame} {}", time(at)),
                None => format!("#{frame}"),
            };
            [
                decided(key).to_owned(),
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
        if self.ungrouped > 0 {
            writeln!(out, "and {} requests in further groups", self.ungrouped)?;
        }
        writeln!(
            out,
            "{} requests in {} frames: {} allowed, {} denied; {} answered ({} with exceptions), {} not; \
             {} malformed",
            tally.requests,
            tally.frames,
            self.allowed,
            self.denied,
            tally.answered,
            tally.exceptions,
            tally.unanswered,
            tally.malformed,
        )
    }
}

fn spans(seen: &Seen<'_>) -> impl Iterator<Item = Span> {
    let read = seen.request.read();
    let written = seen.request.write().map(|write| write.range);
    read.into_iter().chain(written).map(|range| Span {
        table: range.table,
        first: range.start,
        last: range.last(),
    })
}

fn line(seen: &Seen<'_>, key: &Key, why: &str) -> impl Display {
    let spans: Vec<String> = spans(seen).map(|span| span.to_string()).collect();
    let time = seen.time.map(time);
    format!(
        "#{} {} {} {} -> {} unit {}: {} {} {why}",
        seen.frame,
        time.as_deref().unwrap_or("-"),
        decided(key),
        key.client,
        key.device,
        key.unit,
        FunctionCode(key.function),
        spans.join(", "),
    )
}

fn decided(key: &Key) -> &'static str {
    match key.denied {
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
