//! The file that is suggested.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;

use super::rules::{AddressRange, Kind, RuleBody};
use super::{Observation, Times, Traffic, Who};
use crate::model::address::{Span, TABLES, table_name};
use crate::model::scope::Units;

type Rules<'t> = BTreeMap<(&'t Who, &'t str, RuleBody), (BTreeSet<u8>, Times)>;

/// A request of function 23 that no rule can express: who, device, unit.
type LeftOut<'t> = (&'t Who, &'t str, u8, Observation, Times);

/// Names have at most 100 characters in a policy; this leaves room for a number.
const LONGEST_NAME: usize = 90;

pub(super) fn write(traffic: &Traffic, rules: &Rules<'_>, left_out: &[LeftOut<'_>]) -> String {
    let mut file = "syntax = 1\n".to_owned();
    let mut taken = HashSet::new();
    let mut names = BTreeMap::new();
    for (who, seen) in &traffic.clients {
        let name = unused(&client_name(who, &seen.names), &mut taken);
        let addresses: Vec<String> = seen.addresses.iter().map(ToString::to_string).collect();
        file += &format!("\n[[client]]\nname = {}\n", quoted(&name));
        if !addresses.is_empty() {
            file += &format!("address = {}\n", list(addresses.iter().map(|a| quoted(a))));
        }
        if let Who::Proven { identity, role } = who {
            file += &format!("identity = {}\n", quoted(identity));
            if let Some(role) = role {
                file += &format!("role = {}\n", quoted(role));
            }
        }
        names.insert(who, name);
    }
    let called = |who: &Who| names.get(who).map_or("", String::as_str);
    let mut alike: BTreeMap<String, usize> = BTreeMap::new();
    for (who, device, body) in rules.keys() {
        *alike
            .entry(plain_name(called(who), device, body))
            .or_default() += 1;
    }
    let mut taken = HashSet::new();
    for ((who, device, body), (units, times)) in rules {
        let client = called(who);
        let mut name = plain_name(client, device, body);
        if alike.get(&name).is_some_and(|count| *count > 1) {
            name += &format!(", unit {}", unit_ranges(units).join(" ").replace('"', ""));
        }
        file += &rule(&name, client, device, body, units, times, &mut taken);
    }
    for (who, device, unit, what, times) in left_out {
        let client = called(who);
        let span = |span: Option<Span>| span.map_or_else(String::new, |span| span.to_string());
        file += &format!(
            "\n# Left out: {} reads {} and writes {} of {device}, unit {unit}, in one request\n\
             # (function 23), {}. A rule's addresses hold for both halves.\n",
            comment(client),
            span(what.read),
            span(what.write),
            seen(times),
        );
    }
    file
}

/// What a rule is called, unless others of the client and device are called so.
fn plain_name(client: &str, device: &str, body: &RuleBody) -> String {
    let does = match body.kind {
        Kind::Read => "reads",
        Kind::Write => "writes",
        Kind::ReadWrite => "reads and writes",
        Kind::Other => "asks",
    };
    match (body.kind, body.addresses.as_slice()) {
        (Kind::Write, [only]) => format!("{client} {does} {device} {}", told(only)),
        _ => format!("{client} {does} {device}"),
    }
}

fn rule(
    name: &str,
    client: &str,
    device: &str,
    body: &RuleBody,
    units: &BTreeSet<u8>,
    times: &Times,
    taken: &mut HashSet<String>,
) -> String {
    let name = unused(name, taken);
    let parts = body.parts.iter();
    let parts = parts.map(|(function, part)| quoted(&format!("{function}/{part}")));
    let functions = body.functions.iter().map(u8::to_string).chain(parts);
    let mut text = format!("\n# {}\n[[allow]]\nname = {}\n", seen(times), quoted(&name));
    text += &format!("client = {}\ndevice = {}\n", quoted(client), quoted(device));
    text += &format!("unit = {}\n", list(unit_ranges(units)));
    text += &format!("function = {}\n", list(functions));
    if !body.addresses.is_empty() {
        let addresses = body.addresses.iter().map(|range| quoted(&told(range)));
        text += &format!("address = {}\n", list(addresses));
    }
    if let Some(value) = body.value {
        text += &format!("value = {{ min = {}, max = {} }}\n", value.min, value.max);
    }
    text
}

fn seen(times: &Times) -> String {
    let requests = match times.count {
        1 => "1 request".to_owned(),
        count => format!("{count} requests"),
    };
    let time = |time: Option<SystemTime>| time.map(rfc3339);
    match (time(times.first), time(times.last)) {
        (Some(first), Some(last)) if first != last => format!("{requests}, {first} to {last}"),
        (Some(first), _) => format!("{requests}, {first}"),
        _ => requests,
    }
}

/// Whole seconds in UTC.
fn rfc3339(time: SystemTime) -> String {
    format!("{:.0}", Timestamp::try_from(time).unwrap_or_default())
}

/// Broadcast, unit 0, can't stand in a range.
fn unit_ranges(units: &BTreeSet<u8>) -> Vec<String> {
    let broadcast = units.contains(&0).then(|| "0".to_owned());
    let mut others = Units::NONE;
    units
        .iter()
        .filter(|unit| **unit != 0)
        .for_each(|unit| others.insert(*unit));
    let all = match (others == Units::ANY, others == Units::NONE) {
        (true, _) => "1-255".to_owned(),
        (_, true) => return broadcast.into_iter().collect(),
        _ => others.to_string(),
    };
    let parts = all.split(", ").map(|part| match part.contains('-') {
        true => quoted(part),
        false => part.to_owned(),
    });
    broadcast.into_iter().chain(parts).collect()
}

fn told(range: &AddressRange) -> String {
    let AddressRange { table, first, last } = *range;
    match TABLES.get(table) {
        Some(table) if first == last => format!("{} {first}", table_name(*table)),
        Some(table) => format!("{} {first}-{last}", table_name(*table)),
        None => String::new(),
    }
}

fn client_name(who: &Who, names: &BTreeSet<String>) -> String {
    let mut names = names.iter();
    match (names.next(), names.next(), who) {
        (Some(only), None, _) => only.clone(),
        (_, _, Who::Address(address)) => address.to_string(),
        (_, _, Who::Proven { identity, .. }) => {
            let end = identity.rsplit('/').next().unwrap_or_default();
            if end.is_empty() {
                identity.clone()
            } else {
                end.to_owned()
            }
        }
    }
}

/// The name, cut to what a policy takes, with a number if it is taken.
fn unused(name: &str, taken: &mut HashSet<String>) -> String {
    let shown: String = name
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(LONGEST_NAME)
        .collect();
    let reserved = shown.is_empty() || shown == "any" || shown.starts_with("set:");
    let shown = if reserved {
        format!("client {shown}")
    } else {
        shown
    };
    let numbered = (2u64..).map(|number| format!("{shown} ({number})"));
    let mut free = std::iter::once(shown.clone())
        .chain(numbered)
        .filter(|name| !taken.contains(name));
    let name = free.next().unwrap_or_default();
    taken.insert(name.clone());
    name
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("[{}]", items.join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string can't fail.
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// A comment ends at a control character.
fn comment(text: &str) -> String {
    text.replace(char::is_control, "?")
}
