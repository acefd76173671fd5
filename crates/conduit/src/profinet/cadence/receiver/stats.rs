//! What a receiver has done so far.

use std::time::Duration;

use super::Refused;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Datagrams that were taken.
    pub datagrams: u64,
    /// Frames that left as they came.
    pub emitted: u64,
    /// Of these, those that came with a later one, since their own datagram did not in time.
    pub repaired: u64,
    /// Cycles of the provider that were missing when a later frame left.
    pub gaps: u64,
    /// Frames that came after a newer one had left.
    pub late: u64,
    /// Frames that were due at the same time as a newer one, which left.
    pub passed_over: u64,
    /// Frames that the consumer would take for old ones, by its window.
    pub old: u64,
    /// Frames whose data was older than the age limit of hold.
    pub stale: u64,
    /// Datagrams whose newest frame had come already.
    pub duplicates: u64,
    /// How often a sender began anew.
    pub restarts: u64,
    /// Repetitions that left.
    pub held: u64,
    /// The longest time from a frame to its last repetition.
    pub longest_hold: Duration,
    /// Datagrams that were refused: malformed.
    pub malformed: u64,
    /// Datagrams that were refused: of another stream.
    pub other_stream: u64,
    /// Datagrams that were refused: after the end.
    pub after_stop: u64,
}

impl Stats {
    pub(super) fn refuse(&mut self, refused: Refused) {
        match refused {
            Refused::Datagram(_) => self.malformed += 1,
            Refused::Stream(_) => self.other_stream += 1,
            Refused::Stopped(_) => self.after_stop += 1,
        }
    }
}
