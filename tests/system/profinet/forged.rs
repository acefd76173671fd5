//! Frames in the name of others, and frames of no concern: what a station's wire keeps to itself.

use fieldlock_audit::{Decision, Kind, Record};
use fieldlock_profinet::{Frame, Mac, Tag, eth};
use fieldlock_rawsock::PacketSocket;
use fieldlock_tests::plant::{
    self, STATION, ar, dropped, live_controller, live_device, wait_established,
};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::sniffer::{Seen, Sniffer};
use fieldlock_tests::{Agent, Pair, Transport, eventually, trial};
use libtest_mimic::Trial;

use super::refused::assert_lives;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial::on_rig("profinet::forged_data_and_aborts_end_nothing", forged),
        trial::on_rig(
            "attacks::a25_sets_and_foreign_addresses_are_dropped_counted_and_on_record",
            foreign,
        ),
        trial::on_rig_with(
            "attacks::a25_nothing_of_a_flood_is_on_the_other_wire",
            &["tshark"],
            flood,
        ),
    ]
}

const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 9]);
/// RTA, type ERR: CF 81 FD 05, between references that no AR has.
const ABORT: [u8; 18] = [
    0xfe, 0x01, 0x7f, 0xfe, 0x7f, 0xfe, 0x14, 1, 0xff, 0xff, 0xff, 0xff, 0, 4, 0xcf, 0x81, 0xfd, 5,
];
/// DCP Set of the name `pump-9`.
const SET_NAME: [u8; 24] = *b"\xfe\xfd\x04\0\0\0\0\x07\0\0\0\x0c\x02\x02\0\x08\0\x01pump-9";

fn forged(rig: &Rig) {
    let pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    let (plc, drive) = (rig.mac_of(&rig.controller), rig.mac_of(&rig.device));
    let device = live_device(rig);
    let controller = live_controller(rig, |_| {});
    wait_established(&pair, &controller);
    let [output, input] = ["controller", "device"].map(|from| frame_id(&pair, from));

    let mut wire = rig.station(&rig.controller);
    let mut refused = |reason, frame: &[u8]| expect_drop(&pair.headend, reason, &mut wire, frame);
    refused(
        "no-ar",
        &frame(drive, STRANGER, eth::PROFINET, &data(output)),
    );
    refused(
        "no-ar",
        &frame(drive, plc, eth::PROFINET, &data(output ^ 1)),
    );
    // Without the octets that its IOCR promises, not even as padding.
    let short = &frame(drive, plc, eth::PROFINET, &data(output))[..30];
    refused("malformed", short);
    refused("not-paired", &frame(drive, STRANGER, eth::PROFINET, &ABORT));
    refused("no-ar", &frame(drive, plc, eth::PROFINET, &ABORT));

    let mut wire = rig.station(&rig.device);
    let mut refused = |reason, frame: &[u8]| expect_drop(&pair.edge, reason, &mut wire, frame);
    refused("no-ar", &frame(plc, STRANGER, eth::PROFINET, &data(input)));
    refused(
        "malformed",
        &frame(plc, drive, eth::PROFINET, &data(input))[..30],
    );
    refused("not-paired", &frame(plc, STRANGER, eth::PROFINET, &ABORT));
    refused("no-ar", &frame(plc, drive, eth::PROFINET, &ABORT));

    assert_lives(&controller);
    device.with(|device, _| {
        assert_eq!(device.asked().unknown_cyclic, 0);
        let stats = device.stats();
        assert_eq!((stats.aborts, stats.consumed.altered), (0, 0));
    });
}

