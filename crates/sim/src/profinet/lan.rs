//! Encoders of what carries PROFINET: Ethernet, ARP, UDP over IPv4.

use std::net::Ipv4Addr;

use fieldlock_profinet::Mac;

const PRIORITY_TAG: u16 = 0x8100;
pub(super) const PROFINET: u16 = 0x8892;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
/// Port of connection management, 0x8894.
pub(super) const CM_PORT: u16 = 34964;
/// Largest UDP payload of a frame without IP fragments.
pub(super) const MAX_UDP: usize = 1472;

/// Where a datagram goes to or comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
    pub(super) port: u16,
}

/// Begins a frame: header with the priority tag (VLAN id 0), when there is one.
pub(super) fn begin(out: &mut Vec<u8>, dst: Mac, src: Mac, priority: Option<u8>, ethertype: u16) {
    let tag = priority.map(|priority| u16::from(priority & 7) << 13);
    begin_tagged(out, dst, src, tag, ethertype);
}

/// Likewise with a whole tag: priority and VLAN id.
pub(super) fn begin_tagged(
    out: &mut Vec<u8>,
    dst: Mac,
    src: Mac,
    tag: Option<u16>,
    ethertype: u16,
) {
    out.extend_from_slice(&dst.0);
    out.extend_from_slice(&src.0);
    if let Some(tag) = tag {
        put16(out, PRIORITY_TAG);
        put16(out, tag);
    }
    put16(out, ethertype);
}

/// Ends a frame: at least 60 octets.
pub(super) fn end(out: &mut Vec<u8>) {
    if out.len() < 60 {
        out.resize(60, 0);
    }
}

pub(super) fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// What an ARP frame does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArpOperation {
    Request,
    Reply,
}

/// RFC 826 for IPv4 over Ethernet. A probe (RFC 5227) has the sender 0.0.0.0.
pub(super) fn arp(
    out: &mut Vec<u8>,
    operation: ArpOperation,
    (src, sender): (Mac, Ipv4Addr),
    (dst, target): (Mac, Ipv4Addr),
) {
    begin(out, dst, src, None, ARP);
    out.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0]);
    out.push(match operation {
        ArpOperation::Request => 1,
        ArpOperation::Reply => 2,
    });
    out.extend_from_slice(&src.0);
    out.extend_from_slice(&sender.octets());
    out.extend_from_slice(&match operation {
        ArpOperation::Request => [0; 6],
        ArpOperation::Reply => dst.0,
    });
    out.extend_from_slice(&target.octets());
    end(out);
}

/// A UDP datagram over IPv4, with both checksums.
pub(super) fn udp(out: &mut Vec<u8>, from: Peer, to: Peer, payload: &[u8]) {
    begin(out, to.mac, from.mac, None, IPV4);
    let ip = out.len();
    out.extend_from_slice(&[0x45, 0]);
    put16(out, (28 + payload.len()) as u16);
    // Identification 0, don't fragment (RFC 6864), time to live 64, UDP, checksum to come.
    out.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    out.extend_from_slice(&from.ip.octets());
    out.extend_from_slice(&to.ip.octets());
    let sum = checksum(&[&out[ip..]]);
    out[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());

    let udp = out.len();
    let length = (8 + payload.len()) as u16;
    put16(out, from.port);
    put16(out, to.port);
    put16(out, length);
    put16(out, 0);
    out.extend_from_slice(payload);
    let mut pseudo = [0; 12];
    pseudo[..4].copy_from_slice(&from.ip.octets());
    pseudo[4..8].copy_from_slice(&to.ip.octets());
    pseudo[9] = 17;
    pseudo[10..].copy_from_slice(&length.to_be_bytes());
    let sum = match checksum(&[&pseudo, &out[udp..]]) {
        0 => 0xffff,
        sum => sum,
    };
    out[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    end(out);
}

/// RFC 1071, over parts of which all but the last have even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
