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

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Party, Record};
use fieldlock_conduit::meter::Meter;
use fieldlock_conduit::repeat::Repeats;
use fieldlock_pki::{Name, Role, TrustList, store};
use fieldlock_policy::{Policy, Strangers};
use fieldlock_sandbox::Sandbox;
use fieldlock_session::{Close, Hello, Place, Transport};
use fieldlock_transport::counter::Counter;
use fieldlock_transport::peer::Peer;
use fieldlock_transport::tls::Refusal;
use fieldlock_transport::tunnel::Link;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use tracing::{debug, info, warn};

use crate::settings::{Bindings, Entrance, File};
use accept::Port;
use admission::{Admission, Verdict};
use bundle::Bundles;
use client::{ClientConn, Service};
use devices::{Device, Devices};
use fieldlock_agent::authority::{self, Member, Unproven};
use fieldlock_agent::checkpoint::PeerLogs;
use fieldlock_agent::control::Control;
use fieldlock_agent::fieldbus::{Fieldbus, Opened, Wire};
use fieldlock_agent::ledger::{Alarm, Ledger, denial};
use fieldlock_agent::manager::Manager;
use fieldlock_agent::monitor::Monitor;
use fieldlock_agent::posture::{
    Posture, WATCH_DATES, WATCH_PHASE, refused, reloaded, short_hex, tell_strangers, with_strangers,
};
use fieldlock_agent::reload::{Changed, Watch};
use fieldlock_agent::source::Source;
use fieldlock_agent::vitals::Vitals;
use fieldlock_agent::{Agent, Dialled, Given, Prepared, StartError, random, stop_signal};
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
    prepare,
    run: |file, given| Box::pin(async move { run(&file, given).await }),
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
    file: PathBuf,
    settings: RefCell<Rc<File>>,
    posture: Posture,
    meter: RefCell<Meter>,
    ledger: Rc<Ledger>,
    manager: Rc<Manager>,
    sandbox: Sandbox,
    vitals: Vitals,
    instance: [u8; 16],
    started: Instant,
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
    next_link: Cell<u32>,
    counters: Rc<Counters>,
    peer_logs: PeerLogs,
    unproven: Rc<Unproven>,
    bundles: RefCell<Bundles>,
    /// Where PROFINET is configured.
    fieldbus: OnceCell<Rc<Fieldbus>>,
}

