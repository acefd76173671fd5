//! Who asks what of a station.

use std::fmt;

use fieldlock_profinet::{ArType, Mac, Service, StationName};

use crate::model::client::Side;

/// A controller, or an engineering tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controller<'a> {
    /// The address that it speaks from.
    pub mac: Mac,
    /// What its Connect calls itself (CMInitiatorStationName); `None` until there was one.
    pub station: Option<&'a StationName>,
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StationOrigin<'a> {
    pub side: Side,
    /// Name of the headend; edge only.
    pub via: Option<&'a str>,
    pub controller: Controller<'a>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// A service that has nothing more to judge. With [`Service::Connect`], [`Service::Read`] and
    /// [`Service::Write`] it matches rules by the service alone, denies too: it stands for what goes
    /// with an AR or a record that was judged by itself, and a deny of one record refuses it.
    Service(Service),
    Connect(ArType),
    Read {
        index: u16,
        slot: u16,
        subslot: u16,
    },
    Write {
        index: u16,
        slot: u16,
        subslot: u16,
    },
}

/// A call that somebody describes does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{service} is of one record; give its index, such as 0x8001")]
    WithoutRecord { service: Service },
    #[error("{service} has no record and no slot; only read and write have")]
    NoRecord { service: Service },
    #[error("{service} is of no kind of AR; only connect is")]
    NoAr { service: Service },
}

impl Call {
    /// From what a person gives. A record is taken to be in slot 0, subslot 1 (that of the device
    /// itself) and an AR to be an IO-controller's where nothing else is said.
    pub fn new(
        service: Service,
        ar: Option<ArType>,
        record: Option<u16>,
        slot: Option<(u16, u16)>,
    ) -> Result<Self, CallError> {
        if ar.is_some() && service != Service::Connect {
            return Err(CallError::NoAr { service });
        }
        let (slot_number, subslot) = slot.unwrap_or((0, 1));
        match (service, record) {
            (Service::Read | Service::Write, None) => Err(CallError::WithoutRecord { service }),
            (Service::Read, Some(index)) => Ok(Self::Read {
                index,
                slot: slot_number,
                subslot,
            }),
            (Service::Write, Some(index)) => Ok(Self::Write {
                index,
                slot: slot_number,
                subslot,
            }),
            (_, Some(_)) => Err(CallError::NoRecord { service }),
            (_, None) if slot.is_some() => Err(CallError::NoRecord { service }),
            (Service::Connect, None) => Ok(Self::Connect(ar.unwrap_or(ArType::IoController))),
            (_, None) => Ok(Self::Service(service)),
        }
    }

    pub fn service(&self) -> Service {
        match self {
            Self::Service(service) => *service,
            Self::Connect(_) => Service::Connect,
            Self::Read { .. } => Service::Read,
            Self::Write { .. } => Service::Write,
        }
    }

    /// Whether the station may be another afterwards, or put out something else.
    pub(crate) fn changes_state(&self) -> bool {
        !matches!(
            self.service(),
            Service::Identify | Service::Get | Service::Hello | Service::Read
        )
    }

    /// Whether it comes before a controller can have named itself.
    pub(crate) fn precedes_connect(&self) -> bool {
        matches!(
            self.service(),
            Service::Identify | Service::Get | Service::Hello
        )
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{service}"),
            Self::Connect(kind) => write!(f, "connect as {}", kind.name()),
            Self::Read {
                index,
                slot,
                subslot,
            } => write!(f, "read record {index:#06x} of slot {slot}.{subslot:#x}"),
            Self::Write {
                index,
                slot,
                subslot,
            } => write!(f, "write record {index:#06x} of slot {slot}.{subslot:#x}"),
        }
    }
}
