//! The log in the forms of collectors: to a writer, or to a collector over TLS.
//!
//! Syslog acknowledges nothing, so a connection is closed in good order every now and then: what the
//! collector took until then is done with, and the cursor moves on. After a broken connection all since
//! the cursor is sent again.

mod collector;
mod cursor;
mod source;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fieldlock_audit::export::{cef, syslog};
use fieldlock_audit::{Filter, Record};
use fieldlock_tls::words;

pub use collector::{Collector, CollectorError};
use collector::{Connection, Ending};
pub use cursor::{Cursor, CursorError};
use source::{Entry, Source};
pub use source::{Oddity, SourceError};

/// How often the log is looked at for more.
const LOOK: Duration = Duration::from_millis(200);

/// How many records may be sent and not confirmed.
const CONFIRM_RECORDS: u64 = 10_000;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is exported, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    pub form: Form,
    pub filter: Filter,
    /// Go on with records as they come.
    pub follow: bool,
    /// How long records may be sent before a collector has to confirm them.
    pub confirm: Duration,
}

/// The form of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it stands in the log.
    Jsonl,
    /// ArcSight's Common Event Format.
    Cef,
    /// RFC 5424, with the record in it.
    Syslog,
}

impl Form {
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

/// What a person should know while an export goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// Of the log.
    Log(&'a Oddity),
    /// The collector is not reached, or broke off: all since the record `done` is sent again. It had
    /// been sent up to `reached`.
    Down {
        why: &'a str,
        done: u64,
        reached: u64,
    },
    /// It is reached again.
    Up,
    /// The collector closes without TLS's close_notify, so nothing says what it has read. These
    /// records were sent twice, and count as taken.
    NeverConfirms { first: u64, last: u64 },
}

/// Why an export ended.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error(transparent)]
    Output(io::Error),
    #[error(
        "{to}: records {first} to {last} were sent and never confirmed: it closes without TLS's \
         close_notify"
    )]
    Unconfirmed { to: String, first: u64, last: u64 },
}

