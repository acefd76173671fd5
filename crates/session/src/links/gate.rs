//! The handshakes at a headend, what its shell does around [`Admission`]: those of the edge and its copy,
//! of a crowd of others that come back at once, and of forged addresses. With the reference of its limits.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::edge::Pair;
use super::head::HEADS;
use super::world::{Happening, World};
use crate::admission::{Admission, Limits, Turn, Verdict};
use crate::{Backoff, Failure, Transport};

/// So little that a crowd fills it, and an edge by itself does not.
const LIMITS: Limits = Limits {
    // These are about handshakes alone.
    max_tunnels: usize::MAX,
    max_handshakes: 16,
    max_handshakes_per_address: 12,
    handshake_rate: 40,
    handshake_rate_per_address: 20,
};
/// From the first packet to the end of the handshake, at a headend.
const HANDSHAKE: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
/// In which one who comes again as often as it may does get in, beside a whole crowd.
const CROWD: Duration = Duration::from_secs(25);
/// Tunnels of one edge at once, beyond one a second.
const TUNNELS: usize = 30;

/// An attempt as the headend meets it, whose process had started so often then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knock {
    pub(super) pair: Pair,
    pub(super) id: u32,
    pub(super) start: u8,
    pub(super) deadline: Instant,
    pub(super) transport: Transport,
    pub(super) proven: bool,
    /// The packets that are still to cross.
    pub(super) rest: Duration,
}

/// One of a crowd of edges, of which only the handshake is of interest here.
#[derive(Debug)]
pub(super) struct Member {
    head: usize,
    address: IpAddr,
    /// How long its handshake takes, at most.
    takes: u64,
    since: Instant,
    backoff: Backoff,
}

impl Member {
    pub(super) fn is_at(&self, head: usize) -> bool {
        self.head == head
    }
}

/// Of one process of a headend.
#[derive(Debug, Default)]
pub(super) struct Gate {
    admission: Admission,
    under_way: BTreeMap<u32, (Option<IpAddr>, Turn)>,
    /// When handshakes began, and of whom, within the last seconds.
    begun: VecDeque<(Instant, Option<IpAddr>)>,
    /// When edges got a tunnel, by name.
    welcomed: BTreeMap<String, VecDeque<Instant>>,
}

impl Gate {
    /// Judges a handshake, and is judged. When it is to begin, if that is soon.
    fn knock(&mut self, id: u32, from: IpAddr, proven: bool, now: Instant) -> Asked {
        while self
            .begun
            .front()
            .is_some_and(|(at, _)| *at + 2 * SECOND < now)
        {
            self.begun.pop_front();
        }
        let verdict = self
            .admission
            .handle_handshake(&LIMITS, 0, from, proven, now);
        match verdict {
            Verdict::Begin(turn) => {
                let at = turn.at();
                assert_eq!(turn.is_proven(), proven);
                let source = proven.then_some(from);
                self.begun.push_back((at, source));
                self.under_way.insert(id, (source, turn));
                self.check_begin(at, source, now);
                Asked::Begins(at)
            }
            Verdict::Prove => {
                assert!(!proven, "asked to prove what it has proven");
                Asked::Proves
            }
            Verdict::Later => {
                self.check_later(proven.then_some(from), now);
                Asked::ComesBack
            }
        }
    }

    fn check_begin(&self, at: Instant, source: Option<IpAddr>, now: Instant) {
        assert!(
            at >= now && at <= now + Duration::from_millis(101),
            "{at:?}"
        );
        let rate = LIMITS.handshake_rate as usize;
        assert!(self.begun_since(at, |_| true) <= rate + 4, "too many begin");
        assert!(self.under_way.len() <= LIMITS.max_handshakes);
        let own = self.of(source);
        match source {
            Some(_) => {
                assert!(own <= LIMITS.max_handshakes_per_address, "{source:?}");
                let rate = LIMITS.handshake_rate_per_address as usize;
                let begun = self.begun_since(at, |of| of == source);
                assert!(begun <= rate + rate / 2, "too many of {source:?} begin");
            }
            None => {
                assert!(own <= LIMITS.max_handshakes / 4 + 1, "forged: {own}");
                let wait = at.duration_since(now) * LIMITS.handshake_rate;
                assert!(
                    wait <= Duration::from_millis(1010),
                    "forged, after {wait:?}"
                );
            }
        }
    }

