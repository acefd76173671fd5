//! Which handshakes may begin, so that a storm of them leaves live tunnels their share.
//!
//! A handshake costs about 1 ms of the one thread that serves live tunnels too, and an address that
//! nobody has proven costs an attacker nothing. So handshakes begin at a rate, evenly, half of it at most
//! for those whose address is not proven, and no address gets more than its own share.
//!
//! # The state machine
//!
//! [`Admission`] has no socket and no clock. Each handshake that wants to begin is judged by
//! [`handle_handshake`]. One that may begin has a [`Turn`]: the shell waits for [`Turn::at`], and gives the
//! turn back with [`handle_ended`] once the handshake is over, whatever it came to. An edge whose
//! handshake is done is judged by [`handle_edge`] before its tunnel begins. There is nothing to poll: what
//! time changes is settled when somebody comes.
//!
//! Time is an argument and never decreases.
//!
//! # What holds
//!
//! - No handshake begins that would bring tunnels above [`Limits::max_tunnels`].
//! - Under way are exactly the turns that were not given back: at most [`Limits::max_handshakes`], and of
//!   these at most [`Limits::max_handshakes_per_address`] of one proven address.
//! - Turns are spread evenly at [`Limits::handshake_rate`], and none is later than a tenth of a second, or
//!   than the time that four take.
//! - Of one proven address begin at most [`Limits::handshake_rate_per_address`] in a second, and at once what
//!   comes in within half of one, or four.
//! - Those that have proven nothing get a turn only while few are under way, a fourth, and while few wait,
//!   half of those that may. The rest is left to those who have proven their address.
//! - One edge gets 30 tunnels at once, and one more in each second.
//! - What is remembered is bounded: of addresses, and of edges.
//!
//! [`handle_handshake`]: Admission::handle_handshake
//! [`handle_ended`]: Admission::handle_ended
//! [`handle_edge`]: Admission::handle_edge

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Addresses with a share that is not full, remembered at a time; 100 octets each.
const MAX_SOURCES: usize = 4096;
/// So long a handshake may have to wait for its turn.
const QUEUE: Duration = Duration::from_millis(100);
/// What comes in within this time from one address.
const SOURCE_BURST: Duration = Duration::from_millis(500);
/// The same of one edge, which has to come from somewhere else to be more than one address.
const EDGE_BURST: f64 = 30.0;
const EDGE_RATE: f64 = 1.0;

/// How much a headend takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Tunnels, and handshakes under way, which may become one.
    pub max_tunnels: usize,
    /// Handshakes under way at once.
    pub max_handshakes: usize,
    /// Of these, from one address (IPv6: from one /64).
    pub max_handshakes_per_address: usize,
    /// Handshakes that begin within a second.
    pub handshake_rate: u32,
    /// Of these, from one address.
    pub handshake_rate_per_address: u32,
}

/// Whether a handshake may begin.
#[derive(Debug)]
pub enum Verdict {
    /// At its turn.
    Begin(Turn),
    /// The address has to prove itself first (RFC 9000, section 8.1.2).
    Prove,
    /// Not now.
    Later,
}

/// A handshake under way, until it is given back: it is neither copied nor made by anybody else.
#[derive(Debug)]
#[must_use = "it counts until it is given back"]
pub struct Turn {
    source: Option<IpAddr>,
    at: Instant,
}

impl Turn {
    /// When the handshake is to begin: one after another, so that live tunnels come in between.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Its sender has answered from this address.
    pub fn is_proven(&self) -> bool {
        self.source.is_some()
    }
}

#[derive(Debug, Default)]
struct Source {
    under_way: usize,
    bucket: Bucket,
}

/// What is spent, and when that was so: an empty record is a full bucket.
#[derive(Debug, Default)]
struct Bucket {
    spent: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn settle(&mut self, now: Instant, rate: f64) {
        let passed = self
            .at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.spent = (self.spent - passed * rate).max(0.0);
        self.at = Some(now);
    }

    fn has_room(&self, size: f64) -> bool {
        self.spent + 1.0 <= size
    }
}

/// What a bucket of this rate holds.
fn size(rate: u32, burst: Duration) -> f64 {
    (f64::from(rate) * burst.as_secs_f64()).max(4.0)
}

/// Who came too often, or is one too many. See the [module](self) for the order of calls.
#[derive(Debug, Default)]
pub struct Admission {
    under_way: usize,
    /// What is spent are those that wait for their turn.
    all: Bucket,
    sources: HashMap<IpAddr, Source>,
    /// By name: edges that came within the last half minute.
    edges: HashMap<String, Bucket>,
}

