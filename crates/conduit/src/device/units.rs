//! How the units behind one connection answer: which have fallen silent, and how long answers take.

use std::time::{Duration, Instant};

/// After so many silences in a row the hold-off grows no more: by then it is 32 response times, so that
/// a dead unit that somebody keeps polling costs the others about 3 % of the line.
const MAX_DOUBLINGS: u32 = 5;

/// A new sample takes this part of the way down from a peak of the past.
const DECAY: u32 = 16;

/// What is known of the units of one device.
///
/// A unit that does not answer in time *gives way*: its requests are sent when nothing else can be, one at
/// a time. Where another unit has answered since, so that it is not the device as a whole that
/// is silent, it is also *held off* from its second silence in a row: for a while, which doubles
/// each time, its requests are not sent at all.
#[derive(Debug)]
pub(super) struct Units {
    response_timeout: Duration,
    max_hold_off: Duration,
    /// Few; none while all is well.
    silent: Vec<Silent>,
    /// The first unit ever asked, and whether there was another.
    first: Option<u8>,
    several: bool,
    /// About the longest that answers took lately.
    slowest: Duration,
}

#[derive(Debug)]
struct Silent {
    unit: u8,
    silences: u32,
    /// Another unit has answered since.
    others_answer: bool,
    held_off_until: Option<Instant>,
    in_flight: bool,
}

impl Units {
    pub(super) fn new(response_timeout: Duration, max_hold_off: Duration) -> Self {
        Self {
            response_timeout,
            max_hold_off,
            silent: Vec::new(),
            first: None,
            several: false,
            slowest: Duration::ZERO,
        }
    }

    /// Whether more than one unit has been asked.
    pub(super) fn are_several(&self) -> bool {
        self.several
    }

    pub(super) fn sent(&mut self, unit: u8) {
        self.several |= *self.first.get_or_insert(unit) != unit;
        if let Some(silent) = self.find(unit) {
            silent.in_flight = true;
        }
    }

    pub(super) fn answered(&mut self, unit: u8, after: Duration) {
        self.slowest = match self.slowest.checked_sub(after) {
            Some(above) => self.slowest - above / DECAY,
            None => after,
        };
        if !self.silent.is_empty() {
            self.silent.retain(|silent| silent.unit != unit);
            for silent in &mut self.silent {
                silent.others_answer = true;
            }
        }
    }

    /// The unit did not answer in time. True if it is held off now.
    pub(super) fn fell_silent(&mut self, now: Instant, unit: u8) -> bool {
        if self.find(unit).is_none() {
            self.silent.push(Silent {
                unit,
                silences: 0,
                others_answer: false,
                held_off_until: None,
                in_flight: false,
            });
        }
        let (time, longest) = (self.response_timeout, self.max_hold_off);
        let Some(silent) = self.find(unit) else {
            return false;
        };
        silent.silences = (silent.silences + 1).min(MAX_DOUBLINGS);
        silent.in_flight = false;
        let is_held_off = silent.others_answer && silent.silences > 1 && !longest.is_zero();
        silent.held_off_until =
            is_held_off.then(|| now + (time * (1 << silent.silences)).min(longest));
        is_held_off
    }

    /// Ended without an answer, and for another reason than the unit's silence.
    pub(super) fn lost(&mut self, unit: u8) {
        if let Some(silent) = self.find(unit) {
            silent.in_flight = false;
        }
    }

    /// Whether others come first.
    pub(super) fn gives_way(&self, unit: u8) -> bool {
        self.silent.iter().any(|silent| silent.unit == unit)
    }

    /// Whether a request is in flight that tries whether the unit is back.
    pub(super) fn is_tried(&self, unit: u8) -> bool {
        let mut silent = self.silent.iter();
        silent.any(|silent| silent.unit == unit && silent.in_flight)
    }

    pub(super) fn is_held_off(&self, now: Instant, unit: u8) -> bool {
        let mut silent = self.silent.iter();
        silent.any(|silent| silent.unit == unit && silent.held_off_until.is_some_and(|at| at > now))
    }

    /// Units that are held off now.
    pub(super) fn held_off(&self, now: Instant) -> impl Iterator<Item = u8> {
        let held_off = move |silent: &&Silent| silent.held_off_until.is_some_and(|at| at > now);
        self.silent
            .iter()
            .filter(held_off)
            .map(|silent| silent.unit)
    }

    /// How much of its time a request must have left to be sent: a quarter more than answers took
    /// lately, and no more than the response time-out.
    pub(super) fn least_time(&self) -> Duration {
        (self.slowest + self.slowest / 4).min(self.response_timeout)
    }

    fn find(&mut self, unit: u8) -> Option<&mut Silent> {
        self.silent.iter_mut().find(|silent| silent.unit == unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn units() -> Units {
        Units::new(100 * MS, Duration::from_secs(60))
    }

    #[test]
    fn the_hold_off_doubles_while_others_answer_and_ends_with_an_answer() {
        let (mut units, now) = (units(), Instant::now());
        assert!(!units.fell_silent(now, 2));
        assert!(units.gives_way(2) && !units.is_held_off(now, 2));
        assert!(
            !units.fell_silent(now, 2),
            "nobody answers: the device is down as a whole"
        );
        units.answered(1, MS);
        for factor in [8, 16, 32, 32, 32] {
            assert!(units.fell_silent(now, 2));
            let until = now + 100 * MS * factor;
            assert!(units.is_held_off(until - MS, 2) && !units.is_held_off(until, 2));
            assert!(!units.is_held_off(now, 1));
        }
        units.answered(2, MS);
        assert!(!units.gives_way(2) && !units.is_held_off(now, 2));
    }

    #[test]
    fn without_a_hold_off_a_silent_unit_only_gives_way() {
        let (mut units, now) = (Units::new(100 * MS, Duration::ZERO), Instant::now());
        for _ in 0..9 {
            units.answered(1, MS);
            assert!(!units.fell_silent(now, 2));
            assert!(units.gives_way(2));
        }
    }

    #[test]
    fn the_least_time_follows_the_slowest_answers_and_forgets_them() {
        let mut units = units();
        assert_eq!(units.least_time(), Duration::ZERO);
        units.answered(1, 40 * MS);
        assert_eq!(units.least_time(), 50 * MS);
        units.answered(1, 900 * MS);
        assert_eq!(units.least_time(), 100 * MS, "no more than the time-out");
        (0..200).for_each(|_| units.answered(1, 4 * MS));
        assert!(units.least_time() < 6 * MS);
    }
}
