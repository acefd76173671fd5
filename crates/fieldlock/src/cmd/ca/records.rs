//! `fieldlock ca list`, `show`, `expiring`, `log`, `verify`: what the CA has on record.

use clap::Parser;
use fieldlock_ca::{Access, Ca, CaError, Entry, Time};
use fieldlock_pki::{Name, Role};

use super::report::{Known, details, print, print_csv, print_json};
use super::{At, days};

/// List the certificates that were issued
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca list --role edge --state valid
  fieldlock ca list --name press-07 --json")]
pub(super) struct List {
    #[command(flatten)]
    at: At,
    #[arg(long)]
    role: Option<Role>,
    #[arg(long)]
    name: Option<Name>,
    /// valid, not-yet-valid, expired or revoked
    #[arg(long, value_parser = ["valid", "not-yet-valid", "expired", "revoked"])]
    state: Option<String>,
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// One line each, with commas, for a spreadsheet
    #[arg(long)]
    csv: bool,
}

impl List {
    fn shows(&self, (entry, state): &Known) -> bool {
        self.role.is_none_or(|role| role == entry.role)
            && self.name.as_ref().is_none_or(|name| *name == entry.name)
            && self
                .state
                .as_ref()
                .is_none_or(|wanted| wanted == state.as_str())
    }
}

/// What runs out next: certificates, CAs, CRLs
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  fieldlock ca expiring --within 30 --json")]
pub(super) struct Expiring {
    #[command(flatten)]
    at: At,
    /// Days from now
    #[arg(long, value_name = "DAYS", default_value = "90", value_parser = days())]
    within: u16,
    #[arg(long)]
    json: bool,
}

/// Show the certificates of a name (`press-07`, `edge/press-07`) or a serial number
#[derive(Debug, Parser)]
pub(super) struct Show {
    #[command(flatten)]
    at: At,
    #[arg(value_name = "NAME|SERIAL")]
    what: String,
    #[arg(long, conflicts_with = "pem")]
    json: bool,
    /// Print the certificates themselves
    #[arg(long)]
    pem: bool,
}

pub(super) fn list(args: &List) -> Result<(), CaError> {
    let ca = Ca::open(&args.at.dir, Access::Read)?;
    let now = Time::now();
    let mut known = with_states(&ca, ca.records().certificates()?, now)?;
    known.retain(|known| args.shows(known));
    if args.json {
        return print_json(&ca, &known, now);
    }
    if args.csv {
        return print_csv(&known);
    }
    let mut text = format!(
        "{:<9} {:<24} {:<14} {:>5}  {:<20}  {}\n",
        "ROLE", "NAME", "STATE", "DAYS", "EXPIRES", "SERIAL"
    );
    for (entry, state) in known {
        text.push_str(&format!(
            "{:<9} {:<24} {:<14} {:>5}  {:<20}  {}\n",
            entry.role,
            entry.name,
            state.as_str(),
            entry.not_after.days_from(now),
            entry.not_after,
            entry.serial
        ));
    }
    print(&text)
}

pub(super) fn expiring(args: &Expiring) -> Result<(), CaError> {
    let ca = Ca::open(&args.at.dir, Access::Read)?;
    let mut all = ca.expiring(Time::now())?;
    all.retain(|item| item.days_left < i64::from(args.within));
    if args.json {
        let text = serde_json::to_string_pretty(&all).map_err(|_| CaError::Unreadable)?;
        return print(&format!("{text}\n"));
    }
    let mut text = String::new();
    for item in all {
        text.push_str(&format!(
            "{:>5} days  {}  {:<11}  {}\n",
            item.days_left,
            item.ends,
            item.kind.as_str(),
            item.name
        ));
    }
    print(&text)
}

pub(super) fn show(args: &Show) -> Result<(), CaError> {
    let ca = Ca::open(&args.at.dir, Access::Read)?;
    let now = Time::now();
    let found = with_states(&ca, ca.find(&args.what)?, now)?;
    if args.json {
        return print_json(&ca, &found, now);
    }
    if args.pem {
        let pems = found.iter().map(|(entry, _)| entry.certificate.as_str());
        return print(&pems.collect::<String>());
    }
    let texts: Vec<String> = found.iter().map(|known| details(&ca, known)).collect();
    print(&texts.join("\n"))
}

/// Every event on record, one JSON object a line: issued, refused, revoked, token, crl, ...
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  fieldlock ca log --dir ca
  fieldlock ca log --kind refused --name press-07
  fieldlock ca log --since 2026-07-01T00:00:00Z")]
pub(super) struct Log {
    #[command(flatten)]
    at: At,
    /// issued, refused, revoked, token, token-cancelled, crl, clock, authority, authority-revoked,
    /// issuing, root-dropped
    #[arg(long)]
    kind: Option<String>,
    /// Of events that name an agent
    #[arg(long)]
    name: Option<Name>,
    /// Earlier ones are left out (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<Time>,
}

pub(super) fn log(args: &Log) -> Result<(), CaError> {
    let ca = Ca::open(&args.at.dir, Access::Read)?;
    let mut text = String::new();
    ca.records().search(
        args.kind.as_deref(),
        args.name.as_ref(),
        args.since,
        |record| {
            if let Ok(line) = serde_json::to_string(&record) {
                text.push_str(&line);
                text.push('\n');
            }
        },
    )?;
    print(&text)
}

/// Check that no record was changed, taken out or put in
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  fieldlock ca verify --dir ca
It prints the number and the hash of the last record: note them elsewhere, and compare later with
`fieldlock ca log`, to see also that the end was not cut off.")]
pub(super) struct Verify {
    #[command(flatten)]
    at: At,
}

pub(super) fn verify(args: &Verify) -> Result<(), CaError> {
    let ca = Ca::open(&args.at.dir, Access::Read)?;
    let mut last = None;
    ca.records().verify(|record| last = Some(record))?;
    match last {
        Some(last) => print(&format!("{} {} {}\n", last.seq, last.hash, last.time)),
        None => Ok(()),
    }
}

/// Put on record that the clock is right, and was ahead when later times were recorded
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  fieldlock ca clock --is-right --dir ca
Nothing is issued over the network while the clock is behind the records: either it was set back, and
then it is to be set, or it was ahead once. Nobody but you can tell. The records stay as they are.")]
pub(super) struct Clock {
    #[command(flatten)]
    at: At,
    /// I have compared this machine's clock with another one
    #[arg(long, required = true)]
    is_right: bool,
}

pub(super) fn clock(args: &Clock) -> Result<(), CaError> {
    let now = Time::now();
    let ahead = Ca::open(&args.at.dir, Access::Write)?.confirm_clock(now)?;
    eprintln!(
        "on record: it is {now}, and what was recorded as up to {ahead} was by a clock that was ahead"
    );
    eprintln!(
        "Certificates of that time are not valid yet: find them with `fieldlock ca list --state not-yet-valid`"
    );
    Ok(())
}

fn with_states(ca: &Ca, entries: Vec<Entry>, now: Time) -> Result<Vec<Known>, CaError> {
    let known = entries.into_iter().map(|entry| {
        let state = ca.state(&entry, now)?;
        Ok((entry, state))
    });
    known.collect()
}
