//! How far a written value may lie from the last one.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::number::{Format, Number};
use crate::model::typed::Layout;

/// The bound on the change of every value that a request writes, of a register each or of the
/// rule's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Above 0; as a distance of the layout's type.
    pub(crate) max: Number,
    /// Milliseconds, [`Step::WITHIN`].
    pub(crate) within: u32,
    pub(crate) layout: Layout,
}

impl Step {
    /// In milliseconds: 100 ms to an hour.
    pub(crate) const WITHIN: RangeInclusive<u32> = 100..=3_600_000;
    pub(crate) const DEFAULT_WITHIN: u32 = 10_000;

    /// The greatest distance between the last value and the one to be written.
    pub fn max(&self) -> Number {
        self.max
    }

    /// Whether a value may become the other.
    pub fn allows(&self, from: Number, to: Number) -> bool {
        from.is_within(to, self.max)
    }

    /// Where the values lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How old the last value may be.
    pub fn within(&self) -> Duration {
        Duration::from_millis(self.within.into())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {:?}", self.max, self.within())?;
        match self.layout.format() {
            Format::REGISTER => Ok(()),
            format => write!(f, " as {format}"),
        }
    }
}
