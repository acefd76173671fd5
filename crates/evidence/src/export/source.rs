//! The records of a log after a given one, in order, through all of its files and as it grows.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use fieldlock_audit::{FILE_NAME, Lines, Record, Snapshot, segments};

#[derive(Debug)]
pub(super) struct Source {
    /// Closed files that are still to be read.
    closed: VecDeque<PathBuf>,
    reading: Option<Lines>,
    current: Lines,
    path: PathBuf,
    /// Lines of files that were closed while the current one was read.
    rest: VecDeque<String>,
    position: u64,
    /// The record after a gap that was told.
    after_gap: Option<(Box<Record>, String)>,
}

/// What a log holds.
#[derive(Debug)]
pub(super) enum Entry {
    /// With its line.
    Record(Box<Record>, String),
    Oddity(Oddity),
}

/// What a person should know of a log, while it is read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Oddity {
    #[error("not an audit record: {line:?}")]
    NoRecord { line: String },
    #[error("the records {first} to {last} are not in the log any more")]
    Gap { first: u64, last: u64 },
}

/// Why a log can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("audit log {path}: {source}", path = .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is another log than it was.
    #[error(
        "the log ends with record {last}, but the cursor is at {position}: the log was begun anew, or \
         its end cut off; remove the cursor file to begin with its first record"
    )]
    Shorter { last: u64, position: u64 },
}

impl Source {
    /// From the record after `position` on.
    pub(super) fn open(log: &Path, position: u64) -> Result<Self, SourceError> {
        let at = |source| SourceError::Open {
            path: log.to_owned(),
            source,
        };
        let files = Snapshot::of(log).map_err(at)?;
        let (last, current) = files.last;
        // Where an agent that does not run left closed files alone, it begins this one.
        let path = match log.is_dir() {
            true => log.join(FILE_NAME),
            false => last,
        };
        let current = Lines::of(current);
        let mut closed: VecDeque<_> = files.closed.into();
        if log.is_dir() {
            let firsts: Vec<_> = segments(log).map_err(at)?.iter().map(|s| s.first).collect();
            let done = firsts
                .iter()
                .skip(1)
                .filter(|first| **first <= position + 1);
            closed.drain(..done.count().min(closed.len()));
        }
        check_end(&path, &closed, position)?;
        Ok(Self {
            closed,
            reading: None,
            current,
            path,
            rest: VecDeque::new(),
            position,
            after_gap: None,
        })
    }

    /// The last record that was returned.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next record or oddity, or none while there is no more.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        if let Some((record, line)) = self.after_gap.take() {
            self.position = record.seq;
            return Ok(Some(Entry::Record(record, line)));
        }
        while let Some(line) = self.next_line()? {
            let Ok(record) = serde_json::from_str::<Box<Record>>(&line) else {
                return Ok(Some(Entry::Oddity(Oddity::NoRecord { line })));
            };
            if record.seq <= self.position {
                continue;
            }
            if record.seq > self.position + 1 && self.position > 0 {
                let (first, last) = (self.position + 1, record.seq - 1);
                self.after_gap = Some((record, line));
                return Ok(Some(Entry::Oddity(Oddity::Gap { first, last })));
            }
            self.position = record.seq;
            return Ok(Some(Entry::Record(record, line)));
        }
        Ok(None)
    }

    fn next_line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(lines) = &mut self.reading {
                if let Some(line) = lines.next()? {
                    return Ok(Some(line));
                }
                self.reading = None;
            }
            let Some(file) = self.closed.pop_front() else {
                break;
            };
            match Lines::open(&file) {
                Ok(lines) => self.reading = Some(lines),
                // Dropped, as the log's limits say: the gap is told by the next record.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(line) = self.rest.pop_front() {
            return Ok(Some(line));
        }
        if let Some(line) = self.current.next()? {
            return Ok(Some(line));
        }
        self.rest
            .extend(self.current.reopen_if_replaced(&self.path)?);
        match self.rest.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.current.next(),
        }
    }
}

/// A log that ends before the cursor is another one than it was.
fn check_end(path: &Path, closed: &VecDeque<PathBuf>, position: u64) -> Result<(), SourceError> {
    let mut last = None;
    for file in closed
        .back()
        .into_iter()
        .map(PathBuf::as_path)
        .chain([path])
    {
        let mut lines = Lines::open_near_end(file, 256 * 1024)?;
        while let Some(line) = lines.next()? {
            let seq = serde_json::from_str::<Record>(&line).map(|record| record.seq);
            last = last.max(seq.ok());
        }
    }
    match last {
        Some(last) if last < position => Err(SourceError::Shorter { last, position }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(seq: u64) -> String {
        format!("{{\"v\":1,\"seq\":{seq},\"kind\":\"denied\"}}\n")
    }

    fn lines(seqs: std::ops::RangeInclusive<u64>) -> String {
        seqs.map(line).collect()
    }

    fn read(source: &mut Source) -> Vec<u64> {
        std::iter::from_fn(|| source.next().unwrap())
            .filter_map(|entry| match entry {
                Entry::Record(record, _) => Some(record.seq),
                Entry::Oddity(_) => None,
            })
            .collect()
    }

    #[test]
    fn it_reads_on_from_any_record_through_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = |first: u64| dir.path().join(format!("audit-{first:020}.jsonl"));
        fs::write(file(1), lines(1..=3)).unwrap();
        fs::write(file(4), lines(4..=6)).unwrap();
        let current = dir.path().join(FILE_NAME);
        fs::write(&current, lines(7..=8)).unwrap();
        for position in 0..=8 {
            let mut source = Source::open(dir.path(), position).unwrap();
            let expected: Vec<u64> = (position + 1..=8).collect();
            assert_eq!(read(&mut source), expected, "after {position}");
        }
        let error = Source::open(dir.path(), 9).unwrap_err().to_string();
        assert!(error.contains("ends with record 8"), "{error}");

        let mut source = Source::open(dir.path(), 8).unwrap();
        assert!(read(&mut source).is_empty());
        let log = fs::read_to_string(&current).unwrap() + &line(9);
        fs::write(file(7), log).unwrap();
        fs::remove_file(&current).unwrap();
        fs::write(&current, line(10)).unwrap();
        assert_eq!(read(&mut source), [10]);
    }

    #[test]
    fn gaps_and_nonsense_are_told_before_the_record_after_them() {
        let dir = tempfile::tempdir().unwrap();
        let current = dir.path().join(FILE_NAME);
        fs::write(&current, lines(1..=2) + "nonsense\n" + &line(5)).unwrap();
        let mut source = Source::open(dir.path(), 1).unwrap();
        let mut told = Vec::new();
        while let Some(entry) = source.next().unwrap() {
            told.push(match entry {
                Entry::Record(record, _) => record.seq.to_string(),
                Entry::Oddity(oddity) => oddity.to_string(),
            });
        }
        let gap = "the records 3 to 4 are not in the log any more";
        assert_eq!(told, ["2", "not an audit record: \"nonsense\"", gap, "5"]);
        assert_eq!(source.position(), 5);
    }

    #[test]
    fn a_log_that_is_not_there_is_named() {
        let error = Source::open(Path::new("/nonexistent/audit"), 0).unwrap_err();
        assert!(matches!(error, SourceError::Open { .. }), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("audit log /nonexistent/audit")
        );
    }
}
