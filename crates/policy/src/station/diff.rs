//! What a change of a policy changes for stations: rule by rule, by what each says once its names
//! are resolved.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::rule::StationRule;
use crate::model::scope::{ReadOnly, Scope};
use crate::policy::Policy;

/// A rule for stations that says something else in the other file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StationChange {
    pub rule: String,
    /// What it said; `None`: it was not there.
    pub old: Option<String>,
    /// What it says; `None`: it is not there any more.
    pub new: Option<String>,
}

impl fmt::Display for StationChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.rule;
        match (&self.old, &self.new) {
            (old, None) => write!(f, "- {name:?}: {}", old.as_deref().unwrap_or_default()),
            (None, Some(new)) => write!(f, "+ {name:?}: {new}"),
            (Some(old), Some(new)) => write!(f, "* {name:?}: {new}\n      was: {old}"),
        }
    }
}

pub(crate) fn changes(old: &Policy, new: &Policy) -> Vec<StationChange> {
    let mut rules: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
    for (place, policy) in [old, new].into_iter().enumerate() {
        for rule in &policy.stations {
            let texts = rules.entry(rule.name.to_string()).or_default();
            if let Some(text) = texts.get_mut(place) {
                *text = Some(words(policy, rule));
            }
        }
    }
    let changed = rules.into_iter().filter(|(_, [old, new])| old != new);
    changed
        .map(|(rule, [old, new])| StationChange { rule, old, new })
        .collect()
}

/// All that a rule means, with the addresses of its clients.
fn words(policy: &Policy, rule: &StationRule) -> String {
    let effect = match (rule.is_allow(), policy.read_only == ReadOnly::All) {
        (true, false) => "allow",
        (true, true) => "allow (read-only)",
        (false, _) => "deny",
    };
    let clients = match &rule.clients {
        Scope::Any => "any client".to_owned(),
        Scope::Only(places) => {
            let entries = places.iter().map(|place| client(policy, *place));
            entries.collect::<Vec<_>>().join(", ")
        }
    };
    let via = match &rule.via {
        Scope::Any => String::new(),
        Scope::Only(headends) => format!(" via {}", headends.join(", ")),
    };
    let (stations, grant) = (rule.station_words(), rule.grant());
    format!("{effect} {clients}{via} -> station {stations}: {grant}")
}

fn client(policy: &Policy, place: u32) -> String {
    let Some(entry) = policy.clients.get(place as usize) else {
        return String::new();
    };
    let mut told: Vec<String> = entry.macs.iter().map(ToString::to_string).collect();
    told.extend(entry.station.as_ref().map(|name| format!("called {name}")));
    format!("{} ({})", entry.name, told.join(", "))
}
