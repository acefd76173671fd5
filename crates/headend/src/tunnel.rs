//! Tunnels at the headend: who may offer which device, and which tunnel owns it.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Record};
use fieldlock_modbus::Quirks;
use fieldlock_session::frame::Frame;
use fieldlock_session::{Close, Event, Hello, Place, Step, Transport, VERSION, Violation};
use fieldlock_transport::tunnel::{End, Handler, Link};
use tokio::time::sleep;
use tracing::{info, warn};

use super::Headend;
use super::bundle::Carried;
use super::channel::Channel;
use super::client::ClientConn;
use fieldlock_agent::ledger::Alarm;
use fieldlock_agent::random;

/// How often a drained tunnel is looked at, and how long it may take.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// A refused agent tries again within 10 s: after this long without a try it has gone.
const DUPLICATE_QUIET: Duration = Duration::from_secs(30);

/// A live tunnel that has been accepted.
pub(crate) struct EdgeTunnel {
    pub(crate) link: Rc<Link>,
    pub(crate) hello: Hello,
    pub(crate) channels: RefCell<Vec<Rc<Channel>>>,
    /// Hash of the edge's policy, as it last said.
    pub(crate) policy: RefCell<[u8; 32]>,
    /// Hash of the edge's trust list, as it last said; `None` for one that takes none from here.
    pub(crate) trust: Cell<Option<[u8; 32]>>,
    pub(crate) carried: Carried,
}

impl EdgeTunnel {
    /// No new request takes this tunnel.
    pub(crate) fn release_devices(&self) {
        for channel in self.channels.borrow().iter() {
            let mut live = channel.device.live.borrow_mut();
            if live.as_ref().is_some_and(|live| Rc::ptr_eq(live, channel)) {
                *live = None;
            }
        }
    }

    pub(crate) fn under_way(&self) -> usize {
        self.channels.borrow().iter().map(|c| c.under_way()).sum()
    }
}

/// What one tunnel's driver talks to.
pub(crate) struct TunnelHandler {
    headend: Rc<Headend>,
    tunnel: RefCell<Option<Rc<EdgeTunnel>>>,
    /// Clients with answers from this turn, to be written once.
    dirty: RefCell<Vec<Rc<ClientConn>>>,
}

impl TunnelHandler {
    pub(crate) fn new(headend: &Rc<Headend>) -> Rc<Self> {
        Rc::new(Self {
            headend: headend.clone(),
            tunnel: RefCell::default(),
            dirty: RefCell::default(),
        })
    }

    /// The driver has ended: what was under way is lost, the devices have no tunnel.
    pub(crate) fn ended(&self, link: &Rc<Link>, end: &End) {
        let identity = &link.peer.identity;
        let name = identity.name.as_str();
        let tunnel = self.tunnel.take();
        if let Some(tunnel) = &tunnel {
            tunnel.release_devices();
            self.headend.registry.remove_tunnel(tunnel);
            for channel in tunnel.channels.borrow().iter() {
                channel.fail_all();
            }
            if let Some(fieldbus) = self.headend.runtime.fieldbus.as_ref() {
                fieldbus.link_down(link);
            }
        }
        let ended = |place: &mut Place| place.handle_ended(link.number);
        self.headend.decide(name, ended);
        let kind = if link.was_up() {
            let transport = link.peer.transport.name();
            if end.is_orderly() {
                info!(edge = name, transport, "tunnel closed: {end}");
            } else {
                warn!(edge = name, transport, "tunnel down: {end}");
            }
            Kind::TunnelDown
        } else {
            warn!(edge = name, address = %link.peer.address, "tunnel refused: {end}");
            if end.is_refusal() {
                let (uri, from) = (identity.uri(), link.peer.address.ip());
                let mut refusals = self.headend.refusals.borrow_mut();
                refusals.note(Some(uri), from, &end.to_string(), Instant::now());
            }
            Kind::TunnelRefused
        };
        let record = Record {
            reason: Some(Cow::Owned(end.to_string())),
            ..self.headend.tunnel_record(kind, link)
        };
        match kind {
            Kind::TunnelRefused => {
                self.headend.runtime.ledger.repeated(record);
            }
            _ => self.headend.runtime.ledger.note(record),
        }
    }

