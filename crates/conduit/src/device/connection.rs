//! One connection to the device: its requests in flight, and when it may send.

use std::time::{Duration, Instant};

use fieldlock_modbus::{Answer, Quirk, Quirks};

use super::bear;
use super::event::ConnId;
use super::fault::{Fault, What};
use super::prelude::Heard;
use super::rtu::Line;
use super::settings::DeviceSettings;
use super::slab::{List, Place, Slab, State, Transaction};
use super::tcp::Reassembly;

/// Both octets differ from 0, so that a device which does not repeat them is found out by the first
/// request, not by the 257th.
const FIRST_TRANSACTION: Transaction = 0x0101;

/// A place in the pool, which outlives the connections that use it one after the other and
/// keeps its buffers.
#[derive(Debug)]
pub(super) struct Connection {
    id: ConnId,
    phase: Phase,
    wire: Wire,
    in_flight_limit: usize,
    bear: Quirks,
    pause: Duration,
    flights: Vec<Flight>,
    /// Requests that were given up while others were in flight: their answers may still come.
    given_up: Vec<GivenUp>,
    next_transaction: Transaction,
    /// No request before this time.
    ready_at: Instant,
    /// Last request or answer.
    active_at: Instant,
    /// The device answered on this connection.
    proven: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Connecting { until: Instant },
    Open,
}

#[derive(Debug)]
enum Wire {
    Tcp(Reassembly),
    Rtu(Line),
}

/// A request that was sent and not answered.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) transaction: Transaction,
    pub(super) unit: u8,
    pub(super) sent_at: Instant,
    /// At least one; more where a read is shared.
    pub(super) askers: List,
}

#[derive(Debug)]
struct GivenUp {
    transaction: Transaction,
    unit: u8,
    changes_state: bool,
    sent_at: Instant,
}

/// What bytes, or silence, amounted to.
#[derive(Debug)]
pub(super) enum Received {
    /// Nothing complete.
    Nothing,
    /// The answer to what these ask; it is at the first of them.
    Answer { askers: List, after: Duration },
    /// On TCP: the answer to a request that was given up.
    Late {
        unit: u8,
        changes_state: bool,
        after: Duration,
    },
    /// On TCP: the connection can't be trusted any more, because of the answer to this
    /// request if it is known.
    Fault(Option<Transaction>, Fault),
    /// On a serial line: not the answer to the request in flight.
    Garbled(Fault),
    /// On a serial line: bytes while no answer is awaited.
    Noise,
}

/// What the passing of time asks for.
#[derive(Debug)]
pub(super) enum Due {
    ConnectTimeout,
    Silence,
    BroadcastDone,
    Idle,
}

impl Connection {
    pub(super) fn new(slot: u16, settings: &DeviceSettings, now: Instant) -> Self {
        Self {
            id: ConnId {
                slot,
                generation: 0,
            },
            phase: Phase::Closed,
            wire: match Line::new(settings.framing, settings.quirks) {
                Some(line) => Wire::Rtu(line),
                None => Wire::Tcp(Reassembly::default()),
            },
            in_flight_limit: settings.in_flight_limit(),
            bear: settings.quirks,
            pause: settings.pause_between_requests,
            flights: Vec::new(),
            given_up: Vec::new(),
            next_transaction: FIRST_TRANSACTION,
            ready_at: now,
            active_at: now,
            proven: false,
        }
    }

