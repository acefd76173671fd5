//! The log's file: private, exclusively ours, and noticed when it goes away.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::journal::JournalError;
use crate::recover::{self, Recovered};

/// The log's name in its directory.
pub const FILE_NAME: &str = "audit.jsonl";

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
}

#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens or creates the log in `dir`, reads what an earlier run left and cuts a torn end.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Recovered, u64), JournalError> {
        let path = dir.join(FILE_NAME);
        let file = lock(&path)?;
        let log = Self { path, file };
        let (recovered, length) = log.recover()?;
        Ok((log, recovered, length))
    }

    fn recover(&self) -> Result<(Recovered, u64), JournalError> {
        let at = |source| io_error(&self.path, source);
        let recovered =
            recover::scan(BufReader::with_capacity(64 * 1024, &self.file)).map_err(at)?;
        let Some(torn) = recovered.torn else {
            let length = self.file.metadata().map_err(at)?.len();
            return Ok((recovered, length));
        };
        if torn.bytes > MAX_TORN {
            return Err(JournalError::Damaged {
                path: self.path.clone(),
                at: torn.at,
                bytes: torn.bytes,
            });
        }
        self.file.set_len(torn.at).map_err(at)?;
        self.file.sync_all().map_err(at)?;
        Ok((recovered, torn.at))
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
}

impl Disk for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.check_in_place()
    }

    fn rewind(&mut self, length: u64) -> io::Result<u64> {
        if self.check_in_place().is_ok() {
            self.file.set_len(length)?;
            return Ok(length);
        }
        self.file = lock(&self.path).map_err(io::Error::other)?;
        Ok(self.file.metadata()?.len())
    }
}

/// Opens the log for appending, with nobody else writing it until it is closed.
fn lock(path: &Path) -> Result<File, JournalError> {
    let at = |source| io_error(path, source);
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(at)?;
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(at)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(JournalError::Locked {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(at(source)),
    }
    // The file's name must survive a power cut as well as its content.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at)?;
    Ok(file)
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        path: path.to_owned(),
        source,
    }
}
