//! Whose doing a record is, and how much of the log each may fill.
//!
//! What operators and the agents themselves do is always written. What people outside the policy
//! can cause at will, by connecting and being turned away, has a budget: so nobody whom the policy
//! does not know can push out what operators did.

use std::time::{Duration, Instant};

use crate::line;
use crate::record::{Kind, Record};

/// Whose doing a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The plant's own: writes, alarms, changes, tunnels, and all that clients do whom the policy
    /// names. It has no budget.
    Plant,
    /// Refusals of those who prove an identity of the site and are turned away all the same:
    /// revoked, expired, of another role; and what a headend states of a client without a name.
    Identified,
    /// Connections and refusals of those who prove nothing.
    Stranger,
}

impl Class {
    pub fn of(record: &Record) -> Self {
        let anybody_can_cause_it = matches!(
            record.kind,
            Kind::ClientOpen
                | Kind::ClientClose
                | Kind::ClientRefused
                | Kind::TunnelRefused
                | Kind::EnrollOpen
                | Kind::EnrollClose
                | Kind::Denied
        );
        let client = record.client.as_deref();
        if !anybody_can_cause_it || client.is_some_and(|client| client.name.is_some()) {
            return Self::Plant;
        }
        let proves = |client: &crate::Party| client.identity.is_some() || client.serial.is_some();
        if record.tunnel.is_some() || client.is_some_and(proves) {
            Self::Identified
        } else {
            Self::Stranger
        }
    }
}

/// Of the log, each budget's share: so much at once, and so much more in each [`PERIOD`].
const SHARE: u64 = 16;

/// In which a budget that is used up is full again.
const PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a line has beside the record as it is handed to the journal: `seq`, `time`, `agent`
/// (63 characters at most) and `hash`.
const FRAME: u64 = 256;

/// What the records of one class may still fill, in bytes.
///
/// A bucket that holds a sixteenth of the log's size and fills up within 30 days. Once it is
/// empty, nothing more is granted until a sixteenth of it is back: so records do not trickle one
/// by one, and what was left out can be said in one record before those that follow.
///
/// `now` never decreases.
#[derive(Debug)]
pub struct Budget {
    capacity: u64,
    level: u64,
    /// Up to when `level` was filled.
    filled: Instant,
    /// Records left out since the log last said so.
    left_out: u64,
    used_up: bool,
}

impl Budget {
    /// For a log of at most `log_bytes`; full.
    pub fn new(log_bytes: u64, now: Instant) -> Self {
        let capacity = log_bytes / SHARE;
        Self {
            capacity,
            level: capacity,
            filled: now,
            left_out: 0,
            used_up: false,
        }
    }

    /// Whether `record` may be written; it is paid for, or counted as left out.
    pub fn handle_record(&mut self, now: Instant, record: &Record) -> bool {
        self.fill(now);
        let price = line::length(record) + FRAME;
        if self.used_up || self.level < price {
            self.used_up = true;
            self.left_out += 1;
            return false;
        }
        self.level -= price;
        true
    }

    /// A record was not written for another reason.
    pub fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// How many records were left out, once there is room again for those that come. The record
    /// that says so is paid for.
    pub fn poll_left_out(&mut self, now: Instant) -> Option<u64> {
        self.fill(now);
        if self.used_up && self.level >= self.capacity / SHARE {
            self.used_up = false;
        }
        if self.used_up {
            return None;
        }
        let left_out = self.take_left_out()?;
        self.level = self.level.saturating_sub(2 * FRAME);
        Some(left_out)
    }

    /// The same whatever room there is, for the end of the agent.
    pub fn take_left_out(&mut self) -> Option<u64> {
        let left_out = std::mem::take(&mut self.left_out);
        (left_out > 0).then_some(left_out)
    }

    /// Whether more than half of it is used.
    pub fn is_strained(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level < self.capacity / 2
    }

