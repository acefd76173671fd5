//! What is wrong with a rule, client or test of stations.

use fieldlock_profinet::NameError;

use super::{did_you_mean, nearest_or};

/// What is wrong with keys that only clients, rules and tests of PROFINET have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfinetProblem {
    /// A controller told by its name-of-station alone, which proves nothing.
    #[error(
        "a name-of-station proves nothing, since any device may use it; add mac = [...], the addresses it speaks from"
    )]
    ControllerWithoutMac,
    /// A text that is not an Ethernet address.
    #[error(
        "{0:?} is no Ethernet address; write six octets in hexadecimal, such as \"00:1b:1b:01:02:03\""
    )]
    Mac(String),
    /// An Ethernet address that no single interface can have.
    #[error("{0} is not the address of one station: it is a group's, or all zero")]
    MacOfGroup(String),
    /// A text that is not a name-of-station.
    #[error("{name:?} is no name-of-station: {why}")]
    Station { name: String, why: NameError },
    /// A word that names neither a service nor a group of them.
    #[error(
        "no service or group is named {name:?}; {}",
        nearest_or(.nearest, "write io, records, or services such as identify, connect, read, write, set-name, or any")
    )]
    UnknownService {
        name: String,
        nearest: Option<String>,
    },
    /// A word that does not name one service, in a test.
    #[error(
        "no service is named {name:?}; {}",
        nearest_or(.nearest, "a test is about a single one, such as identify, connect, read or set-name")
    )]
    UnknownSingleService {
        name: String,
        nearest: Option<String>,
    },
    /// A word that names no kind of AR.
    #[error("no kind of AR is named {name:?}; {}", did_you_mean(.nearest, .known))]
    UnknownAr {
        name: String,
        nearest: Option<String>,
        known: Vec<&'static str>,
    },
    /// A text that is not a record's index or range of them.
    #[error(
        "{0:?} is no index of a record or rising range, such as \"0xaff0\" or \"0x8000-0x80ff\""
    )]
    Record(String),
    /// A text that is not a slot or range of them.
    #[error(
        "{0:?} is no slot; write \"1\", a range \"1-4\", or with a subslot \"1.1\" or \"1.0x8000\""
    )]
    Slot(String),
    /// A slot without its subslot, where one single place is meant.
    #[error("{0:?} is not one slot with its subslot; write \"1.1\" or \"1.0x8000\"")]
    SlotAlone(String),
    /// A key that none of the rule's services can use.
    #[error("no service of this rule has it: it belongs to {of}; leave it out")]
    KeyWithoutService { of: &'static str },
}