    fn judge(&self, link: &Rc<Link>, hello: Hello) {
        let headend = &self.headend;
        let edge = link.peer.identity.name.as_str();
        if let Err(text) = headend.check_offer(edge, &hello) {
            link.close(Close::DeviceNotBound, text);
            return;
        }
        let instance = hello.instance;
        headend.registry.put_hello(link, hello);
        let same_address = headend.registry.at_address_of(link);
        headend.decide(edge, |place| {
            place.handle_hello(link.number, instance);
            for older in same_address {
                if place.handle_same_address(link.number, older) {
                    info!(edge, "started anew: nobody has its old tunnel any more");
                }
            }
        });
    }

    fn up(&self, link: &Rc<Link>) {
        let Some(hello) = self.headend.registry.take_hello(link) else {
            link.close(Close::Protocol, "ready without an accepted hello");
            return;
        };
        let edge = link.peer.identity.name.as_str();
        let up = |place: &mut Place| place.handle_up(link.number);
        self.headend.decide(edge, up);
        let tunnel = self.headend.install(link, hello);
        *self.tunnel.borrow_mut() = Some(tunnel.clone());
        if let Some(head) = self.headend.runtime.ledger.checkpoint() {
            link.tell_checkpoint(&head);
        }
        self.headend.carry_bundle(&tunnel);
    }
}

impl Handler for TunnelHandler {
    fn event(&self, link: &Rc<Link>, event: Event) {
        match event {
            Event::Hello(hello) => self.judge(link, hello),
            Event::Up(_) => self.up(link),
            Event::Probed { alive } => {
                let probed = |place: &mut Place| place.handle_probed(link.number, alive);
                let edge = link.peer.identity.name.as_str();
                self.headend.decide(edge, probed);
            }
            Event::Policy(hash) => {
                if let Some(tunnel) = &*self.tunnel.borrow() {
                    *tunnel.policy.borrow_mut() = hash;
                }
            }
            Event::Checkpoint(told) => {
                let (headend, peer) = (&self.headend, &link.peer.identity);
                let now = Instant::now();
                headend
                    .runtime
                    .peer_logs
                    .take(&headend.runtime.ledger, peer, &told, now);
            }
            Event::TrustHave(hash) => match &*self.tunnel.borrow() {
                Some(tunnel) => tunnel.trust.set(Some(hash)),
                // Before it is up: what the hello said of it is out of date.
                None => self.headend.registry.note_trust(link, hash),
            },
            Event::Drain => {
                if let Some(tunnel) = &*self.tunnel.borrow() {
                    tunnel.release_devices();
                }
            }
            Event::BundleHave {
                version,
                fate,
                text,
            } => {
                if let Some(tunnel) = &*self.tunnel.borrow() {
                    self.headend.bundle_fate(tunnel, version, fate, text);
                }
            }
            Event::Bundle(_) => {}
            Event::Trust(_) | Event::Goodbye { .. } | Event::HelloTimeout | Event::Dead => {}
        }
    }

    fn frame(&self, _: &Rc<Link>, channel: u16, frame: Frame<'_>) -> Result<(), Violation> {
        let Frame::Answer { id, outcome, pdu } = frame else {
            return Err(Violation::Unexpected {
                frame: "request",
                state: "an edge only answers",
            });
        };
        let tunnel = self.tunnel.borrow();
        let channels = tunnel.as_ref().map(|tunnel| tunnel.channels.borrow());
        let index = usize::from(channel) - 1;
        let Some(found) = channels.as_ref().and_then(|list| list.get(index)) else {
            return Err(Violation::Channel { channel });
        };
        match found.answer(id, outcome, pdu) {
            Some(client) => self.dirty.borrow_mut().push(client),
            None => found.device.counters.late.add(),
        }
        Ok(())
    }

