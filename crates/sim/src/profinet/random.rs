//! Numbers that look random and are the same for the same seed.

use super::rpc::Uuid;

/// SplitMix64.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Version 4, variant of RFC 9562.
    pub(super) fn uuid(&mut self) -> Uuid {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.next().to_be_bytes());
        octets[8..].copy_from_slice(&self.next().to_be_bytes());
        octets[6] = octets[6] & 0x0f | 0x40;
        octets[8] = octets[8] & 0x3f | 0x80;
        Uuid(octets)
    }
}
