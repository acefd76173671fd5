//! Requests under way to one device over one tunnel.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Decision, Kind, Outcome, Record, Ticket};
use fieldlock_conduit::admit::Permit;
use fieldlock_conduit::client::Place;
use fieldlock_conduit::fate::Fate;
use fieldlock_conduit::forward::{Ended, Forwarding};
use fieldlock_conduit::observe::{Exchange, Observer, Parties};
use fieldlock_conduit::repeat;
use fieldlock_modbus::Quirks;
use fieldlock_session::{ClientOpen, DeviceOffer, Frame, Outcome as EdgeOutcome};
use fieldlock_transport::tunnel::{Link, Outbox};
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::client::ClientConn;
use super::devices::Device;
use super::request::Asked;
use crate::settings::File;
use fieldlock_agent::fates::recorded;
use fieldlock_agent::ledger::{Ledger, answered, describe, describe_read};
use fieldlock_agent::runtime::Runtime;

/// One device channel of a live tunnel.
pub(crate) struct Channel {
    pub(crate) link: Rc<Link>,
    pub(crate) device: Rc<Device>,
    pub(crate) answer_within: Duration,
    outbox: Rc<Outbox>,
    number: u16,
    ledger: Rc<Ledger>,
    observer: Rc<Observer>,
    tunnel: Arc<str>,
    core: RefCell<Forwarding<Pending>>,
    /// Whether the deadline timer runs; it stops by itself when nothing is under way.
    armed: Cell<bool>,
    arm: Notify,
    /// The tunnel has ended, and with it the watch over deadlines, which keeps this channel.
    ended: Cell<bool>,
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

/// Where the answer goes, and how the end is put on record.
struct Pending {
    client: Rc<ClientConn>,
    place: Place,
    transaction: u16,
    client_unit: u8,
    /// Who allowed it, of a read that goes on record.
    rule: Option<Arc<str>>,
    write: Option<Box<WriteUnderWay>>,
}

struct WriteUnderWay {
    intent: Ticket,
    /// Of one that is to be sent only once.
    repeat: Option<repeat::Ticket>,
    record: Record,
    observed: Option<Exchange>,
}

impl Channel {
    pub(crate) fn new(
        link: &Rc<Link>,
        outbox: Rc<Outbox>,
        number: u16,
        device: &Rc<Device>,
        offer: &DeviceOffer,
        runtime: &Runtime<File>,
    ) -> Rc<Self> {
        let answer_within = Duration::from_millis(offer.answer_within.into());
        let quirks = Quirks::from_bits(offer.quirks);
        let core = Forwarding::new(offer.credit.into(), answer_within, quirks);
        Rc::new(Self {
            link: link.clone(),
            device: device.clone(),
            answer_within,
            outbox,
            number,
            ledger: runtime.ledger.clone(),
            observer: runtime.watcher.observer.clone(),
            tunnel: link.peer.identity.uri().into(),
            core: RefCell::new(core),
            armed: Cell::new(false),
            arm: Notify::new(),
            ended: Cell::new(false),
        })
    }

    /// Requests without an answer.
    pub(crate) fn under_way(&self) -> usize {
        self.core.borrow().len()
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
        let mut core = self.core.borrow_mut();
        let id = core.reserve().ok_or(Unsent::Busy)?;
        let write = if permit.request().changes_state() {
            match self.intent(now, id, asked, permit) {
                Ok(write) => Some(write),
                Err(unsent) => {
                    core.release(id);
                    return Err(unsent);
                }
            }
        } else {
            None
        };
        let pending = Pending {
            client: client.clone(),
            place: asked.place,
            transaction: asked.transaction,
            client_unit: asked.unit,
            rule: (write.is_none() && self.ledger.records_reads())
                .then(|| client.rule_name(permit.rule())),
            write,
        };
        let within = core.begin(now, id, permit, pending, || self.link.round_trip());
        drop(core);
        self.send(id, client, permit, within);
        if !self.armed.replace(true) {
            self.arm.notify_one();
        }
        Ok(())
    }

