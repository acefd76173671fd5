//! A PROFINET plant on a [`Rig`]: the agents between, and simulated stations at both ends.

use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;
use fieldlock_sim::profinet::{Clock, Controller, ControllerConfig, Device, DeviceConfig, IpSuite};
use fieldlock_testkit::process::Process;
use serde_json::Value;

use crate::live::Live;
use crate::rig::{CONTROLLER_WIRE, DEVICE_WIRE, Rig};
use crate::{Agent, EDGE, OPEN_POLICY, Pair, SOON, Setup, Transport, binary, within};

/// The station behind the edge.
pub const STATION: &str = "drive-1";
/// The controller on the headend's wire.
pub const CONTROLLER: &str = "plc-1";

/// Agents for one station, with a policy that lets its controller run it.
pub fn setup(rig: &Rig, transport: Transport) -> Setup {
    let mac = rig.mac_of(&rig.controller);
    setup_with(rig, transport, "", &io_policy(mac))
}

/// Likewise, with more keys of the station at both ends, and another policy.
pub fn setup_with(rig: &Rig, transport: Transport, station: &str, policy: &str) -> Setup {
    setup_of(rig, transport, station, ["", ""], policy)
}

/// Likewise, with text that the edge's and the headend's file go on with: keys of `[profinet]`,
/// then more tables.
pub fn setup_with_more(rig: &Rig, transport: Transport, more: [&str; 2], policy: &str) -> Setup {
    setup_of(rig, transport, "", more, policy)
}

fn setup_of(
    rig: &Rig,
    transport: Transport,
    station: &str,
    [edge, headend]: [&str; 2],
    policy: &str,
) -> Setup {
    let mac = rig.mac_of(&rig.controller);
    Setup::new(transport)
        .edge(&format!(
            "[[station]]\nname = \"{STATION}\"\n{station}\n\
             [profinet]\ninterface = \"{DEVICE_WIRE}\"\n{edge}\n"
        ))
        .headend(&format!(
            "[[station]]\nname = \"{STATION}\"\nedge = \"{EDGE}\"\n{station}\n\
             [[controller]]\nname = \"{CONTROLLER}\"\nmac = \"{mac}\"\n\
             [profinet]\ninterface = \"{CONTROLLER_WIRE}\"\n{headend}\n"
        ))
        .policy(policy)
}

/// The controller may run the station and write its records.
pub fn io_policy(mac: Mac) -> String {
    format!("{OPEN_POLICY}{}{}", client(mac), IO_RULE)
}

/// The controller as a client.
pub fn client(mac: Mac) -> String {
    format!("[[client]]\nname = \"{CONTROLLER}\"\nmac = [\"{mac}\"]\n")
}

/// What it takes to run a station.
pub const IO_RULE: &str = "[[allow]]\nname = \"line 1 io\"\nclient = [\"plc-1\"]\n\
     station = [\"drive-1\"]\nservice = [\"io\", \"records\"]\nrecord = [\"any\"]\n";

/// The simulated device.
pub fn device(rig: &Rig, pair: &Pair) -> Process {
    let mut command = Command::new(binary::example("io-device"));
    command.args(["--interface", "eth0", "--name", STATION]);
    command.args(["--ip", "192.168.0.20", "--json"]);
    rig.spawn_in(&rig.device, "device", &mut command, pair.directory.path())
}

/// The simulated controller.
pub fn controller(rig: &Rig, pair: &Pair, arguments: &[&str]) -> Process {
    let mut command = Command::new(binary::example("io-controller"));
    command.args(["--interface", "eth0", "--name", CONTROLLER]);
    command.args(["--ip", "192.168.0.1", "--device", STATION, "--json"]);
    command.args(arguments);
    rig.spawn_in(
        &rig.controller,
        "controller",
        &mut command,
        pair.directory.path(),
    )
}

/// [`device`] in the test's own process.
pub fn live_device(rig: &Rig) -> Live<Device> {
    live_device_with(rig, |_| {}, |_| {})
}

/// Likewise, one that differs, on which `hear` listens in.
pub fn live_device_with(
    rig: &Rig,
    change: impl FnOnce(&mut DeviceConfig),
    hear: impl FnMut(&[u8]) + Send + 'static,
) -> Live<Device> {
    let mut socket = rig.station(&rig.device);
    let address = IpSuite::local([192, 168, 0, 20].into());
    let mut config = DeviceConfig::new(socket.mac(), STATION, address, clock());
    change(&mut config);
    for mac in [Mac::DCP_IDENTIFY, config.mac] {
        socket.join(mac).unwrap();
    }
    Live::start(socket, Device::new(config, Instant::now()), hear)
}

/// [`controller`] in the test's own process, or one that differs.
pub fn live_controller(rig: &Rig, change: impl FnOnce(&mut ControllerConfig)) -> Live<Controller> {
    let mut socket = rig.station(&rig.controller);
    let address = IpSuite::local([192, 168, 0, 1].into());
    let mut config = ControllerConfig::new(socket.mac(), CONTROLLER, address, STATION, clock());
    // Patient with a machine that is busy: these tests are not about deadlines.
    config.watchdog_factor = 30;
    change(&mut config);
    socket.join(config.mac).unwrap();
    let controller = Controller::new(config, Instant::now()).unwrap();
    Live::start(socket, controller, |_| {})
}

/// Of the stamps in the data, one for all stations of this process.
fn clock() -> Clock {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    Clock {
        epoch: *EPOCH.get_or_init(Instant::now),
    }
}

/// How many frames an agent has dropped for a reason, by the name in its status.
pub fn dropped(agent: &Agent, reason: &str) -> u64 {
    agent.status()["profinet"]["dropped"][reason]
        .as_u64()
        .unwrap_or(0)
}

/// What a simulator printed at its end.
#[track_caller]
pub fn summary(process: &mut Process, within: Duration) -> Value {
    let status = process.wait_exit(within);
    let log = process.log();
    assert!(status.is_ok_and(|status| status.success()), "{log}");
    let start = log.find("\n{").expect(&log);
    let mut values = serde_json::Deserializer::from_str(&log[start..]).into_iter();
    values.next().unwrap().unwrap()
}

/// The AR of the plant, as an agent shows it.
pub fn ar(status: &Value) -> Option<&Value> {
    status["profinet"]["ars"].as_array()?.first()
}

/// Waits until both agents see the AR run.
#[track_caller]
pub fn wait_running(pair: &Pair) {
    let runs = |agent: &Agent| {
        let status = agent.try_status().unwrap_or_default();
        ar(&status).is_some_and(|ar| ar["phase"] == "running")
    };
    within(PATIENCE, "an AR that runs at both agents", || {
        runs(&pair.headend) && runs(&pair.edge)
    });
}

/// Waits until the controller exchanges data, and both agents know.
#[track_caller]
pub fn wait_established(pair: &Pair, controller: &Live<Controller>) {
    within(PATIENCE, "the controller to exchange data", || {
        controller.with(|controller, _| controller.is_established())
    });
    wait_running(pair);
}

/// A controller tries again, from Identify on, for a while.
const PATIENCE: Duration = SOON.saturating_add(Duration::from_secs(10));
