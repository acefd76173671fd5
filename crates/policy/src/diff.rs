//! What a change of a policy opens and closes: by meaning, not by text.
//!
//! Two policies are compared for every kind of origin ([`origin`]), device, class of units and
//! slot. Within one, a sweep over the addresses ([`sweep`]) gives the values that each side lets
//! through at each address alone; where those agree, requests of several elements may still differ
//! ([`joined`]). Together that is exact:
//!
//! - a request that is decided differently touches a region that is listed with
//!   [`Region::joined`] false, or lies within one with `joined` true;
//! - each region has an example that is decided differently.
//!
//! Rules with a time window count in some cases and not in others: the policies are compared for each
//! set of windows that are ever open together. Rates, steps and `repeat` depend on what
//! came before, so they are left out of the comparison and listed rule by rule.
//!
//! Rules with a type are left out of the comparison by meaning and compared one by one, by name and by
//! what they say.
//!
//! Rules for stations of PROFINET are compared one by one, by name and by what they say: a rule under
//! another name shows, though it may mean the same.
//!
//! Time and memory grow with the rules that overlap; a budget ends a comparison that would take
//! minutes.

mod budget;
mod conditions;
mod examples;
mod joined;
mod origin;
mod slots;
mod sweep;
#[cfg(test)]
mod tests;
mod text;
mod typed;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde::Serialize;

use crate::model::client::Side;
use crate::model::phase::Now;
use crate::model::rule::{Repeat, Rule};
use crate::model::scope::{ReadOnly, Units, Via};
use crate::policy::Policy;
use crate::station::{self, StationChange};
use crate::view::View;
use budget::Budget;
pub use budget::TooLarge;
use conditions::Times;
use origin::Group;
use slots::{Difference, differences};

/// A valid request of a function other than 23, with one element for each value.
#[cfg(test)]
pub(crate) fn test_request(function: u8, first: u16, values: &[u16]) -> Vec<u8> {
    use crate::model::function::Slot;
    use fieldlock_modbus::FunctionCode;
    let values = match function {
        5 | 6 | 8 | 22 | 43 => &values[..1],
        _ => values,
    };
    let values = values.iter().map(|value| match function {
        15 => value % 2,
        _ => *value,
    });
    let slot = Slot::of(FunctionCode(function));
    examples::Request::new(slot, first, values.collect(), None).pdu()
}

/// What a change opens and closes. `Display` gives the text, `Serialize` the same for programs.
#[derive(Debug, Serialize)]
pub struct Diff {
    pub regions: Vec<Region>,
    /// Allows with the same name in both files whose rate is another.
    pub rates: Vec<ConditionChange>,
    /// The same for steps.
    pub steps: Vec<ConditionChange>,
    /// The same for `repeat`.
    pub repeats: Vec<ConditionChange>,
    /// Rules with a type that differ, as above; `None`: there is no such rule.
    pub types: Vec<ConditionChange>,
    /// Rules for stations that differ. They are compared rule by rule, not by meaning.
    pub stations: Vec<StationChange>,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
            && self.rates.is_empty()
            && self.steps.is_empty()
            && self.repeats.is_empty()
            && self.types.is_empty()
            && self.stations.is_empty()
    }
}

/// How often a rule lets a request through, how far it lets a value move, or whether it lets a write
/// of unknown outcome go again, in words; `None`: as where the key is left out.
#[derive(Debug, Clone, Serialize)]
pub struct ConditionChange {
    pub rule: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Opens,
    Closes,
}

/// Requests of some clients to some devices that the change opens or closes.
#[derive(Debug, Clone, Serialize)]
pub struct Region {
    pub change: Change,
    /// Names of `[[client]]` entries, or what tells the others apart; empty: any client.
    pub clients: Vec<String>,
    /// At the edge: through which headend; `None`: not judged, or any headend.
    pub via: Option<String>,
    /// Names, or "any other device" for those that neither policy names; empty: any device.
    pub devices: Vec<String>,
    pub units: String,
    pub functions: String,
    /// Empty where the functions have no addresses.
    pub addresses: Vec<String>,
    /// Ranges of values, such as `0-1200`; empty: any value, or none written.
    pub values: Vec<String>,
    /// When, in words; `None`: at any time.
    pub when: Option<String>,
    /// Only requests across several elements: one side covers each by one rule, the other not.
    pub joined: bool,
    pub example: Example,
}

/// A request that the two policies decide differently.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// Function, addresses and values in words.
    pub request: String,
    pub unit: u8,
    /// The whole PDU, for `policy explain --pdu`.
    #[serde(serialize_with = "hexadecimal")]
    pub pdu: Vec<u8>,
    pub client: ExampleClient,
}

/// One of the clients concerned, as a headend sees it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExampleClient {
    pub address: Option<IpAddr>,
    pub identity: Option<String>,
    pub role: Option<String>,
}

