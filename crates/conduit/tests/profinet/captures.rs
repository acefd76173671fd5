//! Every capture of real stations, through both bridges: does the AR come up, and do its data, alarms
//! and records cross?

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use fieldlock_conduit::profinet::{DropReason, Event};
use fieldlock_profinet::ar::{Ar, End, Pair, Phase};
use fieldlock_profinet::cm::Message;
use fieldlock_profinet::rpc::{Interface, PacketType, Rpc, Uuid};
use fieldlock_profinet::{Class, Frame, FrameId, Mac, Service, Tag, classify, eth};
use fieldlock_testkit::capture::{data_folder, ethernet_frames};

use crate::wires::{
    DEVICE_INTERFACE, Head, Peer, Wires, block, frame, ndr, rpc as put_rpc, udp as put_udp,
};

/// What became of the Connects of one capture.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Connects that reached the devices' wire, repetitions included.
    connects: usize,
    /// ARs that both agents opened; each was tried out.
    ars: usize,
    /// Connects that the device refused.
    refused: usize,
    /// Why Connects did not cross.
    reasons: BTreeMap<String, usize>,
}

fn path(file: &str) -> Option<PathBuf> {
    let path = data_folder()?.join("profinet").join(file);
    match path.exists() {
        true => Some(path),
        false => {
            eprintln!("skipped: no {file}; FIELDLOCK_DATA names the folder of captures");
            None
        }
    }
}

/// A PDU of the RPC layer, and between whom it goes.
struct Pdu<'a> {
    from: Peer,
    to: Peer,
    rpc: Rpc<'a>,
}

fn pdu(bytes: &[u8]) -> Option<Pdu<'_>> {
    let frame = Frame::parse(bytes).ok()?;
    let Ok(Class::Udp(datagram)) = classify(&frame) else {
        return None;
    };
    let (ip, udp) = (datagram.ip, datagram.udp);
    Some(Pdu {
        from: (frame.src, ip.source, udp.source_port),
        to: (frame.dst, ip.destination, udp.destination_port),
        rpc: Rpc::parse(udp.payload).ok()?,
    })
}

/// Who calls the interface of a device, or is called by the device.
fn pair_of(pdu: &Pdu<'_>) -> Option<Pair> {
    let (from, to) = (pdu.from.0, pdu.to.0);
    let asks = matches!(
        pdu.rpc.ptype,
        PacketType::Request | PacketType::Ping | PacketType::Fack
    );
    let (controller, device) = match (asks, pdu.rpc.interface) {
        (true, Interface::Device) | (false, Interface::Controller) => (from, to),
        (false, Interface::Device) | (true, Interface::Controller) => (to, from),
        _ => return None,
    };
    Some(Pair { controller, device })
}

