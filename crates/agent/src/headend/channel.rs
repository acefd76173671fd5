//! Requests under way to one device over one tunnel.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Decision, Kind, Outcome, Record, Ticket};
use fieldlock_conduit::admit::Permit;
use fieldlock_conduit::client::{By, Place, UnderWay};
use fieldlock_conduit::repeat;
use fieldlock_modbus::rtu::BROADCAST;
use fieldlock_modbus::{Answer, Exception, Expected, Quirks, Range};
use fieldlock_session::{ClientOpen, DeviceOffer, Frame, Outcome as EdgeOutcome};
use fieldlock_transport::tunnel::{Link, Outbox};
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::client::ClientConn;
use super::devices::Device;
use super::request::Asked;
use crate::ledger::{Ledger, answered, describe, describe_read};
use crate::repeats;

/// Kept back from `answer_within` beside the round trip, so that the edge's own word on a
/// request ("not sent", "unknown") arrives before this side gives up.
const MARGIN: Duration = Duration::from_millis(20);
const REFRESH: Duration = Duration::from_secs(1);

/// One device channel of a live tunnel.
pub(crate) struct Channel {
    pub(crate) link: Rc<Link>,
    pub(crate) device: Rc<Device>,
    pub(crate) answer_within: Duration,
    /// In which ways the device deviates, as far as the edge says.
    quirks: Quirks,
    outbox: Rc<Outbox>,
    number: u16,
    ledger: Rc<Ledger>,
    tunnel: Arc<str>,
    table: RefCell<UnderWay<Pending>>,
    /// Whether the deadline timer runs; it stops by itself when nothing is under way.
    armed: Cell<bool>,
    arm: Notify,
    /// The tunnel has ended, and with it the watch over deadlines, which keeps this channel.
    ended: Cell<bool>,
    /// What the edge is given to answer, refreshed with the round trip.
    within: Cell<(Instant, u32)>,
}

/// Why a permitted request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// All credits of the edge are used, or the link stands still.
    Busy,
    /// A write, and no more of them can be told from repeats.
    Unknowns,
    /// A write, and the audit log can't take its intent.
    NoAudit,
}

struct Pending {
    id: u64,
    client: Rc<ClientConn>,
    since: Instant,
    place: Place,
    transaction: u16,
    client_unit: u8,
    unit: u8,
    expected: Expected,
    /// What it reads, where it has an address.
    read: Option<Range>,
    /// Who allowed it, of a read that goes on record.
    rule: Option<Arc<str>>,
    write: Option<Box<WriteUnderWay>>,
}

struct WriteUnderWay {
    intent: Ticket,
    /// Of one that is to be sent only once.
    repeat: Option<repeat::Ticket>,
    record: Record,
}

impl Channel {
    pub(crate) fn new(
        link: &Rc<Link>,
        outbox: Rc<Outbox>,
        number: u16,
        device: &Rc<Device>,
        offer: &DeviceOffer,
        ledger: &Rc<Ledger>,
    ) -> Rc<Self> {
        let answer_within = Duration::from_millis(offer.answer_within.into());
        let channel = Self {
            link: link.clone(),
            device: device.clone(),
            answer_within,
            quirks: Quirks::from_bits(offer.quirks),
            outbox,
            number,
            ledger: ledger.clone(),
            tunnel: link.peer.identity.uri().into(),
            table: RefCell::new(UnderWay::new(offer.credit.into())),
            armed: Cell::new(false),
            arm: Notify::new(),
            ended: Cell::new(false),
            within: Cell::new((link.since, offer.answer_within)),
        };
        let channel = Rc::new(channel);
        channel.refresh_within(Instant::now());
        channel
    }

    /// Requests without an answer.
    pub(crate) fn under_way(&self) -> usize {
        self.table.borrow().len()
    }

    /// Sends a permitted request to the edge. At most once: nothing repeats it.
    pub(crate) fn submit(
        self: &Rc<Self>,
        now: Instant,
        asked: Asked<'_>,
        permit: &Permit<'_>,
    ) -> Result<(), Unsent> {
        let client = asked.client;
        if self.outbox.is_stalled() {
            return Err(Unsent::Busy);
        }
        let request = permit.request();
        let mut table = self.table.borrow_mut();
        let id = table.reserve().ok_or(Unsent::Busy)?;
        let write = if request.changes_state() {
            match self.intent(now, id, asked, permit) {
                Ok(write) => Some(write),
                Err(unsent) => {
                    table.release(id);
                    return Err(unsent);
                }
            }
        } else {
            None
        };
        table.watch(now + self.answer_within, id);
        let pending = Pending {
            id,
            client: client.clone(),
            since: now,
            place: asked.place,
            transaction: asked.transaction,
            client_unit: asked.unit,
            unit: permit.unit(),
            expected: Expected::of(request),
            read: request.read(),
            rule: (write.is_none() && self.ledger.records_reads())
                .then(|| client.rule_name(permit.rule())),
            write,
        };
        table.fill(id, pending);
        drop(table);
        self.send(now, id, client, permit);
        if !self.armed.replace(true) {
            self.arm.notify_one();
        }
        Ok(())
    }

