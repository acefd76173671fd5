//! What is said to a [`Request`](crate::Request): one line of JSON, after `subscribe` one after another.

use serde::{Deserialize, Serialize};

use crate::{Alarm, Delta, Event, State, edge, headend};

/// What is said to a request other than `status`, to which [`Status`](crate::Status) is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    Edges(Listing<headend::EdgeEntry>),
    Devices(Devices),
    Device(OneDevice),
    Alarms {
        alarms: Vec<Alarm>,
    },
    /// The latest first.
    Recent {
        events: Vec<Event>,
    },
    State(State),
    Delta(Delta),
}

/// Instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Refused {
    pub error: String,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "PageOf{T}"))]
pub struct Listing<T> {
    /// By name.
    pub items: Vec<T>,
    /// `after` of the next page; null on the last.
    pub next: Option<String>,
    /// How many match, on all pages.
    pub matching: u64,
}

/// A page of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Devices {
    Edge(Listing<edge::Device>),
    Headend(Listing<headend::Device>),
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum OneDevice {
    Edge { device: Box<edge::Device> },
    Headend { device: headend::Device },
}

impl<T> Listing<T> {
    /// Makes an item of each name on the page; what is gone by then is not on it.
    pub fn of(chosen: &crate::Chosen<'_>, item: impl Fn(&str) -> Option<T>) -> Self {
        Self {
            items: chosen.names.iter().filter_map(|name| item(name)).collect(),
            next: chosen.next.map(str::to_owned),
            matching: chosen.matching as u64,
        }
    }
}

impl Answer {
    /// As a line.
    pub fn to_line(&self) -> String {
        line(self)
    }
}

impl Refused {
    pub fn to_line(&self) -> String {
        line(self)
    }
}

/// Texts, numbers and lists of them: there is nothing in it that JSON can't say.
fn line(said: &impl Serialize) -> String {
    let mut line = serde_json::to_string(said).unwrap_or_default();
    line.push('\n');
    line
}
