//! Files of a CA: private, complete or absent, and on the disk when the call returns.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An operation on a file or directory failed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}", path = path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub error: io::Error,
}

/// Creates `path` with mode 0600; an existing file is an error.
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<(), FileError> {
    at(path, || {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(content)?;
        file.sync_all()?;
        sync_parent(path)
    })
}

/// Puts `content` at `path` in one step, whatever stood there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let temporary = path.with_extension("tmp");
    at(path, || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    })
}

/// Reads a text of at most `limit` octets.
pub(crate) fn read(path: &Path, limit: u64) -> Result<String, FileError> {
    let octets = read_octets(path, limit)?;
    at(path, || {
        String::from_utf8(octets).map_err(|_| io::Error::other("not a text in UTF-8"))
    })
}

/// Reads at most `limit` octets; a longer file is an error.
pub(crate) fn read_octets(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    at(path, || {
        let mut octets = Vec::new();
        File::open(path)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut octets)?;
        if octets.len() as u64 > limit {
            return Err(io::Error::other(format!(
                "longer than the {limit} octets that are read"
            )));
        }
        Ok(octets)
    })
}

/// Makes a directory that only its owner may enter, and its parents.
pub(crate) fn make_directory(path: &Path) -> Result<(), FileError> {
    at(path, || {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    })
}

pub(crate) fn at<T>(
    path: &Path,
    operation: impl FnOnce() -> io::Result<T>,
) -> Result<T, FileError> {
    operation().map_err(|error| FileError {
        path: path.to_owned(),
        error,
    })
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
