//! A policy as one client connection sees one device: decides without allocating.

use std::sync::Arc;

use fieldlock_modbus::Request;

use crate::conditional::Conditional;
use crate::half::{Half, Halves};
use crate::model::decision::{Decision, Reason, Refusal, RuleId};
use crate::model::function::Slot;
use crate::model::interval::ValueBounds;
use crate::model::rate::Rate;
use crate::model::rule::Repeat;
use crate::model::step::Step;
use crate::model::typed::{Layout, Typed};
use crate::table::{Entry, IntervalTable};

/// What one origin may do to one device.
///
/// Units with the same rules share a class; a class has a row for each [`Slot`]; equal rows are
/// kept once. Memory: 16 bytes per rule, range and distinct row, plus 256 bytes per class.
#[derive(Debug)]
pub struct View {
    /// Unit to class.
    pub(crate) units: Box<[u8; 256]>,
    pub(crate) classes: Vec<Class>,
    pub(crate) rows: Vec<Row>,
    pub(crate) read_only: bool,
    /// Why nothing at all is allowed, if so.
    pub(crate) closed: Option<Reason>,
    /// Allows that count only under conditions, if there are any.
    pub(crate) conditional: Option<Box<Conditional>>,
    /// The allows with `repeat = "allow"`, if there are any.
    pub(crate) repeatable: Option<Box<Self>>,
    /// What the rules with a type take, in the order of their ids.
    pub(crate) typed: Vec<(RuleId, Typed)>,
    /// What the policy that narrows this one says of the same origin and device.
    pub(crate) narrowing: Option<Arc<Self>>,
}

#[derive(Debug)]
pub(crate) struct Class {
    /// Slot to row.
    pub(crate) rows: [u16; Slot::COUNT],
    pub(crate) any_allow: bool,
}

/// The rules for one slot.
#[derive(Debug)]
pub(crate) struct Row {
    /// Whether an allow has this slot at all, be it without any address of its table.
    pub(crate) permitted: bool,
    pub(crate) allows: IntervalTable,
    pub(crate) denies: IntervalTable,
    /// Of rules with a type, where they judge what is written.
    pub(crate) typed: Option<Box<TypedRow>>,
}

/// The addresses of rules with a type: what they take there is known to the view.
#[derive(Debug)]
pub(crate) struct TypedRow {
    pub(crate) allows: IntervalTable,
    pub(crate) denies: IntervalTable,
}

impl View {
    /// Decides one request for a unit, as the device knows the unit. Where the policy is narrowed,
    /// both have to allow it; the refusal is that of the first who does not.
    pub fn decide(&self, unit: u8, request: &Request<'_>) -> Decision {
        let own = self.decide_alone(unit, request);
        let Some(narrowing) = &self.narrowing else {
            return own;
        };
        match (own, narrowing.decide_alone(unit, request)) {
            (
                Decision::Allow { rule, read, .. },
                Decision::Allow {
                    rule: narrow_rule,
                    read: narrow_read,
                    ..
                },
            ) => Decision::Allow {
                rule,
                read,
                narrowing: Some((narrow_rule, narrow_read)),
            },
            (refused @ Decision::Refuse(_), _) | (Decision::Allow { .. }, refused) => refused,
        }
    }

    /// The rate of a rule that has one.
    pub fn rate(&self, rule: RuleId) -> Option<Rate> {
        let own = self.conditional.as_ref().and_then(|c| c.rate(rule));
        own.or_else(|| self.narrowing.as_ref()?.rate(rule))
    }

    /// The step of a rule that has one; none at a headend, which does not see all that reaches a
    /// device.
    pub fn step(&self, rule: RuleId) -> Option<&Step> {
        let own = self.conditional.as_ref().and_then(|c| c.step(rule));
        own.or_else(|| self.narrowing.as_ref()?.step(rule))
    }

    /// Whether a write that is allowed may be sent again by the same client while the outcome of
    /// the first is not known: if an allow that says so covers what it writes, and one of the
    /// policy that narrows this one too. To be asked only then; it looks at the rules anew.
    pub fn repeat(&self, unit: u8, request: &Request<'_>) -> Repeat {
        let halves = Halves::of(request);
        let written = halves.second.as_ref().unwrap_or(&halves.first);
        let covers = |allows: &Self| allows.asked(unit, written).is_ok();
        match self.repeatable.as_deref().is_some_and(covers) {
            true => match &self.narrowing {
                Some(narrowing) => narrowing.repeat(unit, request),
                None => Repeat::Allow,
            },
            false => Repeat::Refuse,
        }
    }

    fn decide_alone(&self, unit: u8, request: &Request<'_>) -> Decision {
        let halves = Halves::of(request);
        let class = self.class(unit);
        for half in halves.iter() {
            let row = self.row(class, half.slot);
            if let Some(rule) = row.denying(half).or_else(|| self.denying_typed(row, half)) {
                return Decision::Refuse(Refusal::new(Reason::Denied, Some(rule)));
            }
        }
        if self.read_only && request.changes_state() {
            return Decision::Refuse(Refusal::new(Reason::ReadOnly, None));
        }
        if let Some(conditional) = &self.conditional {
            return self.decide_with(conditional, unit, &halves);
        }
        if let Some(reason) = self.closed {
            return Decision::Refuse(Refusal::new(reason, None));
        }
        if !class.is_some_and(|class| class.any_allow) {
            return Decision::Refuse(Refusal::new(Reason::Unit { unit }, None));
        }
        let allowing = |half: &Half<'_>| self.allowing(self.row(class, half.slot), half);
        join(
            allowing(&halves.first),
            halves.second.as_ref().map(allowing),
        )
    }

