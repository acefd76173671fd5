//! One device: the pool core, the audit of its writes, and who waits for an answer.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Decision, Kind, Outcome, Party, Record, Ticket, Values};
use fieldlock_conduit::admit::Permit;
use fieldlock_conduit::device::{
    Backoff, Borne, ClientKey, CloseReason, ConnId, DeviceSettings, DeviceSide, Event, Fault,
    Framing, Key, Outcome as Ended, Stats, Submit,
};
use fieldlock_conduit::meter::Who;
use fieldlock_conduit::repeat::{self, Repeats};
use fieldlock_conduit::step::{End, Mark, Registers};
use fieldlock_modbus::rtu::BROADCAST;
use fieldlock_modbus::{Exception, Quirk, Range};
use fieldlock_policy::Policy;
use fieldlock_session::{Frame, Outcome as Wire};
use fieldlock_transport::counter::{Counter, Histogram};
use fieldlock_transport::tunnel::Outbox;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use super::line::Line;
use crate::ledger::{Ledger, answered, describe, describe_read};
use crate::posture::Posture;
use crate::repeats;
use crate::settings::edge::Device as Config;

pub(crate) struct Device {
    pub(crate) name: Arc<str>,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(super) core: RefCell<DeviceSide>,
    /// By [`ConnId::index`].
    pub(super) lines: RefCell<Vec<Option<Line>>>,
    pub(super) ledger: Rc<Ledger>,
    /// Whom to trust, of devices that speak MBAPS.
    pub(super) posture: Rc<Posture>,
    /// A connection has come about since the start.
    reached: Cell<bool>,
    /// Why the last connection did not come about, until one does.
    failure: RefCell<Option<String>>,
    /// What the device sent last that was not taken.
    fault: RefCell<Option<String>>,
    /// Answers that deviated, by quirk.
    borne: [Counter; Quirk::ALL.len()],
    under_way: RefCell<HashMap<Key, UnderWay>>,
    /// What rules with a step need to know; `None`: no such rule is for this device.
    pub(super) registers: RefCell<Option<Registers>>,
    /// Writes whose outcome their clients may not know.
    repeats: RefCell<Repeats>,
    next_key: Cell<u64>,
    /// Writes whose intent is not on the disk yet, oldest first.
    held: RefCell<VecDeque<(Ticket, Key)>>,
    /// When the timer task wakes next; it may be earlier than needed, never later.
    timer_at: Cell<Option<Instant>>,
    timer: Notify,
    timer_task: RefCell<Option<AbortHandle>>,
}

/// What became of the requests that headends sent for a device.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counters {
    pub(crate) requests: Counter,
    pub(crate) answered: Counter,
    /// Of these, by the answer to another client's read.
    pub(crate) shared: Counter,
    pub(crate) refused: Counter,
    pub(crate) repeats_refused: Counter,
    pub(crate) busy: Counter,
    pub(crate) not_sent: Counter,
    pub(crate) unknown: Counter,
    /// Of those that were answered.
    #[serde(skip)]
    pub(crate) latency: Histogram,
}

const BUSY: Exception = Exception::ServerDeviceBusy;

/// Where an answer goes, and how the request is put on record.
pub(crate) struct Asker {
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) channel: u16,
    /// The headend's id of the request.
    pub(crate) id: u64,
    pub(crate) client: ClientKey,
    pub(crate) party: Arc<Party>,
    /// The headend's identity.
    pub(crate) tunnel: Arc<str>,
    pub(crate) deadline: Instant,
}

struct UnderWay {
    asker: Asker,
    since: Instant,
    unit: u8,
    function: u8,
    /// What it reads, where it has an address.
    read: Option<Range>,
    /// Who allowed it, of a read that goes on record.
    rule: Option<Arc<str>>,
    write: Option<Box<Write>>,
    /// What the registers learn from its end.
    mark: Option<Mark>,
}

struct Write {
    intent: Ticket,
    /// Of one that is to be sent only once.
    repeat: Option<repeat::Ticket>,
    record: Record,
}