/// The frames of a capture, and the pairs of stations that it shows.
fn read(path: &PathBuf) -> (Vec<(u32, Vec<u8>)>, Vec<Pair>) {
    let frames = ethernet_frames(path).unwrap();
    let mut pairs = Vec::new();
    for pair in frames.iter().filter_map(|(_, bytes)| pair_of(&pdu(bytes)?)) {
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    assert!(!pairs.is_empty(), "{path:?}");
    (frames, pairs)
}

/// One pair of a capture, with an agent at each end.
struct Run {
    wires: Wires,
    pair: Pair,
    /// The next cycle counter of each CR.
    counters: HashMap<(FrameId, bool), u16>,
    activity: u8,
    /// ARs of ours, with the device's port.
    opened: HashSet<([u8; 16], u16)>,
}

impl Run {
    fn new(pair: Pair) -> Self {
        Self {
            wires: Wires::between(pair.controller, pair.device),
            pair,
            counters: HashMap::new(),
            activity: 0,
            opened: HashSet::new(),
        }
    }

    /// What reached the other wire; `None` for a frame of others.
    fn say(&mut self, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let (dst, src) = (&bytes[..6], &bytes[6..12]);
        let Pair { controller, device } = self.pair;
        self.wires.pass(Duration::from_millis(1));
        if (src, dst) == (&controller.0, &device.0) {
            Some(self.wires.controllers_say(bytes).into_iter().next()?)
        } else if (src, dst) == (&device.0, &controller.0) {
            Some(self.wires.devices_say(bytes).into_iter().next()?)
        } else {
            None
        }
    }

    /// The ARs that are up; both agents see the same.
    fn up(&self) -> Vec<Ar> {
        let of = |end: &crate::plant::End| {
            let ars = end.bridge.table().iter();
            let up = ars.filter(|ar| matches!(ar.phase, Phase::Connected | Phase::Running));
            up.cloned().collect::<Vec<_>>()
        };
        let (headend, edge) = (of(&self.wires.headend), of(&self.wires.edge));
        let seen = |ars: &[Ar]| {
            let ars = ars.iter();
            ars.map(|ar| (ar.uuid, ar.crs.clone(), ar.alarms))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(&headend), seen(&edge));
        headend
    }

    /// Data, alarms and records of an AR cross, each way, with the tags that it names.
    fn try_out(&mut self, ar: &Ar, ips: (Ipv4Addr, Ipv4Addr), number: u32) {
        for cr in &ar.crs {
            let id = cr.frame_id.unwrap();
            let of_device = cr.provider == End::Device;
            let counter = self.counters.entry((id, of_device)).or_default();
            *counter = counter.wrapping_add(cr.counter_step);
            let counter = *counter;
            let mut payload = id.0.to_be_bytes().to_vec();
            payload.resize(2 + usize::from(cr.data_length), counter as u8);
            payload.extend(counter.to_be_bytes());
            payload.extend([0x35, 0]);
            for tag in [None, Some(Tag::priority_only(6)), Some(cr.tag)] {
                // One frame a cycle.
                let counter = self.counters.entry((id, of_device)).or_default();
                *counter = counter.wrapping_add(cr.counter_step);
                let at = payload.len() - 4;
                payload[at..at + 2].copy_from_slice(&counter.to_be_bytes());
                self.crosses(cr.provider, tag, &payload, number);
            }
        }
        if let Some(refs) = ar.alarms {
            let device = refs.device.unwrap();
            for from in [End::Device, End::Controller] {
                let (to, of) = match from {
                    End::Device => (refs.controller, device),
                    End::Controller => (device, refs.controller),
                };
                for (id, named) in [(0xfc01_u16, refs.high), (0xfe01, refs.low)] {
                    let mut payload = id.to_be_bytes().to_vec();
                    for word in [to, of, 0x1111, 0xffff, 0xfffe, 2, 0xabcd] {
                        payload.extend(word.to_be_bytes());
                    }
                    for tag in [None, Some(named)] {
                        self.crosses(from, tag, &payload, number);
                    }
                    // A VLAN that nobody named.
                    let strange = frame_from(self.pair, from, Some(Tag(0x0abc)), &payload);
                    assert_eq!(self.say(&strange), Some(vec![]), "frame {number}");
                }
            }
        }
        let read = self.read(ar.uuid, ips);
        assert_eq!(self.say(&read), Some(vec![read.clone()]), "frame {number}");
    }

    fn crosses(&mut self, from: End, tag: Option<Tag>, payload: &[u8], number: u32) {
        let sent = frame_from(self.pair, from, tag, payload);
        let arrived = self.say(&sent).unwrap();
        let ends = [&self.wires.headend, &self.wires.edge];
        let drops = ends.map(|end| end.bridge.drops().iter().collect::<Vec<_>>());
        assert_eq!(arrived, [sent], "frame {number}: {drops:?}");
    }

    /// The controller reads a record.
    fn read(&mut self, uuid: Uuid, (controller, device): (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
        self.activity = self.activity.wrapping_add(1);
        let mut head = vec![0, 9];
        head.extend(uuid.0);
        head.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xaf, 0xf0, 0, 0, 0x10, 0]);
        head.extend([0; 24]);
        let call = Head {
            ptype: 0,
            interface: DEVICE_INTERFACE,
            activity: self.activity,
            opnum: 2,
        };
        let payload = put_rpc(&call, &ndr(4096, &block(0x0009, &head)));
        let from = (self.pair.controller, controller, 50_001);
        put_udp(from, (self.pair.device, device, 34_964), &payload)
    }
}

