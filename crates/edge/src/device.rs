//! One device: the pool core, the audit of its writes, and who waits for an answer.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Decision, Kind, Outcome, Party, Record, Ticket, Values};
use fieldlock_conduit::admit::Permit;
use fieldlock_conduit::device::{
    Backoff, Borne, ClientKey, CloseReason, ConnId, DeviceSettings, DeviceSide, Fault, Framing,
    Stats,
};
use fieldlock_conduit::fate::Fate;
use fieldlock_conduit::meter::{Meter, Who};
use fieldlock_conduit::observe::{Exchange, Observer, Parties};
use fieldlock_conduit::repeat::Repeats;
use fieldlock_conduit::serve::{Asked, Ended, Event, Serving, Shed, Taken};
use fieldlock_modbus::{Exception, Quirk, Request};
use fieldlock_policy::{Policy, View};
use fieldlock_session::Frame;
use fieldlock_transport::counter::{Counter, Histogram};
use fieldlock_transport::tunnel::Outbox;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use super::line::Line;
use crate::settings::{Device as Config, File};
use fieldlock_agent::fates::{self, recorded};
use fieldlock_agent::ledger::{Ledger, answered, describe, describe_read};
use fieldlock_agent::posture::Posture;
use fieldlock_agent::runtime::Runtime;

pub(crate) struct Device {
    pub(crate) name: Arc<str>,
    /// In the configuration.
    pub(crate) place: Cell<u16>,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(super) core: RefCell<Serving<Asker>>,
    /// By [`ConnId::index`].
    pub(super) lines: RefCell<Vec<Option<Line>>>,
    pub(super) ledger: Rc<Ledger>,
    observer: Rc<Observer>,
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
    /// When the timer task wakes next; it may be earlier than needed, never later.
    timer_at: Cell<Option<Instant>>,
    timer: Notify,
    timer_task: RefCell<Option<AbortHandle>>,
}

/// What became of the requests that headends sent for a device.
#[derive(Debug, Default)]
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
    pub(crate) latency: Histogram,
}

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
    /// Who allowed it, of a read that goes on record.
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) write: Option<Box<Write>>,
}

/// A write on record.
pub(crate) struct Write {
    intent: Ticket,
    /// Of its end.
    record: Record,
    observed: Option<Exchange>,
}

/// Between two attempts to reach a device that has not been reached since the start.
const LOOK_FOR: Duration = Duration::from_secs(1);

/// Connects to a device before anybody asks it: who puts up the edge sees a wrong address while he is there.
async fn look_for(device: Weak<Device>) {
    while let Some(device) = device.upgrade().filter(|device| !device.reached.get()) {
        if device.timer_task.borrow().is_none() {
            return;
        }
        device
            .core
            .borrow_mut()
            .device_mut()
            .connect_ahead(Instant::now());
        device.pump();
        drop(device);
        sleep(LOOK_FOR).await;
    }
}

