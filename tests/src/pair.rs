//! PLC, edge, headend: a whole way from a client to a device.

use std::fmt;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use fieldlock_audit::Record;
use fieldlock_sim::Plc;
use fieldlock_testkit::modbus::{self, Client};
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::Directory;
use fieldlock_testkit::wire::Wire;
use serde_json::Value;

use crate::agent::{Agent, Role};
use crate::eventually;
use crate::host::Hosted;
use crate::site::Site;

/// Names that a pair uses where a test does not care.
pub const EDGE: &str = "press-07";
pub const HEADEND: &str = "hd-1";
pub const DEVICE: &str = "press-07";

/// Everything is allowed to everybody, broadcasts included.
pub const OPEN_POLICY: &str = r#"
syntax = 1
[[allow]]
name = "everything"
device = ["any"]
function = ["any"]
address = ["any"]
[[allow]]
name = "broadcast"
device = ["any"]
unit = [0]
function = ["any"]
address = ["any"]
"#;

pub const READ_ONLY_POLICY: &str = r#"
syntax = 1
[[allow]]
name = "reads"
device = ["any"]
function = ["read"]
address = ["any"]
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Auto,
    Quic,
    Tls,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Quic => "quic",
            Self::Tls => "tls",
        })
    }
}

/// How a [`Pair`] is to be; the default is an open policy and a well-behaved PLC.
#[derive(Debug, Clone)]
pub struct Setup {
    transport: Transport,
    edge_name: String,
    headend_name: String,
    wire: bool,
    plc: Option<SocketAddr>,
    answer_within: &'static str,
    modbus_tcp: String,
    device: String,
    modbus: Option<String>,
    edge: String,
    headend: String,
    edge_policy: String,
    headend_policy: String,
}

impl Setup {
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            edge_name: EDGE.to_owned(),
            headend_name: HEADEND.to_owned(),
            wire: false,
            plc: None,
            answer_within: "1s",
            modbus_tcp: String::new(),
            device: String::new(),
            modbus: None,
            edge: String::new(),
            headend: String::new(),
            edge_policy: OPEN_POLICY.to_owned(),
            headend_policy: OPEN_POLICY.to_owned(),
        }
    }

    /// Identities of the test's own, to be revoked for example.
    pub fn named(mut self, edge: &str, headend: &str) -> Self {
        self.edge_name = edge.to_owned();
        self.headend_name = headend.to_owned();
        self
    }

    /// A [`Wire`] between the agents, perfect at first.
    pub fn wire(mut self) -> Self {
        self.wire = true;
        self
    }

    /// A device of the test's own instead of the simulated PLC.
    pub fn plc(mut self, address: SocketAddr) -> Self {
        self.plc = Some(address);
        self
    }

    pub fn answer_within(mut self, span: &'static str) -> Self {
        self.answer_within = span;
        self
    }

    /// Keys of `modbus_tcp` beside the address: `"in_flight = 4, max_connections = 2"`.
    pub fn modbus_tcp(mut self, keys: &str) -> Self {
        self.modbus_tcp = format!(", {keys}");
        self
    }

    /// Lines of the edge's `[[device]]`, such as `queue = 8`.
    pub fn device(mut self, lines: &str) -> Self {
        self.device = lines.to_owned();
        self
    }

    /// A whole `modbus_rtu = {...}` (or another) line in place of `modbus_tcp`.
    pub fn modbus(mut self, line: &str) -> Self {
        self.modbus = Some(line.to_owned());
        self
    }

    /// Text at the end of edge.toml: more tables.
    pub fn edge(mut self, text: &str) -> Self {
        self.edge = text.to_owned();
        self
    }

    /// Text at the end of headend.toml: more tables.
    pub fn headend(mut self, text: &str) -> Self {
        self.headend = text.to_owned();
        self
    }

    /// One policy for both.
    pub fn policy(self, text: &str) -> Self {
        self.edge_policy(text).headend_policy(text)
    }

    pub fn edge_policy(mut self, text: &str) -> Self {
        self.edge_policy = text.to_owned();
        self
    }

    pub fn headend_policy(mut self, text: &str) -> Self {
        self.headend_policy = text.to_owned();
        self
    }

    /// Starts everything and waits until the tunnel is up.
    #[track_caller]
    pub fn up(self) -> Pair {
        let mut pair = self.prepare();
        pair.headend.start();
        // An edge that dials before anybody listens there loses its first packet, and goes by TLS.
        pair.headend.wait_ready();
        pair.edge.start();
        pair.wait_up();
        pair
    }

    /// Makes all the files and starts no agent.
    pub fn prepare(self) -> Pair {
        let directory = Directory::new().unwrap();
        let site = Site::shared();
        let own_plc = self.plc.is_none().then(|| Hosted::plc(0));
        let plc_address = self
            .plc
            .or(own_plc.as_ref().map(|plc| plc.address()))
            .unwrap();
        let tunnel = free_address().unwrap();
        let clients = free_address().unwrap();
        let wire = self.wire.then(|| Wire::start(tunnel).unwrap());
        let dialled = wire.as_ref().map_or(tunnel, Wire::address);
        let headend_config = self.headend_config(tunnel, clients);
        let edge_config = self.edge_config(dialled, plc_address);
        let headend = Agent::prepare(
            Role::Headend,
            &self.headend_name,
            directory.path(),
            &site.identity(Role::Headend, &self.headend_name),
            &headend_config,
            &self.headend_policy,
        );
        let edge = Agent::prepare(
            Role::Edge,
            &self.edge_name,
            directory.path(),
            &site.identity(Role::Edge, &self.edge_name),
            &edge_config,
            &self.edge_policy,
        );
        Pair {
            edge,
            headend,
            wire,
            plc: own_plc,
            edge_config,
            headend_config,
            tunnel,
            clients,
            plc_address,
            directory,
        }
    }

    fn headend_config(&self, tunnel: SocketAddr, clients: SocketAddr) -> String {
        let mut text = format!("[tunnel]\nlisten = [\"{tunnel}\"]\n[[device]]\n");
        writeln!(text, "name = \"{DEVICE}\"").unwrap();
        writeln!(text, "edge = \"{}\"", self.edge_name).unwrap();
        writeln!(text, "listen = \"{clients}\"").unwrap();
        text + &self.headend
    }

    fn edge_config(&self, dialled: SocketAddr, plc: SocketAddr) -> String {
        let modbus = match &self.modbus {
            Some(line) => line.clone(),
            None => format!("modbus_tcp = {{ address = \"{plc}\"{} }}", self.modbus_tcp),
        };
        format!(
            "[[headend]]\nname = \"{}\"\naddress = [\"{dialled}\"]\n\
             transport = \"{}\"\n[[device]]\nname = \"{DEVICE}\"\n\
             answer_within = \"{}\"\n{modbus}\n{}\n{}",
            self.headend_name, self.transport, self.answer_within, self.device, self.edge
        )
    }
}

