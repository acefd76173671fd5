//! The headend: faces SCADA, HMIs and historians, and is the choke point toward the cells.
//!
//! - `client`, `request`: Modbus/TCP clients, each judged by [`fieldlock_conduit::client`].
//! - `mbaps`, `seats`: those that speak Modbus/TCP Security; how many there may be.
//! - `accept`, `admission`, `hello`: where edges dial in, and how many may at a time.
//! - `splice`, `gate`: connections that are meant for the CA.
//! - `bundle`: policy bundles, carried to edges.
//! - `tunnel`: which edge may offer which device.
//! - `sweep`: live tunnels, judged again.
//! - `refusals`: edges that were turned away, for `status`.
//! - `devices`, `channel`: the devices, and requests under way to one.
//!
//! All of it runs on one thread; the audit log has its own.

mod accept;
mod admission;
mod bundle;
mod channel;
mod client;
mod devices;
mod gate;
mod mbaps;
mod metrics;
mod refusals;
mod request;
mod seats;
pub mod settings;
mod splice;
mod status;
mod sweep;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Head, Kind, Party, Record};
use fieldlock_conduit::repeat::Repeats;
use fieldlock_pki::{Name, TrustList, store};
use fieldlock_session::{Close, Hello, Place, Transport};
use fieldlock_transport::counter::Counter;
use fieldlock_transport::peer::Peer;
use fieldlock_transport::tls::Refusal;
use fieldlock_transport::tunnel::Link;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::settings::{Bindings, Entrance, File};
use accept::Port;
use admission::{Admission, Verdict};
use bundle::Bundles;
use client::{ClientConn, Service};
use devices::{Device, Devices};
use fieldlock_agent::authority::Member;
use fieldlock_agent::ledger::denial;
use fieldlock_agent::posture::{short_hex, with_strangers};
use fieldlock_agent::reload::Changed;
use fieldlock_agent::runtime::{self, End, Life, Runtime, Settings as _, posture_of};
use fieldlock_agent::{Agent, Dialled, StartError};
use gate::Gate;
use refusals::Refusals;
use seats::Seats;
use tunnel::EdgeTunnel;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Counters {
    pub(crate) not_modbus: Counter,
    pub(crate) no_route: Counter,
    /// Requests that were under way already, under the same transaction id.
    pub(crate) repeated: Counter,
    /// Answers 0x0B that were kept from clients which had given up waiting for them.
    pub(crate) given_up: Counter,
    pub(crate) clients_refused: Counter,
    pub(crate) handshakes_refused: Counter,
    /// Neither refused nor begun: too many at a time.
    pub(crate) handshakes_put_off: Counter,
    pub(crate) splices_refused: Counter,
}

/// This end, as `fieldlock headend` runs it.
pub const AGENT: Agent = Agent {
    configuration: "/etc/fieldlock/headend.toml",
    check,
    dial: |file| Box::pin(async move { reach(&file).await }),
    prepare: runtime::prepare::<Headend>,
};

struct Listening {
    address: SocketAddr,
    /// For connections from here on.
    service: Rc<RefCell<Service>>,
    task: JoinHandle<()>,
}

/// Between two looks at what is to end, while the headend stops.
const LOOK: Duration = Duration::from_millis(2);
const STOPS: &str = "the headend stops";

