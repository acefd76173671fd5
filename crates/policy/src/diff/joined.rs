//! Requests of several elements that one side allows by one rule and the other only in parts.
//!
//! One single allow must cover a request: two rules that cover half each do not. So two policies
//! may agree on every element and still differ on requests across several. Whether a side covers a
//! request depends on its first and last address and on its smallest and largest value, and the
//! wider the request, the less is covered. So only the longest requests must be looked at, and of
//! these one for each way in which their ends can lie among the rules.

use super::budget::{Budget, TooLarge};
use super::sweep::{Shape, Strip};
use super::values::{ValueSet, common};
use crate::model::interval::{Interval, ValueBounds};
use crate::table::Entry;

/// A range that `granting` lets a request cross, and such a request, which `other` refuses though
/// it allows each element alone.
pub(super) struct Joined {
    pub(super) within: Entry,
    pub(super) first: u16,
    pub(super) values: Vec<u16>,
}

/// `granting` and `other` are sorted.
pub(super) fn joined(
    granting: &[Entry],
    other: &[Entry],
    strips: &[Strip],
    shape: Shape,
    budget: &mut Budget,
) -> Result<Vec<Joined>, TooLarge> {
    let mut found: Vec<Joined> = Vec::new();
    if shape.most == 1 {
        return Ok(found);
    }
    for within in granting {
        budget.spend(found.len() as u64 + 1)?;
        if found.iter().any(|one| contains(&one.within, within)) {
            continue;
        }
        let Interval { first, last } = within.interval;
        let end = other.partition_point(|entry| entry.interval.first <= last);
        budget.spend(end as u64)?;
        let near: Vec<Entry> = other[..end]
            .iter()
            .filter(|entry| entry.interval.last >= first)
            .copied()
            .collect();
        if near.iter().any(|entry| contains(entry, within)) {
            continue;
        }
        let search = Search {
            near,
            free: free(within, strips),
            most: u32::from(shape.most),
        };
        if let Some((first, values)) = search.run(budget)? {
            found.retain(|one| !contains(within, &one.within));
            found.push(Joined {
                within: *within,
                first,
                values,
            });
        }
    }
    Ok(found)
}

fn contains(outer: &Entry, inner: &Entry) -> bool {
    outer.interval.first <= inner.interval.first
        && outer.interval.last >= inner.interval.last
        && outer.value.min <= inner.value.min
        && outer.value.max >= inner.value.max
}

/// Addresses where both sides let the same values through, within what one rule grants.
struct Free {
    interval: Interval,
    values: ValueSet,
}

fn free(within: &Entry, strips: &[Strip]) -> Vec<Free> {
    let Interval { first, last } = within.interval;
    let begin = strips.partition_point(|strip| strip.interval.last < first);
    strips[begin..]
        .iter()
        .take_while(|strip| strip.interval.first <= last)
        .map(|strip| Free {
            interval: Interval {
                first: strip.interval.first.max(first),
                last: strip.interval.last.min(last),
            },
            values: common(&common(&strip.old, &strip.new), &[within.value]),
        })
        .filter(|free| !free.values.is_empty())
        .collect()
}

struct Search {
    near: Vec<Entry>,
    free: Vec<Free>,
    most: u32,
}

/// An address, with the smallest and the largest value that may be written there.
type Point = (u16, ValueBounds);

impl Search {
    fn run(&self, budget: &mut Budget) -> Result<Option<(u16, Vec<u16>)>, TooLarge> {
        let touch = |a: &Free, b: &Free| a.interval.last.checked_add(1) == Some(b.interval.first);
        for run in self.free.chunk_by(touch) {
            let (Some(begin), Some(end)) = (run.first(), run.last()) else {
                continue;
            };
            let (begin, end) = (begin.interval.first, end.interval.last);
            for first in self.starts(run, begin, end) {
                let last = u32::from(end).min(u32::from(first) + self.most - 1) as u16;
                budget.spend((run.len() + self.near.len()) as u64)?;
                if last > first && self.uncovered(run, first, last).is_some() {
                    return Ok(Some(self.narrowed(run, first, last)));
                }
            }
        }
        Ok(None)
    }

