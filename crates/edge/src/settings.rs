//! `edge.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldlock_modbus::quirk::Framing;
use fieldlock_modbus::{Quirk, Quirks};
use fieldlock_pki::{Name, Role};
use fieldlock_policy::{Known, Policy, Strangers};
use fieldlock_sandbox::Needs;
use fieldlock_session::hello::{MAX_ANSWER_WITHIN, MAX_CREDIT, MAX_DEVICES};
use fieldlock_signed::PublicKey;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use fieldlock_agent::runtime::{Settings, Shared};
use fieldlock_agent::sandbox::changed;
use fieldlock_agent::settings::audit::Audit;
use fieldlock_agent::settings::checks::Checks;
use fieldlock_agent::settings::monitor::{self, Monitor};
use fieldlock_agent::settings::profinet::{self, Profinet, Station};
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
    /// The policy; what narrows the bundle, where signers of bundles are pinned.
    pub policy: Option<PathBuf>,
    /// Policy bundles.
    #[serde(default)]
    pub bundle: Bundle,
    #[serde(default)]
    pub trust: Trust,
    #[serde(default)]
    pub audit: Audit,
    /// Where certificates are renewed; through the headends, where it is not set.
    #[serde(default)]
    pub ca: Authority,
    #[serde(default)]
    pub headend: Vec<Headend>,
    #[serde(default)]
    pub device: Vec<Device>,
    pub profinet: Option<Profinet>,
    #[serde(default)]
    pub station: Vec<Station>,
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

/// Whose policy bundles this edge takes; none by default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Public keys, as `policy key` prints them.
    #[serde(default)]
    pub signers: Vec<PublicKey>,
    /// A bundle that somebody brings; headends bring them as well.
    pub file: Option<PathBuf>,
}

/// The CA.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// `HOST:PORT`, tried in turn; the addresses of the headends where there is none.
    #[serde(default)]
    pub address: Vec<String>,
    /// NAME in its certificate.
    #[serde(default = "Name::ca")]
    pub name: Name,
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            address: Vec::new(),
            name: Name::ca(),
        }
    }
}

