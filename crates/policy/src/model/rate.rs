//! How often a rule lets requests through.

use std::fmt;
use std::time::Duration;

/// `count` requests in every `seconds`, after at most `burst` at once. All are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    pub(crate) count: u32,
    pub(crate) seconds: u32,
    pub(crate) burst: u32,
}

impl Rate {
    /// A day, in seconds.
    pub(crate) const MAX_SECONDS: u32 = 86_400;
    /// Requests; with it the interval is at least a microsecond.
    pub(crate) const MAX_COUNT: u32 = 1_000_000;

    /// After how long one more request may pass.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.seconds.into()) / self.count.max(1)
    }

    /// How many requests pass in [`Rate::seconds`].
    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn seconds(&self) -> u32 {
        self.seconds
    }

    /// How many requests may pass at once after a pause.
    pub fn burst(&self) -> u32 {
        self.burst
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}s", self.count, self.seconds)?;
        match self.burst == self.count {
            true => Ok(()),
            false => write!(f, " and {} at once", self.burst),
        }
    }
}
