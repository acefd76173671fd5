//! The namespaces, and the processes in them.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_rawsock::Namespace;
use fieldlock_testkit::process::{Directory, Process};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::load::Plan;
use super::plc::Plc;
use crate::clock::Settable;
use crate::rig::{ip, within};
use crate::tmpfs::Tmpfs;
use crate::{Agent, DEVICE, EDGE, OPEN_POLICY, Role, SOON, Site, Transport, binary, eventually};

pub const WEST: &str = "10.77.0.1";
/// Where a headend may move to.
pub const ELSEWHERE: &str = "10.77.0.3";
const EAST: &str = "10.77.0.2";
/// Where the edge may move to.
const EAST_TOO: &str = "10.77.0.9";
/// By this name the edge knows the first headend; it stands in a hosts file of the edge's own.
const NAME: &str = "hd-1.dmz.example";
const PLC: &str = "10.78.0.2:502";
/// KiB of an audit log where disks are to be full: enough for all that a trial records, so that they are
/// full only when they are filled.
const LOG: u32 = 32 << 10;
const CLIENTS: [u16; 2] = [5021, 5022];

/// How a field is to be.
#[derive(Debug, Clone)]
pub struct Setup {
    pub transport: Transport,
    /// One or two.
    pub headends: usize,
    /// Options of the wire, from before the agents start.
    pub wire: String,
    pub seed: u64,
    /// The agents' clocks can be set.
    pub clocks: bool,
    /// Their audit logs are on small disks.
    pub disks: bool,
    /// Text at the end of the agents' files.
    pub headend_more: String,
    pub edge_more: String,
}

impl Setup {
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            headends: 1,
            wire: String::new(),
            seed: 1,
            clocks: false,
            disks: false,
            headend_more: String::new(),
            edge_more: String::new(),
        }
    }
}

/// See [`super`]. All of it ends when this is dropped.
#[derive(Debug)]
pub struct Field {
    pub headends: Vec<Agent>,
    pub edge: Agent,
    pub plc: Plc,
    pub clocks: Vec<Settable>,
    pub disks: Vec<Tmpfs>,
    /// Connections that do nothing but be there.
    pub idle: Vec<TcpStream>,
    wire: Process,
    /// Where the wire reads its options, and the edge its hosts.
    options: PathBuf,
    hosts: PathBuf,
    transport: Transport,
    west: Namespace,
    east: Namespace,
    beyond: Arc<Namespace>,
    limits: Vec<(u32, Resource, Rlimit)>,
    pub directory: Directory,
}

impl Field {
    /// Everything but the tunnel: [`Field::wait_up`] waits for that.
    pub fn start(setup: &Setup) -> Self {
        let [west, east, beyond] = [(); 3].map(|()| Namespace::create().unwrap());
        for namespace in [&west, &east, &beyond] {
            within(namespace, || {
                fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
                ip("link set lo up");
            });
        }
        let directory = Directory::new().unwrap();
        let options = directory.write("wire.options", &setup.wire).unwrap();
        let wire = wire(&west, &east, &options, setup.seed, &directory);
        for (namespace, address) in [(&west, WEST), (&east, EAST)] {
            within(namespace, || {
                ip("link set wan up");
                ip(&format!("addr add {address}/24 dev wan"));
            });
        }
        within(&east, || {
            let far = beyond.path();
            let far = far.display();
            ip(&format!(
                "link add eth0 type veth peer name eth0 netns {far}"
            ));
            ip("link set eth0 up");
            ip("addr add 10.78.0.1/24 dev eth0");
        });
        within(&beyond, || {
            ip("link set eth0 up");
            ip("addr add 10.78.0.2/24 dev eth0");
        });
        let hosts = hosts_of(WEST);
        let hosts = directory.write("hosts", &hosts).unwrap();
        let beyond = Arc::new(beyond);
        let plc = Plc::start(
            beyond.clone(),
            PLC.parse().unwrap(),
            Duration::from_millis(3),
        );
        let headends = (0..setup.headends)
            .map(|number| headend(setup, number, &directory))
            .collect();
        let edge = edge(setup, &directory);
        let mut field = Self {
            headends,
            edge,
            plc,
            clocks: Vec::new(),
            disks: Vec::new(),
            idle: Vec::new(),
            wire,
            options,
            hosts,
            transport: setup.transport,
            west,
            east,
            beyond,
            limits: Vec::new(),
            directory,
        };
        if setup.clocks {
            let agents = field.headends.iter_mut().chain([&mut field.edge]);
            field.clocks = agents.map(Settable::of).collect();
        }
        if setup.disks {
            let agents = field.headends.iter().chain([&field.edge]);
            let disk = |agent: &Agent| Tmpfs::mount(agent.state().join("audit"), LOG).unwrap();
            field.disks = agents.map(disk).collect();
        }
        for number in 0..setup.headends {
            field.start_headend(number);
        }
        field.start_edge();
        field
    }

