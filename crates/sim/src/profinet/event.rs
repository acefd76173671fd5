//! What simulators tell their user.

use std::net::Ipv4Addr;
use std::time::Duration;

use fieldlock_profinet::{FrameId, Mac};

use super::discovery::IpSuite;
use super::stats::Abort;

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
