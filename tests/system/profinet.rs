//! PROFINET through real agents, between simulated stations on a rig of namespaces.

mod discovery;
mod endings;
mod forged;
mod privileges;
mod profiles;
mod refused;
mod watched;

use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_tests::plant::{self, controller, device, setup, summary, wait_running};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::{Transport, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let both = |name: &str, run: fn(&Rig, Transport)| {
        [Transport::Quic, Transport::Tls].map(|transport| {
            trial::on_rig(&format!("{name}::{transport}"), move |rig| {
                run(rig, transport)
            })
        })
    };
    let mut trials = Vec::from(both("profinet::an_ar_comes_up_runs_and_is_released", life));
    trials.extend(endings::trials());
    trials.extend(watched::trials());
    trials.extend(forged::trials());
    trials.extend(discovery::trials());
    trials.extend(refused::trials());
    trials.extend(privileges::trials());
    trials.extend(profiles::trials());
    trials
}

fn life(rig: &Rig, transport: Transport) {
    let pair = rig.among_agents(|| setup(rig, transport).up());
    let _device = device(rig, &pair);
    let mut controller = controller(rig, &pair, &["--duration", "4s"]);
    wait_running(&pair);
    let summary = summary(&mut controller, Duration::from_secs(20));
    assert_eq!(summary["established"], 1, "{summary:#}");
    assert_eq!(summary["aborts"], 0, "{summary:#}");
    assert_eq!(summary["released"], 1, "{summary:#}");
    for (agent, name) in [(&pair.headend, Some(plant::CONTROLLER)), (&pair.edge, None)] {
        let up = agent.wait_record("the AR", |record| record.kind == Kind::ArUp);
        let client = up.client.unwrap();
        assert_eq!(client.name.as_deref(), name);
        assert_eq!(
            client.mac.as_deref(),
            Some(&*rig.mac_of(&rig.controller).to_string())
        );
        assert_eq!(up.station.as_deref(), Some(plant::STATION));
        let ar = up.ar.unwrap();
        assert_eq!((ar.cycle_us, ar.watchdog_us), (Some(32_000), Some(96_000)));
        let down = agent.wait_record("its end", |record| record.kind == Kind::ArDown);
        assert_eq!(down.reason.as_deref(), Some("released by the controller"));
    }
}