    pub fn wait_up(&mut self) {
        self.edge.wait_ready();
        let wanted = self.headends.len();
        eventually("the tunnels", || self.transports().len() == wanted);
        for headend in &mut self.headends {
            headend.wait_that("its device", |headend| {
                let status = headend.try_status().unwrap_or_default();
                status["devices"][0]["connected"] == true
            });
        }
    }

    /// What the edge says of its tunnels.
    pub fn transports(&self) -> Vec<String> {
        let status = self.edge.try_status().unwrap_or_default();
        let headends = status["headends"].as_array().cloned().unwrap_or_default();
        let tunnels = headends.iter().filter_map(|it| it["tunnels"].as_array());
        let name = |tunnel: &serde_json::Value| tunnel["transport"].as_str().map(str::to_owned);
        tunnels.filter_map(|it| it.first().and_then(name)).collect()
    }

    pub fn is_auto(&self) -> bool {
        self.transport == Transport::Auto
    }

    /// Clients of all headends.
    pub fn plan(&self) -> Plan {
        let addresses = CLIENTS[..self.headends.len()]
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)));
        Plan::new(&addresses.collect::<Vec<_>>())
    }

    pub fn clients(&self) -> &Namespace {
        &self.west
    }

    /// Other options of the wire, from here on.
    pub fn change_wire(&mut self, options: &str) {
        let before = self.wire.log().matches("carrying otherwise").count();
        fs::write(&self.options, options).unwrap();
        self.wire.hang_up();
        let changed = self.wire.wait_that("the change", SOON, |wire| {
            wire.log().matches("carrying otherwise").count() > before
        });
        changed.unwrap();
    }

    pub fn start_headend(&mut self, number: usize) {
        let headend = &mut self.headends[number];
        within(&self.west, || headend.start());
    }

    pub fn start_edge(&mut self) {
        let edge = &mut self.edge;
        within(&self.east, || edge.start());
    }

    /// Starts who has ended, as a supervisor does.
    pub fn revive(&mut self) {
        for number in 0..self.headends.len() {
            if !self.headends[number].is_running() {
                self.start_headend(number);
            }
        }
        if !self.edge.is_running() {
            self.start_edge();
        }
    }

    /// The edge has another address, and not its old one.
    pub fn move_edge(&self, there: bool) {
        let (from, to) = if there {
            (EAST, EAST_TOO)
        } else {
            (EAST_TOO, EAST)
        };
        within(&self.east, || {
            ip(&format!("addr del {from}/24 dev wan"));
            ip(&format!("addr add {to}/24 dev wan"));
        });
    }

    /// The first headend ends here and starts there, and its name leads there.
    pub fn move_headend(&mut self, there: bool) {
        let (from, to) = if there {
            (WEST, ELSEWHERE)
        } else {
            (ELSEWHERE, WEST)
        };
        self.headends[0].kill();
        within(&self.west, || {
            ip(&format!("addr del {from}/24 dev wan"));
            ip(&format!("addr add {to}/24 dev wan"));
        });
        let headend = &self.headends[0];
        let config = fs::read_to_string(headend.config_file()).unwrap();
        fs::write(headend.config_file(), config.replace(from, to)).unwrap();
        fs::write(&self.hosts, hosts_of(to)).unwrap();
        self.start_headend(0);
    }

    pub fn mtu(&self, octets: u16) {
        for namespace in [&self.west, &self.east] {
            within(namespace, || ip(&format!("link set wan mtu {octets}")));
        }
    }

    /// The PLC's cable.
    pub fn plug_plc(&self, plugged: bool) {
        let word = if plugged { "up" } else { "down" };
        within(&self.beyond, || ip(&format!("link set eth0 {word}")));
    }

    /// Connections of one client to the first headend, which ask for nothing.
    pub fn crowd(&mut self, count: usize) {
        let address = SocketAddr::from(([127, 0, 0, 1], CLIENTS[0]));
        let more = within(&self.west, || {
            let dial = |_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
            (0..count).filter_map(dial).collect::<Vec<_>>()
        });
        self.idle.extend(more);
    }

    /// Bounds a resource of a running process until [`Field::unlimit`].
    pub fn limit(&mut self, process: u32, resource: Resource, most: u64) {
        let pid = Pid::from_raw(process as i32);
        let limit = |current| Rlimit {
            current: Some(current),
            maximum: None,
        };
        let old = rustix::process::getrlimit(resource);
        let new = Rlimit {
            maximum: old.maximum,
            ..limit(most)
        };
        let before = prlimit(pid, resource, new).unwrap();
        self.limits.push((process, resource, before));
    }

    pub fn unlimit(&mut self) {
        for (process, resource, before) in self.limits.drain(..) {
            // It may have ended by it.
            let _ = prlimit(Pid::from_raw(process as i32), resource, before);
        }
    }

    /// Stops all agents in good order, and has each of their logs account for each write.
    pub fn settle(&mut self) {
        self.revive();
        self.edge.wait_ready();
        let edge = self.edge.terminate();
        assert_eq!(edge.code(), Some(0), "{edge}");
        for headend in &mut self.headends {
            headend.wait_ready();
            let status = headend.terminate();
            assert_eq!(status.code(), Some(0), "{}: {status}", headend.name());
        }
        let made = self.plc.made().values().sum::<u32>() as usize;
        assert!(accounted(&self.edge) >= made, "a write without an intent");
        for headend in &self.headends {
            accounted(headend);
        }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // Before the disks under them go.
        for agent in self.headends.iter_mut().chain([&mut self.edge]) {
            if agent.is_running() {
                agent.kill();
            }
        }
    }
}

