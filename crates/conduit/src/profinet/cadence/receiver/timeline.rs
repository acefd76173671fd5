//! When frames were sent, as far as their arrival tells.

use std::time::Duration;

use crate::profinet::cadence::datagram::{Header, MAX_AGE};

/// Nanoseconds since the receiver began.
pub(super) type Nanos = i64;

/// A sequence that is further from the newest than this, in cycles, is that of a sender that
/// began anew.
const FAR: i64 = 16_384;
/// In this time a CycleCounter takes half of its values.
const HALF_WRAP: Nanos = 1_024_000_000;
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
    newest: Option<Newest>,
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

/// The newest frame that was received.
#[derive(Debug, Clone, Copy)]
struct Newest {
    at: Nanos,
    cycle_counter: u16,
    /// As received.
    raw: u32,
    /// Without wraps.
    sequence: i64,
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

    /// A datagram whose newest frame has this counter. `None`: it is late, from the sender before
    /// the one that began anew.
    pub(super) fn arrive(
        &mut self,
        now: Nanos,
        header: &Header,
        cycle_counter: u16,
    ) -> Option<Arrival> {
        let (sequence, restarted) = self.sequence(now, header.sequence, cycle_counter)?;
        let silent = self.arrived.is_some_and(|at| now - at > SILENCE);
        self.arrived = Some(now);
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
        Some(Arrival {
            sequence,
            born: now.saturating_sub(over),
            restarted,
        })
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

    fn sequence(&mut self, at: Nanos, raw: u32, cycle_counter: u16) -> Option<(i64, bool)> {
        let mut newest = Newest {
            at,
            cycle_counter,
            raw,
            sequence: 0,
        };
        let Some(last) = self.newest else {
            self.newest = Some(newest);
            return Some((0, false));
        };
        let ahead = ahead(last.raw, raw);
        let restarted = ahead.abs() > FAR;
        // Sequences of two senders do not tell which of them is the older; the provider does.
        let counted = cycle_counter.wrapping_sub(last.cycle_counter).cast_signed();
        if restarted && counted <= 0 && at - last.at < HALF_WRAP {
            return None;
        }
        newest.sequence = match restarted {
            // Room for the earlier frames that the datagram carries.
            true => last.sequence + i64::from(MAX_AGE) + 1,
            false => last.sequence + ahead,
        };
        if newest.sequence > last.sequence {
            self.newest = Some(newest);
        }
        Some((newest.sequence, restarted))
    }

    fn sent(&mut self, raw: u32) -> i64 {
        let sent = match self.sent {
            None => 0,
            Some((last_raw, last)) => last.saturating_add(ahead(last_raw, raw)),
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

/// From one number of a ring to another, the shorter way round.
fn ahead(from: u32, to: u32) -> i64 {
    to.wrapping_sub(from).cast_signed().into()
}

/// Of times that are short, or cut to 292 years.
pub(super) fn nanos(duration: Duration) -> Nanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
