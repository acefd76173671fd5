//! Of which registers the last values are needed, since a rule bounds the step from them.

use std::ops::RangeInclusive;

use fieldlock_modbus::Table;

use crate::ceiling::by_units;
use crate::model::interval::{Interval, merge};
use crate::model::rule::Rule;
use crate::model::scope::Units;
use crate::policy::Policy;

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
