//! Answers that an agent gives itself: the refusal of a request.

use std::net::Ipv4Addr;

use fieldlock_profinet::{Frame, Mac, Tag, eth};

/// Where a request came from and went to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) src: (Mac, Ipv4Addr, u16),
    pub(super) dst: (Mac, Ipv4Addr, u16),
    pub(super) tag: Option<Tag>,
}

/// Appends the frame that carries `payload` back to who asked, as if from who was asked.
pub(super) fn put_answer(out: &mut Vec<u8>, way: &Way, payload: &[u8]) {
    let start = out.len();
    let frame = Frame {
        dst: way.src.0,
        src: way.dst.0,
        tag: way.tag,
        ethertype: eth::IPV4,
        payload: &[],
    };
    frame.put_header(out);
    put_ipv4(out, way, payload.len());
    put_udp(out, way, payload);
    eth::pad(out, start);
}

/// RFC 791, 20 octets: no options, don't fragment, 64 hops.
fn put_ipv4(out: &mut Vec<u8>, way: &Way, length: usize) {
    let start = out.len();
    // Refusals have some 200 octets.
    let total = u16::try_from(20 + 8 + length).unwrap_or(u16::MAX);
    out.extend_from_slice(&[0x45, 0]);
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    out.extend_from_slice(&way.dst.1.octets());
    out.extend_from_slice(&way.src.1.octets());
    let sum = checksum([&out[start..]]);
    out[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 768, with its checksum over the pseudo header.
fn put_udp(out: &mut Vec<u8>, way: &Way, payload: &[u8]) {
    let start = out.len();
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&way.dst.2.to_be_bytes());
    out.extend_from_slice(&way.src.2.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    let mut pseudo = [0; 12];
    pseudo[..4].copy_from_slice(&way.dst.1.octets());
    pseudo[4..8].copy_from_slice(&way.src.1.octets());
    pseudo[9] = 17;
    pseudo[10..].copy_from_slice(&length.to_be_bytes());
    // 0 would say that there is none.
    let sum = match checksum([&pseudo, &out[start..]]) {
        0 => 0xffff,
        sum => sum,
    };
    out[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071, over parts of which all but the last have an even length.
fn checksum<const N: usize>(parts: [&[u8]; N]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
