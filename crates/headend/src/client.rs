//! Modbus/TCP clients at the headend: listeners, connections, limits. One that speaks MBAPS is the
//! same after its handshake.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Party, Record};
use fieldlock_conduit::admit::Permit;
use fieldlock_conduit::client::{By, ClientSide, Origins, Place, Routes, Verdict};
use fieldlock_conduit::meter::{Meter, Who};
use fieldlock_conduit::repeat::{self, Repeats};
use fieldlock_modbus::{FramingError, Range};
use fieldlock_policy::{Phase, Policy, RuleId};
use fieldlock_transport::counter::Counter;
use fieldlock_transport::socket::{self, Reader, Writer};
use fieldlock_transport::tls::Proof;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant as TokioInstant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::channel::Channel;
use super::devices::Device;
use super::request::Asked;
use super::seats::{Full, Seat};
use super::{Counters, Headend, mbaps};
use fieldlock_agent::ledger::denial;

/// Room for a burst of pipelined requests; one ADU has at most 260 octets.
const READ: usize = 4096;
/// Systems acknowledge by themselves after 0.04 to 0.2 s.
const ACKNOWLEDGES_WITHIN: Duration = Duration::from_millis(300);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// One client connection.
pub(crate) struct ClientConn {
    /// Its number inside every device channel.
    pub(crate) number: u32,
    pub(crate) address: SocketAddr,
    pub(crate) party: Arc<Party>,
    /// What its certificate proves, if it speaks MBAPS.
    pub(crate) proof: Option<Proof>,
    pub(crate) since: Instant,
    pub(crate) requests: Cell<u64>,
    /// Answers that were kept from it, since it had given up waiting.
    pub(crate) given_up: Counter,
    counters: Rc<Counters>,
    core: RefCell<ClientSide>,
    policy: RefCell<Arc<Policy>>,
    repeats: Rc<RefCell<Repeats>>,
    /// It may have answers to writes of which it is not known that they arrived.
    has_written: Cell<bool>,
    writer: Writer,
    last_request: Cell<Instant>,
    /// Channels that have heard of this client.
    introduced: RefCell<Vec<Weak<Channel>>>,
    /// Wakes the task: an end from outside, or something that it waits for has been answered.
    attention: Notify,
    ending: Cell<Option<&'static str>>,
    /// At so many takeovers nothing that it waits for was under way by a tunnel that was replaced.
    free_at: Cell<u64>,
    /// Its task waits for an answer.
    waits: Cell<bool>,
    seat: Cell<Option<Seat>>,
}

/// A client to be served.
pub(super) struct Arrival {
    pub(super) address: SocketAddr,
    pub(super) routes: Arc<Routes>,
    pub(super) writer: Writer,
    pub(super) proof: Option<Proof>,
    pub(super) seat: Seat,
}

/// What a listener does with a connection.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) mbaps: bool,
    pub(super) routes: Arc<Routes>,
}

impl ClientConn {
    fn new(headend: &Headend, arrival: Arrival) -> Rc<Self> {
        let Arrival {
            address,
            routes,
            writer,
            proof,
            seat,
        } = arrival;
        let policy = headend.runtime.posture.policy();
        let phase = headend.runtime.posture.phase();
        let role = proof.as_ref().and_then(|proof| proof.modbus_role.as_ref());
        let origin = Origins {
            address: Some(address.ip().to_canonical()),
            identity: proof.as_ref().map(|proof| proof.identity.uri()),
            role: role.map(|role| role.as_str().to_owned()),
        };
        let party = party(&policy, &origin, address);
        let limit = headend.runtime.settings().client.in_flight;
        let core = ClientSide::new(origin, routes, policy.clone(), phase, limit)
            .knowing(headend.devices.borrow().known());
        let now = Instant::now();
        Rc::new(Self {
            number: headend.clients.next_number(),
            address,
            party: Arc::new(party),
            proof,
            since: now,
            requests: Cell::new(0),
            given_up: Counter::default(),
            counters: headend.counters.clone(),
            core: RefCell::new(core),
            policy: RefCell::new(policy),
            repeats: headend.clients.repeats.clone(),
            has_written: Cell::new(false),
            writer,
            last_request: Cell::new(now),
            introduced: RefCell::default(),
            attention: Notify::new(),
            ending: Cell::new(None),
            free_at: Cell::new(headend.takeovers.get()),
            waits: Cell::new(false),
            seat: Cell::new(Some(seat)),
        })
    }

