//! The network: connections whose handshake is done, and the ways that they take.

use std::time::{Duration, Instant};

use super::head::HEADS;
use super::world::{Happening, World};
use crate::{Decoder, Event, Frame, Session, Side, Transport, Violation};

/// quinn's own idle time and keep-alive, as `agent` sets them.
pub(super) const QUIC_IDLE: Duration = Duration::from_secs(2);
const QUIC_KEEP_ALIVE: Duration = Duration::from_millis(700);
/// How long a closing tunnel waits for the other side to have read the last word.
const FAREWELL: u64 = 500;
/// A delay that is noticed.
pub(super) const SLOW: Duration = Duration::from_millis(300);

/// From where processes dial: what is in the way of each transport, to each headend.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) closed: [[u32; 2]; HEADS],
    /// Its address has changed so often.
    pub(super) moved: u32,
}

impl Site {
    pub(super) fn is_open(&self, head: usize, transport: Transport) -> bool {
        self.closed[head][transport as usize] == 0
    }
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) process: usize,
    pub(super) head: usize,
    pub(super) transport: Transport,
    pub(super) edge: Option<End>,
    pub(super) headend: Option<End>,
    /// Towards the edge, towards the headend: when the last that was sent arrives.
    last: [Instant; 2],
    /// What is sent again until the way is open.
    waiting: [Vec<Vec<u8>>; 2],
    /// Nothing crosses any more: one end has another address.
    pub(super) lost: bool,
    /// Until when something was late, or did not arrive.
    pub(super) trouble: Option<Instant>,
    /// Which hello of its headend it brought.
    pub(super) hello: Option<u64>,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) session: Session,
    decoder: Decoder,
    pub(super) since: Instant,
    pub(super) heard: Instant,
    sent: Instant,
    pub(super) was_up: bool,
    pub(super) closing: bool,
}

impl End {
    pub(super) fn new(session: Session, now: Instant) -> Self {
        Self {
            session,
            decoder: Decoder::default(),
            since: now,
            heard: now,
            sent: now,
            was_up: false,
            closing: false,
        }
    }
}

/// Whether a tunnel over this transport has a heartbeat of its own.
pub(super) fn heartbeat(transport: Transport) -> bool {
    transport == Transport::Tls
}

impl Conn {
    pub(super) fn new(process: usize, head: usize, transport: Transport, now: Instant) -> Self {
        Self {
            process,
            head,
            transport,
            edge: None,
            headend: None,
            last: [now; 2],
            waiting: Default::default(),
            lost: false,
            trouble: None,
            hello: None,
        }
    }

    pub(super) fn end(&mut self, side: Side) -> &mut Option<End> {
        match side {
            Side::Edge => &mut self.edge,
            Side::Headend => &mut self.headend,
        }
    }

    /// All that was sent in the last seconds has arrived, soon.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        let trouble = |until| now > until + Duration::from_secs(3);
        !self.lost && self.trouble.is_none_or(trouble) && self.waiting.iter().all(Vec::is_empty)
    }

    fn arrival(&mut self, to: Side, at: Instant) -> Instant {
        let last = &mut self.last[to as usize];
        *last = at.max(*last);
        *last
    }

    fn deadline(&self, end: &End) -> Option<Instant> {
        let quic = (self.transport == Transport::Quic && !end.closing)
            .then(|| (end.heard + QUIC_IDLE).min(end.sent + QUIC_KEEP_ALIVE));
        [quic, end.session.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Edge => Side::Headend,
        Side::Headend => Side::Edge,
    }
}

impl World {
    pub(super) fn way_is_open(&self, number: usize) -> bool {
        let conn = &self.conns[number];
        let site = &self.sites[self.processes[conn.process].site];
        !conn.lost && site.is_open(conn.head, conn.transport)
    }

    fn delay(&mut self) -> Duration {
        let slow = self.faults && self.dice.percent(self.slow);
        self.dice.millis(if slow { 100..650 } else { 1..30 })
    }

    pub(super) fn send(&mut self, number: usize, from: Side, bytes: Vec<u8>) {
        let to = other(from);
        let open = self.way_is_open(number);
        let at = self.now + self.delay();
        let conn = &mut self.conns[number];
        if let Some(end) = conn.end(from) {
            end.session.sent(self.now);
            end.sent = self.now;
        }
        if !open {
            conn.trouble = conn.trouble.max(Some(self.now));
            if !conn.lost {
                conn.waiting[to as usize].push(bytes);
            }
            return;
        }
        let at = conn.arrival(to, at);
        if at > self.now + SLOW {
            conn.trouble = conn.trouble.max(Some(at));
        }
        self.at(
            at,
            Happening::Arrives {
                conn: number,
                to,
                bytes,
            },
        );
    }

