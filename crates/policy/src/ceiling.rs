//! What a hostile headend can reach through an edge's policy, at most.
//!
//! An edge proves only which headend speaks; the client is what the headend says. So whatever any
//! client may do, a hostile headend can do, and a deny that names clients stops nobody. The
//! ranges of several rules add up, since they can be used one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fieldlock_modbus::FunctionCode;
use serde::Serialize;

use crate::model::address::{Span, TABLES, table_index};
use crate::model::function::{Functions, Slot};
use crate::model::interval::{Interval, ValueBounds, merge};
use crate::model::number::{Format, Number};
use crate::model::rate::Rate;
use crate::model::rule::Rule;
use crate::model::scope::{ReadOnly, Scope, Units};
use crate::policy::Policy;
use crate::station::{CeilingStation, station_ceilings};

/// `Display` gives the text, `Serialize` the same for programs.
#[derive(Debug, Clone, Serialize)]
pub struct Ceiling {
    /// The headend; `None`: the union over all.
    pub via: Option<String>,
    pub devices: Vec<CeilingDevice>,
    pub denies: Vec<CeilingDeny>,
    /// Stations of PROFINET, each with its own denies.
    pub stations: Vec<CeilingStation>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CeilingDevice {
    /// `None`: every device that the edge has and that is not listed by name.
    pub device: Option<String>,
    /// Requests that change state are refused, also those of the listed diagnostics (8, 43).
    pub read_only: bool,
    pub grants: Vec<CeilingGrant>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CeilingGrant {
    pub units: String,
    pub functions: String,
    /// Empty where the functions have no addresses.
    pub addresses: Vec<String>,
    pub value_min: Option<Number>,
    pub value_max: Option<Number>,
    /// As what values are judged, where that is not register by register.
    pub value_type: Option<String>,
    /// With such a type: parts of values can be written as well.
    pub partial: bool,
    /// How often it can be used, all of the headend's clients together.
    pub rate: Option<String>,
    /// How far a write may move a value.
    pub step: Option<Number>,
    /// The windows outside which it is closed; empty: it never is.
    pub time: Vec<String>,
    /// The rules that add up to this.
    pub rules: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CeilingDeny {
    pub rule: String,
    /// False if a headend gets around it by stating another client or coming under another name.
    pub binds: bool,
    pub devices: String,
    pub units: String,
    pub functions: String,
    pub addresses: Vec<String>,
    /// The windows outside which it denies nothing; empty: it always does.
    pub time: Vec<String>,
    pub reason: Option<String>,
}

/// The ceiling of one headend, or of all together.
pub fn ceiling(policy: &Policy, via: Option<&str>) -> Ceiling {
    let through = |rule: &&Rule| via.is_none_or(|via| rule.via.admits(via));
    let rules: Vec<&Rule> = policy.rules.iter().filter(through).collect();
    let allows: Vec<&Rule> = rules.iter().copied().filter(|r| r.is_allow()).collect();
    let denies = rules.iter().filter(|rule| !rule.is_allow());
    Ceiling {
        via: via.map(str::to_owned),
        devices: device_names(policy, &allows)
            .into_iter()
            .map(|device| device_ceiling(policy, &allows, device))
            .filter(|device| !device.grants.is_empty())
            .collect(),
        denies: denies.map(|rule| deny(rule, via)).collect(),
        stations: station_ceilings(policy, via),
    }
}

/// Every device that is a case of its own; `None` last, for those that no rule names.
fn device_names<'p>(policy: &'p Policy, allows: &[&'p Rule]) -> Vec<Option<&'p str>> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for rule in allows {
        names.extend(rule.devices.listed().iter().map(String::as_str));
    }
    let for_any = allows.iter().any(|rule| rule.devices == Scope::Any);
    if let (true, ReadOnly::Devices(listed)) = (for_any, &policy.read_only) {
        names.extend(listed.iter().map(String::as_str));
    }
    let others = for_any.then_some(None);
    names.into_iter().map(Some).chain(others).collect()
}

fn device_ceiling(policy: &Policy, allows: &[&Rule], device: Option<&str>) -> CeilingDevice {
    let read_only = match device {
        Some(device) => policy.read_only.contains(device),
        None => policy.read_only == ReadOnly::All,
    };
    let applies = |rule: &&&Rule| match device {
        Some(device) => rule.devices.admits(device),
        None => rule.devices == Scope::Any,
    };
    let rules: Vec<&Rule> = allows.iter().filter(applies).copied().collect();
    let mut grants = Vec::new();
    for (units, rules) in by_units(&rules) {
        grants.extend(unit_grants(units, &rules, read_only));
    }
    CeilingDevice {
        device: device.map(str::to_owned),
        read_only,
        grants,
    }
}

/// Units to which the same rules apply, with those rules; in the order of their lowest unit.
pub(crate) fn by_units<'p>(rules: &[&'p Rule]) -> Vec<(Units, Vec<&'p Rule>)> {
    let mut groups: Vec<(Units, Vec<&Rule>)> = Vec::new();
    let mut places: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    for unit in 0..=255 {
        let applying = rules.iter().filter(|rule| rule.applies_to_unit(unit));
        let rules: Vec<&Rule> = applying.copied().collect();
        if rules.is_empty() {
            continue;
        }
        let key = rules.iter().map(|rule| rule.id.index()).collect();
        let place = *places.entry(key).or_insert_with(|| {
            groups.push((Units::NONE, rules));
            groups.len() - 1
        });
        if let Some((units, _)) = groups.get_mut(place) {
            units.insert(unit);
        }
    }
    groups
}

/// What one slot reaches with one pair of bounds, in the same windows.
#[derive(Default)]
struct Reach {
    intervals: Vec<Interval>,
    rules: BTreeSet<usize>,
}

/// Slots that reach the same become one grant.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct GrantKey {
    table: Option<usize>,
    intervals: Vec<Interval>,
    value: Values,
    rate: Option<Rate>,
    step: Option<Number>,
    time: Vec<String>,
    rules: BTreeSet<usize>,
}

