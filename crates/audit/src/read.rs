//! Which reads that were answered go on record.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::{Duration, Instant};

/// Different reads told apart at a time, at about 50 bytes each. With more of them the filter
/// begins anew: some are recorded once more than they need be, none is left out.
const MAX_KEYS: usize = 16_384;

/// Reads are many: a poller makes millions a day, all alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reads {
    /// None.
    #[default]
    Off,
    /// Each.
    All,
    /// One whose answer differs from the answer before to the same client and question.
    Changed,
    /// Of those alike (client, device, unit, function, address) one in so much time.
    Sampled(Duration),
}

/// Decides by what was seen before, without allocating for a read that it knows.
#[derive(Debug, Default)]
pub struct ReadFilter {
    reads: Reads,
    hasher: RandomState,
    seen: HashMap<u64, Seen>,
}

#[derive(Debug)]
struct Seen {
    recorded: Instant,
    /// Reads since.
    more: u64,
    answer: u64,
}

impl ReadFilter {
    pub fn new(reads: Reads) -> Self {
        Self {
            reads,
            ..Self::default()
        }
    }

    pub fn reads(&self) -> Reads {
        self.reads
    }

    /// Takes a read with its `answer`; `key` is what makes it alike to others. If it goes on
    /// record, for how many reads its record stands: itself and those before that did not.
    pub fn handle_read(&mut self, now: Instant, key: impl Hash, answer: &[u8]) -> Option<u64> {
        match self.reads {
            Reads::Off => return None,
            Reads::All => return Some(1),
            Reads::Changed | Reads::Sampled(_) => {}
        }
        let key = self.hasher.hash_one(key);
        let answer = match self.reads {
            Reads::Changed => self.hasher.hash_one(answer),
            _ => 0,
        };
        let Some(seen) = self.seen.get_mut(&key) else {
            if self.seen.len() >= MAX_KEYS {
                self.seen.clear();
            }
            let seen = Seen {
                recorded: now,
                more: 0,
                answer,
            };
            self.seen.insert(key, seen);
            return Some(1);
        };
        seen.more += 1;
        let due = match self.reads {
            Reads::Sampled(every) => now.duration_since(seen.recorded) >= every,
            _ => seen.answer != answer,
        };
        due.then(|| {
            seen.recorded = now;
            seen.answer = answer;
            std::mem::take(&mut seen.more)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_stands_for_those_before_it() {
        let mut filter = ReadFilter::new(Reads::Sampled(Duration::from_secs(60)));
        let start = Instant::now();
        let mut counted = 0;
        let mut records = 0;
        for second in 0..=180 {
            let now = start + Duration::from_secs(second);
            if let Some(count) = filter.handle_read(now, "hmi-1 reads 0-9", &[]) {
                counted += count;
                records += 1;
            }
            let other = filter.handle_read(now, ("historian", second), &[]);
            assert_eq!(other, Some(1));
        }
        assert_eq!((counted, records), (181, 4));
    }

    #[test]
    fn only_another_answer_is_a_change() {
        let mut filter = ReadFilter::new(Reads::Changed);
        let now = Instant::now();
        let mut read = |answer: &[u8]| filter.handle_read(now, "level", answer);
        assert_eq!(read(&[0, 1]), Some(1));
        assert_eq!(read(&[0, 1]), None);
        assert_eq!(read(&[0, 1]), None);
        assert_eq!(read(&[0, 2]), Some(3));
        assert_eq!(read(&[0, 1]), Some(1));
    }

    #[test]
    fn all_and_off_remember_nothing() {
        let now = Instant::now();
        for (reads, expected) in [(Reads::All, Some(1)), (Reads::Off, None)] {
            let mut filter = ReadFilter::new(reads);
            for _ in 0..10 {
                assert_eq!(filter.handle_read(now, "level", &[]), expected);
            }
            assert!(filter.seen.is_empty());
        }
    }

    #[test]
    fn a_scan_of_everything_stays_bounded() {
        let mut filter = ReadFilter::new(Reads::Changed);
        let now = Instant::now();
        for address in 0..3 * MAX_KEYS {
            assert_eq!(filter.handle_read(now, address, &[]), Some(1));
            assert!(filter.seen.len() <= MAX_KEYS);
        }
    }
}
