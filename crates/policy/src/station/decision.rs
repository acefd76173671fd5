//! What a rule for stations makes of a call.

use std::fmt;

use fieldlock_profinet::{ArType, Service};

use crate::model::decision::RuleId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StationDecision {
    Allow {
        rule: RuleId,
        /// Of the policy that narrows this one.
        narrowing: Option<RuleId>,
    },
    Refuse(StationRefusal),
}

impl StationDecision {
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StationRefusal {
    /// The deny that matched, or the allow whose window is closed or that wants a name.
    pub rule: Option<RuleId>,
    pub reason: StationReason,
}

/// Why a call was refused. Later ones are closer to being allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StationReason {
    /// A deny matched.
    Denied,
    /// All stations are read-only, and the call may change something.
    ReadOnly,
    /// No allow names this client, or none through this headend.
    Client,
    /// No allow of this client names the station.
    Station,
    Service {
        service: Service,
    },
    /// It may connect, but not as this.
    Ar {
        ar: ArType,
    },
    /// The service is allowed, but not for this record.
    Record {
        index: u16,
    },
    /// The record is allowed, but not in this slot.
    Slot {
        slot: u16,
        subslot: u16,
    },
    /// An allow covers it for a client that has said its name, and this one has not.
    Unnamed,
    /// An allow covers it, and its time window is closed.
    Window,
    /// An allow covers it, and its time window counts as closed since the clock is wrong.
    WindowUnknown,
}

impl fmt::Display for StationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Denied => f.write_str("denied by rule"),
            Self::ReadOnly => f.write_str("read-only"),
            Self::Client => f.write_str("no rule for this controller"),
            Self::Station => f.write_str("no rule for this station"),
            Self::Service { service } => write!(f, "no rule for service {service}"),
            Self::Ar {
                ar: ArType::Other(code),
            } => write!(f, "no rule for AR type {code:#06x}"),
            Self::Ar { ar } => write!(f, "no rule for an AR as {}", ar.name()),
            Self::Record { index } => write!(f, "record {index:#06x} outside every range"),
            Self::Slot { slot, subslot } => {
                write!(f, "slot {slot}.{subslot:#x} outside every range")
            }
            Self::Unnamed => f.write_str("its client has to name itself in a Connect before"),
            Self::Window => f.write_str("outside its time window"),
            Self::WindowUnknown => {
                f.write_str("outside its time window, as every one while the clock is wrong")
            }
        }
    }
}