impl Device {
    /// Makes the device and starts its timer; the first connection opens now, unless the configuration says
    /// otherwise, others when they are needed.
    pub(crate) fn start(config: Config, runtime: &Runtime<File>) -> Rc<Self> {
        let (ledger, posture) = (&runtime.ledger, &runtime.posture);
        let name: Arc<str> = config.name.as_str().into();
        let seed = name
            .bytes()
            .fold(u64::from(std::process::id()), |seed, byte| {
                seed.wrapping_mul(31).wrapping_add(byte.into())
            });
        let settings = core_settings(&config);
        let lines = usize::from(settings.max_connections);
        let repeats = Repeats::at_edge(config.refuse_repeats_for.0);
        let device = Rc::new(Self {
            name,
            counters: Counters::default(),
            core: RefCell::new(Serving::new(settings, seed, repeats, Instant::now())),
            lines: RefCell::new(std::iter::repeat_with(|| None).take(lines).collect()),
            place: Cell::new(0),
            ledger: ledger.clone(),
            observer: runtime.watcher.observer.clone(),
            posture: posture.clone(),
            reached: Cell::new(false),
            failure: RefCell::default(),
            fault: RefCell::default(),
            borne: Default::default(),
            timer_at: Cell::new(None),
            timer: Notify::new(),
            timer_task: RefCell::default(),
            config,
        });
        if device.ledger.take_unfinished(&device.name) {
            let mut core = device.core.borrow_mut();
            core.device_mut().wait_for_earlier_writes();
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
        // Until then something may be under way: from before, from an edge that was stopped, from
        // this one by other settings.
        let quiet_at = Instant::now() + self.config.answer_within.0;
        let mut core = self.core.borrow_mut();
        core.follow_policy(policy.stepped(&self.name), quiet_at);
    }

    /// The configuration has another device in this place, or none: what is under way is
    /// finished, then the connections close.
    pub(crate) async fn retire(self: Rc<Self>) {
        // It does not see any more all that reaches the device.
        self.core.borrow_mut().forget_registers();
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
        self.core.borrow().len()
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
        self.core.borrow().device().stats()
    }

    pub(crate) fn units_held_off(&self) -> Vec<u8> {
        let core = self.core.borrow();
        core.device().units_held_off(Instant::now()).collect()
    }

    /// Takes a request out of a tunnel; [`Device::pump`] moves it on. Exactly one answer follows. `meter`
    /// counts for `metered`.
    pub(crate) fn request(
        &self,
        now: Instant,
        asker: Asker,
        asked: Asked<'_>,
        judges: (&View, &Policy),
        (unit, pdu): (u8, &[u8]),
        (meter, metered): (&mut Meter, &Who),
    ) {
        let (view, policy) = judges;
        let mut core = self.core.borrow_mut();
        let taken = core.request(now, asker, asked, view, (unit, pdu), (&mut *meter, metered));
        match taken {
            Ok(Taken::Read { permit, key }) => {
                self.counters.requests.add();
                if self.ledger.records_reads()
                    && let Some(asker) = core.asker_mut(key)
                {
                    asker.rule = Some(policy.rule_name(permit.rule()).into());
                }
            }
            Ok(Taken::Write { permit, key }) => {
                self.counters.requests.add();
                let Some(asker) = core.asker_mut(key) else {
                    return;
                };
                match self.intent(asker, &permit, policy) {
                    Ok(intent) => core.hold(key, intent),
                    Err(reason) => {
                        permit.put_back(meter, metered);
                        if let Some(asker) = core.take_back(now, key) {
                            self.unrecorded(&asker, &permit, &reason);
                        }
                    }
                }
            }
            Err((asker, shed)) => self.shed(&asker, unit, &shed, policy),
        }
    }

    /// Answers a request that was not let in, and puts that on record.
    fn shed(&self, asker: &Asker, unit: u8, shed: &Shed<'_>, policy: &Policy) {
        asker.answer(shed.fate(), &shed.pdu());
        let end = (shed.fate(), shed.exception());
        self.observe_refused(asker, unit, shed.asked(), end);
        let counters = &self.counters;
        let (reason, repeats) = match shed {
            Shed::Refused(refused) => {
                counters.refused.add();
                (refused.why.to_string().into(), None)
            }
            Shed::Repeat { first, .. } => {
                counters.repeats_refused.add();
                (fates::REPEAT.into(), Some(*first))
            }
            Shed::BroadcastRead { .. } => ("a broadcast can only write".into(), None),
            Shed::QueueFull { full, .. } => (full.to_string().into(), None),
            Shed::Unknowns { .. } => (fates::UNKNOWNS.into(), None),
        };
        if !matches!(shed, Shed::Refused(_) | Shed::Repeat { .. }) {
            counters.requests.add();
            counters.busy.add();
        }
        let mut record = Record {
            decision: Some(Decision::Deny),
            reason: Some(reason),
            outcome: Some(recorded(shed.fate())),
            exception: Some(shed.exception().code()),
            repeats,
            ..self.record(Kind::Denied, asker, unit)
        };
        match (shed, shed.permit()) {
            (Shed::Refused(refused), _) => {
                record.function = Some(refused.function);
                record.rule = refused.rule.map(|rule| policy.rule_name(rule).into());
                if let Some(request) = &refused.request {
                    describe(&mut record, request, refused.layout.as_ref());
                }
            }
            (_, Some(permit)) => describe(&mut record, permit.request(), permit.layout()),
            (_, None) => {}
        }
        self.ledger.repeated(record);
    }

    /// Answers a write that can't be put on record: it is not sent.
    fn unrecorded(&self, asker: &Asker, permit: &Permit<'_>, reason: &str) {
        self.counters.busy.add();
        let request = permit.request();
        let exception = Exception::ServerDeviceBusy;
        asker.answer(Fate::Refused, &exception.pdu(request.function().0));
        let end = (Fate::Refused, exception);
        self.observe_refused(asker, permit.unit(), Ok(request), end);
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
    fn intent(
        &self,
        asker: &mut Asker,
        permit: &Permit<'_>,
        policy: &Policy,
    ) -> Result<Ticket, String> {
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
            return Err(fates::NO_AUDIT.into());
        }
        let intent = self.ledger.intent(record).map_err(|e| e.to_string())?;
        let observed = self.observer.is_on().then(|| {
            let who = self.parties(asker, permit.unit());
            Exchange::asked(Instant::now(), who, permit.request())
        });
        asker.write = Some(Box::new(Write {
            intent,
            record: outcome,
            observed,
        }));
        Ok(intent)
    }

    /// Releases writes whose intent is on the disk; refuses them all when it can't be.
    pub(crate) fn release_durable(self: &Rc<Self>) {
        let (durable, writable) = (self.ledger.durable(), self.ledger.is_writable());
        self.core
            .borrow_mut()
            .handle_durable(Instant::now(), durable, writable);
        self.pump();
    }

    /// The client has gone: what it asked and was not sent yet is dropped.
    pub(crate) fn drop_client(&self, client: ClientKey) {
        let mut core = self.core.borrow_mut();
        core.device_mut().drop_client(Instant::now(), client);
    }

    /// Moves bytes out and answers on, and sets the timer. To be called after any input.
    pub(crate) fn pump(self: &Rc<Self>) {
        self.transmit();
        let now = Instant::now();
        loop {
            let Some(event) = self.core.borrow_mut().poll_event(now) else {
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
                Event::Ended(ended) => self.ended(&ended),
            }
        }
        self.transmit();
        let next = self.core.borrow().device().poll_timeout();
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
            let mut core = self.core.borrow_mut();
            let sent = line.send(|out| core.device_mut().poll_transmit(line.conn, out));
            drop(core);
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
                        let now = Instant::now();
                        self.core.borrow_mut().device_mut().handle_timeout(now);
                        self.pump();
                    }
                    () = self.timer.notified() => {}
                }
            }
            None => self.timer.notified().await,
        }
    }

    fn parties(&self, asker: &Asker, unit: u8) -> Parties {
        Parties {
            client: asker.client.0,
            device: self.place.get(),
            unit,
        }
    }

    /// Tells of a request that is over to whoever looks on.
    fn observe(&self, ended: &Ended<Asker>) {
        let asker = &ended.asker;
        let observed = asker.write.as_ref().and_then(|write| write.observed);
        let asked = observed.unwrap_or_else(|| Exchange {
            read: ended.read,
            ..Exchange::new(ended.since, self.parties(asker, ended.unit), ended.function)
        });
        let exchange = asked.ended(Instant::now(), ended.fate, &ended.pdu);
        self.observer.exchange(&exchange, &ended.pdu);
    }

    /// Likewise of one that goes no further.
    pub(crate) fn observe_refused(
        &self,
        asker: &Asker,
        unit: u8,
        asked: Result<&Request<'_>, u8>,
        end: (Fate, Exception),
    ) {
        if self.observer.is_on() {
            let who = self.parties(asker, unit);
            self.observer.refused(Instant::now(), who, asked, end);
        }
    }

    /// Answers a request that is over, and puts that on record.
    fn ended(&self, ended: &Ended<Asker>) {
        let fate = ended.fate;
        ended.asker.answer(fate, &ended.pdu);
        if self.observer.is_on() {
            self.observe(ended);
        }
        let is_exception = ended
            .pdu
            .first()
            .is_some_and(|function| function & 0x80 != 0);
        let exception = is_exception.then(|| ended.pdu[1]);
        let counters = &self.counters;
        match fate {
            Fate::Answered | Fate::Shared | Fate::Exception | Fate::Sent => {
                counters.answered.add();
                counters.latency.observe(ended.since.elapsed());
                let quirks = ended.borne.quirks;
                match fate {
                    Fate::Shared => counters.shared.add(),
                    _ => quirks
                        .iter()
                        .for_each(|quirk| self.borne[quirk as usize].add()),
                }
                if ended.asker.write.is_none() {
                    self.note_read(ended, exception);
                    return;
                }
            }
            Fate::Refused | Fate::RepeatRefused => counters.busy.add(),
            Fate::NotSent => counters.not_sent.add(),
            Fate::Unknown => counters.unknown.add(),
        }
        self.conclude(ended, exception);
    }

    fn note_read(&self, ended: &Ended<Asker>, exception: Option<u8>) {
        if !self.ledger.records_reads() {
            return;
        }
        let party = &*ended.asker.party;
        let who = (party.address, &party.identity, &ended.asker.tunnel);
        let key = (who, &self.name, ended.unit, ended.function, ended.read);
        self.ledger.read(key, &ended.pdu, || Record {
            rule: ended.asker.rule.clone(),
            answer: answered(ended.read, &ended.pdu).filter(|_| exception.is_none()),
            outcome: Some(recorded(ended.fate)),
            exception,
            quirk: named(ended.borne),
            ..self.read_record(Kind::Read, ended)
        });
    }

    fn read_record(&self, kind: Kind, ended: &Ended<Asker>) -> Record {
        let mut record = Record {
            function: Some(ended.function),
            ..self.record(kind, &ended.asker, ended.unit)
        };
        describe_read(&mut record, ended.read);
        record
    }

    /// Puts the end of a request on record: every write, and reads that brought nothing.
    fn conclude(&self, ended: &Ended<Asker>, exception: Option<u8>) {
        let reason = match (ended.outcome, ended.fate) {
            (_, Fate::Answered | Fate::Shared | Fate::Exception | Fate::Sent) => None,
            (Some(outcome), _) => Some(outcome.to_string().into()),
            (None, _) => Some(fates::NO_AUDIT.into()),
        };
        match &ended.asker.write {
            Some(write) => self.ledger.note(Record {
                intent: Some(write.intent),
                outcome: Some(recorded(ended.fate)),
                exception,
                quirk: named(ended.borne),
                answer: ended.borne.took.map(Values::Register),
                reason,
                ..write.record.clone()
            }),
            None => {
                self.ledger.repeated(Record {
                    outcome: Some(match ended.fate {
                        Fate::Unknown => Outcome::Lost,
                        fate => recorded(fate),
                    }),
                    exception,
                    reason,
                    ..self.read_record(Kind::Lost, ended)
                });
            }
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
        self.tell(|core, now| core.handle_sealed(now, conn));
    }

    /// What a connection has to say.
    fn tell(self: &Rc<Self>, what: impl FnOnce(&mut DeviceSide, Instant)) {
        what(self.core.borrow_mut().device_mut(), Instant::now());
        self.pump();
    }

    pub(super) fn connected(self: &Rc<Self>, conn: ConnId) {
        info!(device = %self.name, "connected");
        self.reached.set(true);
        self.failure.take();
        self.tell(|core, now| core.handle_connected(now, conn));
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
        self.tell(|core, now| core.handle_bytes(now, conn, bytes));
    }

    pub(super) fn lost(self: &Rc<Self>, conn: ConnId, why: &str) {
        info!(device = %self.name, "connection lost: {why}");
        self.closed(conn, false);
    }

    pub(super) fn closed(self: &Rc<Self>, conn: ConnId, connect_failed: bool) {
        self.take_line(conn);
        self.tell(|core, now| core.handle_closed(now, conn, connect_failed));
    }
}

impl Asker {
    pub(crate) fn answer(&self, fate: Fate, pdu: &[u8]) {
        let frame = Frame::Answer {
            id: self.id,
            outcome: fate.told(),
            pdu,
        };
        self.outbox.push(|out| frame.encode(self.channel, out));
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
