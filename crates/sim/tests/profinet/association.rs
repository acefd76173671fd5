//! From a name to data exchange, records, and the end of it.

use std::net::Ipv4Addr;
use std::time::Duration;

use fieldlock_profinet::{FrameId, Mac};
use fieldlock_sim::profinet::{
    Controller, ControllerConfig, Defect, Event, IpSuite, Module, Order, Record, Side,
};
use fieldlock_testkit::link::{Decision, Impairment, Link};

use crate::world::{
    DEVICE, DEVICE_IP, Who, World, controller_config, controller_mac, frame_id, is_udp,
};

const CONNECT: Duration = Duration::from_secs(5);

fn record(index: u16, data: &[u8]) -> Record {
    Record {
        slot: 1,
        subslot: 1,
        index,
        data: data.to_vec(),
    }
}

#[test]
fn a_controller_finds_connects_parametrizes_and_exchanges_data() {
    let mut world = World::new(|controller, _| {
        controller.records = vec![record(1, b"first"), record(2, &[7; 300])];
    });
    assert!(world.run_until(CONNECT, |world| world.device.established() == 1));
    let connected = |peer| Event::Connected {
        peer,
        input: FrameId(0x8000),
        output: FrameId(0x8000),
        cycle: Duration::from_millis(32),
        watchdog: Duration::from_millis(96),
    };
    assert_eq!(
        world.events_of(Who::Controller(0)),
        [
            &Event::Found {
                mac: DEVICE,
                ip: DEVICE_IP
            },
            &connected(DEVICE),
            &Event::Established
        ]
    );
    let written = |index, data: &[u8]| Event::RecordWritten {
        slot: 1,
        subslot: 1,
        index,
        data: data.to_vec(),
    };
    assert_eq!(
        world.events_of(Who::Device),
        [
            &connected(controller_mac(0)),
            &written(1, b"first"),
            &written(2, &[7; 300]),
            &Event::Established
        ]
    );
    assert_eq!(world.device.record(1, 1, 1), Some(&b"first"[..]));
}

#[test]
fn each_side_may_have_either_byte_order() {
    for controller in [Order::Big, Order::Little] {
        for device in [Order::Big, Order::Little] {
            let world = World::established(|one, other| {
                one.order = controller;
                other.order = device;
            });
            assert_eq!(world.device.stats().retransmits, 0);
        }
    }
}

#[test]
fn answers_come_from_the_port_that_is_configured() {
    for port in [34964, 49152] {
        let mut world = World::new(|_, device| device.rpc_port = port);
        world.record = true;
        assert!(world.run_until(CONNECT, |world| world.device.established() == 1));
        let mut ports = world
            .sent
            .iter()
            .filter(|(_, frame)| is_udp(frame) && frame[6..12] == DEVICE.0)
            .map(|(_, frame)| u16::from_be_bytes([frame[34], frame[35]]));
        assert!(ports.all(|from| from == port));
    }
}

#[test]
fn a_connect_of_many_modules_is_sent_in_fragments() {
    let mut world = World::new(|controller, device| {
        let modules = vec![
            Module {
                input: 8,
                output: 4
            };
            60
        ];
        controller.modules = [vec![Module::input(16), Module::output(16)], modules].concat();
        device.modules.clone_from(&controller.modules);
    });
    world.record = true;
    assert!(world.run_until(CONNECT, |world| world.device.established() == 1));
    let connects = world
        .sent
        .iter()
        .filter(|(_, frame)| is_udp(frame) && frame[6..12] == controller_mac(0).0)
        // Flags: a fragment.
        .filter(|(_, frame)| frame[44] & 0x04 != 0)
        .count();
    assert!(connects >= 3, "{connects} fragments");
    world.run(Duration::from_secs(1));
    assert!(world.device.stats().consumed.age.count() > 20);
}

#[test]
fn the_ip_suite_is_set_when_the_controller_wants_another() {
    let wanted = IpSuite::local(Ipv4Addr::new(192, 168, 0, 77));
    let mut world = World::new(|controller, device| {
        controller.device_ip = Some(wanted);
        device.ip = IpSuite::NONE;
    });
    assert!(world.run_until(CONNECT, |world| world.device.established() == 1));
    assert_eq!(world.device.ip(), wanted);
    assert_eq!(world.device.asked().set_ip, 1);
    // Next time it has it.
    let now = world.now;
    world.device.restart(now);
    world.run(Duration::from_secs(10));
    assert_eq!(
        (world.device.asked().set_ip, world.device.established()),
        (1, 1)
    );
}

#[test]
fn answers_to_identify_are_spread_and_late_ones_count() {
    let mut world = World::new(|controller, _| {
        controller.delay_factor = 150;
        controller.identify_timeout = Duration::from_millis(400);
        controller.identify_tries = 4;
    });
    assert!(world.run_until(CONNECT, |world| world.device.established() == 1));
}

