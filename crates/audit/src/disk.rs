//! The log's files: private, exclusively ours, bounded, and noticed when they go away.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::clock::Stamp;
use crate::error::JournalError;
use crate::record::Head;
use crate::recover::{Recovered, Scan};
use crate::segment::{self, FILE_NAME, Limits, Segment, WhenFull};

/// A torn end can be no longer than what is written between two syncs; more is no torn end but
/// a file that is not ours or badly damaged, and cutting it would destroy evidence.
const MAX_TORN: u64 = 64 * 1024 * 1024;

/// What the journal writes to. Its tests make one that fails.
pub(crate) trait Disk: Send {
    /// Appends all of `bytes`, or an error with the end of the file in doubt.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// After an error: makes `length` bytes the whole file again, or starts another file where
    /// this one is gone. Returns the length from which writing goes on.
    fn rewind(&mut self, length: u64) -> io::Result<u64>;
    /// After a sync: closes the file and begins the next where a limit says so; whether it did.
    fn rotate(&mut self, now: SystemTime) -> io::Result<bool>;
    /// Whether the log has used half of what it may, where nothing is dropped.
    fn is_filling(&self) -> bool;
    /// Closed files that have to go, oldest first. By a clock that is known to be wrong none is
    /// too old.
    fn surplus(&self, now: Stamp) -> Vec<Head>;
    /// Deletes one of these.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

#[derive(Debug)]
pub(crate) struct LogFile {
    /// Locked as long as we write here, whatever the file is called by then.
    dir: File,
    path: PathBuf,
    file: File,
    limits: Limits,
    length: u64,
    /// When the first record was written.
    begun: Option<SystemTime>,
    /// Of the closed files.
    closed: u64,
}

impl LogFile {
    /// Opens or creates the log in `dir`, reads what an earlier run left and cuts a torn end.
    pub(crate) fn open(dir: &Path, limits: Limits) -> Result<(Self, Recovered), JournalError> {
        let path = dir.join(FILE_NAME);
        let (dir, file) = lock(&path)?;
        let mut log = Self {
            dir,
            path,
            file,
            limits,
            length: 0,
            begun: None,
            closed: 0,
        };
        let recovered = log.recover()?;
        Ok((log, recovered))
    }

    /// Length of the current file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    fn recover(&mut self) -> Result<Recovered, JournalError> {
        let at = |source| io_error(&self.path, source);
        let mut scan = Scan::new();
        let closed = segment::segments(self.folder()).map_err(at)?;
        // A write that was under way when this file was closed may have ended in the next.
        if let Some(last) = closed.last() {
            let file = File::open(&last.path).map_err(|source| io_error(&last.path, source))?;
            scan.file(buffered(&file)).map_err(at)?;
        }
        let begun = scan.file(buffered(&self.file)).map_err(at)?;
        let recovered = scan.finish();
        let mut length = self.file.metadata().map_err(at)?.len();
        if let Some(torn) = recovered.torn {
            if torn.bytes > MAX_TORN {
                return Err(JournalError::Damaged {
                    path: self.path.clone(),
                    at: torn.at,
                    bytes: torn.bytes,
                });
            }
            self.file.set_len(torn.at).map_err(at)?;
            self.file.sync_all().map_err(at)?;
            length = torn.at;
        }
        self.closed = total(&closed);
        (self.length, self.begun) = (length, begun);
        Ok(recovered)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Fails when the path no longer leads to our file: what we write then nobody can read.
    fn check_in_place(&self) -> io::Result<()> {
        let (ours, there) = (self.file.metadata()?, fs::metadata(&self.path)?);
        if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            Ok(())
        } else {
            Err(io::Error::other("another file took the log's place"))
        }
    }

    fn check_room(&self, more: usize) -> io::Result<()> {
        let wanted = self.closed + self.length + more as u64;
        if self.limits.when_full == WhenFull::DropOldest || wanted <= self.limits.max_bytes {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "it has reached max_size and when_full is \"stop\": \
                 move closed files (audit-N.jsonl) out of {}",
                self.folder().display()
            ),
        ))
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let old = self.begun.is_some_and(|begun| {
            now.duration_since(begun)
                .is_ok_and(|age| age >= self.limits.segment_age)
        });
        self.length >= self.limits.segment_bytes || (old && self.length > 0)
    }
}

