//! Packets of connectionless DCE/RPC (C706, chapter 12), and calls in fragments.

use std::fmt;

use super::lan::MAX_UDP;

const HEADER: usize = 80;
/// Octets of the body in a fragment: a multiple of 8.
const FRAGMENT: usize = (MAX_UDP - HEADER) / 8 * 8;

const IDEMPOTENT: u8 = 0x20;
const NO_FACK: u8 = 0x08;
const IS_FRAGMENT: u8 = 0x04;
const LAST_FRAGMENT: u8 = 0x02;

/// Canonical octets, whatever the byte order on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Uuid(pub(super) [u8; 16]);

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Byte order of RPC headers; blocks are big-endian in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

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
    let quiet = if head.kind == Kind::Request {
        0
    } else {
        NO_FACK
    };
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
    body(
        order,
        MAX_ARGS.max(blocks.len() as u32),
        MAX_ARGS.max(blocks.len() as u32),
        blocks,
    )
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

/// A packet from the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) head: Head,
    flags: u8,
    number: u16,
    pub(super) body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// None for what is no request, response or fack, or not as long as it says.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let (header, body) = payload.split_first_chunk::<HEADER>()?;
        let kind = match (header[0], header[1]) {
            (4, 0) => Kind::Request,
            (4, 2) => Kind::Response,
            (4, 9) => Kind::Fack,
            _ => return None,
        };
        let order = match header[4] >> 4 {
            0 => Order::Big,
            1 => Order::Little,
            _ => return None,
        };
        let length = usize::from(get16(order, header, 74));
        (body.len() == length).then_some(())?;
        Some(Self {
            head: Head {
                kind,
                order,
                object: get_uuid(order, header, 8),
                interface: get_uuid(order, header, 24),
                activity: get_uuid(order, header, 40),
                boot: get32(order, header, 56),
                sequence: get32(order, header, 64),
                opnum: get16(order, header, 68),
            },
            flags: header[2],
            number: get16(order, header, 76),
            body,
        })
    }

    pub(super) fn is_fragment(&self) -> bool {
        self.flags & IS_FRAGMENT != 0
    }

    pub(super) fn is_last(&self) -> bool {
        self.flags & LAST_FRAGMENT != 0
    }

    /// The sender of a fragment waits until it is acknowledged.
    pub(super) fn wants_fack(&self) -> bool {
        self.flags & NO_FACK == 0
    }
}

/// The body of one call, put together of fragments in their order.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    body: Vec<u8>,
    next: u16,
}

/// A fragment is missing, or there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl Reassembly {
    const LIMIT: usize = 65536;

    /// The whole body with its last piece.
    pub(super) fn push(&mut self, packet: &Packet<'_>) -> Result<Option<Vec<u8>>, Broken> {
        if !packet.is_fragment() {
            return Ok(Some(packet.body.to_vec()));
        }
        if packet.number < self.next {
            return Ok(None);
        }
        if packet.number != self.next || self.body.len() + packet.body.len() > Self::LIMIT {
            return Err(Broken);
        }
        self.next += 1;
        self.body.extend_from_slice(packet.body);
        Ok(packet.is_last().then(|| std::mem::take(&mut self.body)))
    }
}

/// The first word (PNIOStatus of a response) and the blocks of a body, whose NDR head does not
/// lie: no offset, a count that is both the length of the arguments and what is there.
pub(super) fn arguments(order: Order, body: &[u8]) -> Option<(u32, &[u8])> {
    let (head, blocks) = body.split_first_chunk::<20>()?;
    let word = |at| get32(order, head, at);
    let (length, maximum, offset, actual) = (word(4), word(8), word(12), word(16));
    let sound = offset == 0 && length == actual && actual <= maximum;
    let blocks = blocks.get(..actual as usize)?;
    sound.then_some((word(0), blocks))
}

/// The offsets are constants within the array.
fn get16<const N: usize>(order: Order, octets: &[u8; N], at: usize) -> u16 {
    let pair = [octets[at], octets[at + 1]];
    match order {
        Order::Little => u16::from_le_bytes(pair),
        Order::Big => u16::from_be_bytes(pair),
    }
}

fn get32<const N: usize>(order: Order, octets: &[u8; N], at: usize) -> u32 {
    let (first, second) = (get16(order, octets, at), get16(order, octets, at + 2));
    match order {
        Order::Little => u32::from(second) << 16 | u32::from(first),
        Order::Big => u32::from(first) << 16 | u32::from(second),
    }
}

fn get_uuid<const N: usize>(order: Order, octets: &[u8; N], at: usize) -> Uuid {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&octets[at..at + 16]);
    swap(order, &mut uuid);
    Uuid(uuid)
}

/// Between canonical octets and those on the wire: the first three fields have the byte order.
fn swap(order: Order, uuid: &mut [u8; 16]) {
    if order == Order::Little {
        uuid[..4].reverse();
        uuid[4..6].reverse();
        uuid[6..8].reverse();
    }
}

fn put_uuid(out: &mut Vec<u8>, order: Order, uuid: Uuid) {
    let mut octets = uuid.0;
    swap(order, &mut octets);
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
