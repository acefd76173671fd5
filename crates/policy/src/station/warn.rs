//! What is worth telling about rules for stations that are valid.

use fieldlock_profinet::{ArType, Service};

use super::call::Call;
use super::parts::{ArTypes, Services, SlotSpan};
use super::rule::StationRule;
use crate::check::{Warning, covers, within};
use crate::model::interval::Interval;
use crate::model::scope::{ReadOnly, Scope};
use crate::policy::Policy;

pub(crate) fn station_warnings(policy: &Policy, now: i64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for rule in &policy.stations {
        let name = || rule.name.to_string();
        let clients = rule.clients.listed().iter();
        let entries = clients.filter_map(|place| policy.clients.get(*place as usize));
        let others = entries.filter(|entry| !entry.is_controller());
        warnings.extend(others.map(|entry| Warning::NoController {
            rule: name(),
            client: entry.name.clone(),
        }));
        let passed = rule.time.iter().filter(|w| w.next_open(now).is_none());
        warnings.extend(passed.map(|window| Warning::NeverOpen {
            rule: name(),
            window: window.to_string(),
        }));
        if rule.is_allow() {
            warnings.extend(allow_warnings(policy, rule));
        }
    }
    warnings
}

fn allow_warnings(policy: &Policy, allow: &StationRule) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let name = || allow.name.to_string();
    let sets = Services::of(allow.services.iter().filter(|service| service.is_set()));
    if allow.clients == Scope::Any && sets != Services::default() {
        let services = sets.to_string();
        warnings.push(Warning::SetByAnyone {
            allow: name(),
            services,
        });
    }
    if allow.services.contains(Service::Write) && allow.records == [Interval::FULL] {
        warnings.push(Warning::WritesAnyRecord { allow: name() });
    }
    let names = |kind: ArType| match &allow.ars {
        ArTypes::Any => false,
        ArTypes::Only(kinds) => kinds.contains(&kind),
    };
    if names(ArType::RtClass3) {
        warnings.push(Warning::Isochronous { allow: name() });
    }
    if names(ArType::Redundant) {
        warnings.push(Warning::Redundant { allow: name() });
    }
    let mut services = allow.services.iter();
    let read_only = policy.read_only == ReadOnly::All;
    if read_only && services.all(|service| Call::Service(service).changes_state()) {
        warnings.push(Warning::ShadowedByReadOnly { allow: name() });
    }
    let mut denies = policy.stations.iter().filter(|rule| !rule.is_allow());
    if let Some(deny) = denies.find(|deny| shadows(deny, allow)) {
        let deny = deny.name.to_string();
        warnings.push(Warning::Shadowed {
            allow: name(),
            deny,
        });
    }
    warnings
}

/// Whether the deny matches every call that the allow covers.
fn shadows(deny: &StationRule, allow: &StationRule) -> bool {
    let scopes = deny.time.is_empty()
        && covers(&deny.clients, &allow.clients)
        && covers(&deny.via, &allow.via)
        && covers(&deny.stations, &allow.stations);
    let mut services = allow.services.iter();
    let ars = match (&deny.ars, &allow.ars) {
        (ArTypes::Any, _) => true,
        (ArTypes::Only(_), ArTypes::Any) => false,
        (denied, ArTypes::Only(allowed)) => allowed.iter().all(|kind| denied.contains(*kind)),
    };
    let within_one = |slot: &SlotSpan| {
        let holds = |wide: Interval, narrow: Interval| within(&[narrow], &[wide]);
        let mut denied = deny.slots.iter();
        denied.any(|wide| holds(wide.slots, slot.slots) && holds(wide.subslots, slot.subslots))
    };
    let slots =
        deny.slots.is_empty() || !allow.slots.is_empty() && allow.slots.iter().all(within_one);
    scopes
        && services.all(|service| {
            deny.services.contains(service)
                && match service {
                    Service::Connect => ars,
                    Service::Read | Service::Write => {
                        slots && within(&allow.records, &deny.records)
                    }
                    _ => true,
                }
        })
}
