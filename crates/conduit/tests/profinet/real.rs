//! What engineering tools and stations in the field send beside the usual.

use std::slice;
use std::time::Duration;

use fieldlock_conduit::profinet::{DropReason, Event};
use fieldlock_profinet::{Mac, Service, eth};
use fieldlock_sim::profinet::Module;

use crate::plant::{DRIVE, IO, LINK, PLC, Plant, station};
use crate::wires::{ALL, DEVICE_INTERFACE, Head, Peer, Wires, block, frame, ndr, rpc, udp};

const TOOL: Peer = (PLC, std::net::Ipv4Addr::new(192, 168, 0, 1), 50_000);
const DEVICE: Peer = (DRIVE, std::net::Ipv4Addr::new(192, 168, 0, 20), 34_964);

pub(crate) const ENDPOINT_MAPPER: [u8; 16] = [
    0xe1, 0xaf, 0x83, 0x08, 0x5d, 0x1f, 0x11, 0xc9, 0x91, 0xa4, 0x08, 0x00, 0x2b, 0x14, 0xa0, 0xfa,
];

fn call(interface: [u8; 16], opnum: u16) -> Head {
    Head {
        ptype: 0,
        interface,
        activity: 7,
        opnum,
    }
}

fn answer(head: Head) -> Head {
    Head { ptype: 2, ..head }
}

/// Asks for all interfaces, one at a time.
pub(crate) fn lookup() -> Vec<u8> {
    let mut body = vec![0; 76];
    body[7] = 1;
    body[27] = 2;
    body[75] = 1;
    body
}

pub(crate) fn found(text: &[u8]) -> Vec<u8> {
    let mut body = vec![7; 20];
    body.extend([1, 1, 0, 1].map(u32::to_be_bytes).concat());
    body.extend([9; 16]);
    body.extend([3, 0, text.len() as u32].map(u32::to_be_bytes).concat());
    body.extend(text);
    body.resize(body.len().next_multiple_of(4), 0);
    // Its tower has one floor, of UDP at port 49344; then the status.
    body.extend([9_u32, 9].map(u32::to_be_bytes).concat());
    body.extend([1, 0, 1, 0, 8, 2, 0, 0xc0, 0xc0, 0, 0, 0]);
    body.extend([0; 4]);
    body
}

/// One service alone, for anybody.
fn only(service: &str) -> String {
    format!("syntax = 1\n[[allow]]\nname = \"one\"\nstation = \"any\"\nservice = [\"{service}\"]\n")
}

#[test]
fn a_lookup_of_the_endpoint_mapper_crosses_where_get_is_allowed() {
    let mut wires = Wires::with(PLC, DRIVE, &only("get"));
    let head = call(ENDPOINT_MAPPER, 2);
    let request = udp(TOOL, DEVICE, &rpc(&head, &lookup()));
    assert_eq!(
        wires.controllers_say(&request),
        [vec![request.clone()], vec![]]
    );
    // From another port, as devices do.
    let from = (DEVICE.0, DEVICE.1, 1_208);
    let text = b"S7-1500                   6ES7 672-5DC01-0YA0      0 V  2  1  7 ";
    let response = udp(from, TOOL, &rpc(&answer(head), &found(text)));
    assert_eq!(
        wires.devices_say(&response),
        [vec![response.clone()], vec![]]
    );
    let free = Head {
        activity: 8,
        ..call(ENDPOINT_MAPPER, 4)
    };
    let request = udp(TOOL, DEVICE, &rpc(&free, &[7; 20]));
    assert_eq!(
        wires.controllers_say(&request)[0],
        slice::from_ref(&request)
    );
    assert_eq!(wires.headend.events, []);
}

#[test]
fn a_lookup_of_the_endpoint_mapper_is_refused_on_record_and_told_so() {
    let mut wires = Wires::with(PLC, DRIVE, &only("identify"));
    let request = udp(TOOL, DEVICE, &rpc(&call(ENDPOINT_MAPPER, 2), &lookup()));
    let [over, back] = wires.controllers_say(&request);
    assert!(over.is_empty());
    // RPC reject: unknown interface.
    let [back] = &back[..] else {
        panic!("{back:?}")
    };
    assert_eq!(back[42 + 1], 6);
    assert_eq!(back[42 + 80..][..4], [0x1c, 0x01, 0x00, 0x03]);
    let refused = wires.headend.events.iter().any(|event| {
        matches!(
            event,
            Event::Refused {
                service: Service::Get,
                ..
            }
        )
    });
    assert!(refused, "{:?}", wires.headend.events);
    assert_eq!(wires.headend.bridge.drops().get(DropReason::Denied), 1);
}

