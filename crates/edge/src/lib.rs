//! The edge: the sidecar next to a device. It dials out, and its policy is the last word.
//!
//! - `bundle`: policies that a signer vouches for, whoever brings them (`offers`).
//! - `dial`: a tunnel to every headend, over the transport that gets through; `cyclic`: beside one
//!   over TLS, a connection for cyclic data; `names`: where headends are.
//! - `tunnel`: requests from a headend, judged by this edge's own policy.
//! - `device`, `line`: sockets and serial lines around [`fieldlock_conduit::device`].
//! - `mbaps`: devices that speak Modbus/TCP Security.
//! - `reach`: whether what the configuration names answers.
//! - `settings`: `edge.toml`.

mod bundle;
mod cyclic;
mod device;
mod dial;
mod line;
mod mbaps;
mod metrics;
mod names;
mod offers;
mod reach;
pub mod settings;
mod status;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fieldlock_audit::{Head, Kind, Record};
use fieldlock_pki::{Name, TrustList, store};
use fieldlock_session::{Close, DeviceOffer, Hello, Transport as Carrier, VERSION};
use fieldlock_transport::socket;
use fieldlock_transport::tunnel::{Link, udp};
use quinn::{Endpoint, EndpointConfig};
use socket2::Type;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::settings::{Device as DeviceConfig, File, Transport};
use bundle::Next;
use device::Device;
use dial::Dialled;
use fieldlock_agent::authority::Member;
use fieldlock_agent::ledger::Alarm;
use fieldlock_agent::posture::{short_hex, with_strangers};
use fieldlock_agent::reload::Changed;
use fieldlock_agent::runtime::{self, End, Life, Runtime, Settings as _, posture_of};
use fieldlock_agent::{Agent, StartError};
use offers::{Offer, Offers};
pub(crate) use reach::reach;
use tunnel::TunnelHandler;

/// This end, as `fieldlock edge` runs it.
pub const AGENT: Agent = Agent {
    configuration: "/etc/fieldlock/edge.toml",
    check,
    dial: |file| Box::pin(async move { reach(&file).await }),
    prepare: runtime::prepare::<Edge>,
};

/// How long the tunnel of a changed `[[headend]]` waits for the new one.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// Tunnels by number.
type Tunnels = HashMap<u32, (Rc<Link>, Rc<TunnelHandler>)>;

/// Clients keep their numbers over all tunnels of a headend's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeadendProcess {
    instance: [u8; 16],
    /// The number of its first tunnel, which tells its clients from those of others.
    number: u32,
}

/// A running edge.
pub(crate) struct Edge {
    runtime: Runtime<File>,
    endpoint: Endpoint,
    /// In the order of the hello.
    devices: RefCell<Vec<Rc<Device>>>,
    /// Names of stations, in the order of the hello.
    stations: RefCell<Vec<String>>,
    /// By the headend's name.
    dialled: RefCell<HashMap<String, Rc<Dialled>>>,
    tunnels: RefCell<Tunnels>,
    /// Of each headend the process that was met last.
    processes: RefCell<HashMap<Arc<str>, HeadendProcess>>,
    /// The last link that may have been dialled with the certificate before this one.
    before_renewal: Cell<u32>,
    /// Bundles to be judged.
    offers: Offers,
    /// The bundle that waits for its time.
    next_bundle: RefCell<Option<Next>>,
}

/// Reads and tries everything that [`run`] needs, and opens nothing.
pub(crate) fn check(file: &Path) -> Result<String, StartError> {
    let settings = File::load(file)?;
    let posture = posture_of(&settings)?;
    bundle::check_file(&settings, &posture.trust().identity.name).map_err(StartError::Policy)?;
    for headend in &settings.headend {
        for address in &headend.address {
            std::net::ToSocketAddrs::to_socket_addrs(address.as_str()).map_err(|error| {
                StartError::Resolve {
                    address: address.clone(),
                    source: error,
                }
            })?;
        }
    }
    let profinet = settings.profinet.as_ref();
    let profinet = profinet.map(|profinet| profinet.summary(settings.station.len()));
    let mut checked = format!(
        "{}: edge `{}` of {}, {} devices, {} headends{}, policy {}",
        file.display(),
        posture.trust().identity.name,
        posture.trust().identity.site,
        settings.device.len(),
        settings.headend.len(),
        profinet.unwrap_or_default(),
        short_hex(&posture.hash()),
    );
    for device in &settings.device {
        if device.answer_within.0 >= ASKED_AGAIN {
            let (name, within) = (&device.name, device.answer_within);
            checked += &format!(
                "\nwarning: device `{name}`: `answer_within` is {within:?}, and some clients send a request again \
                 after 3s (pymodbus): give them a longer time-out, see docs/clients.md"
            );
        }
    }
    let strangers = settings.strangers(&posture.policy());
    Ok(with_strangers(checked, &strangers))
}