/// Between two attempts to reach a device that has not been reached since the start.
const LOOK_FOR: Duration = Duration::from_secs(1);

/// Connects to a device before anybody asks it: who puts up the edge sees a wrong address while he is there.
async fn look_for(device: Weak<Device>) {
    while let Some(device) = device.upgrade().filter(|device| !device.reached.get()) {
        if device.timer_task.borrow().is_none() {
            return;
        }
        device.core.borrow_mut().connect_ahead(Instant::now());
        device.pump();
        drop(device);
        sleep(LOOK_FOR).await;
    }
}

impl Device {
    /// Makes the device and starts its timer; the first connection opens now, unless the configuration says
    /// otherwise, others when they are needed.
    pub(crate) fn start(config: Config, ledger: &Rc<Ledger>, posture: &Rc<Posture>) -> Rc<Self> {
        let name: Arc<str> = config.name.as_str().into();
        let seed = name
            .bytes()
            .fold(u64::from(std::process::id()), |seed, byte| {
                seed.wrapping_mul(31).wrapping_add(byte.into())
            });
        let settings = core_settings(&config);
        let lines = usize::from(settings.max_connections);
        let device = Rc::new(Self {
            name,
            counters: Counters::default(),
            core: RefCell::new(DeviceSide::new(settings, seed, Instant::now())),
            lines: RefCell::new(std::iter::repeat_with(|| None).take(lines).collect()),
            ledger: ledger.clone(),
            posture: posture.clone(),
            reached: Cell::new(false),
            failure: RefCell::default(),
            fault: RefCell::default(),
            borne: Default::default(),
            under_way: RefCell::default(),
            registers: RefCell::default(),
            repeats: RefCell::new(Repeats::at_edge(config.refuse_repeats_for.0)),
            next_key: Cell::new(0),
            held: RefCell::default(),
            timer_at: Cell::new(None),
            timer: Notify::new(),
            timer_task: RefCell::default(),
            config,
        });
        if device.ledger.take_unfinished(&device.name) {
            device.core.borrow_mut().wait_for_earlier_writes();
        }
        device.follow_policy(&posture.policy());
        let timed = device.clone();
        let task = tokio::task::spawn_local(async move {
            loop {
                timed.wait_for_timer().await;
            }
        });
        *device.timer_task.borrow_mut() = Some(task.abort_handle());
        if device.config.connect_at_start {
            tokio::task::spawn_local(look_for(Rc::downgrade(&device)));
        }
        device
    }

    /// Learns from now on what this policy needs to know, and begins with nothing.
    pub(crate) fn follow_policy(&self, policy: &Policy) {
        self.core.borrow_mut().policy_changed();
        for request in self.under_way.borrow_mut().values_mut() {
            request.mark = None;
        }
        let stepped = policy.stepped(&self.name);
        // Until then something may be under way: from before, from an edge that was stopped, from
        // this one by other settings.
        let quiet_at = Instant::now() + self.config.answer_within.0;
        let registers = (!stepped.is_empty()).then(|| Registers::new(stepped, quiet_at));
        *self.registers.borrow_mut() = registers;
    }

    /// The configuration has another device in this place, or none: what is under way is
    /// finished, then the connections close.
    pub(crate) async fn retire(self: Rc<Self>) {
        // It does not see any more all that reaches the device.
        *self.registers.borrow_mut() = None;
        while self.under_way() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        if let Some(task) = self.timer_task.take() {
            task.abort();
        }
        self.lines
            .borrow_mut()
            .iter_mut()
            .for_each(|line| *line = None);
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.borrow().len()
    }

