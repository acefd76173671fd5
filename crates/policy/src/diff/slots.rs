//! What two views of one device decide differently for one unit, function by function.

use std::collections::{BTreeMap, HashMap};

use fieldlock_modbus::Table;

use super::Change;
use super::budget::{Budget, TooLarge};
use super::examples::{Element, Request};
use super::joined::joined;
use super::sweep::{Boxes, Shape, Strip, sweep};
use super::values::{ValueSet, without};
use crate::model::address::{Span, table_index};
use crate::model::function::{Functions, Slot};
use crate::model::interval::{Interval, ValueBounds, merge};
use crate::model::subfunction::SubFunctions;
use crate::view::View;

/// Functions whose requests differ alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    pub(super) change: Change,
    pub(super) joined: bool,
    table: Option<u8>,
    intervals: Vec<Interval>,
    /// Empty: any value.
    values: ValueSet,
    pub(super) functions: Functions,
    pub(super) example: Request,
}

impl Difference {
    pub(super) fn addresses(&self) -> Vec<String> {
        let table = self.functions.iter().find_map(Slot::table);
        let span = |(table, interval): (Table, &Interval)| {
            let Interval { first, last } = *interval;
            Span { table, first, last }.to_string()
        };
        let spans = table.into_iter().flat_map(|table| {
            let intervals = self.intervals.iter();
            intervals.map(move |interval| span((table, interval)))
        });
        spans.collect()
    }

    pub(super) fn values(&self) -> Vec<String> {
        let ranges = self
            .values
            .iter()
            .map(|range| match range.min == range.max {
                true => range.min.to_string(),
                false => format!("{}-{}", range.min, range.max),
            });
        ranges.collect()
    }
}

/// One slot's difference in one direction.
#[derive(Debug, Clone)]
struct Found {
    change: Change,
    joined: bool,
    intervals: Vec<Interval>,
    values: ValueSet,
    first: u16,
    written: Vec<u16>,
}

/// What is known of a slot: its differences, and an element that the old and the new side allow.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotResult {
    found: Vec<Found>,
    allowed: [Option<Element>; 2],
}

/// Results by row of the old view and the new, and by the shape of the requests. A read-only
/// device's rows count as empty for slots that write.
pub(super) type Known = HashMap<(*const u8, *const u8, Shape, [bool; 2]), SlotResult>;

pub(super) fn differences(
    old: &View,
    new: &View,
    unit: u8,
    known: &mut Known,
    budget: &mut Budget,
) -> Result<Vec<Difference>, TooLarge> {
    let mut grouped: BTreeMap<Difference, Functions> = BTreeMap::new();
    let mut add = |slot: Slot, mut difference: Difference| {
        let own = std::mem::take(&mut difference.functions);
        let functions = grouped.entry(difference).or_default();
        match slot.table() {
            Some(_) => functions.insert(slot),
            None => functions.merge(own),
        }
    };
    let mut compare = |slot| compare(old, new, unit, slot, known, budget);
    let reads = compare(Slot::READ_OF_23)?;
    let writes = compare(Slot::WRITE_OF_23)?;
    for (slot, result, other) in [
        (Slot::READ_OF_23, &reads, &writes),
        (Slot::WRITE_OF_23, &writes, &reads),
    ] {
        for found in &result.found {
            // Function 23 crosses with both halves only: without a partner nothing changes.
            let side = usize::from(found.change == Change::Opens);
            if let Some(partner) = other.allowed[side] {
                add(slot, found.difference(slot, Some(partner)));
            }
        }
    }
    for slot in Slot::all().filter(|slot| slot.function().0 != 23) {
        match slot.table() {
            Some(_) => {
                for found in compare(slot)?.found {
                    add(slot, found.difference(slot, None));
                }
            }
            None => opaque(old, new, unit, slot)
                .into_iter()
                .for_each(|d| add(slot, d)),
        }
    }
    let finish = |(difference, functions)| Difference {
        functions,
        ..difference
    };
    Ok(grouped.into_iter().map(finish).collect())
}

fn compare(
    old: &View,
    new: &View,
    unit: u8,
    slot: Slot,
    known: &mut Known,
    budget: &mut Budget,
) -> Result<SlotResult, TooLarge> {
    let shape = Shape::of(slot);
    let rows = [old, new].map(|view| view.row(view.class(unit), slot));
    let closed = [old, new].map(|view| view.read_only && slot.always_changes_state());
    let [old_row, new_row] = rows.map(|row| std::ptr::from_ref(row).cast());
    let key = (old_row, new_row, shape, closed);
    if let Some(result) = known.get(&key) {
        return Ok(result.clone());
    }
    let [old, new] = [0, 1].map(|side| match closed[side] {
        true => Boxes::default(),
        false => Boxes::of(rows[side], shape),
    });
    let result = compare_boxes(&old, &new, shape, budget)?;
    known.insert(key, result.clone());
    Ok(result)
}

