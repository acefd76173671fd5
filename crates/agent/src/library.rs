//! Warnings of libraries, which any peer can cause with each connection: all are counted, few shown.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One is shown within this time.
const EVERY: Duration = Duration::from_secs(60);

/// Of this process.
pub static WARNINGS: Warnings = Warnings::new();

#[derive(Debug)]
pub struct Warnings {
    count: AtomicU64,
    shown: Mutex<Option<Instant>>,
}

impl Warnings {
    const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            shown: Mutex::new(None),
        }
    }

    /// Takes a warning; whether it is to be shown.
    pub fn handle_warning(&self, now: Instant) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let due = shown.is_none_or(|at| now.saturating_duration_since(at) >= EVERY);
        if due {
            *shown = Some(now);
        }
        due
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_one_a_minute_is_shown() {
        let warnings = Warnings::new();
        let start = Instant::now();
        let shown = (0..600).filter(|second| {
            let now = start + Duration::from_secs(*second);
            warnings.handle_warning(now)
        });
        assert_eq!(shown.count(), 10);
        assert_eq!(warnings.count(), 600);
    }
}
