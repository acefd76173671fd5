//! Numbers that are the same on every run of a seed.

/// SplitMix64 (Steele, Lea and Flood, 2014): good enough to drop packets.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Evenly spread over 0.0 (in) to 1.0 (out).
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn happens(&mut self, share: f64) -> bool {
        self.share() < share
    }
}

/// The seed of one of many streams that belong to `seed`: a direction, a client.
pub fn derive(seed: u64, stream: u64) -> u64 {
    mix(mix(seed).wrapping_add(STEP.wrapping_mul(stream.wrapping_add(1))))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_its_streams_differ() {
        let first = |seed| Random::seeded(seed).next();
        assert_eq!(first(7), first(7));
        let mut seen: Vec<u64> = (0..100).map(|stream| first(derive(7, stream))).collect();
        seen.push(first(7));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 101);
    }

    #[test]
    fn shares_are_spread_evenly() {
        let mut random = Random::seeded(1);
        let sum: f64 = (0..100_000).map(|_| random.share()).sum();
        assert!((49_500.0..50_500.0).contains(&sum), "{sum}");
        assert!(!random.happens(0.0));
        assert!(random.happens(1.0));
    }
}
