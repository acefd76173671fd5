//! The files of a log: `audit.jsonl`, which grows, and the closed ones before it, each named
//! after its first record: `audit-00000000000000000001.jsonl`.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Deserialize;

use crate::chain::Hash;
use crate::record::{Head, Ticket};

/// The current file's name in its directory.
pub const FILE_NAME: &str = "audit.jsonl";

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
const DIGITS: usize = 20;

/// A line beyond this is no record of ours: the longest (1,968 coils) is under 6 KiB.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// How large a log may grow, and what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A file of this many bytes is closed and the next begun.
    pub segment_bytes: u64,
    /// So is one whose first record is older, when something is written.
    pub segment_age: Duration,
    /// For all files together.
    pub max_bytes: u64,
    /// Closed files whose last record is older are deleted.
    pub keep: Option<Duration>,
    pub when_full: WhenFull,
}

/// What happens at [`Limits::max_bytes`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The oldest closed file is deleted, and a record says so before.
    #[default]
    DropOldest,
    /// Nothing is deleted. The log counts as one that can't be written, until closed files are
    /// moved away.
    Stop,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 16 * 1024 * 1024,
            segment_age: Duration::from_secs(24 * 3600),
            max_bytes: 1024 * 1024 * 1024,
            keep: None,
            when_full: WhenFull::DropOldest,
        }
    }
}

/// A closed file of the log.
#[derive(Debug, Clone)]
pub struct Segment {
    /// `seq` of its first record.
    pub first: Ticket,
    pub path: PathBuf,
    pub bytes: u64,
}

/// The closed files in `dir`, oldest first.
pub fn segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(first) = name.to_str().and_then(first_of) else {
            continue;
        };
        let about = match entry.metadata() {
            // Dropped, as its limits say, since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            about => about?,
        };
        found.push(Segment {
            first,
            path: entry.path(),
            bytes: about.len(),
        });
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

/// All files of the log at `path`, in the order in which they were written: `path` itself where
/// it is a file, else what the directory holds.
pub fn log_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<_> = segments(path)?
        .into_iter()
        .map(|closed| closed.path)
        .collect();
    let current = path.join(FILE_NAME);
    if current.exists() || files.is_empty() {
        files.push(current);
    }
    Ok(files)
}

/// A log as it is at one moment, while its agent may go on to close and drop files.
#[derive(Debug)]
pub struct Snapshot {
    /// Files to read first, in this order.
    pub closed: Vec<PathBuf>,
    /// The last one, open: what it is called later does not matter.
    pub last: (PathBuf, File),
}

impl Snapshot {
    /// Of [`log_files`]: every record up to now, each once.
    pub fn of(path: &Path) -> io::Result<Self> {
        const ATTEMPTS: usize = 10;
        let mut attempt = 1;
        loop {
            let mut closed = log_files(path)?;
            let last = closed.pop().unwrap_or_else(|| path.join(FILE_NAME));
            let opened = File::open(&last);
            let again = log_files(path)?;
            // Unless a file was closed or dropped meanwhile.
            if attempt == ATTEMPTS || again.split_last() == Some((&last, &closed)) {
                let last = (last, opened?);
                return Ok(Self { closed, last });
            }
            attempt += 1;
        }
    }

    /// All files, each opened when its turn comes.
    pub fn into_files(self) -> impl Iterator<Item = (PathBuf, io::Result<File>)> {
        let closed = self.closed.into_iter().map(|path| {
            let file = File::open(&path);
            (path, file)
        });
        let (path, file) = self.last;
        closed.chain([(path, Ok(file))])
    }
}

pub(crate) fn name_of(first: Ticket) -> String {
    format!("{PREFIX}{first:0DIGITS$}{SUFFIX}")
}

fn first_of(name: &str) -> Option<Ticket> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

#[derive(Deserialize)]
struct Ends {
    seq: Ticket,
    #[serde(default)]
    hash: Hash,
    #[serde(default)]
    time: Option<String>,
}

/// `seq` of the first record of `file`.
pub(crate) fn first_record(file: &File) -> io::Result<Ticket> {
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file.take(MAX_LINE as u64)).read_until(b'\n', &mut line)?;
    let first: Ends = serde_json::from_slice(&line)?;
    Ok(first.seq)
}

impl Segment {
    /// The place of its last record.
    pub(crate) fn head(&self) -> io::Result<Head> {
        let last = self.end()?;
        Ok(Head {
            file: self
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into()),
            ..Head::new(last.seq, last.hash)
        })
    }

    /// When its last record was written, as that record says.
    pub(crate) fn last_written(&self) -> Option<SystemTime> {
        let time: Timestamp = self.end().ok()?.time?.parse().ok()?;
        SystemTime::try_from(time).ok()
    }

    fn end(&self) -> io::Result<Ends> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.bytes.saturating_sub(MAX_LINE as u64)))?;
        let mut end = Vec::new();
        file.take(MAX_LINE as u64).read_to_end(&mut end)?;
        let last = end.trim_ascii_end().rsplit(|&octet| octet == b'\n').next();
        Ok(serde_json::from_slice(last.unwrap_or_default())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_count() {
        assert_eq!(name_of(1), "audit-00000000000000000001.jsonl");
        assert_eq!(first_of(&name_of(77)), Some(77));
        assert_eq!(first_of(&name_of(u64::MAX)), Some(u64::MAX));
        for other in [
            "audit.jsonl",
            "audit-1.jsonl",
            "audit-+0000000000000000001.jsonl",
            "audit-00000000000000000001.jsonl.gz",
        ] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }

    #[test]
    fn files_come_in_the_order_of_their_records() {
        let dir = tempfile::tempdir().unwrap();
        for name in [&name_of(100), FILE_NAME, &name_of(9), "notes.txt"] {
            fs::write(dir.path().join(name), "{\"seq\":4}\n{\"seq\":7}\n").unwrap();
        }
        let files = log_files(dir.path()).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
        assert_eq!(names, [&name_of(9), &name_of(100), FILE_NAME]);
        assert_eq!(segments(dir.path()).unwrap()[0].head().unwrap().seq, 7);
        assert_eq!(first_record(&File::open(&files[0]).unwrap()).unwrap(), 4);
    }
}
