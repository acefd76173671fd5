//! The stations of the simulator as real controllers are, over every profile.

use std::time::Duration;

use fieldlock_conduit::profinet::{DropReason, Event};
use fieldlock_profinet::ar::Ended;
use fieldlock_sim::profinet::{Profile, Record};
use fieldlock_testkit::link::{Impairment, Jitter};

use crate::plant::{End, IO, Plant, station};

const SECOND: Duration = Duration::from_secs(1);

fn plant(profile: Profile, play_out: u8) -> Plant {
    let mut with = station();
    with.redundancy = 3;
    with.play_out = play_out;
    let record = Record {
        slot: 1,
        subslot: 1,
        index: 0x0010,
        data: vec![7; 30],
    };
    Plant::with(
        IO,
        IO,
        with,
        |controller| {
            profile.controller(controller);
            controller.records = vec![record];
        },
        |device| profile.device(device),
    )
}

fn check(profile: Profile, plant: &Plant, established: u64) {
    let stats = plant.controller.stats();
    let name = profile.name();
    let told = || [&plant.headend.events, &plant.edge.events];
    assert!(plant.controller.is_established(), "{name}: {:?}", told());
    assert_eq!(stats.established, established, "{name}: {:?}", told());
    for end in [&plant.headend, &plant.edge] {
        assert_eq!(end.bridge.table().len(), 1, "{name}");
        for drop in [
            DropReason::Malformed,
            DropReason::Unfit,
            DropReason::Vlan,
            DropReason::Denied,
        ] {
            assert_eq!(end.bridge.drops().get(drop), 0, "{name}: {drop}");
        }
    }
}

#[test]
fn every_profile_comes_up_and_its_data_alarms_and_records_cross() {
    for profile in Profile::ALL {
        let name = profile.name();
        let mut plant = plant(profile, 0);
        plant.run(10 * SECOND);
        check(profile, &plant, 1);
        assert_eq!(plant.controller.stats().aborts, 0, "{name}");
        assert_eq!(
            plant.device.record(1, 1, 0x0010),
            Some(&[7; 30][..]),
            "{name}"
        );
        for consumed in [
            &plant.controller.stats().consumed,
            &plant.device.stats().consumed,
        ] {
            assert!(consumed.accepted > 100, "{name}: {}", consumed.accepted);
        }
        let now = plant.now;
        assert!(plant.device.raise_alarm(now, true, 2, 1, &[1, 2]), "{name}");
        assert!(plant.device.raise_alarm(now, false, 1, 2, &[]), "{name}");
        plant.run(SECOND);
        assert_eq!(plant.device.stats().alarms_acknowledged, 2, "{name}");
        check(profile, &plant, 1);
        plant.controller.stop(plant.now);
        plant.run(SECOND);
        let released = |end: &End| {
            let mut events = end.events.iter();
            events.any(|event| {
                matches!(
                    event,
                    Event::ArDown {
                        why: Ended::Released,
                        ..
                    }
                )
            })
        };
        assert!(released(&plant.headend) && released(&plant.edge), "{name}");
    }
}

/// Their aborts are lost with the tunnel; some connect again under the UUID and session key of before.
#[test]
fn every_profile_comes_back_after_both_ends_lost_each_other() {
    for profile in Profile::ALL {
        let mut plant = plant(profile, 0);
        plant.run(5 * SECOND);
        check(profile, &plant, 1);
        plant.cut = true;
        // Both notice; the agents are still sure of the AR.
        plant.run(SECOND);
        plant.cut = false;
        plant.run(15 * SECOND);
        check(profile, &plant, 2);
        let before = plant.device.stats().consumed.accepted;
        plant.run(SECOND);
        assert!(plant.device.stats().consumed.accepted > before + 10);
    }
}

/// What [`Shortfall`](fieldlock_conduit::profinet::Shortfall) says to set is enough for the way it is
/// said of: losses one at a time, delays that vary within the round trip.
#[test]
fn every_profile_outlives_a_lossy_way_with_the_play_out_that_is_recommended() {
    for profile in Profile::ALL {
        let recommended = {
            let mut plant = plant(profile, 0);
            for end in [&mut plant.headend, &mut plant.edge] {
                end.bridge
                    .set_round_trip(crate::plant::LINK, Duration::from_millis(20));
            }
            plant.run(5 * SECOND);
            let ar = plant.edge.bridge.table().iter().next().unwrap();
            let short = plant.edge.bridge.shortfall(ar);
            short.and_then(|short| short.play_out).unwrap_or(0)
        };
        let mut plant = plant(profile, recommended.max(4));
        plant.impair(
            &Impairment {
                loss: 0.01,
                delay: Duration::from_millis(8),
                jitter: Jitter::Uniform(Duration::from_millis(4)),
                ..Impairment::default()
            },
            7,
        );
        plant.run(300 * SECOND);
        let name = profile.name();
        assert_eq!(plant.controller.stats().aborts, 0, "{name} {recommended}");
        check(profile, &plant, 1);
    }
}