/// After which a client may send a request again by itself: pymodbus does as it comes.
const ASKED_AGAIN: Duration = Duration::from_secs(3);

/// Ports that no system gives out by itself.
const PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// Where QUIC is dialled from: both families where the system has both. After a restart it is the same
/// port again, if it is free, so that the headend sees at once that nobody has the tunnel of the
/// process before this one any more. `secret`: of this edge alone, and the same in all runs.
fn endpoint(secret: &[u8]) -> Result<Endpoint, StartError> {
    let own = udp::lasting_port(secret, PORTS);
    endpoint_at(&[own, 0])
}

/// Likewise, for a process that only tries whether there is a way.
fn transient_endpoint() -> Result<Endpoint, StartError> {
    endpoint_at(&[0])
}

/// On the first of `ports` that is free.
fn endpoint_at(ports: &[u16]) -> Result<Endpoint, StartError> {
    let families: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let addresses = families
        .into_iter()
        .flat_map(|ip| ports.iter().map(move |port| (ip, *port)));
    let mut bound = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        bound = socket::bind(address.into(), Type::DGRAM);
        if bound.is_ok() {
            break;
        }
    }
    bound
        .and_then(|socket| udp::endpoint(socket.into(), None, EndpointConfig::default()))
        .map_err(StartError::Io)
}

impl End for Edge {
    type Settings = File;

    fn runtime(&self) -> &Runtime<File> {
        &self.runtime
    }
}

impl Life for Edge {
    fn open(runtime: Runtime<File>) -> Result<Rc<Self>, StartError> {
        let secret = std::fs::read(runtime.state.join(store::KEY))?;
        Ok(Rc::new(Self {
            runtime,
            endpoint: endpoint(&secret)?,
            devices: RefCell::default(),
            stations: RefCell::default(),
            dialled: RefCell::default(),
            tunnels: RefCell::default(),
            processes: RefCell::default(),
            before_renewal: Cell::new(0),
            offers: Offers::default(),
            next_bundle: RefCell::default(),
        }))
    }

    async fn start(self: &Rc<Self>) -> Result<(), StartError> {
        self.start_bundles().await;
        self.apply_settings().await?;
        let vitals = &self.runtime.vitals;
        vitals.spawn("writes", release_durable(self.clone()));
        vitals.spawn("bundles", offers::judge(self.clone()));
        Ok(())
    }

    /// Brings devices and headends in line with the settings.
    async fn apply_settings(self: &Rc<Self>) -> Result<(), StartError> {
        let settings = self.runtime.settings();
        let stations = settings.station.iter().map(|s| s.name.to_string());
        let stations: Vec<_> = stations.collect();
        let other = stations != *self.stations.borrow();
        *self.stations.borrow_mut() = stations;
        if self.apply_devices(&settings.device) || other {
            // Another hello: dial anew. The headend lets the older tunnel finish.
            for dialled in self.dialled.borrow().values() {
                dialled.renew();
            }
        }
        let mut dialled = self.dialled.borrow_mut();
        dialled.retain(|name, known| {
            let keep = settings.headend.iter().any(|h| h == known.settings());
            if !keep {
                info!(headend = name, "configured otherwise, or no longer");
                known.close();
                self.runtime.ledger.clear(Alarm::FallbackTransport, name);
                let successor = settings.headend.iter().any(|h| h.name == *name);
                self.retire_tunnels(name, successor);
            }
            keep
        });
        for headend in &settings.headend {
            if !dialled.contains_key(&headend.name) {
                let known = Dialled::new(headend.clone(), self.runtime.seed());
                tokio::task::spawn_local(dial::keep(self.clone(), known.clone()));
                dialled.insert(headend.name.clone(), known);
            }
        }
        Ok(())
    }

    fn rules_changed(&self) {
        for device in self.devices() {
            device.follow_policy(&self.runtime.posture.policy());
        }
        for (link, _) in self.tunnels.borrow().values() {
            link.policy_changed(self.runtime.posture.hash());
        }
    }

    fn judge_anew(&self) {
        for (_, handler) in self.tunnels.borrow().values() {
            handler.judge_anew();
        }
    }

