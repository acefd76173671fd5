//! tshark's opinion of a whole life: nothing malformed, and each command by its name.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fieldlock_profinet::cm::Message;
use fieldlock_profinet::rpc::Rpc;
use fieldlock_profinet::{Class, Frame, classify};
use fieldlock_sim::profinet::{IpSuite, Module, Order, Record};
use fieldlock_testkit::peers::Peer;

use crate::world::{DEVICE_IP, World};

/// Everything that the simulators say: discovery with Set, fragments, records, refusals, alarms,
/// an abort, a release.
fn life(order: Order) -> Vec<(Duration, Vec<u8>)> {
    let mut world = World::new(|controller, device| {
        controller.order = order;
        device.order = match order {
            Order::Big => Order::Little,
            Order::Little => Order::Big,
        };
        device.hello = true;
        device.ip = IpSuite::NONE;
        controller.device_ip = Some(IpSuite::local(DEVICE_IP));
        let modules = vec![
            Module {
                input: 8,
                output: 4
            };
            40
        ];
        controller.modules = [vec![Module::input(16), Module::output(16)], modules].concat();
        device.modules.clone_from(&controller.modules);
        controller.records = vec![Record {
            slot: 1,
            subslot: 1,
            index: 1,
            data: vec![1; 20],
        }];
    });
    world.record = true;
    let second = Duration::from_secs(1);
    world.run(second);
    assert_eq!(world.device.established(), 1, "{:?}", world.events);
    let now = world.now;
    world.device.raise_alarm(now, true, 2, 1, &[1, 2, 3, 4]);
    world.device.raise_alarm(now, false, 1, 2, &[]);
    let controller = world.controller();
    controller.read(now, 0, 1, 0xaff0);
    controller.read(now, 1, 1, 1);
    controller.read(now, 1, 1, 0x999);
    world.run(second);
    // Silence: the watchdog, and a new AR.
    let from = world.elapsed();
    world.passes = Box::new(move |at, _, _| at < from || at > from + Duration::from_millis(200));
    world.run(second * 4);
    assert_eq!(world.device.established(), 1);
    let now = world.now;
    world.controller().stop(now);
    world.run(second);
    world.sent
}

fn write_pcap(path: &Path, frames: &[(Duration, Vec<u8>)]) {
    // Microseconds, Ethernet (draft-ietf-opsawg-pcap).
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for (at, frame) in frames {
        let length = frame.len() as u32;
        for word in [at.as_secs() as u32, at.subsec_micros(), length, length] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(frame);
    }
    fs::write(path, file).expect("the capture is written");
}

fn tshark(capture: &Path, arguments: &[&str]) -> String {
    let output = Command::new("tshark")
        .arg("-r")
        .arg(capture)
        .args([
            "-o",
            "udp.check_checksum:TRUE",
            "-o",
            "ip.check_checksum:TRUE",
        ])
        .args(arguments)
        .output()
        .expect("tshark runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn tshark_finds_nothing_malformed_and_names_each_command() {
    if let Some(missing) = Peer::skip_reason(&["tshark"]) {
        eprintln!("tshark_finds_nothing_malformed_and_names_each_command: skipped: {missing}");
        return;
    }
    for order in [Order::Big, Order::Little] {
        let folder = tempfile::tempdir().expect("a folder");
        let capture = folder.path().join("life.pcap");
        write_pcap(&capture, &life(order));

        let wrong = tshark(
            &capture,
            &[
                "-Y",
                "_ws.malformed || _ws.expert.severity >= \"Warning\" || udp.checksum.status == 0 || ip.checksum.status == 0",
            ],
        );
        assert_eq!(wrong, "", "{order:?}");
        let names = tshark(
            &capture,
            &[
                "-Y",
                "!(pn_rt.frame_id >= 0x8000 && pn_rt.frame_id < 0xfc00)",
            ],
        );
        for expected in NAMES {
            assert!(
                names.contains(expected),
                "{order:?}: no `{expected}` in\n{names}"
            );
        }
        let ids = tshark(
            &capture,
            &[
                "-T",
                "fields",
                "-e",
                "pn_rt.cycle_counter",
                "-e",
                "pn_rt.ds",
                "-Y",
                "pn_rt.frame_id == 0x8000",
            ],
        );
        assert!(ids.lines().count() > 60);
        assert!(ids.lines().all(|line| line.ends_with("0x35")), "{ids}");
    }
}

#[test]
fn the_parsers_of_the_conduit_read_each_frame_and_each_call() {
    for order in [Order::Big, Order::Little] {
        let mut calls = 0;
        for (at, frame) in life(order) {
            let frame = Frame::parse(&frame).expect("a frame");
            let Class::Udp(datagram) = classify(&frame).expect("a kind") else {
                continue;
            };
            let rpc = Rpc::parse(datagram.udp.payload).expect("a packet");
            if !rpc.is_fragment() {
                let message = Message::parse(&rpc, rpc.body);
                assert!(message.is_ok(), "{at:?} {order:?}: {message:?}");
                calls += 1;
            }
        }
        assert!(calls > 20, "{calls}");
    }
}

const NAMES: [&str; 22] = [
    "Hello Req",
    "Ident Req",
    "Ident Ok",
    "ARP Probe",
    "Set Req",
    "Response(Ok)",
    "Request: seq: 0 frag: 1",
    "Connect request, ARBlockReq, IOCRBlockReq, IOCRBlockReq, ExpectedSubmoduleBlockReq",
    "Connect response, OK, ARBlockRes, IOCRBlockRes, IOCRBlockRes, AlarmCRBlockRes",
    "Write response, OK",
    "Command: ParameterEnd",
    "Command: ApplicationReady",
    "IOXBlockRes Application Ready.rsp, Command: Done",
    "Alarm Notification High, Process, Slot: 0x1/0x1",
    "Alarm Notification Low, Diagnosis, Slot: 0x2/0x1",
    "Alarm Ack High, Alarm Ack, Process",
    "ACK-RTA",
    "Index:I&M0, 60 bytes, I&M0",
    "access: invalid index",
    "AR consumer DHT/WDT expired (RTA_ERR_ABORT)",
    "IODReleaseReq, Command: Release",
    "Release response, OK",
];