/// A running headend.
pub(crate) struct Headend {
    runtime: Runtime<File>,
    ports: Vec<Rc<Port>>,
    doors: Vec<Rc<splice::Door>>,
    devices: RefCell<Devices>,
    /// Of the settings in force.
    bindings: RefCell<Bindings>,
    /// By configured address.
    listeners: RefCell<HashMap<SocketAddr, Listening>>,
    tunnels: RefCell<BTreeMap<String, Rc<EdgeTunnel>>>,
    /// Which of an edge's tunnels is kept; of edges that have any.
    places: RefCell<HashMap<String, Place>>,
    /// Hellos of links that are not up yet.
    hellos: RefCell<HashMap<u32, Hello>>,
    links: RefCell<HashMap<u32, Rc<Link>>>,
    clients: RefCell<HashMap<u32, Rc<ClientConn>>>,
    /// Writes whose outcome their clients may not know.
    repeats: Rc<RefCell<Repeats>>,
    seats: Rc<Seats>,
    admission: Admission,
    /// Live tunnels are to be judged again.
    sweep_wanted: Notify,
    /// Connections to the CA.
    splices: RefCell<Gate>,
    /// When a second agent with the key of this edge was refused last.
    duplicates: RefCell<HashMap<String, Instant>>,
    refusals: RefCell<Refusals>,
    next_client: Cell<u32>,
    /// How often another tunnel began to serve a device.
    takeovers: Cell<u64>,
    counters: Rc<Counters>,
    bundles: RefCell<Bundles>,
}

/// Reads and tries everything that [`run`] needs, and opens nothing.
pub(crate) fn check(file: &Path) -> Result<String, StartError> {
    let settings = File::load(file)?;
    let posture = posture_of(&settings)?;
    Bundles::check(&settings.bundle.files).map_err(StartError::Policy)?;
    let profinet = settings.profinet.as_ref();
    let profinet = profinet.map(|profinet| profinet.summary(settings.station.len()));
    let summary = format!(
        "{}: headend `{}` of {}, {} devices, {} listeners{}, policy {}",
        file.display(),
        posture.trust().identity.name,
        posture.trust().identity.site,
        settings.device.len(),
        settings.entrances(&device_names(&settings)).len(),
        profinet.unwrap_or_default(),
        short_hex(&posture.hash()),
    );
    let strangers = settings.strangers(&posture.policy());
    Ok(with_strangers(summary, &strangers))
}

