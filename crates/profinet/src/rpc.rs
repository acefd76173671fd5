//! Connectionless DCE/RPC, version 4 (C706, chapter 12): one PDU is one UDP payload.
//!
//! ```text
//! version(1) type(1) flags1(1) flags2(1) data-representation(3) serial-high(1)
//! object(16) interface(16) activity(16) server-boot(4) interface-version(4) sequence(4)
//! operation(2) interface-hint(2) activity-hint(2) length(2) fragment(2) authentication(1)
//! serial-low(1) body(length)
//! ```

use std::fmt;

use thiserror::Error;

/// Octets of the header.
pub const HEADER: usize = 80;

/// A UUID in its written order, whatever the octet order of the PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    pub(crate) fn read(octets: [u8; 16], order: Order) -> Self {
        Self(match order {
            Order::Big => octets,
            Order::Little => swapped(octets),
        })
    }
}

/// The first three fields of a UUID are numbers: 4, 2 and 2 octets.
fn swapped([a, b, c, d, e, f, g, h, rest @ ..]: [u8; 16]) -> [u8; 16] {
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{octet:02x}")?;
        }
        Ok(())
    }
}

/// One call of the RPC layer. Whatever carries the same is a repetition of it, or belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId {
    pub activity: Uuid,
    /// The call within the activity.
    pub sequence: u32,
}

/// Octet order of the header's numbers and of the NDR data in front of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    Little,
    Big,
}

impl Order {
    pub(crate) fn u16(self, octets: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(octets),
            Self::Big => u16::from_be_bytes(octets),
        }
    }

    pub(crate) fn u32(self, octets: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(octets),
            Self::Big => u32::from_be_bytes(octets),
        }
    }

    pub(crate) fn put_u16(self, out: &mut Vec<u8>, value: u16) {
        out.extend_from_slice(&match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        });
    }

    pub(crate) fn put_u32(self, out: &mut Vec<u8>, value: u32) {
        out.extend_from_slice(&match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        });
    }
}

/// The type of a PDU, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketType {
    Request,
    Ping,
    Response,
    Fault,
    Working,
    NoCall,
    Reject,
    Ack,
    ClientCancel,
    Fack,
    CancelAck,
}

impl PacketType {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Request,
            1 => Self::Ping,
            2 => Self::Response,
            3 => Self::Fault,
            4 => Self::Working,
            5 => Self::NoCall,
            6 => Self::Reject,
            7 => Self::Ack,
            8 => Self::ClientCancel,
            9 => Self::Fack,
            10 => Self::CancelAck,
            _ => return None,
        })
    }
}

/// Which interface of PROFINET is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interface {
    Device,
    Controller,
    Supervisor,
    ParameterServer,
    /// Not of PROFINET's own: every RPC server has it, and tells by it which interfaces there are.
    EndpointMapper,
    Other(Uuid),
}

/// E1AF8308-5D1F-11C9-91A4-08002B14A0FA (C706, appendix O).
const ENDPOINT_MAPPER: Uuid = Uuid([
    0xe1, 0xaf, 0x83, 0x08, 0x5d, 0x1f, 0x11, 0xc9, 0x91, 0xa4, 0x08, 0x00, 0x2b, 0x14, 0xa0, 0xfa,
]);

impl Interface {
    /// DEA0000x-6C97-11D1-8271-00A02442DF7D.
    fn from_uuid(uuid: Uuid) -> Self {
        if uuid == ENDPOINT_MAPPER {
            return Self::EndpointMapper;
        }
        let [0xde, 0xa0, 0, number, rest @ ..] = uuid.0 else {
            return Self::Other(uuid);
        };
        let pnio = [
            0x6c, 0x97, 0x11, 0xd1, 0x82, 0x71, 0x00, 0xa0, 0x24, 0x42, 0xdf, 0x7d,
        ];
        match number {
            _ if rest != pnio => Self::Other(uuid),
            1 => Self::Device,
            2 => Self::Controller,
            3 => Self::Supervisor,
            4 => Self::ParameterServer,
            _ => Self::Other(uuid),
        }
    }
}

const LAST_FRAGMENT: u8 = 0x02;
const FRAGMENT: u8 = 0x04;

