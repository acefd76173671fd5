//! Serial numbers of certificates.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hex;

/// A serial number: a positive integer of at most 20 octets (RFC 5280, 4.1.2.2), kept without
/// leading zeros so that two spellings of one number are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(Vec<u8>);

impl Serial {
    /// `octets` is the big-endian content of the INTEGER, sign octet included or not.
    pub fn from_octets(octets: &[u8]) -> Self {
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        Self(octets.get(zeros..).unwrap_or_default().to_vec())
    }

    pub fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        f.write_str(&hex::lower(&self.0))
    }
}

/// Hexadecimal digits, any case, with or without colons: what `openssl x509 -serial` prints.
impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let mut digits: Vec<u8> = Vec::with_capacity(text.len());
        for character in text.chars().filter(|character| *character != ':') {
            let digit = character.to_digit(16).ok_or(SerialError::NotHexadecimal)?;
            digits.push(digit as u8);
        }
        if digits.is_empty() || digits.len() > 40 {
            return Err(SerialError::Length {
                digits: digits.len(),
            });
        }
        if digits.len() % 2 == 1 {
            digits.insert(0, 0);
        }
        let octets: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |octet, digit| (octet << 4) | digit))
            .collect();
        Ok(Self::from_octets(&octets))
    }
}

impl TryFrom<String> for Serial {
    type Error = SerialError;

    fn try_from(text: String) -> Result<Self, SerialError> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.to_string()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    #[error("a serial number is hexadecimal digits, with or without colons")]
    NotHexadecimal,
    #[error("a serial number has 1 to 40 hexadecimal digits, not {digits}")]
    Length { digits: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_are_equal() {
        let plain: Serial = "0a1b2c".parse().unwrap();
        for text in ["0A:1B:2C", "a1b2c", "000a1b2c"] {
            assert_eq!(text.parse::<Serial>().unwrap(), plain, "{text}");
        }
        assert_eq!(Serial::from_octets(&[0, 0x0a, 0x1b, 0x2c]), plain);
        assert_eq!(plain.to_string(), "0a1b2c");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", ":", "press-07", "0x1", &"1".repeat(41)] {
            assert!(text.parse::<Serial>().is_err(), "{text:?}");
        }
    }
}
