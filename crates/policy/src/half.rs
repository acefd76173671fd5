//! A request as the questions that a rule answers: one, or two for function 23.

use fieldlock_modbus::{Range, Request, Values, Write};

use crate::model::decision::Reason;
use crate::model::function::Slot;
use crate::model::interval::{Interval, ValueBounds};
use crate::table::{Entry, IntervalTable};

/// A request, as one question or, for function 23, as two.
pub(crate) struct Halves<'a> {
    pub(crate) first: Half<'a>,
    pub(crate) second: Option<Half<'a>>,
}

impl<'a> Halves<'a> {
    pub(crate) fn of(request: &Request<'a>) -> Self {
        let slot = Slot::of(request.function());
        let read = request.read().map(|range| Half {
            slot,
            interval: interval(range),
            values: None,
        });
        let write = request.write().map(|write| Half {
            slot: match read {
                Some(_) => Slot::WRITE_OF_23,
                None => slot,
            },
            interval: interval(write.range),
            values: Some(write.values),
        });
        match (read, write) {
            (Some(first), second) => Self { first, second },
            (None, Some(first)) => Self {
                first,
                second: None,
            },
            (None, None) => {
                let body = request.sub_function().unwrap_or(0);
                let interval = Interval {
                    first: body,
                    last: body,
                };
                Self {
                    first: Half {
                        slot,
                        interval,
                        values: None,
                    },
                    second: None,
                }
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Half<'a>> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

fn interval(range: Range) -> Interval {
    Interval {
        first: range.start,
        last: range.last(),
    }
}

pub(crate) struct Half<'a> {
    pub(crate) slot: Slot,
    /// For a slot without addresses its sub-function, 0 where it has none of those either.
    pub(crate) interval: Interval,
    values: Option<Values<'a>>,
}

impl Half<'_> {
    pub(crate) fn wanted(&self, table: &IntervalTable) -> Entry {
        Entry {
            interval: self.interval,
            value: match table.bounded() {
                true => self.written(),
                false => ValueBounds::FULL,
            },
        }
    }

    /// Smallest and largest value written; everything where it can't be known.
    pub(crate) fn written(&self) -> ValueBounds {
        let (mut min, mut max) = (u16::MAX, 0);
        let mut include = |value: u16| {
            min = min.min(value);
            max = max.max(value);
        };
        match &self.values {
            Some(Values::Coil(on)) => include(u16::from(*on)),
            Some(Values::Register(value)) => include(*value),
            Some(Values::Registers(bytes)) => registers(bytes).for_each(include),
            Some(Values::Coils { bits, count }) => return coils(bits, *count),
            Some(Values::Mask { .. }) | None => return ValueBounds::FULL,
        }
        ValueBounds { min, max }
    }

    /// Whether a value within the entry's bounds goes to one of its addresses.
    pub(crate) fn writes_within(&self, entry: &Entry) -> bool {
        let offset = |address: u16| usize::from(address - self.interval.first);
        let first = offset(entry.interval.first.max(self.interval.first));
        let last = offset(entry.interval.last.min(self.interval.last));
        let within = |value: u16| entry.value.contains(value);
        match &self.values {
            Some(Values::Coil(on)) => within(u16::from(*on)),
            Some(Values::Register(value)) => within(*value),
            Some(Values::Registers(bytes)) => match bytes.get(2 * first..2 * (last + 1)) {
                Some(bytes) => registers(bytes).any(within),
                None => true,
            },
            Some(values @ Values::Coils { .. }) => {
                values.iter().skip(first).take(last + 1 - first).any(within)
            }
            Some(Values::Mask { .. }) | None => true,
        }
    }

    /// What it writes, if it does.
    pub(crate) fn write(&self) -> Option<Write<'_>> {
        let Interval { first, last } = self.interval;
        Some(Write {
            range: Range {
                table: self.slot.table()?,
                start: first,
                // A request has fewer elements than a table.
                count: last - first + 1,
            },
            values: self.values?,
        })
    }

    pub(crate) fn outside(&self) -> Reason {
        let Interval { first, last } = self.interval;
        match self.slot.table() {
            Some(table) => Reason::Address { table, first, last },
            // Without sub-functions it is covered by any allow.
            None => Reason::SubFunction {
                function: self.slot.function().0,
                sub_function: first,
            },
        }
    }
}

fn registers(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// Smallest and largest of the first `count` bits, a byte at a time.
fn coils(bits: &[u8], count: u16) -> ValueBounds {
    let whole = usize::from(count / 8);
    let rest = (1u8 << (count % 8)) - 1;
    let (whole, last) = bits.split_at_checked(whole).unwrap_or((bits, &[]));
    let last = last.first().copied().unwrap_or(0) & rest;
    let some_off = last != rest || whole.iter().any(|byte| *byte != u8::MAX);
    let some_on = last != 0 || whole.iter().any(|byte| *byte != 0);
    ValueBounds {
        min: u16::from(!some_off),
        max: u16::from(some_on),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coils_are_zero_one_or_both() {
        for (bits, count, min, max) in [
            (&[0b0000_0111][..], 3, 1, 1),
            (&[0b0000_0111], 4, 0, 1),
            (&[0b1111_0000], 4, 0, 0),
            (&[0xFF], 8, 1, 1),
            (&[0xFF, 0x00], 9, 0, 1),
            (&[0x00, 0x01], 9, 0, 1),
            (&[0x00, 0xFE], 9, 0, 0),
        ] {
            assert_eq!(
                coils(bits, count),
                ValueBounds { min, max },
                "{bits:?} {count}"
            );
        }
    }
}