    /// A request was sent by this channel.
    pub(super) fn sent(&self, place: Place, channel: &Channel) {
        self.core.borrow_mut().sent(place, channel.link.number);
    }

    /// Nothing more is taken before something is answered.
    fn waits_for_answers(&self, headend: &Headend) -> bool {
        let core = self.core.borrow();
        // A headend that stops sends nothing more.
        core.is_full() || !headend.runtime.vitals.is_stopping() && self.is_held_back(headend, &core)
    }

    fn is_held_back(&self, headend: &Headend, core: &ClientSide) -> bool {
        // What was sent since then is under way by the tunnels that serve now.
        let takeovers = headend.takeovers.get();
        if self.free_at.get() == takeovers {
            return false;
        }
        let held_back = core.is_held_back(|device| headend.serves(device));
        if !held_back {
            self.free_at.set(takeovers);
        }
        held_back
    }

    /// A permitted request is not sent on after all.
    pub(super) fn put_back(&self, permit: &Permit<'_>, meter: &mut Meter) {
        self.core.borrow().put_back(permit, meter);
    }

    /// The write that this one repeats, by its id, if it is to be sent only once.
    pub(super) fn first_of(
        &self,
        headend: &Headend,
        now: Instant,
        asked: Asked<'_>,
        device: &Device,
        permit: &Permit<'_>,
    ) -> Option<u64> {
        if !permit.is_once() {
            return None;
        }
        let is_delivered = |connection| match headend.clients.get(connection as u32) {
            Some(client) if client.number == self.number => client.writer.is_acknowledged(),
            Some(client) => client.has_its_answers(),
            None => false,
        };
        let core = self.core.borrow();
        let asked = self.write(core.who(), asked, device, permit);
        let repeats = self.repeats.borrow();
        repeats.first(now, &asked, is_delivered)
    }

    /// A write goes on; as much as it is to be sent only once, it is remembered.
    pub(super) fn begin_write(
        &self,
        now: Instant,
        asked: Asked<'_>,
        device: &Device,
        permit: &Permit<'_>,
        id: u64,
    ) -> Result<Option<repeat::Ticket>, repeat::Full> {
        if !permit.is_once() {
            return Ok(None);
        }
        let core = self.core.borrow();
        let asked = self.write(core.who(), asked, device, permit);
        let ticket = self.repeats.borrow_mut().begin(now, &asked, id)?;
        self.has_written.set(true);
        Ok(Some(ticket))
    }

