//! Connection management (CM): what stands in the messages of PROFINET's RPC interfaces.
//!
//! ```text
//! request:  args-max(4) args-length(4) max(4) offset(4) actual(4)   blocks
//! response: PNIOStatus(4) args-length(4) max(4) offset(4) actual(4) blocks
//! block:    type(2) length(2) version(2) content(length - 2)
//! ```
//! The numbers in front have the octet order of the RPC header, the blocks are big-endian.

mod answer;
mod connect;
mod control;
mod expected;
mod index;
mod iocr;
mod record;
pub mod refuse;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use answer::{AlarmCrAnswer, ArAnswer, ConnectResponse, IocrAnswer};
pub use connect::{AlarmCr, ArBlock, ArProperties, ConnectRequest};
pub use control::{Control, ControlResponse};
pub use expected::{DataDescription, ExpectedSubmodule};
pub use index::index_name;
pub use iocr::{IoPlace, IoPlaces, Iocr, IocrApi, IocrKind};
pub use record::{
    ReadResponse, RecordAccess, WriteItem, WriteItems, WriteRequest, WriteResponse, Written,
};

use crate::reader::{Reader, Short};
use crate::rpc::{Order, PacketType, Rpc, Uuid};
use crate::status::PnioStatus;

/// Operations of the interfaces.
pub mod opnum {
    pub const CONNECT: u16 = 0;
    pub const RELEASE: u16 = 1;
    pub const READ: u16 = 2;
    pub const WRITE: u16 = 3;
    pub const CONTROL: u16 = 4;
    pub const READ_IMPLICIT: u16 = 5;
}

/// Octets in front of the blocks.
const NDR: usize = 20;

/// Why a message is none of connection management.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CmError {
    #[error("message is cut short")]
    Short,
    #[error(
        "lengths in front of the blocks: arguments {args}, array {actual} of {max} from {offset}, {has} octets follow"
    )]
    Ndr {
        args: u32,
        max: u32,
        offset: u32,
        actual: u32,
        has: usize,
    },
    #[error("operation {0} is unknown")]
    Operation(u16),
    #[error("block {got:#06x} where {wanted:#06x} is due")]
    Block { got: u16, wanted: u16 },
    #[error("block {kind:#06x} of {length} octets")]
    Length { kind: u16, length: u16 },
    #[error("version {0:#06x} of a block")]
    Version(u16),
    #[error("block {0:#06x} twice")]
    Twice(u16),
    #[error("block {0:#06x} is missing")]
    Missing(u16),
    #[error("octet {offset} of data that has {data_length}")]
    Offset { offset: u16, data_length: u16 },
    #[error("octets behind the fields of block {0:#06x}")]
    Trailing(u16),
    #[error("not a request or a response")]
    Type,
}

