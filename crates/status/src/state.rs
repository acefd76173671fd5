//! What a subscriber hears: the state once, and then how it changes.
//!
//! Nothing in it ticks by itself: an agent where nothing happens has nothing to say.

use serde::{Deserialize, Serialize};

use crate::Event;

/// An agent in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct State {
    /// `edge` or `headend`.
    pub role: String,
    pub identity: String,
    /// Of the program.
    pub version: String,
    /// The policy in force: the first 16 digits of its SHA-256.
    pub policy: String,
    /// At a headend the edges of its configuration, at an edge the headends. By name.
    pub peers: Vec<PeerRow>,
    /// By name.
    pub devices: Vec<DeviceRow>,
    /// Those that last.
    pub alarms: Vec<AlarmRow>,
}

/// The other end of a tunnel, whether or not there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PeerRow {
    pub name: String,
    pub connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_policy: Option<bool>,
}

/// A device, and what became of its requests since the start of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DeviceRow {
    pub name: String,
    /// At a headend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// At an edge: whether it is reachable; absent while nothing was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    pub answered: u64,
    /// By this end or the other.
    pub refused: u64,
    /// Without an answer.
    pub lost: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AlarmRow {
    pub name: String,
    pub text: String,
}

/// What has changed since the state, or the delta before. Absent is what has not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Those that are new or have changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers_gone: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices_gone: Vec<String>,
    /// All that last, where these are others than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarms: Option<Vec<AlarmRow>>,
    /// Put on record since, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// How many more there were before these.
    #[serde(skip_serializing_if = "is_zero")]
    pub events_left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

trait Row: Clone + PartialEq {
    fn name(&self) -> &str;
}

impl Row for PeerRow {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Row for DeviceRow {
    fn name(&self) -> &str {
        &self.name
    }
}

impl State {
    /// Sorts what is to be sorted: the other methods count on it.
    pub fn sorted(mut self) -> Self {
        self.peers.sort_by(|a, b| a.name.cmp(&b.name));
        self.devices.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    /// What makes `next` of this.
    pub fn delta_to(&self, next: &Self) -> Delta {
        let (peers, peers_gone) = changed(&self.peers, &next.peers);
        let (devices, devices_gone) = changed(&self.devices, &next.devices);
        Delta {
            policy: (self.policy != next.policy).then(|| next.policy.clone()),
            peers,
            peers_gone,
            devices,
            devices_gone,
            alarms: (self.alarms != next.alarms).then(|| next.alarms.clone()),
            ..Delta::default()
        }
    }

    /// What a subscriber does with a delta.
    pub fn apply(&mut self, delta: Delta) {
        apply(&mut self.peers, delta.peers, &delta.peers_gone);
        apply(&mut self.devices, delta.devices, &delta.devices_gone);
        if let Some(policy) = delta.policy {
            self.policy = policy;
        }
        if let Some(alarms) = delta.alarms {
            self.alarms = alarms;
        }
    }
}

/// The rows of `new` that `old` does not have so, and the names that are gone.
fn changed<R: Row>(old: &[R], new: &[R]) -> (Vec<R>, Vec<String>) {
    let (mut rows, mut gone) = (Vec::new(), Vec::new());
    let mut old = old.iter().peekable();
    for row in new {
        while let Some(before) = old.next_if(|before| before.name() < row.name()) {
            gone.push(before.name().to_owned());
        }
        let before = old.next_if(|before| before.name() == row.name());
        if before != Some(row) {
            rows.push(row.clone());
        }
    }
    gone.extend(old.map(|before| before.name().to_owned()));
    (rows, gone)
}

fn apply<R: Row>(rows: &mut Vec<R>, changed: Vec<R>, gone: &[String]) {
    rows.retain(|row| !gone.iter().any(|name| name == row.name()));
    for row in changed {
        match rows.binary_search_by(|known| known.name().cmp(row.name())) {
            Ok(place) => rows[place] = row,
            Err(place) => rows.insert(place, row),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = State> {
        let devices = prop::collection::btree_map("[a-d]{1,2}", (any::<bool>(), 0_u64..3), 0..8);
        let peers = prop::collection::btree_map("[a-d]{1,2}", any::<bool>(), 0..8);
        (devices, peers, "[ab]", prop::option::of("[ab]")).prop_map(
            |(devices, peers, policy, alarm)| State {
                policy,
                devices: devices
                    .into_iter()
                    .map(|(name, (connected, answered))| DeviceRow {
                        name,
                        connected: Some(connected),
                        answered,
                        ..DeviceRow::default()
                    })
                    .collect(),
                peers: peers
                    .into_iter()
                    .map(|(name, connected)| PeerRow {
                        name,
                        connected,
                        ..PeerRow::default()
                    })
                    .collect(),
                alarms: alarm
                    .into_iter()
                    .map(|name| AlarmRow {
                        name,
                        ..AlarmRow::default()
                    })
                    .collect(),
                ..State::default()
            },
        )
    }

    proptest! {
        #[test]
        fn who_follows_the_deltas_has_the_state(states in prop::collection::vec(state(), 1..8)) {
            let mut followed = states[0].clone();
            for pair in states.windows(2) {
                let delta = pair[0].delta_to(&pair[1]);
                prop_assert_eq!(delta == Delta::default(), pair[0] == pair[1]);
                // Over the wire, where what has not changed is left out.
                let text = serde_json::to_string(&delta).unwrap();
                followed.apply(serde_json::from_str(&text).unwrap());
                prop_assert_eq!(&followed, &pair[1]);
            }
        }
    }
}
