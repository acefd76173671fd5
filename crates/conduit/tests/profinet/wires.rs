//! Two bridges with a tunnel that takes no time, and frames by hand on either wire.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fieldlock_conduit::profinet::{Role, StationSettings};
use fieldlock_profinet::{Frame, Mac, Tag, eth};

use crate::plant::{Crossing, End, LINK, Made, policy, station};

/// Everything is allowed.
pub(crate) const ALL: &str = r#"
syntax = 1
[[allow]]
name = "all"
station = "any"
service = ["any"]
ar = "any"
record = ["any"]
[[allow]]
name = "sets"
station = "any"
service = ["set-ip", "set-name", "signal", "reset", "set-other"]
"#;

/// See the module.
pub(crate) struct Wires {
    pub(crate) now: Instant,
    pub(crate) headend: End,
    pub(crate) edge: End,
}

impl Wires {
    /// One controller and one station, `station-1`, whose address is configured.
    pub(crate) fn between(controller: Mac, device: Mac) -> Self {
        Self::with(controller, device, ALL)
    }

    pub(crate) fn with(controller: Mac, device: Mac, rules: &str) -> Self {
        let station = StationSettings {
            name: "station-1".parse().unwrap(),
            mac: Some(device),
            ..station()
        };
        Self::of(&[controller], vec![station], rules)
    }

    pub(crate) fn of(controllers: &[Mac], stations: Vec<StationSettings>, rules: &str) -> Self {
        let now = Instant::now();
        let made = |role| Made {
            role,
            policy: policy(rules),
            stations: stations.clone(),
            controllers: controllers.iter().map(|mac| ("plc".into(), *mac)).collect(),
            max_ars: 64,
        };
        let mut wires = Self {
            now,
            headend: End::made(made(Role::Headend), now),
            edge: End::made(made(Role::Edge), now),
        };
        wires.headend.link_up(now, LINK);
        wires.edge.link_up(now, LINK);
        wires
    }

    /// A controller sends; what reaches the devices' wire, and what comes back to its own.
    pub(crate) fn controllers_say(&mut self, frame: &[u8]) -> [Vec<Vec<u8>>; 2] {
        let now = self.now;
        self.headend.act(|bridge| bridge.handle_wire(now, frame));
        let [back, over] = self.settle();
        [over, back]
    }

    /// A device sends; what reaches the controllers' wire, and what comes back to its own.
    pub(crate) fn devices_say(&mut self, frame: &[u8]) -> [Vec<Vec<u8>>; 2] {
        let now = self.now;
        self.edge.act(|bridge| bridge.handle_wire(now, frame));
        self.settle()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        for end in [&mut self.headend, &mut self.edge] {
            end.act(|bridge| bridge.handle_timeout(now));
        }
        self.settle();
    }

    /// What reached the controllers' wire and the devices'.
    fn settle(&mut self) -> [Vec<Vec<u8>>; 2] {
        let now = self.now;
        loop {
            let mut moved = false;
            let (headend, edge) = (&mut self.headend, &mut self.edge);
            for (from, to) in [(0, 1), (1, 0)] {
                let ends = [&mut *headend, &mut *edge];
                let crossing: VecDeque<_> = std::mem::take(&mut ends[from].tunnel);
                for (link, crossing) in crossing {
                    moved = true;
                    ends[to].act(|bridge| match &crossing {
                        Crossing::Station(channel, frame) => {
                            bridge.handle_station(now, link, *channel, frame);
                        }
                        Crossing::Datagram(datagram) => {
                            bridge.handle_datagram(now, link, datagram);
                        }
                    });
                }
            }
            if !moved {
                break;
            }
        }
        [&mut self.headend, &mut self.edge].map(|end| end.wire.drain(..).collect())
    }
}

pub(crate) fn frame(
    dst: Mac,
    src: Mac,
    tag: Option<Tag>,
    ethertype: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    Frame {
        dst,
        src,
        tag,
        ethertype,
        payload,
    }
    .encode(&mut out);
    out
}

/// Whose datagram it is: address, IP address, UDP port.
pub(crate) type Peer = (Mac, Ipv4Addr, u16);

/// A frame with a UDP datagram that has no checksum.
pub(crate) fn udp(from: Peer, to: Peer, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((28 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(from.1.octets());
    packet.extend(to.1.octets());
    let mut sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    for number in [from.2, to.2, 8 + payload.len() as u16, 0] {
        packet.extend(number.to_be_bytes());
    }
    packet.extend(payload);
    frame(to.0, from.0, None, eth::IPV4, &packet)
}

/// What an RPC header says; octets in big-endian order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) ptype: u8,
    pub(crate) interface: [u8; 16],
    pub(crate) activity: u8,
    pub(crate) opnum: u16,
}

pub(crate) const DEVICE_INTERFACE: [u8; 16] = [
    0xde, 0xa0, 0x00, 0x01, 0x6c, 0x97, 0x11, 0xd1, 0x82, 0x71, 0x00, 0xa0, 0x24, 0x42, 0xdf, 0x7d,
];

pub(crate) fn rpc(head: &Head, body: &[u8]) -> Vec<u8> {
    let mut out = vec![4, head.ptype, 0x20, 0, 0, 0, 0, 0];
    out.extend([
        0xde, 0xa0, 0, 0, 0x6c, 0x97, 0x11, 0xd1, 0x82, 0x71, 0, 1, 0, 2, 0, 3,
    ]);
    out.extend(head.interface);
    out.extend([head.activity; 16]);
    for number in [0u32, 1, 0] {
        out.extend(number.to_be_bytes());
    }
    for number in [head.opnum, 0xffff, 0xffff, body.len() as u16, 0] {
        out.extend(number.to_be_bytes());
    }
    out.extend([0, 0]);
    out.extend(body);
    out
}

/// The body of a message of connection management; `first` is ArgsMaximum or PNIOStatus.
pub(crate) fn ndr(first: u32, blocks: &[u8]) -> Vec<u8> {
    let length = blocks.len() as u32;
    let numbers = [first, length, 4096, 0, length];
    let mut out: Vec<u8> = numbers.into_iter().flat_map(u32::to_be_bytes).collect();
    out.extend(blocks);
    out
}

pub(crate) fn block(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16 + 2;
    let mut out = kind.to_be_bytes().to_vec();
    out.extend(length.to_be_bytes());
    out.extend([1, 0]);
    out.extend(content);
    out
}