    pub(super) fn id(&self) -> ConnId {
        self.id
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_serial(&self) -> bool {
        matches!(self.wire, Wire::Rtu(_))
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn flights(&self) -> &[Flight] {
        &self.flights
    }

    /// Requests that it could take, now or once it is open.
    pub(super) fn room(&self) -> usize {
        match self.phase {
            Phase::Closed => 0,
            // What was given up keeps its place: the device may still be busy with it.
            _ => (self.in_flight_limit).saturating_sub(self.flights.len() + self.given_up.len()),
        }
    }

    pub(super) fn may_send(&self, now: Instant) -> bool {
        self.is_open() && self.room() > 0 && self.ready_at <= now
    }

    /// Becomes a new connection. True unless it is the first in this place.
    pub(super) fn connect(&mut self, until: Instant) -> bool {
        let again = self.id.generation > 0;
        self.id.generation = self.id.generation.wrapping_add(1);
        self.phase = Phase::Connecting { until };
        self.proven = false;
        self.given_up.clear();
        match &mut self.wire {
            Wire::Tcp(reassembly) => reassembly.clear(),
            Wire::Rtu(line) => line.clear(),
        }
        again
    }

    pub(super) fn connected(&mut self, now: Instant, pause: Duration) {
        if matches!(self.phase, Phase::Connecting { .. }) {
            self.phase = Phase::Open;
            self.active_at = now;
            self.ready_at = now
                + match &self.wire {
                    Wire::Tcp(_) => pause,
                    Wire::Rtu(line) => pause.max(line.quiet_after_answer()),
                };
        }
    }

    /// Ends the connection; what was in flight is the caller's to answer, and the emptied
    /// vector to be given back.
    pub(super) fn close(&mut self) -> Vec<Flight> {
        self.phase = Phase::Closed;
        std::mem::take(&mut self.flights)
    }

    pub(super) fn reuse(&mut self, emptied: Vec<Flight>) {
        self.flights = emptied;
    }

    /// Appends the request's frame and takes it for sent, with `alike`, which ask the same.
    pub(super) fn send(
        &mut self,
        now: Instant,
        place: Place,
        alike: List,
        slab: &mut Slab,
        out: &mut Vec<u8>,
    ) {
        let transaction = self.unused_transaction();
        let mut askers = alike;
        askers.push_front(slab, place);
        askers.for_each(slab, |entry| {
            entry.state = State::Sent(self.id, transaction)
        });
        let entry = &slab[place];
        match &mut self.wire {
            Wire::Tcp(_) => {
                fieldlock_modbus::mbap::encode(out, transaction, entry.unit, &entry.pdu);
            }
            Wire::Rtu(line) => line.send(now, entry.unit, &entry.pdu, out),
        }
        self.flights.push(Flight {
            transaction,
            unit: entry.unit,
            sent_at: now,
            askers,
        });
        self.active_at = now;
        self.ready_at = now + self.pause;
    }

    /// Makes what it can of the front of `bytes`; says how many it took.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        bytes: &[u8],
        slab: &mut Slab,
    ) -> (usize, Received) {
        match self.wire {
            Wire::Tcp(_) => self.receive_tcp(now, bytes, slab),
            Wire::Rtu(_) => (bytes.len(), self.receive_rtu(now, bytes, slab)),
        }
    }

    /// A serial line has been quiet after an answer of open length.
    pub(super) fn silent(&mut self, now: Instant, slab: &mut Slab) -> Received {
        self.judge_rtu(now, None, slab)
    }

    /// Takes out one of several who wait for the same answer; false: it is the only one.
    pub(super) fn leave(&mut self, flight: Transaction, place: Place, slab: &mut Slab) -> bool {
        let mut flights = self.flights.iter_mut();
        let Some(flight) = flights.find(|f| f.transaction == flight && f.askers.len() > 1) else {
            return false;
        };
        flight.askers.remove(slab, place);
        true
    }

    /// On TCP: gives back who waits for the answer to a request, if the connection can do without:
    /// others are in flight on it, and ids tell their answers apart.
    pub(super) fn abandon(&mut self, transaction: Transaction, slab: &Slab) -> Option<List> {
        if self.is_serial() || self.flights.len() < 2 {
            return None;
        }
        let at = self
            .flights
            .iter()
            .position(|f| f.transaction == transaction)?;
        let flight = self.flights.remove(at);
        let asked = flight.askers.front().map(|place| &slab[place]);
        self.given_up.push(GivenUp {
            transaction,
            unit: flight.unit,
            changes_state: asked.is_some_and(|entry| entry.changes_state),
            sent_at: flight.sent_at,
        });
        Some(flight.askers)
    }

    /// Gives back who waits for the answer to the request in flight on a serial line, which stays
    /// open. No request until the line has been quiet.
    pub(super) fn give_up(&mut self, now: Instant) -> List {
        if let Wire::Rtu(line) = &mut self.wire {
            let quiet = match line.broadcast_until() {
                Some(until) => until,
                None => now + line.quiet_after_loss(),
            };
            self.ready_at = self.ready_at.max(quiet);
            line.clear();
        }
        self.flights.pop().map(|f| f.askers).unwrap_or_default()
    }

    /// Whether the request in flight is one that no device answers.
    pub(super) fn is_broadcasting(&self) -> bool {
        matches!(&self.wire, Wire::Rtu(line) if line.broadcast_until().is_some())
    }

    pub(super) fn due(&self, now: Instant, idle: Option<Duration>) -> Option<Due> {
        if self.wake(None, idle)? > now {
            return None;
        }
        match (self.phase, &self.wire) {
            (Phase::Closed, _) => None,
            (Phase::Connecting { .. }, _) => Some(Due::ConnectTimeout),
            (Phase::Open, _) if self.flights.is_empty() => Some(Due::Idle),
            (Phase::Open, Wire::Tcp(_)) => None,
            (Phase::Open, Wire::Rtu(line)) => Some(match line.broadcast_until() {
                Some(_) => Due::BroadcastDone,
                None => Due::Silence,
            }),
        }
    }

    /// When this connection wants attention. `to_send`: the present time, if a request waits
    /// that it might take. `idle`: after how long it may be closed, if at all.
    pub(super) fn wake(&self, to_send: Option<Instant>, idle: Option<Duration>) -> Option<Instant> {
        match self.phase {
            Phase::Closed => return None,
            Phase::Connecting { until } => return Some(until),
            Phase::Open => {}
        }
        let send = to_send
            .filter(|now| self.room() > 0 && self.ready_at > *now)
            .map(|_| self.ready_at);
        let line = match &self.wire {
            Wire::Rtu(line) => line.gap_at().or(line.broadcast_until()),
            Wire::Tcp(_) => None,
        };
        let idle = idle
            .filter(|_| self.flights.is_empty())
            .map(|idle| self.active_at + idle);
        [send, line, idle].into_iter().flatten().min()
    }

    fn receive_tcp(&mut self, now: Instant, bytes: &[u8], slab: &mut Slab) -> (usize, Received) {
        let Wire::Tcp(reassembly) = &mut self.wire else {
            return (bytes.len(), Received::Nothing);
        };
        if self.flights.is_empty() && self.given_up.is_empty() {
            let fault = Received::Fault(None, What::Unsolicited.into());
            return (bytes.len(), fault);
        }
        let (used, framed) = match reassembly.next(bytes) {
            Ok((used, Some(framed))) => (used, framed),
            Ok((used, None)) => return (used, Received::Nothing),
            Err(error) => return (bytes.len(), Received::Fault(None, error.into())),
        };
        let (adu, bear) = (framed.adu, self.bear);
        let in_flight = self.flights.iter().map(|flight| flight.transaction);
        let given_up = self.given_up.iter().map(|late| late.transaction);
        let (at, id) = match bear::whose(in_flight.chain(given_up), adu.transaction, bear) {
            Ok(found) => found,
            Err(fault) => return (used, Received::Fault(None, fault)),
        };
        let Some(Flight {
            transaction,
            askers,
            ..
        }) = self.flights.get(at)
        else {
            let late = self.given_up.remove(at - self.flights.len());
            self.answered(now, self.pause);
            let late = Received::Late {
                unit: late.unit,
                changes_state: late.changes_state,
                after: now - late.sent_at,
            };
            return (used, late);
        };
        let (transaction, asked) = (*transaction, askers.front());
        let Some(place) = asked else {
            return (used, Received::Nothing);
        };
        let entry = &mut slab[place];
        let overstated = framed.overstated.then_some(Quirk::ExceptionLength4);
        let taken = match overstated.filter(|quirk| !bear.bear(*quirk)) {
            Some(quirk) => Err(Fault::deviates(What::ExceptionLength, quirk)),
            None => bear::from_unit(adu.unit, entry.unit, bear).and_then(|unit| {
                let so_far = [id, overstated, unit].into_iter().flatten().collect();
                bear::take(entry, adu.pdu, so_far, bear)
            }),
        };
        if let Err(fault) = taken {
            return (used, Received::Fault(Some(transaction), fault));
        }
        let flight = self.flights.remove(at);
        self.answered(now, self.pause);
        let answer = Received::Answer {
            askers: flight.askers,
            after: now - flight.sent_at,
        };
        (used, answer)
    }

    fn receive_rtu(&mut self, now: Instant, bytes: &[u8], slab: &mut Slab) -> Received {
        if self.flights.is_empty() || self.is_broadcasting() {
            if let Wire::Rtu(line) = &self.wire {
                self.ready_at = self.ready_at.max(now + line.quiet_after_noise());
            }
            return Received::Noise;
        }
        self.judge_rtu(now, Some(bytes), slab)
    }

    /// Bytes, or silence, while an answer is awaited on a serial line.
    fn judge_rtu(&mut self, now: Instant, bytes: Option<&[u8]>, slab: &mut Slab) -> Received {
        let asked = self.flights.first().and_then(|f| f.askers.front());
        let (Wire::Rtu(line), Some(place)) = (&mut self.wire, asked) else {
            return Received::Nothing;
        };
        let quiet = line.quiet_after_answer();
        let entry = &mut slab[place];
        let repeatable = entry.expected.check(&entry.pdu) == Ok(Answer::Normal);
        let heard = match bytes {
            Some(bytes) => line.receive(now, bytes, repeatable),
            None => line.silent(repeatable),
        };
        let taken = match heard {
            Ok(Heard::Wait | Heard::UntilSilence) => return Received::Nothing,
            Ok(Heard::Frame { unit, pdu, quirks }) => bear::from_unit(unit, entry.unit, self.bear)
                .and_then(|unit| {
                    let so_far = quirks.iter().chain(unit).collect();
                    bear::take(entry, pdu, so_far, self.bear)
                }),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = taken {
            return Received::Garbled(fault);
        }
        let Some(flight) = self.flights.pop() else {
            return Received::Nothing;
        };
        self.answered(now, self.pause.max(quiet));
        Received::Answer {
            askers: flight.askers,
            after: now - flight.sent_at,
        }
    }

    fn answered(&mut self, now: Instant, pause: Duration) {
        self.proven = true;
        self.active_at = now;
        self.ready_at = self.ready_at.max(now + pause);
    }

    /// Skips what is still pending from 65,536 requests ago, or from 256 of a device that repeats
    /// the low octet alone.
    fn unused_transaction(&mut self) -> Transaction {
        let told = match self.bear.contains(Quirk::TransactionIdLowByte) {
            true => 0x00FF,
            false => 0xFFFF,
        };
        loop {
            let candidate = self.next_transaction;
            self.next_transaction = candidate.wrapping_add(1);
            let in_flight = self.flights.iter().map(|f| f.transaction);
            let mut pending = in_flight.chain(self.given_up.iter().map(|g| g.transaction));
            if pending.all(|transaction| (transaction ^ candidate) & told != 0) {
                return candidate;
            }
        }
    }
}
