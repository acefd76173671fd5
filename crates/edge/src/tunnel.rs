//! Requests from one headend: judged by this edge's own policy, whatever the headend says.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Outcome, Party, Record};
use fieldlock_conduit::device::ClientKey;
use fieldlock_conduit::fate::Fate;
use fieldlock_conduit::meter::Who;
use fieldlock_conduit::serve::Asked;
use fieldlock_modbus::Exception;
use fieldlock_pki::TrustList;
use fieldlock_policy::{Client, Origin, Side, View};
use fieldlock_session::frame::Frame;
use fieldlock_session::{ClientOpen, Close, Event, Hello, Violation};
use fieldlock_transport::tunnel::{End, Handler, Link, Outbox};
use foldhash::HashMap;
use tracing::{info, warn};

use super::bundle::Answer;
use super::device::{Asker, Device};
use super::offers::Offer;
use super::{Edge, HeadendProcess};
use fieldlock_agent::ledger::Alarm;
use fieldlock_agent::quota::Quota;

/// Clients that a headend may have open at once on one tunnel. One costs about 300 octets.
const MAX_CLIENTS: usize = 16 * 1024;

/// Policy bundles of one tunnel that are looked at in a minute. Each costs a signature check, and a
/// record where it is refused.
const MAX_OFFERS: u32 = 16;

/// What one tunnel's driver talks to.
pub(crate) struct TunnelHandler {
    edge: Rc<Edge>,
    /// By channel, from 1: as the hello of this tunnel offered them.
    devices: Vec<Rc<Device>>,
    outboxes: Vec<Rc<Outbox>>,
    /// Likewise.
    stations: Vec<String>,
    number: u32,
    /// The number of the first tunnel of the headend's process: clients keep theirs over all of them.
    process: Cell<u32>,
    headend: Arc<str>,
    /// Uses up rates for all its clients, and whichever tunnel is up.
    who: Who,
    identity: Arc<str>,
    clients: RefCell<HashMap<(u16, u32), Rc<StatedClient>>>,
    /// Devices with requests from this turn, to be moved on once.
    dirty: RefCell<Vec<Rc<Device>>>,
    /// Policy bundles that are looked at.
    offers: Quota,
    /// The headend's hello.
    hello: RefCell<Option<Hello>>,
}

/// A client as the headend states it. It can narrow what the tunnel may do, never widen it.
struct StatedClient {
    party: Arc<Party>,
    who: Who,
    view: RefCell<Arc<View>>,
    /// It goes on over a newer tunnel: what comes of it over this one is late, and not sent any more.
    moved: Cell<bool>,
    /// It may have answers to writes of which it is not known that they arrived.
    has_written: Cell<bool>,
}

impl TunnelHandler {
    /// `devices` and `stations` in the order of the hello.
    pub(crate) fn new(
        edge: &Rc<Edge>,
        link: &Link,
        devices: Vec<Rc<Device>>,
        stations: Vec<String>,
    ) -> Rc<Self> {
        Rc::new(Self {
            edge: edge.clone(),
            outboxes: (1..)
                .zip(&devices)
                .filter_map(|(channel, _)| link.channel(channel))
                .collect(),
            devices,
            stations,
            number: link.number,
            process: Cell::new(link.number),
            headend: link.peer.identity.name.as_str().into(),
            who: Who::Headend(link.peer.identity.name.as_str().into()),
            identity: link.peer.identity.uri().into(),
            clients: RefCell::default(),
            dirty: RefCell::default(),
            offers: Quota::per_minute(MAX_OFFERS),
            hello: RefCell::default(),
        })
    }

