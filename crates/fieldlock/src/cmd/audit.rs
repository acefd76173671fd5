//! `fieldlock audit`: shows the audit log, whole or filtered, readable or as it stands.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Parser, Subcommand, ValueEnum};
use fieldlock_audit::{Decision, FILE_NAME, Kind, Outcome, Party, Record};
use fieldlock_modbus::FunctionCode;
use jiff::{SignedDuration, Timestamp};

const STANDARD_STATES: [&str; 2] = ["/var/lib/fieldlock/edge", "/var/lib/fieldlock/headend"];

/// How often `tail -f` looks for more.
const FOLLOW: Duration = Duration::from_millis(200);

/// Where `tail` starts to read, for each record wanted, before the end. Hardly any record is
/// longer than a tenth of this.
const SEEK_PER_RECORD: u64 = 8 * 1024;

/// Show the audit log of an edge or headend.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the last records, and with -f each new one.
    Tail {
        #[command(flatten)]
        log: Log,
        /// Go on printing records as they come.
        #[arg(short, long)]
        follow: bool,
        /// How many records to print at first.
        #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
        lines: u16,
    },
    /// Print the records that match every filter given.
    Query {
        #[command(flatten)]
        log: Log,
        #[command(flatten)]
        filter: Filter,
    },
}

#[derive(Debug, clap::Args)]
struct Log {
    /// The log [default: the one under /var/lib/fieldlock].
    file: Option<PathBuf>,
    /// The agent's state directory, in place of FILE.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    state: Option<PathBuf>,
    /// Print records as they stand in the log, one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only this kind (denied, write-intent, tunnel-up, ...); may be repeated.
    #[arg(long, value_parser = parse_kind)]
    kind: Vec<Kind>,
    /// Only this device.
    #[arg(long)]
    device: Option<String>,
    /// Only this client: its name, address or identity.
    #[arg(long)]
    client: Option<String>,
    /// Only what was decided so.
    #[arg(long)]
    decision: Option<DecisionArg>,
    /// Only from this time on: 2026-09-21T14:00:00Z, or an age such as 90s, 10m, 2h.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DecisionArg {
    Allow,
    Deny,
}