#[test]
fn a_device_that_is_not_there_is_looked_for_again() {
    let mut world = World::new(|_, device| device.name = "drive-2".to_owned());
    world.run(Duration::from_secs(19));
    let events = world.events_of(Who::Controller(0));
    assert_eq!(events, [&Event::NotFound { tries: 3 }; 2]);
    assert_eq!(world.device.asked().identify, 9);
    assert_eq!(world.controllers[0].stats().aborts, 0);
}

#[test]
fn lost_packets_of_calls_are_repeated_and_change_nothing_twice() {
    let mut world = World::new(|controller, device| {
        controller.records = vec![record(1, b"once")];
        controller.rpc_tries = 20;
        device.rpc_tries = 20;
    });
    // Of five datagrams, two in a row are lost: requests and answers.
    let mut number = 0;
    world.passes = Box::new(move |_, _, frame| {
        number += u32::from(is_udp(frame));
        !is_udp(frame) || number % 5 >= 2
    });
    assert!(
        world.run_until(Duration::from_secs(60), |world| world.device.established()
            == 1)
    );
    let asked = world.device.asked();
    assert_eq!((asked.connect, asked.write), (1, 1));
    assert!(world.controllers[0].stats().retransmits > 0);
}

#[test]
fn records_are_read_and_written_while_data_is_exchanged() {
    let mut world = World::established(|_, _| {});
    let now = world.now;
    let large = vec![0x5a; 3000];
    let controller = world.controller();
    assert!(controller.write(now, record(0x100, &large)));
    assert!(controller.read(now, 1, 1, 0x100));
    assert!(controller.read(now, 0, 1, 0xaff0));
    assert!(controller.read(now, 1, 1, 0x101));
    assert!(controller.write(now, record(0xf000, &[])));
    world.run(Duration::from_secs(1));
    let events = world.events_of(Who::Controller(0));
    let [first, iandm0, missing, refused] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(
        *first,
        &Event::RecordRead {
            index: 0x100,
            status: 0,
            data: large
        }
    );
    let Event::RecordRead {
        index,
        status,
        data,
    } = iandm0
    else {
        panic!("{iandm0:?}");
    };
    assert_eq!((*index, *status, data.len()), (0xaff0, 0, 60));
    assert_eq!(&data[8..21], b"SIM-IO-DEVICE");
    let Event::RecordRead { status, data, .. } = missing else {
        panic!("{missing:?}");
    };
    assert_eq!((*status, data.len()), (0xde80_b000, 0));
    assert_eq!(
        *refused,
        &Event::Refused {
            status: 0xdf80_b000
        }
    );
    assert_eq!(world.controllers[0].stats().aborts, 0);
}

#[test]
fn a_release_ends_the_ar_without_an_abort_and_it_can_begin_again() {
    let mut world = World::established(|_, _| {});
    let now = world.now;
    world.controller().stop(now);
    world.run(Duration::from_secs(5));
    assert!(world.controllers[0].is_stopped());
    assert_eq!(world.events_of(Who::Device), [&Event::Released]);
    for stats in [world.controllers[0].stats(), world.device.stats()] {
        assert_eq!((stats.released, stats.aborts), (1, 0));
    }
    let sent = world.device.stats().sent;
    world.run(Duration::from_secs(1));
    assert_eq!(world.device.stats().sent, sent);
    let now = world.now;
    world.controller().start(now);
    assert!(world.run_until(CONNECT, |world| world.device.established() == 1));
}

#[test]
fn a_controller_that_was_stopped_stays_down_when_the_answer_to_its_release_is_lost() {
    let mut world = World::established(|_, _| {});
    world.passes = Box::new(|_, who, frame| who != Who::Device || !is_udp(frame));
    let now = world.now;
    world.controller().stop(now);
    world.run(Duration::from_millis(20));
    let now = world.now;
    world.controller().stop(now);
    world.run(Duration::from_secs(30));
    assert!(world.controllers[0].is_stopped());
    assert_eq!(world.device.stats().released, 1);
    assert_eq!(world.controllers[0].stats().released, 1);
    assert_eq!(world.controllers[0].stats().aborts, 0);
}

#[test]
fn a_device_that_restarts_is_connected_again() {
    let mut world = World::established(|_, _| {});
    let now = world.now;
    world.device.restart(now);
    world.run(Duration::from_secs(10));
    let stats = world.controllers[0].stats();
    assert_eq!((stats.aborts, stats.established), (1, 2));
    // Nobody told it: its watchdog did.
    assert_eq!(
        (stats.abort_log[0].side, stats.abort_log[0].status),
        (Side::Controller, 0xcf81_fd05)
    );
}