    pub fn is_used_up(&self) -> bool {
        self.used_up
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_micros();
        let period = PERIOD.as_micros();
        let gained = passed.saturating_mul(self.capacity.into()) / period;
        let gained = u64::try_from(gained).unwrap_or(u64::MAX);
        if self.level.saturating_add(gained) >= self.capacity {
            (self.level, self.filled) = (self.capacity, now);
        } else if gained > 0 {
            self.level += gained;
            // What is not a whole byte yet is not lost.
            let used = u128::from(gained) * period / u128::from(self.capacity);
            self.filled += Duration::from_micros(u64::try_from(used).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::Party;

    const MIB: u64 = 1024 * 1024;
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn by(kind: Kind, client: Party) -> Record {
        Record {
            client: Some(Arc::new(client)),
            ..Record::new(kind)
        }
    }

    fn stranger(last: u8) -> Record {
        by(
            Kind::ClientOpen,
            Party {
                address: Some([10, 9, 8, last].into()),
                port: Some(50_000),
                ..Party::default()
            },
        )
    }

    #[test]
    fn only_what_outsiders_can_cause_has_a_budget() {
        let named = || Party {
            name: Some("hmi-1".into()),
            ..Party::default()
        };
        let revoked = || Party {
            serial: Some("4f".into()),
            ..Party::default()
        };
        for (record, class) in [
            (stranger(1), Class::Stranger),
            (by(Kind::ClientOpen, named()), Class::Plant),
            (by(Kind::Denied, named()), Class::Plant),
            (by(Kind::TunnelRefused, revoked()), Class::Identified),
            (by(Kind::WriteIntent, Party::default()), Class::Plant),
            (by(Kind::Denied, Party::default()), Class::Stranger),
            (Record::new(Kind::AlarmStart), Class::Plant),
            (
                Record {
                    tunnel: Some("spiffe://plant1.example/headend/hd-1".into()),
                    ..by(Kind::Denied, Party::default())
                },
                Class::Identified,
            ),
        ] {
            assert_eq!(Class::of(&record), class, "{record:?}");
        }
    }

    /// The bound that the docs state: a sixteenth at once, and a sixteenth more in 30 days.
    #[test]
    fn strangers_fill_no_more_than_their_share_however_long_they_try() {
        for log in [MIB / 4, 64 * MIB] {
            let start = Instant::now();
            let mut budget = Budget::new(log, start);
            let mut filled = 0;
            let mut told = 0;
            let (mut tried, mut written) = (0_u64, 0_u64);
            for minute in 0..60 * 24 * 60 {
                let now = start + minute * Duration::from_secs(60);
                for n in 0..20 {
                    told += budget.poll_left_out(now).unwrap_or(0);
                    let record = stranger(n);
                    tried += 1;
                    if budget.handle_record(now, &record) {
                        written += 1;
                        filled += line::length(&record) + FRAME;
                    }
                }
                let days = f64::from(minute) / 1440.0;
                let bound = log as f64 / 16.0 * (1.0 + days / 30.0);
                assert!(filled as f64 <= bound, "{filled} after {days} days");
            }
            assert!(filled > log / 9, "{filled}: what is theirs they get");
            told += budget.take_left_out().unwrap_or(0);
            assert_eq!(written + told, tried);
        }
    }

    #[test]
    fn what_was_left_out_is_told_once_there_is_room() {
        let start = Instant::now();
        let mut budget = Budget::new(MIB, start);
        let mut written = 0;
        while budget.handle_record(start, &stranger(1)) {
            written += 1;
        }
        assert!(written > 100, "{written}");
        assert!(budget.is_used_up() && budget.is_strained(start));
        assert!(!budget.handle_record(start + DAY, &stranger(1)));
        assert_eq!(budget.poll_left_out(start + DAY), None);
        let later = start + 2 * DAY;
        assert_eq!(budget.poll_left_out(later), Some(2));
        assert!(budget.handle_record(later, &stranger(1)));
        assert_eq!(budget.poll_left_out(later), None);
        assert!(!budget.is_strained(start + 40 * DAY));
    }
}
