//! Address blocks of clients: `10.1.1.0/24`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A block of IPv4 or IPv6 addresses.
///
/// An IPv4-mapped IPv6 address (`::ffff:10.1.1.20`, what a dual-stack listener sees) is an IPv4
/// address here, in the block and in what is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not an address block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    #[error("{0:?} is not an IP address or block; write \"10.1.1.20\" or \"10.1.1.0/24\"")]
    Address(String),
    #[error("prefix {got:?} is not a number from 0 to {max}")]
    Prefix { got: String, max: u8 },
    #[error(
        "{given} has bits set beyond its prefix of {prefix}; write {network}/{prefix}, or {given} without the prefix"
    )]
    HostBits {
        given: IpAddr,
        prefix: u8,
        network: IpAddr,
    },
}

impl Cidr {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = mask(32, self.prefix) as u32;
                address.to_bits() & mask == network.to_bits()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                address.to_bits() & mask(128, self.prefix) == network.to_bits()
            }
            _ => false,
        }
    }

    /// The first and the last address.
    pub(crate) fn ends(&self) -> (IpAddr, IpAddr) {
        let last = match self.network {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() | !(mask(32, self.prefix) as u32)).into()),
            IpAddr::V6(v6) => {
                let last = v6.to_bits() | !mask(128, self.prefix);
                IpAddr::V6(Ipv6Addr::from_bits(last))
            }
        };
        (self.network, last)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address
            .parse()
            .map_err(|_| CidrError::Address(text.to_owned()))?;
        let width = width(written);
        let prefix = match prefix {
            Some(prefix) => parse_prefix(prefix, width)?,
            None => width,
        };
        let network = masked(written, prefix);
        if network != written {
            return Err(CidrError::HostBits {
                given: written,
                prefix,
                network,
            });
        }
        Ok(Self::canonical(network, prefix))
    }
}

impl Cidr {
    /// A block within `::ffff:0:0/96` becomes the IPv4 block it maps.
    fn canonical(network: IpAddr, prefix: u8) -> Self {
        match network.to_canonical() {
            IpAddr::V4(v4) if network.is_ipv6() && prefix >= 96 => Self {
                network: IpAddr::V4(v4),
                prefix: prefix - 96,
            },
            _ => Self { network, prefix },
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn parse_prefix(text: &str, width: u8) -> Result<u8, CidrError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|prefix| digits && *prefix <= width)
        .ok_or_else(|| CidrError::Prefix {
            got: text.to_owned(),
            max: width,
        })
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & mask(32, prefix) as u32).into()),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask(128, prefix))),
    }
}

/// `prefix` ones at the top of `width` bits.
fn mask(width: u8, prefix: u8) -> u128 {
    let host_bits = width - prefix;
    let all = u128::MAX >> (128 - u32::from(width));
    match host_bits {
        128 => 0,
        _ => all & (all << host_bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(block: &str, address: &str) -> bool {
        block
            .parse::<Cidr>()
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn blocks_hold_their_addresses_and_no_other() {
        for (block, address, expected) in [
            ("10.1.1.20", "10.1.1.20", true),
            ("10.1.1.20", "10.1.1.21", false),
            ("10.1.1.0/24", "10.1.1.255", true),
            ("10.1.1.0/24", "10.1.2.0", false),
            ("10.1.1.0/31", "10.1.1.1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.1.1.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.1.1.0/24", "::ffff:10.1.1.7", true),
            ("::ffff:10.1.1.0/120", "10.1.1.7", true),
            ("::ffff:10.1.1.0/120", "10.1.2.7", false),
        ] {
            assert_eq!(holds(block, address), expected, "{block} {address}");
        }
    }

    #[test]
    fn what_is_not_a_block_is_refused_with_the_reason() {
        for (text, expected) in [
            ("hmi-1", "not an IP address"),
            ("10.1.1.0/33", "prefix \"33\" is not a number from 0 to 32"),
            ("10.1.1.0/+8", "prefix \"+8\""),
            ("10.1.1.0/", "prefix \"\""),
            ("2001:db8::/129", "from 0 to 128"),
            ("10.1.1.20/24", "write 10.1.1.0/24"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