    fn denying_typed(&self, row: &Row, half: &Half<'_>) -> Option<RuleId> {
        let denies = &row.typed.as_ref()?.denies;
        let write = half.write()?;
        let matches = |_: &Entry, rule| self.typed(rule).is_some_and(|typed| typed.matches(&write));
        let (_, rule) = denies.meeting(&half.wanted(denies), matches)?;
        Some(rule)
    }

    /// By which allow of the row the half crosses, or why by none.
    pub(crate) fn allowing(&self, row: &Row, half: &Half<'_>) -> Result<RuleId, Refusal> {
        let plain = row.allowing(half);
        let (Err(refusal), Some(typed)) = (plain, &row.typed) else {
            return plain;
        };
        let Some(write) = half.write() else {
            return plain;
        };
        let objects = |rule| self.typed(rule)?.objects(&write);
        let (wanted, allows) = (half.interval, &typed.allows);
        let takes = |rule| self.typed(rule).is_some() && objects(rule).is_none();
        if let Some((_, rule)) = allows.covering_where(wanted, takes) {
            return Ok(rule);
        }
        let closest = allows.covering_addresses(wanted);
        Err(
            match closest.and_then(|(_, rule)| Some((objects(rule)?, rule))) {
                Some((reason, rule)) => Refusal::new(reason, Some(rule)),
                None => refusal,
            },
        )
    }

    fn typed(&self, rule: RuleId) -> Option<&Typed> {
        let found = self.typed.binary_search_by_key(&rule, |(rule, _)| *rule);
        found.ok().map(|place| &self.typed[place].1)
    }

    /// Where the values of a rule with a type lie.
    pub fn layout(&self, rule: RuleId) -> Option<&Layout> {
        let conditional = self.conditional.as_deref();
        let views = conditional.map(|conditional| [&conditional.limited, &conditional.resting]);
        let views = views.into_iter().flatten().chain(self.narrowing.as_deref());
        let own = self.typed(rule).map(|typed| &typed.layout);
        own.or_else(|| views.into_iter().find_map(|view| view.layout(rule)))
    }

    pub(crate) fn class(&self, unit: u8) -> Option<&Class> {
        let class = self.units.get(usize::from(unit))?;
        self.classes.get(usize::from(*class))
    }

    pub(crate) fn row(&self, class: Option<&Class>, slot: Slot) -> &Row {
        static EMPTY: Row = Row::EMPTY;
        class
            .and_then(|class| class.rows.get(slot.index()))
            .and_then(|row| self.rows.get(usize::from(*row)))
            .unwrap_or(&EMPTY)
    }
}

impl Row {
    const EMPTY: Self = Self {
        permitted: false,
        allows: IntervalTable::EMPTY,
        denies: IntervalTable::EMPTY,
        typed: None,
    };

    fn denying(&self, half: &Half<'_>) -> Option<RuleId> {
        if self.denies.is_empty() {
            return None;
        }
        let wanted = half.wanted(&self.denies);
        let writes_a_bounded_value =
            |entry: &Entry, _| !entry.bounded() || half.writes_within(entry);
        self.denies
            .meeting(&wanted, writes_a_bounded_value)
            .map(|(_, rule)| rule)
    }

    fn allowing(&self, half: &Half<'_>) -> Result<RuleId, Refusal> {
        if !self.permitted {
            let function = half.slot.function().0;
            return Err(Refusal::new(Reason::Function { function }, None));
        }
        let wanted = half.wanted(&self.allows);
        match self.allows.covering(&wanted) {
            Some((_, rule)) => Ok(rule),
            None => Err(self.why_not(half, &wanted)),
        }
    }

    #[cold]
    fn why_not(&self, half: &Half<'_>, wanted: &Entry) -> Refusal {
        match self.allows.covering_addresses(wanted.interval) {
            Some((entry, rule)) => {
                Refusal::new(out_of_bounds(half, entry.value, wanted.value), Some(rule))
            }
            None => Refusal::new(half.outside(), None),
        }
    }
}

/// The decision from those of the halves.
pub(crate) fn join(
    first: Result<RuleId, Refusal>,
    second: Option<Result<RuleId, Refusal>>,
) -> Decision {
    match (first, second) {
        (Ok(rule), None) => Decision::Allow {
            rule,
            read: None,
            narrowing: None,
        },
        (Ok(read), Some(Ok(rule))) => Decision::Allow {
            rule,
            read: Some(read),
            narrowing: None,
        },
        (Err(refusal), None | Some(Ok(_))) | (Ok(_), Some(Err(refusal))) => {
            Decision::Refuse(refusal)
        }
        // Function, then address, then value: the order in which a device would object.
        (Err(read), Some(Err(write))) if write.exception.code() < read.exception.code() => {
            Decision::Refuse(write)
        }
        (Err(read), Some(Err(_))) => Decision::Refuse(read),
    }
}

/// Which bound the values break; they do break one.
pub(crate) fn out_of_bounds(half: &Half<'_>, allowed: ValueBounds, written: ValueBounds) -> Reason {
    let ValueBounds { min, max } = allowed;
    if half.slot == Slot::MASK_WRITE {
        Reason::MaskWithBounds
    } else if written.max > max {
        Reason::ValueAbove {
            value: written.max.into(),
            max: max.into(),
        }
    } else {
        Reason::ValueBelow {
            value: written.min.into(),
            min: min.into(),
        }
    }
}