    fn write<'a>(
        &self,
        who: &'a Who,
        asked: Asked<'_>,
        device: &Device,
        permit: &'a Permit<'_>,
    ) -> repeat::Asked<'a> {
        repeat::Asked {
            who,
            connection: self.number.into(),
            transaction: asked.transaction,
            device: device.place,
            unit: permit.unit(),
            request: permit.request(),
        }
    }

    pub(super) fn write_ended(&self, now: Instant, ticket: repeat::Ticket, end: repeat::End) {
        let core = self.core.borrow();
        let mut repeats = self.repeats.borrow_mut();
        repeats.ended(now, core.who(), ticket, end);
    }

    /// It has the values of this range, which it asked for at `asked`.
    pub(super) fn has_read(&self, device: &Device, unit: u8, range: &Range, asked: Instant) {
        let mut repeats = self.repeats.borrow_mut();
        if !repeats.is_empty() {
            repeats.read(self.core.borrow().who(), device.place, unit, range, asked);
        }
    }

    /// It asks for something that is no repeat.
    pub(super) fn goes_on(&self) {
        if self.has_written.get() {
            let core = self.core.borrow();
            let mut repeats = self.repeats.borrow_mut();
            let more = repeats.goes_on(core.who(), self.number.into());
            self.has_written.set(more);
        }
    }

    /// It asks nothing more. Whether the answers to its writes arrived is known once its system has acknowledged them: at
    /// once where it closes, soon where it closed its sending half before it had them all.
    async fn settle_writes(&self) {
        let until = Instant::now() + ACKNOWLEDGES_WITHIN;
        while self.has_written.get() && self.ending.get().is_none() && !self.writer.discards() {
            if self.has_its_answers() {
                self.goes_on();
                return;
            }
            if Instant::now() >= until {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Its system has acknowledged the answers to all that it asked.
    fn has_its_answers(&self) -> bool {
        self.in_flight() == 0 && self.writer.is_acknowledged()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.core.borrow().in_flight()
    }

    /// Nothing that it asked is without its answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight() == 0 && !self.writer.has_backlog()
    }

    pub(crate) fn set_policy(&self, policy: &Arc<Policy>, phase: &Phase) {
        let mut core = self.core.borrow_mut();
        core.set_policy(policy.clone(), phase.clone());
        *self.policy.borrow_mut() = policy.clone();
    }

    pub(crate) fn rule_name(&self, rule: RuleId) -> Arc<str> {
        self.policy.borrow().rule_name(rule).into()
    }

    /// Whether this channel has yet to hear of the client; it has from here on.
    pub(crate) fn introduced(&self, channel: &Rc<Channel>) -> bool {
        let mut known = self.introduced.borrow_mut();
        let this = Rc::as_ptr(channel);
        if known.iter().any(|known| known.as_ptr() == this) {
            return false;
        }
        // Those whose tunnels have ended, and with them all that they knew.
        known.retain(|known| known.strong_count() > 0);
        known.push(Rc::downgrade(channel));
        true
    }

    /// Name, identity and role, as a hello to a channel states them.
    pub(crate) fn with_stated(&self, state: impl FnOnce(&[u8], &[u8], &[u8])) {
        let core = self.core.borrow();
        let origin = core.origin();
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        state(
            self.party.name.as_deref().unwrap_or_default().as_bytes(),
            text(origin.identity.as_deref()).as_bytes(),
            text(origin.role.as_deref()).as_bytes(),
        );
    }

    /// Queues an answer, and what waited for it; [`ClientConn::flush`] writes them.
    pub(crate) fn answer(&self, place: Place, pdu: &[u8], by: By) {
        let mut core = self.core.borrow_mut();
        let given_up = self.writer.push(|out| core.answer(place, pdu, by, out));
        for _ in 0..given_up {
            self.given_up.add();
            self.counters.given_up.add();
        }
        if self.waits.get() {
            self.attention.notify_one();
        }
    }

    /// Writes the answers that wait.
    pub(crate) fn flush(&self) {
        if self.writer.flush().is_err() {
            self.gone();
        }
    }

    /// It takes no answers any more; what it has asked goes on.
    fn gone(&self) {
        self.core.borrow_mut().gone();
        self.writer.discard();
    }

    /// Ends the connection from outside its task. What has no answer gets 0x0B first: some clients
    /// ask anew by themselves when a connection is closed under a request.
    pub(crate) fn close(&self, why: &'static str) {
        let mut core = self.core.borrow_mut();
        self.writer.push(|out| core.give_up(out));
        drop(core);
        self.flush();
        self.ending.set(Some(why));
        self.attention.notify_one();
    }
}

fn party(policy: &Policy, origin: &Origins, address: SocketAddr) -> Party {
    Party {
        name: policy
            .client_names(&origin.as_client())
            .next()
            .map(Into::into),
        address: origin.address,
        port: Some(address.port()),
        identity: origin.identity.as_deref().map(Into::into),
        role: origin.role.as_deref().map(Into::into),
        ..Party::default()
    }
}

/// Accepts clients of one listener until the task is aborted.
pub(crate) async fn listen(
    headend: Rc<Headend>,
    listener: TcpListener,
    service: Rc<RefCell<Service>>,
) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                failing = false;
                let service = service.borrow().clone();
                admit(&headend, stream, address, service);
            }
            Err(error) => {
                if !failing {
                    warn!(%error, "accepting a client failed; retrying");
                }
                failing = true;
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn admit(headend: &Rc<Headend>, stream: TcpStream, address: SocketAddr, service: Service) {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let limits = &headend.runtime.settings().client;
    let seat = headend.clients.seats.take(address.ip(), limits);
    let seat = seat.or_else(|full| {
        headend.make_room(full, address.ip());
        headend.clients.seats.take(address.ip(), limits)
    });
    let seat = match seat {
        Ok(seat) => seat,
        Err(full) => {
            headend.counters.clients_refused.add();
            let party = Arc::new(Party {
                address: Some(address.ip()),
                ..Party::default()
            });
            headend
                .runtime
                .ledger
                .repeated(denial(Kind::ClientRefused, &party, full));
            return;
        }
    };
    if let Err(error) = socket::prepare_client(&stream) {
        debug!(%error, %address, "client vanished");
        return;
    }
    let Service { mbaps, routes } = service;
    let headend = headend.clone();
    if mbaps {
        let accepted = mbaps::accept(headend, stream, address, routes, seat);
        tokio::task::spawn_local(accepted);
        return;
    }
    let (reader, writer) = socket::split(stream, None);
    let arrival = Arrival {
        address,
        routes,
        writer,
        proof: None,
        seat,
    };
    tokio::task::spawn_local(serve(headend, arrival, reader));
}

impl Headend {
    /// The number of the tunnel that a device is served by.
    fn serves(&self, device: usize) -> Option<u32> {
        let devices = self.devices.borrow();
        let live = devices.get(device)?.live.borrow();
        live.as_ref().map(|channel| channel.link.number)
    }

    /// Closes the connection that has been idle for the longest time, if that is at least
    /// `client.idle_timeout`: many clients never come back from a close between two polls.
    fn make_room(&self, full: Full, address: IpAddr) {
        let idle = self.runtime.settings().client.idle_timeout.0;
        let clients = self.clients.all();
        let may_go = |client: &&Rc<ClientConn>| {
            (full == Full::Everywhere || client.address.ip() == address)
                && client.in_flight() == 0
                && !client.writer.has_backlog()
                && client.last_request.get().elapsed() >= idle
        };
        let longest = clients.iter().filter(may_go);
        if let Some(client) = longest.min_by_key(|client| client.last_request.get()) {
            client.seat.take();
            client.close("idle, and another client needs its place");
        }
    }
}

pub(super) async fn serve(headend: Rc<Headend>, arrival: Arrival, mut reader: Reader) {
    let client = ClientConn::new(&headend, arrival);
    headend.clients.add(&client);
    let is_on_record = headend.runtime.ledger.opened(Record {
        client: Some(client.party.clone()),
        ..Record::new(Kind::ClientOpen)
    });
    let mut input = Vec::with_capacity(READ);
    let why = converse(&headend, &client, &mut reader, &mut input).await;
    client.settle_writes().await;
    match client.ending.get() {
        // What is under way holds this client, and would keep the socket open.
        Some(_) => {
            if headend.runtime.vitals.is_stopping() {
                refuse_rest(&headend, &client, &mut reader, &mut input).await;
            }
            client.writer.cut();
        }
        None => client.writer.farewell(),
    }
    headend.clients.remove(&client);
    for channel in client.introduced.take() {
        if let Some(channel) = channel.upgrade() {
            channel.close_client(client.number);
        }
    }
    if is_on_record {
        headend.runtime.ledger.note(Record {
            client: Some(client.party.clone()),
            reason: Some(why.into()),
            count: Some(client.requests.get()),
            ..Record::new(Kind::ClientClose)
        });
    }
}

/// Serves one client until either side ends it and all that it asked has its answer; says why it
/// ended.
async fn converse(
    headend: &Rc<Headend>,
    client: &Rc<ClientConn>,
    reader: &mut Reader,
    input: &mut Vec<u8>,
) -> String {
    let idle = headend.runtime.settings().client.idle_timeout.0;
    let mut end = None;
    let timer = sleep_until(TokioInstant::now() + idle);
    tokio::pin!(timer);
    // One of each for all rounds: to line up anew costs as much as all else of a round.
    let attention = client.attention.notified();
    let drain = client.writer.drain();
    tokio::pin!(attention, drain);
    loop {
        // Seen here as well, so that a client that never stops asking does not outlive it.
        if let Some(why) = client.ending.get() {
            return why.into();
        }
        if !input.is_empty()
            && !matches!(end, Some(End::NotModbus(_)))
            && let Err(error) = take_requests(headend, client, input)
        {
            end = Some(End::NotModbus(refuse_framing(headend, client, &error)));
        }
        let full = client.waits_for_answers(headend);
        client.waits.set(full || end.is_some());
        if let Some(end) = &end
            && client.in_flight() == 0
            && !client.writer.has_backlog()
        {
            return end.to_string();
        }
        let reads = match &end {
            None => !full && !client.writer.has_backlog(),
            Some(End::NotModbus(_)) => true,
            Some(End::Closed | End::Failed(_)) => false,
        };
        tokio::select! {
            biased;
            // A client that does not read its answers is not read from either.
            drained = &mut drain => {
                drain.set(client.writer.drain());
                if let Err(error) = drained {
                    client.gone();
                    end = end.or(Some(End::Failed(format!("writing failed: {error}"))));
                }
            }
            received = reader.read(input), if reads => match received {
                // Perhaps it only has nothing more to ask, and waits for its answers.
                Ok(0) => end = Some(match end {
                    Some(End::NotModbus(why)) => End::Failed(why),
                    _ => End::Closed,
                }),
                Ok(_) => match end {
                    None => client.last_request.set(Instant::now()),
                    Some(_) => input.clear(),
                },
                Err(error) => {
                    client.gone();
                    end = Some(End::Failed(format!("reading failed: {error}")));
                }
            },
            () = &mut attention => attention.set(client.attention.notified()),
            () = &mut timer => {
                let now = Instant::now();
                let deadline = client.last_request.get() + idle;
                if now < deadline {
                    timer.as_mut().reset(deadline.into());
                    continue;
                }
                if client.writer.has_backlog() {
                    return "does not read its answers".into();
                }
                if !input.is_empty() && !full {
                    return "did not finish its request".into();
                }
                // Between two polls: that is no reason to close it, see `make_room`.
                timer.as_mut().reset((now + idle).into());
            }
        }
    }
}

/// While the headend stops: what the client asked before it could know gets its answer too.
async fn refuse_rest(
    headend: &Headend,
    client: &Rc<ClientConn>,
    reader: &mut Reader,
    input: &mut Vec<u8>,
) {
    while !client.core.borrow().is_full() {
        if take_requests(headend, client, input).is_err() {
            return;
        }
        let Ok(Ok(1..)) = timeout(Duration::ZERO, reader.read(input)).await else {
            return;
        };
    }
}

/// Why nothing more is taken from a client.
enum End {
    /// By the client, in this direction at least.
    Closed,
    /// Nothing more comes.
    Failed(String),
    /// What comes is not looked at.
    NotModbus(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed by the client",
            Self::Failed(why) | Self::NotModbus(why) => why,
        })
    }
}

