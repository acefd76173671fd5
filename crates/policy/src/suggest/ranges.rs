//! Ranges that are joined.

use super::Times;
use super::rules::AddressRange;
use crate::model::address::{Span, table_index};
use crate::model::interval::ValueBounds;

/// A range with the bounds of what was written to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) addresses: AddressRange,
    pub(super) value: ValueBounds,
    pub(super) times: Times,
}

impl Range {
    pub(super) fn new(span: Span, value: ValueBounds, times: Times) -> Self {
        Self {
            addresses: AddressRange {
                table: table_index(span.table),
                first: span.first,
                last: span.last,
            },
            value,
            times,
        }
    }

    fn take(&mut self, other: &Self) {
        self.addresses.last = self.addresses.last.max(other.addresses.last);
        self.value = hull(self.value, other.value);
        self.times.add(&other.times);
    }
}

pub(super) fn hull(one: ValueBounds, other: ValueBounds) -> ValueBounds {
    ValueBounds {
        min: one.min.min(other.min),
        max: one.max.max(other.max),
    }
}

/// Joins what overlaps, touches, or has at most `gap` addresses between.
pub(super) fn join_reads(ranges: Vec<Range>, gap: u16) -> Vec<Range> {
    join(ranges, |one, next| {
        u32::from(next.addresses.first) <= u32::from(one.addresses.last) + 1 + u32::from(gap)
    })
}

/// Joins what overlaps, and what touches and has the same bounds.
pub(super) fn join_writes(ranges: Vec<Range>) -> Vec<Range> {
    let overlapping = join(ranges, |one, next| {
        next.addresses.first <= one.addresses.last
    });
    join(overlapping, |one, next| {
        let touch = one.addresses.last.checked_add(1) == Some(next.addresses.first);
        touch && one.value == next.value
    })
}

fn join(mut ranges: Vec<Range>, joins: impl Fn(&Range, &Range) -> bool) -> Vec<Range> {
    ranges.sort_unstable_by_key(|range| range.addresses);
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.addresses.table == range.addresses.table && joins(last, &range) => {
                last.take(&range);
            }
            _ => joined.push(range),
        }
    }
    joined
}
