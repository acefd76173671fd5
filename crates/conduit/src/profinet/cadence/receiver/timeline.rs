//! When frames were sent, as far as their arrival tells.

use std::time::Duration;

use crate::profinet::cadence::datagram::{Header, MAX_AGE};

/// Nanoseconds since the receiver began.
pub(super) type Nanos = i64;

/// A sequence that is further from the newest than this, in cycles, is that of a sender that
/// began anew.
const FAR: i64 = 16_384;
/// After such a silence clocks may have drifted, or wrapped, by more than can be told.
const SILENCE: Nanos = 60_000_000_000;
/// So many frames in a row behind their slots: the way has become longer for good.
const BEHIND: u32 = 16;
/// A floor rises by 1 in 2000 (500 ppm) of the time: more than two crystals drift apart (200 ppm
/// at worst), little against what jitter hides.
const RISE: i64 = 2_000;

/// Follows the sender's clock and the provider's cadence through the jitter of the way.
#[derive(Debug)]
pub(super) struct Timeline {
    cycle: Nanos,
    play_out: Nanos,
    arrived: Option<Nanos>,
    /// The newest sequence, as received and without wraps.
    newest: Option<(u32, i64)>,
    /// The last time of sending, as received and without wraps, in microseconds.
    sent: Option<(u32, i64)>,
    /// Of arrival - time of sending: the sender's clock, seen over the fastest way.
    clock: Floor,
    /// Of arrival - sequence x cycle: the provider's cadence, seen over the fastest way.
    cadence: Floor,
    behind: u32,
    /// The least excess over the cadence of those that are behind in a row.
    least: Nanos,
}

/// What a datagram's header says about its newest frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Without wraps.
    pub(super) sequence: i64,
    /// When it was sent, had the fastest way taken no time.
    pub(super) born: Nanos,
    /// The sender began anew: what waits is of another time.
    pub(super) restarted: bool,
}

impl Timeline {
    pub(super) fn new(cycle: Duration, play_out: Duration) -> Self {
        Self {
            cycle: nanos(cycle),
            play_out: nanos(play_out),
            arrived: None,
            newest: None,
            sent: None,
            clock: Floor::default(),
            cadence: Floor::default(),
            behind: 0,
            least: 0,
        }
    }

    pub(super) fn arrive(&mut self, now: Nanos, header: &Header) -> Arrival {
        let silent = self.arrived.is_some_and(|at| now - at > SILENCE);
        self.arrived = Some(now);
        let (sequence, restarted) = self.sequence(header.sequence);
        if restarted || silent {
            self.sent = None;
            self.clock = Floor::default();
            self.cadence = Floor::default();
            self.behind = 0;
        }
        let sent = self.sent(header.sent).saturating_mul(1_000);
        let over = self.clock.sample(now, now.saturating_sub(sent));
        let in_cadence = sequence.saturating_mul(self.cycle);
        let late = self.cadence.sample(now, now.saturating_sub(in_cadence));
        self.follow(late);
        Arrival {
            sequence,
            born: now.saturating_sub(over),
            restarted,
        }
    }

    /// When a frame is to be given out, by its provider's cadence. Never later than the play-out
    /// delay after it, or a newer one, arrived.
    pub(super) fn slot(&self, sequence: i64) -> Nanos {
        self.cadence
            .value
            .unwrap_or(0)
            .saturating_add(sequence.saturating_mul(self.cycle))
            .saturating_add(self.play_out)
    }

    fn sequence(&mut self, raw: u32) -> (i64, bool) {
        let Some((last_raw, last)) = self.newest else {
            self.newest = Some((raw, 0));
            return (0, false);
        };
        // The shorter way round the ring.
        let ahead = i64::from(raw.wrapping_sub(last_raw).cast_signed());
        let restarted = ahead.abs() > FAR;
        let sequence = match restarted {
            // Room for the earlier frames that the datagram carries.
            true => last + i64::from(MAX_AGE) + 1,
            false => last + ahead,
        };
        if sequence > last {
            self.newest = Some((raw, sequence));
        }
        (sequence, restarted)
    }

    fn sent(&mut self, raw: u32) -> i64 {
        let sent = match self.sent {
            None => 0,
            Some((last_raw, last)) => {
                last.saturating_add(raw.wrapping_sub(last_raw).cast_signed().into())
            }
        };
        self.sent = Some((raw, sent));
        sent
    }

    /// Where a frame is `late` after the fastest that was seen: takes up a way that stays longer,
    /// or a provider that paused, at once rather than as slowly as a drift.
    fn follow(&mut self, late: Nanos) {
        if late <= self.play_out {
            self.behind = 0;
            return;
        }
        self.least = match self.behind {
            0 => late,
            _ => self.least.min(late),
        };
        self.behind += 1;
        if self.behind >= BEHIND {
            self.cadence.raise(self.least);
            self.behind = 0;
        }
    }
}

/// The least of what was seen, slowly rising so that it follows a drift.
#[derive(Debug, Default)]
struct Floor {
    value: Option<Nanos>,
    at: Nanos,
}

impl Floor {
    /// By how much a sample is above the floor.
    fn sample(&mut self, now: Nanos, sample: Nanos) -> Nanos {
        let risen = self
            .value
            .map_or(sample, |value| value.saturating_add((now - self.at) / RISE));
        let value = risen.min(sample);
        self.value = Some(value);
        self.at = now;
        sample.saturating_sub(value)
    }

    fn raise(&mut self, by: Nanos) {
        self.value = self.value.map(|value| value.saturating_add(by));
    }
}

/// Of times that are short, or cut to 292 years.
pub(super) fn nanos(duration: Duration) -> Nanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
