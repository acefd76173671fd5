//! How far an export came, over restarts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The last record that is done with. Without a file it is forgotten at the end.
#[derive(Debug)]
pub(super) struct Cursor {
    file: Option<PathBuf>,
    seq: u64,
}

impl Cursor {
    /// From `file`; one that does not exist yet is at the beginning.
    pub(super) fn load(file: Option<&Path>) -> io::Result<Self> {
        let seq = match file.map(fs::read_to_string) {
            None => 0,
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => 0,
            Some(text) => {
                let path = file.unwrap_or(Path::new("")).display();
                let text = text.map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: {error}"))
                })?;
                text.trim().parse().map_err(|_| {
                    let message = format!(
                        "{path}: not the cursor of an export: a single number is expected; \
                         remove the file to begin with the first record"
                    );
                    io::Error::new(io::ErrorKind::InvalidInput, message)
                })?
            }
        };
        Ok(Self {
            file: file.map(Path::to_owned),
            seq,
        })
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// On the disk when it returns, whole or not at all.
    pub(super) fn store(&mut self, seq: u64) -> io::Result<()> {
        if seq == self.seq {
            return Ok(());
        }
        self.seq = seq;
        let Some(path) = &self.file else {
            return Ok(());
        };
        let at =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut name = path.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut file = File::create(&new).map_err(at)?;
        writeln!(file, "{seq}").map_err(at)?;
        file.sync_all().map_err(at)?;
        fs::rename(&new, path).map_err(at)
    }
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
        let error = Cursor::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("export.cursor"), "{error}");
    }
}
