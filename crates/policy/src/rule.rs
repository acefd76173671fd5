//! A rule, checked and resolved: what the source becomes and what views are built from.

use std::borrow::Cow;
use std::fmt;

use fieldlock_modbus::Table;

use crate::address::{Span, TABLES, table_index};
use crate::decision::RuleId;
use crate::function::{Functions, Slot};
use crate::rate::Rate;
use crate::step::Step;
use crate::typed::Typed;
use crate::window::Window;

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) id: RuleId,
    pub(crate) name: String,
    pub(crate) effect: Effect,
    /// Why a deny denies, for people.
    pub(crate) reason: Option<String>,
    /// Places in the policy's clients.
    pub(crate) clients: Scope<u32>,
    pub(crate) via: Scope<String>,
    pub(crate) devices: Scope<String>,
    pub(crate) units: Units,
    pub(crate) functions: Functions,
    pub(crate) addresses: Addresses,
    /// Without a type.
    pub(crate) value: Option<ValueBounds>,
    /// What a rule with a type takes of what is written to registers.
    pub(crate) typed: Option<Typed>,
    /// How often an allow lets a request through; `None`: always.
    pub(crate) rate: Option<Rate>,
    /// How far a register that an allow lets a request write may be moved; `None`: anywhere.
    pub(crate) step: Option<Step>,
    /// Whether a write that an allow lets through may go again before the outcome of the first is known.
    pub(crate) repeat: Repeat,
    /// It applies while one of them is open; empty: always.
    pub(crate) time: Vec<Window>,
}

/// Whether a client may send the same write again while the outcome of the first is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repeat {
    #[default]
    Refuse,
    Allow,
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

impl Rule {
    pub(crate) fn is_allow(&self) -> bool {
        self.effect == Effect::Allow
    }

    /// Whether the rule applies at this time, seconds since 1970-01-01 UTC.
    pub(crate) fn is_open(&self, now: i64) -> bool {
        self.time.is_empty() || self.time.iter().any(|window| window.is_open(now))
    }

    /// The step where it bounds what a request of this slot writes.
    pub(crate) fn step_at(&self, slot: Slot) -> Option<&Step> {
        self.step.as_ref().filter(|_| slot.writes_registers())
    }

    /// The type by which it judges what a request of this slot writes.
    pub(crate) fn typed_at(&self, slot: Slot) -> Option<&Typed> {
        self.typed.as_ref().filter(|_| slot.writes_registers())
    }

    /// A broadcast reaches every unit, so a deny of any unit applies to it; an allow must name it.
    pub(crate) fn applies_to_unit(&self, unit: u8) -> bool {
        match self.effect {
            Effect::Allow => self.units.contains(unit),
            Effect::Deny => unit == 0 || self.units.contains(unit),
        }
    }

    /// What the rule lists of a slot: addresses, or sub-functions, or all where it has neither.
    pub(crate) fn intervals(&self, slot: Slot) -> Cow<'_, [Interval]> {
        match slot.table() {
            Some(table) => Cow::Borrowed(self.addresses.of(table)),
            None => Cow::Owned(self.functions.bodies(slot)),
        }
    }

    /// The values that the rule speaks of when it judges a request of this slot; `None` where it
    /// does not speak of the slot at all. All, where it judges them by a type: [`Rule::typed_at`].
    pub(crate) fn bounds_at(&self, slot: Slot) -> Option<ValueBounds> {
        if !self.functions.contains(slot) {
            return None;
        }
        if self.effect == Effect::Deny && self.typed.is_some() && !slot.writes_registers() {
            return None;
        }
        let Some(value) = self.value else {
            return Some(ValueBounds::FULL);
        };
        match self.effect {
            Effect::Allow if !slot.writes() => Some(ValueBounds::FULL),
            Effect::Allow if slot == Slot::MASK_WRITE && self.functions.names(slot) => {
                Some(ValueBounds::FULL)
            }
            Effect::Allow => Some(value),
            Effect::Deny if !slot.writes() => None,
            Effect::Deny if slot == Slot::MASK_WRITE => Some(ValueBounds::FULL),
            Effect::Deny => Some(value),
        }
    }
}

/// A key that may be left out, or say `"any"`, or list what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope<T> {
    Any,
    Only(Vec<T>),
}

impl<T> Scope<T> {
    pub(crate) fn listed(&self) -> &[T] {
        match self {
            Self::Any => &[],
            Self::Only(list) => list,
        }
    }
}

