//! What a simulator measured.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Which side ended an AR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Controller,
    Device,
}

/// An AR that ended other than by Release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    pub at: Instant,
    /// Who sent the ERR-RTA or failed to answer.
    pub side: Side,
    /// PNIOStatus: 0xCF81FDxx, the refusal of a call, or 0 for no answer at all.
    pub status: u32,
}

/// Durations in microseconds, 1 us to an hour, three significant digits.
#[derive(Debug, Clone)]
pub struct Durations(Histogram<u64>);

impl Durations {
    fn new() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the bounds are constants that hdrhistogram takes"
        )]
        Self(Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds"))
    }

    pub(super) fn record(&mut self, duration: Duration) {
        self.0.saturating_record(duration.as_micros() as u64);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Zero when nothing was recorded; `share` is 0.0 to 1.0.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    pub fn min(&self) -> Duration {
        Duration::from_micros(self.0.min())
    }

    /// The whole distribution, in microseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

/// Cyclic frames that one side consumed, over all its ARs.
#[derive(Debug, Clone)]
pub struct Consumed {
    /// Accepted: they fed the watchdog.
    pub accepted: u64,
    /// Accepted with the sequence number of an earlier frame: somebody repeated the data.
    pub repeated: u64,
    /// Discarded by the window of the cycle counter, their counter other than the last one's.
    pub old: u64,
    /// Discarded: the cycle counter of the last accepted frame again.
    pub duplicate: u64,
    /// Discarded: shorter than the IOCR's DataLength with its trailer.
    pub short: u64,
    /// Discarded: transfer status not 0.
    pub transfer: u64,
    /// Discarded: DataStatus says invalid or ignore.
    pub invalid: u64,
    /// Accepted, with data that its provider calls bad, or in state STOP.
    pub bad: u64,
    /// Accepted with data that carries no stamp, or not what was sent.
    pub altered: u64,
    /// Age of data at each accepted frame with a stamp, repeated ones included.
    pub age: Durations,
    /// Between accepted frames.
    pub gap: Durations,
}

impl Consumed {
    fn new() -> Self {
        Self {
            accepted: 0,
            repeated: 0,
            old: 0,
            duplicate: 0,
            short: 0,
            transfer: 0,
            invalid: 0,
            bad: 0,
            altered: 0,
            age: Durations::new(),
            gap: Durations::new(),
        }
    }
}

/// What happened when a watchdog expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailSafe {
    /// The consumer went to substitute values.
    pub at: Instant,
    /// Since the last accepted frame: the watchdog, and what the timer was late.
    pub since_accepted: Duration,
    /// Age, at this moment, of the newest data that was ever consumed. What bounds the danger of a
    /// hold: at most its limit plus the watchdog.
    pub age: Duration,
}

/// Sums over the life of a simulator. Times up to now are in [`Stats::up`].
#[derive(Debug, Clone)]
pub struct Stats {
    /// ARs that reached the state of data exchange.
    pub established: u64,
    /// Of them, those after the first: of the same controller, for a device.
    pub reconnects: u64,
    /// ARs that ended by Release.
    pub released: u64,
    /// All aborts; the first thousand are in `abort_log`.
    pub aborts: u64,
    pub abort_log: Vec<Abort>,
    /// From abort to data exchange.
    pub reconnect: Durations,
    pub consumed: Consumed,
    /// Cyclic frames sent.
    pub sent: u64,
    /// Cycles without a frame, since the timer came a cycle or more late.
    pub skipped: u64,
    /// Expired watchdogs: time since the last accepted frame, and age of the data by then.
    pub fail_safe: Durations,
    pub fail_safe_age: Durations,
    pub last_fail_safe: Option<FailSafe>,
    /// Alarms sent and acknowledged by the other's application.
    pub alarms_acknowledged: u64,
    pub alarms_received: u64,
    /// Repeated RTA and RPC packets.
    pub retransmits: u64,
    /// Frames that waited for the wire in vain.
    pub dropped: u64,
    up: Duration,
    up_since: Option<Instant>,
    down_since: Option<Instant>,
}

impl Stats {
    const ABORT_LOG: usize = 1000;

    pub(super) fn new() -> Self {
        Self {
            established: 0,
            reconnects: 0,
            released: 0,
            aborts: 0,
            abort_log: Vec::new(),
            reconnect: Durations::new(),
            consumed: Consumed::new(),
            sent: 0,
            skipped: 0,
            fail_safe: Durations::new(),
            fail_safe_age: Durations::new(),
            last_fail_safe: None,
            alarms_acknowledged: 0,
            alarms_received: 0,
            retransmits: 0,
            dropped: 0,
            up: Duration::ZERO,
            up_since: None,
            down_since: None,
        }
    }

    /// How long data was exchanged with at least one peer.
    pub fn up(&self, now: Instant) -> Duration {
        self.up
            + self
                .up_since
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    pub(super) fn established(&mut self, now: Instant) {
        self.established += 1;
        if self.established > 1 {
            self.reconnects += 1;
        }
        if let Some(since) = self.down_since.take() {
            self.reconnect.record(now.saturating_duration_since(since));
        }
        self.up_since.get_or_insert(now);
    }

    /// No AR exchanges data any more.
    pub(super) fn down(&mut self, now: Instant) {
        if let Some(since) = self.up_since.take() {
            self.up += now.saturating_duration_since(since);
        }
    }

    pub(super) fn aborted(&mut self, abort: Abort) {
        self.aborts += 1;
        if self.established > 0 {
            self.down_since.get_or_insert(abort.at);
        }
        if self.abort_log.len() < Self::ABORT_LOG {
            self.abort_log.push(abort);
        }
    }

    pub(super) fn fail_safe(&mut self, event: FailSafe) {
        self.fail_safe.record(event.since_accepted);
        self.fail_safe_age.record(event.age);
        self.last_fail_safe = Some(event);
    }
}