    fn station(&self, link: &Rc<Link>, station: u16, frame: &[u8]) {
        if let Some(fieldbus) = self.headend.runtime.fieldbus.as_ref() {
            fieldbus.station(link, station, frame);
        }
    }

    fn datagram(&self, link: &Rc<Link>, datagram: &[u8]) {
        if let Some(fieldbus) = self.headend.runtime.fieldbus.as_ref() {
            fieldbus.datagram(link, datagram);
        }
    }

    fn flush(&self) {
        // Several answers to one client leave in one write: the rest finds nothing to do.
        for client in self.dirty.borrow_mut().drain(..) {
            client.flush();
        }
    }
}

impl Headend {
    /// An edge may offer only what the configuration binds to the identity it proved.
    fn check_offer(&self, edge: &str, hello: &Hello) -> Result<(), String> {
        if let Some(unbound) = self.bindings.borrow().unbound(edge, hello) {
            return Err(format!("{unbound} is not bound to edge `{edge}`"));
        }
        if hello.channels() == 0 {
            return Err(format!("edge `{edge}` offers no device and no station"));
        }
        Ok(())
    }

    /// Something happened to a tunnel of `edge`: does what follows from it for all of them.
    fn decide(self: &Rc<Self>, edge: &str, happened: impl FnOnce(&mut Place)) {
        for step in self.registry.decide(edge, happened) {
            self.follow(edge, step);
        }
    }

    fn follow(self: &Rc<Self>, edge: &str, step: Step) {
        let link = |number| self.registry.link(number);
        match step {
            Step::Accept(number) => {
                if let (Some(link), Some(hello)) = (link(number), self.registry.hello(number)) {
                    self.accept(&link, &hello);
                }
            }
            Step::Probe(number) => {
                if let Some(link) = link(number) {
                    link.probe();
                }
            }
            Step::Refuse { refused, holder } => {
                if let (Some(refused), Some(holder)) = (link(refused), link(holder)) {
                    self.refuse_duplicate(&refused, &holder);
                }
            }
            Step::Drain(number) => {
                let older = self.registry.tunnel(edge);
                if let Some(older) = older.filter(|older| older.link.number == number) {
                    tokio::task::spawn_local(drain(older));
                }
            }
            Step::Close(number) => {
                let older = self.registry.tunnel(edge);
                if let Some(older) = older.filter(|older| older.link.number == number) {
                    // Nobody is there who could answer.
                    older.release_devices();
                    for channel in older.channels.borrow().iter() {
                        channel.fail_all();
                    }
                }
                if let Some(link) = link(number) {
                    link.close(Close::Replaced, "another tunnel has its place");
                }
            }
        }
    }

    fn accept(self: &Rc<Self>, link: &Rc<Link>, hello: &Hello) {
        // Over QUIC their datagrams need no connection of their own.
        let beside = !hello.stations.is_empty() && link.peer.transport == Transport::Tls;
        let cyclic = match beside.then(random).transpose() {
            Ok(cyclic) => cyclic,
            Err(error) => return link.close(Close::Shutdown, error.to_string()),
        };
        let answer = Hello {
            version: VERSION,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            instance: self.runtime.instance,
            policy: self.runtime.posture.hash(),
            trust: None,
            bundle: Some(0),
            // Of two tunnels of one edge the one that was accepted later is the newer.
            tunnel: self.runtime.next_link().into(),
            devices: Vec::new(),
            stations: hello.stations.clone(),
            cyclic,
        };
        // Before our hello: the edge judges us by it before anything crosses.
        let trust = self.runtime.posture.trust();
        if hello
            .trust
            .is_some_and(|theirs| theirs != trust.list.hash())
        {
            link.offer_trust(&trust.list.to_pem());
        }
        link.accept(&answer, hello);
    }

