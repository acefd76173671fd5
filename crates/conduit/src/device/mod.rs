//! The device side of a conduit, at the edge: all clients share the few connections that a
//! controller accepts.
//!
//! # The state machine
//!
//! [`DeviceSide`] opens no socket and reads no clock. The shell tells it what happened, then
//! drains what it says:
//!
//! 1. any inputs: [`submit`], [`release`], [`refuse`], [`drop_client`], [`handle_connected`],
//!    [`handle_closed`], [`handle_sealed`], [`handle_bytes`], [`handle_timeout`];
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
//! - The requests of one client for one unit go to the device in the order of their submission, and
//!   while one is in flight the next goes on the same connection or waits. Across units
//!   there is no order: nothing waits for a unit but what is meant for it.
//! - A held request is not sent before its release. It stops the requests of its own client for
//!   its unit that were submitted after it, and no others.
//! - Clients take turns, and within a client its units: a request waits for at most one of each other
//!   client before its client's next is sent.
//! - A write whose outcome is unknown is overtaken by no other to its unit: these go on the same
//!   connection, or wait until the device has closed it ([`Event::Seal`], [`handle_sealed`]), two
//!   seconds at most.
//! - An answer is taken only by the request with its transaction id, unit, function and
//!   length; anything else closes the connection. Silence until a deadline ends the one request, and
//!   the connection with it unless others are in flight there: their answers are told apart by their
//!   ids, and a late one is dropped. A serial line has no ids and stays open; there the line must
//!   have been quiet before the next request.
//! - A request in flight for longer than `response_timeout` is given up before its deadline if it keeps
//!   requests of another unit from being sent. See [`Units`] for what a silent unit may cost the others.
//! - A request that has waited for half of its time, and what remains is shorter than answers took
//!   lately, is not sent (0x06).
//! - A read of functions 1 to 4 whose connection is lost is sent once more, on another, if
//!   its time allows and nothing of the same client and unit was sent behind it. No other request is.
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
//! [`handle_sealed`]: DeviceSide::handle_sealed
//! [`handle_bytes`]: DeviceSide::handle_bytes
//! [`handle_timeout`]: DeviceSide::handle_timeout
//! [`poll_transmit`]: DeviceSide::poll_transmit
//! [`poll_event`]: DeviceSide::poll_event
//! [`poll_timeout`]: DeviceSide::poll_timeout

mod bear;
mod connection;
mod event;
mod fault;
mod pool;
mod prelude;
mod queue;
mod rtu;
mod settings;
mod slab;
mod tcp;
mod units;
mod unsettled;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fieldlock_modbus::{Exception, Expected};
use foldhash::{HashMap, HashMapExt};

use self::connection::{Due, Flight, Received};
use self::pool::Pool;
use self::queue::Queue;
use self::slab::{Entry, List, Place, Share, Slab, State, Transaction};
use self::units::Units;
use self::unsettled::Unsettled;

pub use self::bear::Borne;
pub use self::event::{
    ClientKey, CloseReason, ConnId, Event, Key, Loss, Outcome, Pdu, QueueFull, Stats, Submit,
};
pub use self::fault::{Fault, What};
pub use self::settings::{Backoff, DeviceSettings, Framing};

const BUSY: Exception = Exception::ServerDeviceBusy;
const GATEWAY_TARGET: Exception = Exception::GatewayTargetFailedToRespond;

