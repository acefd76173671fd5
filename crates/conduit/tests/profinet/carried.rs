//! What has to cross.

use std::time::Duration;

use fieldlock_conduit::profinet::{Event, Half};
use fieldlock_profinet::Mac;
use fieldlock_profinet::ar::Ended;
use fieldlock_sim::profinet::{Order, Record};
use fieldlock_testkit::link::{Impairment, Jitter};

use crate::plant::{DRIVE, IO, PLC, Plant, policy, station};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_ar_runs_for_an_hour() {
    let mut plant = Plant::new(IO);
    plant.run(Duration::from_secs(3600));
    let stats = plant.controller.stats();
    assert_eq!((stats.established, stats.aborts), (1, 0));
    assert_eq!(plant.device.stats().aborts, 0);
    assert!(plant.controller.is_established());
    // Only these were listened for.
    assert_eq!(plant.headend.joined, [Mac::DCP_IDENTIFY, DRIVE]);
    assert_eq!(plant.edge.joined, [Mac::DCP_HELLO, PLC]);
    for end in [&plant.headend, &plant.edge] {
        let drops: Vec<_> = end.bridge.drops().iter().collect();
        assert_eq!(drops, [], "{:?}", end.events);
        let ars: Vec<_> = end.bridge.table().iter().collect();
        assert_eq!(ars.len(), 1);
        assert_eq!(ars[0].phase.name(), "running");
        assert_eq!(end.bridge.flows(ars[0].id).count(), 2);
    }
}

/// What is promised of a cycle of 32 ms and three cycles of watchdog, with nothing held: the
/// stations, both bridges and the tunnel's losses together.
#[test]
fn an_ar_outlives_an_hour_of_5_percent_loss_and_10_ms_of_jitter() {
    for seed in 1..=3 {
        let mut with = station();
        with.redundancy = 3;
        with.play_out = 3;
        let mut plant = Plant::with(IO, IO, with, |_| {}, |_| {});
        plant.impair(
            &Impairment {
                loss: 0.05,
                delay: Duration::from_millis(20),
                jitter: Jitter::Uniform(Duration::from_millis(10)),
                ..Impairment::default()
            },
            seed,
        );
        plant.run(Duration::from_secs(3600));
        let stats = plant.controller.stats();
        assert_eq!((stats.established, stats.aborts), (1, 0), "seed {seed}");
        assert_eq!(plant.device.stats().aborts, 0, "seed {seed}");
        // It has a price, which is bounded.
        let age = stats.consumed.age.quantile(0.99);
        assert!(age < Duration::from_millis(160), "{age:?}");
    }
}

#[test]
fn each_octet_order_and_the_device_s_own_ports_are_followed() {
    for (order, port) in [
        (Order::Big, 34964),
        (Order::Little, 34964),
        (Order::Big, 50_000),
    ] {
        let mut plant = Plant::with(
            IO,
            IO,
            station(),
            |controller| controller.order = order,
            |device| {
                device.order = order;
                device.rpc_port = port;
            },
        );
        plant.run(5 * SECOND);
        assert!(plant.controller.is_established(), "{order:?} {port}");
    }
}

#[test]
fn records_cross_and_are_told() {
    let record = Record {
        slot: 1,
        subslot: 1,
        index: 0x0010,
        data: vec![7; 900],
    };
    let write = record.clone();
    let mut plant = Plant::with(
        IO,
        IO,
        station(),
        |controller| controller.records = vec![write],
        |_| {},
    );
    plant.run(5 * SECOND);
    let told = || {
        (
            &plant.headend.events,
            &plant.edge.events,
            plant.controller.state(),
        )
    };
    assert!(plant.controller.is_established(), "{:?}", told());
    assert_eq!(plant.device.record(1, 1, 0x0010), Some(&record.data[..]));
    for end in [&plant.headend, &plant.edge] {
        let told = end.events.iter().any(|event| {
            matches!(event, Event::Changes { record: Some(place), rule: Some(rule), .. }
                if place.index == 0x0010 && &**rule == "line 1 io")
        });
        assert!(told, "{:?}", end.events);
    }
    let now = plant.now;
    assert!(plant.controller.read(now, 0, 1, 0xaff0));
    plant.run(SECOND);
    let facts = &plant.headend.bridge.parties().stations[0].facts;
    assert_eq!(facts.vendor_id, Some(0x0493));
    assert!(facts.order_number.is_some() && facts.serial.is_some() && facts.software.is_some());
}

