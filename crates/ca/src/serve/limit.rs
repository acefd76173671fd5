//! How often one address may ask, and how many connections it may have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Who is counted as one: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Asker(IpAddr);

impl From<IpAddr> for Asker {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address => Self(address),
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
}

#[derive(Debug)]
struct Counts {
    open: usize,
    requests: Window,
}

/// How many in the minute that began at `since`.
#[derive(Debug)]
struct Window {
    since: Instant,
    count: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.since + MINUTE
    }

    fn has_room(&mut self, most: u32, now: Instant) -> bool {
        if self.is_over(now) {
            *self = Self::new(now);
        }
        self.count < most
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// Failed enrolments that are put on record within a minute, from everywhere: each costs a write
/// to the disk, and nobody who asks has to be known.
const MAX_FAILURES: u32 = 30;

impl Limits {
    pub(super) const MAX_ASKERS: usize = 4096;

    pub(super) fn new(per_minute: u32, open_in_all: usize, open_each: usize, now: Instant) -> Self {
        Self {
            per_minute,
            open_in_all,
            open_each,
            open: 0,
            askers: HashMap::new(),
            failures: Window::new(now),
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

    pub(super) fn close(&mut self, asker: Asker) {
        if let Some(counts) = self.askers.get_mut(&asker) {
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

    /// Whether an enrolment may be tried: there must be room to put its failure on record.
    pub(super) fn may_fail(&mut self, now: Instant) -> bool {
        self.failures.has_room(MAX_FAILURES, now)
    }

    pub(super) fn failed(&mut self) {
        self.failures.count += 1;
    }

    fn counts(&mut self, asker: Asker, now: Instant) -> Option<&mut Counts> {
        if self.askers.len() >= Self::MAX_ASKERS && !self.askers.contains_key(&asker) {
            self.askers
                .retain(|_, counts| counts.open > 0 || !counts.requests.is_over(now));
            if self.askers.len() >= Self::MAX_ASKERS {
                return None;
            }
        }
        let counts = self.askers.entry(asker).or_insert_with(|| Counts {
            open: 0,
            requests: Window::new(now),
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
        let (a, b) = (asker("10.0.0.1"), asker("10.0.0.2"));
        assert!(limits.request(a, now) && limits.request(a, now));
        assert!(!limits.request(a, now));
        assert!(limits.request(b, now));
        assert!(limits.request(a, now + MINUTE));

        assert!(limits.open(a, now) && limits.open(a, now));
        assert!(!limits.open(a, now));
        assert!(limits.open(b, now));
        assert!(!limits.open(asker("10.0.0.3"), now), "three in all");
        limits.close(a);
        assert!(limits.open(asker("10.0.0.3"), now));
    }

    #[test]
    fn an_ipv6_network_is_one_asker() {
        assert_eq!(asker("2001:db8::1"), asker("2001:db8::ffff"));
        assert_ne!(asker("2001:db8::1"), asker("2001:db8:0:1::1"));
        assert_eq!(asker("::ffff:10.0.0.1"), asker("10.0.0.1"));
    }

    #[test]
    fn failures_are_counted_in_all() {
        let now = Instant::now();
        let mut limits = Limits::new(1000, 1, 1, now);
        for _ in 0..MAX_FAILURES {
            assert!(limits.may_fail(now));
            limits.failed();
        }
        assert!(!limits.may_fail(now));
        assert!(limits.may_fail(now + MINUTE));
    }

    #[test]
    fn the_table_does_not_grow_for_ever() {
        let now = Instant::now();
        let mut limits = Limits::new(1, 1, 1, now);
        let from = |n: u32| Asker::from(IpAddr::from(n.to_be_bytes()));
        for n in 0..Limits::MAX_ASKERS as u32 {
            assert!(limits.request(from(n), now));
        }
        let one_more = from(1 << 20);
        assert!(!limits.request(one_more, now));
        assert!(limits.request(one_more, now + MINUTE));
        assert_eq!(limits.askers.len(), 1);
    }
}