    /// What could not cross is sent again.
    pub(super) fn send_again(&mut self) {
        for number in self.open.clone() {
            if !self.way_is_open(number) {
                continue;
            }
            for to in [Side::Edge, Side::Headend] {
                let waiting = std::mem::take(&mut self.conns[number].waiting[to as usize]);
                for bytes in waiting {
                    self.send(number, other(to), bytes);
                    let trouble = &mut self.conns[number].trouble;
                    *trouble = (*trouble).max(Some(self.now));
                }
            }
        }
    }

    /// The headend's end of a handshake that is through at the edge.
    pub(super) fn announce(&mut self, number: usize, start: u8, id: u32) {
        let at = self.now + self.delay();
        let at = self.conns[number].arrival(Side::Headend, at);
        self.at(
            at,
            Happening::Opens {
                conn: number,
                start,
                id,
            },
        );
    }

    pub(super) fn flush(&mut self, number: usize, side: Side) {
        let mut bytes = Vec::new();
        let end = self.conns[number].end(side).as_mut();
        if end.is_some_and(|end| end.session.poll_transmit(&mut bytes)) {
            self.send(number, side, bytes);
        }
    }

    /// One end closes: the other hears of it after what was sent, if the way is open.
    pub(super) fn hang_up(&mut self, number: usize, from: Side, refused: bool) {
        if self.way_is_open(number) {
            let at = other(from);
            let delay = self.delay();
            let when = self.conns[number].arrival(at, self.now + delay);
            self.at(
                when,
                Happening::HungUp {
                    conn: number,
                    at,
                    refused,
                },
            );
        }
    }

    pub(super) fn arrives(&mut self, number: usize, to: Side, bytes: &[u8]) {
        let now = self.now;
        let Some(end) = self.conns[number].end(to) else {
            // Nobody is there: a reset, unless something swallows it.
            if self.dice.percent(80) {
                self.hang_up(number, to, false);
            }
            return;
        };
        end.heard = now;
        end.session.received(now);
        let mut decoder = std::mem::take(&mut end.decoder);
        let fed = decoder.feed(bytes, |_, frame: Frame<'_>| -> Result<(), Violation> {
            let Some(end) = self.conns[number].end(to) else {
                return Ok(());
            };
            let event = end.session.handle(now, frame)?;
            self.event(number, to, event);
            Ok(())
        });
        fed.unwrap_or_else(|violation| panic!("{to:?} of {number}: {violation}"));
        if let Some(end) = self.conns[number].end(to) {
            end.decoder = decoder;
        }
    }

    pub(super) fn event(&mut self, number: usize, side: Side, event: Option<Event>) {
        let Some(event) = event else { return };
        self.trace(&(side, number, &event));
        if matches!(event, Event::Dead | Event::HelloTimeout) {
            self.check_end(number, side, &event);
        }
        match side {
            Side::Edge => self.edge_event(number, event),
            Side::Headend => self.head_event(number, event),
        }
    }

    /// With a last word, and a while in which it may be read.
    pub(super) fn closes(&mut self, number: usize, side: Side, why: crate::Close) {
        let Some(end) = self.conns[number].end(side) else {
            return;
        };
        if !end.closing {
            end.session.close(why, "");
            end.closing = true;
            self.flush(number, side);
            let after = self.dice.millis(0..FAREWELL);
            self.later(after, Happening::Farewell { conn: number, side });
        }
    }

    pub(super) fn conn_timers(&mut self, number: usize, side: Side) {
        let now = self.now;
        let conn = &mut self.conns[number];
        let quic = conn.transport == Transport::Quic;
        let Some(end) = conn.end(side) else { return };
        if quic && !end.closing {
            if now >= end.heard + QUIC_IDLE {
                end.session.close(crate::Close::Shutdown, "");
                return self.event(number, side, Some(Event::Dead));
            }
            if now >= end.sent + QUIC_KEEP_ALIVE {
                self.send(number, side, Vec::new());
            }
        }
        if let Some(end) = self.conns[number].end(side) {
            let event = end.session.handle_timeout(now);
            self.event(number, side, event);
        }
    }

    pub(super) fn conn_deadline(&self, number: usize) -> Option<Instant> {
        let conn = &self.conns[number];
        let ends = [&conn.edge, &conn.headend].into_iter().flatten();
        ends.filter_map(|end| conn.deadline(end)).min()
    }
}