    /// Where the longest requests begin, one for each constellation: an end enters a strip, or has
    /// one or two of its addresses inside.
    fn starts(&self, run: &[Free], begin: u16, end: u16) -> Vec<u16> {
        let latest = (i64::from(end) - i64::from(self.most) + 1).max(i64::from(begin));
        let mut starts: Vec<u16> = run
            .iter()
            .flat_map(|strip| {
                let (first, last) = (
                    i64::from(strip.interval.first),
                    i64::from(strip.interval.last),
                );
                let most = i64::from(self.most);
                [first, last, first - most + 1, first - most + 2]
            })
            .chain([i64::from(begin), latest])
            .filter(|start| (i64::from(begin)..=latest).contains(start))
            .map(|start| start as u16)
            .collect();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// The two elements that make the request hardest to cover, if nothing covers it then.
    fn uncovered(&self, run: &[Free], first: u16, last: u16) -> Option<[(u16, u16); 2]> {
        let points: Vec<Point> = ends(run, first, last).collect();
        let lowest = points.iter().min_by_key(|(_, values)| values.min)?;
        let highest = points.iter().max_by_key(|(_, values)| values.max)?;
        let other_high = points
            .iter()
            .filter(|(address, _)| *address != lowest.0)
            .max_by_key(|(_, values)| values.max)?;
        let other_low = points
            .iter()
            .filter(|(address, _)| *address != highest.0)
            .min_by_key(|(_, values)| values.min)?;
        [(lowest, other_high), (other_low, highest)]
            .into_iter()
            .map(|(low, high)| [(low.0, low.1.min), (high.0, high.1.max)])
            .find(|[(_, min), (_, max)]| {
                let wanted = Entry {
                    interval: Interval { first, last },
                    value: ValueBounds {
                        min: *min,
                        max: *max,
                    },
                };
                !self.near.iter().any(|entry| contains(entry, &wanted))
            })
    }

    /// The shortest request within that is refused all the same, with its values.
    fn narrowed(&self, run: &[Free], first: u16, last: u16) -> (u16, Vec<u16>) {
        let refused = |first, last| self.uncovered(run, first, last).is_some();
        let later = bisect(last - 1 - first, |by| refused(first + by, last));
        let first = first + later;
        let earlier = bisect(last - 1 - first, |by| refused(first, last - by));
        let last = last - earlier;
        let chosen = self.uncovered(run, first, last).unwrap_or_default();
        let lowest_at = |address: u16| {
            let strip = run.iter().find(|strip| strip.interval.last >= address);
            strip.and_then(|s| s.values.first()).map_or(0, |v| v.min)
        };
        let values = (first..=last)
            .map(
                |address| match chosen.iter().find(|(at, _)| *at == address) {
                    Some((_, value)) => *value,
                    None => lowest_at(address),
                },
            )
            .collect();
        (first, values)
    }
}

/// At most two addresses of each strip: two elements are enough to hold the extremes.
fn ends(run: &[Free], first: u16, last: u16) -> impl Iterator<Item = Point> {
    let begin = run.partition_point(|strip| strip.interval.last < first);
    run[begin..]
        .iter()
        .take_while(move |strip| strip.interval.first <= last)
        .flat_map(move |strip| {
            let low = strip.interval.first.max(first);
            let high = strip.interval.last.min(last);
            let bounds = match (strip.values.first(), strip.values.last()) {
                (Some(lowest), Some(highest)) => Some(ValueBounds {
                    min: lowest.min,
                    max: highest.max,
                }),
                _ => None,
            };
            let second = (high != low).then_some(high);
            std::iter::once(low)
                .chain(second)
                .filter_map(move |address| Some((address, bounds?)))
        })
}

/// The largest number up to `most` for which `holds`, which holds for 0 and up to a point.
fn bisect(most: u16, holds: impl Fn(u16) -> bool) -> u16 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match holds(middle) {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    low
}
