//! A policy as one controller sees one station: judges without allocating.

use std::sync::Arc;

use fieldlock_profinet::StationName;

use super::call::{Call, StationOrigin};
use super::decision::{StationDecision, StationReason, StationRefusal};
use super::rule::{Matching, StationRule};
use crate::model::decision::RuleId;
use crate::model::phase::Now;
use crate::model::scope::{ReadOnly, Via};
use crate::policy::Policy;

/// What one controller may do to one station.
#[derive(Debug, Clone, Default)]
pub struct StationView {
    allows: Vec<Applying>,
    denies: Vec<Applying>,
    read_only: bool,
    /// Why nothing at all is allowed, if so.
    closed: Option<StationReason>,
    /// What the policy that narrows this one says of the same pair.
    narrowing: Option<Box<Self>>,
}

#[derive(Debug, Clone)]
struct Applying {
    rule: Arc<StationRule>,
    /// Whether the controller is its client for certain, or has yet to name itself.
    sure: bool,
}

impl Policy {
    /// What this origin may do to the station. Costs a look at every rule, so keep it; it stays
    /// right until the policy is another or the controller names itself.
    pub fn station_view(&self, origin: &StationOrigin<'_>, station: &StationName) -> StationView {
        let via = Via::of(origin.side, origin.via);
        let of = |policy: &Self| {
            let matching = Matching::of(&policy.clients, &origin.controller);
            StationView::build(policy, &matching, via, station)
        };
        StationView {
            narrowing: self.narrowing().map(|local| Box::new(of(local))),
            ..of(self)
        }
    }
}

impl StationView {
    pub(crate) fn build(
        policy: &Policy,
        matching: &Matching,
        via: Via<'_>,
        station: &StationName,
    ) -> Self {
        let mut view = Self {
            read_only: policy.read_only == ReadOnly::All,
            closed: Some(StationReason::Client),
            ..Self::default()
        };
        for rule in &policy.stations {
            let Some(sure) = matching.meets(&rule.clients) else {
                continue;
            };
            if !via.meets(&rule.via, rule.effect) {
                continue;
            }
            let applies = rule.is_for(station);
            if rule.is_allow() {
                view.closed = match (applies, view.closed) {
                    (true, _) | (false, None) => None,
                    (false, Some(_)) => Some(StationReason::Station),
                };
            }
            if applies {
                let rules = match rule.is_allow() {
                    true => &mut view.allows,
                    false => &mut view.denies,
                };
                let rule = Arc::clone(rule);
                rules.push(Applying { rule, sure });
            }
        }
        view
    }

    /// Whether some allow is there for this pair, at whatever time: only then have the two
    /// anything to say to each other.
    pub fn any(&self) -> bool {
        !self.allows.is_empty() && self.narrowing.as_ref().is_none_or(|local| local.any())
    }

    /// Judges one call. Where the policy is narrowed, both have to allow it; the refusal is that of
    /// the first who does not.
    pub fn judge(&self, call: &Call, now: Now) -> StationDecision {
        let closed = match now {
            Now::At(_) => StationReason::Window,
            Now::Unknown => StationReason::WindowUnknown,
        };
        self.judge_where(call, closed, |rule| rule.counts(now))
    }

    /// As [`StationView::judge`], with the rules that count; `closed` is said of an allow that does
    /// not.
    pub(crate) fn judge_where(
        &self,
        call: &Call,
        closed: StationReason,
        counts: impl Fn(&StationRule) -> bool,
    ) -> StationDecision {
        let rule = match self.judge_alone(call, closed, &counts) {
            Ok(rule) => rule,
            Err(refusal) => return StationDecision::Refuse(refusal),
        };
        let Some(local) = &self.narrowing else {
            let narrowing = None;
            return StationDecision::Allow { rule, narrowing };
        };
        match local.judge_alone(call, closed, &counts) {
            Ok(narrowing) => StationDecision::Allow {
                rule,
                narrowing: Some(narrowing),
            },
            Err(refusal) => StationDecision::Refuse(refusal),
        }
    }

    /// The name of a rule that this view decided by, shared.
    pub fn rule_name(&self, rule: RuleId) -> Option<&Arc<str>> {
        self.rule(rule).map(|rule| &rule.name)
    }

    /// Why a deny denies, if it says so.
    pub fn rule_reason(&self, rule: RuleId) -> Option<&Arc<str>> {
        self.rule(rule)?.reason.as_ref()
    }

    fn rule(&self, id: RuleId) -> Option<&StationRule> {
        let mut rules = self.allows.iter().chain(&self.denies);
        let own = rules.find(|applying| applying.rule.id == id);
        match own {
            Some(own) => Some(&own.rule),
            None => self.narrowing.as_ref()?.rule(id),
        }
    }

    fn judge_alone(
        &self,
        call: &Call,
        closed: StationReason,
        counts: &impl Fn(&StationRule) -> bool,
    ) -> Result<RuleId, StationRefusal> {
        let refused = |reason, rule| Err(StationRefusal { rule, reason });
        let denies = |deny: &&Applying| deny.rule.takes(call).is_ok() && counts(&deny.rule);
        if let Some(deny) = self.denies.iter().find(denies) {
            return refused(StationReason::Denied, Some(deny.rule.id));
        }
        if self.read_only && call.changes_state() {
            return refused(StationReason::ReadOnly, None);
        }
        if let Some(reason) = self.closed {
            return refused(reason, None);
        }
        let service = call.service();
        let mut closest = (StationReason::Service { service }, None);
        for allow in &self.allows {
            let rule = Some(allow.rule.id);
            let lacks = match allow.rule.takes(call) {
                Err(reason) => (reason, None),
                Ok(()) if !allow.sure && !call.precedes_connect() => (StationReason::Unnamed, rule),
                Ok(()) if counts(&allow.rule) => return Ok(allow.rule.id),
                Ok(()) => (closed, rule),
            };
            if lacks.0 > closest.0 {
                closest = lacks;
            }
        }
        refused(closest.0, closest.1)
    }
}
