//! Whom and what rules are for.

use std::fmt;

use crate::model::client::Side;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// A key that may be left out, or say `"any"`, or list what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope<T> {
    Any,
    Only(Vec<T>),
}

impl<T> Scope<T> {
    pub(crate) fn listed(&self) -> &[T] {
        match self {
            Self::Any => &[],
            Self::Only(list) => list,
        }
    }
}

impl Scope<String> {
    pub(crate) fn admits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.iter().any(|listed| listed == name),
        }
    }
}

/// A set of unit identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Units([u64; 4]);

impl Units {
    /// Units 1 to 255: what `"any"` and an absent key mean.
    pub(crate) const ANY: Self = Self([!1, u64::MAX, u64::MAX, u64::MAX]);
    pub(crate) const NONE: Self = Self([0; 4]);

    pub(crate) fn insert(&mut self, unit: u8) {
        self.0[usize::from(unit / 64)] |= 1 << (unit % 64);
    }

    pub(crate) fn contains(&self, unit: u8) -> bool {
        self.0[usize::from(unit / 64)] & (1 << (unit % 64)) != 0
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(own, other)| *own |= other);
    }

    /// The lowest; 0 if there is none.
    pub(crate) fn first(&self) -> u8 {
        (0..=255).find(|unit| self.contains(*unit)).unwrap_or(0)
    }

    pub(crate) fn is_superset(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .all(|(own, other)| other & !own == 0)
    }
}

impl fmt::Display for Units {
    /// `any`, or ascending with runs as ranges: `1, 5-9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str("any");
        }
        let units: Vec<u8> = (0..=255).filter(|unit| self.contains(*unit)).collect();
        let parts: Vec<String> = units
            .chunk_by(|a, b| a.checked_add(1) == Some(*b))
            .map(|run| match run {
                [first, .., last] => format!("{first}-{last}"),
                _ => run.iter().map(u8::to_string).collect(),
            })
            .collect();
        f.write_str(&parts.join(", "))
    }
}

/// Which devices take no request that may change their state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ReadOnly {
    #[default]
    None,
    All,
    Devices(Vec<String>),
}

impl ReadOnly {
    pub(crate) fn contains(&self, device: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Devices(devices) => devices.iter().any(|listed| listed == device),
        }
    }
}

/// The headend through which a request came, as far as this side judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via<'a> {
    NotJudged,
    Named(&'a str),
    /// At the edge without a name: satisfies no allow that wants one, and every deny that does.
    Unproven,
}

impl<'a> Via<'a> {
    pub(crate) fn of(side: Side, via: Option<&'a str>) -> Self {
        match (side, via) {
            (Side::Headend, _) => Self::NotJudged,
            (Side::Edge, Some(name)) => Self::Named(name),
            (Side::Edge, None) => Self::Unproven,
        }
    }

    /// Whether a rule for these headends applies.
    pub(crate) fn meets(self, headends: &Scope<String>, effect: Effect) -> bool {
        match self {
            Self::NotJudged => true,
            Self::Named(name) => headends.admits(name),
            Self::Unproven => *headends == Scope::Any || effect == Effect::Deny,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_unit_is_not_broadcast() {
        assert!(!Units::ANY.contains(0));
        assert!((1..=255).all(|unit| Units::ANY.contains(unit)));
        let mut some = Units::NONE;
        for unit in [0, 3, 4, 5, 255] {
            some.insert(unit);
        }
        assert_eq!(some.to_string(), "0, 3-5, 255");
    }
}