fn take_requests(
    headend: &Headend,
    client: &Rc<ClientConn>,
    input: &mut Vec<u8>,
) -> Result<(), FramingError> {
    let now = Instant::now();
    let mut used = 0;
    let outcome = loop {
        if used == input.len() || client.waits_for_answers(headend) {
            break Ok(());
        }
        let step = {
            let mut meter = headend.runtime.meter.borrow_mut();
            let mut core = client.core.borrow_mut();
            core.next(&input[used..], &mut meter, now)
        };
        let (step, size) = match step {
            Ok(Some(next)) => next,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        used += size;
        client.requests.set(client.requests.get() + 1);
        let asked = |place| Asked {
            client,
            place,
            transaction: step.transaction,
            unit: step.unit,
        };
        match &step.verdict {
            Verdict::Forward {
                place,
                device,
                permit,
            } => headend.forward(now, asked(*place), *device, permit),
            Verdict::Refuse {
                place,
                target,
                refused,
            } => headend.refuse(asked(*place), *target, refused),
            Verdict::Repeated => headend.counters.repeated.add(),
        }
    };
    input.drain(..used);
    client.flush();
    outcome
}

fn refuse_framing(headend: &Headend, client: &ClientConn, error: &FramingError) -> String {
    let reason = format!("not Modbus/TCP: {error}");
    headend
        .runtime
        .ledger
        .repeated(denial(Kind::Denied, &client.party, &reason));
    headend.counters.not_modbus.add();
    reason
}