/// Reads and tries everything that [`run`] needs, and opens nothing.
pub(crate) fn check(file: &Path) -> Result<String, StartError> {
    let settings = File::load(file)?;
    let posture = Posture::load(
        Role::Headend,
        &Source::file(settings.policy.clone()),
        &settings.state,
        settings.trust,
    )?;
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

/// Runs a headend until it is told to stop.
pub(crate) fn prepare(file: &Path) -> Result<Prepared, StartError> {
    let settings = File::load(file)?;
    let needs = settings.sandbox.then(|| settings::needs(file, &settings));
    Ok(Prepared {
        profinet: settings.profinet,
        needs,
    })
}

pub(crate) async fn run(file: &Path, given: Given) -> Result<(), StartError> {
    let settings = File::load(file)?;
    let posture = Posture::load(
        Role::Headend,
        &Source::file(settings.policy.clone()),
        &settings.state,
        settings.trust,
    )?;
    tell_strangers(&settings.strangers(&posture.policy()));
    let name = posture.trust().identity.name.to_string();
    let ledger = Ledger::open(&settings.state, &name, &settings.audit, posture.clock())?;
    ledger.set_signer(posture.trust().signer.clone());
    ledger.set_policy(&short_hex(&posture.hash()));
    let mut ports = Vec::new();
    let secret = std::fs::read(settings.state.join(store::KEY))?;
    for &address in &settings.tunnel.listen {
        let port =
            Port::bind(address, &secret).map_err(|source| StartError::Bind { address, source })?;
        ports.push(Rc::new(port));
    }
    let mut doors = Vec::new();
    for &address in settings.ca.iter().flat_map(|ca| &ca.listen) {
        let door = splice::Door::bind(address);
        let door = door.map_err(|source| StartError::Bind { address, source })?;
        doors.push(Rc::new(door));
    }
    let drain = settings.drain.0;
    let monitor = match &settings.monitor {
        Some(monitor) => Some(Monitor::bind(monitor).await?),
        None => None,
    };
    let unproven = Unproven::at_start(&settings.state);
    let state = settings.state.clone();
    let repeats = Repeats::at_headend(settings.client.refuse_repeats_for.0);
    let repeats = Rc::new(RefCell::new(repeats));
    let headend = Rc::new(Headend {
        file: file.to_owned(),
        settings: RefCell::new(Rc::new(settings)),
        posture,
        meter: RefCell::default(),
        ledger,
        manager: given.manager.clone(),
        sandbox: given.sandbox,
        vitals: Vitals::default(),
        instance: random()?,
        started: Instant::now(),
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
        repeats,
        seats: Rc::default(),
        admission: Admission::default(),
        sweep_wanted: Notify::new(),
        splices: RefCell::default(),
        duplicates: RefCell::default(),
        refusals: RefCell::default(),
        next_client: Cell::new(0),
        takeovers: Cell::new(0),
        next_link: Cell::new(0),
        counters: Rc::default(),
        peer_logs: PeerLogs::default(),
        unproven,
        bundles: RefCell::default(),
        fieldbus: OnceCell::new(),
    });
    headend.start_fieldbus(given.fieldbus)?;
    headend.apply_settings().await?;
    let control = Control::bind(&state)?;
    headend.start()?;
    tokio::task::spawn_local({
        let headend = headend.clone();
        async move { control.serve(|| headend.status()).await }
    });
    if let Some(monitor) = monitor {
        tokio::task::spawn_local(monitor.serve(headend.clone()));
    }
    let manager = given.manager;
    tokio::task::spawn_local(manager.clone().inform(headend.clone()));
    manager.ready();
    stop_signal().await?;
    manager.stopping();
    headend.vitals.stop();
    headend.stop(drain).await;
    Ok(())
}

fn device_names(settings: &File) -> Arc<[Arc<str>]> {
    let names = settings.device.iter().map(|d| d.name.as_str().into());
    names.collect()
}

impl Headend {
    fn start_fieldbus(&self, opened: Option<Opened>) -> Result<(), StartError> {
        let settings = self.settings();
        if let (Some(opened), Some(profinet)) = (opened, &settings.profinet) {
            let (stations, controllers) = (&settings.station, &settings.controller);
            let fieldbus = Fieldbus::start(
                Wire::Headend { controllers },
                opened,
                profinet,
                stations,
                &self.posture,
                &self.ledger,
            )?;
            let _ = self.fieldbus.set(fieldbus);
        }
        Ok(())
    }

    fn start(self: &Rc<Self>) -> Result<(), StartError> {
        let identity = self.posture.trust().identity.clone();
        self.ledger.note(Record {
            reason: Some(concat!("fieldlock ", env!("CARGO_PKG_VERSION")).into()),
            ..Record::new(Kind::Start)
        });
        for port in &self.ports {
            port.configure(self)?;
            self.vitals
                .spawn("tunnels", port.clone().serve(self.clone()));
            info!(address = %port.address, "tunnels: listening on UDP and TCP");
        }
        for door in &self.doors {
            self.vitals
                .spawn("connections to the CA", door.clone().serve(self.clone()));
        }
        let state = &self.settings().state;
        self.posture.watch_dates(state, &self.ledger);
        self.reload_bundles();
        let ledger = self.ledger.clone();
        let vitals = &self.vitals;
        vitals.spawn("records", async move { ledger.run().await });
        vitals.spawn("checkpoints", tell_checkpoints(self.clone()));
        vitals.spawn("dates", watch_dates(self.clone()));
        vitals.spawn("windows", watch_phase(self.clone()));
        vitals.spawn("lists", save_lists(self.clone()));
        vitals.spawn("trust", sweep::follow(self.clone()));
        tokio::task::spawn_local(watch_files(self.clone()));
        let unproven = self.unproven.clone();
        tokio::task::spawn_local(authority::keep_certificate(self.clone(), unproven));
        tokio::task::spawn_local(authority::follow_list(self.clone(), true));
        info!(identity = %identity.uri(), "headend runs");
        Ok(())
    }

    pub(crate) fn settings(&self) -> Rc<File> {
        self.settings.borrow().clone()
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.posture.policy()
    }

    pub(crate) fn policy_hash(&self) -> [u8; 32] {
        self.posture.hash()
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

    fn next_link(&self) -> u32 {
        let number = self.next_link.get() + 1;
        self.next_link.set(number);
        number
    }

    /// Judges a handshake that wants to begin.
    fn knock(&self, from: IpAddr, proven: bool) -> Verdict {
        let limits = &self.settings().tunnel;
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
        let first = self.ledger.repeated(Record {
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

    // --- reload ---------------------------------------------------------------------

    /// Brings devices and listeners in line with the settings.
    async fn apply_settings(self: &Rc<Self>) -> Result<(), StartError> {
        let settings = self.settings();
        self.ledger.set_reads(settings.audit.reads());
        let hold = settings.client.refuse_repeats_for.0;
        self.repeats.borrow_mut().set_hold(hold);
        if let (Some(fieldbus), Some(profinet)) = (self.fieldbus.get(), &settings.profinet) {
            fieldbus.reconfigure(profinet, &settings.station, &settings.controller);
        }
        let names = self.add_devices(&settings);
        *self.bindings.borrow_mut() = settings.bindings();
        let entrances = settings.entrances(&names);
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

    /// What is read again when it changes.
    fn files(&self) -> Vec<PathBuf> {
        let settings = self.settings();
        let mut files = fieldlock_agent::trust_files(&settings.state);
        files.extend([self.file.clone(), settings.policy.clone()]);
        files.extend(settings.bundle.files.clone());
        files
    }

    async fn reload(self: &Rc<Self>, changed: &Changed) {
        let before = self.settings();
        if changed.includes(&self.file) {
            self.reload_settings().await;
        }
        let settings = self.settings();
        let bundles = &settings.bundle;
        if before.bundle != *bundles || bundles.files.iter().any(|f| changed.includes(f)) {
            self.reload_bundles();
        }
        let policy_changed = settings.policy != before.policy || changed.includes(&settings.policy);
        let source = Source::file(settings.policy.clone());
        let state = &settings.state;
        if policy_changed && self.posture.reload_policy(&source, state, &self.ledger) {
            tell_strangers(&self.strangers());
            self.meter.borrow_mut().clear();
            self.judge_anew();
            for link in self.links.borrow().values() {
                link.policy_changed(self.posture.hash());
            }
        }
        if changed.includes(&settings.state) {
            self.identity_changed().await;
        }
    }

    fn strangers(&self) -> Vec<Strangers> {
        self.settings().strangers(&self.posture.policy())
    }

    /// Connected clients are judged by the rules in force from their next requests on.
    fn judge_anew(&self) {
        if let Some(fieldbus) = self.fieldbus.get() {
            fieldbus.judge_anew(&self.posture);
        }
        let (policy, phase) = (self.policy(), self.posture.phase());
        for client in self.clients.borrow().values() {
            client.set_policy(&policy, &phase);
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

    async fn reload_settings(self: &Rc<Self>) {
        let settings = match File::load(&self.file) {
            Ok(settings) => settings,
            Err(error) => {
                let text = format!("the old configuration stays in force: {error}");
                refused(&self.ledger, &text);
                self.ledger.raise(Alarm::ConfigurationRefused, "", &text);
                return;
            }
        };
        let old = self.settings();
        if settings == *old {
            self.ledger.clear(Alarm::ConfigurationRefused, "");
            return;
        }
        let doors = |settings: &File| {
            settings
                .ca
                .as_ref()
                .map_or(Vec::new(), |ca| ca.listen.clone())
        };
        if settings.tunnel.listen != old.tunnel.listen
            || settings.state != old.state
            || doors(&settings) != doors(&old)
        {
            warn!("`tunnel.listen`, `ca.listen` and `state` take effect at the next start");
        }
        if settings.monitor != old.monitor {
            warn!("[monitor] takes effect at the next start");
        }
        if settings.sandbox != old.sandbox {
            warn!("`sandbox` takes effect at the next start");
        }
        *self.settings.borrow_mut() = Rc::new(settings);
        self.configure_ports();
        tell_strangers(&self.strangers());
        match self.apply_settings().await {
            Ok(()) => {
                self.ledger.clear(Alarm::ConfigurationRefused, "");
                reloaded(
                    &self.ledger,
                    &format!("configuration {}", self.file.display()),
                );
                self.judge_bindings();
            }
            Err(error) => {
                let text = format!("the new configuration is in force only in part: {error}");
                self.ledger.raise(Alarm::ConfigurationRefused, "", &text);
            }
        }
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

    /// Cuts every tunnel and client whose certificate this trust does not accept any more.
    fn sweep(&self) {
        self.sweep_clients();
        self.sweep_wanted.notify_one();
    }

    // --- end ------------------------------------------------------------------------

    /// Lets go of all ports first, then of clients and edges. What was asked before is answered; what
    /// is asked in the meantime is refused.
    async fn stop(&self, drain: Duration) {
        self.posture.leave(&self.settings().state).await;
        info!("stopping: requests under way may finish within {drain:?}");
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
        self.ledger.close();
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
    fn posture(&self) -> &Posture {
        &self.posture
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn state(&self) -> PathBuf {
        self.settings().state.clone()
    }

    fn authority(&self) -> Option<(Vec<String>, Name)> {
        let settings = self.settings();
        let ca = settings.ca.as_ref()?;
        Some((vec![ca.address.clone()], ca.name.clone()))
    }

    fn take_list(&self, list: &TrustList) -> Result<(), String> {
        let state = &self.settings().state;
        if self.posture.take_trust(state, list, true, &self.ledger)? {
            self.trust_changed();
        }
        Ok(())
    }

    async fn identity_changed(&self) {
        let state = &self.settings().state;
        let replaced = self.posture.reload_trust(state, &self.ledger).await;
        if replaced.is_some() {
            self.trust_changed();
        }
    }

    /// Edges keep their tunnels when a headend gets another certificate: that none has come up
    /// with it yet says nothing.
    fn is_connected(&self) -> bool {
        false
    }

    fn seed(&self) -> u64 {
        u64::from_be_bytes(self.instance[..8].try_into().unwrap_or_default())
    }
}

/// The other ends keep where this agent's log stands.
async fn tell_checkpoints(headend: Rc<Headend>) {
    loop {
        headend.ledger.new_checkpoint().await;
        if let Some(head) = headend.ledger.checkpoint() {
            for tunnel in headend.tunnels.borrow().values() {
                tunnel.link.tell_checkpoint(&head);
            }
        }
    }
}

async fn watch_files(headend: Rc<Headend>) {
    let mut watch = match Watch::new(headend.files()) {
        Ok(watch) => watch,
        Err(error) => {
            warn!(%error, "files and SIGHUP are not watched");
            return;
        }
    };
    loop {
        let changed = watch.changed().await;
        headend.manager.reloading();
        headend.reload(&changed).await;
        headend.manager.ready();
        watch.follow(headend.files());
    }
}

async fn watch_phase(headend: Rc<Headend>) {
    let mut look = interval(WATCH_PHASE);
    loop {
        look.tick().await;
        if headend.posture.phase_changed() {
            headend.judge_anew();
        }
    }
}

async fn save_lists(headend: Rc<Headend>) {
    headend.posture.save_lists(&headend.state()).await;
}

async fn watch_dates(headend: Rc<Headend>) {
    let mut look = interval(WATCH_DATES);
    loop {
        look.tick().await;
        let state = &headend.settings().state;
        headend.posture.watch_dates(state, &headend.ledger);
        headend.ledger.watch_shares();
        if headend.posture.cuts_stale() {
            headend.sweep();
        }
        let now = headend.posture.clock().steady();
        headend.cut_expired_clients(now);
        for link in headend.links.borrow().values() {
            if link.has_expired(now) {
                link.close(Close::NotTrusted, "this edge's certificate has expired");
            }
        }
    }
}
