//! Provider and consumer of cyclic data (PPM and CPM of the standard).

use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;

use super::lan::{PROFINET, begin, end, put16};
use super::layout::{Layout, Placed};
use super::payload::{Clock, STAMP, Stamp};
use super::stats::{Consumed, FailSafe};

/// RUN, valid, primary, no problem.
const RUNNING: u8 = 0x35;
const PROVIDER_STATE: u8 = 0x10;
const DATA_VALID: u8 = 0x04;
const IGNORE: u8 = 0x80;
const GOOD: u8 = 0x80;
const BAD: u8 = 0x00;
/// Counter, data status, transfer status.
const TRAILER: usize = 4;
/// A frame is new when its counter is 1 to this much ahead of the last one's.
const WINDOW: u16 = 61440;

/// Most ticks of 31.25 us that a watchdog may have: 1.92 s.
pub(super) const WATCHDOG_LIMIT: u64 = 61440;

/// Send clock x reduction ratio x 31.25 us.
pub(super) fn cycle(send_clock: u16, reduction_ratio: u16) -> Duration {
    Duration::from_nanos(u64::from(send_clock) * u64::from(reduction_ratio) * 31_250)
}

/// Which frames a CR has: addresses, FrameID, cadence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cadence {
    pub(super) provider: Mac,
    pub(super) consumer: Mac,
    pub(super) frame_id: u16,
    pub(super) send_clock: u16,
    pub(super) reduction_ratio: u16,
    pub(super) watchdog_factor: u16,
}

impl Cadence {
    fn cycle(&self) -> Duration {
        cycle(self.send_clock, self.reduction_ratio)
    }

    pub(super) fn watchdog(&self) -> Duration {
        self.cycle() * u32::from(self.watchdog_factor)
    }

    fn step(&self) -> u16 {
        self.send_clock.wrapping_mul(self.reduction_ratio)
    }
}

/// Sends a frame each cycle, by absolute deadlines from its start.
#[derive(Debug)]
pub(super) struct Provider {
    /// The whole frame; data and trailer are written anew for each cycle.
    frame: Vec<u8>,
    c_sdu: usize,
    trailer: usize,
    objects: Vec<Placed>,
    statuses: Vec<Placed>,
    stamped: Option<Placed>,
    cycle: Duration,
    step: u16,
    next: Instant,
    counter: u16,
    sequence: u32,
    data_status: u8,
}

impl Provider {
    /// The first frame is due at `now`.
    pub(super) fn new(
        cadence: &Cadence,
        layout: &Layout,
        priority: Option<u8>,
        now: Instant,
    ) -> Self {
        let mut frame = Vec::new();
        begin(
            &mut frame,
            cadence.consumer,
            cadence.provider,
            priority,
            PROFINET,
        );
        put16(&mut frame, cadence.frame_id);
        let c_sdu = frame.len();
        let trailer = c_sdu + layout.data_length as usize;
        frame.resize(trailer + TRAILER, 0);
        end(&mut frame);
        let mut provider = Self {
            frame,
            c_sdu,
            trailer,
            objects: layout.objects.clone(),
            statuses: layout.statuses.clone(),
            stamped: stamped(&layout.objects),
            cycle: cadence.cycle(),
            step: cadence.step(),
            next: now,
            counter: 0,
            sequence: 0,
            data_status: RUNNING,
        };
        provider.set_good(false);
        provider
    }

    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// A defect: the cycle counter stands still.
    pub(super) fn freeze_counter(&mut self) {
        self.step = 0;
    }

    /// IOPS of all data and IOCS of what is consumed.
    pub(super) fn set_good(&mut self, good: bool) {
        let status = if good { GOOD } else { BAD };
        for place in self.objects.iter().chain(&self.statuses) {
            let at = self.c_sdu + usize::from(place.offset + place.length);
            self.frame[at] = status;
        }
    }

    /// RUN or STOP.
    pub(super) fn set_running(&mut self, running: bool) {
        self.data_status = match running {
            true => RUNNING,
            false => RUNNING & !PROVIDER_STATE,
        };
    }

