//! What is worth telling about a policy that is valid.

use std::collections::BTreeSet;
use std::fmt;

use fieldlock_modbus::Table;
use serde::Serialize;

use crate::model::address::Span;
use crate::model::function::{Functions, PROGRAMMING, Slot};
use crate::model::interval::{Interval, ValueBounds};
use crate::model::number::NumberType;
use crate::model::rule::Rule;
use crate::model::scope::{Effect, ReadOnly, Scope};
use crate::policy::Policy;
use crate::station::station_warnings;

/// The size of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub clients: usize,
    pub sets: usize,
    pub allows: usize,
    pub denies: usize,
    /// Devices that a rule names.
    pub devices: Vec<String>,
    /// Whether some allow is for any device.
    pub any_device: bool,
    /// Stations of PROFINET that a rule names.
    pub stations: Vec<String>,
    /// Whether some allow is for any station.
    pub any_station: bool,
    /// `none`, `all`, or the devices.
    pub read_only: String,
    /// Rules that apply at certain times only.
    pub timed: usize,
    /// Tests in the file; all of them pass.
    pub tests: usize,
}

pub fn summary(policy: &Policy) -> Summary {
    let allows = policy.rules.iter().filter(|rule| rule.is_allow());
    let stations = policy.stations.iter();
    let allows_of_stations = stations.clone().filter(|rule| rule.is_allow());
    let allowed = allows.clone().count() + allows_of_stations.clone().count();
    Summary {
        clients: policy.clients.len(),
        sets: policy.sets.len(),
        allows: allowed,
        denies: policy.rules.len() + policy.stations.len() - allowed,
        devices: named_devices(policy)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        any_device: allows.clone().any(|rule| rule.devices == Scope::Any),
        stations: policy
            .stations()
            .into_iter()
            .map(ToString::to_string)
            .collect(),
        any_station: allows_of_stations
            .clone()
            .any(|rule| rule.stations == Scope::Any),
        read_only: match &policy.read_only {
            ReadOnly::None => "none".to_owned(),
            ReadOnly::All => "all".to_owned(),
            ReadOnly::Devices(devices) => devices.join(", "),
        },
        timed: policy.rules.iter().filter(|r| !r.time.is_empty()).count()
            + stations.filter(|rule| !rule.time.is_empty()).count(),
        tests: policy.tests,
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  clients    {}", self.clients)?;
        if self.sets > 0 {
            writeln!(f, "  sets       {}", self.sets)?;
        }
        writeln!(
            f,
            "  rules      {} allow, {} deny",
            self.allows, self.denies
        )?;
        let devices = listed(&self.devices, self.any_device);
        writeln!(f, "  devices    {devices}")?;
        if self.any_station || !self.stations.is_empty() {
            let stations = listed(&self.stations, self.any_station);
            writeln!(f, "  stations   {stations}")?;
        }
        writeln!(f, "  read-only  {}", self.read_only)?;
        if self.timed > 0 {
            writeln!(f, "  timed      {} of the rules", self.timed)?;
        }
        match self.tests {
            0 => write!(f, "  tests      none"),
            tests => write!(f, "  tests      {tests}, all pass"),
        }
    }
}

/// Names, and whether others are meant as well.
fn listed(names: &[String], any: bool) -> String {
    match (names, any) {
        ([], false) => "none".to_owned(),
        ([], true) => "any".to_owned(),
        (names, false) => names.join(", "),
        (names, true) => format!("{} and any", names.join(", ")),
    }
}

/// Valid, and probably not what was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    #[error("there is no [[allow]]: nothing crosses")]
    NothingAllowed,
    #[error("the client {client:?} is used by no rule")]
    ClientUnused { client: String },
    #[error("the set {set:?} is used by no rule")]
    SetUnused { set: String },
    #[error("the allow {allow:?} never applies: the deny {deny:?} covers all of it")]
    Shadowed { allow: String, deny: String },
    #[error(
        "the allow {allow:?} never applies: all it allows changes state, and its devices are read-only"
    )]
    ShadowedByReadOnly { allow: String },
    #[error("the rule {rule:?} has addresses in table {table}, but no function that uses it")]
    TableUnused { rule: String, table: &'static str },
    #[error(
        "the rule {rule:?} names {function}, but lists no address in table {table}: that function never applies"
    )]
    FunctionWithoutAddress {
        rule: String,
        function: String,
        table: &'static str,
    },
    #[error(
        "the allow {allow:?} is for any function: that includes programming, start and stop of controllers ({codes:?})"
    )]
    IncludesProgramming { allow: String, codes: &'static [u8] },
    #[error(
        "the allow {allow:?} names {function}, which writes one register, a part of a {number}: that function never applies; leave it out, or write partial = \"allow\""
    )]
    PartsAlone {
        allow: String,
        function: String,
        number: NumberType,
    },
    #[error("the time window \"{window}\" of the rule {rule:?} never opens, or not any more")]
    NeverOpen { rule: String, window: String },
    #[error(
        "the allow {allow:?} has a step for {registers}, and no allow lets anybody read them: without a last value the edge refuses what is written"
    )]
    StepUnread { allow: String, registers: Span },
    #[error(
        "the rule {rule:?} is for stations, and its client {client:?} has no mac: no controller is ever that client"
    )]
    NoController { rule: String, client: String },
    #[error(
        "the rule {rule:?} is for devices, and its client {client:?} is told by a mac: no client of Modbus is ever that client"
    )]
    OnlyController { rule: String, client: String },
    #[error(
        "the allow {allow:?} lets any controller use {services}: whoever reaches the headend's wire can take the station over"
    )]
    SetByAnyone { allow: String, services: String },
    #[error(
        "the allow {allow:?} is for writing any record: that includes addresses, names, firmware and what else the station has records for"
    )]
    WritesAnyRecord { allow: String },
    #[error(
        "the allow {allow:?} names rt-class-3: isochronous data is never carried, so such a Connect is refused"
    )]
    Isochronous { allow: String },
    #[error(
        "the allow {allow:?} names redundant: system redundancy is never carried, so such a Connect is refused"
    )]
    Redundant { allow: String },
    #[error("read_only names {device:?}, which no rule names")]
    ReadOnlyUnknown { device: String },
}

