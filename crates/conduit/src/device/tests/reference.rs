//! What the pool should do, on plain vectors: no slab, no line of clients, no timer.

use std::time::Instant;

use crate::device::ConnId;

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) key: u64,
    pub(super) client: u64,
    pub(super) deadline: Instant,
    pub(super) held: bool,
    /// What it asks, and on which grounds under which policy; `None`: it is sent by itself.
    pub(super) share: Option<(u16, u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    Unknown,
    NotSent,
    TakenBack,
}

/// The reference: what waits, whose turn it is, what is in flight.
#[derive(Debug, Default)]
pub(super) struct Reference {
    in_flight: usize,
    pub(super) waiting: Vec<Request>,
    turns: Vec<u64>,
    /// What was sent, each with all who ask it.
    pub(super) flights: Vec<(ConnId, Vec<Vec<Request>>)>,
    pub(super) sent: Vec<(ConnId, Vec<u64>)>,
    pub(super) ended: Vec<(u64, End)>,
}

impl Reference {
    pub(super) fn new(in_flight: usize) -> Self {
        Self {
            in_flight,
            ..Self::default()
        }
    }

    pub(super) fn first_of(&self, client: u64) -> Option<&Request> {
        self.waiting.iter().find(|r| r.client == client)
    }

    /// Clients whose first request may go stand in line, in the order in which they came.
    pub(super) fn line_up(&mut self) {
        let ready = |reference: &Self, client| reference.first_of(client).is_some_and(|r| !r.held);
        let turns = std::mem::take(&mut self.turns);
        self.turns = turns.into_iter().filter(|&c| ready(self, c)).collect();
        for client in 0..4 {
            if ready(self, client) && !self.turns.contains(&client) {
                self.turns.push(client);
            }
        }
    }

    pub(super) fn send(&mut self) {
        for at in 0..self.flights.len() {
            while self.flights[at].1.len() < self.in_flight && !self.turns.is_empty() {
                let client = self.turns.remove(0);
                let first = self.waiting.iter().position(|r| r.client == client);
                let request = self.waiting.remove(first.unwrap());
                self.line_up();
                let askers = self.share(request);
                let keys = askers.iter().map(|r| r.key).collect();
                self.sent.push((self.flights[at].0, keys));
                self.flights[at].1.push(askers);
            }
        }
    }

    /// A request that is sent, and those of other clients whose turn would come and that it answers.
    fn share(&mut self, request: Request) -> Vec<Request> {
        let mut askers = vec![request];
        for client in self.turns.clone() {
            let first = self.waiting.iter().position(|r| r.client == client);
            let first = first.unwrap();
            let alike = askers[0].share.is_some() && self.waiting[first].share == askers[0].share;
            if alike && client != askers[0].client {
                askers.push(self.waiting.remove(first));
            }
        }
        self.line_up();
        askers
    }

    pub(super) fn unsent(&mut self, key: u64, end: End) {
        self.waiting.retain(|r| r.key != key);
        self.ended.push((key, end));
        self.line_up();
    }

    pub(super) fn answered(&mut self, key: u64) {
        for (_, flights) in &mut self.flights {
            let asked = |askers: &Vec<Request>| askers.iter().any(|r| r.key == key);
            if let Some(at) = flights.iter().position(asked) {
                let askers = flights.remove(at).into_iter();
                self.ended.extend(askers.map(|r| (r.key, End::Answered)));
            }
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        let flights = self.flights.iter().flat_map(|(_, flights)| flights);
        flights.map(Vec::len).sum()
    }

    /// Which of these is in flight, if one is.
    pub(super) fn pending(&self, keys: &[u64]) -> Option<u64> {
        let flights = self.flights.iter().flat_map(|(_, flights)| flights);
        let mut in_flight = flights.flatten().map(|r| r.key);
        in_flight.find(|key| keys.contains(key))
    }

    /// The time of a request in flight is over: others may still wait for the same answer.
    fn timed_out(&mut self, conn: ConnId, key: u64) {
        for (_, flights) in &mut self.flights {
            for askers in flights.iter_mut().filter(|askers| askers.len() > 1) {
                if let Some(at) = askers.iter().position(|r| r.key == key) {
                    askers.remove(at);
                    self.ended.push((key, End::Unknown));
                    return;
                }
            }
        }
        self.closed(conn);
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        let (gone, left) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|(other, _)| *other == conn);
        self.flights = left;
        let gone: Vec<(ConnId, Vec<Vec<Request>>)> = gone;
        let lost = gone.into_iter().flat_map(|(_, flights)| flights).flatten();
        self.ended.extend(lost.map(|r| (r.key, End::Unknown)));
    }

    /// Deadlines differ, so that one thing happens at a time.
    pub(super) fn pass(&mut self, until: Instant) {
        loop {
            let waiting = self.waiting.iter().map(|r| (r.deadline, None, r.key));
            let flying = self.flights.iter().flat_map(|(conn, flights)| {
                let askers = flights.iter().flatten();
                askers.map(|r| (r.deadline, Some(*conn), r.key))
            });
            let next = waiting.chain(flying).min_by_key(|(deadline, ..)| *deadline);
            match next.filter(|(deadline, ..)| *deadline <= until) {
                Some((_, Some(conn), key)) => self.timed_out(conn, key),
                Some((_, None, key)) => self.unsent(key, End::NotSent),
                None => return,
            }
            self.send();
        }
    }
}
