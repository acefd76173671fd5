//! How far a written value may lie from the last one, and of which registers that is asked.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use fieldlock_modbus::Table;

use crate::ceiling::by_units;
use crate::number::{Format, Number};
use crate::policy::Policy;
use crate::rule::{Interval, Rule, Units, merge};
use crate::typed::Layout;

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

/// The holding registers of one device that some allow with a step covers, whoever asks and
/// whichever windows are open.
#[derive(Debug)]
pub struct Stepped(Vec<(Units, Vec<Interval>)>);

impl Stepped {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of `first` to `last` of this unit belongs to them, ascending.
    pub fn within(
        &self,
        unit: u8,
        first: u16,
        last: u16,
    ) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        let of_unit = self.0.iter().find(|(units, _)| units.contains(unit));
        let ranges = of_unit.map_or(&[][..], |(_, ranges)| ranges);
        let begin = ranges.partition_point(|range| range.last < first);
        ranges[begin..]
            .iter()
            .take_while(move |range| range.first <= last)
            .map(move |range| range.first.max(first)..=range.last.min(last))
    }
}

impl Policy {
    /// Of which registers of the device the last values are needed.
    pub fn stepped(&self, device: &str) -> Stepped {
        let stepped = |rule: &&Rule| rule.step.is_some() && rule.devices.admits(device);
        let rules: Vec<&Rule> = self.all_rules().filter(stepped).collect();
        let registers = |rule: &&Rule| rule.addresses.of(Table::HoldingRegister).to_vec();
        let of_units = by_units(&rules).into_iter().map(|(units, rules)| {
            let ranges = merge(rules.iter().flat_map(registers).collect());
            (units, ranges)
        });
        Stepped(of_units.filter(|(_, ranges)| !ranges.is_empty()).collect())
    }
}