/// A headend to dial.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Headend {
    /// NAME of its certificate `spiffe://SITE/headend/NAME`.
    pub name: String,
    /// `host:port`, tried like happy eyeballs.
    pub address: Vec<String>,
    #[serde(default)]
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// QUIC, TLS over TCP where that does not get through.
    #[default]
    Auto,
    Quic,
    Tls,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    /// Time within which a client gets an answer, if need be a gateway exception.
    #[serde(default = "default_answer_within")]
    pub answer_within: Span,
    /// How long a request may keep those of other units from being sent; half of `answer_within` by
    /// default.
    response_timeout: Option<Span>,
    /// For how long at most a unit that stays silent while others answer is not asked; zero: it
    /// always is.
    #[serde(default = "default_unit_hold_off")]
    pub unit_hold_off: Span,
    /// How long the same write of a client is not sent again after one whose outcome it does not know.
    #[serde(default = "default_refuse_repeats_for")]
    pub refuse_repeats_for: Span,
    /// Requests that may wait for the device, all clients together.
    #[serde(default = "default_queue")]
    pub queue: u16,
    /// And those of one client.
    #[serde(default = "default_queue_per_client")]
    pub queue_per_client: u16,
    /// Clients that wait for the same read share one.
    #[serde(default = "yes")]
    pub shared_reads: bool,
    /// In which ways its answers may deviate from the specification; none by default.
    #[serde(default, deserialize_with = "quirks")]
    pub quirks: Quirks,
    /// Whether the edge connects when it starts, and not when the first request comes. Nothing is asked.
    #[serde(default = "yes")]
    pub connect_at_start: bool,
    pub modbus_tcp: Option<ModbusTcp>,
    pub modbus_rtu: Option<ModbusRtu>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModbusTcp {
    /// `host:port` of the device.
    pub address: String,
    /// Many devices serve very few connections and close the oldest when full.
    #[serde(default = "one")]
    pub max_connections: u16,
    /// Requests at once on one connection.
    #[serde(default = "one")]
    pub in_flight: u16,
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    #[serde(default = "zero")]
    pub pause_after_connect: Span,
    #[serde(default = "zero")]
    pub pause_between_requests: Span,
    /// Closes a connection that nobody has used for this long; never by default.
    pub idle_close: Option<Span>,
    /// The device speaks Modbus/TCP Security.
    pub mbaps: Option<Mbaps>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mbaps {
    /// NAME in the device's certificate `spiffe://SITE/device/NAME`; the device's own by default.
    pub name: Option<Name>,
    #[serde(default)]
    pub tls: MinimumTls,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModbusRtu {
    /// The serial device; a by-id link survives unplugging.
    pub path: PathBuf,
    #[serde(default = "default_baud")]
    pub baud: u32,
    #[serde(default)]
    pub parity: Parity,
    /// 1 with parity, 2 without, as the specification wants, where not set.
    pub stop_bits: Option<u8>,
    /// Silence that ends an answer of unknown length.
    #[serde(default = "default_frame_gap")]
    pub frame_gap: Span,
    /// Silence after a broadcast, and after a time-out.
    #[serde(default = "default_turnaround")]
    pub turnaround: Span,
    #[serde(default = "zero")]
    pub pause_between_requests: Span,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    #[default]
    Even,
    Odd,
    None,
}

impl File {
    /// Reads `file`, merges the environment over it and checks what belongs together.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        load(file)
    }
}

impl Settings for File {
    const ROLE: Role = Role::Edge;

    fn shared(&self) -> Shared<'_> {
        Shared {
            state: &self.state,
            policy: self.policy.as_deref(),
            trust: self.trust,
            audit: &self.audit,
            profinet: self.profinet.as_ref(),
            stations: &self.station,
            controllers: &[],
            monitor: self.monitor.as_ref(),
            sandbox: self.sandbox,
            observe: self.observe,
            drain: self.drain.0,
        }
    }

    fn source(&self) -> Source {
        Source {
            file: self.policy.clone(),
            signers: self.bundle.signers.clone(),
        }
    }

    fn strangers(&self, policy: &Policy) -> Vec<Strangers> {
        let devices: Vec<&str> = self.device.iter().map(|d| d.name.as_str()).collect();
        let stations: Vec<&str> = self.station.iter().map(|s| s.name.as_str()).collect();
        let headends: Vec<&str> = self.headend.iter().map(|h| h.name.as_str()).collect();
        policy.strangers(&Known {
            devices: &devices,
            stations: &stations,
            headends: Some(&headends),
        })
    }

    fn watched(&self) -> Vec<PathBuf> {
        self.bundle.file.iter().cloned().collect()
    }

    fn needs(&self, file: &Path) -> Needs {
        let read = [self.policy.as_ref(), self.bundle.file.as_ref()];
        let read = read.into_iter().flatten().cloned();
        let serial = self.device.iter().filter_map(|d| d.modbus_rtu.as_ref());
        Needs {
            change: changed(&self.state),
            read: read.chain([file.to_owned()]).collect(),
            serial: serial.map(|rtu| rtu.path.clone()).collect(),
            // An edge listens for nobody but, on its own machine, who monitors it.
            ports: Some(self.monitor.iter().map(|m| m.listen.port()).collect()),
        }
    }

    fn fixed(&self, _: &Self) -> Vec<&'static str> {
        Vec::new()
    }
}

