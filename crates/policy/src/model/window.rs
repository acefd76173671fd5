//! When a rule applies: hours of the week, and the first and last moment.
//!
//! Hours go by what a clock on the wall of the zone shows. Where it is set back, a time that it
//! shows twice counts both times; a time that it skips does not come that day. So a window never
//! applies while the wall clock shows anything else than what is written.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A window is open while both parts say so. Times are seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) hours: Option<Hours>,
    /// Open from this moment on.
    pub(crate) not_before: Option<i64>,
    /// Closed from this moment on.
    pub(crate) not_after: Option<i64>,
}

/// Hours of some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hours {
    pub(crate) days: Days,
    /// Minutes since midnight, 0 to 1439.
    pub(crate) from: u16,
    /// Minutes since midnight, 1 to 1440, never equal to `from`; before it, the hours end on the
    /// next day and belong to the day on which they start.
    pub(crate) to: u16,
    pub(crate) zone: TimeZone,
}

/// Days of the week, Monday first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Days(u8);

impl Window {
    pub(crate) fn is_open(&self, now: i64) -> bool {
        self.not_before.is_none_or(|from| from <= now)
            && self.not_after.is_none_or(|until| now < until)
            && self.hours.as_ref().is_none_or(|hours| hours.hold(now))
    }

    /// Until when [`Window::is_open`] certainly stays the same; `None`: for good.
    pub(crate) fn next_change(&self, now: i64) -> Option<i64> {
        if self.not_after.is_some_and(|until| until <= now) {
            return None;
        }
        if self.not_before.is_some_and(|from| now < from) {
            return self.not_before;
        }
        let hours = self.hours.as_ref();
        let change = hours.and_then(|hours| hours.next_change(now));
        [change, self.not_after].into_iter().flatten().min()
    }

    /// The first moment from `now` on at which it is open; `None`: never again.
    pub(crate) fn next_open(&self, now: i64) -> Option<i64> {
        let mut at = self.not_before.map_or(now, |from| from.max(now));
        // A week has at most three changes a day; where the wall clock skips the only hours of
        // a week, the next week has them.
        for _ in 0..50 {
            if self.is_open(at) {
                return Some(at);
            }
            at = self.next_change(at)?;
        }
        None
    }

    /// A moment as people where the window is say it.
    pub(crate) fn moment(&self, time: i64) -> String {
        let zone = self.hours.as_ref().map(|hours| hours.zone.clone());
        moment(time, &zone.unwrap_or(TimeZone::UTC))
    }
}

impl Hours {
    fn hold(&self, now: i64) -> bool {
        let Ok(now) = Timestamp::from_second(now) else {
            return false;
        };
        let wall = self.zone.to_datetime(now);
        let minute = i64::from(wall.hour()) * 60 + i64::from(wall.minute());
        let (from, to) = (i64::from(self.from), i64::from(self.to));
        // Monday is 0.
        let day = wall.weekday().to_monday_zero_offset().unsigned_abs();
        let today = self.days.contains(day);
        if from < to {
            return today && (from..to).contains(&minute);
        }
        let yesterday = self.days.contains((day + 6) % 7);
        (today && minute >= from) || (yesterday && minute < to)
    }

    /// The next moment at which the wall clock shows `from` or `to`, whatever the day, or is set.
    fn next_change(&self, now: i64) -> Option<i64> {
        let stamp = Timestamp::from_second(now).ok()?;
        let today = self.zone.to_datetime(stamp).date();
        let days = [Some(today), today.tomorrow().ok()];
        let set = self.zone.following(stamp).next();
        let mut moments: Vec<Timestamp> = set.map(|set| set.timestamp()).into_iter().collect();
        for day in days.into_iter().flatten() {
            for minute in [self.from, self.to % MINUTES] {
                // Both are below 24 and 60.
                let (hour, minute) = ((minute / 60) as i8, (minute % 60) as i8);
                let shown = self.zone.to_ambiguous_timestamp(day.at(hour, minute, 0, 0));
                moments.extend(shown.earlier());
                moments.extend(shown.later());
            }
        }
        let seconds = moments.iter().map(|moment| moment.as_second());
        seconds.filter(|moment| *moment > now).min()
    }
}

