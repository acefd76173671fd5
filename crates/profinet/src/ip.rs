//! IPv4 and UDP headers (RFC 791, RFC 768).

use std::net::{Ipv4Addr, SocketAddrV4};

use thiserror::Error;

use crate::reader::{Reader, Short};

/// The protocol number of UDP.
pub const UDP: u8 = 17;

/// An IPv4 packet that is no fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub ttl: u8,
    /// 20 to 60 octets, options included.
    header: &'a [u8],
    pub payload: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IpError {
    #[error("IP packet is cut short")]
    Short,
    #[error("IP packet of version {0} with EtherType 0x0800")]
    Version(u8),
    #[error("IPv4 header of {0} octets, allowed are 20 to 60")]
    HeaderLength(usize),
    #[error("IPv4 packet of {total} octets in a frame that holds {found}")]
    TotalLength { total: u16, found: usize },
    /// PROFINET's connection management has fragments of its own, above UDP.
    #[error("fragment of an IPv4 packet")]
    Fragment,
    #[error("UDP datagram of {length} octets in an IP packet that holds {found}")]
    UdpLength { length: u16, found: usize },
}

impl From<Short> for IpError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl<'a> Ipv4<'a> {
    /// Reads the payload of a frame; what is behind the total length is padding.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IpError> {
        let mut reader = Reader::new(bytes);
        let first = reader.u8()?;
        if first >> 4 != 4 {
            return Err(IpError::Version(first >> 4));
        }
        let header_length = usize::from(first & 0x0f) * 4;
        if header_length < 20 {
            return Err(IpError::HeaderLength(header_length));
        }
        reader.u8()?;
        let total = reader.u16()?;
        let length = IpError::TotalLength {
            total,
            found: bytes.len(),
        };
        let packet = bytes.get(..total.into()).ok_or(length)?;
        let (header, payload) = packet.split_at_checked(header_length).ok_or(length)?;
        reader.u16()?;
        // More fragments, or not the first.
        if reader.u16()? & 0x3fff != 0 {
            return Err(IpError::Fragment);
        }
        let (ttl, protocol) = (reader.u8()?, reader.u8()?);
        reader.u16()?;
        Ok(Self {
            source: reader.array::<4>()?.into(),
            destination: reader.array::<4>()?.into(),
            protocol,
            ttl,
            header,
            payload,
        })
    }

    /// Options of the header, if any: up to 40 octets.
    pub fn options(&self) -> &'a [u8] {
        // The header has at least 20 octets.
        &self.header[20..]
    }

    /// Whether the header's checksum is right. A sender on the same machine may have left it to a
    /// network card, so not every frame from a wire has it.
    pub fn checksum_holds(&self) -> bool {
        fold(sum(self.header)) == 0xffff
    }
}

/// A UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    pub source_port: u16,
    pub destination_port: u16,
    /// Header and payload.
    datagram: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Reads the payload of an IP packet, which the datagram has to fill.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IpError> {
        let mut reader = Reader::new(bytes);
        let (source_port, destination_port) = (reader.u16()?, reader.u16()?);
        let length = reader.u16()?;
        reader.u16()?;
        let found = bytes.len();
        if usize::from(length) != found {
            return Err(IpError::UdpLength { length, found });
        }
        Ok(Self {
            source_port,
            destination_port,
            datagram: bytes,
            payload: reader.rest(),
        })
    }

    /// A sender may leave the checksum out, by a 0 in its place.
    pub fn has_checksum(&self) -> bool {
        // The header was read.
        self.datagram[6..8] != [0, 0]
    }

    /// Whether the checksum over pseudo header and datagram is right, or left out.
    pub fn checksum_holds(&self, ip: &Ipv4<'_>) -> bool {
        if !self.has_checksum() {
            return true;
        }
        let pseudo = sum(&ip.source.octets())
            + sum(&ip.destination.octets())
            + u32::from(UDP)
            // At most 65,535: it is what the length field says.
            + self.datagram.len() as u32;
        fold(pseudo + sum(self.datagram)) == 0xffff
    }
}

/// A UDP datagram with the addresses of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub ip: Ipv4<'a>,
    pub udp: Udp<'a>,
}

impl Datagram<'_> {
    pub fn source(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip.source, self.udp.source_port)
    }

    pub fn destination(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip.destination, self.udp.destination_port)
    }

    /// Both checksums; see [`Ipv4::checksum_holds`] for why they may not.
    pub fn checksums_hold(&self) -> bool {
        self.ip.checksum_holds() && self.udp.checksum_holds(&self.ip)
    }
}

/// Of 16-bit words, an odd octet padded with zero. Fits 32 bits for any IP packet.
fn sum(bytes: &[u8]) -> u32 {
    let (pairs, odd) = bytes.as_chunks();
    let words = pairs
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)));
    words.sum::<u32>() + odd.first().map_or(0, |octet| u32::from(*octet) << 8)
}

