//! `fieldlock audit query` and `tail`.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use fieldlock_audit::{FILE_NAME, Record, Snapshot, log_files};

use super::filter::Filter;
use super::lines::Lines;
use super::readable::print;

/// How often `tail -f` looks for more.
const FOLLOW: Duration = Duration::from_millis(200);

/// Where `tail` starts to read, for each record wanted, before the end. Hardly any record is
/// longer than a tenth of this.
const SEEK_PER_RECORD: u64 = 8 * 1024;

pub(super) fn query(log: &Path, filter: &Filter, json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (path, file) in Snapshot::of(log)?.into_files() {
        let mut lines = match file {
            // Dropped, as its limits say, since we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("warning: {} was dropped meanwhile", path.display());
                continue;
            }
            file => Lines::of(file?),
        };
        while let Some(line) = lines.next()? {
            match serde_json::from_str::<Record>(&line) {
                Ok(record) if filter.matches(&record) => print(&mut out, &line, &record, json)?,
                Ok(_) => {}
                Err(_) => eprintln!("warning: not an audit record: {line:?}"),
            }
        }
    }
    out.flush()
}

pub(super) fn tail(log: &Path, count: usize, follow: bool, json: bool) -> io::Result<()> {
    let mut files = log_files(log)?;
    // The last always exists: `log` itself, or the current file of its directory.
    let path = files.pop().unwrap_or_else(|| log.join(FILE_NAME));
    let near_end = |path: &Path| Lines::open_near_end(path, count as u64 * SEEK_PER_RECORD);
    let mut last = VecDeque::new();
    if let Some(closed) = files.pop() {
        keep_last(&mut near_end(&closed)?, &mut last, count)?;
    }
    let mut lines = near_end(&path)?;
    keep_last(&mut lines, &mut last, count)?;
    loop {
        let mut out = io::stdout().lock();
        for line in last.drain(..) {
            match serde_json::from_str::<Record>(&line) {
                Ok(record) => print(&mut out, &line, &record, json)?,
                Err(_) => eprintln!("warning: not an audit record: {line:?}"),
            }
        }
        out.flush()?;
        drop(out);
        if !follow {
            return Ok(());
        }
        std::thread::sleep(FOLLOW);
        last.extend(lines.reopen_if_replaced(&path)?);
        while let Some(line) = lines.next()? {
            last.push_back(line);
        }
    }
}

fn keep_last(lines: &mut Lines, last: &mut VecDeque<String>, count: usize) -> io::Result<()> {
    while let Some(line) = lines.next()? {
        last.push_back(line);
        if last.len() > count {
            last.pop_front();
        }
    }
    Ok(())
}