/// Dials what the configuration names: the CA alone, for edges dial in.
pub(crate) async fn reach(file: &Path) -> Result<Vec<Dialled>, StartError> {
    let settings = File::load(file)?;
    let Some(ca) = &settings.ca else {
        return Ok(Vec::new());
    };
    let outcome = match splice::connect(&ca.address).await {
        Ok(_) => Ok("answers".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Ok(vec![Dialled {
        what: format!("CA at {}", ca.address),
        outcome,
    }])
}

fn device_names(settings: &File) -> Arc<[Arc<str>]> {
    let names = settings.device.iter().map(|d| d.name.as_str().into());
    names.collect()
}

impl End for Headend {
    type Settings = File;

    fn runtime(&self) -> &Runtime<File> {
        &self.runtime
    }
}

impl Life for Headend {
    fn open(runtime: Runtime<File>) -> Result<Rc<Self>, StartError> {
        let settings = runtime.settings();
        let secret = std::fs::read(runtime.state.join(store::KEY))?;
        let mut ports = Vec::new();
        for &address in &settings.tunnel.listen {
            let port = Port::bind(address, &secret);
            let port = port.map_err(|source| StartError::Bind { address, source })?;
            ports.push(Rc::new(port));
        }
        let mut doors = Vec::new();
        for &address in settings.ca.iter().flat_map(|ca| &ca.listen) {
            let door = splice::Door::bind(address);
            let door = door.map_err(|source| StartError::Bind { address, source })?;
            doors.push(Rc::new(door));
        }
        let repeats = Repeats::at_headend(settings.client.refuse_repeats_for.0);
        Ok(Rc::new(Self {
            runtime,
            ports,
            doors,
            devices: RefCell::default(),
            bindings: RefCell::default(),
            listeners: RefCell::default(),
            tunnels: RefCell::default(),
            places: RefCell::default(),
            hellos: RefCell::default(),
            links: RefCell::default(),
            clients: RefCell::default(),
            repeats: Rc::new(RefCell::new(repeats)),
            seats: Rc::default(),
            admission: Admission::default(),
            sweep_wanted: Notify::new(),
            splices: RefCell::default(),
            duplicates: RefCell::default(),
            refusals: RefCell::default(),
            next_client: Cell::new(0),
            takeovers: Cell::new(0),
            counters: Rc::default(),
            bundles: RefCell::default(),
        }))
    }

    async fn start(self: &Rc<Self>) -> Result<(), StartError> {
        self.follow_settings().await?;
        let vitals = &self.runtime.vitals;
        for port in &self.ports {
            port.configure(self)?;
            vitals.spawn("tunnels", port.clone().serve(self.clone()));
            info!(address = %port.address, "tunnels: listening on UDP and TCP");
        }
        for door in &self.doors {
            vitals.spawn("connections to the CA", door.clone().serve(self.clone()));
        }
        self.reload_bundles();
        vitals.spawn("trust", sweep::follow(self.clone()));
        Ok(())
    }

    async fn apply_settings(self: &Rc<Self>) -> Result<(), StartError> {
        self.configure_ports();
        self.follow_settings().await?;
        self.judge_bindings();
        Ok(())
    }

    fn rules_changed(&self) {
        for link in self.links.borrow().values() {
            link.policy_changed(self.runtime.posture.hash());
        }
    }

    fn judge_anew(&self) {
        let (policy, phase) = (self.runtime.posture.policy(), self.runtime.posture.phase());
        for client in self.clients.borrow().values() {
            client.set_policy(&policy, &phase);
        }
    }

    async fn reload(self: &Rc<Self>, before: &File, changed: &Changed) {
        let settings = self.runtime.settings();
        let bundles = &settings.bundle;
        if before.bundle != *bundles || bundles.files.iter().any(|f| changed.includes(f)) {
            self.reload_bundles();
        }
    }

    fn watch_windows(&self) {}

    fn watch_dates(&self) {
        let now = self.runtime.posture.clock().steady();
        self.cut_expired_clients(now);
        for link in self.links.borrow().values() {
            if link.has_expired(now) {
                link.close(Close::NotTrusted, "this edge's certificate has expired");
            }
        }
    }

    fn sweep(&self) {
        self.sweep_clients();
        self.sweep_wanted.notify_one();
    }

    fn tell_checkpoint(&self, head: &Head) {
        for tunnel in self.tunnels.borrow().values() {
            tunnel.link.tell_checkpoint(head);
        }
    }

    fn status(&self) -> Value {
        Headend::status(self)
    }

    /// Lets go of all ports first, then of clients and edges. What was asked before is answered; what
    /// is asked in the meantime is refused.
    async fn stop(&self, drain: Duration) {
        for listening in self.listeners.borrow().values() {
            listening.task.abort();
        }
        for port in &self.ports {
            port.stop_accepting();
        }
        if timeout(drain, self.see_off_clients()).await.is_err() {
            warn!("requests were still under way at the end of `drain`");
        }
        for link in self.links.borrow().values() {
            link.close(Close::Shutdown, STOPS);
        }
        let gone = async {
            while !self.links.borrow().is_empty() {
                sleep(LOOK).await;
            }
            // Those that had to wait for the end of their tunnel.
            self.see_off_clients().await;
        };
        let _ = timeout(Duration::from_secs(1), gone).await;
        for port in &self.ports {
            port.close().await;
        }
    }
}

impl Headend {
    // --- settings --------------------------------------------------------------------

    /// Brings devices, bindings and listeners in line with the settings.
    async fn follow_settings(self: &Rc<Self>) -> Result<(), StartError> {
        let settings = self.runtime.settings();
        let hold = settings.client.refuse_repeats_for.0;
        self.repeats.borrow_mut().set_hold(hold);
        let names = self.add_devices(&settings);
        *self.bindings.borrow_mut() = settings.bindings();
        self.listen(settings.entrances(&names)).await
    }

    /// Opens the listeners that are wanted, and closes all others.
    async fn listen(self: &Rc<Self>, entrances: Vec<Entrance>) -> Result<(), StartError> {
        let wanted: HashSet<_> = entrances.iter().map(|entrance| entrance.address).collect();
        self.listeners.borrow_mut().retain(|address, listening| {
            let keep = wanted.contains(address);
            if !keep {
                listening.task.abort();
                info!(address = %listening.address, "no longer listening");
            }
            keep
        });
        for entrance in entrances {
            let Entrance {
                address,
                mbaps,
                routes,
            } = entrance;
            let routes = Arc::new(routes);
            let service = Service { mbaps, routes };
            if let Some(listening) = self.listeners.borrow().get(&address) {
                // Connections made before keep what they have; new ones get this.
                *listening.service.borrow_mut() = service;
                continue;
            }
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| StartError::Bind { address, source })?;
            let bound = listener.local_addr().unwrap_or(address);
            let speak = if mbaps { "MBAPS" } else { "Modbus" };
            info!(address = %bound, "{speak} clients: listening");
            let service = Rc::new(RefCell::new(service));
            let task = client::listen(self.clone(), listener, service.clone());
            let listening = Listening {
                address: bound,
                service,
                task: tokio::task::spawn_local(task),
            };
            self.listeners.borrow_mut().insert(address, listening);
        }
        Ok(())
    }

    fn add_devices(&self, settings: &File) -> Arc<[Arc<str>]> {
        let mut devices = self.devices.borrow_mut();
        for device in &settings.device {
            devices.add(&device.name);
        }
        devices.names()
    }

    /// Closes tunnels that offer what is not bound to them any more; they come back with a
    /// hello that is judged anew.
    fn judge_bindings(&self) {
        let bindings = self.bindings.borrow();
        for (edge, tunnel) in self.tunnels.borrow().iter() {
            if let Some(lost) = bindings.unbound(edge, &tunnel.hello) {
                let text = format!("{lost} is not bound to this edge any more");
                tunnel.link.close(Close::Reconfigured, text);
            }
        }
    }

    // --- clients --------------------------------------------------------------------

    fn next_client(&self) -> u32 {
        // After 2^32 connections a number comes back; its first owner is long gone.
        let number = self.next_client.get();
        self.next_client.set(number.wrapping_add(1));
        number
    }

    fn add_client(&self, client: &Rc<ClientConn>) {
        self.clients
            .borrow_mut()
            .insert(client.number, client.clone());
    }

    fn remove_client(&self, client: &ClientConn) {
        self.clients.borrow_mut().remove(&client.number);
    }

    // --- tunnels --------------------------------------------------------------------

    /// Judges a handshake that wants to begin.
    fn knock(&self, from: IpAddr, proven: bool) -> Verdict {
        let limits = &self.runtime.settings().tunnel;
        // Who is in a handshake may get a tunnel.
        let tunnels = self.links.borrow().len() + self.admission.under_way();
        let verdict = match tunnels < limits.max_tunnels {
            true => self.admission.knock(limits, from, proven, Instant::now()),
            false => Verdict::Later,
        };
        if matches!(verdict, Verdict::Later) {
            self.counters.handshakes_put_off.add();
        }
        verdict
    }

    fn is_welcome(&self, peer: &Peer) -> bool {
        let edge = peer.identity.name.as_str();
        self.admission.is_welcome(edge, Instant::now())
    }

    fn add_link(&self, link: &Rc<Link>) {
        self.links.borrow_mut().insert(link.number, link.clone());
    }

    fn remove_link(&self, link: &Link) {
        self.links.borrow_mut().remove(&link.number);
        self.hellos.borrow_mut().remove(&link.number);
    }

    fn put_hello(&self, link: &Link, hello: Hello) {
        self.hellos.borrow_mut().insert(link.number, hello);
    }

    fn hello_of(&self, number: u32) -> Option<Hello> {
        self.hellos.borrow().get(&number).cloned()
    }

    /// An edge that is not up yet has another trust list in force than its hello said.
    fn note_trust(&self, link: &Link, hash: [u8; 32]) {
        if let Some(hello) = self.hellos.borrow_mut().get_mut(&link.number) {
            hello.trust = Some(hash);
        }
    }

    fn take_hello(&self, link: &Link) -> Option<Hello> {
        self.hellos.borrow_mut().remove(&link.number)
    }

    fn tunnel_of(&self, edge: &str) -> Option<Rc<EdgeTunnel>> {
        self.tunnels.borrow().get(edge).cloned()
    }

    fn put_tunnel(&self, tunnel: &Rc<EdgeTunnel>) {
        let edge = tunnel.link.peer.identity.name.to_string();
        self.tunnels.borrow_mut().insert(edge, tunnel.clone());
    }

    fn remove_tunnel(&self, tunnel: &Rc<EdgeTunnel>) {
        self.release_devices(tunnel);
        let edge = tunnel.link.peer.identity.name.as_str();
        let mut tunnels = self.tunnels.borrow_mut();
        if tunnels
            .get(edge)
            .is_some_and(|known| Rc::ptr_eq(known, tunnel))
        {
            tunnels.remove(edge);
        }
    }

    /// No new request takes this tunnel.
    fn release_devices(&self, tunnel: &EdgeTunnel) {
        for channel in tunnel.channels.borrow().iter() {
            let mut live = channel.device.live.borrow_mut();
            if live.as_ref().is_some_and(|live| Rc::ptr_eq(live, channel)) {
                *live = None;
            }
        }
    }

    fn device(&self, name: &str) -> Option<Rc<Device>> {
        self.devices.borrow().named(name).cloned()
    }

    /// `source`: where it came from, if that is proven. Forged addresses would make each refusal
    /// look like another, and fill the log.
    fn handshake_refused(
        &self,
        source: Option<SocketAddr>,
        transport: Transport,
        refusal: impl Into<Refusal>,
    ) {
        let refusal = refusal.into();
        self.counters.handshakes_refused.add();
        let peer = refusal.party(Party {
            address: source.map(|source| source.ip()),
            ..Party::default()
        });
        let first = self.runtime.ledger.repeated(Record {
            transport: Some(transport.name().into()),
            ..denial(Kind::TunnelRefused, &peer, &refusal.why)
        });
        // Who comes from nowhere can't be looked for.
        if let Some(source) = source {
            let mut refusals = self.refusals.borrow_mut();
            let shown = peer.identity.as_deref().map(str::to_owned);
            refusals.note(shown, source.ip(), &refusal.why, Instant::now());
        }
        let transport = transport.name();
        let address = source.map_or("not proven".to_owned(), |source| source.to_string());
        if first {
            warn!(%address, transport, "handshake refused: {refusal}");
        } else {
            debug!(%address, transport, "handshake refused: {refusal}");
        }
    }

    /// Another certificate or trust list is in force: new handshakes go by it, live tunnels are
    /// judged again, and edges hear of it.
    fn trust_changed(&self) {
        self.configure_ports();
        self.sweep();
    }

    fn configure_ports(&self) {
        for port in &self.ports {
            if let Err(error) = port.configure(self) {
                warn!(%error, "QUIC keeps the old certificate and settings");
            }
        }
    }

    /// Closes each client as soon as it has its answers.
    async fn see_off_clients(&self) {
        while !self.clients.borrow().is_empty() {
            for client in self.clients.borrow().values() {
                if client.is_idle() {
                    client.close(STOPS);
                }
            }
            sleep(LOOK).await;
        }
    }
}

impl Member for Headend {
    fn authority(&self) -> Option<(Vec<String>, Name)> {
        let settings = self.runtime.settings();
        let ca = settings.ca.as_ref()?;
        Some((vec![ca.address.clone()], ca.name.clone()))
    }

    fn take_list(&self, list: &TrustList) -> Result<(), String> {
        let state = &self.runtime.state;
        if self
            .runtime
            .posture
            .take_trust(state, list, true, &self.runtime.ledger)?
        {
            self.trust_changed();
        }
        Ok(())
    }

    async fn identity_changed(&self) {
        let state = &self.runtime.state;
        let replaced = self
            .runtime
            .posture
            .reload_trust(state, &self.runtime.ledger)
            .await;
        if replaced.is_some() {
            self.trust_changed();
        }
    }

    /// Edges keep their tunnels when a headend gets another certificate: that none has come up
    /// with it yet says nothing.
    fn is_connected(&self) -> bool {
        false
    }
}