    fn send(self: &Rc<Self>, now: Instant, id: u64, client: &ClientConn, permit: &Permit<'_>) {
        if now.duration_since(self.within.get().0) > REFRESH {
            self.refresh_within(now);
        }
        let introduce = client.introduced(self);
        self.outbox.push(|out| {
            if introduce {
                client.with_stated(|name, identity, role| {
                    let open = ClientOpen {
                        client: client.number,
                        address: client.address,
                        name,
                        identity,
                        role,
                    };
                    Frame::ClientOpen(open).encode(self.number, out);
                });
            }
            let request = Frame::Request {
                id,
                client: client.number,
                within: self.within.get().1,
                unit: permit.unit(),
                pdu: permit.request().pdu(),
            };
            request.encode(self.number, out);
        });
    }

    fn refresh_within(&self, now: Instant) {
        let spent = self.link.round_trip().unwrap_or_default() + MARGIN;
        // A device with a very short time still gets half of it.
        let within = self
            .answer_within
            .saturating_sub(spent)
            .max(self.answer_within / 2);
        let millis = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        self.within.set((now, millis.max(1)));
    }

    fn intent(
        &self,
        now: Instant,
        id: u64,
        asked: Asked<'_>,
        permit: &Permit<'_>,
    ) -> Result<Box<WriteUnderWay>, Unsent> {
        let mut record = Record {
            decision: Some(Decision::Allow),
            rule: Some(asked.client.rule_name(permit.rule())),
            ..self.record(Kind::WriteIntent, id, asked, permit.unit())
        };
        describe(&mut record, permit.request(), permit.layout());
        // The durable copy that the write waits for is the edge's.
        let outcome = Record {
            kind: Kind::WriteOutcome,
            values: None,
            decoded: None,
            decision: None,
            rule: None,
            durable: false,
            ..record.clone()
        };
        let client = asked.client;
        let repeat = client
            .begin_write(now, asked, &self.device, permit, id)
            .map_err(|repeat::Full| Unsent::Unknowns)?;
        let intent = self.ledger.intent(record).map_err(|_| {
            if let Some(ticket) = repeat {
                client.write_ended(now, ticket, repeat::End::NotSent);
            }
            Unsent::NoAudit
        })?;
        Ok(Box::new(WriteUnderWay {
            intent,
            repeat,
            record: outcome,
        }))
    }

    /// The client has gone: the edge may forget it.
    pub(crate) fn close_client(&self, client: u32) {
        if self.ended.get() {
            return;
        }
        self.outbox
            .push(|out| Frame::ClientClose { client }.encode(self.number, out));
    }

    /// The edge's answer to request `id`: the client to flush, or `None` if nobody waits
    /// for it any more.
    pub(crate) fn answer(
        &self,
        id: u64,
        outcome: EdgeOutcome,
        pdu: &[u8],
    ) -> Option<Rc<ClientConn>> {
        let pending = self.table.borrow_mut().take(id)?;
        let client = pending.client.clone();
        let checked = pending.expected.check_of(pdu, self.quirks);
        match (outcome, checked) {
            (EdgeOutcome::Answered, Ok(Answer::Normal)) => {
                self.finish(pending, Outcome::Answered, pdu, "");
            }
            (EdgeOutcome::Answered, Ok(Answer::Exception(_))) => {
                self.finish(pending, Outcome::Exception, pdu, "");
            }
            // A broadcast has left and nobody answers it.
            (EdgeOutcome::Answered, Err(_)) if pdu.is_empty() && pending.unit == BROADCAST => {
                self.finish(pending, Outcome::Sent, pdu, "");
            }
            (EdgeOutcome::Refused, Ok(Answer::Exception(code)))
                if code == repeats::ANSWER.code() =>
            {
                self.finish(pending, Outcome::RepeatRefused, pdu, "refused by the edge");
            }
            (EdgeOutcome::Refused, Ok(Answer::Exception(_))) => {
                self.finish(pending, Outcome::Refused, pdu, "refused by the edge");
            }
            (EdgeOutcome::NotSent, Ok(Answer::Exception(_))) => {
                self.finish(pending, Outcome::NotSent, pdu, "not sent by the edge");
            }
            (EdgeOutcome::Unknown, Ok(Answer::Exception(_))) => {
                self.finish(pending, Outcome::Unknown, pdu, "no answer from the device");
            }
            _ => self.lose(pending, "the edge's answer does not match the request"),
        }
        Some(client)
    }

    /// The tunnel is gone: what left may have happened.
    pub(crate) fn fail_all(&self) {
        self.ended.set(true);
        self.arm.notify_one();
        let pending: Vec<_> = self.table.borrow_mut().drain().collect();
        for pending in pending {
            let client = pending.client.clone();
            self.lose(pending, "the tunnel was lost");
            client.flush();
        }
    }

