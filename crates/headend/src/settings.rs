//! `headend.toml`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldlock_conduit::client::{Routes, Target};
use fieldlock_pki::{Name, Role};
use fieldlock_policy::{Known, Policy, Strangers};
use fieldlock_sandbox::Needs;
use fieldlock_session::Hello;
use serde::Deserialize;

use fieldlock_agent::runtime::{Settings, Shared};
use fieldlock_agent::sandbox::changed;
use fieldlock_agent::settings::audit::Audit;
use fieldlock_agent::settings::checks::Checks;
use fieldlock_agent::settings::monitor::{self, Monitor};
use fieldlock_agent::settings::profinet::{self, Controller, Profinet, Station};
use fieldlock_agent::settings::{
    Configuration, MinimumTls, SettingsError, Span, Trust, check_refuse_repeats_for,
    default_refuse_repeats_for, load, on,
};
use fieldlock_agent::source::Source;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Key, certificate, CRLs, audit log, control socket.
    pub state: PathBuf,
    pub policy: PathBuf,
    /// Policy bundles to be carried to edges.
    #[serde(default)]
    pub bundle: Bundle,
    #[serde(default)]
    pub trust: Trust,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    pub tunnel: Tunnel,
    /// Where certificates come from; without it no connection is passed on to a CA.
    pub ca: Option<Authority>,
    #[serde(default)]
    pub device: Vec<Device>,
    #[serde(default)]
    pub listener: Vec<Listener>,
    pub profinet: Option<Profinet>,
    #[serde(default)]
    pub station: Vec<Station>,
    #[serde(default)]
    pub controller: Vec<Controller>,
    #[serde(default)]
    pub client: Clients,
    #[serde(default)]
    pub mbaps: Mbaps,
    /// Where a monitoring system may ask; nowhere by default.
    pub monitor: Option<Monitor>,
    /// Whether the agent confines itself to what its work needs.
    #[serde(default = "on")]
    pub sandbox: bool,
    /// Whether what crosses is told to whoever looks on.
    #[serde(default)]
    pub observe: bool,
    /// How long SIGTERM lets requests under way finish.
    #[serde(default = "default_drain")]
    pub drain: Span,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Bundles, as `policy sign` made them. Each edge gets the highest version that is for it.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// UDP and TCP on the same port.
    #[serde(default = "default_listen")]
    pub listen: Vec<SocketAddr>,
    /// Handshakes under way at once; who comes beyond is asked to come back.
    #[serde(default = "default_handshakes")]
    pub max_handshakes: usize,
    /// Of these, from one address (IPv6: from one /64).
    #[serde(default = "default_handshakes_per_address")]
    pub max_handshakes_per_address: usize,
    /// Handshakes that begin within a second: each costs about 1 ms of the processor that serves
    /// live tunnels.
    #[serde(default = "default_handshake_rate")]
    pub handshake_rate: u32,
    /// Of these, from one address.
    #[serde(default = "default_handshake_rate_per_address")]
    pub handshake_rate_per_address: u32,
    /// Tunnels at once.
    #[serde(default = "default_tunnels")]
    pub max_tunnels: usize,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            listen: default_listen(),
            max_handshakes: default_handshakes(),
            max_handshakes_per_address: default_handshakes_per_address(),
            handshake_rate: default_handshake_rate(),
            handshake_rate_per_address: default_handshake_rate_per_address(),
            max_tunnels: default_tunnels(),
        }
    }
}

/// The CA, and how much may go to it through this headend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// `HOST:PORT` of `ca serve`.
    pub address: String,
    /// NAME in its certificate.
    #[serde(default = "Name::ca")]
    pub name: Name,
    /// Where every connection is for the CA, whatever it offers: for clients without ALPN, which
    /// can't be told from edges at the port of the tunnels.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// Connections passed on at once.
    #[serde(default = "default_ca_connections")]
    pub max_connections: usize,
    /// And from one address.
    #[serde(default = "default_ca_connections_per_address")]
    pub max_connections_per_address: usize,
    /// New ones from one address within a minute.
    #[serde(default = "default_ca_new")]
    pub new_per_minute: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    /// Name of the edge that may offer it; the device's own by default.
    pub edge: Option<String>,
    /// Where clients of this device connect: all its units, as they are.
    pub listen: Option<SocketAddr>,
    /// The same for clients that speak MBAPS.
    pub listen_mbaps: Option<SocketAddr>,
}

impl Device {
    pub fn edge(&self) -> &str {
        self.edge.as_deref().unwrap_or(&self.name)
    }
}

/// One address for several devices, told apart by unit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub address: SocketAddr,
    /// Clients speak MBAPS here.
    #[serde(default)]
    pub mbaps: bool,
    pub unit: Vec<UnitMap>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitMap {
    /// What the client uses.
    pub unit: u8,
    pub device: String,
    /// What the device hears; the same by default.
    pub device_unit: Option<u8>,
}

