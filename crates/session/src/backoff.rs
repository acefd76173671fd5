//! Jittered exponential backoff.

use std::time::Duration;

/// Delays that double from `first` to `max`, each shortened by up to a half at random, so
/// that many agents that lost one peer don't come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    seed: u64,
}

impl Backoff {
    /// `seed` is any number that differs between agents.
    pub fn new(first: Duration, max: Duration, seed: u64) -> Self {
        Self {
            first,
            max,
            next: first,
            seed: seed | 1,
        }
    }

    /// The delay before the next try.
    pub fn delay(&mut self) -> Duration {
        let base = self.next;
        self.next = (self.next * 2).min(self.max);
        // xorshift64: spread is all that is asked of it.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let share = (self.seed >> 48) as u32;
        base - (base / 2) * share / 0xffff
    }

    /// Starts again from the first delay.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_spread() {
        let (first, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, max, 42);
        let mut seen = Vec::new();
        for expected in [50, 100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.delay();
            let base = Duration::from_millis(expected);
            assert!(delay <= base && delay >= base / 2, "{delay:?} for {base:?}");
            seen.push(delay);
        }
        assert_ne!(seen[5], seen[6]);
        backoff.reset();
        assert!(backoff.delay() <= first);
    }
}