    /// Nobody is turned away who can be served: the headend is full, or the sender has had its share.
    fn check_later(&self, source: Option<IpAddr>, now: Instant) {
        let waiting = self.begun.iter().filter(|(at, _)| *at > now).count();
        let full = self.under_way.len() >= LIMITS.max_handshakes || waiting >= 2;
        let begun = self.begun_since(now, |of| of == source);
        let share = LIMITS.handshake_rate_per_address as usize / 2;
        let had = self.of(source) >= LIMITS.max_handshakes_per_address || begun >= share;
        assert!(full || source.is_some() && had, "turned away {source:?}");
    }

    fn begun_since(&self, at: Instant, whose: impl Fn(Option<IpAddr>) -> bool) -> usize {
        let within = |(begun, of): &&(Instant, Option<IpAddr>)| *begun + SECOND > at && whose(*of);
        self.begun.iter().filter(within).count()
    }

    fn of(&self, source: Option<IpAddr>) -> usize {
        let own = |(of, _): &&(Option<IpAddr>, Turn)| *of == source;
        self.under_way.values().filter(own).count()
    }

    /// A handshake is over.
    fn over(&mut self, id: u32) {
        if let Some((_, turn)) = self.under_way.remove(&id) {
            self.admission.handle_ended(turn);
        }
    }

    /// Whether an edge may have one more tunnel.
    pub(super) fn welcomes(&mut self, edge: &str, now: Instant) -> bool {
        let welcome = self.admission.handle_edge(edge, now);
        let times = self.welcomed.entry(edge.to_owned()).or_default();
        while times.front().is_some_and(|at| *at + 10 * SECOND < now) {
            times.pop_front();
        }
        if welcome {
            times.push_back(now);
        }
        assert!(times.len() <= TUNNELS + 11, "`{edge}` comes too often");
        assert!(welcome || times.len() >= 10, "`{edge}` is turned away");
        welcome
    }

    pub(super) fn check(&self) {
        let counted = self.admission.under_way();
        assert_eq!(counted, self.under_way.len(), "handshakes under way");
    }

    pub(super) fn is_idle(&self) -> bool {
        self.admission.under_way() == 0
    }
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Begins(Instant),
    Proves,
    ComesBack,
}

impl World {
    /// The first packets of an attempt arrive, or those that prove its address.
    pub(super) fn knock(&mut self, knock: Knock) {
        let site = self.processes[knock.pair.0].site;
        let head = knock.pair.1;
        let there = self.heads[head].alive && self.heads[head].start == knock.start;
        if !there || !self.sites[site].is_open(head, knock.transport) {
            let at = knock.deadline.max(self.now);
            let Knock { pair, id, .. } = knock;
            return self.at(at, Happening::NoAnswer { pair, id });
        }
        let moved = self.sites[site].moved as u8;
        let from = IpAddr::from([198, 51, site as u8, moved]);
        let asked = self.heads[head]
            .gate
            .knock(knock.id, from, knock.proven, self.now);
        match asked {
            Asked::Begins(at) => {
                let over = Happening::HandshakeOver {
                    head,
                    start: knock.start,
                    id: knock.id,
                };
                self.later(HANDSHAKE, over);
                self.at(at + knock.rest, Happening::Handshake(knock));
            }
            Asked::Proves => {
                let proven = Knock {
                    proven: true,
                    ..knock
                };
                self.later(knock.rest, Happening::Knock(proven));
            }
            Asked::ComesBack => {
                let after = self.dice.millis(1..30);
                let Knock { pair, id, .. } = knock;
                self.later(after, Happening::PutOff { pair, id });
            }
        }
    }

