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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::Mac;
    use proptest::prelude::*;

    fn frame(ethertype: u16, payload: &[u8]) -> Frame<'_> {
        Frame {
            dst: Mac([2, 0, 0, 0, 0, 1]),
            src: Mac([2, 0, 0, 0, 0, 2]),
            tag: None,
            ethertype,
            payload,
        }
    }

    fn udp(source: u16, destination: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(source.to_be_bytes());
        packet.extend(destination.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        packet
    }

    #[test]
    fn what_is_never_carried_has_its_name() {
        for (ethertype, payload, never) in [
            (eth::PROFINET, &[0, 0x20][..], Never::Ptcp),
            (eth::PROFINET, &[0xff, 0x43], Never::Ptcp),
            (eth::PROFINET, &[0x01, 0x00], Never::Irt),
            (eth::PROFINET, &[0xfe, 0x02], Never::Rsi),
            (eth::PROFINET, &[0xff, 0x80], Never::Fragment),
            (
                eth::PROFINET,
                &[0xbc, 0x00],
                Never::MulticastCyclic(FrameId(0xbc00)),
            ),
            (
                eth::PROFINET,
                &[0xfc, 0x00],
                Never::ReservedFrameId(FrameId(0xfc00)),
            ),
            (eth::LLDP, &[], Never::Lldp),
            (eth::MRP, &[], Never::Mrp),
            (0x86dd, &[], Never::OtherEtherType(0x86dd)),
        ] {
            let class = classify(&frame(ethertype, payload));
            assert_eq!(class, Ok(Class::Never(never)), "{}", never.name());
        }
    }

    #[test]
    fn packets_are_sorted_by_protocol_and_port() {
        let class = |packet: &[u8]| match classify(&frame(eth::IPV4, packet)) {
            Ok(Class::Udp(datagram)) => Ok(datagram.udp.destination_port),
            Ok(Class::Never(never)) => Err(never),
            other => panic!("{other:?}"),
        };
        assert_eq!(class(&udp(0xc000, CM_PORT)), Ok(CM_PORT));
        assert_eq!(class(&udp(CM_PORT, 0xc000)), Ok(0xc000));
        assert_eq!(class(&udp(0xc000, RT_UDP_PORT)), Err(Never::RtOverUdp));
        assert_eq!(class(&udp(RT_UDP_PORT, 0xc000)), Err(Never::RtOverUdp));
        let mut tcp = udp(1, 2);
        tcp[9] = 6;
        assert_eq!(class(&tcp), Err(Never::OtherIp(6)));
        let mut fragment = udp(1, 2);
        fragment[6] = 0x20;
        assert_eq!(class(&fragment), Err(Never::IpFragment));
    }

    #[test]
    fn dcp_stands_under_the_frame_id_of_its_service() {
        let identify = [0xfe, 0xfe, 5, 0, 0, 0, 0, 1, 0, 1, 0, 0];
        let class = classify(&frame(eth::PROFINET, &identify));
        assert!(matches!(class, Ok(Class::Dcp(pdu)) if pdu.xid == 1));
        for id in [0xfc, 0xfd, 0xff] {
            let mut moved = identify;
            moved[1] = id;
            let error = DcpError::FrameId {
                found: FrameId(0xfe00 | u16::from(id)),
                expected: FrameId::DCP_IDENTIFY,
            };
            let class = classify(&frame(eth::PROFINET, &moved));
            assert_eq!(class, Err(Malformed::Dcp(error)));
        }
    }

    #[test]
    fn broken_frames_say_of_what_kind_they_are() {
        for (ethertype, payload, error) in [
            (eth::PROFINET, &[0x80][..], Malformed::FrameId),
            (eth::PROFINET, &[0xfe, 0xfe], DcpError::Short.into()),
            (eth::PROFINET, &[0xfc, 0x01], AlarmError::Short.into()),
            (eth::ARP, &[0], ArpError::Short.into()),
            (eth::IPV4, &[], IpError::Short.into()),
        ] {
            assert_eq!(classify(&frame(ethertype, payload)), Err(error));
        }
    }

    proptest! {
        #[test]
        fn no_frame_panics(
            ethertype in prop::sample::select(vec![eth::PROFINET, eth::ARP, eth::IPV4]),
            id in prop_oneof![
                Just(0xfc01u16), Just(0xfe01), 0xfefcu16..=0xfeff, any::<u16>()
            ],
            rest in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let payload = [&id.to_be_bytes()[..], &rest].concat();
            let _ = classify(&frame(ethertype, &payload));
            let _ = classify(&frame(ethertype, &rest));
        }
    }
}