impl Days {
    pub(crate) const ALL: Self = Self(0x7F);
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    /// `day` is 0 (Monday) to 6.
    pub(crate) fn insert(&mut self, day: u8) {
        self.0 |= 1 << (day % 7);
    }

    fn contains(self, day: u8) -> bool {
        self.0 & (1 << (day % 7)) != 0
    }
}

/// RFC 3339 with the offset of the zone.
fn moment(time: i64, zone: &TimeZone) -> String {
    match Timestamp::from_second(time) {
        Ok(time) if *zone == TimeZone::UTC => time.to_string(),
        Ok(time) => time.display_with_offset(zone.to_offset(time)).to_string(),
        Err(_) => "never".to_owned(),
    }
}

/// Minutes of a day.
pub(crate) const MINUTES: u16 = 24 * 60;

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.hours.as_ref().map(ToString::to_string);
        let from = self
            .not_before
            .map(|from| format!("from {}", self.moment(from)));
        let until = self
            .not_after
            .map(|until| format!("until {}", self.moment(until)));
        let parts: Vec<String> = [hours, from, until].into_iter().flatten().collect();
        f.write_str(&parts.join(" "))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != Days::ALL {
            write!(f, "{} ", self.days)?;
        }
        let (from, to) = (self.from, self.to);
        if (from, to) != (0, MINUTES) {
            write!(f, "{:02}:{:02}-", from / 60, from % 60)?;
            write!(f, "{:02}:{:02} ", to / 60, to % 60)?;
        } else if self.days == Days::ALL {
            f.write_str("all day ")?;
        }
        f.write_str(self.zone.iana_name().unwrap_or("UTC"))
    }
}

