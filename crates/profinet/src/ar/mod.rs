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

use crate::cm::{AlarmCr, ConnectResponse, Iocr, IocrAnswer, IocrKind};
use crate::eth::Tag;
use crate::frame_id::FrameId;
use crate::mac::Mac;
use crate::name::StationName;
use crate::rpc::{CallId, Uuid};
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
    /// IOCRTagHeader: the 802.1Q tag that its frames may have.
    pub tag: Tag,
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
            tag: Tag(iocr.tag_header),
        }
    }

    /// Whether `asked`, as a Connect has it, asks for this one; which FrameID the device gave it
    /// says nothing.
    fn is_asked_by(&self, asked: &Self) -> bool {
        let frame_id = match self.provider {
            End::Controller => self.frame_id,
            End::Device => asked.frame_id,
        };
        let asked = Self {
            frame_id,
            ..asked.clone()
        };
        *self == asked
    }
}

/// The references under which the two ends of an AR speak of its alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmRefs {
    pub controller: u16,
    /// `None` until the device has answered.
    pub device: Option<u16>,
    /// AlarmCRTagHeaderHigh and -Low: the 802.1Q tags that they may have.
    pub high: Tag,
    pub low: Tag,
}

impl AlarmRefs {
    /// As a Connect asks for them.
    fn of(alarm: &AlarmCr) -> Self {
        Self {
            controller: alarm.local_reference,
            device: None,
            high: Tag(alarm.tag_high),
            low: Tag(alarm.tag_low),
        }
    }
}

/// One application relation.
#[derive(Debug, Clone)]
pub struct Ar {
    pub id: ArId,
    pub uuid: Uuid,
    /// Of some controllers the number of this Connect under its UUID; of others always 1.
    pub session_key: u16,
    /// The call that its Connect was.
    pub call: CallId,
    /// The RPC object that was called: which of the instances behind one address it is about.
    pub object: Uuid,
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

    /// Whether a device that accepts this one gives the other up. A controller may have several
    /// with one address, each with another object: the slaves behind a gateway.
    fn replaces(&self, other: &Self) -> bool {
        let access = self.device_access || other.device_access;
        let same = self.object == other.object && self.kind == other.kind && !access;
        self.id != other.id && self.pair == other.pair && (self.uuid == other.uuid || same)
    }

    /// Whether an answer that accepts it assigns something else than it has.
    fn is_answered_otherwise(&self, response: &ConnectResponse<'_>) -> bool {
        let cr = |answer: &IocrAnswer| {
            let mut crs = self.crs.iter();
            crs.find(|cr| cr.reference == answer.reference && cr.provider == End::Controller)
        };
        let other_id =
            |answer: IocrAnswer| cr(&answer).is_some_and(|cr| cr.frame_id != Some(answer.frame_id));
        let of_alarms = |refs: AlarmRefs| refs.device != response.alarm_reference();
        let open = matches!(self.phase, Phase::Connected | Phase::Running);
        let other = response.iocrs().any(other_id) || self.alarms.is_some_and(of_alarms);
        open && response.status.is_ok() && other
    }

    /// Whether a Connect that makes `asked` is the one that made this, once more.
    fn is_repeated_by(&self, asked: &Self) -> bool {
        let same = (self.pair, self.uuid, self.call) == (asked.pair, asked.uuid, asked.call)
            && self.session_key == asked.session_key
            && self.crs.len() == asked.crs.len();
        let mut crs = self.crs.iter().zip(&asked.crs);
        same && crs.all(|(cr, asked)| cr.is_asked_by(asked)) && self.phase != Phase::Releasing
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