/// The one's complement sum in 16 bits (RFC 1071).
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    /// With right checksums.
    fn packet(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = 8 + payload.len() as u16;
        let header_length = 20 + options.len() as u16;
        let mut udp = [0x88, 0x94, 0xc0, 0x00].to_vec();
        udp.extend(length.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(payload);
        let pseudo = sum(&SOURCE.octets()) + sum(&DESTINATION.octets()) + 17 + u32::from(length);
        let checksum = !fold(pseudo + sum(&udp));
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        let mut out = vec![0x40 | (header_length / 4) as u8, 0];
        out.extend((header_length + length).to_be_bytes());
        out.extend([0, 1, 0x40, 0, 64, UDP, 0, 0]);
        out.extend(SOURCE.octets());
        out.extend(DESTINATION.octets());
        out.extend(options);
        let checksum = !fold(sum(&out));
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
        out.extend(udp);
        out
    }

    #[test]
    fn packets_are_read_with_options_and_without() {
        for options in [&[][..], &[0x94, 4, 0, 0], &[1; 40]] {
            for payload in [&[][..], &[1], &[1, 2, 3, 4]] {
                let mut bytes = packet(options, payload);
                for end in 0..bytes.len() {
                    assert!(Ipv4::parse(&bytes[..end]).is_err());
                }
                bytes.resize(bytes.len() + 9, 0xee);
                let ip = Ipv4::parse(&bytes).unwrap();
                let udp = Udp::parse(ip.payload).unwrap();
                assert_eq!((ip.source, ip.destination), (SOURCE, DESTINATION));
                assert_eq!((ip.ttl, ip.protocol), (64, UDP));
                assert_eq!(ip.options(), options);
                assert_eq!(udp.payload, payload);
                let datagram = Datagram { ip, udp };
                assert!(datagram.checksums_hold());
                assert_eq!(datagram.source(), SocketAddrV4::new(SOURCE, 0x8894));
                let destination = SocketAddrV4::new(DESTINATION, 0xc000);
                assert_eq!(datagram.destination(), destination);
            }
        }
    }

    #[test]
    fn checksums_are_of_all_octets_and_of_the_addresses() {
        let whole = packet(&[1; 4], &[7; 5]);
        for at in (8..whole.len()).filter(|at| *at != 9) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let ip = Ipv4::parse(&bytes).unwrap();
            let (header, addresses) = (at < 24, (12..20).contains(&at));
            assert_eq!(ip.checksum_holds(), !header, "{at}");
            // Not with a length that is wrong.
            if let Ok(udp) = Udp::parse(ip.payload) {
                assert_eq!(udp.checksum_holds(&ip), header && !addresses, "{at}");
            }
        }
        let mut without = whole;
        without[30..32].copy_from_slice(&[0, 0]);
        let ip = Ipv4::parse(&without).unwrap();
        let udp = Udp::parse(ip.payload).unwrap();
        assert!(udp.checksum_holds(&ip) && !udp.has_checksum());
    }

    #[test]
    fn fragments_are_refused_and_unfragmented_packets_are_not() {
        for (flags, expected) in [
            (0x0000_u16, Ok(())),
            (0x4000, Ok(())),
            (0x2000, Err(IpError::Fragment)),
            (0x0001, Err(IpError::Fragment)),
            (0x1fff, Err(IpError::Fragment)),
            (0x6000, Err(IpError::Fragment)),
        ] {
            let mut bytes = packet(&[], &[1]);
            bytes[6..8].copy_from_slice(&flags.to_be_bytes());
            assert_eq!(Ipv4::parse(&bytes).map(drop), expected, "{flags:#x}");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let whole = packet(&[], &[1, 2]);
        let changed = |at: usize, octet| {
            let mut bytes = whole.clone();
            bytes[at] = octet;
            bytes
        };
        let header = Err(IpError::HeaderLength(16));
        assert_eq!(Ipv4::parse(&changed(0, 0x44)), header);
        assert_eq!(Ipv4::parse(&changed(0, 0x65)), Err(IpError::Version(6)));
        for total in [0, 19, 31] {
            let error = IpError::TotalLength { total, found: 30 };
            assert_eq!(Ipv4::parse(&changed(3, total as u8)), Err(error));
        }
        for length in [0, 7, 9, 11] {
            let bytes = changed(25, length);
            let ip = Ipv4::parse(&bytes).unwrap();
            let error = IpError::UdpLength {
                length: length.into(),
                found: 10,
            };
            assert_eq!(Udp::parse(ip.payload), Err(error));
        }
        for end in 0..8 {
            let udp = &whole[20..20 + end];
            assert!(Udp::parse(udp).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Udp::parse(&bytes);
            let mut packet = packet(&[], &bytes);
            for (octet, with) in packet.iter_mut().zip(&bytes) {
                *octet ^= with & 0x11;
            }
            if let Ok(ip) = Ipv4::parse(&packet) {
                prop_assert!(ip.options().len() <= 40);
                if let Ok(udp) = Udp::parse(ip.payload) {
                    let _ = Datagram { ip, udp }.checksums_hold();
                }
            }
        }
    }
}
