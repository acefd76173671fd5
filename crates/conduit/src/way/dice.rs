//! Chance, from one seed.

use std::ops::Range;
use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 0 to `sides` - 1.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.roll(100) < chance
    }

    /// In tenths: things that happen at one instant are rare, and do occur.
    pub(super) fn millis(&mut self, range: Range<u64>) -> Duration {
        let tenths = self.roll((range.end - range.start) * 10);
        Duration::from_millis(range.start) + Duration::from_micros(tenths * 100)
    }
}
