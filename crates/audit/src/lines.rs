//! The lines of a log, also while it grows and is continued in another file.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::segment::{Segment, segments};

/// Complete lines; an incomplete one at the end waits for the rest of it.
#[derive(Debug)]
pub struct Lines {
    log: BufReader<File>,
    position: u64,
    partial: Vec<u8>,
}

impl Lines {
    /// Of the file at `path`, from its beginning.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self::of)
    }

    /// Of a file that is open, from where it stands.
    pub fn of(file: File) -> Self {
        Self {
            log: BufReader::new(file),
            position: 0,
            partial: Vec::new(),
        }
    }

    /// Of the file at `path`, from the first line within its last `bytes`.
    ///
    /// # Errors
    /// It can't be opened or read.
    pub fn open_near_end(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut lines = Self::open(path)?;
        let length = lines.log.get_ref().metadata()?.len();
        if length > bytes {
            lines.position = lines.log.seek(SeekFrom::Start(length - bytes))?;
            // The rest of the line that the position fell into.
            lines.next()?;
        }
        Ok(lines)
    }

    /// The next complete line, or none while there is no more.
    ///
    /// # Errors
    /// The file can't be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "after none there may be more, and it can fail"
    )]
    pub fn next(&mut self) -> io::Result<Option<String>> {
        self.position += self.log.read_until(b'\n', &mut self.partial)? as u64;
        if self.partial.pop_if(|byte| *byte == b'\n').is_none() {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        Ok(Some(line))
    }

    fn read_all(&mut self, lines: &mut Vec<String>) -> io::Result<()> {
        while let Some(line) = self.next()? {
            lines.push(line);
        }
        Ok(())
    }

    /// The agent cuts a torn end when it starts, and goes on in a new file where the old one is
    /// closed or gone. Returns what was left in the old one, and all since.
    ///
    /// # Errors
    /// A file of the log can't be read.
    pub fn reopen_if_replaced(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let ours = self.log.get_ref().metadata()?;
        if ours.len() < self.position {
            self.position = self.log.seek(SeekFrom::Start(ours.len()))?;
            self.partial.clear();
        }
        let mut rest = Vec::new();
        let there = std::fs::metadata(path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino())) {
            let mut current = Self::open(path)?;
            // Nothing is written there any more, nor into those closed since.
            self.read_all(&mut rest)?;
            let newest = current.log.get_ref().metadata()?.ino();
            let folder = path.parent().unwrap_or(Path::new("."));
            let closed = segments(folder)?;
            let inode =
                |segment: &Segment| std::fs::metadata(&segment.path).map(|there| there.ino());
            let after = closed
                .iter()
                .skip_while(|segment| inode(segment).is_ok_and(|inode| inode != ours.ino()))
                .skip(1)
                .take_while(|segment| inode(segment).is_ok_and(|inode| inode != newest));
            for segment in after {
                Self::open(&segment.path)?.read_all(&mut rest)?;
            }
            current.read_all(&mut rest)?;
            *self = current;
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::segment::FILE_NAME;

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

        // Closed, as was the next one before we looked.
        log.write_all(b"four\n").unwrap();
        std::fs::rename(&path, dir.path().join("audit-00000000000000000001.jsonl")).unwrap();
        std::fs::write(
            dir.path().join("audit-00000000000000000005.jsonl"),
            "five\n",
        )
        .unwrap();
        std::fs::write(&path, "six\n").unwrap();
        let rest = lines.reopen_if_replaced(&path).unwrap();
        assert_eq!(rest, ["four", "five", "six"]);
        assert_eq!(lines.reopen_if_replaced(&path).unwrap(), [""; 0]);
    }
}