#[test]
fn what_the_endpoint_mapper_would_change_and_other_interfaces_stay_on_record() {
    let mut own = ENDPOINT_MAPPER;
    own[0] ^= 1;
    for (interface, opnum, body) in [
        (ENDPOINT_MAPPER, 0, vec![0; 76]),
        (ENDPOINT_MAPPER, 6, vec![0; 20]),
        (ENDPOINT_MAPPER, 2, vec![0; 39]),
        // Whose operation 2 and 3 would be reading and writing.
        (own, 2, ndr(4096, &block(0x0009, &[0; 58]))),
        (own, 3, ndr(4096, &block(0x0008, &[0; 58]))),
    ] {
        let mut wires = Wires::between(PLC, DRIVE);
        let request = udp(TOOL, DEVICE, &rpc(&call(interface, opnum), &body));
        let [over, back] = wires.controllers_say(&request);
        assert!(over.is_empty(), "{opnum}");
        assert_eq!(back.len(), 1, "{opnum}");
        let [Event::NotUnderstood { who, station, .. }] = &wires.headend.events[..] else {
            panic!("{opnum}: {:?}", wires.headend.events);
        };
        assert_eq!(who.as_ref().map(|who| who.mac), Some(PLC));
        assert_eq!(
            station.as_ref().map(ToString::to_string).as_deref(),
            Some("station-1")
        );
    }
    // A headend that was taken over gets no further.
    let mut wires = Wires::with(PLC, DRIVE, ALL);
    let now = wires.now;
    let request = udp(TOOL, DEVICE, &rpc(&call(own, 3), &[0; 80]));
    let edge = &mut wires.edge;
    edge.act(|bridge| bridge.handle_station(now, LINK, 0, &request));
    assert!(edge.wire.is_empty());
}

#[test]
fn a_call_is_cancelled_across_the_tunnel() {
    let mut wires = Wires::between(PLC, DRIVE);
    let mut head = call(ENDPOINT_MAPPER, 2);
    let request = udp(TOOL, DEVICE, &rpc(&head, &lookup()));
    assert_eq!(wires.controllers_say(&request)[0].len(), 1);
    head.ptype = 8;
    let cancel = udp(TOOL, DEVICE, &rpc(&head, &[0; 8]));
    assert_eq!(wires.controllers_say(&cancel)[0], slice::from_ref(&cancel));
    head.ptype = 10;
    let taken = udp(DEVICE, TOOL, &rpc(&head, &[0; 12]));
    assert_eq!(wires.devices_say(&taken)[0], slice::from_ref(&taken));
}

#[test]
fn what_a_person_sent_and_nobody_understands_is_on_record() {
    let get = |blocks: &[u8]| {
        let mut payload = vec![0xfe, 0xfd, 3, 0, 0, 0, 0, 1, 0, 0, 0, blocks.len() as u8];
        payload.extend(blocks);
        frame(DRIVE, PLC, None, eth::PROFINET, &payload)
    };
    let short = udp(TOOL, DEVICE, &[4, 0, 0]);
    let read = udp(TOOL, DEVICE, &rpc(&call(DEVICE_INTERFACE, 2), &[0; 30]));
    for bad in [get(&[2]), short, read] {
        let mut wires = Wires::between(PLC, DRIVE);
        let [over, _] = wires.controllers_say(&bad);
        assert!(over.is_empty());
        let [Event::NotUnderstood { who: Some(who), .. }] = &wires.headend.events[..] else {
            panic!("{:?}", wires.headend.events);
        };
        assert_eq!(who.mac, PLC);
        assert_eq!(wires.headend.bridge.drops().get(DropReason::Malformed), 1);
    }
    // Of who is not known a counter tells.
    let mut wires = Wires::between(PLC, DRIVE);
    let mut strange = get(&[2]);
    strange[11] = 0x77;
    wires.controllers_say(&strange);
    assert_eq!(wires.headend.events, []);
    // Another protocol between the two is no malformed one of ours.
    let snmp = udp(TOOL, (DEVICE.0, DEVICE.1, 161), &[0x30, 0x29, 2, 1, 0]);
    wires.controllers_say(&snmp);
    assert_eq!(wires.headend.events, []);
    assert_eq!(wires.headend.bridge.drops().get(DropReason::NoCall), 1);
}

fn identify_all(xid: u8) -> Vec<u8> {
    let payload = [0xfe, 0xfe, 5, 0, 0, 0, 0, xid, 0, 1, 0, 4, 0xff, 0xff, 0, 0];
    frame(Mac::DCP_IDENTIFY, PLC, None, eth::PROFINET, &payload)
}

