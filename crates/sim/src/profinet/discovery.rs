//! Encoders of DCP.

use std::net::Ipv4Addr;

use fieldlock_profinet::Mac;

use super::lan::{PROFINET, begin, end, put16, put32};

const HELLO: u16 = 0xfefc;
const GET_SET: u16 = 0xfefd;
const IDENTIFY_REQUEST: u16 = 0xfefe;
const IDENTIFY_RESPONSE: u16 = 0xfeff;

/// Which DCP PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pdu {
    IdentifyRequest { delay_factor: u16 },
    IdentifyResponse,
    GetResponse,
    SetRequest,
    SetResponse,
    Hello,
}

impl Pdu {
    /// FrameID, ServiceID, ServiceType, response delay factor.
    fn head(self) -> (u16, u8, u8, u16) {
        match self {
            Self::IdentifyRequest { delay_factor } => (IDENTIFY_REQUEST, 5, 0, delay_factor),
            Self::IdentifyResponse => (IDENTIFY_RESPONSE, 5, 1, 0),
            Self::GetResponse => (GET_SET, 3, 1, 0),
            Self::SetRequest => (GET_SET, 4, 0, 0),
            Self::SetResponse => (GET_SET, 4, 1, 0),
            Self::Hello => (HELLO, 6, 0, 0),
        }
    }
}

/// The IP suite of a station; all zero when it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpSuite {
    pub address: Ipv4Addr,
    pub mask: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

impl IpSuite {
    /// No address yet.
    pub const NONE: Self = Self {
        address: Ipv4Addr::UNSPECIFIED,
        mask: Ipv4Addr::UNSPECIFIED,
        gateway: Ipv4Addr::UNSPECIFIED,
    };

    /// In a network of 24 bits, no gateway beyond the station itself.
    pub fn local(address: Ipv4Addr) -> Self {
        Self {
            address,
            mask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: address,
        }
    }

    pub(super) fn octets(self) -> [u8; 12] {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&self.address.octets());
        octets[4..8].copy_from_slice(&self.mask.octets());
        octets[8..].copy_from_slice(&self.gateway.octets());
        octets
    }
}

/// Writes a DCP frame whose blocks `blocks` appends with [`block`].
pub(super) fn frame(
    out: &mut Vec<u8>,
    (dst, src): (Mac, Mac),
    priority: Option<u8>,
    pdu: Pdu,
    xid: u32,
    blocks: impl FnOnce(&mut Vec<u8>),
) {
    begin(out, dst, src, priority, PROFINET);
    let (frame_id, service, kind, delay_factor) = pdu.head();
    put16(out, frame_id);
    out.extend_from_slice(&[service, kind]);
    put32(out, xid);
    put16(out, delay_factor);
    let length = out.len();
    put16(out, 0);
    blocks(out);
    let blocks = (out.len() - length - 2) as u16;
    out[length..length + 2].copy_from_slice(&blocks.to_be_bytes());
    end(out);
}

/// A block: option and suboption, what precedes the value (block info or qualifier), the value,
/// padded to an even length.
pub(super) fn block(out: &mut Vec<u8>, option: (u8, u8), info: Option<u16>, value: &[u8]) {
    out.extend_from_slice(&[option.0, option.1]);
    put16(
        out,
        (value.len() + if info.is_some() { 2 } else { 0 }) as u16,
    );
    if let Some(info) = info {
        put16(out, info);
    }
    out.extend_from_slice(value);
    if value.len() % 2 == 1 {
        out.push(0);
    }
}
