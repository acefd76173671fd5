//! What either agent says of PROFINET.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The wire of PROFINET stations at this agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Profinet {
    pub interface: String,
    pub frames: Frames,
    pub stations: Vec<Station>,
    pub controllers: Vec<Controller>,
    /// Application relations.
    pub ars: Vec<Ar>,
    /// Those that ended, the last first.
    pub ended: Vec<EndedAr>,
    /// Frames that do not cross, by the reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Frames of the interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Frames {
    pub received: u64,
    pub sent: u64,
    pub dropped_by_kernel: u64,
    pub too_long: u64,
    pub send_errors: u64,
    /// More waited than may.
    pub not_sent: u64,
}

/// A configured station.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Station {
    pub name: String,
    /// Null until it is found.
    pub mac: Option<String>,
    pub ip: Option<String>,
    pub seen_seconds: Option<u64>,
    /// Where that is not its name; empty where it has none.
    pub calls_itself: Option<String>,
    pub vendor_id: Option<u16>,
    pub device_id: Option<u16>,
    pub order_number: Option<String>,
    pub serial: Option<String>,
    pub software: Option<String>,
}

/// A controller that was heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Controller {
    /// As the headend's configuration calls it.
    pub name: Option<String>,
    pub mac: String,
    /// As its Connect calls it.
    pub station: Option<String>,
    pub ip: Option<String>,
    pub seen_seconds: Option<u64>,
}

/// An application relation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Ar {
    #[serde(flatten)]
    pub pair: Pair,
    /// As the controller's Connect calls it.
    pub controller_station: Option<String>,
    pub uuid: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub phase: String,
    pub seconds: u64,
    /// With hold: how soon the controller or device fails safe.
    pub fail_safe_ms: Option<f64>,
    /// By what its watchdog is too short.
    pub shortfall: Option<String>,
    pub directions: Vec<Direction>,
}

/// Who controls whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Pair {
    pub station: Option<String>,
    pub controller: Option<String>,
    pub controller_mac: String,
}

/// An application relation that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct EndedAr {
    #[serde(flatten)]
    pub pair: Pair,
    pub time: String,
    pub lasted_ms: u64,
    pub why: String,
}

/// One direction of an AR's data, as this agent has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Direction {
    /// `controller` or `device`.
    pub from: String,
    pub frame_id: String,
    pub octets: u16,
    pub cycle_ms: f64,
    pub watchdog_ms: f64,
    /// Where the provider is on this wire.
    #[serde(flatten)]
    pub sent: Option<Sent>,
    /// Where the consumer is.
    #[serde(flatten)]
    pub given_out: Option<GivenOut>,
}

/// What goes into the tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sent {
    pub datagrams: u64,
    #[serde(default)]
    pub datagram_octets: u64,
    /// How many earlier frames each has.
    #[serde(default)]
    pub redundancy: u8,
    /// Cycles of which no frame was heard.
    #[serde(default)]
    pub missed_cycles: u64,
}

/// What comes out of the tunnel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GivenOut {
    pub emitted: u64,
    #[serde(default)]
    pub gaps: u64,
    #[serde(default)]
    pub repaired: u64,
    #[serde(default)]
    pub late: u64,
    #[serde(default)]
    pub passed_over: u64,
    #[serde(default)]
    pub old: u64,
    /// Too old to hold.
    #[serde(default)]
    pub stale: u64,
    #[serde(default)]
    pub duplicates: u64,
    #[serde(default)]
    pub restarts: u64,
    /// The last values that were sent once more.
    #[serde(default)]
    pub held: u64,
    #[serde(default)]
    pub longest_hold_ms: f64,
    #[serde(default)]
    pub age_p50_ms: f64,
    #[serde(default)]
    pub age_p99_ms: f64,
    #[serde(default)]
    pub age_max_ms: f64,
}