impl From<Short> for CmError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    ConnectRequest(ConnectRequest<'a>),
    ConnectResponse(ConnectResponse<'a>),
    ReleaseRequest(Control),
    ReleaseResponse(ControlResponse),
    ControlRequest(Control),
    ControlResponse(ControlResponse),
    ReadRequest(RecordAccess),
    ReadImplicitRequest(RecordAccess),
    ReadResponse(ReadResponse<'a>),
    WriteRequest(WriteRequest<'a>),
    WriteResponse(WriteResponse<'a>),
}

impl<'a> Message<'a> {
    /// Reads a message: `rpc` is one of its PDUs, `body` all octets behind their headers.
    pub fn parse(rpc: &Rpc<'_>, body: &'a [u8]) -> Result<Self, CmError> {
        match rpc.ptype {
            PacketType::Request => Self::request(rpc.opnum, request_blocks(rpc.order, body)?),
            PacketType::Response => {
                let (status, blocks) = response_blocks(rpc.order, body)?;
                Self::response(rpc.opnum, status, blocks)
            }
            _ => Err(CmError::Type),
        }
    }

    fn request(operation: u16, blocks: &'a [u8]) -> Result<Self, CmError> {
        Ok(match operation {
            opnum::CONNECT => Self::ConnectRequest(ConnectRequest::parse(blocks)?),
            opnum::RELEASE => Self::ReleaseRequest(Control::of_release(blocks)?),
            opnum::CONTROL => Self::ControlRequest(Control::of_control(blocks)?),
            opnum::READ => Self::ReadRequest(RecordAccess::read_request(blocks)?),
            opnum::READ_IMPLICIT => Self::ReadImplicitRequest(RecordAccess::read_request(blocks)?),
            opnum::WRITE => Self::WriteRequest(WriteRequest::parse(blocks)?),
            other => return Err(CmError::Operation(other)),
        })
    }

    fn response(operation: u16, status: PnioStatus, blocks: &'a [u8]) -> Result<Self, CmError> {
        Ok(match operation {
            opnum::CONNECT => Self::ConnectResponse(ConnectResponse::parse(status, blocks)?),
            opnum::RELEASE => Self::ReleaseResponse(ControlResponse::parse(status, blocks)?),
            opnum::CONTROL => Self::ControlResponse(ControlResponse::parse(status, blocks)?),
            opnum::READ | opnum::READ_IMPLICIT => {
                Self::ReadResponse(ReadResponse::parse(status, blocks)?)
            }
            opnum::WRITE => Self::WriteResponse(WriteResponse::parse(status, blocks)?),
            other => return Err(CmError::Operation(other)),
        })
    }
}

fn request_blocks(order: Order, body: &[u8]) -> Result<&[u8], CmError> {
    let mut reader = Reader::new(body);
    // How much the answer may have.
    reader.u32()?;
    array(order, reader)
}

fn response_blocks(order: Order, body: &[u8]) -> Result<(PnioStatus, &[u8]), CmError> {
    let mut reader = Reader::new(body);
    let status = order.u32(reader.array()?).to_be_bytes();
    Ok((PnioStatus::from_octets(status), array(order, reader)?))
}

/// The NDR array behind the first number: it has to be all that follows.
fn array(order: Order, mut reader: Reader<'_>) -> Result<&[u8], CmError> {
    let args = order.u32(reader.array()?);
    let max = order.u32(reader.array()?);
    let offset = order.u32(reader.array()?);
    let actual = order.u32(reader.array()?);
    let rest = reader.rest();
    let has = rest.len();
    // Some stacks pad the datagram behind the array.
    let blocks = usize::try_from(actual)
        .ok()
        .and_then(|actual| rest.get(..actual));
    match blocks {
        Some(blocks)
            if offset == 0 && args == actual && actual <= max && has - blocks.len() < 8 =>
        {
            Ok(blocks)
        }
        _ => Err(CmError::Ndr {
            args,
            max,
            offset,
            actual,
            has,
        }),
    }
}

/// A block's type, and its content behind the version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawBlock<'a> {
    pub(crate) kind: u16,
    pub(crate) content: Reader<'a>,
}

impl<'a> RawBlock<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, CmError> {
        let kind = reader.u16()?;
        let length = reader.u16()?;
        let mut content = reader.sub(length.into())?;
        let version = content
            .u16()
            .map_err(|_| CmError::Length { kind, length })?;
        if version >> 8 != 1 {
            return Err(CmError::Version(version));
        }
        Ok(Self { kind, content })
    }

    /// Expects one type.
    pub(crate) fn of(reader: &mut Reader<'a>, wanted: u16) -> Result<Reader<'a>, CmError> {
        let block = Self::read(reader)?;
        match block.kind {
            got if got == wanted => Ok(block.content),
            got => Err(CmError::Block { got, wanted }),
        }
    }
}

pub(crate) fn uuid(reader: &mut Reader<'_>) -> Result<Uuid, Short> {
    Ok(Uuid(reader.array()?))
}

/// What is left of a block, or behind the last one, may be padding: zeros.
pub(crate) fn finished(kind: u16, rest: Reader<'_>) -> Result<(), CmError> {
    match rest.rest().iter().all(|octet| *octet == 0) {
        true => Ok(()),
        false => Err(CmError::Trailing(kind)),
    }
}