fn unit_grants(units: Units, rules: &[&Rule], read_only: bool) -> Vec<CeilingGrant> {
    let mut grants: BTreeMap<GrantKey, Functions> = BTreeMap::new();
    for slot in reachable(rules, read_only) {
        for ((value, rate, step, time), reach) in slot_reach(slot, rules) {
            let intervals = merge(reach.intervals);
            let key = GrantKey {
                table: slot.table().map(table_index),
                // Sub-functions are told with the function.
                intervals: match slot.table() {
                    Some(_) => intervals.clone(),
                    None => Vec::new(),
                },
                value,
                rate,
                step,
                time,
                rules: reach.rules,
            };
            let functions = grants.entry(key).or_default();
            functions.insert_bodies(slot, &intervals);
        }
    }
    grants
        .into_iter()
        .map(|(key, functions)| grant(units, key, functions, rules))
        .collect()
}

/// The slots of which some request may pass.
fn reachable(rules: &[&Rule], read_only: bool) -> Vec<Slot> {
    let passes = |slot: Slot| !slot_reach(slot, rules).is_empty();
    // Function 23 passes with both halves only.
    let both_halves = passes(Slot::READ_OF_23) && passes(Slot::WRITE_OF_23);
    Slot::all()
        .filter(|slot| slot.function() != FunctionCode(23) || both_halves)
        .filter(|slot| !read_only || !slot.always_changes_state())
        .collect()
}

/// What differs in bounds, rate, step or windows does not add up.
type ReachKey = (Values, Option<Rate>, Option<Number>, Vec<String>);

/// What may be written.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Values {
    /// With a rule's type, and whether parts of its values may be written.
    typed: Option<(Format, bool)>,
    bounds: Option<(Number, Number)>,
}

impl Values {
    fn of(rule: &Rule, slot: Slot, plain: ValueBounds) -> Self {
        let Some(typed) = rule.typed_at(slot) else {
            let bounds = (plain.min.into(), plain.max.into());
            return Self {
                typed: None,
                bounds: (plain != ValueBounds::FULL).then_some(bounds),
            };
        };
        Self {
            typed: Some((typed.layout.format(), typed.partial)),
            bounds: typed.is_bounded().then(|| typed.ends()),
        }
    }
}

fn slot_reach(slot: Slot, rules: &[&Rule]) -> BTreeMap<ReachKey, Reach> {
    let mut reach: BTreeMap<_, Reach> = BTreeMap::new();
    for rule in rules {
        let Some(value) = rule.bounds_at(slot) else {
            continue;
        };
        let by_type = rule.typed_at(slot).is_some_and(|typed| !typed.takes(slot));
        let hopeless = by_type || slot == Slot::MASK_WRITE && value != ValueBounds::FULL;
        let intervals = rule.intervals(slot);
        if hopeless || intervals.is_empty() {
            continue;
        }
        let step = rule.step_at(slot).map(|step| step.max());
        let key = (
            Values::of(rule, slot, value),
            rule.rate,
            step,
            windows(rule),
        );
        let entry = reach.entry(key).or_default();
        entry.intervals.extend(intervals.iter());
        entry.rules.insert(rule.id.index());
    }
    reach
}

