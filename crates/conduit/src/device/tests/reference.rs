//! What the pool should do, on plain vectors: no slab, no line of clients, no timer.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::device::ConnId;
use crate::device::units::Units;
use crate::device::unsettled::SEAL_WITHIN;

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) key: u64,
    pub(super) client: u64,
    pub(super) unit: u8,
    pub(super) deadline: Instant,
    pub(super) half_time: Instant,
    pub(super) is_write: bool,
    pub(super) held: bool,
    pub(super) asked_again: bool,
    /// What it asks, and on which grounds under which policy; `None`: it is sent by itself.
    pub(super) share: Option<(u16, u64, u64)>,
}

impl Request {
    fn lane(&self) -> (u64, u8) {
        (self.client, self.unit)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    Unknown,
    NotSent,
    TakenBack,
}

#[derive(Debug)]
struct Flight {
    /// Its place in `sent`.
    number: usize,
    at: Instant,
    askers: Vec<Request>,
}

#[derive(Debug)]
struct Connection {
    id: ConnId,
    flights: Vec<Flight>,
    /// Given up while others were in flight: place in `sent`, when, its unit, whether it writes.
    given_up: Vec<(usize, Instant, u8, bool)>,
}

/// The reference: what waits, whose turn it is, what is in flight.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) now: Instant,
    in_flight: usize,
    pub(super) waiting: Vec<Request>,
    /// Clients in line, each with its units in line.
    turns: Vec<(u64, Vec<u8>)>,
    connections: Vec<Connection>,
    /// What was sent, each with all who ask it.
    pub(super) sent: Vec<(ConnId, Vec<u64>)>,
    pub(super) ended: Vec<(u64, End)>,
    /// Who was not sent itself, or not the last time: another was.
    pub(super) followers: HashSet<u64>,
    /// Writes of unknown fate: the unit, the connection, and when they are forgotten.
    /// By lane, the keys of what was sent.
    order: HashMap<(u64, u8), Vec<u64>>,
    unsettled: Vec<(u8, ConnId, Option<Instant>)>,
    units: Units,
}

impl Reference {
    pub(super) fn new(in_flight: usize, response_timeout: Duration, now: Instant) -> Self {
        Self {
            now,
            in_flight,
            waiting: Vec::new(),
            turns: Vec::new(),
            connections: Vec::new(),
            sent: Vec::new(),
            ended: Vec::new(),
            followers: HashSet::new(),
            order: HashMap::new(),
            unsettled: Vec::new(),
            units: Units::new(response_timeout, Duration::ZERO),
        }
    }

    pub(super) fn connected(&mut self, id: ConnId) {
        self.connections.push(Connection {
            id,
            flights: Vec::new(),
            given_up: Vec::new(),
        });
    }

    pub(super) fn first_of(&self, client: u64) -> Option<&Request> {
        self.waiting.iter().find(|r| r.client == client)
    }

    fn first_of_lane(&self, lane: (u64, u8)) -> Option<&Request> {
        self.waiting.iter().find(|r| r.lane() == lane)
    }

    /// Lanes whose first request may go stand in line, in the order in which they came.
    pub(super) fn line_up(&mut self) {
        let mut turns = std::mem::take(&mut self.turns);
        let is_ready = |lane| self.first_of_lane(lane).is_some_and(|r| !r.held);
        for (client, units) in &mut turns {
            units.retain(|unit| is_ready((*client, *unit)));
        }
        turns.retain(|(_, units)| !units.is_empty());
        for request in &self.waiting {
            let (client, unit) = request.lane();
            if !is_ready(request.lane()) {
                continue;
            }
            match turns.iter_mut().find(|(other, _)| *other == client) {
                Some((_, units)) if units.contains(&unit) => {}
                Some((_, units)) => units.push(unit),
                None => turns.push((client, vec![unit])),
            }
        }
        self.turns = turns;
    }

    /// Where the requests of a lane that are in flight are.
    fn on(&self, lane: (u64, u8)) -> Option<ConnId> {
        let mut flying = self.connections.iter().flat_map(|connection| {
            let askers = connection.flights.iter().flat_map(|f| &f.askers);
            askers.map(|asker| (asker.lane(), connection.id))
        });
        flying.find(|(other, _)| *other == lane).map(|(_, id)| id)
    }

    fn may_go(&self, lane: (u64, u8), conn: ConnId) -> bool {
        let request = self.first_of_lane(lane).unwrap();
        let unsettled = self.unsettled.iter();
        let mut overtaken = unsettled.filter(|(unit, other, _)| *unit == lane.1 && *other != conn);
        self.on(lane).is_none_or(|on| on == conn)
            && !self.units.is_tried(lane.1)
            && (!request.is_write || overtaken.next().is_none())
    }