/// Compares two policies as `side` judges: at the edge for each headend that a rule names.
pub fn diff(old: &Policy, new: &Policy, side: Side) -> Result<Diff, TooLarge> {
    let mut budget = Budget::default();
    let groups = origin::groups(old, new, &mut budget)?;
    let devices = devices(old, new);
    let headends = headends(old, new, side);
    let times = Times::of(old, new, &mut budget)?;
    let mut found: BTreeMap<Found, BTreeSet<usize>> = BTreeMap::new();
    for (number, policies) in times.cases([old, new]).enumerate() {
        let compared = compare(&policies, &groups, &devices, &headends, &mut budget)?;
        for (what, of) in compared.0 {
            found.entry((what, of)).or_default().insert(number);
        }
    }
    let mut by_time: BTreeMap<BTreeSet<usize>, Collected> = BTreeMap::new();
    for ((what, of), cases) in found {
        by_time.entry(cases).or_default().0.insert(what, of);
    }
    let mut regions = Vec::new();
    for (cases, collected) in by_time {
        let when = times.when(&cases);
        regions.extend(collected.regions(&devices, &groups, &headends, when.as_deref()));
    }
    regions.sort_by(|a: &Region, b: &Region| {
        let key = |r: &'_ Region| (r.change, r.devices.clone(), r.clients.clone());
        key(a).cmp(&key(b))
    });
    Ok(Diff {
        regions,
        rates: conditions::changes(old, new, |rule| rule.rate),
        steps: conditions::changes(old, new, |rule| rule.step.clone()),
        repeats: conditions::changes(old, new, |rule| {
            (rule.repeat == Repeat::Allow).then_some(rule.repeat)
        }),
        types: typed::changes(old, new),
        stations: station::changes(old, new),
    })
}

/// A difference, for which units, and the clients, devices and headends for which it is there.
type Found = ((Difference, Units), BTreeSet<Case>);

fn compare(
    [old, new]: &[Policy; 2],
    groups: &[Group],
    devices: &[Option<&str>],
    headends: &[Via<'_>],
    budget: &mut Budget,
) -> Result<Collected, TooLarge> {
    let phases = [old, new].map(|policy| policy.phase(Now::Unknown));
    let mut collected = Collected::default();
    for (device_at, device) in devices.iter().enumerate() {
        let allows = [old, new].map(|policy| allows(policy, device.unwrap_or_default()));
        for (group_at, group) in groups.iter().enumerate() {
            budget.spend(allows.iter().map(Vec::len).sum::<usize>() as u64)?;
            // Most clients have to do with few devices, and a view costs a look at every rule.
            let mut sides = allows.iter().zip(&group.clients);
            if !sides.any(|(allows, who)| allows.iter().any(|rule| rule.applies_to_clients(who))) {
                continue;
            }
            for (via_at, via) in headends.iter().enumerate() {
                budget.spend((old.rules.len() + new.rules.len()) as u64)?;
                let device = device.unwrap_or_default();
                let view = |side: usize, policy| {
                    View::build(policy, &phases[side], &group.clients[side], *via, device)
                };
                let (old_view, new_view) = (view(0, old), view(1, new));
                for (units, difference) in by_units(&old_view, &new_view, budget)? {
                    collected.add(units, difference, (device_at, group_at, via_at));
                }
            }
        }
    }
    Ok(collected)
}

fn allows<'p>(policy: &'p Policy, device: &str) -> Vec<&'p Rule> {
    let rules = policy.rules.iter();
    rules
        .filter(|rule| rule.is_allow() && rule.devices.admits(device))
        .collect()
}

/// Every device that a policy names, then the rest.
fn devices<'p>(old: &'p Policy, new: &'p Policy) -> Vec<Option<&'p str>> {
    let mut names = BTreeSet::new();
    for policy in [old, new] {
        let listed = policy.rules.iter().flat_map(|rule| rule.devices.listed());
        names.extend(listed.map(String::as_str));
        if let ReadOnly::Devices(listed) = &policy.read_only {
            names.extend(listed.iter().map(String::as_str));
        }
    }
    names.into_iter().map(Some).chain([None]).collect()
}

/// The name of a headend that no policy names: names are not empty.
const OTHER_HEADEND: &str = "";

fn headends<'p>(old: &'p Policy, new: &'p Policy, side: Side) -> Vec<Via<'p>> {
    if side == Side::Headend {
        return vec![Via::NotJudged];
    }
    let rules = old.rules.iter().chain(&new.rules);
    let names: BTreeSet<&str> = rules
        .flat_map(|rule| rule.via.listed())
        .map(String::as_str)
        .collect();
    names
        .into_iter()
        .chain([OTHER_HEADEND])
        .map(Via::Named)
        .collect()
}

