//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use thiserror::Error;

use crate::mac::Mac;
use crate::reader::{Reader, Short};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    pub operation: Operation,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Request,
    Reply,
}

/// What an ARP packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Who has the target's address?
    Request,
    Reply,
    /// Is the target's address free? The sender has none yet.
    Probe,
    /// The sender says that it has this address, unasked.
    Announcement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ArpError {
    #[error("ARP packet is cut short")]
    Short,
    #[error("ARP packet for something else than IPv4 over Ethernet")]
    Family,
    #[error("ARP operation {0}; known are 1 (request) and 2 (reply)")]
    Operation(u16),
}

impl From<Short> for ArpError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl Arp {
    /// Reads the payload of a frame; what is behind its 28 octets is padding.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArpError> {
        let mut reader = Reader::new(bytes);
        // Hardware type 1 (Ethernet) with 6 octets, protocol type 0x0800 (IPv4) with 4.
        if reader.array()? != [0, 1, 0x08, 0x00, 6, 4] {
            return Err(ArpError::Family);
        }
        let operation = match reader.u16()? {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(ArpError::Operation(other)),
        };
        Ok(Self {
            operation,
            sender_mac: Mac(reader.array()?),
            sender: reader.array::<4>()?.into(),
            target_mac: Mac(reader.array()?),
            target: reader.array::<4>()?.into(),
        })
    }

    pub fn purpose(&self) -> Purpose {
        match self.operation {
            _ if self.sender == self.target => Purpose::Announcement,
            Operation::Request if self.sender.is_unspecified() => Purpose::Probe,
            Operation::Request => Purpose::Request,
            Operation::Reply => Purpose::Reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(operation: u16, sender: u8, target: u8) -> Vec<u8> {
        let address = |last: u8| match last {
            0 => [0; 4],
            last => [10, 0, 0, last],
        };
        [
            &[0, 1, 8, 0, 6, 4][..],
            &operation.to_be_bytes(),
            &[2, 0, 0, 0, 0, 1],
            &address(sender),
            &[0; 6],
            &address(target),
        ]
        .concat()
    }

    #[test]
    fn packets_have_a_purpose() {
        for (operation, sender, target, purpose) in [
            (1, 1, 2, Purpose::Request),
            (2, 1, 2, Purpose::Reply),
            (1, 0, 2, Purpose::Probe),
            (1, 1, 1, Purpose::Announcement),
            (2, 1, 1, Purpose::Announcement),
        ] {
            let mut bytes = packet(operation, sender, target);
            for end in 0..bytes.len() {
                assert!(Arp::parse(&bytes[..end]).is_err());
            }
            bytes.resize(46, 0);
            let arp = Arp::parse(&bytes).unwrap();
            assert_eq!(arp.purpose(), purpose);
            assert_eq!(arp.sender_mac, Mac([2, 0, 0, 0, 0, 1]));
            assert_eq!(arp.target.octets()[3], target);
        }
    }

    #[test]
    fn other_families_and_operations_are_refused() {
        for octet in 0..6 {
            let mut bytes = packet(1, 1, 2);
            bytes[octet] ^= 0x10;
            assert_eq!(Arp::parse(&bytes), Err(ArpError::Family));
        }
        for operation in [0, 3, 4, 0x0101] {
            let error = Err(ArpError::Operation(operation));
            assert_eq!(Arp::parse(&packet(operation, 1, 2)), error);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Arp::parse(&bytes);
            let _ = Arp::parse(&[&[0, 1, 8, 0, 6, 4][..], &bytes].concat());
        }
    }
}