    /// Why there is no connection, where the last attempt failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// What the device sent last that was not taken, and which quirk would bear it.
    pub(crate) fn last_fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }

    /// The quirks that it may show or has shown, with the number of answers that did.
    pub(crate) fn quirks(&self) -> impl Iterator<Item = (Quirk, u64)> {
        let counted = Quirk::ALL.into_iter().zip(self.borne.each_ref());
        let counted = counted.map(|(quirk, count)| (quirk, count.get()));
        counted.filter(|(quirk, count)| *count > 0 || self.config.quirks.contains(*quirk))
    }

    /// Whether the device takes connections, as far as that was tried.
    pub(crate) fn is_reachable(&self) -> Option<bool> {
        match (&*self.failure.borrow(), self.reached.get()) {
            (Some(_), _) => Some(false),
            (None, true) => Some(true),
            (None, false) => None,
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.core.borrow().stats()
    }

    pub(crate) fn units_held_off(&self) -> Vec<u8> {
        self.core.borrow().units_held_off(Instant::now()).collect()
    }

    /// Takes a request that `policy` permits; [`Device::pump`] moves it on. Exactly one answer
    /// follows; `false`: it was refused and answered here and now.
    pub(crate) fn submit(
        &self,
        now: Instant,
        asker: Asker,
        permit: &Permit<'_>,
        policy: &Policy,
    ) -> bool {
        self.counters.requests.add();
        let request = permit.request();
        let key = Key(self.next_key.get());
        self.next_key.set(key.0 + 1);
        let is_write = request.changes_state();
        let submit = Submit {
            key,
            client: asker.client,
            unit: permit.unit(),
            request,
            grounds: permit.grounds(),
            deadline: asker.deadline,
            held: is_write,
        };
        let function = request.function().0;
        if self.config.modbus_rtu.is_some() && permit.unit() == BROADCAST && !is_write {
            // Nobody answers a broadcast (Modbus over Serial Line, section 2.1).
            let reason = "a broadcast can only write";
            self.shed(&asker, permit, Exception::IllegalFunction, reason);
            return false;
        }
        if let Err(full) = self.core.borrow_mut().submit(now, submit) {
            self.shed(&asker, permit, BUSY, &full.to_string());
            return false;
        }
        let write = if is_write {
            match self.intend(now, &asker, key, permit, policy) {
                Ok(write) => Some(write),
                Err(reason) => {
                    self.core.borrow_mut().refuse(key);
                    self.shed(&asker, permit, BUSY, &reason);
                    return false;
                }
            }
        } else {
            None
        };
        let mut registers = self.registers.borrow_mut();
        let mark = registers
            .as_mut()
            .and_then(|r| r.submitted(now, permit.unit(), request, asker.deadline));
        let under_way = UnderWay {
            asker,
            since: now,
            mark,
            unit: permit.unit(),
            function,
            read: request.read(),
            rule: (write.is_none() && self.ledger.records_reads())
                .then(|| policy.rule_name(permit.rule()).into()),
            write,
        };
        self.under_way.borrow_mut().insert(key, under_way);
        true
    }

    /// Whether this write repeats one that came through another headend; it is answered then.
    pub(crate) fn refuses_repeat(&self, now: Instant, asker: &Asker, permit: &Permit<'_>) -> bool {
        let known = self.repeats.borrow();
        if !permit.is_once() || known.is_empty() {
            return false;
        }
        let who = who(&asker.party);
        let first = known.first(now, &written(&who, asker, permit), |_| false);
        let Some(first) = first else { return false };
        self.counters.repeats_refused.add();
        let exception = repeats::ANSWER;
        asker.answer(Wire::Refused, &exception.pdu(permit.request().function().0));
        let mut record = Record {
            decision: Some(Decision::Deny),
            reason: Some(repeats::REASON.into()),
            outcome: Some(Outcome::RepeatRefused),
            exception: Some(exception.code()),
            repeats: Some(first),
            ..self.record(Kind::Denied, asker, permit.unit())
        };
        describe(&mut record, permit.request(), permit.layout());
        self.ledger.repeated(record);
        true
    }

    /// A client asks for something that is no repeat: it has the answers to what it asked before. True as long as it
    /// is worth saying so again.
    pub(crate) fn goes_on(&self, asker: &Asker) -> bool {
        let who = who(&asker.party);
        let mut known = self.repeats.borrow_mut();
        known.goes_on(&who, asker.client.0)
    }

    /// What the client knows now of its writes.
    fn tell_what_is_known(&self, under_way: &UnderWay, outcome: Outcome, exception: Option<u8>) {
        let mut known = self.repeats.borrow_mut();
        let party = &under_way.asker.party;
        let now = Instant::now();
        if let Some(write) = &under_way.write {
            if let Some(ticket) = write.repeat {
                let end = repeats::end_of(outcome, exception);
                known.ended(now, &who(party), ticket, end);
            }
        } else if let (Outcome::Answered, Some(range), false) =
            (outcome, &under_way.read, known.is_empty())
        {
            known.read(&who(party), 0, under_way.unit, range, under_way.since);
        }
    }

    /// Overload, no audit, or a request that makes no sense here: never sent.
    fn shed(&self, asker: &Asker, permit: &Permit<'_>, exception: Exception, reason: &str) {
        self.counters.busy.add();
        let request = permit.request();
        asker.answer(Wire::Refused, &exception.pdu(request.function().0));
        let mut record = Record {
            decision: Some(Decision::Deny),
            reason: Some(reason.to_owned().into()),
            outcome: Some(Outcome::Refused),
            exception: Some(exception.code()),
            ..self.record(Kind::Denied, asker, permit.unit())
        };
        describe(&mut record, request, permit.layout());
        self.ledger.repeated(record);
    }

    /// Puts the intent of a write on record; it is sent once that is on the disk.
    fn intend(
        &self,
        now: Instant,
        asker: &Asker,
        key: Key,
        permit: &Permit<'_>,
        policy: &Policy,
    ) -> Result<Box<Write>, String> {
        let mut record = Record {
            decision: Some(Decision::Allow),
            rule: Some(policy.rule_name(permit.rule()).into()),
            ..self.record(Kind::WriteIntent, asker, permit.unit())
        };
        describe(&mut record, permit.request(), permit.layout());
        let outcome = Record {
            kind: Kind::WriteOutcome,
            values: None,
            decoded: None,
            decision: None,
            rule: None,
            durable: false,
            ..record.clone()
        };
        if !self.ledger.is_writable() {
            return Err("the audit log can't be written".into());
        }
        let who = who(&asker.party);
        let mut known = self.repeats.borrow_mut();
        let repeat = permit
            .is_once()
            .then(|| known.begin(now, &written(&who, asker, permit), asker.id))
            .transpose()
            .map_err(|repeat::Full| repeats::FULL)?;
        let intent = self.ledger.intent(record).map_err(|error| {
            if let Some(ticket) = repeat {
                known.ended(now, &who, ticket, repeat::End::NotSent);
            }
            error.to_string()
        })?;
        self.held.borrow_mut().push_back((intent, key));
        Ok(Box::new(Write {
            intent,
            repeat,
            record: outcome,
        }))
    }

    /// Releases writes whose intent is on the disk; refuses them all when it can't be.
    pub(crate) fn release_durable(self: &Rc<Self>) {
        let now = Instant::now();
        let durable = self.ledger.durable();
        let writable = self.ledger.is_writable();
        loop {
            let mut held = self.held.borrow_mut();
            let next = held.pop_front_if(|(ticket, _)| *ticket <= durable || !writable);
            drop(held);
            let Some((ticket, key)) = next else { break };
            if ticket <= durable {
                self.core.borrow_mut().release(now, key);
            } else {
                self.refuse_held(key);
            }
        }
        self.pump();
    }

    fn refuse_held(&self, key: Key) {
        if !self.core.borrow_mut().refuse(key) {
            return;
        }
        let Some(under_way) = self.under_way.borrow_mut().remove(&key) else {
            return;
        };
        self.counters.busy.add();
        let pdu = Exception::ServerDeviceBusy.pdu(under_way.function);
        self.ended(&under_way, End::Refused);
        under_way.asker.answer(Wire::Refused, &pdu);
        self.tell_what_is_known(&under_way, Outcome::Refused, None);
        let reason = "the audit log can't be written";
        let borne = Borne::default();
        self.conclude(&under_way, Outcome::Refused, Some(pdu[1]), borne, reason);
    }

    /// The client has gone: what it asked and was not sent yet is dropped.
    pub(crate) fn drop_client(&self, client: ClientKey) {
        self.core.borrow_mut().drop_client(Instant::now(), client);
    }

    /// Moves bytes out and answers on, and sets the timer. To be called after any input.
    pub(crate) fn pump(self: &Rc<Self>) {
        self.transmit();
        loop {
            let Some(event) = self.core.borrow_mut().poll_event() else {
                break;
            };
            match event {
                Event::Connect(conn) => self.open(conn),
                Event::Close(conn, reason) => {
                    self.note_close(conn, reason);
                    self.take_line(conn);
                }
                Event::Seal(conn, reason) => {
                    self.note_close(conn, reason);
                    if let Some(line) = self.take_line(conn) {
                        line.seal();
                    }
                }
                Event::Refused(fault) => self.note_fault("refused what came on the line", fault),
                Event::Answer {
                    key,
                    outcome,
                    shared,
                    borne,
                    pdu,
                    ..
                } => self.answer(key, outcome, shared, borne, &pdu),
            }
        }
        self.transmit();
        let next = self.core.borrow().poll_timeout();
        let later = match (next, self.timer_at.get()) {
            (None, _) => true,
            (Some(next), Some(at)) => at <= next,
            (Some(_), None) => false,
        };
        if !later {
            self.timer_at.set(next);
            self.timer.notify_one();
        }
    }

    fn note_close(&self, conn: ConnId, reason: CloseReason) {
        debug!(device = %self.name, %conn, "connection closed: {reason}");
        match reason {
            CloseReason::ConnectTimeout => self.unreachable(&reason.to_string()),
            CloseReason::Idle | CloseReason::Timeout => {}
            CloseReason::Fault(fault) => self.note_fault("closed the connection", fault),
        }
    }

    /// Something came from the device that answers no request, or not the one it should.
    fn note_fault(&self, consequence: &str, fault: Fault) {
        let text = fault.to_string();
        let first = self.ledger.repeated(Record {
            device: Some(self.name.clone()),
            reason: Some(text.clone().into()),
            ..Record::new(Kind::DeviceFault)
        });
        if first {
            warn!(device = %self.name, "{consequence}: {fault}");
        }
        *self.fault.borrow_mut() = Some(text);
    }

    fn transmit(self: &Rc<Self>) {
        let mut failed = Vec::new();
        for line in self.lines.borrow().iter().flatten() {
            let sent = line.send(|out| self.core.borrow_mut().poll_transmit(line.conn, out));
            if sent.is_err() {
                failed.push(line.conn);
            }
        }
        for conn in failed {
            self.closed(conn, false);
        }
    }

    async fn wait_for_timer(self: &Rc<Self>) {
        match self.timer_at.get() {
            Some(at) => {
                tokio::select! {
                    () = sleep_until(at.into()) => {
                        self.timer_at.set(None);
                        self.core.borrow_mut().handle_timeout(Instant::now());
                        self.pump();
                    }
                    () = self.timer.notified() => {}
                }
            }
            None => self.timer.notified().await,
        }
    }

    fn answer(&self, key: Key, outcome: Ended, shared: bool, borne: Borne, pdu: &[u8]) {
        let Some(under_way) = self.under_way.borrow_mut().remove(&key) else {
            return;
        };
        let is_exception = pdu.first().is_some_and(|function| function & 0x80 != 0);
        let exception = is_exception.then(|| pdu[1]);
        let (wire, recorded) = match outcome {
            Ended::Answered if is_exception => (Wire::Answered, Outcome::Exception),
            Ended::Answered if shared => (Wire::Answered, Outcome::Shared),
            Ended::Answered => (Wire::Answered, Outcome::Answered),
            Ended::Broadcast => (Wire::Answered, Outcome::Sent),
            Ended::NotSent | Ended::HeldOff | Ended::Unreachable => {
                (Wire::NotSent, Outcome::NotSent)
            }
            Ended::Unknown(_) => (Wire::Unknown, Outcome::Unknown),
        };
        let end = match recorded {
            // Not a word of what the registers hold, or of fewer than they are.
            Outcome::Answered | Outcome::Shared if borne.is_foreign() => End::Lost,
            Outcome::Answered | Outcome::Shared => End::Answered(pdu),
            Outcome::Exception | Outcome::NotSent => End::Refused,
            _ => End::Lost,
        };
        self.ended(&under_way, end);
        self.tell_what_is_known(&under_way, recorded, exception);
        under_way.asker.answer(wire, pdu);
        let reason = match outcome {
            Ended::Answered | Ended::Broadcast => {
                self.counters.answered.add();
                self.counters.latency.observe(under_way.since.elapsed());
                match shared {
                    true => self.counters.shared.add(),
                    false => {
                        (borne.quirks.iter()).for_each(|quirk| self.borne[quirk as usize].add())
                    }
                }
                String::new()
            }
            Ended::NotSent | Ended::HeldOff | Ended::Unreachable => {
                self.counters.not_sent.add();
                outcome.to_string()
            }
            Ended::Unknown(_) => {
                self.counters.unknown.add();
                outcome.to_string()
            }
        };
        if under_way.write.is_none() && reason.is_empty() && self.ledger.records_reads() {
            self.note_read(&under_way, recorded, exception, borne, pdu);
        } else {
            self.conclude(&under_way, recorded, exception, borne, &reason);
        }
    }

    /// What a request that is over has taught of registers.
    fn ended(&self, under_way: &UnderWay, end: End<'_>) {
        if let Some(mark) = under_way.mark
            && let Some(registers) = &mut *self.registers.borrow_mut()
        {
            registers.ended(Instant::now(), mark, end);
        }
    }

    fn note_read(
        &self,
        asked: &UnderWay,
        outcome: Outcome,
        exception: Option<u8>,
        borne: Borne,
        pdu: &[u8],
    ) {
        let party = &*asked.asker.party;
        let who = (party.address, &party.identity, &asked.asker.tunnel);
        let key = (who, &self.name, asked.unit, asked.function, asked.read);
        self.ledger.read(key, pdu, || Record {
            rule: asked.rule.clone(),
            answer: answered(asked.read, pdu).filter(|_| exception.is_none()),
            outcome: Some(outcome),
            exception,
            quirk: named(borne),
            ..self.read_record(Kind::Read, asked)
        });
    }

    fn read_record(&self, kind: Kind, asked: &UnderWay) -> Record {
        let mut record = Record {
            function: Some(asked.function),
            ..self.record(kind, &asked.asker, asked.unit)
        };
        describe_read(&mut record, asked.read);
        record
    }

    /// Puts the end of a request on record: every write, and reads that brought nothing.
    fn conclude(
        &self,
        under_way: &UnderWay,
        outcome: Outcome,
        exception: Option<u8>,
        borne: Borne,
        reason: &str,
    ) {
        let reason = (!reason.is_empty()).then(|| reason.to_owned().into());
        match &under_way.write {
            Some(write) => self.ledger.note(Record {
                intent: Some(write.intent),
                outcome: Some(outcome),
                exception,
                quirk: named(borne),
                answer: borne.took.map(Values::Register),
                reason,
                ..write.record.clone()
            }),
            None if reason.is_some() => {
                self.ledger.repeated(Record {
                    outcome: Some(match outcome {
                        Outcome::Unknown => Outcome::Lost,
                        outcome => outcome,
                    }),
                    exception,
                    reason,
                    ..self.read_record(Kind::Lost, under_way)
                });
            }
            None => {}
        }
    }

    pub(crate) fn record(&self, kind: Kind, asker: &Asker, unit: u8) -> Record {
        Record {
            tunnel: Some(asker.tunnel.clone()),
            client: Some(asker.party.clone()),
            device: Some(self.name.clone()),
            unit: Some(unit),
            request: Some(asker.id),
            ..Record::new(kind)
        }
    }

    // --- connections ----------------------------------------------------------------

    fn open(self: &Rc<Self>, conn: ConnId) {
        let line = Line::open(self, conn);
        if let Some(place) = self.lines.borrow_mut().get_mut(conn.index()) {
            *place = Some(line);
        }
    }

    fn take_line(&self, conn: ConnId) -> Option<Line> {
        let mut lines = self.lines.borrow_mut();
        lines
            .get_mut(conn.index())?
            .take_if(|line| line.conn == conn)
    }

    pub(super) fn sealed(self: &Rc<Self>, conn: ConnId) {
        self.core.borrow_mut().handle_sealed(Instant::now(), conn);
        self.pump();
    }

    pub(super) fn connected(self: &Rc<Self>, conn: ConnId) {
        info!(device = %self.name, "connected");
        self.reached.set(true);
        self.failure.take();
        self.core
            .borrow_mut()
            .handle_connected(Instant::now(), conn);
        self.pump();
    }

    pub(super) fn connect_failed(self: &Rc<Self>, conn: ConnId, error: &str) {
        self.unreachable(error);
        self.closed(conn, true);
    }

    /// Says so once, not at each attempt.
    fn unreachable(&self, error: &str) {
        let before = self.failure.replace(Some(error.to_owned()));
        if before.as_deref() == Some(error) {
            debug!(device = %self.name, "can't be reached: {error}");
        } else {
            warn!(device = %self.name, "can't be reached: {error}");
        }
    }

    pub(super) fn received(self: &Rc<Self>, conn: ConnId, bytes: &[u8]) {
        self.core
            .borrow_mut()
            .handle_bytes(Instant::now(), conn, bytes);
        self.pump();
    }

    pub(super) fn lost(self: &Rc<Self>, conn: ConnId, why: &str) {
        info!(device = %self.name, "connection lost: {why}");
        self.closed(conn, false);
    }

    pub(super) fn closed(self: &Rc<Self>, conn: ConnId, connect_failed: bool) {
        self.take_line(conn);
        self.core
            .borrow_mut()
            .handle_closed(Instant::now(), conn, connect_failed);
        self.pump();
    }
}

