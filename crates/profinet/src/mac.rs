//! The address of a station on Ethernet.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Six octets; written `00:1b:1b:01:02:03`, read with `:` or `-` between them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// To all stations: DCP Identify.
    pub const DCP_IDENTIFY: Self = Self([0x01, 0x0e, 0xcf, 0, 0, 0]);
    /// To all stations: DCP Hello.
    pub const DCP_HELLO: Self = Self([0x01, 0x0e, 0xcf, 0, 0, 1]);

    /// One station's own address: not a group's, not all zero.
    pub fn is_station(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

/// Text that is no address of six octets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no Ethernet address: six octets in hexadecimal, as in 00:1b:1b:01:02:03")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mac = Mac([0, 0x1b, 0x1b, 1, 2, 0xff]);
        assert_eq!(mac.to_string(), "00:1b:1b:01:02:ff");
        assert_eq!("00:1b:1b:01:02:ff".parse(), Ok(mac));
        assert_eq!("00-1B-1B-01-02-FF".parse(), Ok(mac));
        for wrong in [
            "",
            "00:1b:1b:01:02",
            "00:1b:1b:01:02:ff:00",
            "0:1b:1b:01:02:ff",
            "00:1b:1b:01:02:fg",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
