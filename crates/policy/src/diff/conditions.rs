//! Conditions of rules: time windows, which become cases of their own, and rates, which are
//! compared rule by rule.

use crate::policy::Policy;
use crate::rate::Rate;
use crate::rule::Rule;
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
    /// The policy as it is in this case, without rates: what they let through at first.
    pub(super) fn of(&self, policy: &Policy) -> Policy {
        let counts = |rule: &&Rule| rule.time.is_empty() || self.open.contains(&rule.time);
        let bare = |rule: &Rule| Rule {
            rate: None,
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

/// The rate of an allow, by the rule's name, in one file and in the other.
pub(super) fn rates(old: &Policy, new: &Policy) -> Vec<(String, [Option<Rate>; 2])> {
    let find = |policy: &'_ Policy, name: &str| {
        let mut rules = policy.rules.iter();
        rules.find(|rule| rule.name == name).map(|rule| rule.rate)
    };
    let limited = |policy: &'_ Policy| {
        let rules = policy.rules.iter().filter(|rule| rule.rate.is_some());
        rules.map(|rule| rule.name.clone()).collect::<Vec<_>>()
    };
    let mut names = [limited(old), limited(new)].concat();
    names.sort();
    names.dedup();
    let both = names.into_iter().filter_map(|name| {
        // A rule that is only in one file opens or closes, and that is told.
        let rates = [find(old, &name)?, find(new, &name)?];
        (rates[0] != rates[1]).then_some((name, rates))
    });
    both.collect()
}
