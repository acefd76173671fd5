//! What a hostile headend can reach of stations through an edge's policy, at most: the part of
//! [`crate::ceiling()`] that is about stations.

use std::collections::BTreeSet;
use std::fmt;

use fieldlock_profinet::StationName;
use serde::Serialize;

use crate::model::scope::{ReadOnly, Scope};
use crate::policy::Policy;

/// What can be reached of one station.
#[derive(Debug, Clone, Serialize)]
pub struct CeilingStation {
    /// `None`: every station that the edge has and that is not listed by name.
    pub station: Option<String>,
    /// Nothing but Identify, Get, Hello and Read.
    pub read_only: bool,
    /// A controller is what a headend states, its address included: so whatever any may do.
    pub grants: Vec<StationClause>,
    /// Less what these deny.
    pub denies: Vec<StationClause>,
}

/// What one rule allows or denies.
#[derive(Debug, Clone, Serialize)]
pub struct StationClause {
    pub rule: String,
    /// Services, kinds of AR, records, slots and windows.
    pub what: String,
    /// Of a deny: false if a headend gets around it by stating another controller or coming under
    /// another name.
    pub binds: bool,
}

pub(crate) fn station_ceilings(policy: &Policy, via: Option<&str>) -> Vec<CeilingStation> {
    let rules = policy.stations.iter();
    let through = |scope: &Scope<String>| via.is_none_or(|via| scope.admits(via));
    let rules: Vec<_> = rules.filter(|rule| through(&rule.via)).collect();
    let listed = rules.iter().flat_map(|rule| rule.stations.listed());
    let names: BTreeSet<&StationName> = listed.collect();
    let cases = names.into_iter().map(Some).chain([None]);
    let ceilings = cases.map(|station| {
        let clauses = |allow: bool| {
            let rules = rules.iter().filter(|rule| match station {
                Some(station) => rule.is_for(station),
                None => rule.stations == Scope::Any,
            });
            let rules = rules.filter(|rule| rule.is_allow() == allow);
            let clauses = rules.map(|rule| StationClause {
                rule: rule.name.to_string(),
                what: rule.grant(),
                binds: rule.is_allow()
                    || rule.clients == Scope::Any && (via.is_some() || rule.via == Scope::Any),
            });
            clauses.collect::<Vec<_>>()
        };
        CeilingStation {
            station: station.map(ToString::to_string),
            read_only: policy.read_only == ReadOnly::All,
            grants: clauses(true),
            denies: clauses(false),
        }
    });
    ceilings
        .filter(|station| !station.grants.is_empty())
        .collect()
}

impl fmt::Display for CeilingStation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.station {
            Some(name) => write!(f, "  station {name}")?,
            None => write!(f, "  any other station")?,
        }
        if self.read_only {
            write!(f, " (read-only: identify, get, hello and read alone)")?;
        }
        for grant in &self.grants {
            write!(f, "\n    {}  by {:?}", grant.what, grant.rule)?;
        }
        for deny in &self.denies {
            write!(f, "\n    less {}  by {:?}", deny.what, deny.rule)?;
            if !deny.binds {
                write!(f, " (does not bind: it is limited to clients or headends)")?;
            }
        }
        Ok(())
    }
}