/// `now`: seconds since 1970-01-01 UTC, to tell which windows have passed.
pub fn warnings(policy: &Policy, now: i64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let for_stations = policy.stations.iter().any(|rule| rule.is_allow());
    if !for_stations && !policy.rules.iter().any(Rule::is_allow) {
        warnings.push(Warning::NothingAllowed);
    }
    warnings.extend(unused_clients(policy));
    let unused = policy.sets.iter().filter(|(_, used)| !used);
    warnings.extend(unused.map(|(set, _)| Warning::SetUnused { set: set.clone() }));
    warnings.extend(unknown_read_only(policy));
    for rule in &policy.rules {
        warnings.extend(controllers(policy, rule));
        warnings.extend(unused_tables(rule));
        warnings.extend(functions_without_address(rule));
        let passed = rule.time.iter().filter(|w| w.next_open(now).is_none());
        warnings.extend(passed.map(|window| Warning::NeverOpen {
            rule: rule.name.clone(),
            window: window.to_string(),
        }));
        if rule.is_allow() {
            warnings.extend(allow_warnings(policy, rule));
        }
    }
    warnings.extend(station_warnings(policy, now));
    warnings
}

/// Clients that never ask a device.
fn controllers(policy: &Policy, rule: &Rule) -> impl Iterator<Item = Warning> {
    let clients = rule.clients.listed().iter();
    let entries = clients.filter_map(|place| policy.clients.get(*place as usize));
    let controllers = entries.filter(|entry| entry.is_controller());
    controllers.map(|entry| Warning::OnlyController {
        rule: rule.name.clone(),
        client: entry.name.clone(),
    })
}

fn named_devices(policy: &Policy) -> BTreeSet<&str> {
    let rules = policy.rules.iter();
    rules
        .flat_map(|rule| rule.devices.listed())
        .map(String::as_str)
        .collect()
}

fn unused_clients(policy: &Policy) -> impl Iterator<Item = Warning> {
    let used: BTreeSet<u32> = policy
        .rules
        .iter()
        .map(|rule| &rule.clients)
        .chain(policy.stations.iter().map(|rule| &rule.clients))
        .flat_map(|clients| clients.listed().iter().copied())
        .collect();
    (0..)
        .zip(&policy.clients)
        .filter(move |(place, _)| !used.contains(place))
        .map(|(_, client)| Warning::ClientUnused {
            client: client.name.clone(),
        })
}

fn unknown_read_only(policy: &Policy) -> Vec<Warning> {
    let named = named_devices(policy);
    let any = policy.rules.iter().any(|rule| rule.devices == Scope::Any);
    let ReadOnly::Devices(listed) = &policy.read_only else {
        return Vec::new();
    };
    listed
        .iter()
        .filter(|device| !any && !named.contains(device.as_str()))
        .map(|device| Warning::ReadOnlyUnknown {
            device: device.clone(),
        })
        .collect()
}

fn unused_tables(rule: &Rule) -> Vec<Warning> {
    if rule.addresses.is_any() {
        return Vec::new();
    }
    let mut tables: Vec<_> = rule.addresses.spans().map(|span| span.table).collect();
    tables.dedup();
    tables
        .into_iter()
        .filter(|table| !rule.functions.iter().any(|s| s.table() == Some(*table)))
        .map(|table| Warning::TableUnused {
            rule: rule.name.clone(),
            table: crate::model::address::table_name(table),
        })
        .collect()
}

/// Only for functions named one by one: a group is often wider than its addresses.
fn functions_without_address(rule: &Rule) -> impl Iterator<Item = Warning> {
    rule.functions.iter().filter_map(|slot| {
        let table = slot.table()?;
        let useless = rule.functions.names(slot) && rule.addresses.of(table).is_empty();
        useless.then(|| Warning::FunctionWithoutAddress {
            rule: rule.name.clone(),
            function: slot.to_string(),
            table: crate::model::address::table_name(table),
        })
    })
}

