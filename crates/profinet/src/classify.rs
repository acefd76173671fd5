//! The one place where a frame gets its kind.

use thiserror::Error;

use crate::alarm::{AlarmError, Rta};
use crate::arp::{Arp, ArpError};
use crate::dcp::{DcpError, Pdu};
use crate::eth::{self, Frame};
use crate::frame_id::{FrameId, Kind};
use crate::ip::{self, Datagram, IpError, Ipv4, Udp};
use crate::reader::{Reader, Short};

/// UDP port of connection management.
pub const CM_PORT: u16 = 0x8894;
/// UDP port of RT_CLASS_UDP.
pub const RT_UDP_PORT: u16 = 0x8892;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class<'a> {
    /// Cyclic data to one consumer; `pdu` is what stands behind the FrameID and is read by
    /// [`crate::cyclic::Cyclic::parse`] with the length that the IOCR gives.
    Cyclic {
        id: FrameId,
        pdu: &'a [u8],
    },
    AlarmHigh(Rta<'a>),
    AlarmLow(Rta<'a>),
    /// Under the FrameID of its service; its blocks are not looked at yet.
    Dcp(Pdu<'a>),
    Arp(Arp),
    /// Any UDP over IPv4 but that of RT_CLASS_UDP: connection management, at [`CM_PORT`] or where
    /// that moved to, and what is none of ours.
    Udp(Datagram<'a>),
    /// Carried under no circumstances.
    Never(Never),
}

/// Frames that never leave their wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Never {
    Ptcp,
    Irt,
    Rsi,
    /// Of a frame of EtherType 0x8892.
    Fragment,
    MulticastCyclic(FrameId),
    ReservedFrameId(FrameId),
    Lldp,
    Mrp,
    RtOverUdp,
    IpFragment,
    /// Protocol of an IPv4 packet.
    OtherIp(u8),
    OtherEtherType(u16),
}

impl Never {
    /// Its name, for counters and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ptcp => "ptcp",
            Self::Irt => "irt",
            Self::Rsi => "rsi",
            Self::Fragment => "fragment",
            Self::MulticastCyclic(_) => "multicast-cyclic",
            Self::ReservedFrameId(_) => "reserved-frame-id",
            Self::Lldp => "lldp",
            Self::Mrp => "mrp",
            Self::RtOverUdp => "rt-over-udp",
            Self::IpFragment => "ip-fragment",
            Self::OtherIp(_) => "other-ip",
            Self::OtherEtherType(_) => "other-ethertype",
        }
    }
}

/// A frame of a kind that may be carried, but broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("PROFINET frame without a FrameID")]
    FrameId,
    #[error(transparent)]
    Dcp(#[from] DcpError),
    #[error(transparent)]
    Alarm(#[from] AlarmError),
    #[error(transparent)]
    Arp(#[from] ArpError),
    #[error(transparent)]
    Ip(#[from] IpError),
}

/// Sorts a frame, and reads it as far as that can be done without knowing an AR.
pub fn classify<'a>(frame: &Frame<'a>) -> Result<Class<'a>, Malformed> {
    match frame.ethertype {
        eth::PROFINET => profinet(frame.payload),
        eth::ARP => Ok(Class::Arp(Arp::parse(frame.payload)?)),
        eth::IPV4 => ipv4(frame.payload),
        eth::LLDP => Ok(Class::Never(Never::Lldp)),
        eth::MRP => Ok(Class::Never(Never::Mrp)),
        other => Ok(Class::Never(Never::OtherEtherType(other))),
    }
}

fn profinet(payload: &[u8]) -> Result<Class<'_>, Malformed> {
    let mut reader = Reader::new(payload);
    let id = FrameId(reader.u16().map_err(|Short| Malformed::FrameId)?);
    let pdu = reader.rest();
    Ok(match id.kind() {
        Kind::Cyclic => Class::Cyclic { id, pdu },
        Kind::AlarmHigh => Class::AlarmHigh(Rta::parse(pdu)?),
        Kind::AlarmLow => Class::AlarmLow(Rta::parse(pdu)?),
        Kind::DcpHello | Kind::DcpGetSet | Kind::DcpIdentify | Kind::DcpIdentifyResponse => {
            let pdu = Pdu::parse(pdu)?;
            let expected = pdu.frame_id();
            if id != expected {
                let found = id;
                return Err(DcpError::FrameId { found, expected }.into());
            }
            Class::Dcp(pdu)
        }
        Kind::Ptcp => Class::Never(Never::Ptcp),
        Kind::Irt => Class::Never(Never::Irt),
        Kind::Rsi => Class::Never(Never::Rsi),
        Kind::Fragment => Class::Never(Never::Fragment),
        Kind::CyclicMulticast => Class::Never(Never::MulticastCyclic(id)),
        Kind::Reserved => Class::Never(Never::ReservedFrameId(id)),
    })
}

fn ipv4(payload: &[u8]) -> Result<Class<'_>, Malformed> {
    let ip = match Ipv4::parse(payload) {
        Err(IpError::Fragment) => return Ok(Class::Never(Never::IpFragment)),
        other => other?,
    };
    if ip.protocol != ip::UDP {
        return Ok(Class::Never(Never::OtherIp(ip.protocol)));
    }
    let udp = Udp::parse(ip.payload)?;
    Ok(
        match [udp.source_port, udp.destination_port].contains(&RT_UDP_PORT) {
            true => Class::Never(Never::RtOverUdp),
            false => Class::Udp(Datagram { ip, udp }),
        },
    )
}
