//! A rule, checked and resolved: what the source becomes and what views are built from.

use std::borrow::Cow;
use std::fmt;

use fieldlock_modbus::Table;

use crate::model::address::{Span, TABLES, table_index};
use crate::model::decision::RuleId;
use crate::model::function::{Functions, Slot};
use crate::model::interval::{Interval, ValueBounds, merge};
use crate::model::rate::Rate;
use crate::model::scope::{Effect, Scope, Units, Via};
use crate::model::step::Step;
use crate::model::typed::Typed;
use crate::model::window::Window;

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

    pub(crate) fn applies_to_clients(&self, clients: &[u32]) -> bool {
        match &self.clients {
            Scope::Any => true,
            Scope::Only(listed) => listed.iter().any(|client| clients.contains(client)),
        }
    }

    pub(crate) fn applies_via(&self, via: Via<'_>) -> bool {
        via.meets(&self.via, self.effect)
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
