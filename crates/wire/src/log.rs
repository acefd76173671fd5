//! A line per packet, and the check that a seed decides the same again.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use fieldlock_testkit::link::{Decision, Link, Reason, derive};
use thiserror::Error;

use crate::carrier::Fate;
use crate::options::Options;
use crate::{Arguments, Failure};

/// Which direction of which client; a wire between two interfaces is one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) client: u64,
    /// 0: from A to B, from a client to the target. 1: back.
    pub(crate) direction: u8,
}

impl Stream {
    pub(crate) fn link(self, options: &Options, start: Instant) -> Link {
        let seed = derive(derive(options.seed, self.client), u64::from(self.direction));
        Link::new(options.impairment(), seed, start)
    }
}

const COLUMNS: &str = "number,nanoseconds,client,direction,length,decision,delay_nanoseconds";

/// Writes what was decided. Without a file it does nothing.
#[derive(Debug)]
pub(crate) struct Log {
    out: Option<BufWriter<File>>,
    start: Instant,
    number: u64,
}

impl Log {
    pub(crate) fn create(path: Option<&Path>, start: Instant) -> io::Result<Self> {
        let out = match path {
            Some(path) => {
                let mut out = BufWriter::new(File::create(path)?);
                let command: Vec<String> = std::env::args().skip(1).collect();
                writeln!(out, "# fieldlock-wire {}", command.join(" "))?;
                writeln!(out, "{COLUMNS}")?;
                Some(out)
            }
            None => None,
        };
        Ok(Self {
            out,
            start,
            number: 0,
        })
    }

    pub(crate) fn write(
        &mut self,
        now: Instant,
        stream: Stream,
        length: usize,
        fate: Fate,
    ) -> io::Result<()> {
        self.number += 1;
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        let Stream { client, direction } = stream;
        let (number, since) = (self.number, now.duration_since(self.start).as_nanos());
        write!(out, "{number},{since},{client},{direction},{length},")?;
        writeln!(out, "{}", Decided { fate, now })
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// The last two columns: `deliver`, `twice`, `deliver corrupt@17` or why not; and the delay.
struct Decided {
    fate: Fate,
    now: Instant,
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delivery = match self.fate {
            Fate::Delivered(delivery) => delivery,
            Fate::Lost(Reason::Loss) => return f.write_str("loss,"),
            Fate::Lost(Reason::Burst) => return f.write_str("burst,"),
            Fate::Lost(Reason::Cut) => return f.write_str("cut,"),
            Fate::Lost(Reason::Queue) => return f.write_str("queue,"),
            Fate::Overflow => return f.write_str("overflow,"),
        };
        f.write_str(if delivery.copies == 1 {
            "deliver"
        } else {
            "twice"
        })?;
        if let Some(at) = delivery.corrupt {
            write!(f, " corrupt@{at}")?;
        }
        write!(f, ",{}", delivery.at.duration_since(self.now).as_nanos())
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fieldlock-wire replay run.csv              the same decisions from the same seed
  fieldlock-wire replay run.csv > again.csv  and the lines once more")]
pub(crate) struct ReplayCommand {
    /// What --log of `tap` or `udp` has written.
    file: PathBuf,
}

/// Why a log does not replay.
#[derive(Debug, Error)]
enum ReplayError {
    #[error("{0} does not begin with `# fieldlock-wire tap|udp ...` and the names of the columns")]
    Head(PathBuf),
    #[error("{0}: the command line in its first line is not understood")]
    CommandLine(PathBuf, #[source] clap::Error),
    #[error("{file}, line {line}: not a packet: {COLUMNS}")]
    Line { file: PathBuf, line: usize },
    #[error("{file}, line {line}: decided otherwise: {again}")]
    Differs {
        file: PathBuf,
        line: usize,
        again: String,
    },
}

impl ReplayCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let file = || self.file.clone();
        let mut lines = BufReader::new(File::open(&self.file)?).lines();
        let head = lines.next().transpose()?.unwrap_or_default();
        let columns = lines.next().transpose()?.unwrap_or_default();
        let command = head.strip_prefix("# ").ok_or(ReplayError::Head(file()))?;
        if columns != COLUMNS {
            return Err(ReplayError::Head(file()).into());
        }
        let arguments = Arguments::try_parse_from(command.split(' '))
            .map_err(|error| ReplayError::CommandLine(file(), error))?;
        let options = arguments.options().ok_or(ReplayError::Head(file()))?;
        let mut replay = Replay::new(options);
        let mut out = io::stdout().lock();
        writeln!(out, "{head}\n{COLUMNS}")?;
        for (number, line) in lines.enumerate() {
            let (line, number) = (line?, number + 3);
            let again = replay.line(&line).ok_or_else(|| ReplayError::Line {
                file: file(),
                line: number,
            })?;
            writeln!(out, "{again}")?;
            if again != line {
                return Err(ReplayError::Differs {
                    file: file(),
                    line: number,
                    again,
                }
                .into());
            }
        }
        Ok(())
    }
}

/// Decides about logged packets as the run did.
struct Replay {
    options: Options,
    start: Instant,
    /// Few clients, and those of late most often.
    links: Vec<(Stream, Link)>,
}

impl Replay {
    fn new(options: Options) -> Self {
        Self {
            options,
            start: Instant::now(),
            links: Vec::new(),
        }
    }

    /// The line with its decision made anew; `None` when it is no packet.
    fn line(&mut self, line: &str) -> Option<String> {
        let mut columns = line.split(',');
        let mut next = || columns.next()?.parse::<u64>().ok();
        let (_, since, client, direction, length) = (next()?, next()?, next()?, next()?, next()?);
        let stream = Stream {
            client,
            direction: u8::try_from(direction).ok().filter(|it| *it <= 1)?,
        };
        let now = self.start.checked_add(Duration::from_nanos(since))?;
        let place = match self.links.iter().position(|(of, _)| *of == stream) {
            Some(place) => place,
            None => {
                let link = stream.link(&self.options, self.start);
                self.links.push((stream, link));
                self.links.len() - 1
            }
        };
        let (_, link) = self.links.get_mut(place)?;
        let fate = match link.handle(now, usize::try_from(length).ok()?) {
            Decision::Drop(reason) => Fate::Lost(reason),
            Decision::Deliver(delivery) => Fate::Delivered(delivery),
        };
        let mut packet = line.splitn(6, ',');
        let columns: Vec<&str> = packet.by_ref().take(5).collect();
        Some(format!("{},{}", columns.join(","), Decided { fate, now }))
    }
}