    fn send(self: &Rc<Self>, id: u64, client: &ClientConn, permit: &Permit<'_>, within: u32) {
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
                within,
                unit: permit.unit(),
                pdu: permit.request().pdu(),
            };
            request.encode(self.number, out);
        });
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
        let observed = self.observer.is_on().then(|| {
            let who = parties(client, &self.device, permit.unit());
            Exchange::asked(now, who, permit.request())
        });
        Ok(Box::new(WriteUnderWay {
            intent,
            repeat,
            record: outcome,
            observed,
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
        let ended = self.core.borrow_mut().handle_answer(id, outcome, pdu)?;
        let client = ended.asker.client.clone();
        self.finish(ended, pdu);
        Some(client)
    }

    /// The tunnel is gone: what left may have happened.
    pub(crate) fn fail_all(&self) {
        self.ended.set(true);
        self.arm.notify_one();
        let ended = self.core.borrow_mut().close();
        for ended in ended {
            let client = ended.asker.client.clone();
            self.finish(ended, &[]);
            client.flush();
        }
    }

    /// Answers what is overdue; runs as long as the tunnel.
    pub(crate) async fn watch_deadlines(self: Rc<Self>) {
        loop {
            let next = self.core.borrow_mut().poll_timeout();
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
                let overdue = self.core.borrow_mut().handle_timeout(now);
                let Some(ended) = overdue else { break };
                let client = ended.asker.client.clone();
                self.finish(ended, &[]);
                client.flush();
            }
        }
    }

    fn finish(&self, mut ended: Ended<Pending>, from_edge: &[u8]) {
        let write = ended.asker.write.take();
        let pdu = ended.pdu(from_edge);
        let (pending, fate) = (&ended.asker, ended.fate);
        let client = &pending.client;
        client.answer(pending.place, pdu, fate.by());
        if self.observer.is_on() {
            let observed = write.as_ref().and_then(|write| write.observed);
            self.observe(&ended, observed, pdu);
        }
        let counters = &self.device.counters;
        match fate {
            Fate::Answered | Fate::Shared | Fate::Exception | Fate::Sent => {
                counters.answered.add();
                counters.latency.observe(ended.since.elapsed());
            }
            Fate::Refused | Fate::RepeatRefused => counters.refused_by_edge.add(),
            Fate::NotSent => counters.not_sent.add(),
            Fate::Unknown => counters.lost.add(),
        }
        let exception = (pdu.len() == 2).then(|| pdu[1]);
        if let Some(write) = write {
            if let Some(ticket) = write.repeat {
                client.write_ended(Instant::now(), ticket, fate.known(pdu));
            }
            self.ledger.note(Record {
                intent: Some(write.intent),
                outcome: Some(recorded(fate)),
                exception,
                reason: (!ended.reason.is_empty()).then_some(ended.reason.into()),
                ..write.record
            });
            return;
        }
        if let (Fate::Answered, Some(range)) = (fate, &ended.read) {
            client.has_read(&self.device, ended.unit, range, ended.since);
        }
        if !ended.reason.is_empty() {
            self.ledger.repeated(self.unanswered(&ended, exception));
        } else if self.ledger.records_reads() {
            self.note_read(&ended, exception, pdu);
        }
    }

    /// Tells of a request that is over to whoever looks on.
    fn observe(&self, ended: &Ended<Pending>, asked: Option<Exchange>, pdu: &[u8]) {
        let who = || parties(&ended.asker.client, &self.device, ended.unit);
        let asked = asked.unwrap_or_else(|| Exchange {
            read: ended.read,
            ..Exchange::new(ended.since, who(), ended.function)
        });
        let exchange = asked.ended(Instant::now(), ended.fate, pdu);
        self.observer.exchange(&exchange, pdu);
    }

    fn note_read(&self, ended: &Ended<Pending>, exception: Option<u8>, pdu: &[u8]) {
        let party = &*ended.asker.client.party;
        let who = (party.address, &party.identity, &self.device.name);
        let key = (who, ended.unit, ended.function, ended.read);
        self.ledger.read(key, pdu, || Record {
            rule: ended.asker.rule.clone(),
            answer: answered(ended.read, pdu).filter(|_| exception.is_none()),
            outcome: Some(recorded(ended.fate)),
            exception,
            ..self.read_record(Kind::Read, ended)
        });
    }

    fn read_record(&self, kind: Kind, ended: &Ended<Pending>) -> Record {
        let pending = &ended.asker;
        let asked = Asked {
            client: &pending.client,
            place: pending.place,
            transaction: pending.transaction,
            unit: pending.client_unit,
        };
        let mut record = Record {
            function: Some(ended.function),
            ..self.record(kind, ended.id, asked, ended.unit)
        };
        describe_read(&mut record, ended.read);
        record
    }

    /// A read that brought no data back.
    fn unanswered(&self, ended: &Ended<Pending>, exception: Option<u8>) -> Record {
        let record = Record {
            exception,
            outcome: Some(recorded(ended.fate)),
            reason: Some(ended.reason.into()),
            ..self.read_record(Kind::Lost, ended)
        };
        match ended.fate {
            Fate::Refused => Record {
                decision: Some(Decision::Deny),
                kind: Kind::Denied,
                ..record
            },
            Fate::Unknown => Record {
                outcome: Some(Outcome::Lost),
                ..record
            },
            _ => record,
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

pub(super) fn parties(client: &ClientConn, device: &Device, unit: u8) -> Parties {
    Parties {
        client: client.number.into(),
        device: u16::try_from(device.place).unwrap_or(u16::MAX),
        unit,
    }
}
