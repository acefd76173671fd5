//! Stations as real controllers and their devices are, between real agents.

use fieldlock_audit::Kind;
use fieldlock_sim::profinet::{Profile, Record};
use fieldlock_tests::plant::{self, live_controller, live_device_with, wait_established};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::{Transport, eventually, trial};
use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    let trial = |profile: Profile| {
        let name = format!("profinet::stations_as_real_ones::{}", profile.name());
        trial::on_rig(&name, move |rig| as_real(rig, profile))
    };
    Profile::ALL.into_iter().map(trial).collect()
}

/// Its AR comes up, data, alarms and records cross, and it comes back.
fn as_real(rig: &Rig, profile: Profile) {
    let record = Record {
        slot: 1,
        subslot: 1,
        index: 0x0010,
        data: vec![7; 30],
    };
    let pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    let device = live_device_with(rig, |config| profile.device(config), |_| {});
    let controller = live_controller(rig, |config| {
        profile.controller(config);
        // Deadlines are for virtual time.
        config.reduction_ratio = 32;
        config.watchdog_factor = 30;
        config.records = vec![record];
    });
    wait_established(&pair, &controller);
    eventually("data both ways", || {
        device.with(|device, _| device.stats().consumed.accepted) > 10
            && controller.with(|controller, _| controller.stats().consumed.accepted) > 10
    });
    device.with(|device, now| {
        assert_eq!(device.record(1, 1, 0x0010), Some(&[7; 30][..]));
        assert!(device.raise_alarm(now, true, 2, 1, &[1, 2]));
        assert!(device.raise_alarm(now, false, 1, 2, &[]));
    });
    eventually("the alarms to be acknowledged", || {
        device.with(|device, _| device.stats().alarms_acknowledged) == 2
    });
    // The device is switched off and on: the controller connects again, as it always does.
    device.with(|device, now| device.restart(now));
    eventually("the end of the first", || {
        controller.with(|controller, _| controller.stats().aborts) == 1
    });
    wait_established(&pair, &controller);
    for agent in [&pair.headend, &pair.edge] {
        assert_eq!(plant::dropped(agent, "malformed"), 0);
        assert_eq!(plant::dropped(agent, "unfit"), 0);
        assert_eq!(plant::dropped(agent, "vlan"), 0);
        let ups = || agent.audit_kind(Kind::ArUp).len();
        eventually("both on record", || ups() == 2);
        let ars = agent.status()["profinet"]["ars"].clone();
        assert_eq!(ars.as_array().map(Vec::len), Some(1), "{ars:#}");
        // 30 x 32 ms is kept by any way.
        assert!(ars[0]["shortfall"].is_null(), "{ars:#}");
    }
    drop(controller);
}
