//! The rig itself: what tests of PROFINET stand on.

use std::process::Command;
use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;
use fieldlock_rawsock::{Filter, PacketSocket};
use fieldlock_testkit::process::Directory;
use fieldlock_tests::rig::{CONTROLLER_WIRE, DEVICE_WIRE, Rig};
use fieldlock_tests::{SOON, trial};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::on_rig("rig::frames_reach_the_agents_and_no_further", frames_stop),
        trial::on_rig("rig::several_are_up_at_once", several_are_up),
        trial::on_rig("rig::processes_start_where_they_are_put", processes_start),
        trial::on_rig("rig::a_pulled_cable_is_plugged_in_again", cable_is_pulled),
    ]
}

fn frames_stop(rig: &Rig) {
    for (station, wire, far) in [
        (&rig.controller, CONTROLLER_WIRE, &rig.device),
        (&rig.device, DEVICE_WIRE, &rig.controller),
    ] {
        let mut station = rig.station(station);
        let mut far = rig.station(far);
        let mut agent = agent(rig, wire);
        station.try_send(&[&frame(1)]).unwrap();
        assert_eq!(heard(&mut agent), frame(1));
        agent.try_send(&[&frame(2)]).unwrap();
        assert_eq!(heard(&mut station), frame(2));
        assert_eq!(far.try_recv(|_| {}).unwrap(), 0);
    }
}

fn several_are_up(rig: &Rig) {
    let other = Rig::up().unwrap();
    let mut there = agent(&other, CONTROLLER_WIRE);
    let mut here = agent(rig, CONTROLLER_WIRE);
    let mut controller = rig.station(&rig.controller);
    controller.try_send(&[&frame(1)]).unwrap();
    assert_eq!(heard(&mut here), frame(1));
    assert_eq!(there.try_recv(|_| {}).unwrap(), 0);
}

fn processes_start(rig: &Rig) {
    let directory = Directory::new().unwrap();
    let mut show = Command::new("ip");
    show.args(["-o", "link"]);
    let mut process = rig.spawn_in(&rig.device, "links", &mut show, directory.path());
    assert!(process.wait_exit(SOON).unwrap().success());
    let log = process.log();
    assert!(log.contains("eth0") && !log.contains(DEVICE_WIRE), "{log}");
}

fn cable_is_pulled(rig: &Rig) {
    let mut agent = agent(rig, DEVICE_WIRE);
    let mut device = rig.station(&rig.device);
    rig.ip(&rig.device, "link set eth0 down");
    assert!(device.try_send(&[&frame(1)]).is_err());
    rig.ip(&rig.device, "link set eth0 up");
    rig.wait_plugged(&rig.device, "eth0");
    rig.wait_plugged(&rig.agents, DEVICE_WIRE);
    device.try_send(&[&frame(2)]).unwrap();
    assert_eq!(heard(&mut agent), frame(2));
}

fn agent(rig: &Rig, wire: &str) -> PacketSocket {
    rig.among_agents(|| PacketSocket::open(wire, Filter::default()))
        .unwrap()
}

/// DCP to all, with a priority tag.
fn frame(number: u8) -> Vec<u8> {
    let mut frame = Mac::BROADCAST.0.to_vec();
    frame.extend([
        0, 0x1b, 0x1b, 1, 2, 3, 0x81, 0, 0, 0, 0x88, 0x92, 0xfe, 0xfe,
    ]);
    frame.resize(60, number);
    frame
}

#[track_caller]
fn heard(socket: &mut PacketSocket) -> Vec<u8> {
    let deadline = Instant::now() + SOON;
    let mut seen = None;
    while seen.is_none() {
        assert!(Instant::now() < deadline, "no frame arrived");
        socket
            .try_recv(|frame| seen = Some(frame.to_vec()))
            .unwrap();
        std::thread::sleep(Duration::from_micros(100));
    }
    seen.unwrap()
}
