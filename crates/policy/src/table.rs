//! Address ranges with value bounds, found without looking at each.
//!
//! Entries that are alike stand together ([`arrange`]). Above them, every [`FANOUT`] entries are
//! summed up by the widest range and bounds that any of them could have, and so on upward: a node
//! whose summary can't satisfy a question is skipped with all below it. A question touches a few
//! nodes per level, as long as entries differ in their addresses or in their bounds.

use crate::model::decision::RuleId;
use crate::model::interval::{Interval, ValueBounds};

/// Eight summaries of eight bytes are one cache line.
const FANOUT: usize = 8;

/// One range of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry {
    pub(crate) interval: Interval,
    pub(crate) value: ValueBounds,
}

impl Entry {
    pub(crate) fn bounded(&self) -> bool {
        self.value != ValueBounds::FULL
    }

    /// Covers every address, and every value that lies between the bounds.
    fn covers(&self, wanted: &Self) -> bool {
        self.interval.first <= wanted.interval.first
            && self.interval.last >= wanted.interval.last
            && self.value.min <= wanted.value.min
            && self.value.max >= wanted.value.max
    }

    /// Shares an address, and a value between the bounds.
    fn meets(&self, wanted: &Self) -> bool {
        self.interval.first <= wanted.interval.last
            && self.interval.last >= wanted.interval.first
            && self.value.min <= wanted.value.max
            && self.value.max >= wanted.value.min
    }

    /// At least as wide as both in every respect, so that [`Entry::covers`] and [`Entry::meets`]
    /// hold for it when they hold for one of them.
    fn hull(self, other: Self) -> Self {
        Self {
            interval: Interval {
                first: self.interval.first.min(other.interval.first),
                last: self.interval.last.max(other.interval.last),
            },
            value: ValueBounds {
                min: self.value.min.min(other.value.min),
                max: self.value.max.max(other.value.max),
            },
        }
    }
}

#[derive(Debug)]
pub(crate) struct IntervalTable {
    /// The entries, then their summaries, narrower and narrower.
    levels: Vec<Vec<Entry>>,
    /// Whose entry it is, in the order of the entries.
    rules: Vec<RuleId>,
    bounded: bool,
}

impl IntervalTable {
    pub(crate) const EMPTY: Self = Self {
        levels: Vec::new(),
        rules: Vec::new(),
        bounded: false,
    };