/// What differs, with the units for which it does.
fn by_units(
    old: &View,
    new: &View,
    budget: &mut Budget,
) -> Result<Vec<(Units, Difference)>, TooLarge> {
    let mut classes: BTreeMap<(u8, u8), Units> = BTreeMap::new();
    for unit in 0..=255u8 {
        let place = usize::from(unit);
        let class = (old.units[place], new.units[place]);
        classes.entry(class).or_insert(Units::NONE).insert(unit);
    }
    let mut known = HashMap::new();
    let mut found: BTreeMap<Difference, Units> = BTreeMap::new();
    for units in classes.into_values() {
        let unit = units.first();
        for difference in differences(old, new, unit, &mut known, budget)? {
            let all = found.entry(difference).or_insert(Units::NONE);
            all.extend(&units);
        }
    }
    Ok(found
        .into_iter()
        .map(|(what, units)| (units, what))
        .collect())
}

/// Places of a device, a group of origins and a headend.
type Case = (usize, usize, usize);

/// The same differences of several clients and devices become one region.
#[derive(Default)]
struct Collected(BTreeMap<(Difference, Units), BTreeSet<Case>>);

impl Collected {
    fn add(&mut self, units: Units, difference: Difference, case: Case) {
        self.0.entry((difference, units)).or_default().insert(case);
    }

    fn regions(
        self,
        devices: &[Option<&str>],
        groups: &[Group],
        headends: &[Via<'_>],
        when: Option<&str>,
    ) -> Vec<Region> {
        let mut regions = Vec::new();
        for ((difference, units), cases) in self.0 {
            let by_device = cases
                .into_iter()
                .map(|(device, who, via)| (device, (via, who)));
            for (cases, on) in alike(by_device) {
                for (who, vias) in alike(cases) {
                    let vias: Vec<Option<String>> = match vias.len() == headends.len() {
                        true => vec![None],
                        false => vias
                            .iter()
                            .map(|via| Some(headend(headends[*via])))
                            .collect(),
                    };
                    for via in vias {
                        let whose = Whose {
                            devices: listed(&on, devices),
                            who: &who,
                            groups,
                            via,
                            when: when.map(str::to_owned),
                        };
                        regions.push(whose.region(&difference, units));
                    }
                }
            }
        }
        regions
    }
}

/// The places that have the same items stand together.
fn alike<P: Ord, I: Ord>(
    pairs: impl IntoIterator<Item = (P, I)>,
) -> BTreeMap<BTreeSet<I>, BTreeSet<P>> {
    let mut items: BTreeMap<P, BTreeSet<I>> = BTreeMap::new();
    for (place, item) in pairs {
        items.entry(place).or_default().insert(item);
    }
    let mut places: BTreeMap<BTreeSet<I>, BTreeSet<P>> = BTreeMap::new();
    for (place, items) in items {
        places.entry(items).or_default().insert(place);
    }
    places
}

fn listed(places: &BTreeSet<usize>, devices: &[Option<&str>]) -> Vec<String> {
    if places.len() == devices.len() {
        return Vec::new();
    }
    let names = places.iter().filter_map(|at| devices.get(*at));
    names
        .map(|name| name.unwrap_or(OTHER_DEVICE).to_owned())
        .collect()
}

const OTHER_DEVICE: &str = "any other device";

fn headend(via: Via<'_>) -> String {
    match via {
        Via::Named(OTHER_HEADEND) | Via::NotJudged | Via::Unproven => "another headend".to_owned(),
        Via::Named(name) => name.to_owned(),
    }
}

/// Whose requests differ.
struct Whose<'g> {
    devices: Vec<String>,
    who: &'g BTreeSet<usize>,
    groups: &'g [Group],
    via: Option<String>,
    when: Option<String>,
}

impl Whose<'_> {
    fn region(self, difference: &Difference, units: Units) -> Region {
        let members = || self.who.iter().filter_map(|at| self.groups.get(*at));
        let mut clients: BTreeSet<&str> = BTreeSet::new();
        if self.who.len() < self.groups.len() {
            clients = members()
                .flat_map(|g| &g.labels)
                .map(String::as_str)
                .collect();
        }
        let client = members().next().map(|group| ExampleClient {
            address: group.address,
            identity: group.identity.clone(),
            role: group.role.clone(),
        });
        Region {
            change: difference.change,
            clients: clients.into_iter().map(str::to_owned).collect(),
            via: self.via,
            devices: self.devices,
            units: units.to_string(),
            functions: difference.functions.to_string(),
            addresses: difference.addresses(),
            values: difference.values(),
            when: self.when,
            joined: difference.joined,
            example: Example {
                request: difference.example.words(),
                unit: units.first(),
                pdu: difference.example.pdu(),
                client: client.unwrap_or_default(),
            },
        }
    }
}

fn hexadecimal<S: serde::Serializer>(pdu: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&text::Hex(pdu))
}
