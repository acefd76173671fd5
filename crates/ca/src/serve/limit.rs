//! How often one address may ask, how many connections it may have, how often an identity may be
//! asked for in vain, and how many refusals of strangers are put on record.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use fieldlock_pki::{Name, Role};

/// Who is counted as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// An IPv4 address, or an IPv6 network of 64 bits.
    Address(IpAddr),
    /// Whose certificate is asked for. Behind a headend many ask from one address.
    Identity(Role, Name),
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Identity(role, name) => write!(f, "{role}/{name}"),
        }
    }
}

impl From<IpAddr> for Asker {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Self::Address(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address => Self::Address(address),
        }
    }
}

/// Counts per minute, and what is open. Holds at most [`Limits::MAX_ASKERS`]; who has nothing open is
/// forgotten after a minute.
#[derive(Debug)]
pub(super) struct Limits {
    per_minute: u32,
    open_in_all: usize,
    open_each: usize,
    open: usize,
    askers: HashMap<Asker, Counts>,
    failures: Window,
    strangers: Window,
    /// Refusals of strangers since the last that was put on record.
    unrecorded: u32,
}

#[derive(Debug)]
struct Counts {
    open: usize,
    requests: Window,
    failures: Window,
    strange: Window,
}

/// How many in the time that began at `since`.
#[derive(Debug)]
struct Window {
    since: Instant,
    length: Duration,
    count: u32,
}

