//! A policy as one client connection sees one device: decides without allocating.

use fieldlock_modbus::Request;

use crate::decision::{Decision, Reason, Refusal, RuleId};
use crate::function::Slot;
use crate::half::{Half, Halves};
use crate::rate::Rate;
use crate::rule::ValueBounds;
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
    /// Allows with a rate, and their rates in the order of the ids; looked at when no other allows
    /// a request.
    pub(crate) limited: Option<Box<(View, Vec<(RuleId, Rate)>)>>,
    /// Allows outside their time windows, and what is said of them; looked at when nothing else
    /// allows a request.
    pub(crate) resting: Option<Box<(View, Reason)>>,
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
}

impl View {
    /// Decides one request for a unit, as the device knows the unit.
    pub fn decide(&self, unit: u8, request: &Request<'_>) -> Decision {
        let halves = Halves::of(request);
        let class = self.class(unit);
        for half in halves.iter() {
            if let Some(rule) = self.row(class, half.slot).denying(half) {
                return Decision::Refuse(Refusal::new(Reason::Denied, Some(rule)));
            }
        }
        if self.read_only && request.changes_state() {
            return Decision::Refuse(Refusal::new(Reason::ReadOnly, None));
        }
        let decided = self.allowed(unit, class, &halves);
        match &self.resting {
            Some(resting) if !decided.allowed() => {
                let waiting = self.waiting(resting, unit, &halves);
                waiting.map_or(decided, Decision::Refuse)
            }
            _ => decided,
        }
    }

    fn allowed(&self, unit: u8, class: Option<&Class>, halves: &Halves<'_>) -> Decision {
        if let Some(reason) = self.closed {
            return Decision::Refuse(Refusal::new(reason, None));
        }
        if !class.is_some_and(|class| class.any_allow) && !self.any_limited(unit) {
            return Decision::Refuse(Refusal::new(Reason::Unit { unit }, None));
        }
        self.allow(unit, class, halves)
    }

    /// Refuses for the closed window of an allow that is all that is missing.
    #[cold]
    fn waiting(&self, resting: &(View, Reason), unit: u8, halves: &Halves<'_>) -> Option<Refusal> {
        let (view, reason) = resting;
        let mut waits = None;
        for half in halves.iter() {
            let open = self.allowing(unit, self.class(unit), half);
            if open.is_err() {
                let closed = view.row(view.class(unit), half.slot).allowing(half);
                waits = Some(closed.ok()?);
            }
        }
        waits.map(|rule| Refusal::new(*reason, Some(rule)))
    }

    fn allow(&self, unit: u8, class: Option<&Class>, halves: &Halves<'_>) -> Decision {
        let first = self.allowing(unit, class, &halves.first);
        let Some(second) = &halves.second else {
            let allow = |rule| Decision::Allow { rule, read: None };
            return first.map_or_else(Decision::Refuse, allow);
        };
        match (first, self.allowing(unit, class, second)) {
            (Ok(read), Ok(rule)) => Decision::Allow {
                rule,
                read: Some(read),
            },
            (Err(refusal), Ok(_)) | (Ok(_), Err(refusal)) => Decision::Refuse(refusal),
            // Function, then address, then value: the order in which a device would object.
            (Err(read), Err(write)) if write.exception.code() < read.exception.code() => {
                Decision::Refuse(write)
            }
            (Err(read), Err(_)) => Decision::Refuse(read),
        }
    }

    /// The rules with a rate, with their rates, in the order of their ids.
    pub fn rates(&self) -> &[(RuleId, Rate)] {
        self.limited.as_ref().map_or(&[], |limited| &limited.1)
    }

    fn any_limited(&self, unit: u8) -> bool {
        let limited = self.limited.as_ref().map(|limited| &limited.0);
        let class = limited.and_then(|view| view.class(unit));
        class.is_some_and(|class| class.any_allow)
    }

    fn allowing(
        &self,
        unit: u8,
        class: Option<&Class>,
        half: &Half<'_>,
    ) -> Result<RuleId, Refusal> {
        let decided = self.row(class, half.slot).allowing(half);
        match &self.limited {
            Some(limited) => decided.or_else(|refusal| limited.0.instead(unit, half, refusal)),
            None => decided,
        }
    }

    /// Asked as rules with a rate, where those without refuse. The refusal that is closer to being
    /// allowed says more: function, address, value.
    fn instead(&self, unit: u8, half: &Half<'_>, refusal: Refusal) -> Result<RuleId, Refusal> {
        let decided = self.row(self.class(unit), half.slot).allowing(half);
        decided.map_err(
            |own| match refusal.exception.code() < own.exception.code() {
                true => own,
                false => refusal,
            },
        )
    }

    fn class(&self, unit: u8) -> Option<&Class> {
        let class = self.units.get(usize::from(unit))?;
        self.classes.get(usize::from(*class))
    }

    fn row(&self, class: Option<&Class>, slot: Slot) -> &Row {
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
    };

    fn denying(&self, half: &Half<'_>) -> Option<RuleId> {
        if self.denies.is_empty() {
            return None;
        }
        let wanted = half.wanted(&self.denies);
        let writes_a_bounded_value = |entry: &Entry| !entry.bounded() || half.writes_within(entry);
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

/// Which bound the values break; they do break one.
pub(crate) fn out_of_bounds(half: &Half<'_>, allowed: ValueBounds, written: ValueBounds) -> Reason {
    let ValueBounds { min, max } = allowed;
    if half.slot == Slot::MASK_WRITE {
        Reason::MaskWithBounds
    } else if written.max > max {
        let value = written.max;
        Reason::ValueAbove { value, max }
    } else {
        let value = written.min;
        Reason::ValueBelow { value, min }
    }
}