    /// The headend said that it is busy, if that gets through.
    pub(super) fn put_off(&mut self, pair: Pair, id: u32) {
        let Some(&transport) = self.line(pair).attempts.get(&id) else {
            return;
        };
        let site = self.processes[pair.0].site;
        if self.sites[site].is_open(pair.1, transport) {
            self.failed(pair, id, Failure::Busy);
        } else {
            self.later(HANDSHAKE, Happening::NoAnswer { pair, id });
        }
    }

    pub(super) fn handshake_over(&mut self, head: usize, start: u8, id: u32) {
        if self.heads[head].start == start {
            self.heads[head].gate.over(id);
        }
    }

    /// A switch between a headend and many other edges is well again: they all come within a moment, each
    /// from its own address, or all from that of the one router before them.
    pub(super) fn crowd_comes(&mut self, head: usize) {
        self.heads[head].crowds += 1;
        let router = self.dice.percent(40);
        let takes = [200, 1500][self.dice.roll(2) as usize];
        for _ in 0..10 + self.dice.roll(50) {
            let number = self.next_id();
            let member = Member {
                head,
                address: IpAddr::from(match router {
                    true => [198, 51, 9, 9],
                    false => (0x0a00_0000 | number).to_be_bytes(),
                }),
                takes,
                since: self.now,
                backoff: Backoff::new(SECOND, 8 * SECOND, self.dice.roll(u64::MAX)),
            };
            self.crowd.insert(number, member);
            let after = self.dice.millis(0..400);
            self.later(after, Happening::Comes { member: number });
        }
    }

    pub(super) fn comes(&mut self, number: u32) {
        let now = self.now;
        let Some(member) = self.crowd.get_mut(&number) else {
            return;
        };
        let head = &mut self.heads[member.head];
        if !head.alive {
            // It has time from when the headend is there again.
            member.since = now;
            return self.later(SECOND, Happening::Comes { member: number });
        }
        assert!(now <= member.since + CROWD, "never gets in: {member:?}");
        let (at, start) = (member.head, head.start);
        match head.gate.knock(number, member.address, true, now) {
            Asked::Begins(turn) => {
                let takes = self.dice.millis(5..member.takes);
                let over = Happening::CrowdIn {
                    head: at,
                    start,
                    member: number,
                };
                self.at(turn + takes, over);
            }
            _ => {
                let delay = member.backoff.delay();
                self.later(delay, Happening::Comes { member: number });
            }
        }
    }

    /// One of the crowd is through its handshake, unless the headend has gone.
    pub(super) fn crowd_in(&mut self, head: usize, start: u8, number: u32) {
        let there = self.heads[head].alive && self.heads[head].start == start;
        self.handshake_over(head, start, number);
        if there {
            self.crowd.remove(&number);
        } else {
            self.comes(number);
        }
    }

    /// Packets that seem to come from everywhere.
    pub(super) fn forged(&mut self, head: usize, left: u32) {
        let id = self.next_id();
        let from = IpAddr::from((self.dice.roll(1 << 32) as u32).to_be_bytes());
        let (now, start) = (self.now, self.heads[head].start);
        if self.heads[head].alive {
            let asked = self.heads[head].gate.knock(id, from, false, now);
            if let Asked::Begins(_) = asked {
                self.later(HANDSHAKE, Happening::HandshakeOver { head, start, id });
            }
        }
        if left > 0 {
            let left = left - 1;
            self.later(Duration::from_millis(5), Happening::Forged { head, left });
        }
    }

    /// Another edge that has nothing better to do than to dial.
    pub(super) fn churns(&mut self, head: usize) {
        let now = self.now;
        for _ in 0..50 {
            self.heads[head].gate.welcomes("another", now);
        }
    }

    pub(super) fn check_gates(&self) {
        for head in &self.heads {
            head.gate.check();
        }
    }

    /// At the end: all who came are in, and nothing is under way where nobody dials.
    pub(super) fn check_idle(&self) {
        assert!(self.crowd.is_empty(), "{:?}", self.crowd);
        for head in 0..HEADS {
            let idle = self.heads[head].gate.is_idle();
            assert!(idle || self.living(1).is_some(), "under way at rest");
        }
    }
}