    /// The lane whose turn it is on this connection.
    fn turn(&self, conn: ConnId) -> Option<(u64, u8)> {
        let lanes = self.turns.iter().flat_map(|(client, units)| {
            let lanes = units.iter().map(|unit| (*client, *unit));
            lanes.filter(|lane| self.may_go(*lane, conn))
        });
        let lanes: Vec<(u64, u8)> = lanes.collect();
        let mut first = lanes.iter().filter(|lane| !self.units.gives_way(lane.1));
        first.next().or(lanes.first()).copied()
    }

    pub(super) fn send(&mut self) {
        for at in 0..self.connections.len() {
            loop {
                let connection = &self.connections[at];
                let conn = connection.id;
                if connection.flights.len() + connection.given_up.len() >= self.in_flight {
                    break;
                }
                let Some(lane) = self.turn(conn) else { break };
                let client = self.turns.iter().position(|(c, _)| *c == lane.0).unwrap();
                let (_, mut units) = self.turns.remove(client);
                units.retain(|unit| *unit != lane.1);
                if !units.is_empty() {
                    self.turns.push((lane.0, units));
                }
                let first = self.waiting.iter().position(|r| r.lane() == lane);
                let request = self.waiting.remove(first.unwrap());
                // To the end of its client's line, and its client to the end of the line.
                self.line_up();
                if !self.is_in_time(&request) {
                    self.not_sent(&request, End::NotSent);
                    continue;
                }
                let askers = self.share(request, conn);
                self.units.sent(lane.1);
                for asker in &askers {
                    self.order.entry(asker.lane()).or_default().push(asker.key);
                }
                let keys = askers.iter().map(|r| r.key).collect();
                self.sent.push((conn, keys));
                let flight = Flight {
                    number: self.sent.len() - 1,
                    at: self.now,
                    askers,
                };
                self.connections[at].flights.push(flight);
            }
        }
    }

    /// A request that is sent, and those of other clients whose turn would come and that it answers.
    fn share(&mut self, request: Request, conn: ConnId) -> Vec<Request> {
        let mut askers = vec![request];
        let unit = askers[0].unit;
        for (client, units) in self.turns.clone() {
            let lane = (client, unit);
            if !units.contains(&unit) || self.on(lane).is_some_and(|on| on != conn) {
                continue;
            }
            let first = self.waiting.iter().position(|r| r.lane() == lane);
            let first = first.unwrap();
            let alike = askers[0].share.is_some() && self.waiting[first].share == askers[0].share;
            if alike && client != askers[0].client && self.waiting[first].deadline > self.now {
                self.followers.insert(self.waiting[first].key);
                askers.push(self.waiting.remove(first));
            }
        }
        self.line_up();
        askers
    }

    /// Not for the second time, where it was sent already.
    fn not_sent(&mut self, request: &Request, end: End) {
        let end = if request.asked_again {
            End::Unknown
        } else {
            end
        };
        self.ended.push((request.key, end));
    }

    pub(super) fn unsent(&mut self, key: u64, end: End) {
        let at = self.waiting.iter().position(|r| r.key == key).unwrap();
        let request = self.waiting.remove(at);
        self.not_sent(&request, end);
        self.line_up();
    }

    /// The device answers what was sent as number `sent`.
    pub(super) fn answered(&mut self, sent: usize) {
        for connection in &mut self.connections {
            let given_up = connection.given_up.iter();
            if let Some(at) = given_up.map(|late| late.0).position(|n| n == sent) {
                let (_, at, unit, is_write) = connection.given_up.remove(at);
                self.units.answered(unit, self.now - at);
                let conn = connection.id;
                let is_it = |(u, c, _): &(u8, ConnId, _)| *u == unit && *c == conn;
                let own = self.unsettled.iter().position(is_it);
                if let Some(own) = own.filter(|_| is_write) {
                    self.unsettled.remove(own);
                }
            }
            let flights = &mut connection.flights;
            if let Some(at) = flights.iter().position(|f| f.number == sent) {
                let flight = flights.remove(at);
                let unit = flight.askers[0].unit;
                self.units.answered(unit, self.now - flight.at);
                let askers = flight.askers.into_iter();
                self.ended.extend(askers.map(|r| (r.key, End::Answered)));
            }
        }
    }

    /// Requests with the device, those that share one included.
    pub(super) fn in_flight(&self) -> usize {
        let flights = self.connections.iter().flat_map(|c| &c.flights);
        flights.map(|flight| flight.askers.len()).sum()
    }

    /// Whether an answer to what was sent as number `sent` is expected, or borne.
    pub(super) fn expects(&self, sent: usize) -> bool {
        self.connections.iter().any(|connection| {
            connection.flights.iter().any(|f| f.number == sent)
                || connection.given_up.iter().any(|late| late.0 == sent)
        })
    }

