//! What the simulators put into process data, so that the consumer measures its age.

use std::time::{Duration, Instant};

/// Octets of a [`Stamp`]: sequence number (4), time of sending (8), big-endian.
pub const STAMP: usize = 12;

/// The front of the data of the first submodule that has room for it; the octets behind it
/// are made from the sequence number, so that altered data is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Counts the frames of a provider, from 0 for each AR.
    pub sequence: u32,
    /// Nanoseconds since the epoch that both simulators were given.
    pub sent: u64,
}

impl Stamp {
    pub(super) fn put(self, data: &mut [u8]) {
        let Some((head, rest)) = data.split_at_mut_checked(STAMP) else {
            return;
        };
        head[..4].copy_from_slice(&self.sequence.to_be_bytes());
        head[4..].copy_from_slice(&self.sent.to_be_bytes());
        rest.fill(self.filler());
    }

    /// None when the data is too short, or not what [`Stamp::put`] wrote.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let (sequence, rest) = data.split_first_chunk()?;
        let (sent, rest) = rest.split_first_chunk()?;
        let stamp = Self {
            sequence: u32::from_be_bytes(*sequence),
            sent: u64::from_be_bytes(*sent),
        };
        let filler = stamp.filler();
        rest.iter().all(|&octet| octet == filler).then_some(stamp)
    }

    fn filler(self) -> u8 {
        (self.sequence ^ 0x5a) as u8
    }
}

/// The clock of stamps: nanoseconds since an epoch. Two simulators measure age exactly when they
/// share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    pub epoch: Instant,
}

impl Clock {
    pub(super) fn nanos(self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// Age at `now` of what was sent at `sent`; zero for what comes from the future.
    pub(super) fn age(self, sent: u64, now: Instant) -> Duration {
        Duration::from_nanos(self.nanos(now).saturating_sub(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_altered_octet_is_noticed() {
        let stamp = Stamp {
            sequence: 7,
            sent: 1 << 40,
        };
        let mut data = [0; 16];
        stamp.put(&mut data);
        assert_eq!(Stamp::read(&data), Some(stamp));
        data[13] ^= 1;
        assert_eq!(Stamp::read(&data), None);
        assert_eq!(Stamp::read(&data[..11]), None);
    }
}
