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
}

impl Source {
    /// From the record after `position` on.
    pub(super) fn open(log: &Path, position: u64) -> io::Result<Self> {
        let at = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("audit log {}: {error}", log.display()),
            )
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
        })
    }

    /// The last record that was returned.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next record, or none while there is no more.
    pub(super) fn next(&mut self) -> io::Result<Option<(Record, String)>> {
        while let Some(line) = self.next_line()? {
            let Ok(record) = serde_json::from_str::<Record>(&line) else {
                eprintln!("warning: not an audit record: {line:?}");
                continue;
            };
            if record.seq <= self.position {
                continue;
            }
            if record.seq > self.position + 1 && self.position > 0 {
                eprintln!(
                    "warning: the records {} to {} are not in the log any more",
                    self.position + 1,
                    record.seq - 1
                );
            }
            self.position = record.seq;
            return Ok(Some((record, line)));
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
fn check_end(path: &Path, closed: &VecDeque<PathBuf>, position: u64) -> io::Result<()> {
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
        Some(last) if last < position => Err(io::Error::other(format!(
            "the log ends with record {last}, but the cursor is at {position}: the log was begun \
             anew, or its end cut off; remove the cursor file to begin with its first record"
        ))),
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
            .map(|(record, _)| record.seq)
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
}
