//! An edge: what its shell does around [`Dialler`] and [`Session`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use super::gate::Knock;
use super::head::{HEADS, Mood, hello};
use super::net::{Conn, End, heartbeat};
use super::reference::Dials;
use super::world::{Happening, World};
use crate::dialler::{ATTEMPT, Ended, Ending, Output};
use crate::{Close, Dialler, Event, Failure, Liveness, Session, Side, Transport};

/// Until the name server has answered, or has not.
const NAMES: u64 = 2000;

/// A process with the edge's key.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) site: usize,
    instance: [u8; 16],
    pub(super) died: Option<Instant>,
    pub(super) lines: Vec<Line>,
}

/// What a process has with one headend.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) dialler: Dialler,
    only: Option<Transport>,
    addresses: u16,
    /// The name server has ever answered.
    resolved: bool,
    /// It was asked.
    pub(super) resolving: bool,
    pub(super) attempts: BTreeMap<u32, Transport>,
    pub(super) tunnels: BTreeSet<usize>,
    pub(super) dials: Dials,
}

/// Which process dials which headend.
pub(super) type Pair = (usize, usize);

impl Line {
    fn new(only: Option<Transport>, addresses: u16, now: Instant, seed: u64) -> Self {
        Self {
            dialler: Dialler::new(only, now, seed),
            only,
            addresses,
            resolved: false,
            resolving: false,
            attempts: BTreeMap::new(),
            tunnels: BTreeSet::new(),
            dials: Dials::new(addresses.into(), only),
        }
    }

    pub(super) fn uses(&self, transport: Transport) -> bool {
        self.only.is_none_or(|only| only == transport)
    }
}

impl World {
    pub(super) fn edge_starts(&mut self, site: usize) {
        let number = self.processes.len();
        let mut line = || {
            let only = match self.dice.roll(10) {
                0 => Some(Transport::Quic),
                1 => Some(Transport::Tls),
                _ => None,
            };
            let addresses = 1 + self.dice.roll(2) as u16;
            Line::new(only, addresses, self.now, self.dice.roll(u64::MAX))
        };
        let lines = (0..HEADS).map(|_| line()).collect();
        self.processes.push(Process {
            site,
            instance: [number as u8; 16],
            died: None,
            lines,
        });
    }

    /// kill -9, or its machine loses power.
    pub(super) fn edge_dies(&mut self, process: usize) {
        self.processes[process].died = Some(self.now);
        for number in self.open.clone() {
            let own = self.conns[number].process == process;
            if own && self.conns[number].edge.take().is_some() && self.dice.percent(70) {
                self.hang_up(number, Side::Edge, false);
            }
        }
    }

    pub(super) fn line(&mut self, (process, head): Pair) -> &mut Line {
        &mut self.processes[process].lines[head]
    }

    /// When the dialler of a pair has something to do.
    pub(super) fn dial_deadline(&self, (process, head): Pair) -> Option<Instant> {
        let process = &self.processes[process];
        let alive = process.died.is_none();
        alive.then(|| process.lines[head].dialler.poll_timeout())?
    }

    /// Its timer, which may be early.
    pub(super) fn dial(&mut self, pair: Pair) {
        let now = self.now;
        self.line(pair).dialler.handle_timeout(now);
        self.dial_on(pair);
    }

    /// Does what the dialler of a pair says.
    fn dial_on(&mut self, pair: Pair) {
        while let Some(output) = self.line(pair).dialler.poll_output() {
            self.trace(&(pair, output));
            match output {
                Output::Resolve => self.resolve(pair),
                Output::Attempt { transport, .. } => self.attempt(pair, transport),
                Output::GiveUp => {
                    let line = self.line(pair);
                    line.attempts.clear();
                    line.dials.connected();
                }
            }
        }
    }

    fn resolve(&mut self, pair: Pair) {
        let line = self.line(pair);
        assert!(!line.resolving, "asks twice at a time: {line:?}");
        line.resolving = true;
        line.dials.asks(line.tunnels.is_empty());
        let slow = self.faults && self.dice.percent(5);
        if slow {
            let after = self.dice.millis(1..NAMES);
            self.later(after, Happening::Resolved { pair });
        } else {
            self.resolved(pair);
        }
    }

    pub(super) fn resolved(&mut self, pair: Pair) {
        let now = self.now;
        let no_names = self.faults && self.dice.percent(10);
        let line = self.line(pair);
        // Where a name led to before is dialled while it can't be resolved.
        line.resolved |= !no_names;
        let addresses = if line.resolved { line.addresses } else { 0 };
        line.resolving = false;
        line.dials.resolved(line.tunnels.is_empty());
        let addresses = (0..addresses).map(|n| SocketAddr::from(([192, 0, 2, 1], n)));
        line.dialler.handle_addresses(now, addresses.collect());
        if self.processes[pair.0].died.is_none() {
            self.dial_on(pair);
        }
    }

    fn attempt(&mut self, pair: Pair, transport: Transport) {
        let now = self.now;
        let id = self.next_id();
        let line = self.line(pair);
        line.attempts.insert(id, transport);
        if line.tunnels.is_empty() {
            line.dials.attempt(now, transport);
        }
        line.dials.tried(transport);
        let head = &self.heads[pair.1];
        let (start, off) = (head.start, !head.alive);
        let deadline = self.now + ATTEMPT;
        let open = self.sites[self.processes[pair.0].site].is_open(pair.1, transport);
        let slow = self.faults && self.dice.percent(self.slow);
        let round_trips = self.dice.millis(if slow { 200..5000 } else { 5..120 });
        let happening = match (open, off, transport) {
            (true, true, Transport::Tls) => Happening::NoAnswer { pair, id },
            (true, false, _) => Happening::Knock(Knock {
                pair,
                id,
                start,
                deadline,
                transport,
                proven: transport == Transport::Tls,
                rest: round_trips / 2,
            }),
            _ => return self.at(deadline, Happening::NoAnswer { pair, id }),
        };
        self.later(round_trips / 2, happening);
    }