    /// Answers what is overdue; runs as long as the tunnel.
    pub(crate) async fn watch_deadlines(self: Rc<Self>) {
        loop {
            let next = self.table.borrow_mut().next_deadline();
            if self.ended.get() {
                return;
            }
            let Some(next) = next else {
                self.armed.set(false);
                self.arm.notified().await;
                continue;
            };
            sleep_until(next.into()).await;
            let now = Instant::now();
            loop {
                let overdue = self.table.borrow_mut().take_overdue(now);
                let Some(pending) = overdue else { break };
                let client = pending.client.clone();
                self.lose(pending, "no answer in time");
                client.flush();
            }
        }
    }

    fn lose(&self, pending: Pending, reason: &'static str) {
        let exception = Exception::GatewayTargetFailedToRespond;
        let pdu = exception.pdu(pending.expected.function());
        self.finish(pending, Outcome::Unknown, &pdu, reason);
    }

    fn finish(&self, pending: Pending, outcome: Outcome, pdu: &[u8], reason: &'static str) {
        let client = &pending.client;
        let by = match outcome {
            Outcome::Answered | Outcome::Exception | Outcome::Sent => By::Device,
            _ => By::Agent,
        };
        client.answer(pending.place, pdu, by);
        let counters = &self.device.counters;
        match outcome {
            Outcome::Answered | Outcome::Shared | Outcome::Exception | Outcome::Sent => {
                counters.answered.add();
                counters.latency.observe(pending.since.elapsed());
            }
            Outcome::Refused | Outcome::RepeatRefused => counters.refused_by_edge.add(),
            Outcome::NotSent => counters.not_sent.add(),
            Outcome::Unknown | Outcome::Lost => counters.lost.add(),
        }
        let exception = (pdu.len() == 2).then(|| pdu[1]);
        self.tell_what_is_known(&pending, outcome, exception);
        if let Some(write) = pending.write {
            self.ledger.note(Record {
                intent: Some(write.intent),
                outcome: Some(outcome),
                exception,
                reason: (!reason.is_empty()).then_some(reason.into()),
                ..write.record
            });
        } else if !reason.is_empty() {
            self.ledger
                .repeated(self.unanswered(&pending, outcome, exception, reason));
        } else if self.ledger.records_reads() {
            self.note_read(&pending, outcome, exception, pdu);
        }
    }

    /// What the client knows now of its writes.
    fn tell_what_is_known(&self, pending: &Pending, outcome: Outcome, exception: Option<u8>) {
        let client = &pending.client;
        if let Some(write) = &pending.write {
            if let Some(ticket) = write.repeat {
                let end = repeats::end_of(outcome, exception);
                client.write_ended(Instant::now(), ticket, end);
            }
        } else if let (Outcome::Answered, Some(range)) = (outcome, &pending.read) {
            client.has_read(&self.device, pending.unit, range, pending.since);
        }
    }

    fn note_read(&self, pending: &Pending, outcome: Outcome, exception: Option<u8>, pdu: &[u8]) {
        let function = pending.expected.function();
        let party = &*pending.client.party;
        let who = (party.address, &party.identity, &self.device.name);
        let key = (who, pending.unit, function, pending.read);
        self.ledger.read(key, pdu, || Record {
            rule: pending.rule.clone(),
            answer: answered(pending.read, pdu).filter(|_| exception.is_none()),
            outcome: Some(outcome),
            exception,
            ..self.read_record(Kind::Read, pending)
        });
    }

    fn read_record(&self, kind: Kind, pending: &Pending) -> Record {
        let asked = Asked {
            client: &pending.client,
            place: pending.place,
            transaction: pending.transaction,
            unit: pending.client_unit,
        };
        let mut record = Record {
            function: Some(pending.expected.function()),
            ..self.record(kind, pending.id, asked, pending.unit)
        };
        describe_read(&mut record, pending.read);
        record
    }

    /// A read that brought no data back.
    fn unanswered(
        &self,
        pending: &Pending,
        outcome: Outcome,
        exception: Option<u8>,
        reason: &'static str,
    ) -> Record {
        let record = Record {
            exception,
            ..self.read_record(Kind::Lost, pending)
        };
        match outcome {
            Outcome::Refused => Record {
                decision: Some(Decision::Deny),
                reason: Some(reason.into()),
                outcome: Some(outcome),
                kind: Kind::Denied,
                ..record
            },
            Outcome::Unknown => Record {
                outcome: Some(Outcome::Lost),
                reason: Some(reason.into()),
                ..record
            },
            _ => Record {
                outcome: Some(outcome),
                reason: Some(reason.into()),
                ..record
            },
        }
    }

    fn record(&self, kind: Kind, id: u64, asked: Asked<'_>, unit: u8) -> Record {
        Record {
            tunnel: Some(self.tunnel.clone()),
            client: Some(asked.client.party.clone()),
            device: Some(self.device.name.clone()),
            unit: Some(unit),
            client_unit: (asked.unit != unit).then_some(asked.unit),
            transaction: Some(asked.transaction),
            request: Some(id),
            ..Record::new(kind)
        }
    }
}
