//! Who can ask: origins that no entry and no rule of either policy tells apart count as one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::budget::{Budget, TooLarge};
use crate::model::cidr::Cidr;
use crate::model::client::Client;
use crate::model::scope::Scope;
use crate::policy::Policy;

/// Origins to which the same rules apply, in the old policy and in the new.
pub(super) struct Group {
    /// Places of the matching `[[client]]` entries of one of them, old and new.
    pub(super) clients: [Vec<u32>; 2],
    /// Each of them, for people.
    pub(super) labels: BTreeSet<String>,
    /// One of them.
    pub(super) address: Option<IpAddr>,
    pub(super) identity: Option<String>,
    pub(super) role: Option<String>,
}

pub(super) fn groups(
    old: &Policy,
    new: &Policy,
    budget: &mut Budget,
) -> Result<Vec<Group>, TooLarge> {
    let entries = || old.clients.iter().chain(&new.clients);
    let texts = |text: fn(&crate::model::client::ClientEntry) -> Option<&String>| {
        let listed: BTreeSet<&str> = entries().filter_map(text).map(String::as_str).collect();
        std::iter::once(None)
            .chain(listed.into_iter().map(Some))
            .collect::<Vec<_>>()
    };
    let identities = texts(|entry| entry.identity.as_ref());
    let roles = texts(|entry| entry.role.as_ref());
    let speaking = [spoken(old), spoken(new)];
    let mut groups: BTreeMap<[Vec<usize>; 2], Group> = BTreeMap::new();
    for (block, address) in blocks(entries().flat_map(|entry| &entry.address).copied()) {
        for identity in &identities {
            for role in &roles {
                budget.spend(entries().count() as u64)?;
                let client = Client {
                    address,
                    identity: *identity,
                    role: *role,
                };
                let clients = [old.matching(&client), new.matching(&client)];
                let rules = [
                    applying(&speaking[0], &clients[0]),
                    applying(&speaking[1], &clients[1]),
                ];
                let label = label(old, new, &clients, &block, &client);
                let group = groups.entry(rules).or_insert_with(|| Group {
                    clients,
                    labels: BTreeSet::new(),
                    address,
                    identity: identity.map(str::to_owned),
                    role: role.map(str::to_owned),
                });
                group.labels.insert(label);
            }
        }
    }
    Ok(groups.into_values().collect())
}

/// For each entry the rules that list it.
fn spoken(policy: &Policy) -> Vec<Vec<usize>> {
    let mut rules = vec![Vec::new(); policy.clients.len()];
    for (number, rule) in policy.rules.iter().enumerate() {
        if let Scope::Only(listed) = &rule.clients {
            for client in listed {
                if let Some(rules) = rules.get_mut(*client as usize) {
                    rules.push(number);
                }
            }
        }
    }
    rules
}

fn applying(speaking: &[Vec<usize>], clients: &[u32]) -> Vec<usize> {
    let rules: BTreeSet<usize> = clients
        .iter()
        .filter_map(|client| speaking.get(*client as usize))
        .flatten()
        .copied()
        .collect();
    rules.into_iter().collect()
}

pub(super) fn label(
    old: &Policy,
    new: &Policy,
    clients: &[Vec<u32>; 2],
    block: &str,
    client: &Client<'_>,
) -> String {
    let names = |policy: &Policy, places: &[u32]| {
        let entries = places
            .iter()
            .filter_map(|at| policy.clients.get(*at as usize));
        let mut names: Vec<&str> = entries.map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        names.join(" + ")
    };
    let [before, after] = [names(old, &clients[0]), names(new, &clients[1])];
    if before == after {
        return match before.as_str() {
            "" => OTHER_CLIENT.to_owned(),
            _ => before,
        };
    }
    let or_none = |names: String| match names.as_str() {
        "" => "no client".to_owned(),
        _ => names,
    };
    let mut who = vec![block.to_owned()];
    who.extend(
        client
            .identity
            .map(|identity| format!("identity {identity}")),
    );
    who.extend(client.role.map(|role| format!("role {role}")));
    format!(
        "{} ({}, then {})",
        who.join(", "),
        or_none(before),
        or_none(after)
    )
}

pub(super) const OTHER_CLIENT: &str = "a client without an entry";

/// Every block less the blocks within it, and what lies in none, each with an address of it.
fn blocks(listed: impl Iterator<Item = Cidr>) -> Vec<(String, Option<IpAddr>)> {
    let mut blocks: Vec<(IpAddr, IpAddr, Cidr)> = listed
        .map(|block| {
            let (first, last) = block.ends();
            (first, last, block)
        })
        .collect();
    // A block before those within it.
    blocks.sort_unstable_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
    blocks.dedup_by_key(|(first, last, _)| (*first, *last));
    let mut cases = Vec::new();
    for (place, (first, last, block)) in blocks.iter().enumerate() {
        if let Some(address) = gap(*first, *last, &blocks[place + 1..]) {
            cases.push((block.to_string(), Some(address)));
        }
    }
    let v4 = gap(
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::BROADCAST.into(),
        &blocks,
    );
    let v6 = || {
        gap(
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::from(u128::MAX).into(),
            &blocks,
        )
    };
    cases.push(("any other address".to_owned(), v4.or_else(v6)));
    cases
}

/// The lowest address from `first` to `last` that is in none of the sorted blocks.
fn gap(first: IpAddr, last: IpAddr, blocks: &[(IpAddr, IpAddr, Cidr)]) -> Option<IpAddr> {
    let mut at = first;
    for (low, high, _) in blocks {
        if *low > at || *low > last {
            break;
        }
        if *high >= at {
            at = following(*high).filter(|next| *next <= last)?;
        }
    }
    Some(at)
}

/// `None` after the last address of the family.
fn following(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add(1)
            .map(|n| Ipv4Addr::from_bits(n).into()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add(1)
            .map(|n| Ipv6Addr::from_bits(n).into()),
    }
}
