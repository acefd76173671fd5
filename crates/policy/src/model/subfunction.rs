//! What a rule allows of functions 8 and 43, which are many in one: sub-functions of the one, MEI
//! types of the other.

use std::fmt;

use crate::model::interval::Interval;

/// Sub-functions from here on are reserved and told apart from the others only.
const OTHERS: u16 = 31;

/// A set of sub-functions, a bit for each from 0 to 30; bit 31 stands for all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct SubFunctions(u32);

impl SubFunctions {
    /// The last that is told apart.
    pub(crate) const LAST: u16 = OTHERS - 1;
    pub(crate) const ALL: Self = Self(u32::MAX);

    /// Those of function 8 that leave the device as it is: echo, and reading what it counted.
    pub(crate) const READING: Self = Self::of(&[0, 2, 11, 12, 13, 14, 15, 16, 17, 18]);
    /// Device identification.
    pub(crate) const IDENTIFICATION: Self = Self::of(&[14]);

    const fn of(numbers: &[u8]) -> Self {
        let mut set = 0;
        let mut at = 0;
        while at < numbers.len() {
            set |= 1 << numbers[at];
            at += 1;
        }
        Self(set)
    }

    /// Whether a rule can name this one by itself.
    pub(crate) fn has_number(number: u16) -> bool {
        number < OTHERS
    }

    /// `7` or `11-18`; at most 30, which leaves out what the specification reserves.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        let fits = first <= last && last < OTHERS;
        fits.then(|| (first..=last).fold(Self::default(), |set, one| Self(set.0 | 1 << one)))
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn insert(&mut self, interval: Interval) {
        let last = interval.last.min(OTHERS);
        for one in interval.first.min(OTHERS)..=last {
            self.0 |= 1 << one;
        }
    }

    /// A number of each kind, ascending.
    pub(crate) fn kinds() -> impl Iterator<Item = u16> {
        0..=OTHERS
    }

    /// All that are as `kind`.
    pub(crate) fn like(kind: u16) -> Interval {
        Interval {
            first: kind,
            last: if kind == OTHERS { u16::MAX } else { kind },
        }
    }

    /// Sorted; they neither overlap nor touch.
    pub(crate) fn intervals(self) -> Vec<Interval> {
        let listed = Self::kinds().filter(|kind| self.0 & (1 << kind) != 0);
        crate::model::interval::merge(listed.map(Self::like).collect())
    }
}

impl fmt::Display for SubFunctions {
    /// `0, 2, 11-18`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Interval { first, last }) in self.intervals().into_iter().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_they_are_read() {
        for text in ["0", "11-18", "30"] {
            assert_eq!(SubFunctions::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(SubFunctions::READING.to_string(), "0, 2, 11-18");
        assert_eq!(SubFunctions::ALL.intervals(), [Interval::FULL]);
        for wrong in ["", "-", "31", "5-1", "0-31", "a", "-1"] {
            assert_eq!(SubFunctions::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn intervals_come_back_as_the_set_they_were() {
        let mut set = SubFunctions::default();
        for interval in SubFunctions::READING.intervals() {
            set.insert(interval);
        }
        assert_eq!(set, SubFunctions::READING);
        set.insert(Interval::FULL);
        assert_eq!(set, SubFunctions::ALL);
    }
}