fn frame_from(pair: Pair, from: End, tag: Option<Tag>, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (pair.mac(from), pair.mac(from.other()));
    frame(dst, src, tag, eth::PROFINET, payload)
}

/// Feeds all Connects of a capture, and tries out each AR that comes up.
fn connects(file: &str) -> Option<Outcome> {
    let (frames, pairs) = read(&path(file)?);
    let mut outcome = Outcome::default();
    for pair in pairs {
        let mut run = Run::new(pair);
        for (number, bytes) in &frames {
            let Some(pdu) = pdu(bytes).filter(|pdu| pair_of(pdu) == Some(pair)) else {
                // Data and alarms that were captured; whether they cross is asked elsewhere.
                continue;
            };
            let arrived = run.say(bytes).unwrap();
            if arrived.is_empty() {
                let drops = run.wires.headend.bridge.drops().iter().collect::<Vec<_>>();
                let of_edge = run.wires.edge.bridge.drops().iter().collect::<Vec<_>>();
                eprintln!("{file} frame {number} stayed: {drops:?} {of_edge:?}");
            }
            let of_connect = pdu.rpc.opnum == 0 && !pdu.rpc.is_fragment();
            match pdu.rpc.ptype {
                PacketType::Request if of_connect => outcome.connects += arrived.len(),
                PacketType::Response if of_connect && !arrived.is_empty() => {
                    let message = Message::parse(&pdu.rpc, pdu.rpc.body);
                    let Ok(Message::ConnectResponse(response)) = message else {
                        panic!("frame {number}: {message:?}");
                    };
                    if !response.status.is_ok() {
                        outcome.refused += 1;
                        continue;
                    }
                    let uuid = response.ar().unwrap().ar_uuid;
                    for ar in run.up() {
                        if ar.uuid == uuid {
                            outcome.ars += 1;
                        }
                        // The others of the pair are still there.
                        run.try_out(&ar, (pdu.to.1, pdu.from.1), *number);
                    }
                }
                _ => {}
            }
        }
        for event in &run.wires.headend.events {
            if let Event::Refused {
                service: Service::Connect,
                reason,
                ..
            } = event
            {
                *outcome.reasons.entry(reason.to_string()).or_default() += 1;
            }
        }
        for end in [&run.wires.headend, &run.wires.edge] {
            let drops = end.bridge.drops();
            assert_eq!(
                drops.get(DropReason::Malformed),
                0,
                "{pair:?}: {:?}",
                end.events
            );
        }
    }
    Some(outcome)
}

fn reasons(list: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let list = list.iter();
    list.map(|(text, count)| ((*text).to_owned(), *count))
        .collect()
}

#[test]
fn every_connect_of_real_stations_comes_up_or_is_refused_with_its_reason() {
    let Some(outcome) = connects("icsnpp_profinet_io_cm_connect.pcapng") else {
        return;
    };
    // Isochronous, and system redundancy.
    let expected = reasons(&[
        ("AR type redundant (0x0020) is not carried", 1),
        ("AR type rt-class-3 (0x0010) is not carried", 3),
    ]);
    assert_eq!(outcome.reasons, expected);
    // And one that goes to a port which only its endpoint mapper has named: see below.
    assert_eq!(outcome.connects, 164 - 4 - 1, "{outcome:?}");
    assert!(outcome.refused > 80, "{outcome:?}");
    assert!(outcome.ars >= 34, "{outcome:?}");
}