/// Writes the records after the cursor to `out`, a line each.
///
/// # Errors
/// The log can't be read, `out` not written, or the cursor not kept.
pub fn write(
    log: &Path,
    plan: &Plan,
    mut cursor: Cursor,
    mut out: impl Write,
    mut notify: impl FnMut(Notice<'_>),
) -> Result<(), ExportError> {
    let mut source = Source::open(log, cursor.seq())?;
    let mut text = Vec::new();
    loop {
        while let Some(entry) = source.next().map_err(SourceError::Read)? {
            match entry {
                Entry::Record(record, line) if plan.filter.matches(&record) => {
                    text.clear();
                    plan.form.write(&record, &line, &mut text);
                    text.push(b'\n');
                    out.write_all(&text).map_err(ExportError::Output)?;
                }
                Entry::Record(..) => {}
                Entry::Oddity(oddity) => notify(Notice::Log(&oddity)),
            }
        }
        out.flush().map_err(ExportError::Output)?;
        cursor.store(source.position())?;
        if !plan.follow {
            return Ok(());
        }
        sleep(LOOK);
    }
}

/// Sends the records after the cursor to a collector, for as long as it takes.
///
/// # Errors
/// The log can't be read or the cursor not kept; or all was sent, and some of it never confirmed.
pub fn send(
    log: &Path,
    plan: &Plan,
    cursor: Cursor,
    to: &Collector,
    notify: impl FnMut(Notice<'_>),
) -> Result<(), ExportError> {
    let mut sender = Sender {
        plan,
        cursor,
        to,
        silence: Silence::default(),
        down: None,
        notify,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let mut source = Source::open(log, sender.cursor.seq())?;
        match sender.attempt(&mut source) {
            Ok(()) => return sender.silence.into_result(to),
            Err(Stopped::Here(error)) => return Err(error),
            Err(Stopped::Collector { error, progressed }) => {
                if progressed {
                    pause = FIRST_PAUSE;
                }
                sender.handle_broken(&error, source.position());
            }
        }
        sleep(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

struct Sender<'a, N> {
    plan: &'a Plan,
    cursor: Cursor,
    to: &'a Collector,
    silence: Silence,
    /// What is wrong with the collector, as it was told last.
    down: Option<String>,
    notify: N,
}

impl<N: FnMut(Notice<'_>)> Sender<'_, N> {
    /// Sends all there is over connections in turn, until there is no more or one breaks.
    fn attempt(&mut self, source: &mut Source) -> Result<(), Stopped> {
        let mut progressed = false;
        let mut open: Option<Sending> = None;
        loop {
            let broken = |error| Stopped::Collector { error, progressed };
            let next = match source.next().map_err(SourceError::Read)? {
                Some(Entry::Oddity(oddity)) => {
                    (self.notify)(Notice::Log(&oddity));
                    continue;
                }
                Some(Entry::Record(record, line)) => Some((record, line)),
                None => None,
            };
            if let Some((record, line)) = &next
                && self.plan.filter.matches(record)
            {
                let sending = match &mut open {
                    Some(sending) => sending,
                    None => open.insert(Sending::start(self.to).map_err(broken)?),
                };
                sending.send(self.plan.form, record, line).map_err(broken)?;
            }
            let ends = next.is_none() && !self.plan.follow;
            let confirm = self.plan.confirm;
            if ends || open.as_ref().is_some_and(|open| open.is_due(confirm)) {
                if let Some(sending) = open.take() {
                    let sent = (self.cursor.seq() + 1, source.position());
                    open = self.confirm(sending, sent).map_err(broken)?;
                    if self.down.take().is_some() {
                        (self.notify)(Notice::Up);
                    }
                    progressed = true;
                }
                self.cursor.store(source.position())?;
            }
            if ends {
                return Ok(());
            }
            if next.is_none() {
                let broken = |error| Stopped::Collector { error, progressed };
                if let Some(sending) = &mut open {
                    sending.connection.flush().map_err(broken)?;
                }
                sleep(LOOK);
            }
        }
    }

    /// Has the collector confirm the records `first` to `last`, or take them as far as can be known:
    /// then this returns the next connection, which it has accepted.
    fn confirm(
        &mut self,
        sending: Sending,
        (first, last): (u64, u64),
    ) -> io::Result<Option<Sending>> {
        match sending.connection.finish()? {
            Ending::Confirmed => {
                self.silence = Silence::default();
                return Ok(None);
            }
            Ending::Silent => {}
        }
        match self.silence.handle(first, last) {
            Taken::Unknown => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the collector closed without TLS's close_notify, so it may not have read all",
            )),
            Taken::AfterRepeat => {
                (self.notify)(Notice::NeverConfirms { first, last });
                Sending::start(self.to).map(Some)
            }
            Taken::AsBefore => Sending::start(self.to).map(Some),
        }
    }

    /// Tells of it, unless it was told last.
    fn handle_broken(&mut self, error: &io::Error, reached: u64) {
        let why = words::io_error(error);
        if self.down.as_deref() == Some(&*why) {
            return;
        }
        let done = self.cursor.seq();
        (self.notify)(Notice::Down {
            why: &why,
            done,
            reached,
        });
        self.down = Some(why.into_owned());
    }
}

/// Connections that the collector ended without a word, since it last confirmed anything.
#[derive(Debug, Default)]
struct Silence {
    /// The last record before the latest of them.
    after: Option<u64>,
    /// The records that count as taken.
    taken: Option<(u64, u64)>,
}

/// Whether what was sent before a silence counts as taken.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// The collector may have been ended just then: it is sent again.
    Unknown,
    /// It has done so before after the same records, so it always does.
    AfterRepeat,
    AsBefore,
}

impl Silence {
    /// The collector went away without a word after records `first` to `last`.
    fn handle(&mut self, first: u64, last: u64) -> Taken {
        let again = self
            .after
            .replace(last)
            .is_some_and(|before| before >= first);
        let taken = match (self.taken, again) {
            (Some(_), _) => Taken::AsBefore,
            (None, true) => Taken::AfterRepeat,
            (None, false) => return Taken::Unknown,
        };
        let begin = self.taken.map_or(first, |(begin, _)| begin);
        self.taken = Some((begin, last));
        taken
    }

    fn into_result(self, to: &Collector) -> Result<(), ExportError> {
        match self.taken {
            None => Ok(()),
            Some((first, last)) => Err(ExportError::Unconfirmed {
                to: to.to_string(),
                first,
                last,
            }),
        }
    }
}

/// Why sending does not go on.
enum Stopped {
    Here(ExportError),
    /// Whether the collector had confirmed something is in `progressed`.
    Collector {
        error: io::Error,
        progressed: bool,
    },
}

impl<T: Into<ExportError>> From<T> for Stopped {
    fn from(error: T) -> Self {
        Self::Here(error.into())
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

    fn send(&mut self, form: Form, record: &Record, line: &str) -> io::Result<()> {
        self.buffer.clear();
        form.frame(record, line, &mut self.buffer);
        self.records += 1;
        self.connection.send(&self.buffer)
    }

    fn is_due(&self, within: Duration) -> bool {
        self.records >= CONFIRM_RECORDS || self.since.elapsed() >= within
    }
}