impl Admission {
    /// Judges a handshake that wants to begin, while there are so many `tunnels`. `proven`: its sender has
    /// answered from this address.
    pub fn handle_handshake(
        &mut self,
        limits: &Limits,
        tunnels: usize,
        from: IpAddr,
        proven: bool,
        now: Instant,
    ) -> Verdict {
        let rate = f64::from(limits.handshake_rate);
        self.all.settle(now, rate);
        let size_of_all = size(limits.handshake_rate, QUEUE);
        let room = limits.max_tunnels.saturating_sub(tunnels);
        if self.under_way >= room
            || self.under_way >= limits.max_handshakes
            || !self.all.has_room(size_of_all)
        {
            return Verdict::Later;
        }
        let pressed =
            self.under_way * 4 > limits.max_handshakes || !self.all.has_room(size_of_all / 2.0);
        if pressed && !proven {
            return Verdict::Prove;
        }
        let source = proven.then(|| network(from));
        if let Some(source) = source
            && !self.take_source(limits, source, now)
        {
            return Verdict::Later;
        }
        let at = now + Duration::from_secs_f64(self.all.spent / rate);
        self.all.spent += 1.0;
        self.under_way += 1;
        Verdict::Begin(Turn { source, at })
    }

    /// A handshake is over, whatever it came to.
    pub fn handle_ended(&mut self, turn: Turn) {
        self.under_way -= 1;
        let source = turn.source;
        if let Some(source) = source.and_then(|source| self.sources.get_mut(&source)) {
            source.under_way -= 1;
        }
    }

    /// Whether an edge that has proven its name may have one more tunnel by now: one a second, and
    /// some at once.
    pub fn handle_edge(&mut self, edge: &str, now: Instant) -> bool {
        if self.edges.len() >= MAX_SOURCES && !self.edges.contains_key(edge) {
            self.edges.retain(|_, bucket| {
                bucket.settle(now, EDGE_RATE);
                bucket.spent > 0.0
            });
            if self.edges.len() >= MAX_SOURCES {
                // So many come back at once that none of them stands out.
                return true;
            }
        }
        let bucket = self.edges.entry(edge.to_owned()).or_default();
        bucket.settle(now, EDGE_RATE);
        let welcome = bucket.has_room(EDGE_BURST);
        if welcome {
            bucket.spent += 1.0;
        }
        welcome
    }

    /// Handshakes that have begun, or wait for their turn, and are not over.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    fn take_source(&mut self, limits: &Limits, from: IpAddr, now: Instant) -> bool {
        let rate = limits.handshake_rate_per_address;
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&from) {
            self.sources.retain(|_, source| {
                source.bucket.settle(now, f64::from(rate));
                source.under_way > 0 || source.bucket.spent > 0.0
            });
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        let source = self.sources.entry(from).or_default();
        source.bucket.settle(now, f64::from(rate));
        if source.under_way >= limits.max_handshakes_per_address
            || !source.bucket.has_room(size(rate, SOURCE_BURST))
        {
            return false;
        }
        source.under_way += 1;
        source.bucket.spent += 1.0;
        true
    }
}

