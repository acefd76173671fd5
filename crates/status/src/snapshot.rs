//! Everything that an agent says of itself, and what both kinds of agents have.

use serde::{Deserialize, Serialize};

use crate::counters::counters;
use crate::{edge, headend};

/// Everything that an agent says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Status {
    Edge(Box<edge::Edge>),
    Headend(Box<headend::Headend>),
}

impl Status {
    /// As `role` has it.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Edge(_) => "edge",
            Self::Headend(_) => "headend",
        }
    }

    pub fn common(&self) -> &Common {
        match self {
            Self::Edge(edge) => &edge.common,
            Self::Headend(headend) => &headend.common,
        }
    }

    pub fn profinet(&self) -> Option<&crate::profinet::Profinet> {
        match self {
            Self::Edge(edge) => edge.profinet.as_ref(),
            Self::Headend(headend) => headend.profinet.as_ref(),
        }
    }
}

/// What both kinds of agents have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Common {
    /// As its certificate proves it, `spiffe://SITE/ROLE/NAME`.
    pub identity: String,
    /// Of the program.
    pub version: String,
    pub pid: u32,
    pub up_seconds: u64,
    /// The policy in force: the first 16 digits of its SHA-256.
    pub policy: String,
    /// Names in the policy that the configuration does not have.
    pub policy_warnings: Vec<String>,
    pub certificate: Certificate,
    pub clock: Clock,
    /// Warnings of the TLS library, which any peer can cause.
    pub library_warnings: u64,
    pub audit: Audit,
    /// Those that last now.
    pub alarms: Vec<Alarm>,
    /// Null where nothing is known of it.
    pub sandbox: Option<Sandbox>,
    /// Where what crosses is observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observations: Option<Observations>,
}

/// What was told of exchanges to whoever looks on, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Observations {
    /// Those that found room in the ring.
    pub taken: u64,
    /// Those that did not: who reads is too slow.
    pub lost: u64,
    pub read: u64,
}

/// The agent's certificate, and the revocation lists that it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Certificate {
    pub serial: String,
    /// RFC 3339, in UTC, like all times.
    pub expires: String,
    /// Of the issuing CAs' lists the one that runs out first.
    pub crl_next_update: String,
    pub root_crl_next_update: String,
}

/// The time as the agent reckons it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Clock {
    pub time: String,
    /// How far the system clock is ahead of it; negative where it is behind.
    pub skew_seconds: i64,
}

/// The audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Audit {
    /// Where it is not, writes are refused.
    pub writable: bool,
    /// All records up to this one are on the disk.
    pub durable_seq: u64,
    /// All records up to this one are signed.
    pub signed_seq: Option<u64>,
    /// Records that it could not take, since the start.
    pub not_recorded: u64,
    /// Records of people outside the policy that were only counted, since the start.
    pub left_out: u64,
}

/// A condition that a person should look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Alarm {
    /// Its kind, and after a space what it is about where there may be several.
    pub name: String,
    pub text: String,
    /// How long it has lasted.
    pub seconds: u64,
}

/// How far the process is confined: `off`, `missing`, `partial` or `full`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Sandbox {
    pub files: String,
    pub calls: String,
}

/// What a tunnel carries for PROFINET stations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Stations {
    pub carried: u16,
    /// The longest datagram of cyclic data; 0 while there is no way for any.
    pub max_datagram: u64,
    pub counters: StationCounters,
}

counters! {
    /// What became of what stations sent through one tunnel.
    StationCounters {
        /// Too long, or there was no way for them.
        datagrams_dropped,
        datagrams_received,
        /// Dropped while they waited, for newer ones.
        datagrams_replaced,
        datagrams_sent,
        /// Received when there was no use for them.
        datagrams_unwanted,
        /// Since the link stood still.
        frames_dropped,
        frames_received,
        frames_sent,
    }
}
