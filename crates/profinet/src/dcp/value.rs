//! What blocks say.

use std::fmt;
use std::net::Ipv4Addr;

use super::{Block, BlockId, DcpError, Form};
use crate::mac::Mac;
use crate::name::{NameError, StationName};
use crate::reader::{Reader, Short};

/// The content of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A block of a Get request has none; nor has a filter that selects all stations.
    Nothing,
    Mac(Mac),
    Ip(IpSuite),
    /// The suite and four name servers.
    FullIp(IpSuite, [Ipv4Addr; 4]),
    Vendor(Text<'a>),
    /// A name of no octets takes the name away, or says that there is none.
    Name(Text<'a>),
    DeviceId {
        vendor: u16,
        device: u16,
    },
    /// Bits: 0 device, 1 controller, 2 multidevice, 3 supervisor.
    Role(u8),
    /// Pairs of option and suboption; [`Value::options`] walks them.
    Options(&'a [u8]),
    Alias(Text<'a>),
    Instance {
        high: u8,
        low: u8,
    },
    OemId {
        vendor: u16,
        device: u16,
    },
    Gateway(Ipv4Addr),
    /// A DHCP option, whose code is the suboption.
    Dhcp(&'a [u8]),
    Start,
    Stop,
    /// 0x0100: blink once.
    Signal(u16),
    Response {
        /// The block that was set or asked for.
        id: BlockId,
        error: BlockError,
    },
    FactoryReset,
    ResetToFactory,
    Initiative(u16),
    /// Not known here.
    Other(&'a [u8]),
}

/// 12 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpSuite {
    pub address: Ipv4Addr,
    pub mask: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

/// Text of a station: any octets, as it sent them. Displayed with all escaped that is not printable
/// ASCII.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<'a>(pub &'a [u8]);

impl Text<'_> {
    /// Its name, if these octets are one.
    pub fn station_name(self) -> Result<StationName, NameError> {
        String::from_utf8_lossy(self.0).parse()
    }

    /// Without the allocation of [`Text::station_name`].
    pub fn is(self, name: &StationName) -> bool {
        self.0 == name.as_str().as_bytes()
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.escape_ascii(), f)
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockError {
    Ok,
    OptionUnsupported,
    SuboptionUnsupported,
    /// The suboption is known, but was not set, or not all of it.
    NotSet,
    Resource,
    /// Setting is locked on the station itself.
    NotAllowed,
    /// An application relation is up.
    InOperation,
    Other(u8),
}

impl BlockError {
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::OptionUnsupported,
            2 => Self::SuboptionUnsupported,
            3 => Self::NotSet,
            4 => Self::Resource,
            5 => Self::NotAllowed,
            6 => Self::InOperation,
            other => Self::Other(other),
        }
    }

    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::OptionUnsupported => 1,
            Self::SuboptionUnsupported => 2,
            Self::NotSet => 3,
            Self::Resource => 4,
            Self::NotAllowed => 5,
            Self::InOperation => 6,
            Self::Other(code) => code,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::OptionUnsupported => "option not supported",
            Self::SuboptionUnsupported => "suboption not supported or no data set",
            Self::NotSet => "suboption not set",
            Self::Resource => "resource error",
            Self::NotAllowed => "set not possible: locked at the station",
            Self::InOperation => "set not possible: in operation",
            Self::Other(_) => "unknown error",
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn read(block: &Block<'a>) -> Result<Self, DcpError> {
        if block.form == Form::Selector {
            return Ok(Self::Nothing);
        }
        let mut data = Reader::new(block.data);
        let wrong = DcpError::BlockLength(block.id);
        let value = Self::content(block.id, &mut data).map_err(|Short| wrong)?;
        if data.is_empty() {
            Ok(value)
        } else {
            Err(wrong)
        }
    }

    fn content(id: BlockId, data: &mut Reader<'a>) -> Result<Self, Short> {
        Ok(match id {
            BlockId::MAC => Self::Mac(Mac(data.array()?)),
            BlockId::IP => Self::Ip(IpSuite::read(data)?),
            BlockId::FULL_IP => {
                let suite = IpSuite::read(data)?;
                let mut servers = [Ipv4Addr::UNSPECIFIED; 4];
                for server in &mut servers {
                    *server = address(data)?;
                }
                Self::FullIp(suite, servers)
            }
            BlockId::VENDOR => Self::Vendor(text(data)),
            BlockId::NAME => Self::Name(text(data)),
            BlockId::DEVICE_ID => Self::DeviceId {
                vendor: data.u16()?,
                device: data.u16()?,
            },
            BlockId::ROLE => {
                let role = data.u8()?;
                data.u8()?;
                Self::Role(role)
            }
            BlockId::OPTIONS if data.rest().len() % 2 == 1 => return Err(Short),
            BlockId::OPTIONS => Self::Options(rest(data)),
            BlockId::ALIAS => Self::Alias(text(data)),
            BlockId::INSTANCE => Self::Instance {
                high: data.u8()?,
                low: data.u8()?,
            },
            BlockId::OEM_ID => Self::OemId {
                vendor: data.u16()?,
                device: data.u16()?,
            },
            BlockId::GATEWAY => Self::Gateway(address(data)?),
            BlockId::START => Self::Start,
            BlockId::STOP => Self::Stop,
            BlockId::SIGNAL => Self::Signal(data.u16()?),
            BlockId::RESPONSE => Self::Response {
                id: BlockId::new(data.u8()?, data.u8()?),
                error: BlockError::from_code(data.u8()?),
            },
            BlockId::FACTORY_RESET => Self::FactoryReset,
            BlockId::RESET_TO_FACTORY => Self::ResetToFactory,
            BlockId::INITIATIVE => Self::Initiative(data.u16()?),
            BlockId::ALL => Self::Nothing,
            BlockId { option: 3, .. } => Self::Dhcp(rest(data)),
            _ => Self::Other(rest(data)),
        })
    }

    /// The pairs of [`Value::Options`]; of another value none.
    pub fn options(&self) -> impl Iterator<Item = BlockId> + use<'a> {
        let pairs = match *self {
            Self::Options(pairs) => pairs,
            _ => &[],
        };
        let (pairs, _) = pairs.as_chunks();
        pairs
            .iter()
            .map(|[option, sub]| BlockId::new(*option, *sub))
    }
}

impl IpSuite {
    fn read(data: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(Self {
            address: address(data)?,
            mask: address(data)?,
            gateway: address(data)?,
        })
    }
}

fn address(data: &mut Reader<'_>) -> Result<Ipv4Addr, Short> {
    data.array::<4>().map(Ipv4Addr::from)
}

fn text<'a>(data: &mut Reader<'a>) -> Text<'a> {
    Text(rest(data))
}

fn rest<'a>(data: &mut Reader<'a>) -> &'a [u8] {
    let rest = data.rest();
    *data = Reader::new(&[]);
    rest
}
