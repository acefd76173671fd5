//! `fieldlock policy suggest`: an allow-list from what was seen.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, ValueEnum};
use fieldlock_audit::{Address, Decision, Kind, Party, Record, Table, Values, log_files};
use fieldlock_policy::{Asker, Observation, Policy, Span, SuggestError, SuggestOptions, Traffic};
use serde::Serialize;
use serde_json::json;

use super::file::FileError;
use super::traffic::{self, Scope};
use super::{Error, print};

/// No record of an audit log is nearly as long.
const MAX_LINE: u64 = 64 * 1024;

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
    scope: Scope,
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

/// What went into a suggestion.
#[derive(Debug, Default, Serialize)]
struct Taken {
    requests: u64,
    left_out: u64,
    /// Records of PROFINET, of which nothing is suggested.
    of_stations: u64,
    /// Why the first that was left out was.
    #[serde(skip)]
    why: Option<String>,
}

pub(super) fn run(args: &Suggest) -> Result<ExitCode, Error> {
    if args.log.is_some() && args.scope.is_given() {
        return Err(Error::ScopeOfLog);
    }
    let mut traffic = Traffic::default();
    let taken = match (&args.capture, &args.log) {
        (Some(capture), _) => from_capture(capture, &args.scope, &mut traffic)?,
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

impl Taken {
    fn count(&mut self, added: Result<(), SuggestError>, place: &str) -> Result<(), SuggestError> {
        match added {
            Ok(()) => self.requests += 1,
            Err(SuggestError::TooMany) => return Err(SuggestError::TooMany),
            Err(error) => {
                self.left_out += 1;
                self.why.get_or_insert_with(|| format!("{place}: {error}"));
            }
        }
        Ok(())
    }
}

fn from_capture(file: &Path, scope: &Scope, traffic: &mut Traffic) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    let mut result = Ok(());
    let tally = traffic::read(file, scope, |seen| {
        let asker = Asker {
            address: Some(seen.client),
            ..Asker::default()
        };
        let what = Observation::of(&seen.request);
        if result.is_ok() {
            let added = traffic.add(&asker, &seen.device, seen.unit, what, seen.time, 1);
            result = taken.count(added, &format!("frame {}", seen.frame));
        }
    })?;
    result?;
    traffic::notes(&tally, file);
    Ok(taken)
}

fn from_log(log: &Path, traffic: &mut Traffic) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    let files = log_files(log).map_err(|source| unreadable(log, source))?;
    for file in files {
        from_log_file(&file, traffic, &mut taken)?;
    }
    Ok(taken)
}

fn unreadable(file: &Path, source: std::io::Error) -> Error {
    let path = file.to_owned();
    Error::File(FileError::Read { path, source })
}

fn from_log_file(file: &Path, traffic: &mut Traffic, taken: &mut Taken) -> Result<(), Error> {
    let mut log = BufReader::new(File::open(file).map_err(|source| unreadable(file, source))?);
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let length = (&mut log).take(MAX_LINE).read_until(b'\n', &mut line);
        let length = length.map_err(|source| unreadable(file, source))? as u64;
        // A record that is being written has no end yet.
        if length == 0 || length < MAX_LINE && !line.ends_with(b"\n") {
            break;
        }
        let place = || format!("{}:{number}", file.display());
        let Ok(record) = serde_json::from_slice::<Record>(&line) else {
            taken.left_out += 1;
            let why = || format!("{}: not an audit record", place());
            taken.why.get_or_insert_with(why);
            continue;
        };
        taken.of_stations += u64::from(record.station.is_some());
        if let Some(added) = add(&record, traffic) {
            taken.count(added, &place())?;
        }
    }
    Ok(())
}

/// `None`: the record is not of a request that was allowed.
fn add(record: &Record, traffic: &mut Traffic) -> Option<Result<(), SuggestError>> {
    let (Some(device), Some(unit), Some(function)) = (&record.device, record.unit, record.function)
    else {
        return None;
    };
    // A read that was answered had been allowed.
    if record.kind != Kind::Read && record.decision != Some(Decision::Allow) {
        return None;
    }
    let address = record.address.map(span);
    let (read, write) = match function {
        1..=4 => (address, None),
        5 | 6 | 15 | 16 | 22 => (None, address),
        23 => (record.read_address.map(span), address),
        _ => (None, None),
    };
    let what = Observation {
        function,
        read,
        write,
        values: record.values.as_ref().and_then(extremes),
        part: part(function, record),
    };
    let asker = record.client.as_deref().map(asker).unwrap_or_default();
    let count = record.count.unwrap_or(1);
    Some(traffic.add(&asker, device, unit, what, record.time, count))
}

/// Of functions 8 and 43 the part that was asked: the first octets of the request, and of the answer
/// too.
fn part(function: u8, record: &Record) -> Option<u16> {
    let Some(Values::Opaque(body)) = record.values.as_ref().or(record.answer.as_ref()) else {
        return None;
    };
    match (function, &body[..]) {
        (8, [high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
        (43, [mei, ..]) => Some(u16::from(*mei)),
        _ => None,
    }
}

fn asker(party: &Party) -> Asker {
    Asker {
        name: party.name.as_deref().map(str::to_owned),
        address: party.address,
        identity: party.identity.as_deref().map(str::to_owned),
        role: party.role.as_deref().map(str::to_owned),
    }
}

fn span(address: Address) -> Span {
    use fieldlock_modbus::Table as Modbus;
    Span {
        table: match address.table {
            Table::Coil => Modbus::Coil,
            Table::Discrete => Modbus::DiscreteInput,
            Table::Input => Modbus::InputRegister,
            Table::Holding => Modbus::HoldingRegister,
        },
        first: address.first,
        last: address.last,
    }
}

/// The smallest and the largest value, as far as they are told.
fn extremes(values: &Values) -> Option<(u16, u16)> {
    let values: Vec<u16> = match values {
        Values::Register(value) => vec![*value],
        Values::Coil(on) => vec![u16::from(*on)],
        Values::Registers(bytes) => bytes
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect(),
        Values::Coils { bits, count } => (0..usize::from(*count))
            .map(|at| u16::from(bits.get(at / 8).copied().unwrap_or(0) >> (at % 8) & 1))
            .collect(),
        Values::Mask { .. } | Values::Opaque(_) => return None,
    };
    Some((*values.iter().min()?, *values.iter().max()?))
}