/// Functions named one by one that write less than a value.
fn parts_alone(allow: &Rule) -> impl Iterator<Item = Warning> {
    let typed = allow.typed.iter();
    typed.flat_map(move |typed| {
        let never = |slot: &Slot| allow.functions.names(*slot) && !typed.takes(*slot);
        let registers = allow
            .functions
            .iter()
            .filter(|slot| slot.writes_registers());
        registers.filter(never).map(|slot| Warning::PartsAlone {
            allow: allow.name.clone(),
            function: slot.to_string(),
            number: typed.layout.format().number(),
        })
    })
}

fn allow_warnings(policy: &Policy, allow: &Rule) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let name = || allow.name.clone();
    if allow.functions == Functions::ANY {
        let codes = &PROGRAMMING;
        warnings.push(Warning::IncludesProgramming {
            allow: name(),
            codes,
        });
    }
    if read_only_devices(policy, allow) && allow.functions.iter().all(Slot::always_changes_state) {
        warnings.push(Warning::ShadowedByReadOnly { allow: name() });
    }
    warnings.extend(parts_alone(allow));
    warnings.extend(step_unread(policy, allow));
    let denies = policy.rules.iter().filter(|r| r.effect == Effect::Deny);
    if let Some(deny) = denies.into_iter().find(|deny| shadows(deny, allow)) {
        let deny = deny.name.clone();
        warnings.push(Warning::Shadowed {
            allow: name(),
            deny,
        });
    }
    warnings
}

/// Registers of an allow with a step whose last value nobody can make known: by a read, or by a write
/// without a step.
fn step_unread(policy: &Policy, allow: &Rule) -> Option<Warning> {
    let table = Table::HoldingRegister;
    let tells = |slot: Slot| match slot.writes() {
        true => slot.writes_registers(),
        false => slot.table() == Some(table),
    };
    let told_by = |rule: &&Rule| {
        let functions = rule.functions.iter();
        let mut functions = functions.filter(|slot| rule.step_at(*slot).is_none());
        rule.is_allow() && functions.any(tells) && meet(&rule.devices, &allow.devices)
    };
    let told: Vec<&Rule> = policy.rules.iter().filter(told_by).collect();
    let is_told = |wanted: &Span| {
        let mut ranges = told.iter().flat_map(|rule| rule.addresses.of(table));
        ranges.any(|range| range.first <= wanted.last && wanted.first <= range.last)
    };
    allow.step.as_ref()?;
    let mut registers = allow.addresses.spans().filter(|span| span.table == table);
    Some(Warning::StepUnread {
        allow: allow.name.clone(),
        registers: registers.find(|span| !is_told(span))?,
    })
}

fn meet(one: &Scope<String>, other: &Scope<String>) -> bool {
    match (one, other) {
        (Scope::Any, _) | (_, Scope::Any) => true,
        (Scope::Only(one), other) => one.iter().any(|device| other.admits(device)),
    }
}

fn read_only_devices(policy: &Policy, allow: &Rule) -> bool {
    match &allow.devices {
        Scope::Any => policy.read_only == ReadOnly::All,
        Scope::Only(devices) => devices.iter().all(|d| policy.read_only.contains(d)),
    }
}

/// Whether the deny matches every request that the allow covers.
fn shadows(deny: &Rule, allow: &Rule) -> bool {
    let scopes = deny.time.is_empty()
        && covers(&deny.clients, &allow.clients)
        && covers(&deny.via, &allow.via)
        && covers(&deny.devices, &allow.devices);
    let mut units = deny.units;
    units.insert(0);
    let shadowed = |slot: Slot| {
        let Some(allowed) = allow.bounds_at(slot) else {
            return true;
        };
        let Some(denied) = deny.bounds_at(slot) else {
            return false;
        };
        let values = denied == ValueBounds::FULL
            || (denied.contains(allowed.min) && denied.contains(allowed.max));
        values && within(&allow.intervals(slot), &deny.intervals(slot))
    };
    scopes && units.is_superset(&allow.units) && Slot::all().all(shadowed)
}

pub(crate) fn covers<T: PartialEq>(wide: &Scope<T>, narrow: &Scope<T>) -> bool {
    match (wide, narrow) {
        (Scope::Any, _) => true,
        (Scope::Only(_), Scope::Any) => false,
        (Scope::Only(wide), Scope::Only(narrow)) => narrow.iter().all(|item| wide.contains(item)),
    }
}

/// Since a deny matches by overlap, it is enough that every single address is denied.
pub(crate) fn within(narrow: &[Interval], wide: &[Interval]) -> bool {
    let holds = |inner: &Interval| {
        wide.iter()
            .any(|outer| outer.first <= inner.first && inner.last <= outer.last)
    };
    narrow.iter().all(holds)
}
