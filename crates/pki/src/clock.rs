//! What time it is, on a machine whose clock may be unset, wrong, or set while an agent runs.
//!
//! Three things vouch for a time. A monotonic clock tells how long the agent has run. What a CA
//! signed with a date proves that the date has passed. And where a handshake came through, both
//! certificates were valid. The system clock is believed as far as these go along with it:
//!
//! - It never takes time back: behind what is known, time runs on from there.
//! - A jump ahead counts for what is new (at worst a handshake is refused that should not be), and
//!   for what lives only after a handshake has come through with it.
//!
//! Input: the system clock's reading `system` (seconds since 1970-01-01 UTC) and the monotonic
//! `now`, with each call. No clock is read here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time as an agent goes by it.
#[derive(Debug, Clone)]
pub struct Clock {
    /// What was certain at `since`; it runs on from there.
    certain: i64,
    since: Instant,
    /// Some evidence from outside stands behind `certain`: it may be kept for the next start.
    proven: bool,
}

/// What [`Clock::read`] tells. Seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// To judge what is new: new handshakes, whether something is due.
    pub now: i64,
    /// To judge what lives: it does not follow an unproven jump of the system clock.
    pub steady: i64,
    pub skew: Skew,
}

/// How the system clock stands to what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    None,
    /// By so many seconds behind a time that has certainly passed.
    Behind(i64),
    /// It has jumped so many seconds ahead, and nothing has proven it yet.
    Ahead(i64),
}

impl Clock {
    /// `passed` has certainly passed: the latest of [`Clock::EPOCH`], of the dates that the CA
    /// signed, and of what an earlier run kept. Up to `plausible` (the end of the agent's own
    /// certificate) the system clock is believed at the start.
    pub fn new(passed: i64, plausible: i64, system: i64, now: Instant) -> Self {
        let passed = passed.max(Self::EPOCH);
        let is_plausible = (passed..=plausible).contains(&system);
        Self {
            certain: if is_plausible { system } else { passed },
            since: now,
            // What runs on from a time that was kept is as good as that.
            proven: system < passed,
        }
    }

    pub fn read(&mut self, system: i64, now: Instant) -> Reading {
        let steady = self.steady(now);
        let ahead = system.saturating_sub(steady);
        if (0..=SLEW).contains(&ahead) {
            self.set(system, now);
        }
        Reading {
            now: steady.max(system),
            steady: if ahead > SLEW {
                steady
            } else {
                steady.max(system)
            },
            skew: match ahead {
                ..NEGATIVE_SLEW => Skew::Behind(-ahead),
                NEGATIVE_SLEW..=SLEW => Skew::None,
                _ => Skew::Ahead(ahead),
            },
        }
    }

    /// What to date by: the system clock's reading, but where it is known to be wrong the time that
    /// lives are judged by. The second is then the system clock's reading.
    pub fn date(&mut self, system: SystemTime, now: Instant) -> (SystemTime, Option<SystemTime>) {
        let seconds = system.duration_since(UNIX_EPOCH).map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
        if self.read(seconds, now).skew == Skew::None {
            return (system, None);
        }
        let certain = Duration::from_secs(self.certain.unsigned_abs());
        let elapsed = now.saturating_duration_since(self.since);
        (UNIX_EPOCH + certain + elapsed, Some(system))
    }

    /// A CA of the site has signed `time`, so it has passed. That is news only where the system
    /// clock is known to be wrong: elsewhere a CA whose own clock is ahead would spread it.
    pub fn witness(&mut self, time: i64, system: i64, now: Instant) {
        if let Skew::Behind(_) = self.read(system, now).skew
            && time > self.steady(now)
        {
            self.set(time, now);
        }
    }

    /// A handshake came through in which both certificates were judged by [`Reading::now`]; the
    /// first of them ends at `until`. A clock that has jumped beyond it since then proves nothing.
    pub fn confirm(&mut self, until: i64, system: i64, now: Instant) {
        let reading = self.read(system, now);
        if reading.now <= until {
            self.set(reading.now, now);
            self.proven = true;
        }
    }

    /// What may be kept for the next start.
    pub fn to_keep(&self, now: Instant) -> Option<i64> {
        self.proven.then(|| self.steady(now))
    }

    fn steady(&self, now: Instant) -> i64 {
        let elapsed = now.saturating_duration_since(self.since).as_secs();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        self.certain.saturating_add(elapsed)
    }

    fn set(&mut self, time: i64, now: Instant) {
        self.certain = time;
        self.since = now;
    }

    /// 2026-01-01: before there was this program.
    pub const EPOCH: i64 = 1_767_225_600;
}