impl Window {
    fn new(length: Duration, now: Instant) -> Self {
        Self {
            since: now,
            length,
            count: 0,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.since + self.length
    }

    fn has_room(&mut self, most: u32, now: Instant) -> bool {
        if self.is_over(now) {
            *self = Self::new(self.length, now);
        }
        self.count < most
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Failures that are put on record within a minute, of everybody: each costs a write to the disk,
/// and nobody who asks has to be known.
const MAX_FAILURES: u32 = 30;
/// And of one identity.
const MAX_FAILURES_EACH: u32 = 5;
/// Refusals of strangers (who name no identity, or prove none) that are put on record within an
/// hour, and of one address: records are kept for ever, and any stranger can be refused.
const MAX_STRANGERS: u32 = 120;
const MAX_STRANGE_EACH: u32 = 20;

impl Limits {
    pub(super) const MAX_ASKERS: usize = 4096;

    pub(super) fn new(per_minute: u32, open_in_all: usize, open_each: usize, now: Instant) -> Self {
        Self {
            per_minute,
            open_in_all,
            open_each,
            open: 0,
            askers: HashMap::new(),
            failures: Window::new(MINUTE, now),
            strangers: Window::new(HOUR, now),
            unrecorded: 0,
        }
    }

    /// A connection: `true` lets it in, until [`Limits::close`].
    pub(super) fn open(&mut self, asker: Asker, now: Instant) -> bool {
        let (open, most, each) = (self.open, self.open_in_all, self.open_each);
        let Some(counts) = self.counts(asker, now) else {
            return false;
        };
        if open >= most || counts.open >= each {
            return false;
        }
        counts.open += 1;
        self.open += 1;
        true
    }

    pub(super) fn close(&mut self, asker: &Asker) {
        if let Some(counts) = self.askers.get_mut(asker) {
            counts.open -= 1;
            self.open -= 1;
        }
    }

    /// A request: `false` turns it away until the minute is over.
    pub(super) fn request(&mut self, asker: Asker, now: Instant) -> bool {
        let most = self.per_minute;
        let Some(counts) = self.counts(asker, now) else {
            return false;
        };
        let room = counts.requests.has_room(most, now);
        counts.requests.count += u32::from(room);
        room
    }

    /// Whether there is room to put a failure of this identity on record.
    pub(super) fn may_fail(&mut self, identity: Asker, now: Instant) -> bool {
        self.failures.has_room(MAX_FAILURES, now) && self.may_renew(identity, now)
    }

    /// The same for one whose certificate the handshake has proven: others don't count.
    pub(super) fn may_renew(&mut self, identity: Asker, now: Instant) -> bool {
        let each = self.counts(identity, now);
        each.is_some_and(|each| each.failures.has_room(MAX_FAILURES_EACH, now))
    }

    pub(super) fn failed(&mut self, identity: &Asker) {
        self.failures.count += 1;
        if let Some(counts) = self.askers.get_mut(identity) {
            counts.failures.count += 1;
        }
    }

    /// Whether a refusal of a stranger is to be put on record; if so, how many were not since the last.
    pub(super) fn record_stranger(&mut self, address: Asker, now: Instant) -> Option<u32> {
        let room = self.strangers.has_room(MAX_STRANGERS, now);
        let counts = self.counts(address, now);
        let own = counts.is_some_and(|counts| {
            let own = room && counts.strange.has_room(MAX_STRANGE_EACH, now);
            counts.strange.count += u32::from(own);
            own
        });
        if !own {
            self.unrecorded = self.unrecorded.saturating_add(1);
            return None;
        }
        self.strangers.count += 1;
        Some(std::mem::take(&mut self.unrecorded))
    }

    fn counts(&mut self, asker: Asker, now: Instant) -> Option<&mut Counts> {
        if self.askers.len() >= Self::MAX_ASKERS && !self.askers.contains_key(&asker) {
            self.askers.retain(|_, counts| {
                counts.open > 0 || !counts.requests.is_over(now) || !counts.failures.is_over(now)
            });
            if self.askers.len() >= Self::MAX_ASKERS {
                return None;
            }
        }
        let counts = self.askers.entry(asker).or_insert_with(|| Counts {
            open: 0,
            requests: Window::new(MINUTE, now),
            failures: Window::new(MINUTE, now),
            strange: Window::new(HOUR, now),
        });
        Some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(text: &str) -> Asker {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn one_asker_does_not_use_up_what_others_have() {
        let now = Instant::now();
        let mut limits = Limits::new(2, 3, 2, now);
        let (a, b) = (|| asker("10.0.0.1"), || asker("10.0.0.2"));
        assert!(limits.request(a(), now) && limits.request(a(), now));
        assert!(!limits.request(a(), now));
        assert!(limits.request(b(), now));
        assert!(limits.request(a(), now + MINUTE));

        assert!(limits.open(a(), now) && limits.open(a(), now));
        assert!(!limits.open(a(), now));
        assert!(limits.open(b(), now));
        assert!(!limits.open(asker("10.0.0.3"), now), "three in all");
        limits.close(&a());
        assert!(limits.open(asker("10.0.0.3"), now));
    }

    #[test]
    fn an_ipv6_network_is_one_asker() {
        assert_eq!(asker("2001:db8::1"), asker("2001:db8::ffff"));
        assert_ne!(asker("2001:db8::1"), asker("2001:db8:0:1::1"));
        assert_eq!(asker("::ffff:10.0.0.1"), asker("10.0.0.1"));
    }

    #[test]
    fn failures_are_counted_each_and_in_all() {
        let now = Instant::now();
        let mut limits = Limits::new(1000, 1, 1, now);
        let identity = |n: u32| Asker::Identity(Role::Edge, format!("press-{n}").parse().unwrap());
        let mut count = 0;
        for n in 0..100 {
            while limits.may_fail(identity(n), now) {
                limits.failed(&identity(n));
                count += 1;
            }
            assert_eq!(count, MAX_FAILURES.min((n + 1) * MAX_FAILURES_EACH));
        }
        assert!(limits.may_fail(identity(0), now + MINUTE));
    }

    #[test]
    fn strangers_fill_no_records_and_are_counted() {
        let now = Instant::now();
        let mut limits = Limits::new(1000, 1, 1, now);
        let recorded = |limits: &mut Limits, from: &str, now| {
            let tries = (0..100).filter(|_| limits.record_stranger(asker(from), now).is_some());
            tries.count() as u32
        };
        assert_eq!(recorded(&mut limits, "10.0.0.1", now), MAX_STRANGE_EACH);
        let next = limits.record_stranger(asker("10.0.0.2"), now);
        assert_eq!(next, Some(100 - MAX_STRANGE_EACH), "those that were not");
        let rest = (3..20).map(|n| recorded(&mut limits, &format!("10.0.0.{n}"), now));
        assert_eq!(rest.sum::<u32>(), MAX_STRANGERS - MAX_STRANGE_EACH - 1);
        assert!(recorded(&mut limits, "10.0.0.1", now + HOUR) > 0);
    }

    #[test]
    fn the_table_does_not_grow_for_ever() {
        let now = Instant::now();
        let mut limits = Limits::new(1, 1, 1, now);
        let from = |n: u32| Asker::from(IpAddr::from(n.to_be_bytes()));
        for n in 0..Limits::MAX_ASKERS as u32 {
            assert!(limits.request(from(n), now));
        }
        let one_more = || from(1 << 20);
        assert!(!limits.request(one_more(), now));
        assert!(limits.request(one_more(), now + MINUTE));
        assert_eq!(limits.askers.len(), 1);
    }
}