#[test]
fn the_connects_of_other_captures_come_up() {
    for (file, connects_wanted, ars) in [
        ("icsnpp_profinet_io_cm_connect_minimal.pcapng", 1, 1),
        ("icsnpp_profinet_io_cm_device.pcapng", 1, 1),
        ("icsnpp_profinet_io_cm_mixed_1.pcap", 4, 4),
        ("plc4x_connect_simocode.pcapng", 2, 1),
    ] {
        let Some(outcome) = connects(file) else {
            return;
        };
        assert_eq!(outcome.reasons, reasons(&[]), "{file}");
        assert!(
            outcome.connects >= connects_wanted - 1,
            "{file}: {outcome:?}"
        );
        assert!(
            outcome.ars >= ars.min(outcome.connects),
            "{file}: {outcome:?}"
        );
        assert_eq!(outcome.refused, 0, "{file}");
    }
}

/// Three ARs with one address, which one PLC opens at once, stand side by side.
#[test]
fn three_ars_of_one_plc_with_one_address_stand_side_by_side() {
    let Some(path) = path("icsnpp_profinet_io_cm_connect.pcapng") else {
        return;
    };
    let (frames, _) = read(&path);
    let (_, first) = &frames[54];
    let pair = pair_of(&pdu(first).unwrap()).unwrap();
    let mut run = Run::new(pair);
    for (_, bytes) in &frames[54..62] {
        assert_eq!(run.say(bytes), Some(vec![bytes.clone()]));
    }
    let ars = run.up();
    let ids: HashSet<_> = ars
        .iter()
        .map(|ar| (ar.crs[0].frame_id.unwrap().0, ar.crs[1].frame_id.unwrap().0))
        .collect();
    let expected = HashSet::from([(0xc000, 0xc000), (0xc001, 0xc001), (0xc002, 0xc002)]);
    assert_eq!(ids, expected);
    let ips = pdu(first).map(|pdu| (pdu.from.1, pdu.to.1)).unwrap();
    for ar in &ars {
        run.try_out(ar, ips, 62);
    }
}

/// The second Connect comes without an end of the first, as after a loss of power.
#[test]
fn a_controller_that_keeps_its_uuid_and_session_key_over_a_restart_gets_what_it_asks_for() {
    let Some(path) = path("icsnpp_profinet_io_cm_connect.pcapng") else {
        return;
    };
    let (frames, _) = read(&path);
    for of in [
        [3, 4, 5, 6],
        [47, 48, 52, 54],
        [49, 50, 51, 53],
        [1, 2, 71, 72],
    ] {
        let [first, ..] = of.map(|number: usize| &frames[number - 1].1);
        let pair = pair_of(&pdu(first).unwrap()).unwrap();
        let ips = pdu(first).map(|pdu| (pdu.from.1, pdu.to.1)).unwrap();
        let mut run = Run::new(pair);
        for number in of {
            run.wires.pass(Duration::from_secs(2));
            let bytes = &frames[number - 1].1;
            assert_eq!(run.say(bytes), Some(vec![bytes.clone()]), "frame {number}");
        }
        let [ar] = &run.up()[..] else {
            panic!("{of:?}: {:?}", run.up());
        };
        let last = pdu(&frames[of[2] - 1].1).unwrap();
        let Ok(Message::ConnectRequest(asked)) = Message::parse(&last.rpc, last.rpc.body) else {
            panic!("{of:?}");
        };
        for (cr, iocr) in ar.crs.iter().zip(asked.iocrs()) {
            assert_eq!(cr.data_length, iocr.data_length, "{of:?}");
        }
        run.try_out(ar, ips, of[3] as u32);
    }
}