impl Configuration for File {
    const LISTS: &'static [&'static str] = &["ca.address", "bundle.signers", "monitor.names"];

    fn files(&self) -> Vec<(&'static str, &Path)> {
        let policy = self.policy.as_deref();
        policy
            .map(|policy| ("policy", policy))
            .into_iter()
            .collect()
    }

    fn resolve(&mut self, folder: &Path) {
        let lines = self.device.iter_mut().filter_map(|d| d.modbus_rtu.as_mut());
        let paths = [&mut self.state].into_iter();
        let paths = paths.chain(&mut self.policy).chain(&mut self.bundle.file);
        for path in paths.chain(lines.map(|line| &mut line.path)) {
            *path = folder.join(&*path);
        }
    }

    fn check(&self, file: &Checks<'_>) {
        file.at("", 0);
        file.ensure(!self.headend.is_empty(), || {
            "no [[headend]]: an edge needs at least one to dial".into()
        });
        file.ensure(
            self.policy.is_some() || !self.bundle.signers.is_empty(),
            || {
                "no `policy`: name the policy file, or pin the `signers` of bundles in [bundle]"
                    .into()
            },
        );
        file.ensure(self.bundle.file.is_none() || !self.bundle.signers.is_empty(),
            || {
                "[bundle] has a `file` and no `signers`: pin the keys that `fieldlock policy key` printed".into()
            },
        );
        self.audit.check(file);
        monitor::check_edge(file, self.monitor.as_ref());
        file.at("", 0);
        let empty = self.device.is_empty() && self.station.is_empty();
        file.ensure(!empty, || {
            "no [[device]] and no [[station]]: this edge has nothing to offer".into()
        });
        profinet::check(file, self.profinet.as_ref(), &self.station);
        profinet::check_edge(file, &self.station);
        file.at("", 0);
        file.ensure(self.device.len() <= MAX_DEVICES, || {
            format!(
                "{} devices, allowed {MAX_DEVICES}: run a second edge with an identity of its own",
                self.device.len()
            )
        });
        for (index, headend) in self.headend.iter().enumerate() {
            file.at("headend", index);
            let name = &headend.name;
            let repeated = self.headend[..index].iter().any(|h| h.name == *name);
            file.ensure(!repeated, || format!("duplicate headend `{name}`"));
            check_name(file, "headend", name);
            file.ensure(!headend.address.is_empty(), || {
                format!("headend `{name}`: `address` is empty")
            });
            for address in &headend.address {
                check_address(file, &format!("headend `{name}`"), address);
            }
        }
        for (index, device) in self.device.iter().enumerate() {
            file.at("device", index);
            let name = &device.name;
            let repeated = self.device[..index].iter().any(|d| d.name == *name);
            file.ensure(!repeated, || format!("duplicate device `{name}`"));
            device.check(file);
        }
    }
}

impl Device {
    fn check(&self, file: &Checks<'_>) {
        let name = &self.name;
        check_name(file, "device", name);
        let ways = [self.modbus_tcp.is_some(), self.modbus_rtu.is_some()];
        file.ensure(ways.iter().filter(|way| **way).count() == 1, || {
            format!("device `{name}`: give exactly one of `modbus_tcp` and `modbus_rtu`")
        });
        let within = self.answer_within.0.as_millis();
        file.ensure((1..=MAX_ANSWER_WITHIN.into()).contains(&within), || {
            format!(
                "device `{name}`: `answer_within` is 1ms to {} s",
                MAX_ANSWER_WITHIN / 1000
            )
        });
        file.ensure(
            self.response_timeout() <= self.answer_within.0 && !self.response_timeout().is_zero(),
            || {
                format!(
                    "device `{name}`: `response_timeout` is 1ms to `answer_within` ({:?})",
                    self.answer_within
                )
            },
        );
        check_refuse_repeats_for(file, &format!("device `{name}`"), self.refuse_repeats_for);
        file.ensure(self.credit() <= MAX_CREDIT, || {
            format!(
                "device `{name}`: `queue` and `max_connections` times `in_flight` come to {}, \
                 allowed {MAX_CREDIT}",
                self.credit()
            )
        });
        let queues = self.queue > 0 && self.queue_per_client > 0;
        file.ensure(queues, || {
            format!("device `{name}`: `queue` and `queue_per_client` must be at least 1")
        });
        if let Some(tcp) = &self.modbus_tcp {
            check_address(file, &format!("device `{name}`"), &tcp.address);
            let counts = tcp.max_connections > 0 && tcp.in_flight > 0;
            file.ensure(counts, || {
                format!("device `{name}`: `max_connections` and `in_flight` must be at least 1")
            });
            let pause = tcp.pause_after_connect;
            file.ensure(pause.0 <= self.answer_within.0 / 2, || {
                format!(
                    "device `{name}`: the first request after a connect can't be answered in time: \
                     `pause_after_connect` is {pause:?}, and `answer_within` {:?}; make `answer_within` \
                     at least twice the pause",
                    self.answer_within
                )
            });
        }
        self.check_quirks(file);
        if let Some(rtu) = &self.modbus_rtu {
            file.ensure((300..=4_000_000).contains(&rtu.baud), || {
                format!(
                    "device `{name}`: `baud` {} is outside 300 to 4000000",
                    rtu.baud
                )
            });
            file.ensure(matches!(rtu.stop_bits, None | Some(1 | 2)), || {
                format!("device `{name}`: `stop_bits` is 1 or 2")
            });
        }
    }

