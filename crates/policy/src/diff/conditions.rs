//! Conditions of rules: time windows, which become cases of their own, and rates, steps and
//! `repeat`, which are compared rule by rule.

use super::ConditionChange;
use crate::policy::Policy;
use crate::rule::{Repeat, Rule};
use crate::window::Window;

/// Which windows are open. Windows are compared as they are written: two that mean the same hours
/// in other words are two.
pub(super) struct Case {
    pub(super) label: Label,
    open: Vec<Vec<Window>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    Within(String),
    Outside,
    AllOpen,
}

/// No window open, each alone, and all of them; without any window one case.
pub(super) fn cases(old: &Policy, new: &Policy) -> Vec<Case> {
    let mut windows: Vec<Vec<Window>> = Vec::new();
    for rule in old.rules.iter().chain(&new.rules) {
        if !rule.time.is_empty() && !windows.contains(&rule.time) {
            windows.push(rule.time.clone());
        }
    }
    let none = Case {
        label: Label::Outside,
        open: Vec::new(),
    };
    let alone = windows.iter().map(|window| Case {
        label: Label::Within(words(window)),
        open: vec![window.clone()],
    });
    let mut cases: Vec<Case> = std::iter::once(none).chain(alone).collect();
    if windows.len() > 1 {
        cases.push(Case {
            label: Label::AllOpen,
            open: windows,
        });
    }
    cases
}

fn words(windows: &[Window]) -> String {
    let windows: Vec<String> = windows.iter().map(ToString::to_string).collect();
    windows.join(" or ")
}

impl Case {
    /// The policy as it is in this case, without rules with a type, and without rates and steps: what they let through at best.
    pub(super) fn of(&self, policy: &Policy) -> Policy {
        let counts = |rule: &&Rule| rule.time.is_empty() || self.open.contains(&rule.time);
        let counts = |rule: &&Rule| rule.typed.is_none() && counts(rule);
        let bare = |rule: &Rule| Rule {
            rate: None,
            step: None,
            repeat: Repeat::Refuse,
            time: Vec::new(),
            ..rule.clone()
        };
        policy.with_rules(policy.rules.iter().filter(counts).map(bare).collect())
    }
}

/// When a difference is there, if not always: it was found in the cases `found` of `of`.
pub(super) fn when(found: &[&Label], of: usize) -> Option<String> {
    if found.len() == of {
        return None;
    }
    let mut texts: Vec<String> = Vec::new();
    for label in found {
        match label {
            Label::Within(window) => texts.push(format!("within {window}")),
            Label::Outside => texts.push("outside of the time windows".to_owned()),
            Label::AllOpen => {}
        }
    }
    if texts.is_empty() {
        texts.push("while all time windows are open".to_owned());
    }
    Some(texts.join(" and "))
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
