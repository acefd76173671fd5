//! Reading `time`: the windows of a rule.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use toml::Spanned;
use toml::de::DeValue;

use super::keys::Keys;
use super::{Given, MAX_NAME, MAX_WINDOWS};
use crate::error::Problem;
use crate::model::spelling::nearest;
use crate::model::window::{Days, Hours, MINUTES, Window};

type Value<'t> = Spanned<DeValue<'t>>;

impl<'t> Keys<'t> {
    pub(super) fn windows(&mut self, key: &str, value: &'t Value<'t>) -> Option<Vec<Window>> {
        let place = match self.place {
            "deny" => "deny.time",
            _ => "allow.time",
        };
        let empty = "leave it out, and the rule always applies";
        let windows = self.list(key, value, empty, |keys, item| {
            match item.get_ref().as_table() {
                Some(table) => {
                    const KEYS: &[&str] =
                        &["days", "from", "to", "zone", "not_before", "not_after"];
                    Keys::new(place, table, KEYS, keys.problems).window(item)
                }
                None => keys.wrong(key, item, EXAMPLE),
            }
        })?;
        let (got, max) = (windows.len(), MAX_WINDOWS);
        if got > max {
            self.report(value.span(), key, Problem::TooMany { got, max });
            return None;
        }
        Some(windows)
    }

    fn window(mut self, item: &Value<'t>) -> Option<Window> {
        let days = self.value("days", Keys::days);
        let from = self.value("from", Keys::minute);
        let to = self.value("to", Keys::minute);
        let zone = self.value("zone", Keys::zone);
        let not_before = self.value("not_before", Keys::moment);
        let not_after = self.value("not_after", Keys::moment);
        let has_hours = !(days.is_absent() && from.is_absent() && to.is_absent());
        if !has_hours && let Some((span, _)) = zone.as_valid() {
            self.report(span.clone(), "zone", Problem::ZoneUnused);
            return None;
        }
        if !has_hours && not_before.is_absent() && not_after.is_absent() {
            let hint = "give days, from and to with a zone, or not_before, not_after";
            self.report(item.span(), "", Problem::Missing { hint });
            return None;
        }
        if has_hours && zone.is_absent() {
            let hint = "say by whose clock, such as zone = \"Europe/Berlin\"";
            self.report(item.span(), "zone", Problem::Missing { hint });
            return None;
        }
        let hours = match has_hours {
            true => Some(self.hours(item, days, from, to, zone)?),
            false => None,
        };
        Some(Window {
            hours,
            not_before: optional(not_before)?,
            not_after: optional(not_after)?,
        })
    }

    fn hours(
        &mut self,
        item: &Value<'t>,
        days: Given<Days>,
        from: Given<u16>,
        to: Given<u16>,
        zone: Given<TimeZone>,
    ) -> Option<Hours> {
        let days = optional(days)?.unwrap_or(Days::ALL);
        let from = optional(from)?.unwrap_or(0);
        let to = optional(to)?.unwrap_or(MINUTES);
        if from % MINUTES == to || from == MINUTES {
            self.report(item.span(), "from", Problem::HoursEmpty);
            return None;
        }
        Some(Hours {
            days,
            from,
            // Midnight at the end of a day.
            to: if to == 0 { MINUTES } else { to },
            zone: zone.valid()?,
        })
    }

    fn days(&mut self, key: &str, value: &'t Value<'t>) -> Option<Days> {
        let empty = "leave it out for every day";
        let ranges = self.list(key, value, empty, |keys, item| {
            let text = keys.string(key, item)?;
            let range = day_range(text);
            if range.is_none() {
                let got = text.chars().take(MAX_NAME).collect();
                keys.report(item.span(), key, Problem::Day(got));
            }
            range
        })?;
        let mut days = Days::NONE;
        for (first, last) in ranges {
            let length = (last + 7 - first) % 7;
            (first..=first + length).for_each(|day| days.insert(day));
        }
        Some(days)
    }

    fn minute(&mut self, key: &str, value: &'t Value<'t>) -> Option<u16> {
        let text = self.string(key, value)?;
        let minute = minute(text);
        if minute.is_none() {
            let got = text.chars().take(MAX_NAME).collect();
            self.report(value.span(), key, Problem::Hour(got));
        }
        minute
    }

    fn zone(&mut self, key: &str, value: &'t Value<'t>) -> Option<TimeZone> {
        let text = self.string(key, value)?;
        // The one that is compiled in: devices often have none, or an old one.
        let zones = TimeZoneDatabase::bundled();
        if let Ok(zone) = zones.get(text) {
            return Some(zone);
        }
        let known: Vec<_> = zones.available().collect();
        let problem = Problem::Zone {
            name: text.chars().take(MAX_NAME).collect(),
            nearest: nearest(text, known.iter().map(|zone| zone.as_str())).map(str::to_owned),
        };
        self.report(value.span(), key, problem);
        None
    }

    /// Seconds since 1970-01-01 UTC. TOML has dates and times of its own; both spellings do.
    pub(super) fn moment(&mut self, key: &str, value: &'t Value<'t>) -> Option<i64> {
        let text = match value.get_ref() {
            DeValue::Datetime(moment) => moment.to_string(),
            _ => self.string(key, value)?.to_owned(),
        };
        match text.parse::<Timestamp>() {
            Ok(moment) => Some(moment.as_second()),
            Err(_) => {
                let got = text.chars().take(MAX_NAME).collect();
                self.report(value.span(), key, Problem::Moment(got));
                None
            }
        }
    }
}

const EXAMPLE: &str = "a table such as { days = [\"mon-fri\"], from = \"06:00\", to = \"18:00\", zone = \"Europe/Berlin\" }";

/// `None`: it is invalid and was reported.
fn optional<T>(given: Given<T>) -> Option<Option<T>> {
    match given {
        Given::Absent => Some(None),
        Given::Invalid => None,
        Given::Valid(_, value) => Some(Some(value)),
    }
}

/// First and last day, Monday is 0.
fn day_range(text: &str) -> Option<(u8, u8)> {
    let day = |name: &str| (0..).zip(Days::NAMES).find(|(_, n)| *n == name.trim());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((day(first)?.0, day(last)?.0))
}

/// Minutes since midnight of `HH:MM`.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| -> Option<u16> {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok())?
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= MINUTES).then_some(minute)
}