/// Clients that speak Modbus/TCP Security.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mbaps {
    pub tls: MinimumTls,
}

/// An address where clients connect, and what is behind it.
#[derive(Debug)]
pub struct Entrance {
    pub address: SocketAddr,
    pub mbaps: bool,
    /// Where its units lead.
    pub routes: Routes,
}

/// Limits for Modbus clients.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clients {
    /// Connections at once, on all listeners.
    pub max_connections: usize,
    /// And from one address.
    pub max_connections_per_address: usize,
    /// Requests without an answer on one connection.
    pub in_flight: usize,
    /// A connection without a request for this long makes room when no place is left; one with a
    /// part of a request, or that does not read its answers, is closed.
    pub idle_timeout: Span,
    /// How long the same write of a client is not sent again after one whose outcome it does not know.
    pub refuse_repeats_for: Span,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_connections_per_address: 1024,
            in_flight: 16,
            idle_timeout: Span::from_millis(300_000),
            refuse_repeats_for: default_refuse_repeats_for(),
        }
    }
}

impl File {
    /// Reads `file`, merges the environment over it and checks what belongs together.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        load(file)
    }

    fn doors(&self) -> &[SocketAddr] {
        self.ca.as_ref().map_or(&[], |ca| &ca.listen)
    }
}

impl Settings for File {
    const ROLE: Role = Role::Headend;

    fn shared(&self) -> Shared<'_> {
        Shared {
            state: &self.state,
            policy: Some(&self.policy),
            trust: self.trust,
            audit: &self.audit,
            profinet: self.profinet.as_ref(),
            stations: &self.station,
            controllers: &self.controller,
            monitor: self.monitor.as_ref(),
            sandbox: self.sandbox,
            observe: self.observe,
            drain: self.drain.0,
        }
    }

    fn source(&self) -> Source {
        Source::file(self.policy.clone())
    }

    fn strangers(&self, policy: &Policy) -> Vec<Strangers> {
        let devices: Vec<&str> = self.device.iter().map(|d| d.name.as_str()).collect();
        let stations: Vec<&str> = self.station.iter().map(|s| s.name.as_str()).collect();
        policy.strangers(&Known {
            devices: &devices,
            stations: &stations,
            headends: None,
        })
    }

    fn watched(&self) -> Vec<PathBuf> {
        self.bundle.files.clone()
    }

    fn needs(&self, file: &Path) -> Needs {
        let bundles = self.bundle.files.iter().cloned();
        Needs {
            change: changed(&self.state),
            read: bundles
                .chain([file.to_owned(), self.policy.clone()])
                .collect(),
            ..Needs::default()
        }
    }

    fn fixed(&self, old: &Self) -> Vec<&'static str> {
        let keys = [
            ("`tunnel.listen`", self.tunnel.listen != old.tunnel.listen),
            ("`ca.listen`", self.doors() != old.doors()),
        ];
        let keys = keys.into_iter().filter(|(_, differs)| *differs);
        keys.map(|(key, _)| key).collect()
    }
}

impl Configuration for File {
    const LISTS: &'static [&'static str] = &[
        "tunnel.listen",
        "ca.listen",
        "bundle.files",
        "monitor.names",
    ];

    fn files(&self) -> Vec<(&'static str, &Path)> {
        vec![("policy", &self.policy)]
    }

    fn resolve(&mut self, folder: &Path) {
        let own = [&mut self.state, &mut self.policy];
        for path in own.into_iter().chain(&mut self.bundle.files) {
            *path = folder.join(&*path);
        }
    }

    fn check(&self, file: &Checks<'_>) {
        file.at_table("tunnel");
        file.ensure(!self.tunnel.listen.is_empty(), || {
            "tunnel: `listen` is empty: edges have nowhere to dial".into()
        });
        let tunnel = &self.tunnel;
        let handshakes = [tunnel.max_handshakes, tunnel.max_handshakes_per_address];
        let rates = [tunnel.handshake_rate, tunnel.handshake_rate_per_address];
        let some = !handshakes.contains(&0) && !rates.contains(&0);
        file.ensure(some, || {
            "tunnel: `max_handshakes`, `handshake_rate` and those per address must be at least 1: \
             without a handshake no edge gets in"
                .into()
        });
        self.audit.check(file);
        monitor::check_headend(file, self.monitor.as_ref());
        if let Some(ca) = &self.ca {
            file.at_table("ca");
            let port = ca
                .address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            file.ensure(matches!(port, Some(Ok(1..))), || {
                format!("ca: `address` \"{}\" is not HOST:PORT", ca.address)
            });
            let both = ca
                .listen
                .iter()
                .find(|own| self.tunnel.listen.contains(own));
            file.ensure(both.is_none(), || {
                "ca: `listen` and tunnel.listen have an address in common: give the CA's clients one of \
                 their own"
                    .into()
            });
        }
        let mut addresses = HashSet::new();
        let mut names = HashSet::new();
        for (index, device) in self.device.iter().enumerate() {
            file.at("device", index);
            let name = &device.name;
            for checked in [name.as_str(), device.edge()] {
                let valid = checked.parse::<Name>();
                file.ensure(valid.is_ok(), || {
                    format!("device `{name}`: `{checked}` is not a name (a-z, 0-9, inner hyphens)")
                });
            }
            file.ensure(names.insert(name.as_str()), || {
                format!("duplicate device `{name}`")
            });
            for address in [device.listen, device.listen_mbaps].into_iter().flatten() {
                let free = address.port() == 0 || addresses.insert(address);
                file.ensure(free, || {
                    format!("device `{name}`: another device or listener has its address {address}")
                });
            }
        }
        for (index, listener) in self.listener.iter().enumerate() {
            file.at("listener", index);
            let address = listener.address;
            file.ensure(address.port() == 0 || addresses.insert(address), || {
                format!("listener {address}: another device or listener has its address")
            });
            let mut units = HashSet::new();
            for map in &listener.unit {
                let (unit, device) = (map.unit, &map.device);
                file.ensure(names.contains(device.as_str()), || {
                    format!("listener {address}, unit {unit}: there is no device `{device}`")
                });
                file.ensure(units.insert(unit), || {
                    format!("listener {address}: duplicate unit {unit}")
                });
            }
        }
        profinet::check(file, self.profinet.as_ref(), &self.station);
        profinet::check_headend(file, &self.station, &self.controller);
        file.at_table("client");
        file.ensure(self.client.in_flight > 0, || {
            "client: `in_flight` must be at least 1".into()
        });
        check_refuse_repeats_for(file, "client", self.client.refuse_repeats_for);
    }
}