fn compare_boxes(
    old: &Boxes,
    new: &Boxes,
    shape: Shape,
    budget: &mut Budget,
) -> Result<SlotResult, TooLarge> {
    let strips = sweep(old, new, budget)?;
    let allowed = [0, 1].map(|side| first_allowed(&strips, side));
    let mut found = Vec::new();
    if old != new {
        for (change, granting, other) in [(Change::Opens, new, old), (Change::Closes, old, new)] {
            found.extend(alone(change, &strips));
            for one in joined(&granting.allows, &other.allows, &strips, shape, budget)? {
                found.push(Found {
                    change,
                    joined: true,
                    intervals: vec![one.within.interval],
                    values: shape.told(vec![one.within.value]),
                    first: one.first,
                    written: one.values,
                });
            }
        }
        for found in found.iter_mut().filter(|found| !found.joined) {
            found.values = shape.told(std::mem::take(&mut found.values));
        }
    }
    Ok(SlotResult { found, allowed })
}

fn first_allowed(strips: &[Strip], side: usize) -> Option<Element> {
    strips.iter().find_map(|strip| {
        let values = [&strip.old, &strip.new][side];
        let value = values.first()?.min;
        Some(Element {
            address: strip.interval.first,
            value,
        })
    })
}

/// Elements that alone are decided differently; addresses with the same values stand together.
fn alone(change: Change, strips: &[Strip]) -> Vec<Found> {
    let mut by_values: BTreeMap<ValueSet, Vec<Interval>> = BTreeMap::new();
    for strip in strips {
        let values = match change {
            Change::Opens => without(&strip.new, &strip.old),
            Change::Closes => without(&strip.old, &strip.new),
        };
        if !values.is_empty() {
            by_values.entry(values).or_default().push(strip.interval);
        }
    }
    by_values
        .into_iter()
        .filter_map(|(values, intervals)| {
            let intervals = merge(intervals);
            Some(Found {
                change,
                joined: false,
                first: intervals.first()?.first,
                written: vec![values.first()?.min],
                intervals,
                values,
            })
        })
        .collect()
}

impl Shape {
    /// Values as they are told: none where any value will do.
    fn told(self, values: ValueSet) -> ValueSet {
        let whole = ValueBounds {
            min: 0,
            max: self.largest,
        };
        match values == [whole] {
            true => ValueSet::new(),
            false => values,
        }
    }
}

impl Found {
    /// With `partner` as the other half of function 23.
    fn difference(&self, slot: Slot, partner: Option<Element>) -> Difference {
        Difference {
            change: self.change,
            joined: self.joined,
            table: slot.table().map(|table| table_index(table) as u8),
            intervals: self.intervals.clone(),
            values: self.values.clone(),
            functions: Functions::default(),
            example: Request::new(slot, self.first, self.written.clone(), partner),
        }
    }
}

/// A function without addresses crosses or does not; of functions 8 and 43 each part by itself.
fn opaque(old: &View, new: &View, unit: u8, slot: Slot) -> Vec<Difference> {
    let kinds: Vec<u16> = match slot.has_sub_functions() {
        true => SubFunctions::kinds().collect(),
        false => vec![0],
    };
    let mut differ: [Vec<Interval>; 2] = Default::default();
    for kind in kinds {
        let like = match slot.has_sub_functions() {
            true => SubFunctions::like(kind),
            false => Interval::FULL,
        };
        match [old, new].map(|view| passes(view, unit, slot, kind)) {
            [false, true] => differ[0].push(like),
            [true, false] => differ[1].push(like),
            _ => {}
        }
    }
    let difference = |(change, bodies): (Change, Vec<Interval>)| {
        let first = bodies.first()?.first;
        let mut functions = Functions::default();
        functions.insert_bodies(slot, &bodies);
        Some(Difference {
            change,
            joined: false,
            table: None,
            intervals: merge(bodies),
            values: ValueSet::new(),
            functions,
            example: Request::opaque(slot, first),
        })
    };
    let [opens, closes] = differ;
    [(Change::Opens, opens), (Change::Closes, closes)]
        .into_iter()
        .filter_map(difference)
        .collect()
}

/// Whether the example of a function without addresses crosses.
fn passes(view: &View, unit: u8, slot: Slot, body: u16) -> bool {
    let pdu = Request::opaque(slot, body).pdu();
    let request = fieldlock_modbus::Request::parse(&pdu);
    // What is no request at all crosses nowhere.
    request.is_ok_and(|request| view.decide(unit, &request).allowed())
}
