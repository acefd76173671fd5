//! Sets of values as ascending ranges that neither overlap nor touch.

use crate::model::interval::ValueBounds;

pub(super) type ValueSet = Vec<ValueBounds>;

pub(super) fn union(mut ranges: ValueSet) -> ValueSet {
    ranges.sort_unstable();
    let mut merged: ValueSet = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(previous) if range.min <= previous.max.saturating_add(1) => {
                previous.max = previous.max.max(range.max);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// What of `from` is not in `taken`; both ascending.
pub(super) fn without(from: &[ValueBounds], taken: &[ValueBounds]) -> ValueSet {
    let mut left = ValueSet::new();
    for range in from {
        // One more than a value may be: where the rest of the range begins.
        let mut at = u32::from(range.min);
        for hole in taken.iter().filter(|hole| hole.min <= range.max) {
            if u32::from(hole.min) > at {
                left.push(ValueBounds {
                    min: at as u16,
                    max: hole.min - 1,
                });
            }
            at = at.max(u32::from(hole.max) + 1);
        }
        if at <= u32::from(range.max) {
            left.push(ValueBounds {
                min: at as u16,
                max: range.max,
            });
        }
    }
    left
}

pub(super) fn common(one: &[ValueBounds], other: &[ValueBounds]) -> ValueSet {
    without(one, &without(one, other))
}
