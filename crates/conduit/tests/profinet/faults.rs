//! Tunnels, agents and stations that fail, and what comes back by itself.

use std::time::Duration;

use fieldlock_conduit::profinet::{DropReason, Event, LinkId, StationSettings};
use fieldlock_profinet::Mac;
use fieldlock_profinet::ar::Ended;
use fieldlock_sim::profinet::{Clock, Device, DeviceConfig, IpSuite};

use crate::plant::{End, IO, LINK, MAX_DATAGRAM, Plant, policy, station};

const SECOND: Duration = Duration::from_secs(1);
const NEWER: LinkId = LinkId(8);

fn running(plant: &mut Plant) {
    plant.run(5 * SECOND);
    assert!(plant.controller.is_established());
}

fn is_undisturbed(plant: &Plant) {
    let stats = plant.controller.stats();
    assert_eq!((stats.established, stats.aborts), (1, 0));
    assert_eq!(plant.device.stats().aborts, 0);
}

fn ends(end: &End) -> Vec<Ended> {
    let ended = end.events.iter().filter_map(|event| match event {
        Event::ArDown { why, .. } => Some(*why),
        _ => None,
    });
    ended.collect()
}

#[test]
fn a_newer_tunnel_takes_over_an_ar_whichever_end_sees_it_first() {
    for headend_first in [true, false] {
        let mut plant = Plant::new(IO);
        running(&mut plant);
        for lost in [false, true] {
            for at_headend in [headend_first, !headend_first] {
                let now = plant.now;
                let end = if at_headend {
                    &mut plant.headend
                } else {
                    &mut plant.edge
                };
                match lost {
                    false => end.link_up(now, NEWER),
                    true => end.link_down(now, LINK),
                }
                // Each end hears of it from the other.
                plant.run(plant.delay);
            }
            plant.run(SECOND);
        }
        plant.run(10 * SECOND);
        is_undisturbed(&plant);
        assert_eq!(ends(&plant.headend), []);
        assert_eq!(ends(&plant.edge), []);
    }
}

#[test]
fn the_tunnel_before_goes_on_where_a_newer_one_is_lost_again() {
    let mut plant = Plant::new(IO);
    running(&mut plant);
    let now = plant.now;
    plant.headend.link_up(now, NEWER);
    plant.edge.link_up(now, NEWER);
    plant.run(SECOND);
    let now = plant.now;
    plant.headend.link_down(now, NEWER);
    plant.edge.link_down(now, NEWER);
    plant.run(5 * SECOND);
    is_undisturbed(&plant);
}

#[test]
fn an_ar_outlives_a_tunnel_that_is_back_within_its_watchdog() {
    let mut plant = Plant::new(IO);
    running(&mut plant);
    plant.tunnel_is_lost();
    let watchdog = plant.headend.bridge.table().iter().next().unwrap().crs[0].watchdog;
    plant.run(watchdog / 3);
    let now = plant.now;
    plant.edge.link_up(now, NEWER);
    plant.headend.link_up(now, NEWER);
    plant.run(5 * SECOND);
    is_undisturbed(&plant);
}

#[test]
fn an_agent_that_is_started_anew_is_in_nobody_s_way() {
    for headend in [true, false] {
        for pause in [0, 1, 20] {
            let mut plant = Plant::new(IO);
            running(&mut plant);
            let now = plant.now;
            plant.tunnel_is_lost();
            match headend {
                true => plant.headend.restart(now),
                false => plant.edge.restart(now),
            }
            plant.run(SECOND * pause);
            let now = plant.now;
            plant.headend.link_up(now, NEWER);
            plant.edge.link_up(now, NEWER);
            plant.run(15 * SECOND);
            assert!(plant.controller.is_established(), "{headend} {pause}");
            for end in [&plant.headend, &plant.edge] {
                assert_eq!(end.bridge.table().len(), 1, "{headend} {pause}");
            }
        }
    }
}

#[test]
fn frames_that_come_twice_and_late_change_nothing() {
    for late in [0, 3, 40, 300] {
        let mut plant = Plant::new(IO);
        plant.again = Some(Duration::from_millis(late));
        plant.run(20 * SECOND);
        assert!(plant.controller.is_established(), "{late}");
        is_undisturbed(&plant);
    }
}

fn drive(mac: Mac, plant: &Plant) -> Device {
    let clock = Clock { epoch: plant.now };
    let address = IpSuite::local([192, 168, 0, 20].into());
    Device::new(DeviceConfig::new(mac, "drive-1", address, clock), plant.now)
}

