//! How old data was when it was given out.

use std::time::Duration;

/// Of each power of two.
const STEPS: usize = 8;
/// Up to 2^26 us, about a minute; older counts as that.
const OCTAVES: usize = 26;

/// A histogram of ages with buckets an eighth of a power of two wide: a percentile is at most
/// 12.5 % above the true one. 1 KiB, never more.
///
/// An age is counted from when the sender heard the frame, as if the fastest way through the
/// tunnel that was seen took no time: the one-way delay of that is not known, and comes on top.
#[derive(Debug, Clone)]
pub struct Ages {
    counts: [u32; STEPS * (OCTAVES - 2)],
    total: u64,
    max: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            counts: [0; STEPS * (OCTAVES - 2)],
            total: 0,
            max: Duration::ZERO,
        }
    }
}

impl Ages {
    pub(super) fn record(&mut self, age: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(age)) {
            *count = count.saturating_add(1);
        }
        self.total += 1;
        self.max = self.max.max(age);
    }

    /// The age that a share of all (0.0 to 1.0) does not exceed. Zero where nothing was recorded.
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = (share.clamp(0.0, 1.0) * self.total as f64).ceil() as u64;
        let mut below = 0;
        for (number, count) in self.counts.iter().enumerate() {
            below += u64::from(*count);
            if *count > 0 && below >= rank {
                return upper(number).min(self.max);
            }
        }
        self.max
    }

    pub fn max(&self) -> Duration {
        self.max
    }
}

/// Exact below 8 us; the last bucket takes all that is older.
fn bucket(age: Duration) -> usize {
    let micros = age.as_micros().min((1 << OCTAVES) - 1) as usize;
    match micros.checked_ilog2() {
        Some(octave) if octave >= 3 => {
            let shift = octave as usize - 3;
            STEPS * (shift + 1) + (micros >> shift) - STEPS
        }
        _ => micros,
    }
}

/// The oldest age of a bucket.
fn upper(number: usize) -> Duration {
    let micros = match number / STEPS {
        0 => number,
        octave => ((number % STEPS + STEPS + 1) << (octave - 1)) - 1,
    };
    Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_age_falls_into_a_bucket_that_is_not_wider_than_an_eighth() {
        let mut last = 0;
        let edges = (12..26).flat_map(|octave| {
            let edge = 1_u64 << octave;
            [edge - 1, edge, edge + 1]
        });
        for micros in (0..4_000).chain(edges) {
            let number = bucket(Duration::from_micros(micros));
            let most = upper(number).as_micros() as u64;
            assert!(number < STEPS * (OCTAVES - 2), "{micros}");
            assert!(
                (micros..=micros + micros / 8).contains(&most),
                "{micros}: {most}"
            );
            assert!(last <= number, "{micros}");
            assert!(micros >= 4_000 || number <= last + 1, "{micros}");
            last = number;
        }
        assert_eq!(bucket(Duration::MAX), STEPS * (OCTAVES - 2) - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut ages = Ages::default();
        assert_eq!(ages.percentile(0.5), Duration::ZERO);
        for millis in 1..=100 {
            ages.record(Duration::from_millis(millis));
        }
        let half = ages.percentile(0.5).as_micros();
        assert!((50_000..56_250).contains(&half), "{half}");
        assert_eq!(ages.percentile(1.0), Duration::from_millis(100));
        assert_eq!(ages.max(), Duration::from_millis(100));
    }
}