/// One device, two controllers: the same FrameID to each of them.
#[test]
fn a_shared_device_has_an_ar_with_each_of_its_controllers() {
    let Some(path) = path("icsnpp_profinet_io_cm_connect.pcapng") else {
        return;
    };
    let (frames, _) = read(&path);
    let pairs: Vec<_> = [43, 45]
        .map(|number: usize| pair_of(&pdu(&frames[number - 1].1).unwrap()).unwrap())
        .into();
    assert_eq!(pairs[0].device, pairs[1].device);
    let mut wires = Wires::between(pairs[0].controller, pairs[0].device);
    let controllers = [pairs[0].controller, pairs[1].controller];
    wires = Wires::of(
        &controllers,
        wires.headend.made.stations.clone(),
        crate::wires::ALL,
    );
    for (_, bytes) in &frames[42..46] {
        let from_controller = controllers.iter().any(|mac| bytes[6..12] == mac.0);
        let [arrived, _] = match from_controller {
            true => wires.controllers_say(bytes),
            false => wires.devices_say(bytes),
        };
        assert_eq!(arrived, slice::from_ref(bytes));
    }
    for end in [&wires.headend, &wires.edge] {
        let ids = end.bridge.table().iter();
        let ids: Vec<_> = ids.map(|ar| ar.crs[0].frame_id.unwrap().0).collect();
        assert_eq!(ids, [0x8000, 0x8000]);
    }
}

/// An S7-1500 asks the endpoint mapper first, and connects to the port that this names.
#[test]
fn a_connect_goes_to_the_port_that_the_endpoint_mapper_names() {
    let Some(path) = path("icsnpp_profinet_io_cm_connect.pcapng") else {
        return;
    };
    let (frames, _) = read(&path);
    let connect = &frames[64].1;
    let of_connect = pdu(connect).unwrap();
    let (from, to) = (of_connect.from, of_connect.to);
    assert_eq!((to.2, of_connect.rpc.sequence), (49_344, 1));
    let mut run = Run::new(pair_of(&of_connect).unwrap());
    assert_eq!(run.say(connect), Some(vec![]));
    let mut head = Head {
        ptype: 0,
        interface: crate::real::ENDPOINT_MAPPER,
        activity: 7,
        opnum: 2,
    };
    let to = (to.0, to.1, 34_964);
    let lookup = put_udp(from, to, &put_rpc(&head, &crate::real::lookup()));
    assert_eq!(run.say(&lookup), Some(vec![lookup.clone()]));
    head.ptype = 2;
    let found = put_udp(to, from, &put_rpc(&head, &crate::real::found(b"S7-1500")));
    assert_eq!(run.say(&found), Some(vec![found.clone()]));
    for (number, bytes) in &frames[64..66] {
        assert_eq!(run.say(bytes), Some(vec![bytes.clone()]), "frame {number}");
    }
    let [ar] = &run.up()[..] else {
        panic!("{:?}", run.up());
    };
    run.try_out(&ar.clone(), (from.1, to.1), 66);
}

/// Pings and their answers come before the Connect that was lost.
#[test]
fn a_ping_ahead_of_its_connect_and_no_call_cross() {
    let Some(path) = path("icsnpp_profinet_io_cm_connect.pcapng") else {
        return;
    };
    let (frames, _) = read(&path);
    let pair = pair_of(&pdu(&frames[20].1).unwrap()).unwrap();
    let mut run = Run::new(pair);
    for (number, bytes) in &frames[18..22] {
        assert_eq!(run.say(bytes), Some(vec![bytes.clone()]), "frame {number}");
    }
    assert_eq!(run.up().len(), 1);
}