impl Asker {
    pub(crate) fn answer(&self, outcome: Wire, pdu: &[u8]) {
        let frame = Frame::Answer {
            id: self.id,
            outcome,
            pdu,
        };
        self.outbox.push(|out| frame.encode(self.channel, out));
    }
}

/// Whose writes these are, as the headend states it.
fn who(party: &Party) -> Who {
    match &party.identity {
        Some(identity) => Who::Identity(identity.clone()),
        None => Who::Address(party.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())),
    }
}

fn written<'a>(who: &'a Who, asker: &Asker, permit: &'a Permit<'_>) -> repeat::Asked<'a> {
    repeat::Asked {
        who,
        connection: asker.client.0,
        transaction: 0,
        device: 0,
        unit: permit.unit(),
        request: permit.request(),
    }
}

/// As it stands on record.
fn named(borne: Borne) -> Option<Box<str>> {
    (!borne.quirks.is_empty()).then(|| borne.quirks.to_string().into())
}

fn core_settings(config: &Config) -> DeviceSettings {
    let common = DeviceSettings {
        queue: config.queue.into(),
        queue_per_client: config.queue_per_client.into(),
        shared_reads: config.shared_reads,
        quirks: config.quirks,
        response_timeout: config.response_timeout(),
        max_hold_off: config.unit_hold_off.0,
        reconnect: Backoff {
            first: Duration::from_millis(50),
            // A device that comes back is asked again within a second.
            max: Duration::from_secs(1),
        },
        ..DeviceSettings::default()
    };
    if let Some(rtu) = &config.modbus_rtu {
        return DeviceSettings {
            framing: Framing::Rtu {
                baud: rtu.baud,
                frame_gap: rtu.frame_gap.0,
                turnaround: rtu.turnaround.0,
            },
            pause_between_requests: rtu.pause_between_requests.0,
            ..common
        };
    }
    let Some(tcp) = &config.modbus_tcp else {
        return common;
    };
    DeviceSettings {
        max_connections: tcp.max_connections,
        in_flight: tcp.in_flight,
        connect_timeout: tcp.connect_timeout.0,
        pause_after_connect: tcp.pause_after_connect.0,
        pause_between_requests: tcp.pause_between_requests.0,
        idle_close: tcp.idle_close.map(|span| span.0),
        ..common
    }
}
