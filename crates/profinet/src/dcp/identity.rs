//! Asking for a station, and what its answer says.

use super::{BlockId, DcpError, HEADER, IpSuite, MAX_DELAY_FACTOR, Pdu, Text, Value};
use crate::frame_id::FrameId;
use crate::mac::Mac;
use crate::name::StationName;

/// What a station says of itself, in an Identify response or a Hello.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Of no octets where the station has none.
    pub name: Option<Text<'a>>,
    /// Stations rarely say it: it is the source of the frame.
    pub mac: Option<Mac>,
    pub ip: Option<IpSuite>,
    pub vendor_id: Option<u16>,
    pub device_id: Option<u16>,
    /// See [`Value::Role`].
    pub role: Option<u8>,
    /// The first one.
    pub alias: Option<Text<'a>>,
    /// Text of the vendor, often the type of the station.
    pub vendor: Option<Text<'a>>,
}

impl<'a> Identity<'a> {
    /// Gathers the blocks of a response. All must be sound, and none that is gathered may be there
    /// twice (but for the alias): readers would differ in what the station said.
    pub fn read(pdu: &Pdu<'a>) -> Result<Self, DcpError> {
        let mut identity = Self::default();
        for block in pdu.blocks() {
            let block = block?;
            let fresh = match block.value()? {
                Value::Name(name) => identity.name.replace(name).is_none(),
                Value::Mac(mac) => identity.mac.replace(mac).is_none(),
                Value::Ip(ip) | Value::FullIp(ip, _) => identity.ip.replace(ip).is_none(),
                Value::DeviceId { vendor, device } => {
                    identity.vendor_id = Some(vendor);
                    identity.device_id.replace(device).is_none()
                }
                Value::Role(role) => identity.role.replace(role).is_none(),
                Value::Vendor(vendor) => identity.vendor.replace(vendor).is_none(),
                Value::Alias(alias) => {
                    identity.alias.get_or_insert(alias);
                    true
                }
                _ => true,
            };
            if !fresh {
                return Err(DcpError::Repeated(block.id));
            }
        }
        Ok(identity)
    }
}

/// The payload, FrameID included, of a frame to [`Mac::DCP_IDENTIFY`] that asks for one station.
/// It answers within `delay_factor` times 10 ms (1 to 6400; what is outside is moved inside).
pub fn identify_request(name: &StationName, xid: u32, delay_factor: u16) -> Vec<u8> {
    let name = name.as_str().as_bytes();
    // A name has at most 240 octets.
    let length = name.len() as u16;
    let mut out = Vec::with_capacity(2 + HEADER + 4 + name.len() + 1);
    out.extend(FrameId::DCP_IDENTIFY.0.to_be_bytes());
    out.extend([5, 0]);
    out.extend(xid.to_be_bytes());
    out.extend(delay_factor.clamp(1, MAX_DELAY_FACTOR).to_be_bytes());
    out.extend((4 + length.next_multiple_of(2)).to_be_bytes());
    out.extend([BlockId::NAME.option, BlockId::NAME.suboption]);
    out.extend(length.to_be_bytes());
    out.extend(name);
    if name.len() % 2 == 1 {
        out.push(0);
    }
    out
}
