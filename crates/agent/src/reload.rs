//! When files are to be read again: on SIGHUP, and when they change.
//!
//! Changes are found by looking twice a second: that works on every file system, through
//! links, and for editors and package managers that rename files into place.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

const LOOK: Duration = Duration::from_millis(500);

/// Identity, size and time of a file; `None` while it is missing.
type Stamp = Option<(u64, u64, i64, i64)>;

#[derive(Debug)]
pub struct Watch {
    files: Vec<(PathBuf, Stamp)>,
    hangup: Signal,
    tick: tokio::time::Interval,
}

/// Which files to read again.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    All,
    Files(Vec<PathBuf>),
}

impl Changed {
    pub fn includes(&self, file: &Path) -> bool {
        match self {
            Self::All => true,
            Self::Files(files) => files.iter().any(|changed| changed.starts_with(file)),
        }
    }
}

impl Watch {
    pub fn new(files: Vec<PathBuf>) -> std::io::Result<Self> {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let files = files.into_iter().map(|file| {
            let stamp = stamp(&file);
            (file, stamp)
        });
        Ok(Self {
            files: files.collect(),
            hangup: signal(SignalKind::hangup())?,
            tick,
        })
    }

    /// Watches these files from here on; those known already keep what was seen of them.
    pub fn follow(&mut self, files: Vec<PathBuf>) {
        let known = std::mem::take(&mut self.files);
        let watched = files.into_iter().map(|file| {
            let seen = known.iter().find(|(path, _)| *path == file);
            seen.cloned().unwrap_or_else(|| {
                let stamp = stamp(&file);
                (file, stamp)
            })
        });
        self.files = watched.collect();
    }

    /// Waits until something is to be read again. A change is reported one look after it
    /// was seen first, so that a file is not read while it is being written.
    pub async fn changed(&mut self) -> Changed {
        let mut seen = Vec::new();
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.look();
                    return Changed::All;
                }
                _ = self.tick.tick() => {
                    let changed = self.look();
                    if changed.is_empty() && !seen.is_empty() {
                        return Changed::Files(seen);
                    }
                    seen.extend(changed);
                }
            }
        }
    }

    fn look(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (file, known) in &mut self.files {
            let current = stamp(file);
            if current != *known {
                *known = current;
                changed.push(file.clone());
            }
        }
        changed
    }
}

fn stamp(file: &Path) -> Stamp {
    let data = fs::metadata(file).ok()?;
    Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
}