    /// What the packets of a handshake come to.
    pub(super) fn handshake(&mut self, knock: Knock) {
        let Knock {
            pair,
            id,
            start,
            deadline,
            ..
        } = knock;
        let Some(&transport) = self.line(pair).attempts.get(&id) else {
            self.handshake_over(pair.1, start, id);
            return self.given_up(pair, start);
        };
        if self.processes[pair.0].died.is_some() {
            return;
        }
        let site = self.processes[pair.0].site;
        let head = &self.heads[pair.1];
        let there = head.alive && head.start == start;
        if !there || !self.sites[site].is_open(pair.1, transport) || self.now >= deadline {
            let at = deadline.max(self.now);
            return self.at(at, Happening::NoAnswer { pair, id });
        }
        let mood = head.mood;
        if !matches!(mood, Mood::Well | Mood::Closes) {
            self.handshake_over(pair.1, start, id);
        }
        match mood {
            Mood::Busy => self.failed(pair, id, Failure::Busy),
            // In TLS 1.3 the client is through before it hears that it is refused.
            Mood::Refuses if self.dice.percent(50) => {
                self.failed(pair, id, Failure::Refused);
            }
            Mood::Refuses => {
                let number = self.connected(pair, transport);
                self.hang_up(number, Side::Headend, true);
            }
            Mood::Well | Mood::Closes => {
                let number = self.connected(pair, transport);
                self.announce(number, start, id);
            }
        }
    }

    /// The other end may be through with a handshake that nobody wants any more.
    fn given_up(&mut self, (process, head): Pair, start: u8) {
        if self.dice.percent(50) {
            let number = self.conns.len();
            let conn = Conn::new(process, head, Transport::Tls, self.now);
            self.conns.push(conn);
            self.head_opens(number, start);
            if self.dice.percent(80) {
                self.hang_up(number, Side::Edge, false);
            }
        }
    }

    fn connected(&mut self, pair: Pair, transport: Transport) -> usize {
        let number = self.conns.len();
        let mut conn = Conn::new(pair.0, pair.1, transport, self.now);
        let hello = hello(self.processes[pair.0].instance);
        let session = Session::edge(&hello, Liveness::default(), heartbeat(transport), self.now);
        conn.edge = Some(End::new(session, self.now));
        self.conns.push(conn);
        self.open.insert(number);
        let now = self.now;
        let line = self.line(pair);
        line.tunnels.insert(number);
        let wanted = line.dialler.handle_connected(now, number as u32, transport);
        assert!(wanted, "it was not closed");
        self.dial_on(pair);
        number
    }

    pub(super) fn failed(&mut self, pair: Pair, id: u32, why: Failure) {
        let now = self.now;
        let dead = self.processes[pair.0].died.is_some();
        let line = self.line(pair);
        let wanted = line.attempts.remove(&id).is_some();
        if wanted && !dead {
            line.dials.failed(now, why);
            line.dialler.handle_failed(now, why);
            self.dial_on(pair);
        }
    }

    pub(super) fn edge_event(&mut self, number: usize, event: Event) {
        match event {
            Event::Up(_) => {
                if let Some(end) = &mut self.conns[number].edge {
                    end.was_up = true;
                }
            }
            Event::Goodbye { code, .. } => {
                let why = match Close::from_code(code) {
                    Some(Close::Shutdown) => Ending::Stopped,
                    Some(close) if close.is_refusal() => Ending::Refused,
                    _ => Ending::Lost,
                };
                self.edge_ends(number, why);
            }
            Event::HelloTimeout | Event::Dead => self.edge_ends(number, Ending::Lost),
            _ => {}
        }
    }

    pub(super) fn edge_ends(&mut self, number: usize, why: Ending) {
        let Some(end) = self.conns[number].edge.take() else {
            return;
        };
        self.hang_up(number, Side::Edge, false);
        let conn = &self.conns[number];
        let (pair, transport, now) = ((conn.process, conn.head), conn.transport, self.now);
        let line = self.line(pair);
        line.tunnels.remove(&number);
        if line.tunnels.is_empty() {
            line.dials.alone();
        }
        match (end.was_up, why) {
            (true, why) if line.tunnels.is_empty() => line.dials.won(now, transport, why),
            (true, _) => {}
            (false, Ending::Refused) => line.dials.failed(now, Failure::Refused),
            (false, _) => line.dials.failed(now, Failure::Network),
        }
        let ended = Ended {
            was_up: end.was_up,
            why,
            round_trip: end.session.round_trip(),
        };
        line.dialler.handle_ended(now, number as u32, ended);
        self.dial_on(pair);
    }

    /// With another certificate, beside what there is.
    pub(super) fn renew(&mut self, pair: Pair) {
        let now = self.now;
        let newest = self.line(pair).tunnels.last().copied();
        let over = newest.map(|newest| self.conns[newest].transport);
        let line = self.line(pair);
        line.dials.begin_again(now, over);
        line.dialler.handle_renew(now);
        self.dial_on(pair);
    }
}
