//! Encoder of connectionless DCE/RPC (C706, chapter 12) with fragments, and the calling side.

use fieldlock_profinet::rpc::{Order, Uuid};

use super::lan::MAX_UDP;

const HEADER: usize = 80;
/// Octets of the body in a fragment: a multiple of 8.
const FRAGMENT: usize = (MAX_UDP - HEADER) / 8 * 8;

const IDEMPOTENT: u8 = 0x20;
const NO_FACK: u8 = 0x08;
const IS_FRAGMENT: u8 = 0x04;
const LAST_FRAGMENT: u8 = 0x02;

/// What the header of one call says in each of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) order: Order,
    pub(super) object: Uuid,
    pub(super) interface: Uuid,
    pub(super) activity: Uuid,
    pub(super) boot: u32,
    pub(super) sequence: u32,
    pub(super) opnum: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request = 0,
    Response = 2,
    Fack = 9,
}

/// Interface of devices.
pub(super) const DEVICE: Uuid = pnio(0xdea0_0001, [0, 0xa0, 0x24, 0x42, 0xdf, 0x7d]);
/// Interface of controllers.
pub(super) const CONTROLLER: Uuid = pnio(0xdea0_0002, [0, 0xa0, 0x24, 0x42, 0xdf, 0x7d]);

/// Object of a station: instance, device and vendor in its last octets.
pub(super) fn object(instance: u16, device: u16, vendor: u16) -> Uuid {
    let ([i, j], [d, e], [v, w]) = (
        instance.to_be_bytes(),
        device.to_be_bytes(),
        vendor.to_be_bytes(),
    );
    pnio(0xdea0_0000, [i, j, d, e, v, w])
}

const fn pnio(first: u32, node: [u8; 6]) -> Uuid {
    let [a, b, c, d] = first.to_be_bytes();
    let [i, j, k, l, m, n] = node;
    Uuid([
        a, b, c, d, 0x6c, 0x97, 0x11, 0xd1, 0x82, 0x71, i, j, k, l, m, n,
    ])
}

/// One UDP payload for each fragment of `body`.
pub(super) fn packets(head: &Head, body: &[u8]) -> Vec<Vec<u8>> {
    if body.len() <= FRAGMENT {
        return vec![packet(head, 0, 0, body)];
    }
    let last = (body.len() - 1) / FRAGMENT;
    body.chunks(FRAGMENT)
        .enumerate()
        .map(|(number, part)| {
            let end = if number == last { LAST_FRAGMENT } else { 0 };
            packet(head, number as u16, IS_FRAGMENT | NO_FACK | end, part)
        })
        .collect()
}

fn packet(head: &Head, number: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    let quiet = if head.kind == Kind::Request { 0 } else { NO_FACK };
    out.extend_from_slice(&[4, head.kind as u8, IDEMPOTENT | quiet | flags, 0]);
    out.extend_from_slice(&[
        match head.order {
            Order::Little => 0x10,
            Order::Big => 0x00,
        },
        0,
        0,
        0,
    ]);
    put_uuid(&mut out, head.order, head.object);
    put_uuid(&mut out, head.order, head.interface);
    put_uuid(&mut out, head.order, head.activity);
    put32(&mut out, head.order, head.boot);
    put32(&mut out, head.order, 1); // interface version
    put32(&mut out, head.order, head.sequence);
    put16(&mut out, head.order, head.opnum);
    put16(&mut out, head.order, 0xffff); // interface hint
    put16(&mut out, head.order, 0xffff); // activity hint
    put16(&mut out, head.order, body.len() as u16);
    put16(&mut out, head.order, number);
    out.extend_from_slice(&[0, 0]); // no authentication, serial number
    out.extend_from_slice(body);
    out
}

/// The body of a request: NDR head and blocks.
pub(super) fn request_body(order: Order, blocks: &[u8]) -> Vec<u8> {
    body(order, MAX_ARGS.max(blocks.len() as u32), MAX_ARGS.max(blocks.len() as u32), blocks)
}

/// The body of a response: its first word is the PNIOStatus.
pub(super) fn response_body(order: Order, status: u32, blocks: &[u8]) -> Vec<u8> {
    body(order, status, MAX_ARGS.max(blocks.len() as u32), blocks)
}

const MAX_ARGS: u32 = 4096;

fn body(order: Order, first: u32, maximum: u32, blocks: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + blocks.len());
    let length = blocks.len() as u32;
    for word in [first, length, maximum, 0, length] {
        put32(&mut out, order, word);
    }
    out.extend_from_slice(blocks);
    out
}

fn put_uuid(out: &mut Vec<u8>, order: Order, uuid: Uuid) {
    let mut octets = uuid.0;
    if order == Order::Little {
        octets[..4].reverse();
        octets[4..6].reverse();
        octets[6..8].reverse();
    }
    out.extend_from_slice(&octets);
}

fn put16(out: &mut Vec<u8>, order: Order, value: u16) {
    out.extend_from_slice(&match order {
        Order::Little => value.to_le_bytes(),
        Order::Big => value.to_be_bytes(),
    });
}

fn put32(out: &mut Vec<u8>, order: Order, value: u32) {
    out.extend_from_slice(&match order {
        Order::Little => value.to_le_bytes(),
        Order::Big => value.to_be_bytes(),
    });
}
