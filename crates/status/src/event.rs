//! An event: a record of the audit log, in short.

use serde::{Deserialize, Serialize};

/// What was put on record. Absent is what does not apply; the audit log has the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Event {
    /// Of the record in the audit log.
    pub seq: u64,
    pub time: String,
    /// As docs/audit.md lists them.
    pub kind: String,
    /// The identity at the other end of the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// Who asked: the name in the policy, or else the identity or the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub station: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<u8>,
    /// Modbus function code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
    /// How many it stands for, where that is not one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}
