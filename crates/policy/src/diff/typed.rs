//! Rules with a type, one by one: a difference of what they take of two, four or eight octets together
//! is not one of single registers.

use std::collections::BTreeMap;

use super::ConditionChange;
use crate::model::rule::Rule;
use crate::model::scope::{Effect, Scope};
use crate::policy::Policy;

/// Rules that have a type in either file and say something else in the other, or are not there.
pub(super) fn changes(old: &Policy, new: &Policy) -> Vec<ConditionChange> {
    let [old, new] = [old, new].map(|policy| {
        let typed = policy.rules.iter().filter(|rule| rule.typed.is_some());
        let told = typed.map(|rule| (rule.name.as_str(), words(policy, rule)));
        told.collect::<BTreeMap<_, _>>()
    });
    let mut names: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let changed = names
        .into_iter()
        .filter(|name| old.get(name) != new.get(name));
    changed
        .map(|name| ConditionChange {
            rule: name.to_owned(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .collect()
}

/// All that such a rule says, but for rate, step and `repeat`, which are told apart.
fn words(policy: &Policy, rule: &Rule) -> String {
    let listed = |names: &Scope<String>| match names {
        Scope::Any => "any".to_owned(),
        Scope::Only(names) => sorted(names.iter().map(String::as_str)),
    };
    let clients = rule.clients.listed().iter();
    let clients = clients.filter_map(|place| policy.clients.get(*place as usize));
    let clients = match &rule.clients {
        Scope::Any => "any client".to_owned(),
        Scope::Only(_) => sorted(clients.map(|client| client.name.as_str())),
    };
    let effect = match rule.effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let addresses: Vec<String> = rule
        .addresses
        .spans()
        .map(|span| span.to_string())
        .collect();
    let mut words = format!(
        "{effect} {clients} -> {}, unit {}: function {} at {}",
        listed(&rule.devices),
        rule.units,
        rule.functions,
        addresses.join(", "),
    );
    if let Some(typed) = &rule.typed {
        words += &format!(", {}", typed.words());
    }
    if rule.via != Scope::Any {
        words += &format!(", via {}", listed(&rule.via));
    }
    let windows: Vec<String> = rule.time.iter().map(ToString::to_string).collect();
    if !windows.is_empty() {
        words += &format!(", only {}", windows.join(" or "));
    }
    words
}

fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.join(", ")
}