impl File {
    /// Which edge may offer what.
    pub fn bindings(&self) -> Bindings {
        let devices = self.device.iter();
        let stations = self.station.iter();
        Bindings {
            devices: devices
                .map(|d| (d.name.clone(), d.edge().to_owned()))
                .collect(),
            stations: stations
                .map(|s| (s.name.as_str().to_owned(), s.edge().to_owned()))
                .collect(),
        }
    }

    /// Every address where clients connect. `names` are all devices that this headend knows; a
    /// device's place in it is its number.
    pub fn entrances(&self, names: &Arc<[Arc<str>]>) -> Vec<Entrance> {
        let places: HashMap<&str, usize> = names.iter().map(|name| &**name).zip(0..).collect();
        let place = |name: &str| places.get(name).copied();
        let own = self.device.iter().flat_map(|device| {
            let ways = [(device.listen, false), (device.listen_mbaps, true)];
            let place = place(&device.name);
            ways.into_iter().filter_map(move |(address, mbaps)| {
                Some(Entrance {
                    address: address?,
                    mbaps,
                    routes: Routes::all_units(place?, names),
                })
            })
        });
        let shared = self.listener.iter().map(|listener| {
            let units = listener.unit.iter().filter_map(|map| {
                let device = place(&map.device)?;
                let unit = map.device_unit.unwrap_or(map.unit);
                Some((map.unit, Target { device, unit }))
            });
            Entrance {
                address: listener.address,
                mbaps: listener.mbaps,
                routes: Routes::by_unit(units, names),
            }
        });
        own.chain(shared).collect()
    }
}

/// The edge that each device and station is bound to, by name.
#[derive(Debug, Default)]
pub struct Bindings {
    devices: HashMap<String, String>,
    stations: HashMap<String, String>,
}

impl Bindings {
    /// What `hello` offers and is not bound to `edge`.
    pub fn unbound(&self, edge: &str, hello: &Hello) -> Option<String> {
        let lacks = |known: &HashMap<String, String>, name: &str| {
            known.get(name).is_none_or(|bound| bound != edge)
        };
        let lost = hello
            .devices
            .iter()
            .find(|offer| lacks(&self.devices, &offer.name));
        if let Some(offer) = lost {
            return Some(format!("device `{}`", offer.name));
        }
        let lost = hello
            .stations
            .iter()
            .find(|name| lacks(&self.stations, name));
        lost.map(|name| format!("station `{name}`"))
    }
}

fn default_listen() -> Vec<SocketAddr> {
    vec![SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 4433))]
}

fn default_handshakes() -> usize {
    256
}

/// A fleet may stand behind one address, and no address may keep all others out.
fn default_handshakes_per_address() -> usize {
    128
}

fn default_handshake_rate() -> u32 {
    400
}

fn default_handshake_rate_per_address() -> u32 {
    200
}

fn default_tunnels() -> usize {
    16_384
}

fn default_ca_connections() -> usize {
    256
}

fn default_ca_connections_per_address() -> usize {
    16
}

fn default_ca_new() -> usize {
    60
}

fn default_drain() -> Span {
    Span::from_millis(5_000)
}

#[cfg(test)]
mod tests;
