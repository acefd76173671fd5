//! Records in the forms that collectors read.

pub mod cef;
pub mod csv;
pub mod syslog;

use crate::record::{Decision, Kind, Record};

/// How much a record matters, as far as forms have a place for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Somebody should look.
    Warning,
    /// It changes something: a process, or what is in force.
    Notice,
    Routine,
}

impl Weight {
    fn of(record: &Record) -> Self {
        match record.kind {
            Kind::Denied
            | Kind::TunnelRefused
            | Kind::ClientRefused
            | Kind::ReloadRefused
            | Kind::Revoked
            | Kind::AlarmStart
            | Kind::DeviceFault
            | Kind::AuditGap
            | Kind::LeftOut
            | Kind::TornTail
            | Kind::ChainBroken => Self::Warning,
            _ if record.decision == Some(Decision::Deny) => Self::Warning,
            Kind::WriteIntent
            | Kind::WriteOutcome
            | Kind::StationSet
            | Kind::ArUp
            | Kind::ArDown
            | Kind::Lost
            | Kind::Reload
            | Kind::AlarmEnd
            | Kind::Start
            | Kind::Stop
            | Kind::SegmentDropped => Self::Notice,
            _ => Self::Routine,
        }
    }
}