/// What one subscriber has at least: an address of IPv4, a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) >> 64 << 64;
            Ipv6Addr::from(prefix).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            max_tunnels: 1000,
            max_handshakes: 64,
            max_handshakes_per_address: 32,
            handshake_rate: 400,
            handshake_rate_per_address: 40,
        }
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    /// Knocks until it is turned away; the turns, and what ended it.
    fn knock_on(
        admission: &mut Admission,
        mut from: impl FnMut(u32) -> IpAddr,
        proven: bool,
        now: Instant,
    ) -> (Vec<Turn>, Verdict) {
        let mut turns = Vec::new();
        loop {
            let from = from(turns.len() as u32);
            match admission.handle_handshake(&limits(), 0, from, proven, now) {
                Verdict::Begin(turn) => turns.push(turn),
                other => return (turns, other),
            }
        }
    }

    /// Whether a handshake may begin; it is over at once.
    fn passes(admission: &mut Admission, from: IpAddr, proven: bool, now: Instant) -> bool {
        match admission.handle_handshake(&limits(), 0, from, proven, now) {
            Verdict::Begin(turn) => {
                admission.handle_ended(turn);
                true
            }
            _ => false,
        }
    }

    #[test]
    fn handshakes_under_way_are_bounded_and_make_room_again() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let (mut turns, _) = knock_on(&mut admission, address, true, now);
        assert_eq!(turns.len(), 40, "what comes in within a tenth of a second");
        let (more, last) = knock_on(&mut admission, address, true, now + SOURCE_BURST);
        turns.extend(more);
        assert_eq!(turns.len(), 64);
        assert!(matches!(last, Verdict::Later));
        turns
            .into_iter()
            .for_each(|turn| admission.handle_ended(turn));
        assert_eq!(admission.under_way(), 0);
    }

    #[test]
    fn handshakes_are_put_off_where_their_tunnels_would_be_too_many() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let mut begins = |tunnels| {
            let from = address(1);
            admission.handle_handshake(&limits(), tunnels, from, true, now)
        };
        let Verdict::Begin(first) = begins(998) else {
            panic!("there is room for two");
        };
        assert!(matches!(begins(999), Verdict::Later), "one is under way");
        assert!(matches!(begins(1000), Verdict::Later));
        assert!(matches!(begins(usize::MAX), Verdict::Later));
        assert!(matches!(begins(998), Verdict::Begin(_)));
        admission.handle_ended(first);
    }

    #[test]
    fn those_that_come_together_begin_one_after_another() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let (turns, _) = knock_on(&mut admission, address, true, now);
        for (n, turn) in (0u32..).zip(&turns) {
            let expected = now + Duration::from_micros(2500) * n;
            let off = turn.at().max(expected) - turn.at().min(expected);
            assert!(off < Duration::from_micros(1), "{n}: {off:?}");
        }
        turns
            .into_iter()
            .for_each(|turn| admission.handle_ended(turn));
        let alone = now + QUEUE;
        let Verdict::Begin(turn) =
            admission.handle_handshake(&limits(), 0, address(1), true, alone)
        else {
            panic!("there is nobody else");
        };
        assert_eq!(turn.at(), alone, "it begins at once");
    }

    #[test]
    fn they_begin_at_a_rate() {
        let mut admission = Admission::default();
        let begun = Instant::now();
        let mut began = 0;
        for milli in 0..2000 {
            for n in 0..5 {
                let now = begun + Duration::from_millis(milli);
                let from = address(milli as u32 * 5 + n);
                began += usize::from(passes(&mut admission, from, true, now));
            }
        }
        // A burst of 40, and 400 a second.
        assert!((820..=850).contains(&began), "{began}");
    }

    #[test]
    fn an_address_has_its_own_share_and_leaves_the_rest_to_others() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let (turns, last) = knock_on(&mut admission, |_| address(1), true, now);
        assert_eq!(turns.len(), 20, "what comes in within half a second");
        assert!(matches!(last, Verdict::Later));
        let later = now + Duration::from_secs(1);
        let (more, _) = knock_on(&mut admission, |_| address(1), true, later);
        assert_eq!(more.len(), 12, "no more than may be under way");
        let other = admission.handle_handshake(&limits(), 0, address(2), true, later);
        assert!(matches!(other, Verdict::Begin(_)));
    }

    #[test]
    fn a_prefix_of_ipv6_is_one_address() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let v6 = |octets: u128| IpAddr::from(Ipv6Addr::from(octets));
        let from = |n: u32| v6((0x2001_0db8 << 96) | u128::from(n) << 32);
        let (turns, _) = knock_on(&mut admission, from, true, now);
        assert_eq!(turns.len(), 20);
        let other = v6((0x2001_0db8_0000_0001 << 64) | 1);
        let other = admission.handle_handshake(&limits(), 0, other, true, now);
        assert!(matches!(other, Verdict::Begin(_)));
    }

    #[test]
    fn forged_addresses_leave_room_for_those_that_prove_theirs() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let (forged, last) = knock_on(&mut admission, address, false, now);
        assert_eq!(forged.len(), 17, "a fourth of those under way");
        assert!(matches!(last, Verdict::Prove));
        let honest = admission.handle_handshake(&limits(), 0, address(7), true, now);
        assert!(matches!(honest, Verdict::Begin(_)));
        assert!(
            admission.sources.len() == 1,
            "nothing is kept of the forged"
        );
    }

    #[test]
    fn a_flood_that_proves_nothing_never_uses_up_the_rate() {
        let mut admission = Admission::default();
        let begun = Instant::now();
        for milli in 0..3000 {
            let now = begun + Duration::from_millis(milli);
            for n in 0..20 {
                passes(&mut admission, address(n), false, now);
            }
            if milli % 10 == 0 {
                let honest = passes(&mut admission, address(9), true, now);
                let share = admission.sources[&address(9)].bucket.spent;
                assert!(honest || share > 19.0, "{milli}");
            }
        }
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded_and_forgotten() {
        let mut admission = Admission::default();
        let mut now = Instant::now();
        for n in 0..3 * MAX_SOURCES as u32 {
            now += Duration::from_micros(2500);
            passes(&mut admission, address(n), true, now);
            assert!(admission.sources.len() <= MAX_SOURCES);
        }
        now += Duration::from_secs(60);
        assert!(passes(&mut admission, address(u32::MAX), true, now));
    }

    #[test]
    fn an_edge_that_comes_again_and_again_is_told_to_wait() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let mut welcome = |now| {
            (0..100)
                .filter(|_| admission.handle_edge("edge-1", now))
                .count()
        };
        assert_eq!(welcome(now), 30);
        assert_eq!(welcome(now + Duration::from_secs(5)), 5);
        assert!(admission.handle_edge("edge-2", now));
        for n in 0..2 * MAX_SOURCES {
            admission.handle_edge(&format!("many-{n}"), now);
        }
        assert!(admission.edges.len() <= MAX_SOURCES);
    }
}
