//! The device side of a conduit, at the edge: all clients share the few connections that a
//! controller accepts.
//!
//! # The state machine
//!
//! [`DeviceSide`] opens no socket and reads no clock. The shell tells it what happened, then
//! drains what it says:
//!
//! 1. any inputs: [`submit`], [`release`], [`refuse`], [`drop_client`], [`handle_connected`],
//!    [`handle_closed`], [`handle_bytes`], [`handle_timeout`];
//! 2. [`poll_transmit`] for each open connection, and its bytes are written;
//! 3. [`poll_event`] until `None`;
//! 4. the timer is set to [`poll_timeout`]. It may be early: a call of [`handle_timeout`] for
//!    which nothing is due does nothing but find the next time.
//!
//! Time is an argument and never decreases (an earlier one is taken for the latest seen);
//! outputs refer to the time of the last input.
//!
//! # What holds
//!
//! - Each submitted request ends in exactly one [`Event::Answer`], at its deadline at the
//!   latest, except one that [`refuse`] took back.
//! - A request is handed out by [`poll_transmit`] at most once, in its whole, and from then on
//!   counts as sent: whatever the shell does with the bytes, a lost answer is
//!   [`Outcome::Unknown`]. One that was not handed out was never sent.
//! - A held request is not sent before its release. It stops the requests of its own client
//!   that were submitted after it, and no others.
//! - Clients take turns: a request waits for at most one of each other client before its
//!   client's next is sent.
//! - An answer is taken only by the request with its transaction id, unit, function and
//!   length. Anything else, and silence until a deadline, closes the connection: what comes
//!   late comes on no later connection. A serial line has no ids and stays open; there the
//!   line must have been quiet before the next request.
//! - A read that is sent answers those that other clients have next in turn at that moment and that
//!   ask the same of the same unit on equal [`Grounds`](crate::admit::Grounds): no answer is older
//!   than its request, and each client's requests keep their order. Each still ends at its own
//!   deadline. Only functions 1 to 4 are shared: they are the ones that certainly change nothing.
//! - Nothing grows beyond what the settings say, whatever the device sends.
//!
//! [`submit`]: DeviceSide::submit
//! [`release`]: DeviceSide::release
//! [`refuse`]: DeviceSide::refuse
//! [`drop_client`]: DeviceSide::drop_client
//! [`handle_connected`]: DeviceSide::handle_connected
//! [`handle_closed`]: DeviceSide::handle_closed
//! [`handle_bytes`]: DeviceSide::handle_bytes
//! [`handle_timeout`]: DeviceSide::handle_timeout
//! [`poll_transmit`]: DeviceSide::poll_transmit
//! [`poll_event`]: DeviceSide::poll_event
//! [`poll_timeout`]: DeviceSide::poll_timeout

mod connection;
mod event;
mod pool;
mod queue;
mod rtu;
mod settings;
mod slab;
mod tcp;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use fieldlock_modbus::{Exception, Expected};

use self::connection::{Due, Received};
use self::pool::Pool;
use self::queue::Queue;
use self::slab::{Entry, List, Place, Share, Slab, State, Transaction};

pub use self::event::{
    ClientKey, CloseReason, ConnId, Event, Key, Loss, Outcome, Pdu, QueueFull, Stats, Submit,
};
pub use self::settings::{Backoff, DeviceSettings, Framing};

/// One device, its connections and the requests for it. See the [module](self) for the order
/// of calls.
#[derive(Debug)]
pub struct DeviceSide {
    settings: DeviceSettings,
    now: Instant,
    slab: Slab,
    queue: Queue,
    pool: Pool,
    held: HashMap<Key, Place>,
    /// Requests that ended; their answer was not collected yet.
    done: List,
    /// `Connect` and `Close`, not collected yet.
    events: VecDeque<Event>,
    /// No deadline is earlier. Kept, not computed, so that a request costs no scan: it is
    /// brought up to date when it has passed.
    earliest_deadline: Option<Instant>,
    /// Counts the policies.
    policy: u64,
    counters: Stats,
}

impl DeviceSide {
    /// `seed` is any number, another for each device: it spreads the attempts to reconnect.
    pub fn new(settings: DeviceSettings, seed: u64, now: Instant) -> Self {
        Self {
            now,
            slab: Slab::default(),
            queue: Queue::new(&settings),
            pool: Pool::new(&settings, seed),
            held: HashMap::new(),
            done: List::default(),
            events: VecDeque::new(),
            earliest_deadline: None,
            policy: 0,
            counters: Stats::default(),
            settings,
        }
    }