/// Why octets are no RPC PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RpcError {
    #[error("RPC header is cut short")]
    Short,
    #[error("RPC version {0}, known is 4")]
    Version(u8),
    #[error("RPC PDU type {0} is unknown")]
    Type(u8),
    #[error("RPC data representation {0:#04x}")]
    Representation(u8),
    #[error("RPC body of {got} octets, the datagram has {has}")]
    Length { got: u16, has: usize },
    #[error("RPC authentication protocol {0}")]
    Authentication(u8),
}

/// One PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpc<'a> {
    pub ptype: PacketType,
    pub flags1: u8,
    pub flags2: u8,
    pub order: Order,
    pub object: Uuid,
    pub interface: Interface,
    /// Holds together all PDUs of the calls of one conversation.
    pub activity: Uuid,
    pub server_boot: u32,
    /// The call within the activity.
    pub sequence: u32,
    pub opnum: u16,
    /// Number of this fragment, from 0.
    pub fragment: u16,
    pub serial: u16,
    pub body: &'a [u8],
    header: &'a [u8; HEADER],
}

impl<'a> Rpc<'a> {
    pub fn parse(datagram: &'a [u8]) -> Result<Self, RpcError> {
        let (header, body) = datagram.split_first_chunk().ok_or(RpcError::Short)?;
        let header: &[u8; HEADER] = header;
        let [version, ptype, flags1, flags2, representation, ..] = *header;
        if version != 4 {
            return Err(RpcError::Version(version));
        }
        // High nibble: octet order; low nibble: ASCII.
        let order = match representation {
            0x00 => Order::Big,
            0x10 => Order::Little,
            other => return Err(RpcError::Representation(other)),
        };
        let ptype = PacketType::from_code(ptype).ok_or(RpcError::Type(ptype))?;
        let uuid = |at| Uuid::read(field(header, at), order);
        let u16 = |at| order.u16(field(header, at));
        let u32 = |at| order.u32(field(header, at));
        let got = u16(74);
        let body = match body.get(..got.into()) {
            Some(exact) if exact.len() == body.len() => exact,
            _ => {
                let has = body.len();
                return Err(RpcError::Length { got, has });
            }
        };
        if header[78] != 0 {
            return Err(RpcError::Authentication(header[78]));
        }
        Ok(Self {
            ptype,
            flags1,
            flags2,
            order,
            object: uuid(8),
            interface: Interface::from_uuid(uuid(24)),
            activity: uuid(40),
            server_boot: u32(56),
            sequence: u32(64),
            opnum: u16(68),
            fragment: u16(76),
            serial: u16::from_be_bytes([header[7], header[79]]),
            body,
            header,
        })
    }

    /// The call that it is of.
    pub fn call(&self) -> CallId {
        CallId {
            activity: self.activity,
            sequence: self.sequence,
        }
    }

    /// It is one of several.
    pub fn is_fragment(&self) -> bool {
        self.flags1 & FRAGMENT != 0
    }

    /// And the last of them.
    pub fn is_last(&self) -> bool {
        self.flags1 & LAST_FRAGMENT != 0
    }

    /// Appends a PDU of the same call in the other direction, in one piece.
    pub(crate) fn put_answer(&self, out: &mut Vec<u8>, ptype: u8, body: &[u8]) {
        let mut header = *self.header;
        header[1] = ptype;
        // Neither a fragment nor idempotent; nothing to be acknowledged.
        header[2] = 0x08;
        header[3] = 0;
        let order = self.order;
        let mut put = |at: usize, value: u16| {
            let mut octets = Vec::with_capacity(2);
            order.put_u16(&mut octets, value);
            header[at..at + 2].copy_from_slice(&octets);
        };
        put(74, u16::try_from(body.len()).unwrap_or(u16::MAX));
        put(76, 0);
        header[7] = 0;
        header[79] = 0;
        out.extend_from_slice(&header);
        out.extend_from_slice(body);
    }
}

/// `N` octets of the header, which has more than `at + N`.
fn field<const N: usize>(header: &[u8; HEADER], at: usize) -> [u8; N] {
    let mut octets = [0; N];
    octets.copy_from_slice(&header[at..at + N]);
    octets
}

#[cfg(test)]
mod tests;
