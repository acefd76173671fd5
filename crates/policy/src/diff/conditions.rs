//! Conditions of rules: time windows, which become cases of their own, and rates, steps and
//! `repeat`, which are compared rule by rule.

use std::collections::BTreeSet;

use super::ConditionChange;
use super::budget::{Budget, TooLarge};
use crate::model::rule::{Repeat, Rule};
use crate::model::window::Window;
use crate::policy::Policy;

/// The windows of two policies, and which of them are ever open together.
///
/// Windows are told apart as they are written; whether one lies within another shows in that the one
/// is never open without the other.
pub(super) struct Times {
    windows: Vec<Vec<Window>>,
    /// Of each moment that there is, which of the windows are open. One, of no windows, where there are
    /// none.
    cases: Vec<Vec<bool>>,
}

/// 2026-01-01T00:00:00Z. The hours of a week come again, so that any year will do.
const SOME_YEAR: i64 = 1_767_225_600;
/// Seconds in which all there is between hours of a week in two zones has come, clocks set forward and
/// back included.
const YEAR: i64 = 366 * 86_400;
/// What it costs to find when a window changes, in the steps of a [`Budget`].
const CHANGE: u64 = 10_000;

impl Times {
    pub(super) fn of(old: &Policy, new: &Policy, budget: &mut Budget) -> Result<Self, TooLarge> {
        let mut windows: Vec<Vec<Window>> = Vec::new();
        let rules = old.rules.iter().chain(&new.rules);
        for rule in rules.filter(|rule| rule.typed.is_none()) {
            if !rule.time.is_empty() && !windows.contains(&rule.time) {
                windows.push(rule.time.clone());
            }
        }
        let each = || windows.iter().flatten();
        let ends = each().flat_map(|window| [window.not_before, window.not_after]);
        let mut starts: BTreeSet<i64> = ends.flatten().chain([SOME_YEAR]).collect();
        starts.extend(starts.first().map(|first| first - YEAR));
        let mut cases = BTreeSet::new();
        for start in &starts {
            let next = starts.range(start + 1..).next().copied();
            let end = next.map_or(start + YEAR, |next| next.min(start + YEAR));
            let mut at = *start;
            while at < end {
                budget.spend(CHANGE * each().count() as u64)?;
                let open = |list: &Vec<Window>| list.iter().any(|window| window.is_open(at));
                cases.insert(windows.iter().map(open).collect());
                let changes = each().filter_map(|window| window.next_change(at));
                at = changes.min().unwrap_or(end);
            }
        }
        Ok(Self {
            windows,
            cases: cases.into_iter().collect(),
        })
    }

    /// The two policies as they are in each case.
    pub(super) fn cases<'p>(
        &self,
        policies: [&'p Policy; 2],
    ) -> impl Iterator<Item = [Policy; 2]> + use<'_, 'p> {
        self.cases.iter().map(move |open| {
            policies.map(|policy| {
                let counts = |rule: &&Rule| {
                    let place = self.windows.iter().position(|window| *window == rule.time);
                    rule.typed.is_none() && place.is_none_or(|place| open[place])
                };
                let bare = |rule: &Rule| Rule {
                    rate: None,
                    step: None,
                    repeat: Repeat::Refuse,
                    time: Vec::new(),
                    ..rule.clone()
                };
                policy.with_rules(policy.rules.iter().filter(counts).map(bare).collect())
            })
        })
    }

    /// When a difference is there, if not always: it was found in these cases.
    pub(super) fn when(&self, found: &BTreeSet<usize>) -> Option<String> {
        if found.len() == self.cases.len() {
            return None;
        }
        let mut left = found.clone();
        let mut texts = Vec::new();
        while let Some(case) = left.first().copied() {
            let told = self.shortest(case, found);
            left.retain(|case| !self.holds(&told, *case));
            texts.push(self.words(&told));
        }
        Some(texts.join("; "))
    }

    /// What tells this case, and none that was not found, in as few windows as it needs: those that
    /// are open rather than those that are closed.
    fn shortest(&self, case: usize, found: &BTreeSet<usize>) -> Vec<(usize, bool)> {
        let mut told: Vec<(usize, bool)> = self.cases[case].iter().copied().enumerate().collect();
        told.sort_by_key(|(_, open)| !open);
        for place in (0..told.len()).rev() {
            let mut fewer = told.clone();
            fewer.remove(place);
            let mut cases = 0..self.cases.len();
            if cases.all(|case| !self.holds(&fewer, case) || found.contains(&case)) {
                told = fewer;
            }
        }
        told
    }

    fn holds(&self, told: &[(usize, bool)], case: usize) -> bool {
        let mut told = told.iter();
        told.all(|(window, open)| self.cases[case][*window] == *open)
    }

    fn words(&self, told: &[(usize, bool)]) -> String {
        let listed = |wanted: bool| {
            let which = told.iter().filter(|(_, open)| *open == wanted);
            let texts = which.map(|(window, _)| words(&self.windows[*window]));
            texts.collect::<Vec<_>>().join(" and ")
        };
        let [within, outside] = [("within", true), ("outside of", false)].map(|(word, open)| {
            let listed = listed(open);
            (!listed.is_empty()).then(|| format!("{word} {listed}"))
        });
        let parts: Vec<String> = [within, outside].into_iter().flatten().collect();
        parts.join(", ")
    }
}

fn words(windows: &[Window]) -> String {
    let windows: Vec<String> = windows.iter().map(ToString::to_string).collect();
    windows.join(" or ")
}

/// A condition of allows that is another in the two files, by the rule's name.
pub(super) fn changes<T: PartialEq + ToString>(
    old: &Policy,
    new: &Policy,
    condition: fn(&Rule) -> Option<T>,
) -> Vec<ConditionChange> {
    let find = |policy: &'_ Policy, name: &str| {
        let mut rules = policy.rules.iter();
        rules.find(|rule| rule.name == name).map(condition)
    };
    let limited = |policy: &'_ Policy| {
        let rules = policy.rules.iter().filter(|rule| condition(rule).is_some());
        rules.map(|rule| rule.name.clone()).collect::<Vec<_>>()
    };
    let mut names = [limited(old), limited(new)].concat();
    names.sort();
    names.dedup();
    let both = names.into_iter().filter_map(|name| {
        // A rule that is only in one file opens or closes, and that is told.
        let (old, new) = (find(old, &name)?, find(new, &name)?);
        (old != new).then(|| ConditionChange {
            rule: name,
            old: old.map(|condition| condition.to_string()),
            new: new.map(|condition| condition.to_string()),
        })
    });
    both.collect()
}