#[test]
fn a_device_that_is_replaced_is_taken_under_its_new_address() {
    let spare = Mac([2, 0, 0, 0, 0, 3]);
    let mut plant = Plant::new(IO);
    running(&mut plant);
    plant.device = drive(spare, &plant);
    plant.run(30 * SECOND);
    assert!(plant.controller.is_established());
    assert_eq!(plant.headend.joined, [Mac::DCP_IDENTIFY, spare]);
    for end in [&plant.headend, &plant.edge] {
        let parties = end.bridge.parties();
        assert_eq!(parties.stations[0].mac, Some(spare));
        let found = |event: &&Event| matches!(event, Event::Found { .. });
        assert_eq!(end.events.iter().filter(found).count(), 2);
    }
}

#[test]
fn a_second_headend_can_t_take_over_a_controller() {
    let mut plant = Plant::new(IO);
    running(&mut plant);
    let other = LinkId(9);
    let now = plant.now;
    let channels = [(0, "drive-1".parse().unwrap())];
    // Everything that the first one says, said by the second as well.
    let said: Vec<_> = plant.on_devices_wire.iter().take(50).cloned().collect();
    plant.edge.act(|bridge| {
        bridge.link_up(now, other, "hd-2".into(), &channels, MAX_DATAGRAM);
        for frame in &said {
            bridge.handle_station(now, other, 0, frame);
        }
    });
    assert!(plant.edge.bridge.drops().get(DropReason::ForeignSource) > 0);
    plant.run(5 * SECOND);
    is_undisturbed(&plant);
}

#[test]
fn an_edge_that_offers_another_s_station_later_speaks_for_it_alone() {
    let mut plant = Plant::new(IO);
    running(&mut plant);
    let now = plant.now;
    let channels = [(0, "drive-1".parse().unwrap())];
    let said: Vec<_> = plant.on_controllers_wire.iter().take(50).cloned().collect();
    let other = LinkId(9);
    let before = plant.headend.bridge.drops().get(DropReason::ForeignSource);
    plant.headend.act(|bridge| {
        bridge.link_up(now, other, "cell-5".into(), &channels, MAX_DATAGRAM);
        for frame in &said {
            bridge.handle_station(now, LINK, 0, frame);
        }
        bridge.link_down(now, other);
    });
    let after = plant.headend.bridge.drops().get(DropReason::ForeignSource);
    assert_eq!(after - before, said.len() as u64);
    plant.run(5 * SECOND);
    assert!(plant.controller.is_established());
}

fn holding(age: u64) -> StationSettings {
    StationSettings {
        play_out: 2,
        hold: Some(Duration::from_millis(age)),
        ..station()
    }
}

/// A plant with hold at both ends, whose round trip is known.
fn held(age: u64) -> Plant {
    let mut plant = Plant::with(IO, IO, holding(age), |_| {}, |_| {});
    running(&mut plant);
    for end in [&mut plant.headend, &mut plant.edge] {
        end.bridge.set_round_trip(LINK, 2 * plant.delay);
    }
    plant.run(SECOND);
    plant
}

#[test]
fn hold_bridges_a_gap_and_ends_within_the_bound_that_was_told() {
    let mut plant = held(400);
    plant.cut = true;
    plant.run(Duration::from_millis(250));
    plant.cut = false;
    plant.run(5 * SECOND);
    is_undisturbed(&plant);

    let bound = plant.edge.events.iter().find_map(|event| match event {
        Event::ArUp { fail_safe, .. } => *fail_safe,
        _ => None,
    });
    let bound = bound.unwrap();
    plant.cut = true;
    plant.run(bound + Duration::from_millis(20));
    assert_eq!(plant.device.established(), 0);
    assert!(!plant.controller.is_established());
}

#[test]
fn hold_ends_at_once_when_the_provider_stops() {
    let mut plant = held(1_000);
    plant.controller.set_running(false);
    plant.run(Duration::from_millis(100));
    // The last frames say so, and are the last, after what they wait for their slots.
    plant.cut = true;
    plant.run(Duration::from_millis(120));
    let before = plant.on_devices_wire.len();
    plant.run(Duration::from_millis(150));
    assert_eq!(plant.on_devices_wire.len(), before);
}

#[test]
fn hold_ends_at_once_when_the_tunnel_is_known_to_be_lost() {
    let mut plant = held(1_000);
    plant.tunnel_is_lost();
    let before = plant.on_devices_wire.len();
    plant.run(Duration::from_millis(300));
    assert_eq!(plant.on_devices_wire.len(), before);
}

#[test]
fn rules_that_no_longer_allow_the_data_end_an_ar_that_may_still_be_opened() {
    let mut plant = Plant::new(IO);
    running(&mut plant);
    let less = IO.replace("\"io\", ", "\"identify\", \"connect\", \"alarm\", ");
    let now = plant.now;
    plant.edge.act(|bridge| {
        let rules = policy(&less);
        bridge.set_policy(now, rules, fieldlock_policy::Now::At(0));
    });
    assert!(plant.edge.bridge.table().is_empty());
    assert_eq!(ends(&plant.edge), [Ended::Withdrawn("the policy")]);
}