    pub fn response_timeout(&self) -> Duration {
        let given = self.response_timeout.map(|span| span.0);
        given.unwrap_or(self.answer_within.0 / 2)
    }

    fn check_quirks(&self, file: &Checks<'_>) {
        let name = &self.name;
        for quirk in self.quirks.iter() {
            let (fits, way) = match quirk.is_of() {
                Some(Framing::Tcp) => (self.modbus_tcp.is_some(), "modbus_tcp"),
                Some(Framing::Rtu) => (self.modbus_rtu.is_some(), "modbus_rtu"),
                None => continue,
            };
            file.ensure(fits, || {
                format!("device `{name}`: quirk `{quirk}` is one of `{way}`")
            });
        }
        let in_flight = self.modbus_tcp.as_ref().map_or(1, |tcp| tcp.in_flight);
        for (quirk, most) in [
            (Quirk::TransactionIdZero, 1),
            (Quirk::TransactionIdLowByte, 256),
        ] {
            let told = !self.quirks.contains(quirk) || in_flight <= most;
            file.ensure(told, || {
                format!(
                    "device `{name}`: with quirk `{quirk}` at most {most} answers can be told \
                     apart, and `in_flight` is {in_flight}"
                )
            });
        }
    }

    /// Requests that may be under way at once, waiting or with the device.
    pub fn credit(&self) -> u16 {
        let flying = self
            .modbus_tcp
            .as_ref()
            .map_or(1, |tcp| tcp.max_connections.saturating_mul(tcp.in_flight));
        self.queue.saturating_add(flying)
    }
}

const QUIRKS: [&str; Quirk::ALL.len()] = {
    let mut names = [""; Quirk::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Quirk::ALL[at].name();
        at += 1;
    }
    names
};

fn quirks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Quirks, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let quirk = |name: &String| {
        let quirk = Quirk::ALL.into_iter().find(|quirk| quirk.name() == name);
        quirk.ok_or_else(|| D::Error::unknown_variant(name, &QUIRKS))
    };
    names.iter().map(quirk).collect()
}

fn check_address(file: &Checks<'_>, whose: &str, address: &str) {
    let port = address
        .rsplit_once(':')
        .map(|(_, port)| port.parse::<u16>());
    file.ensure(matches!(port, Some(Ok(1..))), || {
        format!("{whose}: `address` {address} is not host:port (IPv6 as \"[2001:db8::1]:502\")")
    })
}

fn check_name(file: &Checks<'_>, what: &str, name: &str) {
    if let Err(error) = name.parse::<Name>() {
        file.ensure(false, || format!("{what} `{name}`: {error}"));
    }
}

fn one() -> u16 {
    1
}

fn yes() -> bool {
    true
}

fn zero() -> Span {
    Span::from_millis(0)
}

fn default_drain() -> Span {
    Span::from_millis(5_000)
}

fn default_answer_within() -> Span {
    Span::from_millis(1_000)
}

fn default_unit_hold_off() -> Span {
    Span::from_millis(16_000)
}

fn default_queue() -> u16 {
    64
}

fn default_queue_per_client() -> u16 {
    16
}

fn default_connect_timeout() -> Span {
    Span::from_millis(2_000)
}

fn default_baud() -> u32 {
    19_200
}

fn default_frame_gap() -> Span {
    Span::from_millis(20)
}

fn default_turnaround() -> Span {
    Span::from_millis(100)
}

#[cfg(test)]
mod tests;
