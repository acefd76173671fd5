//! A PROFINET plant on a [`Rig`]: the agents between, and simulated stations at both ends.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;
use fieldlock_testkit::process::Process;
use serde_json::Value;

use crate::rig::{CONTROLLER_WIRE, DEVICE_WIRE, Rig};
use crate::{EDGE, OPEN_POLICY, Pair, Setup, Transport, binary};

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
    let mac = rig.mac_of(&rig.controller);
    Setup::new(transport)
        .edge(&format!(
            "[profinet]\ninterface = \"{DEVICE_WIRE}\"\n\
             [[station]]\nname = \"{STATION}\"\n{station}\n"
        ))
        .headend(&format!(
            "[profinet]\ninterface = \"{CONTROLLER_WIRE}\"\n\
             [[station]]\nname = \"{STATION}\"\nedge = \"{EDGE}\"\n{station}\n\
             [[controller]]\nname = \"{CONTROLLER}\"\nmac = \"{mac}\"\n"
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
    let mut command = Command::new(example("io-device"));
    command.args(["--interface", "eth0", "--name", STATION]);
    command.args(["--ip", "192.168.0.20", "--json"]);
    rig.spawn_in(&rig.device, "device", &mut command, pair.directory.path())
}

/// The simulated controller.
pub fn controller(rig: &Rig, pair: &Pair, arguments: &[&str]) -> Process {
    let mut command = Command::new(example("io-controller"));
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
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let statuses = [pair.headend.status(), pair.edge.status()];
        let runs = |status: &Value| ar(status).is_some_and(|ar| ar["phase"] == "running");
        if statuses.iter().all(runs) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "no AR\n{:#}\n{:#}\n{}\n{}",
            statuses[0]["profinet"],
            statuses[1]["profinet"],
            pair.headend.log(),
            pair.edge.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program of `examples/`, which is built with the tests.
pub fn example(name: &str) -> PathBuf {
    binary::path().with_file_name("examples").join(name)
}
