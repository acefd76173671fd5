//! Allows that count only under conditions, apart from the others: no request that they are not
//! needed for looks at them.

use crate::half::{Half, Halves};
use crate::model::decision::{Decision, Reason, Refusal, RuleId};
use crate::model::rate::Rate;
use crate::model::step::Step;
use crate::view::{View, join};

#[derive(Debug)]
pub(crate) struct Conditional {
    /// Allows with a rate or, at the edge, a step.
    pub(crate) limited: View,
    /// Their rates, in the order of their ids.
    pub(crate) rates: Vec<(RuleId, Rate)>,
    /// Their steps, likewise.
    pub(crate) steps: Vec<(RuleId, Step)>,
    /// Allows outside their time windows.
    pub(crate) resting: View,
    /// What is said of those.
    pub(crate) reason: Reason,
}

impl Conditional {
    pub(crate) fn rate(&self, rule: RuleId) -> Option<Rate> {
        let found = self.rates.binary_search_by_key(&rule, |(rule, _)| *rule);
        found.ok().map(|place| self.rates[place].1)
    }

    pub(crate) fn step(&self, rule: RuleId) -> Option<&Step> {
        let found = self.steps.binary_search_by_key(&rule, |(rule, _)| *rule);
        found.ok().map(|place| &self.steps[place].1)
    }
}

impl View {
    /// What no deny matches: allowed by a rule without rate and step, or by one with, or refused; and
    /// where nothing but a time window stands against it, for that.
    pub(crate) fn decide_with(
        &self,
        conditional: &Conditional,
        unit: u8,
        halves: &Halves<'_>,
    ) -> Decision {
        let Conditional {
            limited,
            resting,
            reason,
            ..
        } = conditional;
        let open = |half: &Half<'_>| {
            let plain = self.asked(unit, half);
            plain.or_else(|refusal| {
                limited
                    .asked(unit, half)
                    .map_err(|own| closer(refusal, own))
            })
        };
        let first = open(&halves.first);
        let second = halves.second.as_ref().map(open);
        let waiting = || {
            let mut waits = None;
            for (half, open) in halves
                .iter()
                .zip([Some(first), second].into_iter().flatten())
            {
                if open.is_err() {
                    waits = Some(resting.asked(unit, half).ok()?);
                }
            }
            waits
        };
        let any_allow = |view: &Self| view.class(unit).is_some_and(|class| class.any_allow);
        match join(first, second) {
            Decision::Refuse(refusal) => Decision::Refuse(match (waiting(), self.closed) {
                (Some(rule), _) => Refusal::new(*reason, Some(rule)),
                (None, Some(reason)) => Refusal::new(reason, None),
                (None, None) if !any_allow(self) && !any_allow(limited) => {
                    Refusal::new(Reason::Unit { unit }, None)
                }
                (None, None) => refusal,
            }),
            allowed => allowed,
        }
    }

    pub(crate) fn asked(&self, unit: u8, half: &Half<'_>) -> Result<RuleId, Refusal> {
        self.allowing(self.row(self.class(unit), half.slot), half)
    }
}

/// The refusal that is closer to being allowed says more: function, address, value.
fn closer(one: Refusal, other: Refusal) -> Refusal {
    match one.exception.code() < other.exception.code() {
        true => other,
        false => one,
    }
}
