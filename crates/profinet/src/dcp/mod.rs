//! DCP: how stations are found, named and addressed, without any authentication.
//!
//! A PDU stands behind the FrameID:
//!
//! | octets | field |
//! |---|---|
//! | 1 | ServiceID: 3 Get, 4 Set, 5 Identify, 6 Hello |
//! | 1 | ServiceType: 0 request, 1 response, 5 response: unsupported |
//! | 4 | Xid: a response repeats that of its request |
//! | 2 | ResponseDelayFactor of an Identify request; else reserved |
//! | 2 | DCPDataLength: octets of the blocks |
//! | n | blocks ([`Block`]), then padding of the frame |
//!
//! Source: IEC 61158-6-10, 4.3.

mod block;
mod identity;
mod value;

use std::fmt;

use thiserror::Error;

pub use block::{Block, BlockId, Blocks, Form};
pub use identity::{Identity, identify_request};
pub use value::{BlockError, IpSuite, Text, Value};

use crate::frame_id::FrameId;
use crate::reader::{Reader, Short};
use crate::service::Service;

/// Octets before the blocks.
pub const HEADER: usize = 10;
/// Where the four octets of the Xid stand in a PDU.
pub const XID_OFFSET: usize = 2;
/// The largest ResponseDelayFactor of an Identify request.
pub const MAX_DELAY_FACTOR: u16 = 0x1900;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceId {
    Get,
    Set,
    Identify,
    Hello,
}

/// ServiceType.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Request,
    Success,
    /// The station does not know the service. Such a response has no blocks.
    Unsupported,
}

/// A DCP PDU whose header is sound; its blocks are looked at by [`Pdu::blocks`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pdu<'a> {
    pub service: ServiceId,
    pub kind: Kind,
    pub xid: u32,
    /// Of an Identify request: stations answer within this many times 10 ms, 1 to 6400. 0 in all
    /// others.
    pub delay_factor: u16,
    /// As long as DCPDataLength says.
    pub blocks: &'a [u8],
}

/// Why octets are no DCP PDU that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DcpError {
    #[error("DCP PDU is cut short")]
    Short,
    #[error("DCP service {id} of type {kind}, which does not exist")]
    Service { id: u8, kind: u8 },
    #[error("DCP PDU with FrameID {found}, its service has {expected}")]
    FrameId { found: FrameId, expected: FrameId },
    #[error("DCP Identify with ResponseDelayFactor {0}, allowed are 1 to 6400")]
    DelayFactor(u16),
    #[error("DCP response `unsupported` with {0} octets of blocks")]
    UnsupportedWithBlocks(usize),
    #[error("DCP block {0} reaches beyond the PDU, or is shorter than its kind")]
    BlockLength(BlockId),
    #[error("DCP block {0} occurs twice")]
    Repeated(BlockId),
}

impl From<Short> for DcpError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl<'a> Pdu<'a> {
    /// Reads what stands behind the FrameID; padding behind the PDU is passed over.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DcpError> {
        let mut reader = Reader::new(bytes);
        let (id, kind) = (reader.u8()?, reader.u8()?);
        let (service, kind) = match (id, kind) {
            (3, 0) => (ServiceId::Get, Kind::Request),
            (3, 1) => (ServiceId::Get, Kind::Success),
            (3, 5) => (ServiceId::Get, Kind::Unsupported),
            (4, 0) => (ServiceId::Set, Kind::Request),
            (4, 1) => (ServiceId::Set, Kind::Success),
            (4, 5) => (ServiceId::Set, Kind::Unsupported),
            (5, 0) => (ServiceId::Identify, Kind::Request),
            (5, 1) => (ServiceId::Identify, Kind::Success),
            (6, 0) => (ServiceId::Hello, Kind::Request),
            (id, kind) => return Err(DcpError::Service { id, kind }),
        };
        let xid = reader.u32()?;
        let delay_factor = match (service, kind, reader.u16()?) {
            (ServiceId::Identify, Kind::Request, factor @ 1..=MAX_DELAY_FACTOR) => factor,
            (ServiceId::Identify, Kind::Request, factor) => {
                return Err(DcpError::DelayFactor(factor));
            }
            _ => 0,
        };
        let length = reader.u16()?;
        let blocks = reader.take(length.into())?;
        if kind == Kind::Unsupported && !blocks.is_empty() {
            return Err(DcpError::UnsupportedWithBlocks(blocks.len()));
        }
        Ok(Self {
            service,
            kind,
            xid,
            delay_factor,
            blocks,
        })
    }

    /// The FrameID that goes with this service and type.
    pub fn frame_id(&self) -> FrameId {
        match (self.service, self.kind) {
            (ServiceId::Get | ServiceId::Set, _) => FrameId::DCP_GET_SET,
            (ServiceId::Identify, Kind::Request) => FrameId::DCP_IDENTIFY,
            (ServiceId::Identify, _) => FrameId::DCP_IDENTIFY_RESPONSE,
            (ServiceId::Hello, _) => FrameId::DCP_HELLO,
        }
    }

    /// The blocks, up to and including the first that is broken.
    pub fn blocks(&self) -> Blocks<'a> {
        Blocks::new(self)
    }

    /// Every block is whole, and of a known one the content too.
    pub fn check(&self) -> Result<(), DcpError> {
        self.blocks().try_for_each(|block| block?.value().map(drop))
    }

    /// What a Set would set, by the options of its blocks alone, as far as they can be told apart:
    /// to say what was refused where the content is not sound.
    pub fn attempts(&self) -> impl Iterator<Item = Service> + use<> {
        let mut tried = [false; Service::ALL.len()];
        for block in self.blocks().flatten() {
            if let (ServiceId::Set, Some(service)) = (self.service, block.id.set_service()) {
                tried[service as usize] = true;
            }
        }
        let all = Service::ALL.into_iter().zip(tried);
        all.filter_map(|(service, tried)| tried.then_some(service))
    }

    /// What a policy has to allow for this PDU to pass: all of what is returned, at least one.
    ///
    /// A Set needs the service of each block; one of nothing but the marks of a transaction is
    /// [`Service::SetOther`]. A response to a Set needs what its blocks say was set.
    pub fn services(&self) -> Result<impl Iterator<Item = Service> + use<>, DcpError> {
        let mut needed = [false; Service::ALL.len()];
        match self.service {
            ServiceId::Get => needed[Service::Get as usize] = true,
            ServiceId::Identify => needed[Service::Identify as usize] = true,
            ServiceId::Hello => needed[Service::Hello as usize] = true,
            ServiceId::Set => {
                for block in self.blocks() {
                    if let Some(service) = block?.set_service()? {
                        needed[service as usize] = true;
                    }
                }
                if !needed.contains(&true) {
                    needed[Service::SetOther as usize] = true;
                }
            }
        }
        let all = Service::ALL.into_iter().zip(needed);
        Ok(all.filter_map(|(service, needed)| needed.then_some(service)))
    }
}

impl ServiceId {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "Get",
            Self::Set => "Set",
            Self::Identify => "Identify",
            Self::Hello => "Hello",
        }
    }
}

impl fmt::Debug for Pdu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:#x} ", self.service, self.kind, self.xid)?;
        f.debug_list().entries(self.blocks()).finish()
    }
}

#[cfg(test)]
mod tests;
