//! From requests of one client to one unit of a device to the rules that allow them.

use std::collections::{BTreeMap, BTreeSet};

use super::ranges::{Range, hull, join_reads, join_writes};
use super::{Observation, Options, Times};
use crate::model::address::table_index;
use crate::model::interval::ValueBounds;
use crate::model::subfunction::SubFunctions;

/// A rule without who, where and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleBody {
    pub(super) kind: Kind,
    pub(super) functions: BTreeSet<u8>,
    /// Parts of functions that are not allowed whole.
    pub(super) parts: BTreeSet<(u8, u16)>,
    /// Ascending.
    pub(super) addresses: Vec<AddressRange>,
    pub(super) value: Option<ValueBounds>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Read,
    Write,
    ReadWrite,
    /// Without addresses.
    Other,
}

/// A [`Span`] that can be sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AddressRange {
    pub(super) table: usize,
    pub(super) first: u16,
    pub(super) last: u16,
}

/// The rules for one client, device and unit. Requests that no rule can express tell `leave_out`.
pub(super) fn bodies(
    seen: &BTreeMap<Observation, Times>,
    options: &Options,
    mut leave_out: impl FnMut(&Observation, &Times),
) -> Vec<(RuleBody, Times)> {
    let mut reads: BTreeMap<u8, Vec<Range>> = BTreeMap::new();
    let mut writes: BTreeMap<u8, Vec<Range>> = BTreeMap::new();
    let mut read_writes: BTreeMap<bool, Vec<Range>> = BTreeMap::new();
    let mut others: BTreeMap<(u8, Option<u16>), Times> = BTreeMap::new();
    for (what, times) in seen {
        match (what.read, what.write) {
            (None, None) => {
                let part = what.part.filter(|part| SubFunctions::has_number(*part));
                others.entry((what.function, part)).or_default().add(times);
            }
            (Some(read), None) => {
                let range = Range::new(read, ValueBounds::FULL, *times);
                reads.entry(what.function).or_default().push(range);
            }
            (None, Some(write)) => {
                let range = Range::new(write, bounds(what, options), *times);
                writes.entry(what.function).or_default().push(range);
            }
            (Some(read), Some(write)) if read == write || options.joined_halves => {
                let ranges = read_writes.entry(read == write).or_default();
                ranges.push(Range::new(write, bounds(what, options), *times));
                if read != write {
                    ranges.push(Range::new(read, bounds(what, options), Times::default()));
                }
            }
            (Some(_), Some(_)) => leave_out(what, times),
        }
    }
    let mut bodies = Vec::new();
    bodies.extend(read_rule(reads, options.gap));
    bodies.extend(write_rules(writes));
    for (same, ranges) in read_writes {
        bodies.extend(read_write_rules(same, ranges));
    }
    if !others.is_empty() {
        let mut times = Times::default();
        others.values().for_each(|one| times.add(one));
        let functions: BTreeSet<u8> = others
            .keys()
            .filter(|(_, part)| part.is_none())
            .map(|(function, _)| *function)
            .collect();
        let parts = others
            .keys()
            .filter_map(|(function, part)| Some((*function, (*part)?)));
        let body = RuleBody {
            kind: Kind::Other,
            parts: parts
                .filter(|(function, _)| !functions.contains(function))
                .collect(),
            functions,
            addresses: Vec::new(),
            value: None,
        };
        bodies.push((body, times));
    }
    bodies
}

fn bounds(what: &Observation, options: &Options) -> ValueBounds {
    match what.values {
        // The result of a mask write is not known, so bounds would refuse it.
        Some((min, max)) if options.bound_values && what.function != 22 => ValueBounds { min, max },
        _ => ValueBounds::FULL,
    }
}

/// One rule for all reads: functions 1 to 4 have a table each, so that the addresses of one do
/// not open anything to another.
fn read_rule(reads: BTreeMap<u8, Vec<Range>>, gap: u16) -> Option<(RuleBody, Times)> {
    let functions: BTreeSet<u8> = reads.keys().copied().collect();
    let mut times = Times::default();
    let mut addresses = Vec::new();
    for ranges in reads.into_values() {
        for range in join_reads(ranges, gap) {
            times.add(&range.times);
            addresses.push(range.addresses);
        }
    }
    addresses.sort_unstable();
    (!functions.is_empty()).then_some((
        RuleBody {
            kind: Kind::Read,
            functions,
            parts: BTreeSet::new(),
            addresses,
            value: None,
        },
        times,
    ))
}

/// Table, functions and bounds.
type WriteKey = (usize, BTreeSet<u8>, ValueBounds);

/// Functions that write the same ranges with the same bounds share a rule.
fn write_rules(writes: BTreeMap<u8, Vec<Range>>) -> Vec<(RuleBody, Times)> {
    let mut by_range: BTreeMap<(AddressRange, ValueBounds), (BTreeSet<u8>, Times)> =
        BTreeMap::new();
    for (function, ranges) in writes {
        for range in join_writes(ranges) {
            let (functions, times) = by_range.entry((range.addresses, range.value)).or_default();
            functions.insert(function);
            times.add(&range.times);
        }
    }
    let mut rules: BTreeMap<WriteKey, (Vec<AddressRange>, Times)> = BTreeMap::new();
    for ((addresses, value), (functions, times)) in by_range {
        let (all, total) = rules
            .entry((addresses.table, functions, value))
            .or_default();
        all.push(addresses);
        total.add(&times);
    }
    let mut bodies = Vec::new();
    for ((_, functions, value), (addresses, times)) in rules {
        let body = RuleBody {
            kind: Kind::Write,
            functions,
            parts: BTreeSet::new(),
            value: Some(value).filter(|value| !is_any(*value, &addresses)),
            addresses,
        };
        bodies.push((body, times));
    }
    bodies
}

/// One rule for each range whose halves were the same, since a rule's addresses hold for both; one
/// for all that were not.
fn read_write_rules(same: bool, ranges: Vec<Range>) -> Vec<(RuleBody, Times)> {
    let rule = |ranges: Vec<Range>| {
        let mut times = Times::default();
        ranges.iter().for_each(|range| times.add(&range.times));
        let value = ranges.iter().map(|range| range.value).reduce(hull);
        let value = value.filter(|value| *value != ValueBounds::FULL);
        let addresses = join_reads(ranges, 0);
        let body = RuleBody {
            kind: Kind::ReadWrite,
            functions: BTreeSet::from([23]),
            parts: BTreeSet::new(),
            addresses: addresses.iter().map(|range| range.addresses).collect(),
            value,
        };
        (body, times)
    };
    match same {
        true => join_writes(ranges)
            .into_iter()
            .map(|range| rule(vec![range]))
            .collect(),
        false => vec![rule(ranges)],
    }
}

/// Whether bounds leave out no value of the table.
fn is_any(value: ValueBounds, addresses: &[AddressRange]) -> bool {
    let coils = table_index(fieldlock_modbus::Table::Coil);
    let coil = addresses.iter().any(|range| range.table == coils);
    value == ValueBounds::FULL || (coil && value == ValueBounds { min: 0, max: 1 })
}
