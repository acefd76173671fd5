//! One slot of two views, address by address: which values each lets through on its own.

use super::budget::{Budget, TooLarge};
use super::values::{ValueSet, union, without};
use crate::model::function::Slot;
use crate::model::interval::{Interval, ValueBounds};
use crate::table::{Entry, IntervalTable};
use crate::view::Row;

/// What requests of a slot look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Elements of the longest request.
    pub(super) most: u16,
    /// The largest value of an element; 0 where rules see no value.
    pub(super) largest: u16,
    /// Whether only rules without bounds cover it.
    pub(super) masks: bool,
}

impl Shape {
    pub(super) fn of(slot: Slot) -> Self {
        use fieldlock_modbus::pdu::{
            MAX_READ_BITS, MAX_READ_REGISTERS, MAX_READ_WRITE_REGISTERS, MAX_WRITE_COILS,
            MAX_WRITE_REGISTERS,
        };
        let (most, largest) = match slot {
            Slot::WRITE_OF_23 => (MAX_READ_WRITE_REGISTERS, u16::MAX),
            slot => match slot.function().0 {
                1 | 2 => (MAX_READ_BITS, 0),
                3 | 4 | 23 => (MAX_READ_REGISTERS, 0),
                5 => (1, 1),
                6 => (1, u16::MAX),
                15 => (MAX_WRITE_COILS, 1),
                16 => (MAX_WRITE_REGISTERS, u16::MAX),
                _ => (1, 0),
            },
        };
        let masks = slot == Slot::MASK_WRITE;
        Self {
            most,
            largest,
            masks,
        }
    }

    fn whole(self) -> ValueBounds {
        ValueBounds {
            min: 0,
            max: self.largest,
        }
    }

    /// The entry as far as requests of this shape can meet it.
    fn clip(self, entry: &Entry) -> Option<Entry> {
        let value = match self.largest {
            0 if self.masks && entry.bounded() => return None,
            0 => self.whole(),
            largest if entry.value.min > largest => return None,
            largest => ValueBounds {
                min: entry.value.min,
                max: entry.value.max.min(largest),
            },
        };
        let interval = entry.interval;
        Some(Entry { interval, value })
    }
}

/// The rules of one side for one slot: what one allow covers, what a deny takes away.
#[derive(Debug, Default)]
pub(super) struct Boxes {
    pub(super) allows: Vec<Entry>,
    denies: Vec<Entry>,
}

impl Boxes {
    pub(super) fn of(row: &Row, shape: Shape) -> Self {
        let clipped = |table: &IntervalTable| {
            let mut entries: Vec<Entry> = table
                .entries()
                .iter()
                .filter_map(|entry| shape.clip(entry))
                .collect();
            entries.sort_unstable();
            entries.dedup();
            entries
        };
        Self {
            allows: clipped(&row.allows),
            denies: clipped(&row.denies),
        }
    }
}

impl PartialEq for Boxes {
    fn eq(&self, other: &Self) -> bool {
        self.allows == other.allows && self.denies == other.denies
    }
}

/// Addresses between which nothing changes, and the values that each side lets through at one.
#[derive(Debug)]
pub(super) struct Strip {
    pub(super) interval: Interval,
    pub(super) old: ValueSet,
    pub(super) new: ValueSet,
}

pub(super) fn sweep(old: &Boxes, new: &Boxes, budget: &mut Budget) -> Result<Vec<Strip>, TooLarge> {
    let lists = [&old.allows, &old.denies, &new.allows, &new.denies];
    let mut cuts: Vec<u32> = lists
        .into_iter()
        .flatten()
        .flat_map(|entry| {
            [
                u32::from(entry.interval.first),
                u32::from(entry.interval.last) + 1,
            ]
        })
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut active = lists.map(|list| Active::new(list));
    let mut strips = Vec::new();
    for pair in cuts.windows(2) {
        // A cut is at most 65536, and the last only ends a strip.
        let (first, last) = (pair[0] as u16, (pair[1] - 1) as u16);
        let mut values = [const { ValueSet::new() }; 4];
        for (active, values) in active.iter_mut().zip(&mut values) {
            *values = active.values_at(first);
            budget.spend(values.len() as u64 + 1)?;
        }
        let [old_allows, old_denies, new_allows, new_denies] = values.map(union);
        strips.push(Strip {
            interval: Interval { first, last },
            old: without(&old_allows, &old_denies),
            new: without(&new_allows, &new_denies),
        });
    }
    Ok(strips)
}

/// The entries of a sorted list at an address that only rises.
struct Active<'e> {
    coming: std::slice::Iter<'e, Entry>,
    here: Vec<&'e Entry>,
}

impl<'e> Active<'e> {
    fn new(entries: &'e [Entry]) -> Self {
        Self {
            coming: entries.iter(),
            here: Vec::new(),
        }
    }

    fn values_at(&mut self, address: u16) -> ValueSet {
        self.here.retain(|entry| entry.interval.last >= address);
        while let Some(next) = self.coming.as_slice().first() {
            if next.interval.first > address {
                break;
            }
            self.coming.next();
            self.here.push(next);
        }
        self.here.iter().map(|entry| entry.value).collect()
    }
}