/// Real data, a real release: the device's ERR-RTA comes ahead of its answer.
#[test]
fn a_whole_life_of_an_ar_crosses_as_it_was_captured() {
    let Some(path) = path("icsnpp_profinet_io_cm_mixed_1.pcap") else {
        return;
    };
    let frames = ethernet_frames(&path).unwrap();
    let connect = &frames[484].1;
    let pair = pair_of(&pdu(connect).unwrap()).unwrap();
    let mut run = Run::new(pair);
    let mut crossed = 0;
    let mut cyclic = 0;
    for (number, bytes) in &frames[484..] {
        let Some(arrived) = run.say(bytes) else {
            continue;
        };
        let is_cyclic = matches!(
            Frame::parse(bytes)
                .map(|frame| classify(&frame)
                    .is_ok_and(|class| matches!(class, Class::Cyclic { .. }))),
            Ok(true)
        );
        match is_cyclic {
            true => {
                cyclic += 1;
                crossed += arrived.len();
                if let [arrived] = &arrived[..] {
                    assert_eq!(arrived[..58], bytes[..58], "frame {number}");
                }
            }
            false if pdu(bytes).is_some() => {
                assert_eq!(arrived, slice::from_ref(bytes), "frame {number}");
            }
            false => {}
        }
    }
    let drops = |drop| {
        let ends = [&run.wires.headend, &run.wires.edge];
        ends.map(|end| end.bridge.drops().get(drop))
    };
    assert!(cyclic >= 100, "{cyclic}");
    // Ahead of the answer to the Connect; and behind the release 16 cycles of the controller and its
    // abort, when it has noticed.
    assert_eq!(drops(DropReason::Early), [0, 1]);
    assert_eq!(drops(DropReason::Ended), [17, 0]);
    assert_eq!(cyclic - crossed as u64, 1 + 16);
    assert_eq!(drops(DropReason::NoAr), [0, 0]);
    for end in [&run.wires.headend, &run.wires.edge] {
        let ended = end.events.iter().find_map(|event| match event {
            Event::ArDown { why, .. } => Some(why.to_string()),
            _ => None,
        });
        assert_eq!(ended.as_deref(), Some("released by the controller"));
    }
}

/// Captures of calls alone: a Connect of ours opens the AR that they speak of.
#[test]
fn every_call_about_an_ar_that_is_up_crosses() {
    for file in [
        "icsnpp_profinet_io_cm_control.pcapng",
        "icsnpp_profinet_io_cm_read.pcapng",
        "icsnpp_profinet_io_cm_write.pcapng",
        "icsnpp_profinet_io_cm_release.pcapng",
    ] {
        let Some(path) = path(file) else {
            return;
        };
        let (frames, pairs) = read(&path);
        for pair in pairs {
            let mut run = Run::new(pair);
            let mut requests = HashSet::new();
            let mut asked = 0;
            for (number, bytes) in &frames {
                let Some(pdu) = pdu(bytes).filter(|pdu| pair_of(pdu) == Some(pair)) else {
                    continue;
                };
                let call = (pdu.rpc.activity, pdu.rpc.sequence);
                // Type, length, version, a number, and the UUID.
                let uuid = pdu.rpc.body.get(28..44);
                let first = pdu.rpc.fragment == 0;
                match pdu.rpc.ptype {
                    PacketType::Request => {
                        let uuid = uuid.filter(|uuid| first && **uuid != [0; 16]);
                        if let Some(uuid) = uuid {
                            open(&mut run, &pdu, uuid);
                        }
                        requests.insert(call);
                        asked += 1;
                    }
                    // What answers a request that was not captured is none of ours.
                    _ if !requests.contains(&call) => continue,
                    _ => {}
                }
                let arrived = run.say(bytes).unwrap();
                let drops = [&run.wires.headend, &run.wires.edge]
                    .map(|end| end.bridge.drops().iter().collect::<Vec<_>>());
                assert_eq!(arrived.len(), 1, "{file} frame {number}: {drops:?}");
                assert_eq!(arrived[0], *bytes, "{file} frame {number}");
            }
            assert!(asked > 0 || requests.is_empty(), "{file}");
        }
    }
}