/// One device, its connections and the requests for it. See the [module](self) for the order
/// of calls.
#[derive(Debug)]
pub struct DeviceSide {
    settings: DeviceSettings,
    now: Instant,
    slab: Slab,
    queue: Queue,
    pool: Pool,
    units: Units,
    unsettled: Unsettled,
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
            units: Units::new(settings.response_timeout, settings.max_hold_off),
            unsettled: Unsettled::default(),
            held: HashMap::new(),
            done: List::default(),
            events: VecDeque::new(),
            earliest_deadline: None,
            policy: 0,
            counters: Stats::default(),
            settings,
        }
    }

    /// An earlier process may have left writes whose outcome nobody knows: none is sent before the device has had
    /// two seconds to carry them out. To be called before anything is submitted.
    pub fn wait_for_earlier_writes(&mut self) {
        self.unsettled.left_by_earlier(self.now);
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
        if self.units.is_held_off(self.now, submit.unit) {
            self.end_unsent(place, Outcome::HeldOff, GATEWAY_TARGET);
        } else if self.reach() >= submit.deadline {
            self.expire(place);
        }
        self.make_way();
        self.connect_if_wanted();
        Ok(())
    }

    /// Another policy is in force: requests from before and from after it are not answered together.
    pub fn policy_changed(&mut self) {
        self.policy += 1;
    }

    /// Opens the first connection although nothing waits for it, unless one is there or the last attempt was a
    /// moment ago.
    pub fn connect_ahead(&mut self, now: Instant) {
        self.advance(now);
        if !self.pool.is_live() && self.pool.retry.blocked_until(self.now).is_none() {
            self.connect_one();
        }
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
        // All that was written was read or is lost with the connection.
        self.unsettled.sealed(conn);
        self.reconsider(conn, true);
        self.connect_if_wanted();
    }

    /// The device has closed its side of a connection after [`Event::Seal`], or was waited for in vain:
    /// what was sent on it and not carried out never will be.
    pub fn handle_sealed(&mut self, now: Instant, conn: ConnId) {
        self.advance(now);
        self.unsettled.sealed(conn);
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
        self.unsettled.pass(self.now);
        self.make_way();
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
            let (units, unsettled) = (&self.units, &self.unsettled);
            let may_go = |slab: &Slab, place: Place| {
                let Entry {
                    unit,
                    changes_state,
                    ..
                } = slab[place];
                !units.is_tried(unit) && (!changes_state || unsettled.allows(conn, unit))
            };
            let gives_way = |unit| units.gives_way(unit);
            let Some(place) = self.queue.pop(&mut self.slab, conn, may_go, gives_way) else {
                break;
            };
            let least = match self.settings.is_broadcast(self.slab[place].unit) {
                true => Duration::ZERO,
                false => self.units.least_time(),
            };
            if !self.slab[place].is_in_time(self.now, least) {
                self.queue.not_sent(&self.slab, place);
                self.end(place, Outcome::NotSent, BUSY);
                continue;
            }
            let alike = (self.queue).pop_alike(&mut self.slab, place, conn, self.now);
            self.counters.shared += alike.len() as u64;
            self.units.sent(self.slab[place].unit);
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
        let borne = entry.borne;
        self.slab.free(place);
        Some(Event::Answer {
            key,
            client,
            outcome,
            shared,
            borne,
            pdu,
        })
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = !self.queue.is_empty();
        let to_send = Some(self.now).filter(|_| self.queue.has_ready());
        let idle = self.settings.idle_close.filter(|_| !waits);
        let retry = self.pool.retry.blocked_until(self.now).filter(|_| waits);
        let settled = self.unsettled.next().filter(|_| waits);
        self.pool
            .iter()
            .filter_map(|connection| connection.wake(to_send, idle))
            .chain(retry)
            .chain(settled)
            .chain(self.overstayed().map(|(at, ..)| at))
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

    /// Units that are not asked at `now`, since they do not answer and others do.
    pub fn units_held_off(&self, now: Instant) -> impl Iterator<Item = u8> {
        self.units.held_off(now)
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
        entry.half_time = self.now + submit.deadline.saturating_duration_since(self.now) / 2;
        entry.changes_state = submit.request.changes_state();
        entry.only_reads = matches!(submit.request.function().0, 1..=4);
        entry.share = (self.settings.shared_reads && entry.only_reads).then_some(Share {
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
        if self.queue.is_empty() || self.pool.is_complete() || self.pool.room() > 0 {
            return;
        }
        let wanted = !self.pool.is_live() || self.queue.wants_connection();
        if !wanted || self.pool.retry.blocked_until(self.now).is_some() {
            return;
        }
        self.connect_one();
    }

    fn connect_one(&mut self) {
        if let Some((conn, again)) = self.pool.connect(self.now, &self.settings) {
            self.counters.reconnects += u64::from(again);
            self.events.push_back(Event::Connect(conn));
        }
    }

    fn conclude(&mut self, conn: ConnId, received: Received) {
        match received {
            Received::Nothing => {}
            Received::Answer { mut askers, after } => {
                self.counters.answered += 1;
                let Some(first) = askers.pop_front(&mut self.slab) else {
                    return;
                };
                self.heard(first, after);
                self.finish(first, Outcome::Answered);
                while let Some(place) = askers.pop_front(&mut self.slab) {
                    self.slab[place].pdu = self.slab[first].pdu;
                    self.slab[place].borne = self.slab[first].borne;
                    self.finish(place, Outcome::Answered);
                }
            }
            Received::Fault(blamed, fault) => {
                self.counters.mismatched += 1;
                // Without a request to blame, each may have been meant.
                let (blamed, others) = match blamed {
                    Some(flight) => (Some((flight, Loss::Mismatch)), Loss::Closed),
                    None => (None, Loss::Mismatch),
                };
                self.close(conn, blamed, others, fault.into());
                self.reconsider(conn, true);
            }
            Received::Garbled(fault) => {
                self.counters.mismatched += 1;
                let loss = match fault.what {
                    What::Echo => Loss::Echo,
                    _ => Loss::Mismatch,
                };
                self.give_up(conn, Outcome::Unknown(loss));
                self.events.push_back(Event::Refused(fault));
            }
            Received::Noise => self.counters.late += 1,
            Received::Late {
                unit,
                changes_state,
                after,
            } => {
                self.counters.late += 1;
                self.units.answered(unit, after);
                if changes_state {
                    self.unsettled.answered(conn, unit);
                }
            }
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

    /// An answer says of its unit that it is well, unless it is a gateway's word that it waited for the unit
    /// in vain.
    fn heard(&mut self, place: Place, after: Duration) {
        let entry = &self.slab[place];
        let unit = entry.unit;
        let is_silence = *entry.pdu == GATEWAY_TARGET.pdu(entry.expected.function());
        if is_silence && after >= self.settings.response_timeout / 8 {
            self.fell_silent(unit);
        } else {
            self.units.answered(unit, after);
        }
    }

    fn fell_silent(&mut self, unit: u8) {
        if !self.units.fell_silent(self.now, unit) {
            return;
        }
        for place in self.slab.places() {
            let entry = &self.slab[place];
            if entry.unit == unit && matches!(entry.state, State::Waiting { .. }) {
                self.end_unsent(place, Outcome::HeldOff, GATEWAY_TARGET);
            }
        }
    }

    /// The request that has been in flight for longest of those that keep another unit's from being sent: when
    /// its response time-out is over.
    fn overstayed(&self) -> Option<(Instant, ConnId, Transaction)> {
        if !self.units.are_several() || !self.queue.has_ready() || self.pool.room() > 0 {
            return None;
        }
        let awaited = self.pool.iter().filter(|c| !c.is_broadcasting());
        let flights = awaited.flat_map(|connection| {
            let flights = connection.flights().iter();
            flights.map(|flight| (connection.id(), flight))
        });
        let (conn, flight) = flights
            .filter(|(_, flight)| {
                let comes_first = |unit| unit != flight.unit && !self.units.gives_way(unit);
                self.queue.any_ready_unit(comes_first)
            })
            .min_by_key(|(_, flight)| flight.sent_at)?;
        let at = flight.sent_at + self.settings.response_timeout;
        Some((at, conn, flight.transaction))
    }

    /// Gives up what keeps another unit's requests from being sent.
    fn make_way(&mut self) {
        while let Some((at, conn, transaction)) = self.overstayed() {
            if at > self.now {
                return;
            }
            self.counters.timeouts += 1;
            self.give_up_flight(conn, transaction);
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
        if self.pool.open() == 0 {
            self.end_unsent(place, Outcome::Unreachable, GATEWAY_TARGET);
        } else {
            self.end_unsent(place, Outcome::NotSent, BUSY);
        }
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
            self.end(place, Outcome::Unknown(Loss::Timeout), GATEWAY_TARGET);
        } else {
            self.give_up_flight(conn, flight);
        }
    }

    /// Ends a request in flight that has had time enough, for all who ask it.
    fn give_up_flight(&mut self, conn: ConnId, transaction: Transaction) {
        let Some(connection) = self.pool.get(conn) else {
            return;
        };
        let mut flights = connection.flights().iter();
        let unit = flights
            .find(|f| f.transaction == transaction)
            .map(|f| f.unit);
        if connection.is_serial() {
            self.give_up(conn, Outcome::Unknown(Loss::Timeout));
        } else if let Some(askers) = connection.abandon(transaction, &self.slab) {
            self.end_flight(conn, askers, Outcome::Unknown(Loss::Timeout));
        } else {
            let blamed = Some((transaction, Loss::Timeout));
            self.close(conn, blamed, Loss::Closed, CloseReason::Timeout);
            // Not a failure of the connection: time-outs are slow by themselves, and other
            // units behind the same gateway may be well.
            self.reconsider(conn, false);
        }
        if let Some(unit) = unit {
            self.fell_silent(unit);
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
        self.events
            .push_back(match self.unsettled.closing(self.now, conn) {
                true => Event::Seal(conn, reason),
                false => Event::Close(conn, reason),
            });
    }

    /// Ends a connection, and every request in flight on it that can't be sent once more.
    fn lose(&mut self, conn: ConnId, blamed: Option<(Transaction, Loss)>, others: Loss) {
        let Some(connection) = self.pool.get(conn) else {
            return;
        };
        let mut flights = connection.close();
        let blamed_transaction = blamed.map(|(transaction, _)| transaction);
        let again = match others {
            Loss::Closed => self.queue_again(&mut flights, blamed_transaction),
            // Each of them may be to blame.
            Loss::Mismatch | Loss::Echo | Loss::Timeout => 0,
        };
        for flight in flights.drain(..) {
            let loss = match blamed {
                Some((transaction, loss)) if transaction == flight.transaction => loss,
                _ => others,
            };
            self.units.lost(flight.unit);
            self.end_flight(conn, flight.askers, Outcome::Unknown(loss));
        }
        self.counters.asked_again += again;
        if let Some(connection) = self.pool.at(conn.index()) {
            connection.reuse(flights);
        }
    }

    /// Puts reads that were lost with their connection back to the heads of their lanes, except the one that
    /// is to blame; says how many. A read that something of its lane was sent behind is left: that
    /// may have been carried out, and the read would come after it.
    fn queue_again(&mut self, flights: &mut [Flight], blamed: Option<Transaction>) -> u64 {
        let least = self.units.least_time();
        let mut count = 0;
        let flights = flights.iter_mut().rev();
        for flight in flights.filter(|flight| Some(flight.transaction) != blamed) {
            let mut lost = List::default();
            while let Some(place) = flight.askers.pop_front(&mut self.slab) {
                let entry = &self.slab[place];
                let may =
                    entry.only_reads && !entry.asked_again && entry.is_in_time(self.now, least);
                if !may || !self.queue.is_last_sent(&self.slab, place) {
                    lost.push_back(&mut self.slab, place);
                    continue;
                }
                let entry = &mut self.slab[place];
                entry.asked_again = true;
                entry.shared = false;
                self.queue.push_front(&mut self.slab, place);
                count += 1;
            }
            flight.askers = lost;
        }
        count
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

    /// Ends a request that was sent on a TCP connection, for all who asked it. What it was to change may be
    /// changed later.
    fn end_flight(&mut self, conn: ConnId, askers: List, outcome: Outcome) {
        if let Some(entry) = askers.front().map(|place| &self.slab[place])
            && entry.changes_state
        {
            self.unsettled.add(conn, entry.unit);
        }
        self.end_all(askers, outcome);
    }

    /// Ends a request that was on a connection, for all who asked it.
    fn end_all(&mut self, mut askers: List, outcome: Outcome) {
        while let Some(place) = askers.pop_front(&mut self.slab) {
            self.end(place, outcome, GATEWAY_TARGET);
        }
    }

    /// Ends a request in no queue and on no connection, without an answer of the device.
    fn end(&mut self, place: Place, mut outcome: Outcome, mut exception: Exception) {
        let entry = &mut self.slab[place];
        if entry.asked_again && !outcome.was_sent() {
            // It was, once.
            (outcome, exception) = (Outcome::Unknown(Loss::Closed), GATEWAY_TARGET);
        }
        if outcome == Outcome::Broadcast {
            entry.pdu.set(&[]);
        } else {
            let function = entry.expected.function();
            entry.pdu.set_exception(exception, function);
        }
        self.finish(place, outcome);
    }

    fn finish(&mut self, place: Place, outcome: Outcome) {
        if matches!(self.slab[place].state, State::Sent(..)) {
            self.queue.ended(&self.slab, place);
        }
        self.slab[place].state = State::Done(outcome);
        self.done.push_back(&mut self.slab, place);
    }
}
