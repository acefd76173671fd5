//! Two PROFINET wires and the agents between them, on one machine.
//!
//! ```text
//!  controller              agents                    device
//!  eth0 -------- pn-ctl (headend)  (edge) pn-dev -------- eth0
//! ```
//!
//! Three network namespaces without names: several rigs may be up at once, and all of one is
//! gone when it is dropped and its processes have ended, also after a panic or a kill.
//! The agents reach each other by the loopback interface of theirs. A station speaks as many
//! addresses as it likes; interfaces have no IP address until a test gives them one.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use fieldlock_profinet::Mac;
use fieldlock_rawsock::{Filter, Namespace, PacketSocket, Vlans, interface_mac};
use fieldlock_testkit::process::Process;
use thiserror::Error;

use crate::eventually;

/// The headend's interface, on the controller's wire.
pub const CONTROLLER_WIRE: &str = "pn-ctl";
/// The edge's interface, on the device's wire.
pub const DEVICE_WIRE: &str = "pn-dev";
/// The interface of the controller and of the device, each in its namespace.
pub const STATION: &str = "eth0";

/// Why there can be no rig here.
#[derive(Debug, Error)]
#[error("network namespaces need root: {0}")]
pub struct Skip(#[source] io::Error);

/// See the module.
#[derive(Debug)]
pub struct Rig {
    pub controller: Namespace,
    pub agents: Namespace,
    pub device: Namespace,
}

impl Rig {
    /// Whether there can be one here.
    pub fn possible() -> Result<(), Skip> {
        Namespace::create().map(drop).map_err(Skip)
    }

    pub fn up() -> Result<Self, Skip> {
        let rig = Self {
            controller: Namespace::create().map_err(Skip)?,
            agents: Namespace::create().map_err(Skip)?,
            device: Namespace::create().map_err(Skip)?,
        };
        for namespace in [&rig.controller, &rig.agents, &rig.device] {
            within(namespace, || {
                // No frames that no test has sent, such as those that look for IPv6 routers.
                fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
                ip("link set lo up");
            });
        }
        rig.cable(CONTROLLER_WIRE, &rig.controller);
        rig.cable(DEVICE_WIRE, &rig.device);
        Ok(rig)
    }

    /// Runs a part of a test where the agents are: what it starts and opens is there too.
    pub fn among_agents<R: Send>(&self, part: impl FnOnce() -> R + Send) -> R {
        within(&self.agents, part)
    }

    /// Starts a process in one of the namespaces; see [`Process::start`].
    #[track_caller]
    pub fn spawn_in(
        &self,
        namespace: &Namespace,
        name: &str,
        command: &mut Command,
        directory: &Path,
    ) -> Process {
        within(namespace, || Process::start(name, command, directory)).unwrap()
    }

    /// A station's end of a wire, for a test that says and hears single frames.
    #[track_caller]
    pub fn station(&self, namespace: &Namespace) -> PacketSocket {
        within(namespace, || {
            PacketSocket::open(STATION, Filter { vlans: Vlans::All })
        })
        .unwrap()
    }

    /// The address of a station's interface.
    #[track_caller]
    pub fn mac_of(&self, namespace: &Namespace) -> Mac {
        within(namespace, || interface_mac(STATION)).unwrap()
    }

    /// `ip ARGUMENTS` in one of the namespaces: addresses, a cable that is pulled.
    #[track_caller]
    pub fn ip(&self, namespace: &Namespace, arguments: &str) {
        within(namespace, || ip(arguments));
    }

    fn cable(&self, inner: &str, station: &Namespace) {
        let far = station.path();
        let far = far.display();
        let link = format!("link add {inner} type veth peer name {STATION} netns {far}");
        self.ip(&self.agents, &link);
        self.ip(&self.agents, &format!("link set {inner} up"));
        self.ip(station, &format!("link set {STATION} up"));
        self.wait_plugged(&self.agents, inner);
        self.wait_plugged(station, STATION);
    }

    /// Waits for an interface to carry frames: the kernel drops those that are sent before it
    /// has taken notice of a carrier, some time after `up`.
    #[track_caller]
    pub fn wait_plugged(&self, namespace: &Namespace, interface: &str) {
        eventually("an interface to be up", || {
            let show = || {
                Command::new("ip")
                    .args(["-o", "link", "show", interface])
                    .output()
            };
            let shown = within(namespace, show).unwrap().stdout;
            String::from_utf8_lossy(&shown).contains("state UP")
        });
    }
}

/// A namespace can be entered by who has made it.
pub(crate) fn within<R: Send>(namespace: &Namespace, part: impl FnOnce() -> R + Send) -> R {
    namespace.run(part).unwrap()
}

#[track_caller]
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("`ip`, of the package iproute2");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
}