fn grant(units: Units, key: GrantKey, functions: Functions, rules: &[&Rule]) -> CeilingGrant {
    let table = key.table.and_then(|table| TABLES.get(table).copied());
    let Values { typed, bounds } = key.value;
    let names = rules.iter().filter(|r| key.rules.contains(&r.id.index()));
    CeilingGrant {
        units: units.to_string(),
        functions: functions.to_string(),
        addresses: table
            .into_iter()
            .flat_map(|table| {
                key.intervals.iter().map(move |interval| Span {
                    table,
                    first: interval.first,
                    last: interval.last,
                })
            })
            .map(|span| span.to_string())
            .collect(),
        value_min: bounds.map(|(min, _)| min),
        value_max: bounds.map(|(_, max)| max),
        value_type: typed.map(|(format, _)| format.to_string()),
        partial: typed.is_some_and(|(_, partial)| partial),
        rate: key.rate.map(|rate| rate.to_string()),
        step: key.step,
        time: key.time,
        rules: names.map(|rule| rule.name.clone()).collect(),
    }
}

fn windows(rule: &Rule) -> Vec<String> {
    rule.time.iter().map(ToString::to_string).collect()
}

fn deny(rule: &Rule, via: Option<&str>) -> CeilingDeny {
    let evaded_by_via = via.is_none() && rule.via != Scope::Any;
    CeilingDeny {
        rule: rule.name.clone(),
        binds: rule.clients == Scope::Any && !evaded_by_via,
        devices: match &rule.devices {
            Scope::Any => "any".to_owned(),
            Scope::Only(devices) => devices.join(", "),
        },
        units: rule.units.to_string(),
        functions: rule.functions.to_string(),
        addresses: match rule.addresses.is_any() {
            true => vec!["any".to_owned()],
            false => rule.addresses.spans().map(|s| s.to_string()).collect(),
        },
        time: windows(rule),
        reason: rule.reason.clone(),
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match &self.via {
            Some(via) => format!("the headend {via}"),
            None => "any headend".to_owned(),
        };
        write!(f, "At most, whatever clients it states, {who} can reach:")?;
        if self.devices.is_empty() && self.stations.is_empty() {
            write!(f, "\n  nothing")?;
        }
        for device in &self.devices {
            write!(f, "\n{device}")?;
        }
        if !self.denies.is_empty() {
            write!(f, "\nless what these deny:")?;
        }
        for deny in &self.denies {
            write!(f, "\n{deny}")?;
        }
        let after_denies = !self.denies.is_empty() && !self.stations.is_empty();
        if after_denies {
            write!(f, "\nand of PROFINET:")?;
        }
        for station in &self.stations {
            write!(f, "\n{station}")?;
        }
        Ok(())
    }
}

impl fmt::Display for CeilingDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.device.as_deref().unwrap_or("any other device");
        write!(f, "  {name}")?;
        if self.read_only {
            write!(f, " (read-only: nothing that changes its state)")?;
        }
        for grant in &self.grants {
            write!(f, "\n    unit {}: {grant}", grant.units)?;
        }
        Ok(())
    }
}

impl fmt::Display for CeilingGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function {}", self.functions)?;
        if !self.addresses.is_empty() {
            write!(f, " at {}", self.addresses.join(", "))?;
        }
        if let (Some(min), Some(max)) = (self.value_min, self.value_max) {
            write!(f, ", values {min} to {max}")?;
        }
        if let Some(value_type) = &self.value_type {
            let whole = if self.partial { "" } else { " whole" };
            write!(f, ",{whole} as {value_type}")?;
        }
        if let Some(step) = self.step {
            write!(f, ", in steps of at most {step}")?;
        }
        if let Some(rate) = &self.rate {
            write!(f, ", at most {rate}")?;
        }
        write_time(f, &self.time)?;
        let rules: Vec<String> = self.rules.iter().map(|rule| format!("{rule:?}")).collect();
        write!(f, "  by {}", rules.join(", "))
    }
}

impl fmt::Display for CeilingDeny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  {:?}: device {}, unit {}, function {}",
            self.rule, self.devices, self.units, self.functions
        )?;
        if !self.addresses.is_empty() {
            write!(f, " at {}", self.addresses.join(", "))?;
        }
        write_time(f, &self.time)?;
        if !self.binds {
            write!(f, " (does not bind: it is limited to clients or headends)")?;
        }
        Ok(())
    }
}

fn write_time(f: &mut fmt::Formatter<'_>, windows: &[String]) -> fmt::Result {
    match windows {
        [] => Ok(()),
        windows => write!(f, ", only {}", windows.join(" or ")),
    }
}