fn foreign(rig: &Rig) {
    let pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    let (plc, drive) = (rig.mac_of(&rig.controller), rig.mac_of(&rig.device));
    let device = live_device(rig);
    let controller = live_controller(rig, |_| {});
    wait_established(&pair, &controller);

    let mut wire = rig.station(&rig.controller);
    let mut refused = |reason, frame: &[u8]| expect_drop(&pair.headend, reason, &mut wire, frame);
    refused("denied", &frame(drive, plc, eth::PROFINET, &SET_NAME));
    refused(
        "not-paired",
        &frame(drive, STRANGER, eth::PROFINET, &SET_NAME),
    );
    refused(
        "foreign-source",
        &frame(Mac::BROADCAST, drive, eth::PROFINET, &SET_NAME),
    );
    let denied = |what: &str, told: &dyn Fn(&Record) -> bool| {
        let is = |record: &Record| record.kind == Kind::Denied && told(record);
        let record = pair.headend.wait_record(what, is);
        assert_eq!(record.decision, Some(Decision::Deny));
        assert_eq!(record.station.as_deref(), Some(STATION));
    };
    denied("the refused Set", &|record| {
        let client = record.client.as_ref();
        let mac = client.and_then(|client| client.mac.as_deref());
        record.service.as_deref() == Some("set-name") && mac == Some(&*plc.to_string())
    });
    denied("the address on the wrong wire", &|record| {
        let reason = record.reason.as_deref();
        reason.is_some_and(|reason| reason.contains(&drive.to_string()))
    });

    // The controller's address on the devices' wire.
    let mut wire = rig.station(&rig.device);
    let claim = frame(Mac::BROADCAST, plc, eth::PROFINET, &SET_NAME);
    expect_drop(&pair.edge, "foreign-source", &mut wire, &claim);

    assert_lives(&controller);
    let asked = device.with(|device, _| device.asked());
    assert_eq!((asked.set_name, asked.set_ip, asked.reset), (0, 0, 0));
}

/// Frames on each wire.
const FLOOD: usize = 4_000;

fn flood(rig: &Rig) {
    let pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    let _device = live_device(rig);
    let controller = live_controller(rig, |_| {});
    wait_established(&pair, &controller);
    let (plc, drive) = (rig.mac_of(&rig.controller), rig.mac_of(&rig.device));
    let [output, input] = ["controller", "device"].map(|from| frame_id(&pair, from));
    for (near, far, agent, spoken, theirs) in [
        (
            &rig.controller,
            &rig.device,
            &pair.headend,
            (plc, drive),
            output,
        ),
        (
            &rig.device,
            &rig.controller,
            &pair.edge,
            (drive, plc),
            input,
        ),
    ] {
        let (own, other) = spoken;
        let sniffer = Sniffer::start(rig, far, "far", &pair.directory);
        let mut wire = rig.station(near);
        for number in 0..FLOOD {
            let frame = unlisted(number, own, other);
            eventually("room to send", || wire.try_send(&[&frame]).unwrap() == 1);
        }
        // What comes after all of that has been looked at: so has all of that.
        let last = frame(Mac::BROADCAST, own, eth::PROFINET, &data(IRT));
        expect_drop(agent, "irt", &mut wire, &last);
        assert_lives(&controller);
        let back = input ^ output ^ theirs;
        let belongs = |seen: &Seen| {
            let of_the_ar = (seen.src == own && seen.frame_id == Some(theirs))
                || (seen.src == other && seen.frame_id == Some(back));
            of_the_ar && seen.ethertype == eth::PROFINET
        };
        let seen = sniffer.stop(rig, far);
        let cyclic = seen.iter().filter(|seen| seen.src == own).count();
        assert!(cyclic > 0, "the capture is of the right wire");
        let leaked: Vec<_> = seen.iter().filter(|seen| !belongs(seen)).take(3).collect();
        assert!(leaked.is_empty(), "{leaked:?}");
    }
}

/// A FrameID of RT_CLASS_3.
const IRT: u16 = 0x0100;

