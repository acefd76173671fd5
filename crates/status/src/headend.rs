//! What a headend says of itself.

use serde::{Deserialize, Serialize};

use crate::counters::counters;
use crate::profinet::Profinet;
use crate::{Common, Stations};

/// A headend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Headend {
    #[serde(flatten)]
    pub common: Common,
    /// For tunnels.
    pub listening: Vec<String>,
    /// By the edge's name.
    pub tunnels: Vec<Tunnel>,
    /// Edges and strangers that were turned away lately.
    pub refusals: Vec<Refusal>,
    pub devices: Vec<Device>,
    pub clients: Clients,
    /// For Modbus/TCP clients.
    pub listeners: Vec<String>,
    /// For clients that speak Modbus/TCP Security.
    pub mbaps_listeners: Vec<String>,
    /// Connections that are passed on to the CA now.
    pub ca_connections: u64,
    /// Null where none is configured.
    pub profinet: Option<Profinet>,
    pub counters: Counters,
}

/// The tunnel of an edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(test, schemars(rename = "TunnelOfEdge"))]
pub struct Tunnel {
    pub edge: String,
    pub address: String,
    /// `quic` or `tls`.
    pub transport: String,
    pub key_exchange: String,
    pub up_seconds: u64,
    pub round_trip_ms: Option<f64>,
    /// Of the edge's program.
    pub version: String,
    /// The edge's policy.
    pub policy: String,
    pub same_policy: bool,
    /// Whether it has the same trust list.
    pub same_trust: bool,
    /// Its policy bundle; null for an edge that takes none.
    pub bundle: Option<Bundle>,
    /// Requests without an answer.
    pub under_way: u64,
    /// Null where it carries none.
    pub stations: Option<Stations>,
}

/// What an edge has of policy bundles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(test, schemars(rename = "BundleOfEdge"))]
pub struct Bundle {
    /// In force; 0 for none.
    pub version: u64,
    pub waiting: Option<PendingBundle>,
    pub refused: Option<PendingBundle>,
}

/// A bundle that an edge did not put in force, and what it says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PendingBundle {
    pub version: u64,
    pub text: String,
}

/// Somebody who was turned away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Refusal {
    /// The identity of the certificate that was shown, or `somebody`.
    pub who: String,
    pub address: String,
    pub reason: String,
    pub count: u64,
    /// How long ago the last was.
    pub seconds: u64,
}

/// A configured device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(test, schemars(rename = "DeviceOfHeadend"))]
pub struct Device {
    pub name: String,
    /// The edge that may offer it.
    pub edge: String,
    pub connected: bool,
    /// As its edge says; null while none offers it.
    pub answer_within_ms: Option<u64>,
    pub counters: DeviceCounters,
}

/// Clients that are connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Clients {
    pub count: u64,
    /// The first hundred.
    pub connections: Vec<Client>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Client {
    pub address: String,
    /// As the policy calls it.
    pub name: Option<String>,
    /// Of a client that speaks Modbus/TCP Security.
    pub identity: Option<String>,
    pub modbus_role: Option<String>,
    pub connected_seconds: u64,
    pub requests: u64,
    /// Answers that came after it had asked again.
    pub given_up: u64,
    pub in_flight: u64,
}

/// An edge that the configuration names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct EdgeEntry {
    pub name: String,
    pub connected: bool,
    /// How many devices are bound to it.
    pub devices: u64,
    pub tunnel: Option<Tunnel>,
}

counters! {
    /// What became of the requests for one device.
    DeviceCounters {
        answered,
        /// Found a queue full, or the audit log not writable.
        busy,
        /// Went to the edge.
        forwarded,
        /// Answered after the client had its exception.
        late,
        /// No answer came.
        lost,
        /// Certainly did not reach the device.
        not_sent,
        refused,
        refused_by_edge,
        /// Repeats of a write whose outcome the client can't know.
        repeats_refused,
    }
}

counters! {
    /// Of the headend as a whole.
    Counters {
        clients_refused,
        /// Answers 0x0B that were kept from clients which had given up waiting for them.
        given_up,
        /// Neither refused nor begun: too many at a time.
        handshakes_put_off,
        handshakes_refused,
        /// Requests for a unit that leads to no device.
        no_route,
        not_modbus,
        /// Requests under a transaction id that was under way.
        repeated,
        splices_refused,
    }
}
