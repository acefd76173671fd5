//! Exception codes (section 7).

use std::fmt;

/// Set in the function code of an answer that is an exception.
pub const EXCEPTION_BIT: u8 = 0x80;

/// Why a server, or a gateway on its behalf, refuses a request.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exception {
    IllegalFunction = 0x01,
    IllegalDataAddress = 0x02,
    IllegalDataValue = 0x03,
    ServerDeviceFailure = 0x04,
    Acknowledge = 0x05,
    ServerDeviceBusy = 0x06,
    /// Not in V1.1b3 any more; older controllers send it.
    NegativeAcknowledge = 0x07,
    MemoryParityError = 0x08,
    GatewayPathUnavailable = 0x0A,
    GatewayTargetFailedToRespond = 0x0B,
}

impl Exception {
    /// The answer PDU that refuses a request of this function.
    pub fn pdu(self, function: u8) -> [u8; 2] {
        [function | EXCEPTION_BIT, self.code()]
    }

    pub const fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x01 => Self::IllegalFunction,
            0x02 => Self::IllegalDataAddress,
            0x03 => Self::IllegalDataValue,
            0x04 => Self::ServerDeviceFailure,
            0x05 => Self::Acknowledge,
            0x06 => Self::ServerDeviceBusy,
            0x07 => Self::NegativeAcknowledge,
            0x08 => Self::MemoryParityError,
            0x0A => Self::GatewayPathUnavailable,
            0x0B => Self::GatewayTargetFailedToRespond,
            _ => return None,
        })
    }
}

/// `0x02 illegal data address`
impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::IllegalFunction => "illegal function",
            Self::IllegalDataAddress => "illegal data address",
            Self::IllegalDataValue => "illegal data value",
            Self::ServerDeviceFailure => "server device failure",
            Self::Acknowledge => "acknowledge",
            Self::ServerDeviceBusy => "server device busy",
            Self::NegativeAcknowledge => "negative acknowledge",
            Self::MemoryParityError => "memory parity error",
            Self::GatewayPathUnavailable => "gateway path unavailable",
            Self::GatewayTargetFailedToRespond => "gateway target device failed to respond",
        };
        write!(f, "{:#04x} {name}", self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        let known: Vec<u8> = (0..=255)
            .filter(|&code| Exception::from_code(code).is_some_and(|e| e.code() == code))
            .collect();
        assert_eq!(known, [1, 2, 3, 4, 5, 6, 7, 8, 0x0A, 0x0B]);
    }

    #[test]
    fn pdu_sets_the_exception_bit() {
        assert_eq!(Exception::IllegalDataAddress.pdu(3), [0x83, 0x02]);
        assert_eq!(
            Exception::GatewayTargetFailedToRespond.pdu(0x90),
            [0x90, 0x0B]
        );
    }

    #[test]
    fn display_names_the_code() {
        assert_eq!(
            Exception::GatewayPathUnavailable.to_string(),
            "0x0a gateway path unavailable"
        );
    }
}