#[test]
fn many_modules_make_a_connect_in_pieces() {
    use fieldlock_sim::profinet::Module;
    let modules: Vec<_> = (0..60)
        .map(|_| Module::input(4))
        .chain([Module::output(16)])
        .collect();
    let of_device = modules.clone();
    let mut plant = Plant::with(
        IO,
        IO,
        station(),
        |controller| controller.modules = modules,
        |device| device.modules = of_device,
    );
    plant.run(5 * SECOND);
    assert!(
        plant.controller.is_established(),
        "{:?}",
        plant.headend.events
    );
}

#[test]
fn a_release_ends_the_ar_at_both_ends() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    let now = plant.now;
    plant.controller.stop(now);
    plant.run(SECOND);
    for end in [&plant.headend, &plant.edge] {
        assert!(end.bridge.table().is_empty());
        let ended = end.events.iter().any(|event| {
            matches!(
                event,
                Event::ArDown {
                    why: Ended::Released,
                    ..
                }
            )
        });
        assert!(ended, "{:?}", end.events);
    }
}

#[test]
fn an_abort_says_which_end_it_came_from() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    plant.cut = true;
    plant.run(SECOND);
    plant.cut = false;
    plant.run(SECOND);
    let ended = plant.headend.events.iter().find_map(|event| match event {
        Event::ArDown { why, .. } => Some(*why),
        _ => None,
    });
    let Some(Ended::Aborted { status, .. }) = ended else {
        panic!("{:?}", plant.headend.events);
    };
    assert!(status.abort_reason().unwrap().contains("watchdog"));
    // And it comes back by itself.
    plant.run(10 * SECOND);
    assert!(plant.controller.is_established());
}

#[test]
fn a_lost_tunnel_is_silence_and_the_next_one_brings_a_new_ar() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    plant.tunnel_is_lost();
    let before = plant.on_devices_wire.len();
    plant.run(SECOND);
    assert_eq!(plant.on_devices_wire.len(), before);
    assert!(!plant.controller.is_established());
    assert_eq!(plant.device.established(), 0);
}

#[test]
fn other_rules_end_what_is_open() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    let now = plant.now;
    let closed = policy("syntax = 1\n");
    plant.edge.act(|bridge| {
        bridge.set_policy(now, closed, fieldlock_policy::Now::At(0));
    });
    plant.run(5 * SECOND);
    assert!(plant.edge.bridge.table().is_empty());
    assert!(!plant.controller.is_established());
    assert_eq!(plant.device.established(), 0);
}

#[test]
fn another_configuration_of_one_station_leaves_the_rest_alone() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    let now = plant.now;
    let mut second = station();
    second.name = "drive-2".parse().unwrap();
    plant.edge.act(|bridge| {
        bridge.set_parties(now, vec![second, station()], &[]);
    });
    plant.run(5 * SECOND);
    let stats = plant.controller.stats();
    assert_eq!((stats.established, stats.aborts), (1, 0));
}

#[test]
fn the_far_wire_has_the_tag_the_padding_and_the_addresses_of_the_near_one() {
    let mut plant = Plant::new(IO);
    plant.run(5 * SECOND);
    let of_plc: Vec<_> = plant
        .on_devices_wire
        .iter()
        .filter(|frame| frame[6..12] == PLC.0)
        .collect();
    let cyclic = of_plc.last().unwrap();
    assert_eq!(&cyclic[..6], &DRIVE.0);
    assert_eq!(&cyclic[12..18], &[0x81, 0x00, 0xc0, 0x00, 0x88, 0x92]);
    assert!(cyclic.len() >= 60);
    let halves: Vec<_> = plant.edge.bridge.table().iter().map(|ar| ar.id).collect();
    let receives = plant.edge.bridge.flows(halves[0]).any(
        |(_, flow)| matches!(&flow.half, Half::Receive(receiver) if receiver.stats().gaps == 0),
    );
    assert!(receives);
}
