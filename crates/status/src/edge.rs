//! What an edge says of itself.

use serde::{Deserialize, Serialize};

use crate::counters::counters;
use crate::profinet::Profinet;
use crate::{Common, Stations};

/// An edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Edge {
    #[serde(flatten)]
    pub common: Common,
    /// The policy bundle; null where the policy is a file.
    pub bundle: Option<Bundle>,
    /// By name.
    pub headends: Vec<Headend>,
    pub devices: Vec<Device>,
    /// Null where none is configured.
    pub profinet: Option<Profinet>,
}

/// The policy bundle of an edge that pins signers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(test, schemars(rename = "BundleInForce"))]
pub struct Bundle {
    /// In force; 0 for none.
    pub version: u64,
    /// Why none is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// When it was put in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    pub waiting: Option<NextBundle>,
}

/// A bundle whose time has not come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NextBundle {
    pub version: u64,
    pub not_before: String,
}

/// A headend that the edge dials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(test, schemars(rename = "DialledHeadend"))]
pub struct Headend {
    pub name: String,
    /// Those that are up: two while one takes over from the other.
    pub tunnels: Vec<Tunnel>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// A tunnel to a headend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(test, schemars(rename = "TunnelToHeadend"))]
pub struct Tunnel {
    pub address: String,
    /// `quic` or `tls`.
    pub transport: String,
    pub key_exchange: String,
    pub up_seconds: u64,
    pub round_trip_ms: Option<f64>,
    /// Of the headend's program.
    pub version: Option<String>,
    /// The headend's policy.
    pub policy: Option<String>,
    pub same_policy: bool,
    /// Clients of the headend that have asked something through it.
    pub clients: u64,
    /// Null where it carries none.
    pub stations: Option<Stations>,
}

/// A device of the edge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(test, schemars(rename = "DeviceOfEdge"))]
pub struct Device {
    pub name: String,
    /// An address, or the path of a serial line.
    pub address: String,
    /// Null while nothing was tried.
    pub reachable: Option<bool>,
    pub connections: u64,
    /// Requests that wait for their turn, or for their record.
    pub queued: u64,
    pub in_flight: u64,
    pub sent: u64,
    pub timeouts: u64,
    /// Answers to requests that were given up, and bytes on a serial line when none were due.
    pub late: u64,
    /// Reads that were sent once more after their connection was lost.
    pub asked_again: u64,
    /// Units that are not asked at present, since they stay silent while others answer.
    pub units_held_off: Vec<u8>,
    pub mismatched: u64,
    pub connect_failures: u64,
    /// Why it can't be reached.
    pub last_error: Option<String>,
    /// What it sent last that was not taken.
    pub last_fault: Option<String>,
    /// The deviations that it may show or has shown.
    pub quirks: Vec<Quirk>,
    pub counters: Counters,
}

/// A deviation from the Modbus specification, and how many answers showed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Quirk {
    pub name: String,
    pub borne: u64,
}

counters! {
    /// What became of the requests that headends sent for a device.
    #[cfg_attr(test, schemars(rename = "CountersOfDevice"))]
    Counters {
        answered,
        /// Found a queue full, or the audit log not writable.
        busy,
        /// Certainly did not reach the device.
        not_sent,
        refused,
        /// Repeats of a write whose outcome the client can't know.
        repeats_refused,
        requests,
        /// Of those that were answered, by the answer to another client's read.
        shared,
        /// Sent, and no answer came.
        unknown,
    }
}
