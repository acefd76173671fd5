//! What time it is, as records carry it.

use std::fmt;
use std::time::SystemTime;

/// Tells the time on a machine whose system clock may be wrong. Asked from both threads.
pub trait Clock: fmt::Debug + Send + Sync {
    fn stamp(&self) -> Stamp;
}

/// A time for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub time: SystemTime,
    /// What the system clock says, where it is known to be wrong. `time` is then what the agent
    /// reckons, and nothing is deleted by age.
    pub system: Option<SystemTime>,
}

/// The system clock, believed whatever it says.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that is given as an argument"
    )]
    fn stamp(&self) -> Stamp {
        Stamp {
            time: SystemTime::now(),
            system: None,
        }
    }
}