impl fmt::Display for Days {
    /// Ascending with runs as ranges: `mon-wed,fri`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<u8> = (0..7).filter(|day| self.contains(*day)).collect();
        let name = |day: &u8| Self::NAMES[usize::from(*day % 7)];
        let runs = days.chunk_by(|a, b| a + 1 == *b);
        let runs: Vec<String> = runs
            .map(|run| match run {
                [first, .., last] => format!("{}-{}", name(first), name(last)),
                _ => run.iter().map(name).collect(),
            })
            .collect();
        f.write_str(&runs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZoneDatabase;
    use proptest::prelude::*;

    use super::*;

    fn hours(days: &[u8], from: u16, to: u16, zone: &str) -> Window {
        let mut set = Days::NONE;
        days.iter().for_each(|day| set.insert(*day));
        Window {
            hours: Some(Hours {
                days: set,
                from,
                to,
                zone: TimeZoneDatabase::bundled().get(zone).unwrap(),
            }),
            ..Window::default()
        }
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    const WEEK: [u8; 7] = [0, 1, 2, 3, 4, 5, 6];

    #[test]
    fn office_hours_open_and_close_by_the_wall_clock() {
        let window = hours(&[0, 1, 2, 3, 4], 360, 1080, "Europe/Berlin");
        for (time, open) in [
            ("2026-03-02T05:59:59+01:00", false),
            ("2026-03-02T06:00:00+01:00", true),
            ("2026-03-02T17:59:59+01:00", true),
            ("2026-03-02T18:00:00+01:00", false),
            ("2026-03-07T12:00:00+01:00", false),
            ("2026-07-01T06:00:00+02:00", true),
            ("2026-07-01T05:59:59+02:00", false),
        ] {
            assert_eq!(window.is_open(at(time)), open, "{time}");
        }
        let friday_evening = at("2026-03-06T18:00:00+01:00");
        let monday = at("2026-03-09T06:00:00+01:00");
        assert_eq!(window.next_open(friday_evening), Some(monday));
        assert_eq!(window.to_string(), "mon-fri 06:00-18:00 Europe/Berlin");
    }

    #[test]
    fn hours_past_midnight_belong_to_the_day_on_which_they_start() {
        let window = hours(&[4], 1320, 360, "Europe/Berlin");
        for (time, open) in [
            ("2026-03-06T03:00:00+01:00", false),
            ("2026-03-06T22:00:00+01:00", true),
            ("2026-03-07T05:59:59+01:00", true),
            ("2026-03-07T06:00:00+01:00", false),
            ("2026-03-07T22:00:00+01:00", false),
        ] {
            assert_eq!(window.is_open(at(time)), open, "{time}");
        }
    }

    /// 2026-03-29, Berlin: 02:00 becomes 03:00.
    #[test]
    fn a_time_that_the_wall_clock_skips_does_not_come() {
        let inside = hours(&WEEK, 135, 165, "Europe/Berlin");
        let before = at("2026-03-29T00:00:00+01:00");
        assert_eq!(
            inside.next_open(before),
            Some(at("2026-03-30T02:15:00+02:00"))
        );
        let across = hours(&WEEK, 60, 150, "Europe/Berlin");
        assert!(across.is_open(at("2026-03-29T01:59:59+01:00")));
        assert!(!across.is_open(at("2026-03-29T03:00:00+02:00")));
        let first = across.next_change(at("2026-03-29T01:30:00+01:00"));
        assert_eq!(first, Some(at("2026-03-29T03:00:00+02:00")));
        let only_sundays = hours(&[6], 135, 165, "Europe/Berlin");
        let next = at("2026-04-05T02:15:00+02:00");
        assert_eq!(only_sundays.next_open(before), Some(next));
    }

    /// 2026-10-25, Berlin: 03:00 becomes 02:00.
    #[test]
    fn a_time_that_the_wall_clock_shows_twice_counts_twice() {
        let window = hours(&WEEK, 150, 180, "Europe/Berlin");
        for (time, open) in [
            ("2026-10-25T02:29:59+02:00", false),
            ("2026-10-25T02:30:00+02:00", true),
            ("2026-10-25T02:59:59+02:00", true),
            ("2026-10-25T02:00:00+01:00", false),
            ("2026-10-25T02:30:00+01:00", true),
            ("2026-10-25T03:00:00+01:00", false),
        ] {
            assert_eq!(window.is_open(at(time)), open, "{time}");
        }
        let set_back = at("2026-10-25T02:00:00+01:00");
        let inside = at("2026-10-25T02:45:00+02:00");
        assert_eq!(window.next_change(inside), Some(set_back));
    }

    #[test]
    fn a_grant_begins_and_ends_by_itself() {
        let (from, until) = (at("2026-03-02T08:00:00Z"), at("2026-03-02T12:00:00Z"));
        let window = Window {
            not_before: Some(from),
            not_after: Some(until),
            ..hours(&WEEK, 540, 1080, "UTC")
        };
        assert_eq!(window.next_open(0), Some(from + 3600));
        assert!(window.is_open(until - 1));
        assert!(!window.is_open(until));
        assert_eq!(window.next_change(until - 1), Some(until));
        assert_eq!(window.next_change(until), None);
        assert_eq!(window.next_open(until), None);
        let reversed = Window {
            not_before: Some(until),
            not_after: Some(from),
            hours: None,
        };
        assert_eq!(reversed.next_open(0), None);
    }

    #[test]
    fn times_beyond_all_calendars_are_closed() {
        let window = hours(&WEEK, 0, MINUTES, "UTC");
        for time in [i64::MIN, i64::MAX] {
            assert!(!window.is_open(time));
            assert_eq!(window.next_change(time), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_changes_before_the_next_change(
            days in proptest::collection::vec(0u8..7, 0..7),
            from in 0..MINUTES,
            length in 1..MINUTES,
            zone in proptest::sample::select(vec![
                "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo",
                "Pacific/Apia", "Asia/Kolkata", "Africa/Casablanca", "UTC",
            ]),
            now in 946_684_800i64..2_000_000_000,
            part in 0.0..1.0f64,
        ) {
            let to = match (from + length) % MINUTES { 0 => MINUTES, to => to };
            prop_assume!(from != to);
            let window = hours(&days, from, to, zone);
            let next = window.next_change(now).unwrap();
            prop_assert!(next > now && next <= now + 2 * 86_400);
            let between = now + ((next - 1 - now) as f64 * part) as i64;
            for time in [between, next - 1] {
                prop_assert_eq!(window.is_open(now), window.is_open(time));
            }
        }
    }
}