/// Seconds since 1970-01-01 UTC as a person reads them, RFC 3339.
pub(crate) fn date(unix: i64) -> String {
    let Ok(time) = time::OffsetDateTime::from_unix_timestamp(unix) else {
        return format!("{unix} s after 1970");
    };
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// What a system clock is corrected by, or lags, without being called wrong, seconds.
const SLEW: i64 = 60;
const NEGATIVE_SLEW: i64 = -SLEW;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const NOW: i64 = Clock::EPOCH + 300 * DAY;

    /// A machine: its system clock and its monotonic one.
    struct Machine {
        clock: Clock,
        system: i64,
        now: Instant,
    }

    impl Machine {
        /// Boots with the system clock at `system`; the certificate is valid for 90 days.
        fn boot(passed: i64, system: i64) -> Self {
            let now = Instant::now();
            Self {
                clock: Clock::new(passed, NOW + 90 * DAY, system, now),
                system,
                now,
            }
        }

        fn run(&mut self, seconds: i64) {
            self.system += seconds;
            self.now += Duration::from_secs(seconds.unsigned_abs());
        }

        fn read(&mut self) -> Reading {
            self.clock.read(self.system, self.now)
        }

        fn confirm(&mut self) {
            self.clock.confirm(NOW + 90 * DAY, self.system, self.now);
        }
    }

    #[test]
    fn dates_are_read_by_people() {
        assert_eq!(date(Clock::EPOCH + 3_661), "2026-01-01T01:01:01Z");
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn records_are_dated_by_what_is_known() {
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
        // A right clock; one at 2020; one years ahead, beyond the certificate.
        for (system, dated, told) in [
            (NOW, NOW, None),
            (
                Clock::EPOCH - 2_000 * DAY,
                NOW,
                Some(Clock::EPOCH - 2_000 * DAY),
            ),
            (NOW + 1_000 * DAY, NOW, Some(NOW + 1_000 * DAY)),
        ] {
            let mut machine = Machine::boot(NOW, system);
            let ahead = Duration::from_millis(2_500);
            let found = machine.clock.date(at(system) + ahead, machine.now + ahead);
            let told = told.map(|told| at(told) + ahead);
            assert_eq!(found, (at(dated) + ahead, told));
        }
    }

    #[test]
    fn a_right_clock_is_followed() {
        let mut machine = Machine::boot(NOW - 40 * DAY, NOW);
        for _ in 0..100 {
            machine.run(3600);
            // It is slewed a little, either way.
            machine.system += machine.system % 7 - 3;
            let reading = machine.read();
            assert_eq!(reading.skew, Skew::None);
            assert!((reading.now - machine.system).abs() <= 7, "{reading:?}");
            assert_eq!(reading.now, reading.steady);
        }
    }

    #[test]
    fn an_unset_clock_runs_on_from_what_is_known() {
        let mut machine = Machine::boot(NOW, 0);
        machine.run(100);
        let reading = machine.read();
        assert_eq!((reading.now, reading.steady), (NOW + 100, NOW + 100));
        assert_eq!(reading.skew, Skew::Behind(NOW));
        assert_eq!(machine.clock.to_keep(machine.now), Some(NOW + 100));

        // The CA has signed something later than that.
        machine
            .clock
            .witness(NOW + 5 * DAY, machine.system, machine.now);
        machine
            .clock
            .witness(NOW + 2 * DAY, machine.system, machine.now);
        assert_eq!(machine.read().now, NOW + 5 * DAY);

        // NTP has an answer at last.
        machine.system = NOW + 6 * DAY;
        assert_eq!(machine.read().now, NOW + 6 * DAY);
        machine.confirm();
        assert_eq!(machine.read().skew, Skew::None);
        assert_eq!(machine.read().steady, NOW + 6 * DAY);
    }

    #[test]
    fn nothing_known_means_not_before_there_was_this_program() {
        let mut machine = Machine::boot(0, 0);
        assert_eq!(machine.read().now, Clock::EPOCH);
    }

    #[test]
    fn back_is_never_followed() {
        let mut machine = Machine::boot(NOW - DAY, NOW);
        machine.read();
        machine.system -= 700 * DAY;
        machine.run(10);
        let reading = machine.read();
        assert_eq!((reading.now, reading.steady), (NOW + 10, NOW + 10));
        assert_eq!(reading.skew, Skew::Behind(700 * DAY));
        machine.system += 700 * DAY;
        assert_eq!(machine.read().skew, Skew::None);
    }

    #[test]
    fn a_jump_ahead_counts_for_what_lives_only_once_it_has_worked() {
        let mut machine = Machine::boot(NOW - DAY, NOW);
        machine.confirm();
        machine.system += 700 * DAY;
        machine.run(1000);
        let reading = machine.read();
        assert_eq!(reading.now, NOW + 700 * DAY + 1000);
        assert_eq!(reading.steady, NOW + 1000);
        assert_eq!(reading.skew, Skew::Ahead(700 * DAY));
        assert_eq!(machine.clock.to_keep(machine.now), Some(NOW + 1000));

        // A handshake of before the jump does not speak for it.
        machine.confirm();
        assert_eq!(machine.read().steady, NOW + 1000);

        // It was wrong, and is put right.
        machine.system -= 700 * DAY;
        assert_eq!(machine.read().now, NOW + 1000);
        assert_eq!(machine.read().skew, Skew::None);

        // It was right: the box was asleep.
        machine.system += 20 * DAY;
        machine.confirm();
        assert_eq!(machine.read().steady, NOW + 20 * DAY + 1000);
    }

    #[test]
    fn a_clock_far_ahead_at_the_start_is_not_kept() {
        let mut machine = Machine::boot(NOW - DAY, NOW + 4000 * DAY);
        assert_eq!(machine.read().steady, NOW - DAY);
        assert_eq!(machine.read().now, NOW + 4000 * DAY);
        assert_eq!(machine.clock.to_keep(machine.now), None);
        machine.system = NOW;
        assert_eq!(machine.read().now, NOW);
    }

    #[test]
    fn a_ca_ahead_of_its_time_is_not_believed_by_a_clock_that_is_right() {
        let mut machine = Machine::boot(NOW - DAY, NOW);
        machine
            .clock
            .witness(NOW + 1000 * DAY, machine.system, machine.now);
        assert_eq!(machine.read().now, NOW);
    }
}