    async fn reload(self: &Rc<Self>, before: &File, changed: &Changed) {
        let settings = self.runtime.settings();
        let includes = |file: &Option<PathBuf>| file.as_ref().is_some_and(|f| changed.includes(f));
        if settings.source() != before.source() || includes(&settings.policy) {
            self.watch_bundle();
        }
        if settings.bundle != before.bundle || includes(&settings.bundle.file) {
            self.offers.put(Offer::File);
        }
        // What signers vouched for that were not known then may be right now: headends offer it
        // anew on new tunnels.
        if settings.bundle.signers != before.bundle.signers || *changed == Changed::All {
            for dialled in self.dialled.borrow().values() {
                dialled.renew();
            }
        }
    }

    fn watch_windows(&self) {
        self.apply_due_bundle();
    }

    fn watch_dates(&self) {
        self.watch_headends();
        self.watch_transports();
        // Their certificates may have ended.
        self.sweep_devices();
    }

    /// Cuts every tunnel and device whose certificate this trust does not accept any more.
    fn sweep(&self) {
        self.sweep_devices();
        let trust = self.runtime.posture.trust();
        for (link, _) in self.tunnels.borrow().values() {
            if let Err(reason) = trust.still_trusts(&link.peer.chain, &link.peer.identity) {
                self.runtime.ledger.note(Record {
                    tunnel: Some(link.peer.identity.uri().into()),
                    reason: Some(reason.clone().into()),
                    ..Record::new(Kind::Revoked)
                });
                link.close(Close::NotTrusted, reason);
            }
        }
    }

    fn tell_checkpoint(&self, head: &Head) {
        for (link, _) in self.tunnels.borrow().values() {
            link.tell_checkpoint(head);
        }
    }

