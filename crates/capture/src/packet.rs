//! From a captured frame to a TCP segment: link layer, IP, TCP; anything else is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkType {
    Ethernet,
    RawIp,
    LinuxCooked,
    LinuxCooked2,
}

impl LinkType {
    /// <https://www.tcpdump.org/linktypes.html>
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Ethernet),
            101 => Some(Self::RawIp),
            113 => Some(Self::LinuxCooked),
            276 => Some(Self::LinuxCooked2),
            _ => None,
        }
    }
}

/// A TCP segment with what reassembly needs.
#[derive(Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// Of the first byte of `payload`.
    pub(crate) sequence: u32,
    pub(crate) syn: bool,
    pub(crate) payload: &'a [u8],
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: [u16; 2] = [0x8100, 0x88a8];
const TCP: u8 = 6;

pub(crate) fn tcp_segment(link_type: LinkType, frame: &[u8]) -> Option<Segment<'_>> {
    let packet = network_layer(link_type, frame)?;
    let (from, to, tcp) = match packet.first()? >> 4 {
        4 => ipv4(packet)?,
        6 => ipv6(packet)?,
        _ => return None,
    };
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    let syn = tcp.get(13)? & 0x02 != 0;
    let number = u32::from(half(tcp, 4)?) << 16 | u32::from(half(tcp, 6)?);
    Some(Segment {
        from: SocketAddr::new(from, half(tcp, 0)?),
        to: SocketAddr::new(to, half(tcp, 2)?),
        // The SYN itself takes one number.
        sequence: number.wrapping_add(u32::from(syn)),
        syn,
        payload: tcp.get(header..)?,
    })
}

fn network_layer(link_type: LinkType, frame: &[u8]) -> Option<&[u8]> {
    let (mut protocol, mut at) = match link_type {
        LinkType::RawIp => return Some(frame),
        LinkType::Ethernet => (half(frame, 12)?, 14),
        LinkType::LinuxCooked => (half(frame, 14)?, 16),
        LinkType::LinuxCooked2 => (half(frame, 0)?, 20),
    };
    while VLAN.contains(&protocol) {
        protocol = half(frame, at + 2)?;
        at += 4;
    }
    matches!(protocol, IPV4 | IPV6).then(|| frame.get(at..))?
}

/// Source, destination, and the TCP part without the padding of short Ethernet frames.
fn ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = usize::from(packet[0] & 0x0f) * 4;
    let total = usize::from(half(packet, 2)?);
    let fragment = half(packet, 6)? & 0x3fff;
    if *packet.get(9)? != TCP || fragment != 0 {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    // A total of zero is what captures of offloaded packets show: up to the end, then.
    let end = if total == 0 {
        packet.len()
    } else {
        total.min(packet.len())
    };
    Some((address(12)?, address(16)?, packet.get(header..end)?))
}

fn ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    const HEADER: usize = 40;
    let length = usize::from(half(packet, 4)?);
    if *packet.get(6)? != TCP {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let end = (HEADER + length).min(packet.len());
    Some((address(8)?, address(24)?, packet.get(HEADER..end)?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let pair: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(pair))
}
