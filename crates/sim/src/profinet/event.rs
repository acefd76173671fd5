//! What simulators tell their user.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use fieldlock_profinet::{FrameId, Mac};

use super::discovery::IpSuite;
use super::stats::{Abort, Side};

/// Something that a person or a test would want to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Controller: the device answered DCP Identify.
    Found {
        mac: Mac,
        ip: Ipv4Addr,
    },
    /// Controller: nobody answered `tries` Identify requests.
    NotFound {
        tries: u32,
    },
    /// Device: DCP Set of the IP suite.
    IpSet(IpSuite),
    /// Device: DCP Set of the name; empty is none.
    NameSet(String),
    /// Device: DCP Set, signal.
    Signalled,
    /// Device: DCP Set, reset to factory.
    WasReset,
    /// The Connect was accepted; cyclic frames flow.
    Connected {
        peer: Mac,
        input: FrameId,
        output: FrameId,
        cycle: Duration,
        watchdog: Duration,
    },
    /// The device refused a call (as told by it, or as it told).
    Refused {
        status: u32,
    },
    /// Application ready was confirmed: data is exchanged.
    Established,
    Released,
    Aborted(Abort),
    RecordWritten {
        slot: u16,
        subslot: u16,
        index: u16,
        data: Vec<u8>,
    },
    /// Controller: the answer to [`read`](super::Controller::read); `status` is 0 for success.
    RecordRead {
        index: u16,
        status: u32,
        data: Vec<u8>,
    },
    AlarmReceived {
        high: bool,
        kind: u16,
        slot: u16,
        subslot: u16,
    },
    /// Device: the controller's application acknowledged an alarm.
    AlarmAcknowledged {
        high: bool,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { mac, ip } => write!(f, "found {mac} with {ip}"),
            Self::NotFound { tries } => write!(f, "not found: no answer to {tries} DCP Identify"),
            Self::IpSet(suite) => write!(f, "IP address set to {}", suite.address),
            Self::NameSet(name) => write!(f, "name set to `{name}`"),
            Self::Signalled => f.write_str("asked to blink"),
            Self::WasReset => f.write_str("reset to factory"),
            Self::Connected {
                peer,
                input,
                output,
                cycle,
                watchdog,
            } => write!(
                f,
                "connected with {peer}: input {input}, output {output}, cycle {cycle:?}, watchdog {watchdog:?}"
            ),
            Self::Refused { status } => write!(f, "refused with PNIOStatus {status:#010x}"),
            Self::Established => f.write_str("exchanges data"),
            Self::Released => f.write_str("released"),
            Self::Aborted(abort) => abort.fmt(f),
            Self::RecordWritten {
                slot,
                subslot,
                index,
                data,
            } => write!(
                f,
                "record {index:#06x} of {slot}/{subslot} written, {} octets",
                data.len()
            ),
            Self::RecordRead {
                index,
                status,
                data,
            } => write!(
                f,
                "record {index:#06x} read, {} octets, PNIOStatus {status:#010x}",
                data.len()
            ),
            Self::AlarmReceived {
                high,
                kind,
                slot,
                subslot,
            } => write!(
                f,
                "{} alarm of type {kind} from {slot}/{subslot}",
                priority(*high)
            ),
            Self::AlarmAcknowledged { high } => {
                write!(f, "{} alarm acknowledged", priority(*high))
            }
        }
    }
}

fn priority(high: bool) -> &'static str {
    if high { "high" } else { "low" }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Controller => "controller",
            Side::Device => "device",
        };
        let reason = match self.status {
            0 => "no answer",
            0xcf81_fd05 => "watchdog expired",
            0xcf81_fd06 => "no data after Connect",
            0xcf81_fd08 => "alarm not acknowledged",
            0xcf81_fd0c => "call not answered",
            0xcf81_fd0e => "the controller connects anew",
            0xcf81_fd1f => "name changed through DCP",
            0xcf81_fd20 => "reset through DCP",
            _ => "see the PNIOStatus",
        };
        write!(f, "aborted by the {side}: {:#010x}, {reason}", self.status)
    }
}