/// One of many kinds of frames that no rule lists: from the station itself and from a stranger, to
/// the other station, to all, and to groups.
fn unlisted(number: usize, own: Mac, other: Mac) -> Vec<u8> {
    let sources = [own, STRANGER];
    let targets = [
        other,
        Mac::BROADCAST,
        Mac::DCP_IDENTIFY,
        Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        Mac([0x01, 0x15, 0x4e, 0, 0, 1]),
        Mac([0x33, 0x33, 0, 0, 0, 1]),
    ];
    // Link-local, multicast, reserved, fragments, RSI, data of no AR, aborts, DCP that is denied.
    let profinet: [&[u8]; 12] = [
        &[0xff, 0x00, 1],
        &[0x00, 0x80, 1],
        &[0xf8, 0x00, 1],
        &[0xfc, 0x00, 1],
        &[0xff, 0x80, 1],
        &[0xfe, 0x02, 1],
        &[0xc7, 0x77, 1],
        &[0xfe, 0xfe, 5, 0],
        &[0xfe, 0xfc, 6, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        &[0xfe, 0xff, 5, 1, 0, 0, 0, 1, 0, 0, 0, 0],
        &ABORT,
        &SET_NAME,
    ];
    let tcp = ipv4(6, 34964);
    let (udp, rt_over_udp) = (ipv4(17, 53), ipv4(17, 0x8892));
    let others: [(u16, &[u8]); 8] = [
        (eth::LLDP, &[2, 7, 4]),
        (eth::MRP, &[0, 1]),
        (eth::ARP, &[0, 1, 8, 0, 6, 4, 0, 1]),
        (0x86dd, &[0x60; 40]),
        (0x88cd, &[1; 40]),
        (eth::IPV4, &tcp),
        (eth::IPV4, &udp),
        (eth::IPV4, &rt_over_udp),
    ];
    let kinds = profinet.len() + others.len();
    let (kind, rest) = (number % kinds, number / kinds);
    let (source, rest) = (sources[rest % 2], rest / 2);
    let (target, tagged) = (targets[rest % targets.len()], rest / targets.len() % 2 == 1);
    let (ethertype, payload) = match profinet.get(kind) {
        Some(payload) => (eth::PROFINET, *payload),
        None => others[kind - profinet.len()],
    };
    let mut out = Vec::new();
    Frame {
        dst: target,
        src: source,
        tag: tagged.then_some(Tag::priority_only(6)),
        ethertype,
        payload,
    }
    .encode(&mut out);
    out
}

/// A datagram from 192.168.0.1 to 192.168.0.20, without checksums, to a port.
fn ipv4(protocol: u8, port: u16) -> Vec<u8> {
    let mut out = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0];
    out.extend([192, 168, 0, 1, 192, 168, 0, 20]);
    for word in [port, port, 20, 0] {
        out.extend(word.to_be_bytes());
    }
    out.resize(40, 0);
    out
}

/// Cyclic data that is good in all that it says of itself.
fn data(frame_id: u16) -> Vec<u8> {
    let mut payload = frame_id.to_be_bytes().to_vec();
    payload.resize(42, 0x80);
    payload.extend([0, 1, 0x35, 0]);
    payload
}

fn frame(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Frame {
        dst,
        src,
        tag: None,
        ethertype,
        payload,
    }
    .encode(&mut out);
    out
}

/// Sends a frame, which the agent on this wire has to drop for `reason`.
#[track_caller]
fn expect_drop(agent: &Agent, reason: &str, wire: &mut PacketSocket, frame: &[u8]) {
    let before = dropped(agent, reason);
    assert_eq!(wire.try_send(&[frame]).unwrap(), 1);
    eventually(&format!("a frame to be dropped as {reason}"), || {
        dropped(agent, reason) > before
    });
}

/// FrameID of the data that one end of the AR sends.
fn frame_id(pair: &Pair, from: &str) -> u16 {
    let status = pair.headend.status();
    let directions = ar(&status).unwrap()["directions"].as_array().unwrap();
    let direction = directions.iter().find(|one| one["from"] == from).unwrap();
    let text = direction["frame_id"].as_str().unwrap();
    u16::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}