    fn is_in_time(&self, request: &Request) -> bool {
        let left = request.deadline.saturating_duration_since(self.now);
        let waited_for_half = self.now >= request.half_time;
        !left.is_zero() && (left > self.units.least_time() || !waited_for_half)
    }

    /// Whether what was sent as number `sent` is in flight.
    pub(super) fn is_in_flight(&self, sent: usize) -> bool {
        let flights = self.connections.iter().flat_map(|c| &c.flights);
        let mut numbers = flights.map(|flight| flight.number);
        numbers.any(|number| number == sent)
    }

    fn lost(&mut self, conn: ConnId, askers: Vec<Request>) {
        if let Some(write) = askers.first().filter(|r| r.is_write) {
            self.unsettled.push((write.unit, conn, None));
        }
        self.ended
            .extend(askers.iter().map(|r| (r.key, End::Unknown)));
    }

    /// The time of a request in flight is over: others may still wait for the same answer, or for
    /// another on the same connection.
    fn timed_out(&mut self, conn: ConnId, key: u64) {
        let at = self.connections.iter().position(|c| c.id == conn).unwrap();
        let flights = &mut self.connections[at].flights;
        let asked = |flight: &Flight| flight.askers.iter().any(|r| r.key == key);
        let flight = flights.iter().position(asked).unwrap();
        if flights[flight].askers.len() > 1 {
            flights[flight].askers.retain(|r| r.key != key);
            self.ended.push((key, End::Unknown));
            return;
        }
        let unit = flights[flight].askers[0].unit;
        if flights.len() > 1 {
            let given_up = flights.remove(flight);
            let is_write = given_up.askers[0].is_write;
            let late = (given_up.number, given_up.at, unit, is_write);
            self.connections[at].given_up.push(late);
            self.lost(conn, given_up.askers);
        } else {
            let number = flights[flight].number;
            self.close(conn, Some(number), true);
            self.closing(conn);
        }
        self.units.fell_silent(self.now, unit);
    }

    /// Ends a connection. Reads are asked once more, unless they are to blame or something of their
    /// lane was sent behind them.
    pub(super) fn close(&mut self, conn: ConnId, blamed: Option<usize>, asks_again: bool) {
        let Some(at) = self.connections.iter().position(|c| c.id == conn) else {
            return;
        };
        let connection = self.connections.remove(at);
        let mut again = Vec::new();
        for flight in connection.flights.into_iter().rev() {
            self.units.lost(flight.askers[0].unit);
            let is_blamed = Some(flight.number) == blamed;
            let (mut kept, mut lost) = (Vec::new(), Vec::new());
            for asker in flight.askers {
                let may = !asker.is_write && !asker.asked_again && self.is_in_time(&asker);
                let order = self.order.get_mut(&asker.lane()).unwrap();
                let is_last = order.last() == Some(&asker.key);
                if may && asks_again && !is_blamed && is_last {
                    order.pop();
                    kept.push(Request {
                        asked_again: true,
                        ..asker
                    });
                } else {
                    lost.push(asker);
                }
            }
            self.lost(conn, lost);
            again.extend(kept);
        }
        // Latest first, each to the head.
        for request in again {
            self.followers.remove(&request.key);
            self.waiting.insert(0, request);
            self.line_up();
        }
    }

    /// We closed the connection, and the device has not yet.
    pub(super) fn closing(&mut self, conn: ConnId) {
        for (_, other, until) in &mut self.unsettled {
            if *other == conn {
                *until = Some(self.now + SEAL_WITHIN);
            }
        }
    }

    /// The device has closed the connection.
    pub(super) fn sealed(&mut self, conn: ConnId) {
        self.unsettled.retain(|(_, other, _)| *other != conn);
    }

    /// Deadlines differ, so that one thing happens at a time.
    pub(super) fn pass(&mut self, until: Instant) {
        loop {
            let waiting = self.waiting.iter().map(|r| (r.deadline, None, r.key));
            let flying = self.connections.iter().flat_map(|connection| {
                let askers = connection.flights.iter().flat_map(|f| &f.askers);
                askers.map(|r| (r.deadline, Some(connection.id), r.key))
            });
            let settled = self.unsettled.iter().filter_map(|write| write.2);
            let settled = settled.map(|at| (at, None, u64::MAX));
            let events = waiting.chain(flying).chain(settled);
            let next = events
                .min_by_key(|(at, ..)| *at)
                .filter(|(at, ..)| *at <= until);
            let Some((at, conn, key)) = next else {
                self.now = until;
                return;
            };
            self.now = self.now.max(at);
            match conn {
                _ if key == u64::MAX => {
                    let now = self.now;
                    self.unsettled
                        .retain(|write| write.2.is_none_or(|at| at > now));
                }
                Some(conn) => self.timed_out(conn, key),
                None => self.unsent(key, End::NotSent),
            }
            self.send();
        }
    }
}