    pub(crate) fn hello(&self) -> Option<Hello> {
        self.hello.borrow().clone()
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Judges by the rules that are in force from the next request on.
    pub(crate) fn judge_anew(&self) {
        for ((channel, _), client) in self.clients.borrow().iter() {
            *client.view.borrow_mut() = self.view(*channel, client.as_client());
        }
    }

    /// The driver has ended: what was not sent to a device yet never is.
    pub(crate) fn ended(&self, link: &Link, end: &End) {
        let clients = self.clients.take().into_iter();
        for ((channel, client), _) in clients.filter(|(_, known)| !known.moved.get()) {
            if let Some(device) = self.devices.get(usize::from(channel) - 1) {
                device.drop_client(self.key(client));
            }
        }
        for device in &self.devices {
            device.pump();
        }
        if let Some(fieldbus) = self.edge.runtime.fieldbus.as_ref() {
            fieldbus.link_down(link);
        }
        let headend = &*self.headend;
        let kind = if link.was_up() {
            let transport = link.peer.transport.name();
            if end.is_orderly() {
                info!(headend, transport, "tunnel closed: {end}");
            } else {
                warn!(headend, transport, "tunnel down: {end}");
            }
            Kind::TunnelDown
        } else {
            Kind::TunnelRefused
        };
        if let End::Goodbye { code, text } = end
            && Close::from_code(*code) == Some(Close::DuplicateIdentity)
        {
            self.edge
                .runtime
                .ledger
                .raise(Alarm::DuplicateIdentity, headend, text);
        }
        self.edge.runtime.ledger.note(Record {
            reason: Some(end.to_string().into()),
            ..self.tunnel_record(kind, link)
        });
    }

    fn up(&self, link: &Rc<Link>, hello: Option<Hello>) {
        let peer = &link.peer;
        info!(
            headend = &*self.headend,
            address = %peer.address,
            transport = peer.transport.name(),
            key_exchange = peer.group,
            "tunnel up"
        );
        if let Some(hello) = &hello {
            self.join_process(hello.instance);
        }
        *self.hello.borrow_mut() = hello;
        if let Some(fieldbus) = self.edge.runtime.fieldbus.as_ref() {
            fieldbus.link_up(link, &self.stations);
        }
        self.edge.proven(link);
        if let Some(head) = self.edge.runtime.ledger.checkpoint() {
            link.tell_checkpoint(&head);
        }
        self.edge
            .runtime
            .ledger
            .clear(Alarm::DuplicateIdentity, &self.headend);
        self.edge
            .runtime
            .ledger
            .note(self.tunnel_record(Kind::TunnelUp, link));
    }

    /// Clients of one headend process are the same over whichever of its tunnels they come.
    fn join_process(&self, instance: [u8; 16]) {
        let mut processes = self.edge.processes.borrow_mut();
        let known = processes.get(&self.headend).copied();
        let process = known
            .filter(|known| known.instance == instance)
            .unwrap_or(HeadendProcess {
                instance,
                number: self.number,
            });
        processes.insert(self.headend.clone(), process);
        self.process.set(process.number);
    }

    /// A client goes on over this tunnel. The headend has the answers to all that it asked over an older one, or has
    /// given up waiting for them: what is still to come, or waits here, would be carried out behind
    /// what it asks now. True: this is the older one.
    fn take_over(&self, device: &Rc<Device>, client: u32) -> bool {
        let mut is_older = false;
        for (_, other) in self.edge.tunnels.borrow().values() {
            if other.number == self.number || other.process != self.process {
                continue;
            }
            let mut devices = other.devices.iter();
            let at = devices.position(|known| Rc::ptr_eq(known, device));
            let channel = at.and_then(|at| u16::try_from(at + 1).ok());
            let clients = other.clients.borrow();
            let Some(known) = channel.and_then(|channel| clients.get(&(channel, client))) else {
                continue;
            };
            if other.order() > self.order() {
                is_older = true;
            } else if !known.moved.replace(true) {
                device.drop_client(self.key(client));
                self.touch(device);
            }
        }
        is_older
    }

    /// Which of a headend's tunnels is the newer, by the headend's own count.
    fn order(&self) -> u64 {
        let hello = self.hello.borrow();
        hello.as_ref().map_or(0, |hello| hello.tunnel)
    }

    /// The headend's own certificate is judged again by what it brings.
    fn take_trust(&self, link: &Rc<Link>, pem: &[u8]) {
        let offered = std::str::from_utf8(pem).map_err(|error| error.to_string());
        let offered =
            offered.and_then(|pem| TrustList::parse(pem).map_err(|error| error.to_string()));
        let taken = offered.and_then(|offered| self.edge.take_trust(&offered, false));
        match taken {
            Ok(()) => link.have_trust(self.edge.runtime.posture.trust().list.hash()),
            Err(reason) => {
                let text = format!("the trust list of this headend is refused: {reason}");
                warn!(headend = &*self.headend, "{text}");
                link.close(Close::Protocol, text);
            }
        }
    }

    fn take_bundle(&self, link: &Rc<Link>, octets: Vec<u8>) {
        if self.offers.take(Instant::now()) {
            return self.edge.offers.put(Offer::Headend(link.clone(), octets));
        }
        let in_force = self.edge.runtime.posture.bundle().version().unwrap_or(0);
        let answer = Answer::refused("too many bundles, this one was not looked at");
        link.have_bundle(in_force, answer.fate, &answer.text);
    }

    fn tunnel_record(&self, kind: Kind, link: &Link) -> Record {
        Record {
            tunnel: Some(self.identity.clone()),
            transport: Some(link.peer.transport.name().into()),
            ..Record::new(kind)
        }
    }

    fn open_client(&self, channel: u16, open: &ClientOpen<'_>) -> Result<(), Violation> {
        if self.clients.borrow().len() >= MAX_CLIENTS {
            return Err(Violation::Credit("more clients than one tunnel may have"));
        }
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            (!text.is_empty()).then(|| text.into_owned())
        };
        let identity = text(open.identity);
        let role = text(open.role);
        let address = open.address.ip();
        let stated = Client {
            address: Some(address),
            identity: identity.as_deref(),
            role: role.as_deref(),
        };
        let view = self.view(channel, stated);
        let party = Party {
            name: text(open.name).map(Into::into),
            address: Some(address),
            port: Some(open.address.port()),
            identity: identity.as_deref().map(Into::into),
            role: role.as_deref().map(Into::into),
            ..Party::default()
        };
        let client = StatedClient {
            who: who(&party),
            party: Arc::new(party),
            view: RefCell::new(view),
            moved: Cell::new(false),
            has_written: Cell::new(false),
        };
        if let Some(device) = self.devices.get(usize::from(channel) - 1) {
            client.moved.set(self.take_over(device, open.client));
        }
        let mut clients = self.clients.borrow_mut();
        clients.insert((channel, open.client), Rc::new(client));
        Ok(())
    }

