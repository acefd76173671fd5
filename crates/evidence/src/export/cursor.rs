//! How far an export came, over restarts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The last record that is done with. Without a file it is forgotten at the end.
#[derive(Debug)]
pub struct Cursor {
    file: Option<PathBuf>,
    seq: u64,
}

impl Cursor {
    /// From `file`; one that does not exist yet is at the beginning.
    ///
    /// # Errors
    /// The file can't be read, or is not a cursor.
    pub fn load(file: Option<&Path>) -> Result<Self, CursorError> {
        let Some(path) = file else {
            return Ok(Self { file: None, seq: 0 });
        };
        let seq = match fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(|_| CursorError::Content {
                path: path.to_owned(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => {
                return Err(CursorError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Ok(Self {
            file: Some(path.to_owned()),
            seq,
        })
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// On the disk when it returns, whole or not at all.
    pub(super) fn store(&mut self, seq: u64) -> Result<(), CursorError> {
        if seq == self.seq {
            return Ok(());
        }
        self.seq = seq;
        let Some(path) = &self.file else {
            return Ok(());
        };
        replace(path, seq).map_err(|source| CursorError::Write {
            path: path.clone(),
            source,
        })
    }
}

fn replace(path: &Path, seq: u64) -> io::Result<()> {
    let mut name = path.to_owned().into_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    writeln!(file, "{seq}")?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// What is wrong with the cursor's file.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    #[error("{path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path}: not the cursor of an export: a single number is expected; remove the file to begin \
         with the first record",
        path = .path.display()
    )]
    Content { path: PathBuf },
    #[error("{path}: {source}", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_outlasts_its_process_and_nonsense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export.cursor");
        let mut cursor = Cursor::load(Some(&path)).unwrap();
        assert_eq!(cursor.seq(), 0);
        cursor.store(42).unwrap();
        assert_eq!(Cursor::load(Some(&path)).unwrap().seq(), 42);
        fs::write(&path, "{}").unwrap();
        let error = Cursor::load(Some(&path)).unwrap_err();
        assert!(matches!(error, CursorError::Content { .. }), "{error}");
        assert!(error.to_string().contains("export.cursor"), "{error}");
    }

    #[test]
    fn a_cursor_that_has_no_place_is_an_error_and_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let error = Cursor::load(Some(dir.path())).unwrap_err();
        assert!(matches!(error, CursorError::Read { .. }), "{error}");
        let missing = dir.path().join("missing/export.cursor");
        let error = Cursor::load(Some(&missing)).unwrap().store(1).unwrap_err();
        assert!(matches!(error, CursorError::Write { .. }), "{error}");
        let mut forgotten = Cursor::load(None).unwrap();
        forgotten.store(7).unwrap();
        assert_eq!(forgotten.seq(), 7);
    }
}
