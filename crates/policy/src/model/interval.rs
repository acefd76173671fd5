//! Ranges of addresses and of values.

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
}
