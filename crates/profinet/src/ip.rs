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

    /// Whether the checksum over pseudo header and datagram is right, or 0: not computed.
    pub fn checksum_holds(&self, ip: &Ipv4<'_>) -> bool {
        // The header was read.
        if self.datagram[6..8] == [0, 0] {
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
