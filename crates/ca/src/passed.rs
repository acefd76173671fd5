//! What time has passed, by times that a clock gave in this order and that may be wrong.

use crate::clock::{BACKDATE_SECONDS, Time};

/// The latest time seen, except that a leap ahead does not count which the clock took back soon.
///
/// A clock that is set back and one that was ahead look alike: later times are on record. They are
/// told apart by what lies between. A CA that serves records something every few days, so one that
/// is set back falls among its own records; a clock that was ahead has leapt over a gap to where it
/// was, and comes back into that gap. Once it has stood there for [`BELIEVED`] its time counts.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) time: Time,
    leap: Option<Leap>,
}

/// From where to where.
#[derive(Debug, Clone, Copy)]
struct Leap {
    before: Time,
    after: Time,
}

/// In seconds: longer than a CA that serves is silent, which renews its own certificate every four
/// days.
const GAP: i64 = 7 * 86_400;
/// In seconds.
const BELIEVED: i64 = 86_400;

impl Default for Passed {
    fn default() -> Self {
        Self {
            time: Time(i64::MIN),
            leap: None,
        }
    }
}

impl Passed {
    pub(crate) fn see(&mut self, time: Time) {
        let leaps = self.time.0 > i64::MIN && time.0 > self.time.0.saturating_add(GAP);
        match self.leap {
            Some(leap) if is_between(time, leap) => {
                *self = Self {
                    time: leap.before.max(time),
                    leap: None,
                };
                return;
            }
            // However often it leaps on: where it came from stays the same.
            Some(leap) if !leaps && time.0 >= leap.after.0.saturating_add(BELIEVED) => {
                self.leap = None;
            }
            None if leaps => {
                self.leap = Some(Leap {
                    before: self.time,
                    after: time,
                });
            }
            _ => {}
        }
        self.time = self.time.max(time);
    }
}

fn is_between(time: Time, leap: Leap) -> bool {
    time.0 + BACKDATE_SECONDS >= leap.before.0 && time.0 + BACKDATE_SECONDS < leap.after.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn after(days: &[i64]) -> i64 {
        let mut passed = Passed::default();
        days.iter().for_each(|day| passed.see(Time(day * DAY)));
        passed.time.0 / DAY
    }

    #[test]
    fn a_leap_that_is_taken_back_does_not_count() {
        assert_eq!(after(&[1, 2, 3]), 3);
        assert_eq!(after(&[1, 2, 700, 3]), 3);
        assert_eq!(after(&[1, 2, 700, 700, 3, 4]), 4);
        assert_eq!(after(&[1, 2, 700, 900, 3]), 3, "and on from there");
        assert_eq!(after(&[1, 700, 2, 800, 3]), 3, "twice");
        assert_eq!(after(&[1, 2, 700, 2]), 2);
    }

    #[test]
    fn a_clock_that_is_set_back_takes_nothing_back() {
        assert_eq!(after(&[1, 5, 9, 13, 6]), 13, "among its own records");
        assert_eq!(after(&[5, 700, 1]), 700, "before where it came from");
        // Out of use for a year; then it went on.
        assert_eq!(after(&[5, 370, 371, 372, 8]), 372);
        assert_eq!(after(&[5, 370, 374, 8]), 374);
    }
}
