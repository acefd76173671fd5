//! So many of something in a minute.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Quota {
    most: u32,
    /// When this minute began, and how many there were.
    minute: Cell<Option<(Instant, u32)>>,
}

impl Quota {
    pub fn per_minute(most: u32) -> Self {
        Self {
            most,
            minute: Cell::default(),
        }
    }

    /// Whether there may be one more.
    pub fn take(&self, now: Instant) -> bool {
        let (begun, count) = match self.minute.get() {
            Some((begun, count)) if now.saturating_duration_since(begun) < MINUTE => (begun, count),
            _ => (now, 0),
        };
        let left = count < self.most;
        self.minute.set(Some((begun, count + u32::from(left))));
        left
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_in_a_minute_and_then_again() {
        let quota = Quota::per_minute(2);
        let now = Instant::now();
        let took: Vec<bool> = (0..3).map(|_| quota.take(now)).collect();
        assert_eq!(took, [true, true, false]);
        assert!(!quota.take(now + MINUTE - Duration::from_millis(1)));
        assert!(quota.take(now + MINUTE));
    }
}
