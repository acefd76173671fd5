//! What an agent may do on its machine, before and after it has opened its interface.

use std::fs;
use std::process::Command;

use fieldlock_rawsock::OpenError;
use fieldlock_tests::plant;
use fieldlock_tests::rig::{CONTROLLER_WIRE, DEVICE_WIRE, Rig};
use fieldlock_tests::{Agent, SOON, Transport, binary, trial};
use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial::on_rig(
            "attacks::a20_running_agents_have_given_up_raw_sockets",
            given_up,
        ),
        trial::on_rig_with(
            "profinet::without_the_capability_an_agent_says_what_to_do",
            &["setpriv"],
            not_permitted,
        ),
    ]
}

/// CAP_NET_ADMIN and CAP_NET_RAW (capabilities(7)).
const RAW: u64 = 1 << 12 | 1 << 13;

fn given_up(rig: &Rig) {
    let mut pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    for agent in [&mut pair.headend, &mut pair.edge] {
        let process = agent.process().id();
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        for thread in threads {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            let value = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap().trim_start_matches(':').trim().to_owned()
            };
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let bits = u64::from_str_radix(&value(set), 16).unwrap();
                assert_eq!(bits & RAW, 0, "{set} of the {}", agent.name());
            }
            assert_eq!(value("NoNewPrivs"), "1");
        }
    }
}

fn not_permitted(rig: &Rig) {
    let pair = plant::setup(rig, Transport::Quic).prepare();
    let start = |agent: &Agent, role: &str, interface: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-net_raw,-net_admin"]);
        command.args(["--inh-caps", "-net_raw,-net_admin"]);
        command
            .arg(binary::path())
            .args([role, "--config"])
            .arg(agent.config_file());
        let directory = pair.directory.path();
        let mut process = rig.spawn_in(&rig.agents, "unprivileged", &mut command, directory);
        assert!(!process.wait_exit(SOON).unwrap().success());
        let told = OpenError::NotPermitted(interface.to_owned()).to_string();
        assert!(process.log().contains(&told), "{}", process.log_tail());
    };
    start(&pair.headend, "headend", CONTROLLER_WIRE);
    start(&pair.edge, "edge", DEVICE_WIRE);
}
