//! What the pool should do, on plain vectors: no slab, no line of clients, no timer.

use std::time::Instant;

use crate::device::ConnId;

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) key: u64,
    pub(super) client: u64,
    pub(super) deadline: Instant,
    pub(super) held: bool,
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
    pub(super) flights: Vec<(ConnId, Vec<Request>)>,
    pub(super) sent: Vec<(ConnId, u64)>,
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
                self.sent.push((self.flights[at].0, request.key));
                self.flights[at].1.push(request);
                self.line_up();
            }
        }
    }

    pub(super) fn unsent(&mut self, key: u64, end: End) {
        self.waiting.retain(|r| r.key != key);
        self.ended.push((key, end));
        self.line_up();
    }

    pub(super) fn answered(&mut self, key: u64) {
        for (_, flights) in &mut self.flights {
            if flights.iter().any(|r| r.key == key) {
                flights.retain(|r| r.key != key);
                self.ended.push((key, End::Answered));
            }
        }
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        let (gone, left) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|(other, _)| *other == conn);
        self.flights = left;
        let gone: Vec<(ConnId, Vec<Request>)> = gone;
        let lost = gone.into_iter().flat_map(|(_, flights)| flights);
        self.ended.extend(lost.map(|r| (r.key, End::Unknown)));
    }

    /// Deadlines differ, so that one thing happens at a time.
    pub(super) fn pass(&mut self, until: Instant) {
        loop {
            let waiting = self.waiting.iter().map(|r| (r.deadline, None, r.key));
            let flying = self.flights.iter().flat_map(|(conn, flights)| {
                flights.iter().map(|r| (r.deadline, Some(*conn), r.key))
            });
            let next = waiting.chain(flying).min_by_key(|(deadline, ..)| *deadline);
            match next.filter(|(deadline, ..)| *deadline <= until) {
                Some((_, Some(conn), _)) => self.closed(conn),
                Some((_, None, key)) => self.unsent(key, End::NotSent),
                None => return,
            }
            self.send();
        }
    }
}