    async fn stop(&self, drain: Duration) {
        for dialled in self.dialled.borrow().values() {
            dialled.close();
        }
        for (link, _) in self.tunnels.borrow().values() {
            link.drain();
        }
        let drained = async {
            // A round trip for the headends to hear of it, then whatever is under way.
            sleep(Duration::from_millis(50)).await;
            while self.devices.borrow().iter().any(|d| d.under_way() > 0) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(drain, drained).await.is_err() {
            warn!("requests were still under way at the end of `drain`");
        }
        for (link, _) in self.tunnels.borrow().values() {
            link.close(Close::Shutdown, "the edge stops");
        }
        let gone = async {
            while !self.tunnels.borrow().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(Duration::from_secs(1), gone).await;
        udp::close(&self.endpoint).await;
    }
}

impl Edge {
    fn devices(&self) -> Vec<Rc<Device>> {
        self.devices.borrow().clone()
    }

    /// What this edge states first on every tunnel.
    fn hello(&self) -> Hello {
        let offer = |device: &Rc<Device>| DeviceOffer {
            name: device.name.to_string(),
            credit: device.config.credit(),
            answer_within: u32::try_from(device.config.answer_within.0.as_millis())
                .unwrap_or(u32::MAX),
            quirks: device.config.quirks.for_headend().bits(),
        };
        Hello {
            version: VERSION,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            instance: self.runtime.instance,
            policy: self.runtime.posture.hash(),
            trust: Some(self.runtime.posture.trust().list.hash()),
            bundle: self.runtime.posture.bundle().version(),
            tunnel: 0,
            devices: self.devices.borrow().iter().map(offer).collect(),
            stations: self.stations.borrow().clone(),
            cyclic: None,
        }
    }

    /// Ends the tunnels to a headend once what they have under way is answered. Those with a
    /// successor serve until it had time to take over.
    fn retire_tunnels(&self, headend: &str, successor: bool) {
        let devices = self.devices.borrow();
        let longest = devices.iter().map(|d| d.config.answer_within.0).max();
        for (link, _) in self.tunnels.borrow().values() {
            if link.peer.identity.name.as_str() == headend {
                let link = link.clone();
                tokio::task::spawn_local(async move {
                    if successor {
                        sleep(TAKE_OVER).await;
                    }
                    link.drain();
                    sleep(longest.unwrap_or_default()).await;
                    link.close(Close::Reconfigured, "the edge has another configuration");
                });
            }
        }
    }

    /// Keeps unchanged devices, replaces the others; whether there was anything to do.
    fn apply_devices(&self, configured: &[DeviceConfig]) -> bool {
        let old = self.devices.take();
        let same = old.iter().map(|device| &device.config).eq(configured);
        let new = configured.iter().map(|config| {
            let known = old.iter().find(|device| device.config == *config);
            let known = known.cloned();
            known.unwrap_or_else(|| Device::start(config.clone(), &self.runtime))
        });
        let new: Vec<_> = new.collect();
        // A hello has room for 256.
        for (place, device) in (0..).zip(&new) {
            device.place.set(place);
        }
        *self.devices.borrow_mut() = new;
        for device in &old {
            if !configured.contains(&device.config) {
                tokio::task::spawn_local(device.clone().retire());
            }
        }
        !same && !old.is_empty()
    }

    /// Reads key, certificate and trust list again. With another certificate it dials anew.
    async fn reload_trust(&self) {
        let state = &self.runtime.state;
        let Some(before) = self
            .runtime
            .posture
            .reload_trust(state, &self.runtime.ledger)
            .await
        else {
            return;
        };
        let after = self.runtime.posture.trust();
        self.trust_changed();
        if before.leaf != after.leaf {
            self.before_renewal.set(self.runtime.last_link());
            for dialled in self.dialled.borrow().values() {
                dialled.renew();
            }
        }
    }

    /// What a headend, or the CA, says of whom to trust. Nothing is taken that is not signed.
    fn take_trust(&self, offered: &TrustList, whole: bool) -> Result<(), String> {
        let state = &self.runtime.state;
        let taken = self
            .runtime
            .posture
            .take_trust(state, offered, whole, &self.runtime.ledger)?;
        if taken {
            self.trust_changed();
        }
        Ok(())
    }

    /// A tunnel came up; if it was dialled with the renewed certificate, that works.
    fn proven(&self, link: &Link) {
        let state = &self.runtime.state;
        self.runtime.posture.time_proven(state, link.peer.valid.1);
        if link.number > self.before_renewal.get() {
            self.runtime.unproven.proven(state);
        }
    }

    /// A headend's certificate expires under a live tunnel: a new one beside it, in time, goes by
    /// the certificate that the headend has got meanwhile.
    fn watch_headends(&self) {
        let now = self.runtime.posture.clock().steady();
        let tunnels = self.tunnels.borrow();
        for (link, _) in tunnels.values() {
            if link.has_expired(now) {
                link.close(Close::NotTrusted, "the headend's certificate has expired");
            }
        }
        for (name, dialled) in self.dialled.borrow().iter() {
            let mut own = tunnels
                .values()
                .filter(|(link, _)| link.peer.identity.name.as_str() == name);
            if own.any(|(link, _)| link.is_up() && link.expires_soon(now)) {
                dialled.renew_again();
            }
        }
    }

    /// Tunnels over TLS where QUIC is preferred: UDP does not get through, or is kept from it.
    fn watch_transports(&self) {
        let tunnels = self.tunnels.borrow();
        for (name, dialled) in self.dialled.borrow().iter() {
            if dialled.settings().transport != Transport::Auto {
                continue;
            }
            let to = |(link, _): &&(Rc<Link>, _)| link.peer.identity.name.as_str() == name;
            let mut live = tunnels.values().filter(to).filter(|(link, _)| link.is_up());
            let over =
                |transport| move |(link, _): &(Rc<Link>, _)| link.peer.transport == transport;
            let text = "the tunnel runs over TLS: QUIC does not get through; is UDP blocked on the \
                        way to the headend's port? `transport = \"tls\"` says that it is meant so";
            if live.clone().any(over(Carrier::Quic)) {
                self.runtime.ledger.clear(Alarm::FallbackTransport, name);
            } else if live.any(over(Carrier::Tls)) {
                self.runtime
                    .ledger
                    .raise(Alarm::FallbackTransport, name, text);
            }
        }
    }

    fn trust_changed(&self) {
        self.sweep();
        let hash = self.runtime.posture.trust().list.hash();
        for (link, _) in self.tunnels.borrow().values() {
            link.have_trust(hash);
        }
    }
}

impl Member for Edge {
    fn authority(&self) -> Option<(Vec<String>, Name)> {
        let settings = self.runtime.settings();
        let ca = &settings.ca;
        let mut addresses = ca.address.clone();
        if addresses.is_empty() {
            let headends = settings.headend.iter();
            addresses.extend(headends.flat_map(|headend| headend.address.iter().cloned()));
        }
        Some((addresses, ca.name.clone()))
    }

    fn take_list(&self, list: &TrustList) -> Result<(), String> {
        self.take_trust(list, true)
    }

    async fn identity_changed(&self) {
        self.reload_trust().await;
    }

    fn is_connected(&self) -> bool {
        let tunnels = self.tunnels.borrow();
        tunnels.values().any(|(link, _)| link.is_up())
    }
}

/// Lets writes go whose intent has reached the disk.
async fn release_durable(edge: Rc<Edge>) {
    let durable = Rc::new(Notify::new());
    edge.runtime.ledger.listen(durable.clone());
    loop {
        durable.notified().await;
        for device in edge.devices() {
            device.release_durable();
        }
    }
}
