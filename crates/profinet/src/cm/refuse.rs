//! The answer of a gateway that refuses a request.

use super::{NDR, opnum};
use crate::rpc::{PacketType, Rpc};
use crate::status::PnioStatus;

/// RPC response type.
const RESPONSE: u8 = 2;
/// IODReadReqHeader and IODWriteReqHeader, type and length included.
const RECORD_HEADER: usize = 64;

/// RPC reject type.
const REJECT: u8 = 6;
/// nca_unk_if (C706, appendix E): there is no such interface.
const UNKNOWN_INTERFACE: u32 = 0x1c01_0003;

/// The RPC reject that says that there is no interface as `request` asks for; `None` for what is no
/// request.
pub fn no_interface(request: &Rpc<'_>) -> Option<Vec<u8>> {
    if request.ptype != PacketType::Request {
        return None;
    }
    let mut body = Vec::with_capacity(4);
    request.order.put_u32(&mut body, UNKNOWN_INTERFACE);
    let mut out = Vec::with_capacity(80 + body.len());
    request.put_answer(&mut out, REJECT, &body);
    Some(out)
}

/// The RPC response to `request` that carries `status`; `None` for what is no request. A refused
/// read or write brings its record header back, as the standard wants.
pub fn response(request: &Rpc<'_>, status: PnioStatus) -> Option<Vec<u8>> {
    if request.ptype != PacketType::Request {
        return None;
    }
    let blocks = match request.opnum {
        opnum::READ | opnum::READ_IMPLICIT => record_header(request, 0x8009, status),
        opnum::WRITE => record_header(request, 0x8008, status),
        _ => Vec::new(),
    };
    let length = blocks.len() as u32;
    let order = request.order;
    // MaximumCount is what the caller has room for, as real devices say it. Only a message's first
    // piece does.
    let room = match request.body.first_chunk() {
        Some(max) if request.fragment == 0 => order.u32(*max),
        _ => 0,
    };
    let mut body = Vec::with_capacity(NDR + blocks.len());
    order.put_u32(&mut body, u32::from_be_bytes(status.octets()));
    for number in [length, room.max(length), 0, length] {
        order.put_u32(&mut body, number);
    }
    body.extend_from_slice(&blocks);
    let mut out = Vec::with_capacity(80 + body.len());
    request.put_answer(&mut out, RESPONSE, &body);
    Some(out)
}

/// The header of the request, turned into one of an answer without data.
fn record_header(request: &Rpc<'_>, kind: u16, status: PnioStatus) -> Vec<u8> {
    // A fragment that is not the first has none.
    let Some(header) = request.body.get(NDR..NDR + RECORD_HEADER) else {
        return Vec::new();
    };
    if request.fragment != 0 {
        return Vec::new();
    }
    let mut answer = header.to_vec();
    answer[..2].copy_from_slice(&kind.to_be_bytes());
    // RecordDataLength, additional values, and of a write the status; the rest is padding.
    answer[36..].fill(0);
    if kind == 0x8008 {
        answer[44..48].copy_from_slice(&status.octets());
    }
    answer
}
