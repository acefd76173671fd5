//! Blocks: an option, its suboption, a length, content.

use std::fmt;

use super::{DcpError, Kind, Pdu, ServiceId, Value};
use crate::reader::Reader;
use crate::service::Service;

/// Option and suboption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId {
    pub option: u8,
    pub suboption: u8,
}

impl BlockId {
    pub const MAC: Self = Self::new(1, 1);
    /// Address, mask, gateway.
    pub const IP: Self = Self::new(1, 2);
    /// The same and four name servers.
    pub const FULL_IP: Self = Self::new(1, 3);
    /// Text of the vendor, often the type of the station.
    pub const VENDOR: Self = Self::new(2, 1);
    pub const NAME: Self = Self::new(2, 2);
    pub const DEVICE_ID: Self = Self::new(2, 3);
    pub const ROLE: Self = Self::new(2, 4);
    /// Which blocks the station knows.
    pub const OPTIONS: Self = Self::new(2, 5);
    pub const ALIAS: Self = Self::new(2, 6);
    pub const INSTANCE: Self = Self::new(2, 7);
    pub const OEM_ID: Self = Self::new(2, 8);
    pub const GATEWAY: Self = Self::new(2, 9);
    pub const RSI: Self = Self::new(2, 10);
    /// Marks the begin of what is set together.
    pub const START: Self = Self::new(5, 1);
    /// Marks its end.
    pub const STOP: Self = Self::new(5, 2);
    /// The station blinks.
    pub const SIGNAL: Self = Self::new(5, 3);
    /// What became of a block that was asked for or set.
    pub const RESPONSE: Self = Self::new(5, 4);
    pub const FACTORY_RESET: Self = Self::new(5, 5);
    pub const RESET_TO_FACTORY: Self = Self::new(5, 6);
    /// Says whether a device sends Hello.
    pub const INITIATIVE: Self = Self::new(6, 1);
    /// Selects every station, or all that a station has to tell.
    pub const ALL: Self = Self::new(0xff, 0xff);

    pub const fn new(option: u8, suboption: u8) -> Self {
        Self { option, suboption }
    }

    /// A name for people; "unknown" for those that are not listed.
    pub fn name(self) -> &'static str {
        match self {
            Self::MAC => "MAC address",
            Self::IP => "IP suite",
            Self::FULL_IP => "full IP suite",
            Self::VENDOR => "vendor",
            Self::NAME => "name of station",
            Self::DEVICE_ID => "device id",
            Self::ROLE => "role",
            Self::OPTIONS => "options",
            Self::ALIAS => "alias",
            Self::INSTANCE => "instance",
            Self::OEM_ID => "OEM device id",
            Self::GATEWAY => "standard gateway",
            Self::RSI => "RSI properties",
            Self::START => "start of transaction",
            Self::STOP => "end of transaction",
            Self::SIGNAL => "signal",
            Self::RESPONSE => "response",
            Self::FACTORY_RESET => "factory reset",
            Self::RESET_TO_FACTORY => "reset to factory",
            Self::INITIATIVE => "device initiative",
            Self::ALL => "all",
            Self { option: 3, .. } => "DHCP",
            Self { option: 7, .. } => "TSN",
            Self {
                option: 0x80..=0xfe,
                ..
            } => "manufacturer specific",
            _ => "unknown",
        }
    }

    /// The service that setting this block is; `None` for the marks of a transaction.
    pub fn set_service(self) -> Option<Service> {
        match self {
            Self::START | Self::STOP => None,
            Self::IP | Self::FULL_IP => Some(Service::SetIp),
            Self::NAME => Some(Service::SetName),
            Self::SIGNAL => Some(Service::Signal),
            Self::FACTORY_RESET | Self::RESET_TO_FACTORY => Some(Service::Reset),
            _ => Some(Service::SetOther),
        }
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} ({})", self.option, self.suboption, self.name())
    }
}

/// What a block is for, and with it what stands before its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Of a Get request: option and suboption alone.
    Selector,
    /// Of an Identify request: stations with this content answer.
    Filter,
    /// Of a Set request. Bit 0: keep over a restart; of a reset to factory the bits above say what.
    Set { qualifier: u16 },
    /// Of a response or Hello, with BlockInfo. Of an IP suite bits 0 and 1: 0 not set, 1 set, 2 set
    /// by DHCP; bit 7: somebody else has the address.
    Content { info: u16 },
    /// Of a response to Get or Set: what became of one block. It has no BlockInfo.
    Result,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    pub id: BlockId,
    pub form: Form,
    /// Behind qualifier or info.
    pub data: &'a [u8],
}

impl<'a> Block<'a> {
    /// The content, of a block that is known. Lengths are exact.
    pub fn value(&self) -> Result<Value<'a>, DcpError> {
        Value::read(self)
    }

    /// See [`BlockId::set_service`]; of a result, that of the block that it is about.
    pub(super) fn set_service(&self) -> Result<Option<Service>, DcpError> {
        Ok(match self.value()? {
            Value::Response { id, .. } => id.set_service(),
            _ => self.id.set_service(),
        })
    }
}

/// The blocks of a PDU in their order; ends behind the first error.
#[derive(Debug, Clone)]
pub struct Blocks<'a> {
    rest: Reader<'a>,
    service: ServiceId,
    kind: Kind,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(pdu: &Pdu<'a>) -> Self {
        Self {
            rest: Reader::new(pdu.blocks),
            service: pdu.service,
            kind: pdu.kind,
        }
    }

    fn read(&mut self) -> Result<Block<'a>, DcpError> {
        let id = BlockId::new(self.rest.u8()?, self.rest.u8()?);
        if (self.service, self.kind) == (ServiceId::Get, Kind::Request) {
            return Ok(Block {
                id,
                form: Form::Selector,
                data: &[],
            });
        }
        let length = self.rest.u16()?;
        let wrong = |_| DcpError::BlockLength(id);
        let mut body = self.rest.sub(length.into()).map_err(wrong)?;
        // Blocks begin at even offsets; behind the last one the padding may be missing.
        if length % 2 == 1 && !self.rest.is_empty() {
            self.rest.u8()?;
        }
        let form = match (self.service, self.kind) {
            (ServiceId::Identify, Kind::Request) => Form::Filter,
            (ServiceId::Set, Kind::Request) => Form::Set {
                qualifier: body.u16().map_err(wrong)?,
            },
            _ if id == BlockId::RESPONSE => Form::Result,
            _ => Form::Content {
                info: body.u16().map_err(wrong)?,
            },
        };
        let data = body.rest();
        Ok(Block { id, form, data })
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Result<Block<'a>, DcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let block = self.read();
        if block.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(block)
    }
}