    fn close_client(&self, channel: u16, device: &Rc<Device>, client: u32) {
        let known = self.clients.borrow_mut().remove(&(channel, client));
        if known.is_some_and(|known| !known.moved.get()) {
            device.drop_client(self.key(client));
            self.touch(device);
        }
    }

    fn view(&self, channel: u16, client: Client<'_>) -> Arc<View> {
        let origin = Origin {
            side: Side::Edge,
            via: Some(&self.headend),
            client,
        };
        let device = self.devices.get(usize::from(channel) - 1);
        let name = device.map_or("", |device| &*device.name);
        let posture = &self.edge.runtime.posture;
        posture.policy().view(&origin, name, &posture.phase())
    }

    fn request(
        &self,
        device: &Rc<Device>,
        client: &StatedClient,
        asker: Asker,
        (key, deadline): (ClientKey, Instant),
        (unit, pdu): (u8, &[u8]),
    ) {
        let view = client.view.borrow().clone();
        let policy = self.edge.runtime.posture.policy();
        let asked = Asked {
            client: key,
            whose: &client.who,
            has_written: &client.has_written,
            id: asker.id,
            deadline,
        };
        let mut meter = self.edge.runtime.meter.borrow_mut();
        let meter = (&mut *meter, &self.who);
        let now = Instant::now();
        device.request(now, asker, asked, (&view, &policy), (unit, pdu), meter);
        self.touch(device);
    }

    /// A request of a client that goes on over a newer tunnel.
    fn too_late(&self, device: &Device, asker: &Asker, unit: u8, pdu: &[u8]) {
        device.counters.not_sent.add();
        let exception = Exception::GatewayPathUnavailable;
        let function = pdu.first().copied().unwrap_or_default();
        asker.answer(Fate::NotSent, &exception.pdu(function));
        device.observe_refused(asker, unit, Err(function), (Fate::NotSent, exception));
        self.edge.runtime.ledger.repeated(Record {
            function: Some(function),
            reason: Some("late: its client goes on over a newer tunnel".into()),
            outcome: Some(Outcome::NotSent),
            exception: Some(exception.code()),
            ..device.record(Kind::Lost, asker, unit)
        });
    }

