//! `fieldlock audit query` and `tail`.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use fieldlock_audit::export::csv;
use fieldlock_audit::{FILE_NAME, Filter, Lines, Record, Snapshot, log_files};

use super::readable::{Form, print};

/// How often `tail -f` looks for more.
const FOLLOW: Duration = Duration::from_millis(200);

/// Where `tail` starts to read, for each record wanted, before the end. Hardly any record is
/// longer than a tenth of this.
const SEEK_PER_RECORD: u64 = 8 * 1024;

/// Prints what matches, of more than `limit` the last.
pub(super) fn query(
    log: &Path,
    filter: &Filter,
    form: Form,
    limit: Option<usize>,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if form == Form::Csv {
        writeln!(out, "{}", csv::header())?;
    }
    let (mut last, mut found) = (VecDeque::new(), 0_u64);
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
                Ok(record) if filter.matches(&record) => {
                    found += 1;
                    let Some(limit) = limit else {
                        print(&mut out, &line, &record, form)?;
                        continue;
                    };
                    last.push_back((line, record));
                    if last.len() > limit {
                        last.pop_front();
                    }
                }
                Ok(_) => {}
                Err(_) => eprintln!("warning: not an audit record: {line:?}"),
            }
        }
    }
    for (line, record) in &last {
        print(&mut out, line, record, form)?;
    }
    out.flush()?;
    if let Some(limit) = limit
        && found > limit as u64
    {
        eprintln!("note: the last {limit} of {found} records");
    }
    Ok(())
}

pub(super) fn tail(log: &Path, count: usize, follow: bool, form: Form) -> io::Result<()> {
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
                Ok(record) => print(&mut out, &line, &record, form)?,
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