/// A running pair. What fails ends the test with the logs of both agents.
#[derive(Debug)]
pub struct Pair {
    pub edge: Agent,
    pub headend: Agent,
    pub wire: Option<Wire>,
    /// The pair's own PLC, unless the test brought one.
    pub plc: Option<Hosted<Plc>>,
    /// The configurations as written, for tests that change them.
    pub edge_config: String,
    pub headend_config: String,
    /// Where the headend listens for edges.
    pub tunnel: SocketAddr,
    /// Where the headend listens for clients of [`DEVICE`].
    pub clients: SocketAddr,
    pub plc_address: SocketAddr,
    /// Last, so that the processes are gone before their files.
    pub directory: Directory,
}

impl Pair {
    /// Open policies, no wire.
    #[track_caller]
    pub fn up(transport: Transport) -> Self {
        Setup::new(transport).up()
    }

    /// Waits until both agents see the tunnel and the device.
    #[track_caller]
    pub fn wait_up(&mut self) {
        self.headend.wait_ready();
        self.edge.wait_ready();
        self.headend
            .wait_that("the device to be connected", device_connected);
        self.edge
            .wait_that("the tunnel", |edge| tunnel_of(edge).is_some());
    }

    /// Waits until a client's read comes back with registers: a headend takes an edge that was
    /// killed for alive until it has probed it, and its device for connected.
    #[track_caller]
    pub fn wait_served(&self) {
        eventually("a client to be served", || {
            let answer = self.client().request(1, &modbus::read(3, 0, 1));
            answer.is_ok_and(|answer| modbus::registers(&answer).is_some())
        });
    }

    /// A new connection of a client.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.clients).unwrap()
    }

    /// The same from another loopback address, for policies that tell clients apart.
    #[track_caller]
    pub fn client_from(&self, local: [u8; 4]) -> Client {
        Client::connect_from(IpAddr::from(local), self.clients).unwrap()
    }

    /// A connection straight to the device.
    #[track_caller]
    pub fn direct(&self) -> Client {
        Client::connect(self.plc_address).unwrap()
    }

    #[track_caller]
    pub fn wire(&self) -> &Wire {
        self.wire.as_ref().expect("a pair with a wire")
    }

    #[track_caller]
    pub fn plc(&self) -> &Plc {
        self.plc.as_ref().expect("a pair with its own PLC")
    }

    /// `quic` or `tls` while a tunnel is up, as the edge says.
    pub fn transport(&self) -> Option<String> {
        tunnel_of(&self.edge).map(|tunnel| tunnel["transport"].as_str().unwrap().to_owned())
    }

    pub fn is_connected(&self) -> bool {
        device_connected(&self.headend)
    }

    pub fn edge_audit(&self) -> Vec<Record> {
        self.edge.audit()
    }

    pub fn headend_audit(&self) -> Vec<Record> {
        self.headend.audit()
    }
}

fn device_connected(headend: &Agent) -> bool {
    let status = headend.try_status().unwrap_or_default();
    let devices = status["devices"].as_array();
    devices.is_some_and(|all| {
        let device = all.iter().find(|device| device["name"] == DEVICE);
        device.is_some_and(|device| device["connected"] == true)
    })
}

fn tunnel_of(edge: &Agent) -> Option<Value> {
    let status = edge.try_status()?;
    let headends = status["headends"].as_array()?;
    let tunnels = |headend: &Value| headend["tunnels"].as_array()?.first().cloned();
    headends.iter().find_map(tunnels)
}
