//! The headend: faces SCADA, HMIs and historians, and is the choke point toward the cells.
//!
//! - `listeners`, `client`, `request`: Modbus/TCP clients, each judged by [`fieldlock_conduit::client`];
//!   `clients`, `seats`: those that are connected, and how many there may be.
//! - `mbaps`: those that speak Modbus/TCP Security.
//! - `accept`, `admission`: where edges dial in, and how many may at a time.
//! - `registry`, `tunnel`: the tunnels, and which edge may offer which device.
//! - `splice`, `gate`: connections that are meant for the CA.
//! - `bundle`: policy bundles, carried to edges.
//! - `sweep`: live tunnels, judged again.
//! - `refusals`: edges that were turned away, for `status`.
//! - `devices`, `channel`: the devices, and requests under way to one.
//! - `settings`: `headend.toml`.
//!
//! All of it runs on one thread; the audit log has its own.

mod accept;
mod admission;
mod bundle;
mod channel;
mod client;
mod clients;
mod devices;
mod gate;
mod listeners;
mod mbaps;
mod metrics;
mod refusals;
mod registry;
mod request;
mod seats;
pub mod settings;
mod splice;
mod status;
mod sweep;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Head, Kind, Party, Record};
use fieldlock_conduit::repeat::Repeats;
use fieldlock_pki::{Name, TrustList, store};
use fieldlock_session::{Close, Transport};
use fieldlock_transport::counter::Counter;
use fieldlock_transport::peer::Peer;
use fieldlock_transport::tls::Refusal;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::settings::{Bindings, File};
use accept::Port;
use admission::{Admission, Verdict};
use bundle::Bundles;
use clients::Clients;
use devices::{Device, Devices};
use fieldlock_agent::authority::Member;
use fieldlock_agent::ledger::denial;
use fieldlock_agent::posture::{short_hex, with_strangers};
use fieldlock_agent::reload::Changed;
use fieldlock_agent::runtime::{self, End, Life, Runtime, Settings as _, posture_of};
use fieldlock_agent::{Agent, Dialled, StartError};
use gate::Gate;
use listeners::Listeners;
use refusals::Refusals;
use registry::Registry;

#[derive(Debug, Default)]
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
    listeners: Listeners,
    registry: Registry,
    clients: Clients,
    admission: Admission,
    /// Live tunnels are to be judged again.
    sweep_wanted: Notify,
    /// Connections to the CA.
    splices: RefCell<Gate>,
    refusals: RefCell<Refusals>,
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
            listeners: Listeners::default(),
            registry: Registry::default(),
            clients: Clients::new(repeats),
            admission: Admission::default(),
            sweep_wanted: Notify::new(),
            splices: RefCell::default(),
            refusals: RefCell::default(),
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
        for link in self.registry.links() {
            link.policy_changed(self.runtime.posture.hash());
        }
    }

    fn judge_anew(&self) {
        let (policy, phase) = (self.runtime.posture.policy(), self.runtime.posture.phase());
        for client in self.clients.all() {
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
        for link in self.registry.links() {
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
        for tunnel in self.registry.tunnels() {
            tunnel.link.tell_checkpoint(head);
        }
    }

    /// Lets go of all ports first, then of clients and edges. What was asked before is answered; what
    /// is asked in the meantime is refused.
    async fn stop(&self, drain: Duration) {
        self.listeners.close();
        for port in &self.ports {
            port.stop_accepting();
        }
        if timeout(drain, self.see_off_clients()).await.is_err() {
            warn!("requests were still under way at the end of `drain`");
        }
        for link in self.registry.links() {
            link.close(Close::Shutdown, STOPS);
        }
        let gone = async {
            while self.registry.len() > 0 {
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
        self.clients.repeats.borrow_mut().set_hold(hold);
        let names = self.add_devices(&settings);
        *self.bindings.borrow_mut() = settings.bindings();
        let entrances = settings.entrances(&names);
        self.listeners.follow(self, entrances).await
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
        for tunnel in self.registry.tunnels() {
            let edge = tunnel.link.peer.identity.name.as_str();
            if let Some(lost) = bindings.unbound(edge, &tunnel.hello) {
                let text = format!("{lost} is not bound to this edge any more");
                tunnel.link.close(Close::Reconfigured, text);
            }
        }
    }

    // --- tunnels --------------------------------------------------------------------

    /// Judges a handshake that wants to begin.
    fn knock(&self, from: IpAddr, proven: bool) -> Verdict {
        let limits = &self.runtime.settings().tunnel;
        let tunnels = self.registry.len();
        let now = Instant::now();
        let verdict = self.admission.knock(limits, tunnels, from, proven, now);
        if matches!(verdict, Verdict::Later) {
            self.counters.handshakes_put_off.add();
        }
        verdict
    }

    fn is_welcome(&self, peer: &Peer) -> bool {
        let edge = peer.identity.name.as_str();
        self.admission.is_welcome(edge, Instant::now())
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
        while !self.clients.is_empty() {
            for client in self.clients.all() {
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
