//! Both wires over the whole life of an AR, in the eyes of tshark.

use std::collections::BTreeSet;

use fieldlock_profinet::{Mac, eth};
use fieldlock_sim::profinet::Record;
use fieldlock_tests::plant::{self, live_controller, live_device_with, wait_established};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::sniffer::{Seen, Sniffer};
use fieldlock_tests::{Transport, eventually, trial};
use libtest_mimic::Trial;

use super::refused::assert_lives;

pub(super) fn trials() -> Vec<Trial> {
    let watched =
        |name: &str, case: Case| trial::on_rig_with(name, &["tshark"], move |rig| watch(rig, case));
    vec![
        watched(
            "profinet::tags_stay_as_they_are_with_a_tagged_device",
            Case {
                controller_tagged: false,
                device_tagged: true,
                keys: "",
                output_priority: None,
                input_priority: Some(6),
            },
        ),
        watched(
            "profinet::tags_stay_as_they_are_with_a_tagged_controller",
            Case {
                controller_tagged: true,
                device_tagged: false,
                keys: "",
                output_priority: Some(6),
                input_priority: None,
            },
        ),
        watched(
            "profinet::real_time_frames_without_a_tag_get_one_where_it_is_asked_for",
            Case {
                controller_tagged: false,
                device_tagged: false,
                keys: "tag = \"priority\"\n",
                output_priority: Some(6),
                input_priority: Some(6),
            },
        ),
    ]
}

/// How the stations send, and how their data is to arrive on the other wire.
#[derive(Debug, Clone, Copy)]
struct Case {
    controller_tagged: bool,
    device_tagged: bool,
    /// Of `[profinet]`, at both ends.
    keys: &'static str,
    output_priority: Option<u8>,
    input_priority: Option<u8>,
}

fn watch(rig: &Rig, case: Case) {
    let policy = plant::io_policy(rig.mac_of(&rig.controller));
    let setup = plant::setup_with_more(rig, Transport::Quic, [case.keys; 2], &policy);
    let pair = rig.among_agents(|| setup.up());
    let (plc, drive) = (rig.mac_of(&rig.controller), rig.mac_of(&rig.device));
    let directory = &pair.directory;
    let controllers = Sniffer::start(rig, &rig.controller, "controllers", directory);
    let devices = Sniffer::start(rig, &rig.device, "devices", directory);

    let tagged = case.device_tagged;
    let device = live_device_with(rig, |config| config.tagged = tagged, |_| {});
    let controller = live_controller(rig, |config| config.tagged = case.controller_tagged);
    wait_established(&pair, &controller);
    controller.with(|controller, now| {
        let record = Record {
            slot: 2,
            subslot: 1,
            index: 1,
            data: vec![7; 1000],
        };
        assert!(controller.write(now, record));
        assert!(controller.read(now, 0, 1, 0xaff0));
    });
    // Once the device has heard that its ApplicationReady was taken.
    eventually("an alarm", || {
        device.with(|device, now| device.raise_alarm(now, true, 2, 1, &[1, 2, 3]))
    });
    eventually("the record and the alarm", || {
        let written = device.with(|device, _| device.record(2, 1, 1).is_some());
        let acknowledged = device.with(|device, _| device.stats().alarms_acknowledged);
        written && acknowledged == 1
    });
    assert_lives(&controller);
    controller.with(|controller, now| controller.stop(now));
    eventually("the release", || {
        controller.with(|controller, _| controller.is_stopped())
    });

    let on_devices = devices.stop(rig, &rig.device);
    let on_controllers = controllers.stop(rig, &rig.controller);
    for (wire, seen) in [("controllers", &on_controllers), ("devices", &on_devices)] {
        let wrong = |seen: &&Seen| seen.malformed || !belongs(seen, plc, drive);
        let wrong: Vec<_> = seen.iter().filter(wrong).take(3).collect();
        assert!(wrong.is_empty(), "{wire}: {wrong:?}");
    }
    assert_eq!(
        tags(&on_devices, plc),
        BTreeSet::from([case.output_priority])
    );
    assert_eq!(
        tags(&on_controllers, drive),
        BTreeSet::from([case.input_priority])
    );
    // And as their own stations sent them.
    let own = |tagged: bool| BTreeSet::from([tagged.then_some(6)]);
    assert_eq!(tags(&on_controllers, plc), own(case.controller_tagged));
    assert_eq!(tags(&on_devices, drive), own(case.device_tagged));
}

/// What two stations of an AR have to say, to each other or to find each other.
fn belongs(seen: &Seen, plc: Mac, drive: Mac) -> bool {
    let between = [(plc, drive), (drive, plc)].contains(&(seen.src, seen.dst));
    let finding = seen.src == plc && seen.dst == Mac::DCP_IDENTIFY;
    let resolving = seen.dst == Mac::BROADCAST && [plc, drive].contains(&seen.src);
    match seen.ethertype {
        eth::PROFINET => between || finding,
        eth::IPV4 => between,
        eth::ARP => between || resolving,
        _ => false,
    }
}

/// Priorities of the cyclic data that one station sends.
fn tags(seen: &[Seen], from: Mac) -> BTreeSet<Option<u8>> {
    let is_data = |seen: &&Seen| {
        seen.src == from
            && seen
                .frame_id
                .is_some_and(|id| (0x8000..0xf800).contains(&id))
    };
    seen.iter()
        .filter(is_data)
        .map(|seen| seen.priority)
        .collect()
}
