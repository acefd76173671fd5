//! An edge: what `agent`'s dialler does around [`Race`] and [`Session`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::head::{HEADS, Mood, hello};
use super::net::{Conn, End, heartbeat};
use super::reference::Dials;
use super::world::{Happening, World};
use crate::race::Attempt;
use crate::{Close, Event, Failure, Liveness, Race, Session, Side, Transport};

/// How `agent` bounds an attempt, and when it tries QUIC again.
pub(super) const ATTEMPT: Duration = Duration::from_secs(4);
const RETURN_FIRST: Duration = Duration::from_secs(5);
const RETURN_LAST: Duration = Duration::from_secs(300);

/// A process with the edge's key.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) site: usize,
    instance: [u8; 16],
    pub(super) died: Option<Instant>,
    pub(super) diallers: Vec<Dialler>,
}

/// Keeps a tunnel to one headend.
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) race: Race,
    only: Option<Transport>,
    addresses: u64,
    pub(super) attempts: BTreeMap<u32, Transport>,
    pub(super) tunnels: BTreeSet<usize>,
    transport: Option<Transport>,
    return_at: Option<Instant>,
    return_after: Duration,
    pub(super) dials: Dials,
}

/// Which process dials which headend.
pub(super) type Pair = (usize, usize);

impl Dialler {
    fn new(only: Option<Transport>, addresses: u64, now: Instant, seed: u64) -> Self {
        Self {
            race: Race::new(only, now, seed),
            only,
            addresses,
            attempts: BTreeMap::new(),
            tunnels: BTreeSet::new(),
            transport: None,
            return_at: None,
            return_after: RETURN_FIRST,
            dials: Dials::new(addresses),
        }
    }

    pub(super) fn uses(&self, transport: Transport) -> bool {
        self.only.is_none_or(|only| only == transport)
    }
}