    fn refuse_duplicate(self: &Rc<Self>, link: &Link, older: &Link) {
        let edge = link.peer.identity.name.as_str();
        let text = format!(
            "edge `{edge}` is connected already from {}, and alive",
            older.peer.address
        );
        self.runtime.ledger.raise(
            Alarm::DuplicateIdentity,
            edge,
            &format!(
                "{text}; another process at {} uses its key",
                link.peer.address
            ),
        );
        link.close(Close::DuplicateIdentity, text);
        if self.registry.note_duplicate(edge, Instant::now()) {
            tokio::task::spawn_local(watch_duplicate(self.clone(), edge.to_owned()));
        }
    }

    /// The tunnel is up: its devices are served by it from here on.
    fn install(self: &Rc<Self>, link: &Rc<Link>, hello: Hello) -> Rc<EdgeTunnel> {
        let tunnel = Rc::new(EdgeTunnel {
            link: link.clone(),
            policy: RefCell::new(hello.policy),
            trust: Cell::new(hello.trust),
            carried: Carried::new(hello.bundle),
            channels: RefCell::default(),
            hello,
        });
        for (number, offer) in (1..).zip(&tunnel.hello.devices) {
            let (Some(device), Some(outbox)) = (self.device(&offer.name), link.channel(number))
            else {
                continue;
            };
            let channel = Channel::new(link, outbox, number, &device, offer, &self.runtime);
            tokio::task::spawn_local(channel.clone().watch_deadlines());
            *device.live.borrow_mut() = Some(channel.clone());
            self.takeovers.set(self.takeovers.get() + 1);
            let quirks = Quirks::from_bits(offer.quirks);
            self.devices.borrow().deviates(&offer.name, quirks);
            tunnel.channels.borrow_mut().push(channel);
        }
        if let Some(fieldbus) = self.runtime.fieldbus.as_ref() {
            fieldbus.link_up(link, &tunnel.hello.stations);
        }
        let peer = &link.peer;
        info!(
            edge = %peer.identity.name,
            address = %peer.address,
            transport = peer.transport.name(),
            key_exchange = peer.group,
            devices = tunnel.hello.devices.len(),
            stations = tunnel.hello.stations.len(),
            version = tunnel.hello.agent_version,
            "tunnel up"
        );
        self.runtime
            .ledger
            .note(self.tunnel_record(Kind::TunnelUp, link));
        let state = &self.runtime.state;
        self.refusals.borrow_mut().forget(&peer.identity.uri());
        self.runtime.posture.time_proven(state, peer.valid.1);
        self.runtime.unproven.proven(state);
        self.registry.put_tunnel(&tunnel);
        tunnel
    }

    pub(super) fn tunnel_record(&self, kind: Kind, link: &Link) -> Record {
        Record {
            tunnel: Some(link.peer.identity.uri().into()),
            transport: Some(link.peer.transport.name().into()),
            ..Record::new(kind)
        }
    }
}

/// The alarm lasts while the second agent keeps trying.
async fn watch_duplicate(headend: Rc<Headend>, edge: String) {
    loop {
        sleep(DUPLICATE_QUIET).await;
        let last = headend.registry.last_duplicate(&edge);
        if last.is_none_or(|last| last.elapsed() >= DUPLICATE_QUIET) {
            headend.registry.forget_duplicate(&edge);
            headend
                .runtime
                .ledger
                .clear(Alarm::DuplicateIdentity, &edge);
            return;
        }
    }
}

/// An older tunnel of the same agent finishes what it has under way, and closes.
async fn drain(older: Rc<EdgeTunnel>) {
    let looks = DRAIN_MAX.as_millis() / DRAIN_LOOK.as_millis();
    for _ in 0..looks {
        if older.under_way() == 0 {
            break;
        }
        sleep(DRAIN_LOOK).await;
    }
    older
        .link
        .close(Close::Replaced, "a newer tunnel of the same agent");
}
