//! Which rules count at a time. Views are built for a phase, so that no request looks at a clock.

use std::sync::Arc;

use crate::model::decision::RuleId;
use crate::model::rule::Rule;

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// Seconds since 1970-01-01 UTC.
    At(i64),
    /// The clock is known to be wrong. Whatever has a time window is judged by the worst that the
    /// time could be: an allow counts as closed, a deny as applying.
    Unknown,
}

/// The time between two changes of which rules count.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Rules outside their windows, ascending.
    resting: Arc<[RuleId]>,
    from: Now,
    until: Option<i64>,
}

impl Phase {
    /// Of these rules, in the order of their ids.
    pub(crate) fn of<'r>(rules: impl Iterator<Item = &'r Rule> + Clone, now: Now) -> Self {
        let Now::At(time) = now else {
            return Self::new(rules, now, None, Rule::is_allow);
        };
        let windows = rules.clone().flat_map(|rule| &rule.time);
        let until = windows.filter_map(|window| window.next_change(time)).min();
        Self::new(rules, now, until, |rule| !rule.is_open(time))
    }

    /// The phase that allows most: every window of an allow is open, none of a deny.
    pub(crate) fn widest<'r>(rules: impl Iterator<Item = &'r Rule>) -> Self {
        Self::new(rules, Now::Unknown, None, |rule| !rule.is_allow())
    }

    fn new<'r>(
        rules: impl Iterator<Item = &'r Rule>,
        from: Now,
        until: Option<i64>,
        rests: impl Fn(&Rule) -> bool,
    ) -> Self {
        let timed = rules.filter(|rule| !rule.time.is_empty());
        Self {
            resting: timed.filter(|r| rests(r)).map(|r| r.id).collect(),
            from,
            until,
        }
    }

    /// Whether it is still this phase. A clock that was set back ends it as well.
    pub fn holds(&self, now: Now) -> bool {
        match (self.from, now) {
            (Now::At(from), Now::At(now)) => {
                from <= now && self.until.is_none_or(|until| now < until)
            }
            (from, now) => from == now,
        }
    }

    /// Whether requests are judged alike in both, with the same reasons.
    pub fn same_rules(&self, other: &Self) -> bool {
        self.resting == other.resting && self.is_known() == other.is_known()
    }

    /// Whether it is known what time it is.
    pub(crate) fn is_known(&self) -> bool {
        self.from != Now::Unknown
    }

    pub(crate) fn counts(&self, rule: &Rule) -> bool {
        self.resting.binary_search(&rule.id).is_err()
    }
}