    pub fn submit(&mut self, now: Instant, submit: Submit<'_>) -> Result<(), QueueFull> {
        self.advance(now);
        self.queue.admit(submit.client)?;
        if self.slab.occupied() >= self.settings.request_limit() {
            let limit = self.settings.queue;
            return Err(QueueFull::Device { limit });
        }
        let place = self.enter(submit);
        self.queue.push(&mut self.slab, place);
        self.connect_if_wanted();
        if self.reach() >= submit.deadline {
            self.expire(place);
        }
        Ok(())
    }

    /// Another policy is in force: requests from before and from after it are not answered together.
    pub fn policy_changed(&mut self) {
        self.policy += 1;
    }

    /// The intent of a held request is durable: it may be sent.
    pub fn release(&mut self, now: Instant, key: Key) {
        self.advance(now);
        if let Some(place) = self.held.remove(&key) {
            self.queue.released(&mut self.slab, place);
            self.connect_if_wanted();
        }
    }

    /// Takes a held request back. True: it was still held, was never sent, and there is no
    /// further word of it. False: it was answered already, or its release came first.
    pub fn refuse(&mut self, key: Key) -> bool {
        let Some(place) = self.held.remove(&key) else {
            return false;
        };
        self.queue.remove(&mut self.slab, place);
        self.slab.free(place);
        self.connect_if_wanted();
        true
    }

    /// A client left: what it has waiting is not sent any more, what was sent goes on.
    pub fn drop_client(&mut self, now: Instant, client: ClientKey) {
        self.advance(now);
        while let Some(place) = self.queue.first_of(client) {
            self.end_unsent(place, Outcome::NotSent, Exception::GatewayPathUnavailable);
        }
        self.connect_if_wanted();
    }

    pub fn handle_connected(&mut self, now: Instant, conn: ConnId) {
        self.advance(now);
        let pause = self.settings.pause_after_connect;
        if let Some(connection) = self.pool.get(conn) {
            connection.connected(now, pause);
        }
        self.connect_if_wanted();
    }

