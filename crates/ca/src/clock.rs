//! Points in time as records and people spell them: RFC 3339 in UTC, to the second.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Certificates and CRLs begin five minutes ago, for clocks that are behind.
pub(crate) const BACKDATE_SECONDS: i64 = 300;

/// Seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub i64);

impl Time {
    /// The system's clock; 1970 if it stands before that.
    pub fn now() -> Self {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        Self(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    pub fn plus_days(self, days: u16) -> Self {
        Self(self.0.saturating_add(i64::from(days) * SECONDS_PER_DAY))
    }

    /// Whole days from `now` until this time, rounded down; negative when it has passed.
    pub fn days_from(self, now: Time) -> i64 {
        (self.0 - now.0).div_euclid(SECONDS_PER_DAY)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(timestamp) => f.pad(&timestamp.to_string()),
            Err(_) => write!(f, "{} s after 1970", self.0),
        }
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        text.parse::<Timestamp>()
            .map(|timestamp| Self(timestamp.as_second()))
            .map_err(|_| TimeError(text.to_owned()))
    }
}

impl TryFrom<String> for Time {
    type Error = TimeError;

    fn try_from(text: String) -> Result<Self, TimeError> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> String {
        time.to_string()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: use RFC 3339, such as `2026-07-01T12:00:00Z`")]
pub struct TimeError(String);

const SECONDS_PER_DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        let time: Time = "2026-07-01T12:00:00Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-07-01T12:00:00Z");
        assert_eq!("2026-07-01T14:00:00+02:00".parse::<Time>().unwrap(), time);
        assert!("yesterday".parse::<Time>().is_err());
    }

    #[test]
    fn days_round_down() {
        assert_eq!(Time(86_399).days_from(Time(0)), 0);
        assert_eq!(Time(86_400).days_from(Time(0)), 1);
        assert_eq!(Time(0).days_from(Time(1)), -1);
    }
}
