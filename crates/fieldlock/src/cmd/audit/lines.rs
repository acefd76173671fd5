//! The lines of a log, also while it grows and is continued in another file.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Complete lines; an incomplete one at the end waits for the rest of it.
pub(super) struct Lines {
    log: BufReader<File>,
    position: u64,
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            log: BufReader::new(File::open(path)?),
            position: 0,
            partial: Vec::new(),
        })
    }

    pub(super) fn open_near_end(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut lines = Self::open(path)?;
        let length = lines.log.get_ref().metadata()?.len();
        if length > bytes {
            lines.position = lines.log.seek(SeekFrom::Start(length - bytes))?;
            // The rest of the line that the position fell into.
            lines.next()?;
        }
        Ok(lines)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<String>> {
        self.position += self.log.read_until(b'\n', &mut self.partial)? as u64;
        if self.partial.pop_if(|byte| *byte == b'\n').is_none() {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        Ok(Some(line))
    }

    /// The agent cuts a torn end when it starts, and goes on in a new file where the old one is
    /// closed or gone. Returns what was left in the old one.
    pub(super) fn reopen_if_replaced(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let ours = self.log.get_ref().metadata()?;
        if ours.len() < self.position {
            self.position = self.log.seek(SeekFrom::Start(ours.len()))?;
            self.partial.clear();
        }
        let mut rest = Vec::new();
        let there = std::fs::metadata(path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino())) {
            // Nothing is written there any more.
            while let Some(line) = self.next()? {
                rest.push(line);
            }
            *self = Self::open(path)?;
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use fieldlock_audit::FILE_NAME;

    use super::*;

    #[test]
    fn an_unfinished_line_waits_for_its_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, "one\ntw").unwrap();
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.next().unwrap().as_deref(), Some("one"));
        assert_eq!(lines.next().unwrap(), None);
        let mut log = File::options().append(true).open(&path).unwrap();
        log.write_all(b"o\nthree\n").unwrap();
        assert_eq!(lines.next().unwrap().as_deref(), Some("two"));
        assert_eq!(lines.next().unwrap().as_deref(), Some("three"));

        log.write_all(b"closing\n").unwrap();
        std::fs::rename(&path, dir.path().join("closed")).unwrap();
        std::fs::write(&path, "anew\n").unwrap();
        assert_eq!(lines.reopen_if_replaced(&path).unwrap(), ["closing"]);
        assert_eq!(lines.reopen_if_replaced(&path).unwrap(), [""; 0]);
        assert_eq!(lines.next().unwrap().as_deref(), Some("anew"));
    }
}