fn identified(xid: u8, name: &[u8]) -> Vec<u8> {
    let mut blocks = vec![2, 2];
    blocks.extend((2 + name.len() as u16).to_be_bytes());
    blocks.extend([0, 0]);
    blocks.extend(name);
    if name.len() % 2 == 1 {
        blocks.push(0);
    }
    let mut payload = vec![0xfe, 0xff, 5, 1, 0, 0, 0, xid, 0, 0, 0, blocks.len() as u8];
    payload.extend(blocks);
    frame(PLC, DRIVE, None, eth::PROFINET, &payload)
}

#[test]
fn a_station_that_lost_its_name_is_seen_by_tools_and_is_on_record_until_it_has_one() {
    let mut wires = Wires::between(PLC, DRIVE);
    let said = |wires: &Wires| {
        let events = wires.edge.events.iter();
        let said = events.filter_map(|event| match event {
            Event::Nameless { said, mac, .. } => Some(format!("{mac} says `{said}`")),
            Event::Named { station } => Some(format!("{station} again")),
            _ => None,
        });
        said.collect::<Vec<_>>()
    };
    for (xid, name) in [(1, &b""[..]), (2, b""), (3, b"new"), (4, b"station-1")] {
        let question = identify_all(xid);
        assert_eq!(
            wires.controllers_say(&question)[0],
            slice::from_ref(&question)
        );
        let answer = identified(xid, name);
        assert_eq!(wires.devices_say(&answer)[0], slice::from_ref(&answer));
    }
    let expected = [
        format!("{DRIVE} says ``"),
        format!("{DRIVE} says `new`"),
        "station-1 again".to_owned(),
    ];
    assert_eq!(said(&wires), expected);
    // The tool gives it its name.
    let mut set = vec![0xfe, 0xfd, 4, 0, 0, 0, 0, 9, 0, 0, 0, 16, 2, 2, 0, 11, 0, 1];
    set.extend(b"station-1\0");
    let set = frame(DRIVE, PLC, None, eth::PROFINET, &set);
    assert_eq!(wires.controllers_say(&set)[0], slice::from_ref(&set));

    // Not without a rule, not without a configured address, not from another one.
    let read = only("read").replace("\"read\"]", "\"read\"]\nrecord = [\"any\"]");
    let mut closed = Wires::with(PLC, DRIVE, &read);
    assert!(closed.controllers_say(&identify_all(1))[0].is_empty());
    let mut unknown = Wires::of(
        &[PLC],
        vec![fieldlock_conduit::profinet::StationSettings {
            name: "station-1".parse().unwrap(),
            ..station()
        }],
        ALL,
    );
    unknown.controllers_say(&identify_all(1));
    assert!(unknown.devices_say(&identified(1, b""))[0].is_empty());
    let mut other = identified(5, b"");
    other[11] = 0x55;
    wires.controllers_say(&identify_all(5));
    assert!(wires.devices_say(&other)[0].is_empty());
}

#[test]
fn a_watchdog_that_the_way_can_not_keep_is_told_when_the_ar_opens_and_what_to_set() {
    let short = |play_out: u8, ratio: u16| {
        let mut with = station();
        with.play_out = play_out;
        let modules = vec![Module::input(16), Module::output(16)];
        let mut plant = Plant::with(
            IO,
            IO,
            with,
            |controller| {
                controller.reduction_ratio = ratio;
                controller.modules = modules;
            },
            |_| {},
        );
        for end in [&mut plant.headend, &mut plant.edge] {
            end.bridge.set_round_trip(LINK, Duration::from_millis(20));
        }
        plant.run(Duration::from_secs(5));
        assert!(plant.controller.is_established());
        [&plant.headend, &plant.edge].map(|end| {
            let told = end.events.iter().find_map(|event| match event {
                Event::ArUp { shortfall, .. } => Some(*shortfall),
                _ => None,
            });
            let told = told.unwrap();
            let ar = end.bridge.table().iter().next().unwrap();
            assert_eq!(end.bridge.shortfall(ar), told);
            told.map(|short| (short.watchdog.as_millis(), short.play_out))
        })
    };
    // 3 x 2 ms: what most controllers choose.
    assert_eq!(short(0, 2), [Some((6, Some(11))); 2]);
    assert_eq!(short(11, 2), [None; 2]);
    // 3 x 32 ms.
    assert_eq!(short(0, 32), [None; 2]);
}
