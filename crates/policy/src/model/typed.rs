//! Rules that see registers as numbers: where each value lies, and what of a request they take.

use std::sync::Arc;

use fieldlock_modbus::{Range, Table, Values, Write};

use crate::model::decision::Reason;
use crate::model::function::Slot;
use crate::model::interval::Interval;
use crate::model::number::{Bounds, Format, Number};

/// Where the values of a rule lie in the holding registers.
///
/// Each range of the rule begins with the first register of a value and ends with the last of one;
/// in a rule without a type each register is a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    format: Format,
    /// Ascending, neither overlapping nor touching; empty where each register is a value.
    ranges: Arc<[Interval]>,
}

/// A value of which a request writes at least one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub first: u16,
    pub last: u16,
    /// What the request makes of it; `None` where it writes a part of it, or masks it.
    pub number: Option<Number>,
}

impl Layout {
    /// Of a rule without a type.
    pub(crate) fn registers() -> Self {
        Self {
            format: Format::REGISTER,
            ranges: [].into(),
        }
    }

    /// The length of each of the ranges is a multiple of the format's registers.
    pub(crate) fn new(format: Format, ranges: &[Interval]) -> Self {
        let ranges = ranges.into();
        Self { format, ranges }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// First and last register of each value that the addresses touch, ascending. What lies outside
    /// of the ranges belongs to no value.
    pub fn values(&self, first: u16, last: u16) -> impl Iterator<Item = (u16, u16)> + '_ {
        let begin = self.ranges.partition_point(|range| range.last < first);
        let ranges = self.ranges[begin..].iter().copied();
        let ranges = ranges.take_while(move |range| range.first <= last);
        let alone = self.ranges.is_empty().then_some(Interval { first, last });
        let size = self.format.registers();
        alone.into_iter().chain(ranges).flat_map(move |range| {
            let skipped = first.saturating_sub(range.first) / size;
            let starts = (range.first + skipped * size..=last.min(range.last)).step_by(size.into());
            starts.map(move |start| (start, start + (size - 1)))
        })
    }

    /// The values that a write touches; none of one that is not of holding registers.
    pub fn written<'w>(&'w self, write: &Write<'w>) -> impl Iterator<Item = Placed> + use<'w> {
        let Write { range, values } = *write;
        let of_registers = range.table == Table::HoldingRegister;
        let places = of_registers.then(|| self.values(range.start, range.last()));
        places
            .into_iter()
            .flatten()
            .map(move |(first, last)| Placed {
                first,
                last,
                number: read(self.format, range, values, first),
            })
    }
}

/// The value at `first`, if the whole of it is written.
pub(crate) fn read(format: Format, range: Range, values: Values<'_>, first: u16) -> Option<Number> {
    let offset = first.checked_sub(range.start)?;
    format.read(|place| values.get(usize::from(offset) + usize::from(place)))
}

/// What a rule with a type takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) layout: Layout,
    /// Without NaN and infinities.
    pub(crate) bounds: Bounds,
    /// Of an allow: writes of a part of a value are allowed too, whatever the part.
    pub(crate) partial: bool,
    /// Of an allow: function 22 is allowed, whatever it makes of the register.
    pub(crate) masks: bool,
}

impl Typed {
    /// Whether there are bounds narrower than the type.
    pub(crate) fn is_bounded(&self) -> bool {
        self.bounds != self.layout.format.number.all()
    }

    /// Least and greatest number, as a person writes them: a zero without its sign.
    pub(crate) fn ends(&self) -> (Number, Number) {
        let number = self.layout.format.number;
        let end = |rank| {
            let end = Number::of_rank(number, rank);
            match end.value() == 0.0 {
                true => Number::of_rank(number, 0),
                false => end,
            }
        };
        (end(self.bounds.min), end(self.bounds.max))
    }

    /// Whether an allow takes some request of a slot that writes registers.
    pub(crate) fn takes(&self, slot: Slot) -> bool {
        let parts = self.partial || self.layout.format.registers() == 1;
        match slot {
            Slot::MASK_WRITE => parts && (self.masks || !self.is_bounded()),
            Slot::WRITE_SINGLE => parts,
            _ => true,
        }
    }

    /// The values, in words: `float32 from 0.0 to 120.5`.
    pub(crate) fn words(&self) -> String {
        let format = self.layout.format;
        let mut words = format.to_string();
        if self.is_bounded() {
            let (min, max) = self.ends();
            words += &format!(" from {min} to {max}");
        }
        if self.partial {
            words += ", and parts of values";
        }
        words
    }

    /// Why an allow does not take the write, which lies in its addresses; `None`: it does.
    pub(crate) fn objects(&self, write: &Write<'_>) -> Option<Reason> {
        if matches!(write.values, Values::Mask { .. }) && !self.masks && self.is_bounded() {
            return Some(Reason::MaskWithBounds);
        }
        let mut written = self.layout.written(write);
        written.find_map(|placed| self.objects_to(placed))
    }

    fn objects_to(&self, placed: Placed) -> Option<Reason> {
        let number = self.layout.format.number;
        let Placed { first, last, .. } = placed;
        let Some(value) = placed.number else {
            // Where a value has one register, what is not whole is masked.
            let part = Reason::PartOfValue {
                first,
                last,
                number,
            };
            return (!self.partial && first != last).then_some(part);
        };
        let of = |rank| Number::of_rank(number, rank);
        if !value.is_finite() {
            Some(Reason::NotFinite { value })
        } else if value.rank > self.bounds.max {
            let max = of(self.bounds.max);
            Some(Reason::ValueAbove { value, max })
        } else if value.rank < self.bounds.min {
            let min = of(self.bounds.min);
            Some(Reason::ValueBelow { value, min })
        } else {
            None
        }
    }

    /// Whether a deny matches a write: of a value within its bounds, or of what can't be told.
    pub(crate) fn matches(&self, write: &Write<'_>) -> bool {
        let within = |number: Number| !number.is_finite() || self.bounds.contains(number);
        let mut written = self.layout.written(write);
        written.any(|placed| placed.number.is_none_or(within))
    }
}