/// Opens an AR without data under `uuid`, unless there is one. The device answers from the port that
/// it is asked at.
fn open(run: &mut Run, about: &Pdu<'_>, uuid: &[u8]) {
    let uuid: [u8; 16] = uuid.try_into().unwrap();
    let pair = run.pair;
    let (controller, device, port) = match about.from.0 == pair.controller {
        true => (about.from, about.to, about.to.2),
        false => (about.to, about.from, 34_964),
    };
    let is_up = run.wires.edge.bridge.table().find(pair, Uuid(uuid));
    if is_up.is_some() && (port == 34_964 || run.opened.contains(&(uuid, port))) {
        return;
    }
    run.opened.insert((uuid, port));
    let controller = (controller.0, controller.1, 50_002);
    let device = (device.0, device.1, 34_964);
    let mut ar = vec![0, 6];
    ar.extend(uuid);
    ar.extend([0, 1]);
    ar.extend(pair.controller.0);
    ar.extend([0xde; 16]);
    ar.extend([0, 0, 1, 0x11, 0x02, 0x58, 0x88, 0x92, 0, 3]);
    ar.extend(b"plc");
    run.activity = run.activity.wrapping_add(1);
    let mut head = Head {
        ptype: 0,
        interface: DEVICE_INTERFACE,
        activity: run.activity,
        opnum: 0,
    };
    let connect = put_rpc(&head, &ndr(4096, &block(0x0101, &ar)));
    let connect = put_udp(controller, device, &connect);
    assert_eq!(run.say(&connect), Some(vec![connect.clone()]));
    let mut answer = vec![0, 6];
    answer.extend(uuid);
    answer.extend([0, 1]);
    answer.extend(pair.device.0);
    answer.extend([0x88, 0x92]);
    head.ptype = 2;
    let answer = put_rpc(&head, &ndr(0, &block(0x8101, &answer)));
    let answer = put_udp((device.0, device.1, port), controller, &answer);
    assert_eq!(run.say(&answer), Some(vec![answer.clone()]));
}

/// DCP to one station by its address, as a tool asks.
#[test]
fn a_tool_that_asks_one_station_by_its_address_gets_its_answer() {
    let Some(path) = path("iti_ChangeIPUsingDCP.pcap") else {
        return;
    };
    let frames = ethernet_frames(&path).unwrap();
    let mac = |octets: &[u8]| Mac(octets.try_into().unwrap());
    let (device, tool) = (mac(&frames[0].1[..6]), mac(&frames[0].1[6..12]));
    let mut wires = Wires::between(tool, device);
    for (number, bytes) in &frames[..4] {
        let [arrived, _] = match bytes[6..12] == tool.0 {
            true => wires.controllers_say(bytes),
            false => wires.devices_say(bytes),
        };
        assert_eq!(arrived, slice::from_ref(bytes), "frame {number}");
    }
}

#[test]
fn a_signal_without_a_value_is_on_record_as_signal_and_does_not_cross() {
    let Some(path) = path("pnet_vectors_generic.pcap") else {
        return;
    };
    let frames = ethernet_frames(&path).unwrap();
    let blink = frames.iter().find(|(_, bytes)| {
        let mut windows = bytes.windows(6);
        windows.any(|octets| octets == [5, 3, 0, 2, 0, 0])
            && bytes[12..16] == [0x88, 0x92, 0xfe, 0xfd]
    });
    let (_, blink) = blink.unwrap();
    let mac = |octets: &[u8]| Mac(octets.try_into().unwrap());
    let mut wires = Wires::between(mac(&blink[6..12]), mac(&blink[..6]));
    let [arrived, _] = wires.controllers_say(blink);
    assert!(arrived.is_empty());
    let told = wires.headend.events.iter().any(|event| {
        matches!(event, Event::Refused { service: Service::Signal, reason, .. }
            if reason.contains("signal"))
    });
    assert!(told, "{:?}", wires.headend.events);
}
