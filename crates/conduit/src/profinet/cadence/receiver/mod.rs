//! The end that feeds the consumer.

mod ages;
mod config;
mod queue;
mod stats;
mod timeline;

use std::time::{Duration, Instant};

use fieldlock_profinet::cyclic::{DataStatus, is_newer};
use thiserror::Error;

use super::datagram::{Datagram, DatagramError, Frame, Stream};
pub use ages::Ages;
pub use config::{Config, ConfigError, Hold};
use queue::{Queue, Waiting};
pub use stats::Stats;
use timeline::{Nanos, Timeline, nanos};

/// Gives the frames of one provider to its consumer.
///
/// Input: [`Receiver::handle_datagram`]. Output: [`Receiver::poll_frame`] until it has none, after
/// each input and at [`Receiver::poll_timeout`]. `now` never decreases.
///
/// Frames leave in the provider's order, each at most once as it came, and each newer than the one
/// before by the consumer's window. Of several that are due at a time only the newest leaves:
/// those before it would feed no watchdog for longer and would be overwritten by it at once. A
/// frame that missed its slot leaves as soon as it is there, unless a newer one has left. One that
/// waits for its slot leaves before it where the watchdog would expire otherwise.
///
/// A repeated frame has a cycle counter one tick (31.25 us) above the frame before it. So it is
/// newer for the consumer, never ahead of the provider's own count, and the provider's next frame
/// is newer still, even if it comes late.
#[derive(Debug)]
pub struct Receiver {
    config: Config,
    origin: Instant,
    timeline: Timeline,
    queue: Queue,
    /// Which of the 128 sequences up to this one have come: bit 0 is the sequence itself.
    seen: (i64, u128),
    /// What left last, and by which counter.
    last: Option<Left>,
    /// The newest that was received lets its like be repeated.
    live: bool,
    round_trip: Option<Duration>,
    stopped: Option<Stop>,
    stats: Stats,
    ages: Ages,
}

#[derive(Debug)]
struct Left {
    frame: Waiting,
    /// Of the last frame that left, repeated or not.
    cycle_counter: u16,
    /// When the frame itself left.
    at: Nanos,
    /// When it, or its last repetition, left.
    fed: Nanos,
    /// When it would be repeated.
    again: Nanos,
}

/// A frame for the consumer, now.
#[derive(Debug, PartialEq, Eq)]
pub struct Emit<'a> {
    pub frame: Frame<'a>,
    /// A repetition: only its cycle counter is new.
    pub held: bool,
}

/// Why a receiver falls silent for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// The AR was released.
    Release,
    /// One of its stations aborted it.
    Abort,
    /// The tunnel is known to be gone.
    Tunnel,
    /// A policy no longer allows it.
    Policy,
}

/// Why a datagram is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    #[error(transparent)]
    Datagram(#[from] DatagramError),
    #[error("cyclic datagram of another stream: {0:?}")]
    Stream(Stream),
    #[error("cyclic datagram after the end of its AR: {0:?}")]
    Stopped(Stop),
}