    pub(crate) fn new(mut entries: Vec<(Entry, RuleId)>) -> Self {
        arrange(&mut entries);
        let bounded = entries.iter().any(|(entry, _)| entry.bounded());
        let (leaves, rules) = entries.into_iter().unzip();
        let mut levels: Vec<Vec<Entry>> = vec![leaves];
        while let Some(below) = levels.last().filter(|below| below.len() > FANOUT) {
            let above = below
                .chunks(FANOUT)
                .filter_map(|chunk| chunk.iter().copied().reduce(Entry::hull))
                .collect();
            levels.push(above);
        }
        Self {
            levels,
            rules,
            bounded,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All entries, in no particular order.
    pub(crate) fn entries(&self) -> &[Entry] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// Whether any entry looks at values.
    pub(crate) fn bounded(&self) -> bool {
        self.bounded
    }

    /// An entry that covers what is wanted.
    pub(crate) fn covering(&self, wanted: &Entry) -> Option<(Entry, RuleId)> {
        self.find(|entry| entry.covers(wanted), |_, _| true)
    }

    /// An entry that covers the addresses, whatever its bounds.
    pub(crate) fn covering_addresses(&self, wanted: Interval) -> Option<(Entry, RuleId)> {
        self.covering_where(wanted, |_| true)
    }

    /// The same, of a rule that `accept` confirms.
    pub(crate) fn covering_where(
        &self,
        wanted: Interval,
        accept: impl Fn(RuleId) -> bool + Copy,
    ) -> Option<(Entry, RuleId)> {
        // A minimum above its maximum is an empty set of values, which every bounds contain.
        let value = ValueBounds {
            min: u16::MAX,
            max: 0,
        };
        let wanted = Entry {
            interval: wanted,
            value,
        };
        self.find(|entry| entry.covers(&wanted), |_, rule| accept(rule))
    }

    /// An entry that meets what is wanted and that `accept` confirms.
    pub(crate) fn meeting(
        &self,
        wanted: &Entry,
        accept: impl Fn(&Entry, RuleId) -> bool + Copy,
    ) -> Option<(Entry, RuleId)> {
        self.find(|entry| entry.meets(wanted), accept)
    }

    fn find(
        &self,
        may: impl Fn(&Entry) -> bool + Copy,
        accept: impl Fn(&Entry, RuleId) -> bool + Copy,
    ) -> Option<(Entry, RuleId)> {
        let top = self.levels.len().checked_sub(1)?;
        let width = self.levels.get(top)?.len();
        self.descend(top, 0..width, may, accept)
    }

    /// Depth is the logarithm of the number of entries to the base [`FANOUT`].
    fn descend(
        &self,
        level: usize,
        nodes: std::ops::Range<usize>,
        may: impl Fn(&Entry) -> bool + Copy,
        accept: impl Fn(&Entry, RuleId) -> bool + Copy,
    ) -> Option<(Entry, RuleId)> {
        let offset = nodes.start;
        for (index, node) in self.levels.get(level)?.get(nodes)?.iter().enumerate() {
            if !may(node) {
                continue;
            }
            let index = offset + index;
            let found = match level.checked_sub(1) {
                None => {
                    let rule = *self.rules.get(index)?;
                    accept(node, rule).then_some((*node, rule))
                }
                Some(below) => {
                    let first = index * FANOUT;
                    let last = (first + FANOUT).min(self.levels.get(below)?.len());
                    self.descend(below, first..last, may, accept)
                }
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Orders the entries so that every node of every level holds entries that are close: cuts along
/// the dimension in which they differ most, at the borders of the nodes, and again within.
fn arrange(entries: &mut [(Entry, RuleId)]) {
    if entries.len() <= FANOUT {
        return;
    }
    let Some(dimension) = DIMENSIONS
        .into_iter()
        .max_by_key(|dimension| spread(entries, *dimension))
    else {
        return;
    };
    entries.sort_unstable_by_key(|(entry, rule)| (dimension(entry), *rule));
    let mut node = FANOUT;
    while node * FANOUT < entries.len() {
        node *= FANOUT;
    }
    entries.chunks_mut(node).for_each(arrange);
}

type Dimension = fn(&Entry) -> u16;

const DIMENSIONS: [Dimension; 4] = [
    |entry| entry.interval.first,
    |entry| entry.interval.last,
    |entry| entry.value.min,
    |entry| entry.value.max,
];

fn spread(entries: &[(Entry, RuleId)], dimension: Dimension) -> u16 {
    let of_each = || entries.iter().map(|(entry, _)| dimension(entry));
    let largest = of_each().max().unwrap_or(0);
    largest - of_each().min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        // Narrow domains, so that entries meet often.
        let ends = || (0u16..40, 0u16..12);
        (ends(), ends(), any::<bool>()).prop_map(|((first, more), (min, wider), bounded)| Entry {
            interval: Interval {
                first,
                last: first + more,
            },
            value: match bounded {
                true => ValueBounds {
                    min,
                    max: min + wider,
                },
                false => ValueBounds::FULL,
            },
        })
    }

    proptest! {
        #[test]
        fn finds_exactly_what_a_scan_finds(
            entries in proptest::collection::vec(entry(), 0..200),
            wanted in entry(),
        ) {
            let numbered: Vec<_> = entries.iter().copied().zip((0..).map(RuleId)).collect();
            let table = IntervalTable::new(numbered.clone());
            for (found, holds) in [
                (table.covering(&wanted), numbered.iter().any(|(e, _)| e.covers(&wanted))),
                (table.meeting(&wanted, |_, _| true), numbered.iter().any(|(e, _)| e.meets(&wanted))),
                (
                    table.meeting(&wanted, |entry, _| entry.bounded()),
                    numbered.iter().any(|(e, _)| e.bounded() && e.meets(&wanted)),
                ),
            ] {
                prop_assert_eq!(found.is_some(), holds);
                if let Some(found) = found {
                    prop_assert!(numbered.contains(&found));
                }
            }
        }
    }

    #[test]
    fn an_empty_table_has_nothing() {
        let full = Entry {
            interval: Interval::FULL,
            value: ValueBounds::FULL,
        };
        assert!(
            IntervalTable::new(Vec::new())
                .meeting(&full, |_, _| true)
                .is_none()
        );
        assert!(IntervalTable::EMPTY.covering(&full).is_none());
    }
}