impl Scope<String> {
    pub(crate) fn admits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.iter().any(|listed| listed == name),
        }
    }
}

/// A set of unit identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Units([u64; 4]);

impl Units {
    /// Units 1 to 255: what `"any"` and an absent key mean.
    pub(crate) const ANY: Self = Self([!1, u64::MAX, u64::MAX, u64::MAX]);
    pub(crate) const NONE: Self = Self([0; 4]);

    pub(crate) fn insert(&mut self, unit: u8) {
        self.0[usize::from(unit / 64)] |= 1 << (unit % 64);
    }

    pub(crate) fn contains(&self, unit: u8) -> bool {
        self.0[usize::from(unit / 64)] & (1 << (unit % 64)) != 0
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(own, other)| *own |= other);
    }

    /// The lowest; 0 if there is none.
    pub(crate) fn first(&self) -> u8 {
        (0..=255).find(|unit| self.contains(*unit)).unwrap_or(0)
    }

    pub(crate) fn is_superset(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .all(|(own, other)| other & !own == 0)
    }
}

impl fmt::Display for Units {
    /// `any`, or ascending with runs as ranges: `1, 5-9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str("any");
        }
        let units: Vec<u8> = (0..=255).filter(|unit| self.contains(*unit)).collect();
        let parts: Vec<String> = units
            .chunk_by(|a, b| a.checked_add(1) == Some(*b))
            .map(|run| match run {
                [first, .., last] => format!("{first}-{last}"),
                _ => run.iter().map(u8::to_string).collect(),
            })
            .collect();
        f.write_str(&parts.join(", "))
    }
}

/// First and last address, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Interval {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Interval {
    pub(crate) const FULL: Self = Self {
        first: 0,
        last: u16::MAX,
    };
}

/// Per table: sorted intervals that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Addresses([Vec<Interval>; 4]);

impl Addresses {
    pub(crate) fn any() -> Self {
        Self([const { Interval::FULL }; 4].map(|full| vec![full]))
    }

    pub(crate) fn from_spans(spans: impl IntoIterator<Item = Span>) -> Self {
        let mut tables: [Vec<Interval>; 4] = Default::default();
        for Span { table, first, last } in spans {
            tables[table_index(table)].push(Interval { first, last });
        }
        Self(tables.map(merge))
    }

    pub(crate) fn of(&self, table: Table) -> &[Interval] {
        &self.0[table_index(table)]
    }

    pub(crate) fn is_any(&self) -> bool {
        self.0.iter().all(|table| table == &[Interval::FULL])
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        TABLES.into_iter().flat_map(|table| {
            self.of(table).iter().map(move |interval| Span {
                table,
                first: interval.first,
                last: interval.last,
            })
        })
    }
}

/// Sorted, and joined where they overlap or touch, so that a request across two listed ranges of
/// one rule is covered.
pub(crate) fn merge(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for interval in intervals {
        match merged.last_mut() {
            Some(previous) if interval.first <= previous.last.saturating_add(1) => {
                previous.last = previous.last.max(interval.last);
            }
            _ => merged.push(interval),
        }
    }
    merged
}

/// Smallest and largest value, inclusive; coils count as 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub(crate) struct ValueBounds {
    pub(crate) min: u16,
    pub(crate) max: u16,
}

impl ValueBounds {
    pub(crate) const FULL: Self = Self {
        min: 0,
        max: u16::MAX,
    };

    pub(crate) fn contains(&self, value: u16) -> bool {
        (self.min..=self.max).contains(&value)
    }
}

/// Which devices take no request that may change their state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ReadOnly {
    #[default]
    None,
    All,
    Devices(Vec<String>),
}

impl ReadOnly {
    pub(crate) fn contains(&self, device: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Devices(devices) => devices.iter().any(|listed| listed == device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_become_one() {
        let parts = [(10, 19), (0, 9), (30, 40), (35, 36), (65_535, 65_535)]
            .map(|(first, last)| Interval { first, last });
        let expected =
            [(0, 19), (30, 40), (65_535, 65_535)].map(|(first, last)| Interval { first, last });
        assert_eq!(merge(parts.to_vec()), expected);
    }

    #[test]
    fn any_unit_is_not_broadcast() {
        assert!(!Units::ANY.contains(0));
        assert!((1..=255).all(|unit| Units::ANY.contains(unit)));
        let mut some = Units::NONE;
        for unit in [0, 3, 4, 5, 255] {
            some.insert(unit);
        }
        assert_eq!(some.to_string(), "0, 3-5, 255");
    }
}