    fn touch(&self, device: &Rc<Device>) {
        let mut dirty = self.dirty.borrow_mut();
        if !dirty.iter().any(|known| Rc::ptr_eq(known, device)) {
            dirty.push(device.clone());
        }
    }

    /// Clients of different headends take turns as different clients.
    fn key(&self, client: u32) -> ClientKey {
        ClientKey(u64::from(self.process.get()) << 32 | u64::from(client))
    }
}

/// Whose requests these are, as the headend states it.
fn who(party: &Party) -> Who {
    match &party.identity {
        Some(identity) => Who::Identity(identity.clone()),
        None => Who::Address(party.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())),
    }
}

impl StatedClient {
    fn as_client(&self) -> Client<'_> {
        Client {
            address: self.party.address,
            identity: self.party.identity.as_deref(),
            role: self.party.role.as_deref(),
        }
    }
}

impl Handler for TunnelHandler {
    fn event(&self, link: &Rc<Link>, event: Event) {
        match event {
            Event::Up(hello) => self.up(link, hello),
            Event::Policy(hash) => {
                if let Some(hello) = &mut *self.hello.borrow_mut() {
                    hello.policy = hash;
                }
            }
            Event::Checkpoint(told) => {
                let (edge, peer) = (&self.edge, &link.peer.identity);
                edge.runtime
                    .peer_logs
                    .take(&edge.runtime.ledger, peer, &told, Instant::now());
            }
            Event::Trust(pem) => self.take_trust(link, &pem),
            Event::Bundle(octets) => self.take_bundle(link, octets),
            // The headend sends nothing new; what is under way is answered as ever.
            Event::Drain | Event::Probed { .. } => {}
            Event::Hello(_) | Event::TrustHave(_) | Event::BundleHave { .. } => {}
            Event::Goodbye { .. } | Event::HelloTimeout | Event::Dead => {}
        }
    }

    fn frame(&self, _: &Rc<Link>, channel: u16, frame: Frame<'_>) -> Result<(), Violation> {
        let place = usize::from(channel) - 1;
        let (Some(device), Some(outbox)) = (self.devices.get(place), self.outboxes.get(place))
        else {
            return Err(Violation::Channel { channel });
        };
        match frame {
            Frame::ClientOpen(open) => self.open_client(channel, &open)?,
            Frame::ClientClose { client } => self.close_client(channel, device, client),
            Frame::Request {
                id,
                client,
                within,
                unit,
                pdu,
            } => {
                let known = self.clients.borrow().get(&(channel, client)).cloned();
                let Some(known) = known else {
                    return Err(Violation::Credit("request of a client that was not opened"));
                };
                // The headend can shorten what the device's own setting gives, not stretch it.
                let within = Duration::from_millis(within.into());
                let asker = Asker {
                    outbox: outbox.clone(),
                    channel,
                    id,
                    client: self.key(client),
                    party: known.party.clone(),
                    tunnel: self.identity.clone(),
                    rule: None,
                    write: None,
                };
                let deadline = Instant::now() + within.min(device.config.answer_within.0);
                // A headend that does not take its answers gets no more work done.
                if outbox.is_stalled() {
                    return Err(Violation::Flood);
                }
                if known.moved.get() {
                    self.too_late(device, &asker, unit, pdu);
                    return Ok(());
                }
                let due = (self.key(client), deadline);
                self.request(device, &known, asker, due, (unit, pdu));
            }
            _ => {
                return Err(Violation::Unexpected {
                    frame: "answer",
                    state: "a headend only asks",
                });
            }
        }
        Ok(())
    }

    fn station(&self, link: &Rc<Link>, station: u16, frame: &[u8]) {
        if let Some(fieldbus) = self.edge.runtime.fieldbus.as_ref() {
            fieldbus.station(link, station, frame);
        }
    }

    fn datagram(&self, link: &Rc<Link>, datagram: &[u8]) {
        if let Some(fieldbus) = self.edge.runtime.fieldbus.as_ref() {
            fieldbus.datagram(link, datagram);
        }
    }

    fn flush(&self) {
        for device in self.dirty.take() {
            device.pump();
        }
    }
}