#[test]
fn a_controller_that_starts_anew_replaces_its_former_ar() {
    let mut world = World::established(|_, _| {});
    let config = ControllerConfig {
        seed: 7,
        ..controller_config(world.start, 0)
    };
    world.controllers[0] = Controller::new(config, world.now).expect("configuration");
    world.run(Duration::from_millis(80));
    assert_eq!(world.device.stats().abort_log[0].status, 0xcf81_fd0e);
    world.run(Duration::from_secs(1));
    assert_eq!(
        (world.device.established(), world.device.stats().aborts),
        (1, 1)
    );
}

#[test]
fn several_controllers_have_ars_up_to_a_bound() {
    let mut world = World::new(|_, device| device.max_ars = 2);
    for number in [1, 2] {
        let config = controller_config(world.start, number);
        world
            .controllers
            .push(Controller::new(config, world.now).expect("configuration"));
    }
    world.run(Duration::from_secs(3));
    assert_eq!(world.device.established(), 2);
    let refused: Vec<u32> = world
        .events
        .iter()
        .filter_map(|(_, who, event)| match (who, event) {
            (Who::Controller(_), Event::Refused { status }) => Some(*status),
            _ => None,
        })
        .collect();
    assert!(!refused.is_empty() && refused.iter().all(|status| *status == 0xdb81_4004));
    assert_eq!(world.device.stats().aborts, 0);
}

#[test]
fn what_a_device_does_not_do_is_refused_by_its_parameter() {
    let status = |change: fn(&mut ControllerConfig)| {
        let mut world = World::new(|controller, _| change(controller));
        world.run(Duration::from_millis(500));
        assert_eq!(world.device.established(), 0);
        let refused = world
            .events
            .iter()
            .find_map(|(_, who, event)| match (who, event) {
                (Who::Controller(0), Event::Refused { status }) => Some(*status),
                _ => None,
            });
        refused.unwrap_or_else(|| panic!("{:?}", world.events))
    };
    let irt = status(|controller| controller.defect = Some(Defect::IrtConnect));
    assert_eq!(irt, 0xdb81_0207);
    let udp = status(|controller| controller.defect = Some(Defect::RtOverUdp));
    assert_eq!(udp, 0xdb81_0206);
    let longer = status(|controller| controller.modules[0] = Module::input(17));
    // The length of slot 1 as the device knows it leaves room, the submodule is another.
    assert_eq!(longer, 0xdb81_030b);
    let more = status(|controller| controller.modules.push(Module::input(1)));
    assert_eq!(more, 0xdb81_0216);
    let retries = status(|controller| controller.rta_retries = 2);
    assert_eq!(retries, 0xdb81_0408);
}

#[test]
fn a_claim_of_four_gibibytes_is_not_believed() {
    let mut world = World::new(|controller, _| controller.defect = Some(Defect::BigNdrCount));
    world.run(Duration::from_secs(10));
    assert_eq!(
        (world.device.established(), world.device.asked().connect),
        (0, 0)
    );
    assert!(world.device.asked().malformed > 0);
    assert!(world.controllers[0].stats().aborts > 0);
}

#[test]
fn a_set_from_a_stranger_takes_the_device_over() {
    let stranger = Mac([0x02, 0, 0, 0, 0, 0x66]);
    let mut world =
        World::new(|controller, _| controller.defect = Some(Defect::SetsIpFrom(stranger)));
    world.record = true;
    world.run(Duration::from_secs(1));
    assert_eq!(world.device.asked().set_ip, 1);
    assert_eq!(world.device.ip().address, Ipv4Addr::new(10, 66, 66, 66));
    let sets = world
        .sent
        .iter()
        .filter(|(_, frame)| frame_id(frame) == Some(0xfefd) && frame[6..12] == stranger.0)
        .count();
    assert_eq!(sets, 1);
}

#[test]
fn a_device_says_hello_when_it_is_told_to() {
    let mut world = World::new(|_, device| device.hello = true);
    world.record = true;
    world.run(Duration::from_millis(1));
    let hello = world
        .sent
        .iter()
        .find(|(_, frame)| frame_id(frame) == Some(0xfefc));
    assert_eq!(hello.expect("a hello").1[..6], Mac::DCP_HELLO.0);
}

#[test]
fn five_lost_frames_in_a_hundred_break_a_watchdog_of_three_and_not_one_of_ten() {
    let run = |factor| {
        let mut world = World::new(|controller, _| controller.watchdog_factor = factor);
        let impairment = Impairment {
            loss: 0.05,
            ..Impairment::default()
        };
        let mut link = Link::new(impairment, 1, world.start);
        let start = world.start;
        world.passes = Box::new(move |since, _, frame| {
            matches!(
                link.handle(start + since, frame.len()),
                Decision::Deliver(_)
            )
        });
        world.run(Duration::from_secs(3600));
        world.controllers[0].stats().aborts + world.device.stats().aborts
    };
    assert!(run(3) > 0);
    assert_eq!(run(10), 0);
}