impl Disk for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_room(bytes.len())?;
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.check_in_place()
    }

    fn rewind(&mut self, length: u64) -> io::Result<u64> {
        if self.check_in_place().is_ok() {
            self.file.set_len(length)?;
            self.length = length;
        } else {
            (self.dir, self.file) = relock(&self.path, &self.dir).map_err(io::Error::other)?;
            self.length = self.file.metadata()?.len();
            self.begun = None;
        }
        // Closed files may have been moved away to make room.
        self.closed = total(&segment::segments(self.folder())?);
        Ok(self.length)
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<bool> {
        if self.begun.is_none() && self.length > 0 {
            self.begun = Some(now);
        }
        if !self.is_due(now) {
            return Ok(false);
        }
        let name = segment::name_of(segment::first_record(&self.file)?);
        let closed = self.folder().join(&name);
        if closed.exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{name} is in the way: move it out of the log's directory"),
            ));
        }
        fs::rename(&self.path, &closed)?;
        self.file = open(&self.path)?;
        self.dir.sync_all()?;
        self.closed += self.length;
        (self.length, self.begun) = (0, None);
        Ok(true)
    }

    fn is_filling(&self) -> bool {
        self.limits.when_full == WhenFull::Stop
            && self.closed + self.length >= self.limits.max_bytes / 2
    }

    fn surplus(&self, now: Stamp) -> Vec<Head> {
        let closed = segment::segments(self.folder()).unwrap_or_default();
        let mut total = total(&closed) + self.limits.segment_bytes;
        let mut surplus = Vec::new();
        let keep = self.limits.keep.filter(|_| now.system.is_none());
        // Records were written in their order: one that is dated before those that came before it
        // was dated by a clock that was behind.
        let mut latest = SystemTime::UNIX_EPOCH;
        for segment in closed {
            let expired = keep.is_some_and(|keep| {
                let written = segment.last_written().unwrap_or(now.time);
                latest = latest.max(written);
                now.time.duration_since(latest).is_ok_and(|age| age > keep)
            });
            let full =
                total > self.limits.max_bytes && self.limits.when_full == WhenFull::DropOldest;
            if !(expired || full) {
                break;
            }
            total -= segment.bytes;
            // One that can't be read can't be accounted for, and stays.
            surplus.extend(segment.head());
        }
        surplus
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let path = self.folder().join(name);
        let bytes = fs::metadata(&path)?.len();
        fs::remove_file(path)?;
        self.closed = self.closed.saturating_sub(bytes);
        Ok(())
    }
}

fn total(closed: &[Segment]) -> u64 {
    closed.iter().map(|segment| segment.bytes).sum()
}

fn buffered(file: &File) -> BufReader<&File> {
    BufReader::with_capacity(64 * 1024, file)
}

/// Opens the log for appending, with nobody else writing in its directory until that is closed.
fn lock(path: &Path) -> Result<(File, File), JournalError> {
    let at = |source| io_error(path, source);
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(at)?;
    let dir = File::open(folder).map_err(at)?;
    match dir.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(JournalError::Locked {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(at(source)),
    }
    let file = open(path).map_err(at)?;
    // The file's name must survive a power cut as well as its content.
    dir.sync_all().map_err(at)?;
    Ok((dir, file))
}

/// The same after the file, or its whole directory, was replaced.
fn relock(path: &Path, dir: &File) -> Result<(File, File), JournalError> {
    let at = |source| io_error(path, source);
    let folder = path.parent().unwrap_or(Path::new("."));
    let ours = dir.metadata().map_err(at)?;
    let still_ours = fs::metadata(folder)
        .is_ok_and(|there| (ours.dev(), ours.ino()) == (there.dev(), there.ino()));
    if !still_ours {
        return lock(path);
    }
    let file = open(path).map_err(at)?;
    dir.sync_all().map_err(at)?;
    Ok((dir.try_clone().map_err(at)?, file))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        path: path.to_owned(),
        source,
    }
}
