//! What a bridge tells its agent, for the audit log and for people.

use std::sync::Arc;
use std::time::Duration;

use fieldlock_profinet::ar::Ended;
use fieldlock_profinet::rpc::Uuid;
use fieldlock_profinet::{ArType, Mac, Service, StationName};

use super::output::Requester;
use super::shortfall::Shortfall;

/// A record that is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordPlace {
    pub index: u16,
    pub slot: u16,
    pub subslot: u16,
}

/// An application relation, as events name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArName {
    pub uuid: Uuid,
    pub kind: ArType,
    pub controller: Requester,
    /// `None` for one that is configured no more.
    pub station: Option<StationName>,
    /// Of its slowest direction; zero for one without data.
    pub cycle: Duration,
    pub watchdog: Duration,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A frame that the policy does not allow, or that can't be carried.
    Refused {
        who: Requester,
        station: StationName,
        service: Service,
        record: Option<RecordPlace>,
        /// The rule that denies; `None` where none allows, or where it is no matter of policy.
        rule: Option<Arc<str>>,
        reason: Arc<str>,
    },
    /// Something that changes a station passes: a DCP Set, or the writing of a record.
    Changes {
        who: Requester,
        station: StationName,
        service: Service,
        record: Option<RecordPlace>,
        /// What a Set sets: the new name or address.
        value: Option<String>,
        /// The rule that allows it.
        rule: Option<Arc<str>>,
    },
    ArUp {
        ar: Box<ArName>,
        /// Hold and watchdog together, where hold is on.
        fail_safe: Option<Duration>,
        /// The watchdog of the direction that is fed here is one that this way can't be relied on
        /// to keep.
        shortfall: Option<Shortfall>,
    },
    ArDown {
        ar: Box<ArName>,
        why: Ended,
        lasted: Duration,
    },
    /// A frame of a party that is known, of which nobody here can say what it means: it does not
    /// cross.
    NotUnderstood {
        who: Option<Requester>,
        station: Option<StationName>,
        reason: Arc<str>,
    },
    /// A station is known by its configured address alone: it has lost its name, or says another.
    Nameless {
        station: StationName,
        mac: Mac,
        /// Empty where it has none.
        said: Arc<str>,
    },
    /// It has its name again, or is configured no more.
    Named { station: StationName },
    /// The address of a station on this wire is now known.
    Found { station: StationName, mac: Mac },
    /// Two answer to one name, or a station's address is seen on the wrong side.
    Conflict {
        station: StationName,
        mac: Mac,
        reason: &'static str,
    },
}
