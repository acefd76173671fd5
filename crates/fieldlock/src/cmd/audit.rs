//! `fieldlock audit`: shows the audit log, whole or filtered, and says whether it is whole.

mod export;
mod filter;
mod readable;
mod show;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use filter::FilterArgs;
use readable::Form;

const STANDARD_STATES: [&str; 2] = ["/var/lib/fieldlock/edge", "/var/lib/fieldlock/headend"];

/// Show and verify the audit log of an edge or headend.
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
        /// Print records as they stand in the log, one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Print the records that match every filter given.
    #[command(after_help = QUERIES)]
    Query {
        #[command(flatten)]
        log: Log,
        #[command(flatten)]
        filter: FilterArgs,
        /// Print no more than this many, the last that match.
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
        /// Print records as they stand in the log, one JSON object a line.
        #[arg(long, conflicts_with = "csv")]
        json: bool,
        /// Print comma-separated values with a line of names, for a spreadsheet.
        #[arg(long)]
        csv: bool,
    },
    /// Give the log to other programs: JSON Lines, CEF, or syslog to a collector.
    #[command(after_help = export::EXAMPLES)]
    Export {
        #[command(flatten)]
        log: Log,
        #[command(flatten)]
        options: export::Options,
    },
    /// Check that no record was changed, removed, added or moved.
    ///
    /// Each record carries a hash over itself and the one before. That the end was not cut off,
    /// only the other side of the tunnel can tell: it has checkpoints of this log on record.
    #[command(after_help = verify::EXAMPLES)]
    Verify {
        #[command(flatten)]
        log: Log,
        #[command(flatten)]
        options: verify::Options,
    },
}

const QUERIES: &str = "\
Examples:
  fieldlock audit query --kind denied --since 2026-12-01 --limit 100
  fieldlock audit query --device press-07 --function 6 --since 7d --csv > writes.csv";

#[derive(Debug, clap::Args)]
struct Log {
    /// A file of the log, or the directory with all of them [default: the one under
    /// /var/lib/fieldlock].
    file: Option<PathBuf>,
    /// The agent's state directory, in place of FILE.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    state: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> ExitCode {
    let (Command::Tail { log, .. }
    | Command::Query { log, .. }
    | Command::Export { log, .. }
    | Command::Verify { log, .. }) = &args.command;
    let path = match log.path() {
        Ok(path) => path,
        Err(hint) => {
            eprintln!("error: {hint}");
            return ExitCode::from(2);
        }
    };
    let result = match args.command {
        Command::Tail {
            follow,
            lines,
            json,
            ..
        } => show::tail(&path, usize::from(lines), follow, form(json, false)),
        Command::Query {
            filter,
            limit,
            json,
            csv,
            ..
        } => show::query(&path, &filter.filter(), form(json, csv), limit),
        Command::Export { options, .. } => return export::run(&path, &options),
        Command::Verify { log, options } => return verify::run(&path, log.state(), &options),
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

fn form(json: bool, csv: bool) -> Form {
    match (json, csv) {
        (true, _) => Form::Json,
        (false, true) => Form::Csv,
        (false, false) => Form::Sentence,
    }
}

impl Log {
    /// The log's directory, or the one file of it that was asked for.
    fn path(&self) -> Result<PathBuf, WhichLog> {
        match (&self.file, self.state()) {
            (Some(file), _) => Ok(file.clone()),
            (None, Some(state)) => Ok(folder_in(&state)),
            (None, None) if standard_logs().next().is_some() => Err(WhichLog::Several),
            (None, None) => Err(WhichLog::None),
        }
    }

    /// The state directory that the log belongs to, where it is known.
    fn state(&self) -> Option<PathBuf> {
        if self.file.is_some() || self.state.is_some() {
            return self.state.clone();
        }
        let mut found = standard_logs();
        let only = found.next()?;
        found.next().is_none().then(|| only.to_owned())
    }
}

/// Why it is not known which log is meant.
#[derive(Debug, thiserror::Error)]
enum WhichLog {
    #[error(
        "there are logs of an edge and of a headend: say which with --state {}",
        STANDARD_STATES.join(" or ")
    )]
    Several,
    #[error(
        "no audit log under /var/lib/fieldlock: give its file, or the agent's directory with --state"
    )]
    None,
}

fn standard_logs() -> impl Iterator<Item = &'static Path> {
    let states = STANDARD_STATES.iter().map(Path::new);
    states.filter(|state| folder_in(state).exists())
}

/// Where an agent with this state directory keeps the files of its log.
pub(crate) fn folder_in(state: &Path) -> PathBuf {
    state.join(fieldlock_agent::AUDIT)
}

/// Where an agent with this state directory writes its log.
#[cfg(any(feature = "demo", test))]
pub(crate) fn log_in(state: &Path) -> PathBuf {
    folder_in(state).join(fieldlock_audit::FILE_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record, for the tests of what is done with one.
    pub(super) const DENIED: &str = concat!(
        r#"{"v":1,"seq":9,"time":"2026-09-21T14:13:20.123456Z","agent":"press-07","#,
        r#""kind":"denied","client":{"name":"hmi-1","address":"10.1.1.20"},"#,
        r#""device":"press-07","unit":1,"function":6,"address":"holding 40","quantity":1,"#,
        r#""values":[1300],"decision":"deny","rule":"setpoint","#,
        r#""reason":"value 1300 above 1200","outcome":"refused","exception":3,"count":4}"#
    );

    #[test]
    fn the_log_of_a_state_directory_is_where_its_agent_writes() {
        assert_eq!(
            log_in(Path::new("/var/lib/fieldlock/edge")),
            Path::new("/var/lib/fieldlock/edge/audit/audit.jsonl")
        );
    }
}