impl World {
    pub(super) fn edge_starts(&mut self, site: usize) {
        let number = self.processes.len();
        let mut dialler = || {
            let only = match self.dice.roll(10) {
                0 => Some(Transport::Quic),
                1 => Some(Transport::Tls),
                _ => None,
            };
            let addresses = 1 + self.dice.roll(2);
            Dialler::new(only, addresses, self.now, self.dice.roll(u64::MAX))
        };
        let diallers = (0..HEADS).map(|_| dialler()).collect();
        self.processes.push(Process {
            site,
            instance: [number as u8; 16],
            died: None,
            diallers,
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

    pub(super) fn dialler(&mut self, (process, head): Pair) -> &mut Dialler {
        &mut self.processes[process].diallers[head]
    }

    /// When the dialler of a pair has something to do.
    pub(super) fn dial_deadline(&self, (process, head): Pair) -> Option<Instant> {
        let process = &self.processes[process];
        let dialler = &process.diallers[head];
        match (process.died, dialler.tunnels.is_empty()) {
            (Some(_), _) => None,
            (None, true) => Some(dialler.race.poll_timeout()),
            (None, false) => dialler.return_at,
        }
    }

    pub(super) fn dial(&mut self, pair: Pair) {
        let now = self.now;
        let no_names = self.faults && self.dice.percent(2);
        let dialler = self.dialler(pair);
        if !dialler.tunnels.is_empty() {
            if dialler.return_at.is_some_and(|at| now >= at) {
                self.try_quic(pair);
            }
            return;
        }
        if dialler.race.round_due(now) {
            let addresses = if no_names { 0 } else { dialler.addresses };
            dialler.dials.round(now);
            dialler.race.start_round(now, addresses as usize);
        }
        while let Some(Attempt { transport, .. }) = self.dialler(pair).race.poll_attempt(now) {
            self.dialler(pair).dials.attempt(now);
            self.attempt(pair, transport);
        }
    }

    fn attempt(&mut self, pair: Pair, transport: Transport) {
        self.attempts += 1;
        let id = self.attempts;
        self.dialler(pair).attempts.insert(id, transport);
        let head = &self.heads[pair.1];
        let (start, off) = (head.start, !head.alive);
        let deadline = self.now + ATTEMPT;
        let open = self.sites[self.processes[pair.0].site].is_open(pair.1, transport);
        let slow = self.faults && self.dice.percent(self.slow);
        let round_trips = self.dice.millis(if slow { 200..5000 } else { 5..120 });
        let happening = match (open, off, transport) {
            (true, true, Transport::Tls) => Happening::NoAnswer { pair, id },
            (true, false, _) => Happening::Handshake {
                pair,
                id,
                start,
                deadline,
            },
            _ => return self.at(deadline, Happening::NoAnswer { pair, id }),
        };
        self.later(round_trips, happening);
    }

    /// What the packets of a handshake come to.
    pub(super) fn handshake(&mut self, pair: Pair, id: u32, start: u8, deadline: Instant) {
        let Some(&transport) = self.dialler(pair).attempts.get(&id) else {
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
        match head.mood {
            Mood::Busy => self.failed(pair, Some(id), Failure::Busy),
            // In TLS 1.3 the client is through before it hears that it is refused.
            Mood::Refuses if self.dice.percent(50) => {
                self.failed(pair, Some(id), Failure::Refused);
            }
            Mood::Refuses => {
                let number = self.connected(pair, transport);
                self.hang_up(number, Side::Headend, true);
            }
            Mood::Well | Mood::Closes => {
                let number = self.connected(pair, transport);
                self.announce(number, start);
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
        let dialler = self.dialler(pair);
        // Those under way: one tunnel is enough.
        dialler.attempts.clear();
        dialler.race.connected();
        dialler.tunnels.insert(number);
        dialler.transport = Some(transport);
        if transport == Transport::Tls && dialler.only.is_none() {
            dialler.return_at = Some(now + dialler.return_after);
        } else {
            dialler.return_at = None;
            dialler.return_after = RETURN_FIRST;
        }
        number
    }

    pub(super) fn failed(&mut self, pair: Pair, id: Option<u32>, why: Failure) {
        let now = self.now;
        let dead = self.processes[pair.0].died.is_some();
        let dialler = self.dialler(pair);
        let wanted = id.is_none_or(|id| dialler.attempts.remove(&id).is_some());
        if wanted && !dead {
            dialler.dials.failed(now, why);
            dialler.race.failed(now, why);
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
                let close = Close::from_code(code);
                let pair = (self.conns[number].process, self.conns[number].head);
                self.edge_ends(number, close.is_some_and(Close::is_refusal));
                if close == Some(Close::Shutdown) {
                    let now = self.now;
                    self.dialler(pair).race.expect_back(now);
                }
            }
            Event::HelloTimeout | Event::Dead => self.edge_ends(number, false),
            _ => {}
        }
    }

    pub(super) fn edge_ends(&mut self, number: usize, refused: bool) {
        let Some(end) = self.conns[number].edge.take() else {
            return;
        };
        self.hang_up(number, Side::Edge, false);
        let conn = &self.conns[number];
        let (pair, transport, now) = ((conn.process, conn.head), conn.transport, self.now);
        let dialler = self.dialler(pair);
        dialler.tunnels.remove(&number);
        let alone = dialler.tunnels.is_empty();
        if alone {
            dialler.transport = None;
            dialler.return_at = None;
        }
        match (end.was_up, alone) {
            (true, true) => {
                dialler.dials.won(now);
                dialler.race.won(now, transport);
            }
            (true, false) => {}
            (false, _) => {
                let why = if refused {
                    Failure::Refused
                } else {
                    Failure::Network
                };
                self.failed(pair, None, why);
            }
        }
    }

    fn try_quic(&mut self, pair: Pair) {
        let now = self.now;
        let dialler = self.dialler(pair);
        dialler.return_after = (dialler.return_after * 2).min(RETURN_LAST);
        dialler.return_at = Some(now + dialler.return_after);
        if dialler.transport == Some(Transport::Tls) {
            self.spread(pair, Transport::Quic);
        }
    }

    /// With another certificate, beside what there is.
    pub(super) fn renew(&mut self, pair: Pair) {
        let now = self.now;
        let dialler = self.dialler(pair);
        if dialler.tunnels.is_empty() {
            dialler.dials.begin_again();
            dialler.race.begin_again(now);
        } else {
            let transport = dialler.transport.unwrap_or(Transport::Quic);
            self.spread(pair, transport);
        }
    }

    fn spread(&mut self, pair: Pair, transport: Transport) {
        for _ in 0..self.dialler(pair).addresses {
            self.attempt(pair, transport);
        }
    }
}
