//! `fieldlock audit export`: the log in the forms of collectors, to standard output or to one.

mod collector;
mod cursor;
mod source;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fieldlock_audit::Record;
use fieldlock_audit::export::{cef, syslog};
use fieldlock_tls::words;

use super::filter::FilterArgs;
use collector::{Collector, Connection, Ending};
use cursor::Cursor;
use source::Source;

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

/// How often the log is looked at for more.
const LOOK: Duration = Duration::from_millis(200);

/// How many records may be sent and not confirmed.
const CONFIRM_RECORDS: u64 = 10_000;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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

impl Format {
    fn write(self, record: &Record, line: &str, out: &mut Vec<u8>) {
        match self {
            Self::Jsonl => out.extend_from_slice(line.as_bytes()),
            Self::Cef => out.extend_from_slice(cef::format(record).as_bytes()),
            Self::Syslog => out.extend_from_slice(&syslog::format(record, line)),
        }
    }

    /// A message for a collector, framed.
    fn frame(self, record: &Record, line: &str, out: &mut Vec<u8>) {
        let message = match self {
            Self::Cef => syslog::format(record, &cef::format(record)),
            Self::Jsonl | Self::Syslog => syslog::format(record, line),
        };
        syslog::frame(&message, out);
    }
}

pub(super) fn run(log: &Path, options: &Options) -> ExitCode {
    let result = Cursor::load(options.cursor.as_deref()).and_then(|cursor| match &options.to {
        None => print(log, options, cursor),
        Some(to) => {
            let files = (
                options.ca.as_deref(),
                options.cert.as_deref(),
                options.key.as_deref(),
            );
            send(log, options, cursor, &Collector::new(to, files)?)
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            match error.kind() {
                io::ErrorKind::InvalidInput => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn print(log: &Path, options: &Options, mut cursor: Cursor) -> io::Result<()> {
    let mut source = Source::open(log, cursor.seq())?;
    let filter = options.filter.filter();
    let mut out = io::stdout().lock();
    let mut text = Vec::new();
    loop {
        while let Some((record, line)) = source.next()? {
            if filter.matches(&record) {
                text.clear();
                options.format.write(&record, &line, &mut text);
                text.push(b'\n');
                out.write_all(&text)?;
            }
        }
        out.flush()?;
        cursor.store(source.position())?;
        if !options.follow {
            return Ok(());
        }
        sleep(LOOK);
    }
}

fn send(log: &Path, options: &Options, mut cursor: Cursor, to: &Collector) -> io::Result<()> {
    let mut pause = FIRST_PAUSE;
    let mut said = Said::default();
    loop {
        let mut source = Source::open(log, cursor.seq())?;
        let broken = match attempt(&mut source, options, &mut cursor, to, &mut said) {
            Ok(()) => return said.unconfirmed(to),
            Err(Stopped::Here(error)) => return Err(error),
            Err(Stopped::Collector { error, progressed }) => {
                if progressed {
                    pause = FIRST_PAUSE;
                }
                words::io_error(&error)
            }
        };
        if said.down.as_deref() != Some(&*broken) {
            let (done, reached) = (cursor.seq(), source.position());
            match reached > done {
                true => eprintln!(
                    "warning: {to}: {broken}; records {} to {reached} are not confirmed and are sent \
                     again, as soon as it can be reached",
                    done + 1
                ),
                false => eprintln!("warning: {to}: {broken}; trying again after record {done}"),
            }
            said.down = Some(broken.into_owned());
        }
        sleep(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// What people were told, and have to be told at the end.
#[derive(Debug, Default)]
struct Said {
    /// What is wrong with the collector, as it was said last.
    down: Option<String>,
    /// It went away silently after the record with this number.
    silent_after: Option<u64>,
    /// The records that were taken by a collector that never says so.
    unconfirmed: Option<(u64, u64)>,
}

impl Said {
    /// The collector went away without a word after records `first` to `last`. Whether they count as
    /// taken all the same: it has done so before after the same ones, so it always does; or it was
    /// ended just then, and they are sent again.
    fn handle_silence(&mut self, to: &Collector, first: u64, last: u64) -> bool {
        let known = self.unconfirmed.is_some();
        let again = self
            .silent_after
            .replace(last)
            .is_some_and(|before| before >= first);
        if !(known || again) {
            return false;
        }
        let begin = self.unconfirmed.map_or(first, |(begin, _)| begin);
        self.unconfirmed = Some((begin, last));
        if !known {
            eprintln!(
                "warning: {to} closes connections without TLS's close_notify, so nothing says what it \
                 has read: records {first} to {last} were sent twice, and count as taken; later ones \
                 count as taken once it accepts the next connection"
            );
        }
        true
    }

    /// The collector said that it has read all.
    fn handle_confirmation(&mut self) {
        (self.silent_after, self.unconfirmed) = (None, None);
    }

    fn unconfirmed(&self, to: &Collector) -> io::Result<()> {
        match self.unconfirmed {
            Some((first, last)) => Err(io::Error::other(format!(
                "{to}: records {first} to {last} were sent and never confirmed: it closes without \
                 TLS's close_notify"
            ))),
            None => Ok(()),
        }
    }
}

enum Stopped {
    /// The log or the cursor.
    Here(io::Error),
    Collector {
        error: io::Error,
        progressed: bool,
    },
}

/// Sends all there is over connections in turn, until there is no more or one breaks.
fn attempt(
    source: &mut Source,
    options: &Options,
    cursor: &mut Cursor,
    to: &Collector,
    said: &mut Said,
) -> Result<(), Stopped> {
    let filter = options.filter.filter();
    let mut progressed = false;
    let mut open: Option<Sending> = None;
    loop {
        let next = source.next().map_err(Stopped::Here)?;
        let broken = |error| Stopped::Collector { error, progressed };
        if let Some((record, line)) = &next
            && filter.matches(record)
        {
            let sending = match &mut open {
                Some(sending) => sending,
                None => open.insert(Sending::start(to).map_err(broken)?),
            };
            sending.buffer.clear();
            options.format.frame(record, line, &mut sending.buffer);
            sending.records += 1;
            let buffer = &sending.buffer;
            sending.connection.send(buffer).map_err(broken)?;
        }
        let idle = next.is_none();
        let due = open
            .as_ref()
            .is_some_and(|sending| sending.is_due(options.confirm));
        if due || (idle && !options.follow) {
            if let Some(sending) = open.take() {
                open = confirm(sending, (cursor.seq() + 1, source.position()), to, said)
                    .map_err(broken)?;
                if said.down.take().is_some() {
                    eprintln!("{to}: reached again");
                }
                progressed = true;
            }
            cursor.store(source.position()).map_err(Stopped::Here)?;
        }
        if idle {
            if !options.follow {
                return Ok(());
            }
            let broken = |error| Stopped::Collector { error, progressed };
            if let Some(sending) = &mut open {
                sending.connection.flush().map_err(broken)?;
            }
            sleep(LOOK);
        }
    }
}

/// Has the collector confirm the records `first` to `last`, or take them as far as can be known: then
/// this returns the next connection, which it has accepted.
fn confirm(
    sending: Sending,
    (first, last): (u64, u64),
    to: &Collector,
    said: &mut Said,
) -> io::Result<Option<Sending>> {
    match sending.connection.finish()? {
        Ending::Confirmed => {
            said.handle_confirmation();
            Ok(None)
        }
        Ending::Silent if said.handle_silence(to, first, last) => Sending::start(to).map(Some),
        Ending::Silent => Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the collector closed without TLS's close_notify, so it may not have read all",
        )),
    }
}

struct Sending {
    connection: Connection,
    buffer: Vec<u8>,
    records: u64,
    since: Instant,
}

impl Sending {
    fn start(to: &Collector) -> io::Result<Self> {
        Ok(Self {
            connection: to.connect()?,
            buffer: Vec::new(),
            records: 0,
            since: Instant::now(),
        })
    }

    fn is_due(&self, within: Duration) -> bool {
        self.records >= CONFIRM_RECORDS || self.since.elapsed() >= within
    }
}