    /// The frame of this cycle when it is due, and how many cycles were missed before it: they
    /// advance the counter all the same.
    pub(super) fn poll(&mut self, now: Instant, clock: Clock) -> Option<(&[u8], u64)> {
        let late = now.checked_duration_since(self.next)?;
        let missed = (late.as_nanos() / self.cycle.as_nanos()) as u64;
        self.next += self.cycle * (missed + 1) as u32;
        self.counter = self
            .counter
            .wrapping_add(self.step.wrapping_mul((missed + 1) as u16));
        if let Some(place) = self.stamped {
            let at = self.c_sdu + usize::from(place.offset);
            Stamp {
                sequence: self.sequence,
                sent: clock.nanos(now),
            }
            .put(&mut self.frame[at..at + usize::from(place.length)]);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let [high, low] = self.counter.to_be_bytes();
        self.frame[self.trailer..self.trailer + TRAILER].copy_from_slice(&[
            high,
            low,
            self.data_status,
            0,
        ]);
        Some((&self.frame, missed))
    }
}

/// The first object with room for a stamp.
fn stamped(objects: &[Placed]) -> Option<Placed> {
    objects
        .iter()
        .copied()
        .find(|place| usize::from(place.length) >= STAMP)
}

/// Judges what comes from a provider and watches that it goes on coming.
#[derive(Debug)]
pub(super) struct Consumer {
    data_length: usize,
    stamped: Option<Placed>,
    watchdog: Duration,
    last_counter: Option<u16>,
    last_accepted: Option<Instant>,
    newest: Option<Stamp>,
    deadline: Instant,
    running: bool,
}

impl Consumer {
    /// Until the first frame the deadline is `startup` from now.
    pub(super) fn new(cadence: &Cadence, layout: &Layout, startup: Duration, now: Instant) -> Self {
        Self {
            data_length: layout.data_length as usize,
            stamped: stamped(&layout.objects),
            watchdog: cadence.watchdog(),
            last_counter: None,
            last_accepted: None,
            newest: None,
            deadline: now + startup,
            running: false,
        }
    }

    /// `pdu` is what follows the FrameID, padding included. True when the frame fed the watchdog.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        pdu: &[u8],
        clock: Clock,
        stats: &mut Consumed,
    ) -> bool {
        let Some((data, rest)) = pdu.split_at_checked(self.data_length) else {
            stats.short += 1;
            return false;
        };
        let Some(&[high, low, data_status, transfer]) = rest.first_chunk() else {
            stats.short += 1;
            return false;
        };
        let counter = u16::from_be_bytes([high, low]);
        if transfer != 0 {
            stats.transfer += 1;
            return false;
        }
        match self.last_counter.map(|last| counter.wrapping_sub(last)) {
            Some(0) => {
                stats.duplicate += 1;
                return false;
            }
            Some(ahead) if ahead > WINDOW => {
                stats.old += 1;
                return false;
            }
            Some(_) | None => {}
        }
        if data_status & DATA_VALID == 0 || data_status & IGNORE != 0 {
            stats.invalid += 1;
            return false;
        }
        self.last_counter = Some(counter);
        if let Some(last) = self.last_accepted.replace(now) {
            stats.gap.record(now.saturating_duration_since(last));
        }
        self.deadline = now + self.watchdog;
        stats.accepted += 1;
        self.running = data_status & PROVIDER_STATE != 0;
        self.consume(now, data, clock, stats);
        true
    }

    fn consume(&mut self, now: Instant, data: &[u8], clock: Clock, stats: &mut Consumed) {
        let Some(place) = self.stamped else { return };
        let at = usize::from(place.offset);
        // The layout lies within the data length: the device checked it, the controller made it.
        let (value, rest) = data[at..].split_at(usize::from(place.length));
        if rest.first() != Some(&GOOD) || !self.running {
            stats.bad += 1;
            return;
        }
        let Some(stamp) = Stamp::read(value) else {
            stats.altered += 1;
            return;
        };
        stats.age.record(clock.age(stamp.sent, now));
        let ahead = self.newest.map_or(1, |newest| {
            stamp.sequence.wrapping_sub(newest.sequence) as i32
        });
        if ahead > 0 {
            self.newest = Some(stamp);
        } else {
            stats.repeated += 1;
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What the expiry of the watchdog means; None when no frame had ever come.
    pub(super) fn fail_safe(&self, now: Instant, clock: Clock) -> Option<FailSafe> {
        Some(FailSafe {
            at: now,
            since_accepted: now.saturating_duration_since(self.last_accepted?),
            age: self
                .newest
                .map_or(Duration::ZERO, |stamp| clock.age(stamp.sent, now)),
        })
    }
}