pub(crate) fn run(args: Args) -> ExitCode {
    let (log, shown) = match args.command {
        Command::Tail { log, follow, lines } => {
            let path = log.path();
            (log, path.map(|path| (Shown::Tail { follow, lines }, path)))
        }
        Command::Query { log, filter } => {
            let path = log.path();
            (log, path.map(|path| (Shown::Query(filter), path)))
        }
    };
    let (shown, path) = match shown {
        Ok(shown) => shown,
        Err(hint) => {
            eprintln!("error: {hint}");
            return ExitCode::from(2);
        }
    };
    let result = match shown {
        Shown::Tail { follow, lines } => tail(&path, usize::from(lines), follow, log.json),
        Shown::Query(filter) => query(&path, &filter, log.json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `fieldlock audit query | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: audit log {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

enum Shown {
    Tail { follow: bool, lines: u16 },
    Query(Filter),
}

impl Log {
    fn path(&self) -> Result<PathBuf, String> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        if let Some(state) = &self.state {
            return Ok(log_in(state));
        }
        let mut found = STANDARD_STATES
            .iter()
            .map(|state| log_in(Path::new(state)))
            .filter(|path| path.exists());
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(format!(
                "there are logs of an edge and of a headend: say which with --state {}",
                STANDARD_STATES.join(" or ")
            )),
            _ => Err("no audit log under /var/lib/fieldlock: \
                      give its file, or the agent's directory with --state"
                .to_owned()),
        }
    }
}

/// Where an agent with this state directory keeps its log.
pub(crate) fn log_in(state: &Path) -> PathBuf {
    state.join(fieldlock_agent::AUDIT).join(FILE_NAME)
}

fn query(path: &Path, filter: &Filter, json: bool) -> io::Result<()> {
    let mut lines = Lines::open(path)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    while let Some(line) = lines.next()? {
        match serde_json::from_str::<Record>(&line) {
            Ok(record) if filter.matches(&record) => print(&mut out, &line, &record, json)?,
            Ok(_) => {}
            Err(_) => eprintln!("warning: not an audit record: {line}"),
        }
    }
    out.flush()
}

fn tail(path: &Path, count: usize, follow: bool, json: bool) -> io::Result<()> {
    let mut lines = Lines::open_near_end(path, count as u64 * SEEK_PER_RECORD)?;
    let mut last = VecDeque::new();
    while let Some(line) = lines.next()? {
        last.push_back(line);
        if last.len() > count {
            last.pop_front();
        }
    }
    loop {
        let mut out = io::stdout().lock();
        for line in last.drain(..) {
            match serde_json::from_str::<Record>(&line) {
                Ok(record) => print(&mut out, &line, &record, json)?,
                Err(_) => eprintln!("warning: not an audit record: {line}"),
            }
        }
        out.flush()?;
        drop(out);
        if !follow {
            return Ok(());
        }
        std::thread::sleep(FOLLOW);
        lines.reopen_if_replaced(path)?;
        while let Some(line) = lines.next()? {
            last.push_back(line);
        }
    }
}

/// Complete lines; an incomplete one at the end waits for the rest of it.
struct Lines {
    log: BufReader<File>,
    position: u64,
    partial: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            log: BufReader::new(File::open(path)?),
            position: 0,
            partial: Vec::new(),
        })
    }

    fn open_near_end(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut lines = Self::open(path)?;
        let length = lines.log.get_ref().metadata()?.len();
        if length > bytes {
            lines.position = lines.log.seek(SeekFrom::Start(length - bytes))?;
            // The rest of the line that the position fell into.
            lines.next()?;
        }
        Ok(lines)
    }

    fn next(&mut self) -> io::Result<Option<String>> {
        self.position += self.log.read_until(b'\n', &mut self.partial)? as u64;
        if self.partial.pop_if(|byte| *byte == b'\n').is_none() {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        Ok(Some(line))
    }

    /// The agent cuts a torn end when it starts, and begins a new file where the old is gone.
    fn reopen_if_replaced(&mut self, path: &Path) -> io::Result<()> {
        let ours = self.log.get_ref().metadata()?;
        if ours.len() < self.position {
            self.position = self.log.seek(SeekFrom::Start(ours.len()))?;
            self.partial.clear();
        }
        let there = std::fs::metadata(path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino())) {
            *self = Self::open(path)?;
        }
        Ok(())
    }
}

impl Filter {
    fn matches(&self, record: &Record) -> bool {
        let kind = self.kind.is_empty() || self.kind.contains(&record.kind);
        let device = self.device.is_none() || self.device.as_deref() == record.device.as_deref();
        let client = self.client.as_deref().is_none_or(|wanted| {
            let client = record.client.as_deref();
            client.is_some_and(|client| is_called(client, wanted))
        });
        let decision = self.decision.is_none_or(|wanted| {
            record.decision
                == Some(match wanted {
                    DecisionArg::Allow => Decision::Allow,
                    DecisionArg::Deny => Decision::Deny,
                })
        });
        let since = self.since.is_none() || record.time >= self.since;
        kind && device && client && decision && since
    }
}

fn is_called(client: &Party, wanted: &str) -> bool {
    client.name.as_deref() == Some(wanted)
        || client.identity.as_deref() == Some(wanted)
        || client
            .address
            .is_some_and(|address| address.to_string() == wanted)
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    match serde_json::from_value(text.into()) {
        Ok(Kind::Other) | Err(_) => Err(
            "no such kind; among them are denied, write-intent, write-outcome, tunnel-up, \
             tunnel-down, client-open, reload, start"
                .to_owned(),
        ),
        Ok(kind) => Ok(kind),
    }
}

fn parse_since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return SystemTime::try_from(time).map_err(|error| error.to_string());
    }
    let age = text.parse::<SignedDuration>().ok();
    age.and_then(|age| Duration::try_from(age).ok())
        .and_then(|age| SystemTime::now().checked_sub(age))
        .ok_or_else(|| "neither a time like 2026-09-21T14:00:00Z nor an age like 10m".to_owned())
}

fn print(out: &mut impl io::Write, line: &str, record: &Record, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{line}");
    }
    // Names and reasons may stem from a peer: they must not steer the terminal.
    let text = Readable(record)
        .to_string()
        .replace(char::is_control, "\u{fffd}");
    writeln!(out, "{}", text.trim_end())
}

/// A record on one line: when, what, who, which device, what it asked, what came of it.
struct Readable<'a>(&'a Record);

impl Display for Readable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let time = record.time.and_then(|time| Timestamp::try_from(time).ok());
        write!(
            f,
            "{:.3}  {:<14}",
            time.unwrap_or_default(),
            record.kind.name()
        )?;
        if let Some(client) = &record.client {
            write_client(f, client)?;
        }
        self.write_request(f)?;
        self.write_end(f)
    }
}

impl Readable<'_> {
    fn write_request(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        field(f, "", &record.device)?;
        field(f, "unit ", &record.unit)?;
        field(f, "(asked as unit ", &record.client_unit)?;
        if record.client_unit.is_some() {
            f.write_str(")")?;
        }
        field(f, "function ", &record.function.map(FunctionCode))?;
        field(f, "", &record.address)?;
        field(f, "reading ", &record.read_address)?;
        let values = record.values.as_ref();
        field(
            f,
            "= ",
            &values.and_then(|values| serde_json::to_string(values).ok()),
        )
    }

    fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        field(f, "", &record.alarm)?;
        field(f, "", &record.decision.map(decision_name))?;
        field(
            f,
            "by rule ",
            &record.rule.as_ref().map(|rule| format!("{rule:?}")),
        )?;
        field(f, "-> ", &record.outcome.map(outcome_name))?;
        field(
            f,
            "exception ",
            &record.exception.map(|code| format!("{code:#04x}")),
        )?;
        if let Some(reason) = &record.reason {
            write!(f, ": {reason}")?;
        }
        field(f, "x", &record.count)?;
        field(f, "via ", &record.tunnel)?;
        field(f, "over ", &record.transport)
    }
}

fn field(f: &mut fmt::Formatter<'_>, label: &str, value: &Option<impl Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {label}{value}"),
        None => Ok(()),
    }
}

fn write_client(f: &mut fmt::Formatter<'_>, client: &Party) -> fmt::Result {
    field(f, "", &client.name)?;
    field(f, "", &client.address)?;
    if let Some(port) = client.port {
        write!(f, " port {port}")?;
    }
    field(f, "", &client.identity)?;
    field(f, "role ", &client.role)
}

fn decision_name(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allowed",
        Decision::Deny => "denied",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::Exception => "refused by the device",
        Outcome::Sent => "sent",
        Outcome::Refused => "refused",
        Outcome::NotSent => "not sent",
        Outcome::Unknown => "unknown",
        Outcome::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: &str = concat!(
        r#"{"v":1,"seq":9,"time":"2026-09-21T14:13:20.123456Z","agent":"press-07","#,
        r#""kind":"denied","client":{"name":"hmi-1","address":"10.1.1.20"},"#,
        r#""device":"press-07","unit":1,"function":6,"address":"holding 40","quantity":1,"#,
        r#""values":[1300],"decision":"deny","rule":"setpoint","#,
        r#""reason":"value 1300 above 1200","outcome":"refused","exception":3,"count":4}"#
    );

    #[test]
    fn a_denial_reads_as_a_sentence() {
        let record: Record = serde_json::from_str(DENIED).unwrap();
        assert_eq!(
            Readable(&record).to_string(),
            "2026-09-21T14:13:20.123Z  denied         hmi-1 10.1.1.20 press-07 unit 1 \
             function 6 (0x06) write-single-register holding 40 = [1300] denied \
             by rule \"setpoint\" -> refused exception 0x03: value 1300 above 1200 x4"
        );
    }

    #[test]
    fn the_log_of_a_state_directory_is_where_its_agent_writes() {
        assert_eq!(
            log_in(Path::new("/var/lib/fieldlock/edge")),
            Path::new("/var/lib/fieldlock/edge/audit/audit.jsonl")
        );
    }

    #[test]
    fn every_filter_has_to_match() {
        let record: Record = serde_json::from_str(DENIED).unwrap();
        for (arguments, matches) in [
            (&[][..], true),
            (&["--kind", "denied", "--kind", "start"], true),
            (&["--kind", "start"], false),
            (&["--device", "press-07", "--client", "10.1.1.20"], true),
            (&["--device", "press-07", "--client", "hmi-2"], false),
            (&["--decision", "deny"], true),
            (&["--decision", "allow"], false),
            (&["--since", "2026-09-21T14:13:20Z"], true),
            (&["--since", "2026-09-21T14:13:21Z"], false),
        ] {
            let line = ["audit", "query"].iter().chain(arguments);
            let Command::Query { filter, .. } = Args::try_parse_from(line).unwrap().command else {
                panic!("{arguments:?}");
            };
            assert_eq!(filter.matches(&record), matches, "{arguments:?}");
        }
        for wrong in [["--kind", "nonsense"], ["--since", "yesterday"]] {
            let line = ["audit", "query"].iter().chain(&wrong);
            assert!(Args::try_parse_from(line).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_unfinished_line_waits_for_its_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, "one\ntw").unwrap();
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.next().unwrap().as_deref(), Some("one"));
        assert_eq!(lines.next().unwrap(), None);
        let mut log = File::options().append(true).open(&path).unwrap();
        log.write_all(b"o\nthree\n").unwrap();
        assert_eq!(lines.next().unwrap().as_deref(), Some("two"));
        assert_eq!(lines.next().unwrap().as_deref(), Some("three"));

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "anew\n").unwrap();
        lines.reopen_if_replaced(&path).unwrap();
        assert_eq!(lines.next().unwrap().as_deref(), Some("anew"));
    }
}
