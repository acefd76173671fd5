//! A rule for stations: keys checked against each other.

use std::ops::Range;

use fieldlock_profinet::{ArType, Service};

use super::{ClientNames, place};
use crate::error::{Problem, Problems, ProfinetProblem};
use crate::model::decision::RuleId;
use crate::model::scope::{Effect, Scope};
use crate::source::{Given, SourceRule};
use crate::station::{ArTypes, Services, StationRule};

pub(super) fn compile(
    rule: SourceRule,
    client_names: &ClientNames,
    problems: &mut Problems,
) -> Option<StationRule> {
    check_keys(&rule, problems);
    let clients = match &rule.client {
        Given::Valid(_, scope) => {
            let key = format!("{}.client", place(rule.effect));
            client_names.resolve(scope, &key, problems)
        }
        Given::Absent | Given::Invalid => Scope::Any,
    };
    let keys = rule.stations;
    Some(StationRule {
        id: RuleId(0),
        name: rule.name.valid()?.into(),
        effect: rule.effect,
        reason: rule.reason.valid().map(Into::into),
        clients,
        via: rule.via.valid().unwrap_or(Scope::Any),
        stations: keys.station.valid()?,
        services: keys.service.valid()?,
        ars: keys.ar.valid().unwrap_or_else(|| match rule.effect {
            Effect::Allow => ArTypes::Only(vec![ArType::IoController]),
            Effect::Deny => ArTypes::Any,
        }),
        records: keys.record.valid().unwrap_or_default(),
        slots: keys.slot.valid().unwrap_or_default(),
        time: rule.time.valid().unwrap_or_default(),
    })
}

/// Keys that must be there, and keys that must not.
fn check_keys(rule: &SourceRule, problems: &mut Problems) {
    let mut add = |span: Range<usize>, key: &str, problem: Problem| {
        problems.add(span, format!("{}.{key}", place(rule.effect)), problem);
    };
    let keys = &rule.stations;
    if let Some(span) = rule.device.span() {
        add(span, "device", Problem::DeviceAndStation);
    }
    let of_devices = [
        ("unit", rule.unit.span()),
        ("function", rule.function.span()),
        ("address", rule.address.span()),
        ("type", rule.number.span()),
        ("word_order", rule.word_order.span()),
        ("partial", rule.partial.span()),
        ("value", rule.value.span()),
        ("rate", rule.rate.span()),
        ("step", rule.step.span()),
        ("repeat", rule.repeat.span()),
    ];
    for (key, span) in of_devices {
        if let Some(span) = span {
            add(span, key, Problem::KeyOfDevices);
        }
    }
    if keys.station.is_absent() {
        let hint = "name the stations, or write station = \"any\"";
        add(rule.span.clone(), "station", Problem::Missing { hint });
    }
    if keys.service.is_absent() {
        let hint = "name services, such as [\"io\", \"read\"], or write service = \"any\"";
        add(rule.span.clone(), "service", Problem::Missing { hint });
    }
    if let Some((_, services)) = keys.service.as_valid() {
        check_services(*services, rule, &mut add);
    }
    if let (Effect::Allow, Some(span)) = (rule.effect, rule.reason.span()) {
        add(span, "reason", Problem::ReasonInAllow);
    }
}

fn check_services(
    services: Services,
    rule: &SourceRule,
    add: &mut impl FnMut(Range<usize>, &str, Problem),
) {
    let keys = &rule.stations;
    if services.has_records() && keys.record.is_absent() {
        let hint = "its services read or write records; list them, such as [\"0x8000-0x80ff\"], or write record = \"any\"";
        add(rule.span.clone(), "record", Problem::Missing { hint });
    }
    if !services.has_records() {
        for (key, span) in [("record", keys.record.span()), ("slot", keys.slot.span())] {
            if let Some(span) = span {
                let of = "read and write";
                add(span, key, ProfinetProblem::KeyWithoutService { of }.into());
            }
        }
    }
    if let (false, Some(span)) = (services.contains(Service::Connect), keys.ar.span()) {
        let of = "connect";
        add(span, "ar", ProfinetProblem::KeyWithoutService { of }.into());
    }
}