    /// The connection ended, or could not be opened (`connect_failed`). Nothing happens after
    /// our own [`Event::Close`].
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId, connect_failed: bool) {
        self.advance(now);
        let Some(connection) = self.pool.get(conn) else {
            return;
        };
        if connect_failed || !connection.is_open() {
            self.counters.connect_failures += 1;
        }
        self.lose(conn, None, Loss::Closed);
        self.reconsider(conn, true);
        self.connect_if_wanted();
    }

    pub fn handle_bytes(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        self.advance(now);
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(connection) = self.pool.get(conn).filter(|c| c.is_open()) else {
                break;
            };
            let proven = connection.is_proven();
            let (used, received) = connection.receive(self.now, rest, &mut self.slab);
            if !proven && connection.is_proven() {
                self.pool.retry.proved();
            }
            rest = &rest[used..];
            self.conclude(conn, received);
        }
        self.connect_if_wanted();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        let mut index = 0;
        while let Some(connection) = self.pool.at(index) {
            let idle = self.settings.idle_close.filter(|_| self.queue.is_empty());
            if let Some(due) = connection.due(self.now, idle) {
                let conn = connection.id();
                self.act(conn, due);
            }
            index += 1;
        }
        if self.earliest_deadline.is_some_and(|at| at <= self.now) {
            self.expire_until(self.now);
            self.earliest_deadline = self.slab.earliest_deadline();
        }
        self.connect_if_wanted();
    }

    /// Appends what may be sent on this connection now; true if there was anything. The
    /// requests in it count as sent.
    pub fn poll_transmit(&mut self, conn: ConnId, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        while self.queue.has_ready() {
            let Some(connection) = self.pool.get(conn).filter(|c| c.may_send(self.now)) else {
                break;
            };
            let Some(place) = self.queue.pop(&mut self.slab) else {
                break;
            };
            if self.slab[place].deadline <= self.now {
                let exception = Exception::GatewayTargetFailedToRespond;
                self.end(place, Outcome::NotSent, exception);
                continue;
            }
            let alike = self.queue.pop_alike(&mut self.slab, place, self.now);
            self.counters.shared += alike.len() as u64;
            connection.send(self.now, place, alike, &mut self.slab, out);
            self.counters.sent += 1;
        }
        self.connect_if_wanted();
        out.len() > before
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let place = self.done.pop_front(&mut self.slab)?;
        let entry = &self.slab[place];
        let State::Done(outcome) = entry.state else {
            return None;
        };
        let (key, client, shared, pdu) = (entry.key, entry.client, entry.shared, entry.pdu);
        self.slab.free(place);
        Some(Event::Answer {
            key,
            client,
            outcome,
            shared,
            pdu,
        })
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = !self.queue.is_empty();
        let to_send = Some(self.now).filter(|_| self.queue.has_ready());
        let idle = self.settings.idle_close.filter(|_| !waits);
        let retry = self.pool.retry.blocked_until(self.now).filter(|_| waits);
        self.pool
            .iter()
            .filter_map(|connection| connection.wake(to_send, idle))
            .chain(retry)
            .chain(self.earliest_deadline)
            .min()
    }

    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.pool.open(),
            queued: self.queue.len(),
            in_flight: self.pool.in_flight(),
            ..self.counters
        }
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn enter(&mut self, submit: Submit<'_>) -> Place {
        let mut entry = Entry::new(
            submit.key,
            submit.client,
            submit.unit,
            Expected::of(submit.request),
            submit.deadline,
            submit.held,
        );
        entry.pdu.set(submit.request.pdu());
        let only_reads = matches!(submit.request.function().0, 1..=4);
        entry.share = (self.settings.shared_reads && only_reads).then_some(Share {
            policy: self.policy,
            grounds: submit.grounds,
        });
        let place = self.slab.insert(entry);
        if submit.held {
            self.held.insert(submit.key, place);
        }
        let earliest = self.earliest_deadline.unwrap_or(submit.deadline);
        self.earliest_deadline = Some(earliest.min(submit.deadline));
        place
    }

    /// The first connection is opened for any request, also a held one: it is needed in a
    /// moment. A further one only when the others are full.
    fn connect_if_wanted(&mut self) {
        let wanted = self.queue.has_ready() || (!self.queue.is_empty() && !self.pool.is_live());
        if !wanted || self.pool.room() > 0 || self.pool.retry.blocked_until(self.now).is_some() {
            return;
        }
        if let Some((conn, again)) = self.pool.connect(self.now, &self.settings) {
            self.counters.reconnects += u64::from(again);
            self.events.push_back(Event::Connect(conn));
        }
    }

    fn conclude(&mut self, conn: ConnId, received: Received) {
        match received {
            Received::Nothing => {}
            Received::Answer(mut askers) => {
                self.counters.answered += 1;
                let Some(first) = askers.pop_front(&mut self.slab) else {
                    return;
                };
                self.finish(first, Outcome::Answered);
                while let Some(place) = askers.pop_front(&mut self.slab) {
                    self.slab[place].pdu = self.slab[first].pdu;
                    self.finish(place, Outcome::Answered);
                }
            }
            Received::Fault(blamed, reason) => {
                self.counters.mismatched += 1;
                // Without a request to blame, each may have been meant.
                let (blamed, others) = match blamed {
                    Some(flight) => (Some((flight, Loss::Mismatch)), Loss::Closed),
                    None => (None, Loss::Mismatch),
                };
                self.close(conn, blamed, others, reason);
                self.reconsider(conn, true);
            }
            Received::Garbled => {
                self.counters.mismatched += 1;
                self.give_up(conn, Outcome::Unknown(Loss::Mismatch));
            }
            Received::Noise => self.counters.late += 1,
        }
    }

    fn act(&mut self, conn: ConnId, due: Due) {
        match due {
            Due::ConnectTimeout => {
                self.counters.connect_failures += 1;
                self.close(conn, None, Loss::Closed, CloseReason::ConnectTimeout);
                self.reconsider(conn, true);
            }
            Due::Idle => self.close(conn, None, Loss::Closed, CloseReason::Idle),
            Due::BroadcastDone => self.give_up(conn, Outcome::Broadcast),
            Due::Silence => {
                if let Some(connection) = self.pool.get(conn) {
                    let received = connection.silent(self.now, &mut self.slab);
                    self.conclude(conn, received);
                }
            }
        }
    }

    /// The time before which nothing can be sent: without a connection, that of the next
    /// attempt to open one. Who waits with an earlier deadline is told at once.
    fn reach(&self) -> Instant {
        match self.pool.retry.blocked_until(self.now) {
            Some(until) if !self.pool.is_live() => until,
            _ => self.now,
        }
    }

    fn expire_until(&mut self, reach: Instant) {
        for place in self.slab.places() {
            let entry = &self.slab[place];
            match entry.state {
                State::Waiting { .. } if entry.deadline <= reach => self.expire(place),
                State::Sent(conn, flight) if entry.deadline <= self.now => {
                    self.time_out(conn, flight, place);
                }
                _ => {}
            }
        }
    }

    /// Ends a request that waits and can't be sent in time.
    fn expire(&mut self, place: Place) {
        let outcome = if self.pool.open() == 0 {
            Outcome::Unreachable
        } else {
            Outcome::NotSent
        };
        self.end_unsent(place, outcome, Exception::GatewayTargetFailedToRespond);
    }

    /// Ends a request that was sent and not answered in time.
    fn time_out(&mut self, conn: ConnId, flight: Transaction, place: Place) {
        let Some(connection) = self.pool.get(conn) else {
            return;
        };
        if connection.is_broadcasting() {
            self.give_up(conn, Outcome::Broadcast);
            return;
        }
        self.counters.timeouts += 1;
        if connection.leave(flight, place, &mut self.slab) {
            // Others still have time for the same answer.
            let exception = Exception::GatewayTargetFailedToRespond;
            self.end(place, Outcome::Unknown(Loss::Timeout), exception);
        } else if connection.is_serial() {
            self.give_up(conn, Outcome::Unknown(Loss::Timeout));
        } else {
            let blamed = Some((flight, Loss::Timeout));
            self.close(conn, blamed, Loss::Closed, CloseReason::Timeout);
            // Not a failure of the connection: time-outs are slow by themselves, and other
            // units behind the same gateway may be well.
            self.reconsider(conn, false);
        }
    }

    /// Ends the request in flight on a serial line.
    fn give_up(&mut self, conn: ConnId, outcome: Outcome) {
        if let Some(connection) = self.pool.get(conn) {
            let askers = connection.give_up(self.now);
            self.end_all(askers, outcome);
        }
    }

    fn close(
        &mut self,
        conn: ConnId,
        blamed: Option<(Transaction, Loss)>,
        others: Loss,
        reason: CloseReason,
    ) {
        self.lose(conn, blamed, others);
        self.events.push_back(Event::Close(conn, reason));
    }

    /// Ends a connection and every request in flight on it.
    fn lose(&mut self, conn: ConnId, blamed: Option<(Transaction, Loss)>, others: Loss) {
        let Some(connection) = self.pool.get(conn) else {
            return;
        };
        let mut flights = connection.close();
        for flight in flights.drain(..) {
            let loss = match blamed {
                Some((transaction, loss)) if transaction == flight.transaction => loss,
                _ => others,
            };
            self.end_all(flight.askers, Outcome::Unknown(loss));
        }
        if let Some(connection) = self.pool.at(conn.index()) {
            connection.reuse(flights);
        }
    }

    /// After a connection was lost: one that had worked is replaced at once; after one that
    /// failed before, the next attempt waits.
    fn reconsider(&mut self, conn: ConnId, failed: bool) {
        let proven = self.pool.at(conn.index()).is_some_and(|c| c.is_proven());
        if failed && !proven {
            self.pool.retry.failed(self.now);
            self.expire_until(self.reach());
        } else if proven && !self.pool.is_live() {
            self.pool.retry.now();
        }
    }

    /// Ends a request that waits.
    fn end_unsent(&mut self, place: Place, outcome: Outcome, exception: Exception) {
        let entry = &self.slab[place];
        if entry.is_held() {
            self.held.remove(&entry.key);
        }
        self.queue.remove(&mut self.slab, place);
        self.end(place, outcome, exception);
    }

    /// Ends a request that was on a connection, for all who asked it.
    fn end_all(&mut self, mut askers: List, outcome: Outcome) {
        while let Some(place) = askers.pop_front(&mut self.slab) {
            self.end(place, outcome, Exception::GatewayTargetFailedToRespond);
        }
    }

    /// Ends a request in no queue and on no connection, without an answer of the device.
    fn end(&mut self, place: Place, outcome: Outcome, exception: Exception) {
        let entry = &mut self.slab[place];
        if outcome == Outcome::Broadcast {
            entry.pdu.set(&[]);
        } else {
            let function = entry.expected.function();
            entry.pdu.set_exception(exception, function);
        }
        self.finish(place, outcome);
    }

    fn finish(&mut self, place: Place, outcome: Outcome) {
        self.slab[place].state = State::Done(outcome);
        self.done.push_back(&mut self.slab, place);
    }
}