impl Receiver {
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            origin: now,
            timeline: Timeline::new(config.cycle, config.play_out.unwrap_or_default()),
            queue: Queue::new(config.room()),
            seen: (0, 0),
            last: None,
            live: false,
            round_trip: None,
            stopped: None,
            stats: Stats::default(),
            ages: Ages::default(),
            config,
        })
    }

    /// See [`Config::fail_safe_bound`].
    pub fn fail_safe_bound(&self) -> Duration {
        self.config.fail_safe_bound()
    }

    /// A datagram of this stream.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Refused> {
        self.take(now, datagram)
            .inspect_err(|refused| self.stats.refuse(*refused))
    }

    /// A round trip of the tunnel. The longest one stands for the one-way delay of the fastest
    /// datagram, which no clock here can measure, when the age of data is held against its limit;
    /// before the first nothing is repeated.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = self.round_trip.max(Some(round_trip));
    }

    /// Silence from now on.
    pub fn stop(&mut self, reason: Stop) {
        self.stopped.get_or_insert(reason);
        self.queue.clear();
    }

    /// The frame that is to leave now.
    pub fn poll_frame(&mut self, now: Instant) -> Option<Emit<'_>> {
        if self.stopped.is_some() {
            return None;
        }
        let now = self.since(now);
        if self.next_frame(now) {
            let last = self.last.as_ref()?;
            return Some(Emit {
                frame: last.frame.frame(),
                held: false,
            });
        }
        let last = self.repeat(now)?;
        Some(Emit {
            frame: Frame {
                cycle_counter: last.cycle_counter,
                ..last.frame.frame()
            },
            held: true,
        })
    }

    /// When [`Receiver::poll_frame`] may have a frame if nothing arrives until then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped.is_some() {
            return None;
        }
        let frame = self.queue.first().map(|sequence| self.due(sequence));
        let again = self
            .may_repeat()
            .filter(|last| !self.is_stale(&last.frame, last.again))
            .map(|last| last.again);
        let at = frame.into_iter().chain(again).min()?;
        let at = Duration::from_nanos(u64::try_from(at).unwrap_or(0));
        self.origin.checked_add(at)
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How old data was when it left, repeated or not.
    pub fn ages(&self) -> &Ages {
        &self.ages
    }

    fn take(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Refused> {
        let datagram = Datagram::parse(bytes, self.config.data_length)?;
        let header = datagram.header;
        if header.stream != self.config.stream {
            return Err(Refused::Stream(header.stream));
        }
        if let Some(reason) = self.stopped {
            return Err(Refused::Stopped(reason));
        }
        self.stats.datagrams += 1;
        let now = self.since(now);
        let Some((_, newest)) = datagram.frames().next() else {
            return Ok(());
        };
        let Some(arrival) = self.timeline.arrive(now, &header, newest.cycle_counter) else {
            self.stats.late += 1;
            return Ok(());
        };
        if arrival.restarted {
            self.stats.restarts += 1;
            self.queue.clear();
            let oldest = datagram.frames().map(|(age, _)| age).last().unwrap_or(0);
            if let Some(last) = &mut self.last {
                last.frame.sequence = arrival.sequence - i64::from(oldest) - 1;
            }
        }
        for (age, frame) in datagram.frames() {
            let sequence = arrival.sequence - i64::from(age);
            if sequence >= self.seen.0 && age == 0 {
                self.live = is_live(frame.data_status);
            }
            if !self.is_first(sequence) {
                self.stats.duplicates += u64::from(age == 0);
                continue;
            }
            if self
                .last
                .as_ref()
                .is_some_and(|last| sequence <= last.frame.sequence)
            {
                self.stats.late += 1;
                continue;
            }
            let earlier = i64::from(age) * nanos(self.config.cycle);
            let born = arrival.born.saturating_sub(earlier);
            if !self.queue.insert(sequence, born, age > 0, &frame) {
                self.stats.passed_over += 1;
            }
        }
        Ok(())
    }

    /// Marks a sequence as seen. What is older than the marks reach counts as seen.
    fn is_first(&mut self, sequence: i64) -> bool {
        let (newest, marks) = self.seen;
        if sequence > newest {
            let ahead = u32::try_from(sequence - newest).unwrap_or(u32::MAX);
            self.seen = (sequence, marks.checked_shl(ahead).unwrap_or(0) | 1);
            return true;
        }
        let behind = u32::try_from(newest - sequence).unwrap_or(u32::MAX);
        let Some(mark) = 1_u128.checked_shl(behind) else {
            return false;
        };
        self.seen.1 |= mark;
        marks & mark == 0
    }

    /// Makes the newest frame that is due the last one that left.
    fn next_frame(&mut self, now: Nanos) -> bool {
        loop {
            let Some((frame, older)) = self.take_due(now) else {
                return false;
            };
            self.stats.passed_over += older;
            if self.is_old(&frame) {
                self.stats.old += 1;
                self.queue.put_back(frame);
            } else if self.config.hold.is_some() && self.is_stale(&frame, now) {
                self.stats.stale += 1;
                self.queue.put_back(frame);
            } else {
                self.leave(now, frame);
                return true;
            }
        }
    }

    fn take_due(&mut self, now: Nanos) -> Option<(Waiting, u64)> {
        let at_once = self.config.play_out.is_none();
        let in_slot = |sequence| at_once || self.timeline.slot(sequence) <= now;
        if let Some(taken) = self.queue.take(in_slot) {
            return Some(taken);
        }
        let first = self.queue.first().filter(|_| self.guard() <= now)?;
        self.queue.take(|sequence| sequence <= first)
    }

    /// When the next frame leaves ahead of its slot, if one waits: a quarter of a cycle before the
    /// watchdog expires.
    fn guard(&self) -> Nanos {
        let (watchdog, cycle) = (nanos(self.config.watchdog), nanos(self.config.cycle));
        match &self.last {
            Some(last) if watchdog >= 2 * cycle => last.fed + watchdog - cycle / 4,
            Some(_) | None => Nanos::MAX,
        }
    }

    fn leave(&mut self, now: Nanos, frame: Waiting) {
        let cycle = nanos(self.config.cycle);
        self.stats.emitted += 1;
        self.stats.repaired += u64::from(frame.repaired);
        self.ages.record(time(now.saturating_sub(frame.born)));
        let left = Left {
            cycle_counter: frame.cycle_counter,
            at: now,
            fed: now,
            // Half a cycle of patience with a frame that is late.
            again: now + cycle + cycle / 2,
            frame,
        };
        if let Some(before) = self.last.replace(left) {
            let sequence = self.last.as_ref().map_or(0, |last| last.frame.sequence);
            self.stats.gaps += (sequence - before.frame.sequence - 1).unsigned_abs();
            self.queue.put_back(before.frame);
        }
    }

    /// The last frame with a new counter, if it is time and the data is not too old.
    fn repeat(&mut self, now: Nanos) -> Option<&Left> {
        let last = self.may_repeat()?;
        if now < last.again {
            return None;
        }
        let stale = self.is_stale(&last.frame, now);
        let cycle = nanos(self.config.cycle);
        let last = self.last.as_mut()?;
        if stale {
            last.again = Nanos::MAX;
            return None;
        }
        last.cycle_counter = last.cycle_counter.wrapping_add(1);
        last.fed = now;
        last.again = (last.again + cycle).max(now + cycle / 2);
        self.stats.held += 1;
        self.stats.longest_hold = self.stats.longest_hold.max(time(now - last.at));
        self.ages.record(time(now.saturating_sub(last.frame.born)));
        Some(last)
    }

    fn may_repeat(&self) -> Option<&Left> {
        self.config.hold?;
        self.round_trip?;
        let last = self.last.as_ref()?;
        (self.live && is_live(last.frame.data_status)).then_some(last)
    }

    fn is_old(&self, frame: &Waiting) -> bool {
        self.last
            .as_ref()
            .is_some_and(|last| !is_newer(last.cycle_counter, frame.cycle_counter))
    }

    /// Whether the data may be older than the limit.
    fn is_stale(&self, frame: &Waiting, at: Nanos) -> bool {
        let Some(hold) = self.config.hold else {
            return false;
        };
        let measured = time(at.saturating_sub(frame.born));
        measured.saturating_add(self.round_trip.unwrap_or_default()) > hold.age_limit
    }

    fn due(&self, sequence: i64) -> Nanos {
        match self.config.play_out {
            Some(_) => self.timeline.slot(sequence).min(self.guard()),
            None => 0,
        }
    }

    fn since(&self, now: Instant) -> Nanos {
        nanos(now.saturating_duration_since(self.origin))
    }
}

/// Whether what a provider says of its data lets it be repeated.
fn is_live(status: DataStatus) -> bool {
    status.primary() && status.valid() && status.run() && !status.ignore()
}

fn time(nanos: Nanos) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
