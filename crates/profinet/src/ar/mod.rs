//! Application relations (ARs), followed from the Connect that opens them to their end.
//!
//! Both agents see the same connection management in the same order, so each keeps its own
//! [`Table`] and needs no word of the other.

pub mod check;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, Instant};

use check::ASSIGNED_BY_DEVICE;
pub use check::{Unfit, check};
pub use table::{Change, Refused, Table};

use crate::cm::{Iocr, IocrKind};
use crate::frame_id::FrameId;
use crate::mac::Mac;
use crate::name::StationName;
use crate::rpc::Uuid;
use crate::service::ArType;
use crate::status::PnioStatus;

/// Two stations that may be related: who controls, who is controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    pub controller: Mac,
    pub device: Mac,
}

impl Pair {
    pub fn mac(&self, end: End) -> Mac {
        match end {
            End::Controller => self.controller,
            End::Device => self.device,
        }
    }
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    Controller,
    Device,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::Controller => Self::Device,
            Self::Device => Self::Controller,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Device => "device",
        }
    }
}

/// Tells apart the ARs of one table; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArId(pub(crate) u32);

/// How far an AR has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The Connect has been sent, its answer is awaited.
    Connecting,
    /// Connected; parameters may follow, cyclic data may flow.
    Connected,
    /// The device said that its application is ready, and the controller took it.
    Running,
    /// The controller asked for its release: no cyclic data any more.
    Releasing,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Running => "running",
            Self::Releasing => "releasing",
        }
    }
}

/// A cyclic communication relation, one direction of an AR's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cr {
    /// Who sends.
    pub provider: End,
    /// IOCRReference of the Connect.
    pub reference: u16,
    /// `None` until the device has assigned it.
    pub frame_id: Option<FrameId>,
    /// C_SDU length in octets.
    pub data_length: u16,
    /// Time from frame to frame.
    pub cycle: Duration,
    /// How far the cycle counter moves from frame to frame, in ticks of 31.25 us.
    pub counter_step: u16,
    /// Silence after which the consumer ends the AR.
    pub watchdog: Duration,
}

impl Cr {
    /// As a Connect asks for it.
    pub fn of(iocr: &Iocr<'_>) -> Self {
        Self {
            provider: match iocr.kind {
                IocrKind::Output => End::Controller,
                _ => End::Device,
            },
            reference: iocr.reference,
            frame_id: (iocr.frame_id != ASSIGNED_BY_DEVICE).then_some(iocr.frame_id),
            data_length: iocr.data_length,
            cycle: iocr.cycle(),
            counter_step: iocr.send_clock.saturating_mul(iocr.reduction_ratio),
            watchdog: iocr.watchdog(),
        }
    }
}

/// The references under which the two ends of an AR speak of its alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmRefs {
    pub controller: u16,
    /// `None` until the device has answered.
    pub device: Option<u16>,
}

/// One application relation.
#[derive(Debug, Clone)]
pub struct Ar {
    pub id: ArId,
    pub uuid: Uuid,
    /// Counts the Connects of one UUID.
    pub session_key: u16,
    pub pair: Pair,
    pub kind: ArType,
    /// Records only, no data.
    pub device_access: bool,
    /// As the Connect names it.
    pub controller_name: Option<StationName>,
    pub phase: Phase,
    pub crs: Vec<Cr>,
    pub alarms: Option<AlarmRefs>,
    /// When its Connect passed.
    pub since: Instant,
    /// When anything of it last passed.
    pub last: Instant,
    /// Silence after which it is taken for gone.
    pub patience: Duration,
}

impl Ar {
    /// A number of 16 bits that both agents derive from the UUID, for use in datagrams.
    pub fn tag(&self) -> u16 {
        tag_of(&self.uuid)
    }
}

pub(crate) fn tag_of(uuid: &Uuid) -> u16 {
    let pairs = uuid.0.chunks_exact(2);
    pairs.fold(0, |tag, pair| tag ^ u16::from_be_bytes([pair[0], pair[1]]))
}

/// Why an AR is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The device refused the Connect.
    Refused(PnioStatus),
    /// The controller released it.
    Released,
    /// One end aborted it (ERR-RTA).
    Aborted { by: End, status: PnioStatus },
    /// The controller opened another in its place.
    Replaced,
    /// Nothing of it passed for long enough.
    Silent(Duration),
    /// The device answered a Connect in a way that can't be carried.
    Unfit(Unfit),
    /// The agent ended it: its policy, its configuration, or the tunnel.
    Withdrawn(&'static str),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the device refused the Connect: {status}"),
            Self::Released => f.write_str("released by the controller"),
            Self::Aborted { by, status } => write!(f, "aborted by the {}: {status}", by.name()),
            Self::Replaced => f.write_str("the controller opened another in its place"),
            Self::Silent(silence) => write!(f, "nothing of it was heard for {silence:.1?}"),
            Self::Unfit(unfit) => write!(f, "the device's answer can't be carried: {unfit}"),
            Self::Withdrawn(by) => write!(f, "ended by {by} of this agent"),
        }
    }
}
