//! `fieldlock audit export`: the log in the forms of collectors, to standard output or to one.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use fieldlock_evidence::export::{
    Collector, CollectorError, Cursor, CursorError, ExportError, Form, Notice, Plan, send, write,
};

use super::filter::FilterArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  fieldlock audit export --state /var/lib/fieldlock/headend --format cef --since 24h > day.cef
  fieldlock audit export --state /var/lib/fieldlock/headend --follow \\
      --to siem.example:6514 --ca siem-ca.pem --cursor /var/lib/fieldlock/export.cursor

A collector gets RFC 5424 over TLS (RFC 5425). Syslog acknowledges nothing, so a connection is closed
in good order every now and then: what the collector took until then is done with, and the cursor
moves on. After a broken connection all since the cursor is sent again; records have agent and seq
to tell repeats by. What a collector took that never closes in good order is not confirmed: it is
sent twice at first, the cursor moves on, and the exit code is 1.";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// In which form; a collector gets `jsonl` and `cef` as the content of syslog messages.
    #[arg(long, default_value = "jsonl")]
    format: Format,
    /// Send to this collector (syslog over TLS, usually port 6514), not to standard output.
    #[arg(long, value_name = "HOST:PORT", requires = "ca")]
    to: Option<String>,
    /// The CAs (PEM) that the collector's certificate must come from.
    #[arg(long, value_name = "PEM", requires = "to")]
    ca: Option<PathBuf>,
    /// The certificate (PEM, with its chain) to show to the collector.
    #[arg(long, value_name = "PEM", requires_all = ["to", "key"])]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "PEM", requires = "cert")]
    key: Option<PathBuf>,
    /// Where to note how far the export came, and to go on from the next time.
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,
    /// Go on with records as they come.
    #[arg(short, long)]
    follow: bool,
    /// How long records may be sent before the collector has to confirm them; that many are
    /// sent again at most when it fails.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = super::filter::parse_age)]
    confirm: Duration,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Records as they stand in the log.
    Jsonl,
    /// ArcSight's Common Event Format.
    Cef,
    /// RFC 5424, a message a line, with the record in it.
    Syslog,
}

impl Options {
    fn plan(&self) -> Plan {
        Plan {
            form: match self.format {
                Format::Jsonl => Form::Jsonl,
                Format::Cef => Form::Cef,
                Format::Syslog => Form::Syslog,
            },
            filter: self.filter.filter(),
            follow: self.follow,
            confirm: self.confirm,
        }
    }
}

pub(super) fn run(log: &Path, options: &Options) -> ExitCode {
    match export(log, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Export(ExportError::Output(error)))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            match error.is_usage() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn export(log: &Path, options: &Options) -> Result<(), Error> {
    let cursor = Cursor::load(options.cursor.as_deref())?;
    let plan = options.plan();
    let Some(to) = &options.to else {
        let out = io::stdout().lock();
        return Ok(write(log, &plan, cursor, out, |notice| tell("", &notice))?);
    };
    let own = options.cert.as_deref().zip(options.key.as_deref());
    let collector = Collector::new(to, options.ca.as_deref(), own)?;
    Ok(send(log, &plan, cursor, &collector, |notice| {
        tell(to, &notice);
    })?)
}

fn tell(to: &str, notice: &Notice<'_>) {
    match notice {
        Notice::Log(oddity) => eprintln!("warning: {oddity}"),
        Notice::Down { why, done, reached } if reached > done => eprintln!(
            "warning: {to}: {why}; records {} to {reached} are not confirmed and are sent again, as \
             soon as it can be reached",
            done + 1
        ),
        Notice::Down { why, done, .. } => {
            eprintln!("warning: {to}: {why}; trying again after record {done}");
        }
        Notice::Up => eprintln!("{to}: reached again"),
        Notice::NeverConfirms { first, last } => eprintln!(
            "warning: {to} closes connections without TLS's close_notify, so nothing says what it has \
             read: records {first} to {last} were sent twice, and count as taken; later ones count as \
             taken once it accepts the next connection"
        ),
    }
}

/// Why nothing, or not all, was exported.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    Collector(#[from] CollectorError),
    #[error(transparent)]
    Export(#[from] ExportError),
}

impl Error {
    /// Whether another argument is needed.
    fn is_usage(&self) -> bool {
        match self {
            Self::Cursor(_) => true,
            Self::Collector(error) => !matches!(error, CollectorError::Tls(_)),
            Self::Export(_) => false,
        }
    }
}