/// The log is in order, and each intent has one outcome; how many intents.
fn accounted(agent: &Agent) -> usize {
    binary::run_ok(&[&"audit", &"verify", &"--state", &agent.state()]);
    let intents = agent.audit_kind(Kind::WriteIntent);
    let mut open: HashSet<_> = intents.iter().map(|it| it.seq).collect();
    for outcome in agent.audit_kind(Kind::WriteOutcome) {
        let intent = outcome.intent.expect("an outcome names its intent");
        assert!(open.remove(&intent), "{}: two outcomes", agent.name());
    }
    assert!(open.is_empty(), "{}: no outcome of {open:?}", agent.name());
    intents.len()
}

fn hosts_of(address: &str) -> String {
    format!("127.0.0.1 localhost\n{address} {NAME}\n")
}

fn wire(
    west: &Namespace,
    east: &Namespace,
    options: &PathBuf,
    seed: u64,
    directory: &Directory,
) -> Process {
    let mut command = Command::new(binary::wire());
    command.args(["tap", "wan", "wan", "--follow"]).arg(options);
    command.arg(format!("--seed={seed}"));
    // A NAT would be the edge's.
    command.arg("--netns-a").arg(east.path());
    command.arg("--netns-b").arg(west.path());
    let mut wire = Process::start("wire", &mut command, directory.path()).unwrap();
    wire.wait_log("carrying between", SOON).unwrap();
    wire
}

fn headend(setup: &Setup, number: usize, directory: &Directory) -> Agent {
    let name = format!("hd-{}", number + 1);
    let (tunnel, clients) = (4433 + number, CLIENTS[number]);
    let config = format!(
        "[tunnel]\nlisten = [\"{WEST}:{tunnel}\"]\n\
         [[device]]\nname = \"{DEVICE}\"\nedge = \"{EDGE}\"\nlisten = \"127.0.0.1:{clients}\"\n{}",
        setup.headend_more
    );
    let identity = Site::shared().identity(Role::Headend, &name);
    let at = directory.path();
    Agent::prepare(Role::Headend, &name, at, &identity, &config, OPEN_POLICY)
}

fn edge(setup: &Setup, directory: &Directory) -> Agent {
    let headends = (0..setup.headends).map(|number| {
        format!(
            "[[headend]]\nname = \"hd-{}\"\naddress = [\"{NAME}:{}\"]\ntransport = \"{}\"\n",
            number + 1,
            4433 + number,
            setup.transport
        )
    });
    let config = format!(
        "{}[[device]]\nname = \"{DEVICE}\"\n\
         modbus_tcp = {{ address = \"{PLC}\", max_connections = 2, in_flight = 2 }}\n{}",
        headends.collect::<String>(),
        setup.edge_more
    );
    let identity = Site::shared().identity(Role::Edge, EDGE);
    let at = directory.path();
    let mut edge = Agent::prepare(Role::Edge, EDGE, at, &identity, &config, OPEN_POLICY);
    // A hosts file of its own: mounted over the system's, for this process alone.
    edge.run_under(&[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
        directory.join("hosts").to_str().unwrap(),
    ]);
    edge
}
