//! Why a call to a station is allowed or refused, rule by rule, for people.

use std::fmt;

use fieldlock_profinet::StationName;
use serde::Serialize;

use super::call::{Call, StationOrigin};
use super::decision::StationDecision;
use super::rule::{Matching, StationRule};
use super::view::StationView;
use crate::error::UnknownClient;
use crate::explain::{Mismatch, RuleVerdict, judge_windows, write_verdicts};
use crate::model::client::Side;
use crate::model::decision::RuleId;
use crate::model::phase::Now;
use crate::model::scope::Via;
use crate::policy::Policy;

/// A decision with its grounds. `Display` gives the text, `Serialize` the same for programs.
#[derive(Debug, Clone, Serialize)]
pub struct StationExplanation {
    pub allowed: bool,
    /// Why it is refused.
    pub reason: Option<String>,
    /// The deciding rule.
    pub rule: Option<String>,
    /// What a deny gives as its own reason.
    pub rule_reason: Option<String>,
    /// The `[[client]]` entries that match.
    pub clients: Vec<String>,
    pub station: String,
    pub call: String,
    /// Every rule for stations, in the order of the file: allows, then denies.
    pub rules: Vec<RuleVerdict>,
}

/// What is asked of a station, and when.
#[derive(Debug, Clone, Copy)]
pub struct AskedStation<'a> {
    pub station: &'a StationName,
    pub call: &'a Call,
    pub now: Now,
}

/// Explains what [`StationView::judge`] says about the call.
pub fn explain_station(
    policy: &Policy,
    origin: &StationOrigin<'_>,
    asked: AskedStation<'_>,
) -> StationExplanation {
    let matching = Matching::of(&policy.clients, &origin.controller);
    let via = Via::of(origin.side, origin.via);
    Question {
        policy,
        matching,
        via,
        asked,
    }
    .explain()
}

/// As [`explain_station`], for a controller that matches exactly the `[[client]]` entries of these
/// names.
pub fn explain_station_named(
    policy: &Policy,
    clients: &[String],
    side: Side,
    via: Option<&str>,
    asked: AskedStation<'_>,
) -> Result<StationExplanation, UnknownClient> {
    let matching = Matching {
        sure: policy.places(clients)?,
        unnamed: Vec::new(),
    };
    let via = Via::of(side, via);
    let question = Question {
        policy,
        matching,
        via,
        asked,
    };
    Ok(question.explain())
}

struct Question<'q> {
    policy: &'q Policy,
    matching: Matching,
    via: Via<'q>,
    asked: AskedStation<'q>,
}

impl Question<'_> {
    fn explain(&self) -> StationExplanation {
        let AskedStation { station, call, now } = self.asked;
        let view = StationView::build(self.policy, &self.matching, self.via, station);
        let (reason, rule) = match view.judge(call, now) {
            StationDecision::Allow { rule, .. } => (None, Some(rule)),
            StationDecision::Refuse(refusal) => (Some(refusal.reason), refusal.rule),
        };
        let mut rules = self.policy.stations.iter();
        let deciding = rules.clone().find(|known| Some(known.id) == rule);
        let places = self.matching.sure.iter().chain(&self.matching.unnamed);
        StationExplanation {
            allowed: reason.is_none(),
            reason: reason.map(|reason| reason.to_string()),
            rule: deciding.map(|rule| rule.name.to_string()),
            rule_reason: deciding.and_then(|rule| Some(rule.reason.as_ref()?.to_string())),
            clients: self.names(places),
            station: station.to_string(),
            call: call.to_string(),
            rules: rules.by_ref().map(|r| self.verdict(r, rule)).collect(),
        }
    }

    fn verdict(&self, rule: &StationRule, deciding: Option<RuleId>) -> RuleVerdict {
        let time = judge_windows(&rule.time, rule.is_allow(), self.asked.now);
        let judged = time.and_then(|()| self.judge(rule));
        RuleVerdict {
            rule: rule.name.to_string(),
            effect: if rule.is_allow() { "allow" } else { "deny" },
            applies: judged.is_ok(),
            decides: deciding == Some(rule.id),
            why: judged.unwrap_or_else(|mismatch| mismatch.to_string()),
        }
    }

    /// By looking at the rule alone: what the view must agree with.
    fn judge(&self, rule: &StationRule) -> Result<String, Mismatch> {
        let Some(sure) = self.matching.meets(&rule.clients) else {
            let wanted = self.names(rule.clients.listed()).join(", ");
            return Err(Mismatch::Clients(wanted));
        };
        if !self.via.meets(&rule.via, rule.effect) {
            let wanted = rule.via.listed().join(", ");
            return Err(Mismatch::Via(wanted));
        }
        if !rule.is_for(self.asked.station) {
            return Err(Mismatch::Stations(rule.station_words().to_string()));
        }
        if rule.takes(self.asked.call).is_err() {
            return Err(Mismatch::Calls(rule.grant().to_string()));
        }
        if !sure && rule.is_allow() && !self.asked.call.precedes_connect() {
            return Err(Mismatch::Unnamed);
        }
        Ok(match rule.is_allow() {
            true => "covers the call".to_owned(),
            false => "matches the call".to_owned(),
        })
    }

    fn names<'p>(&self, places: impl IntoIterator<Item = &'p u32>) -> Vec<String> {
        let entries = places.into_iter();
        entries
            .filter_map(|place| self.policy.clients.get(*place as usize))
            .map(|entry| entry.name.clone())
            .collect()
    }
}

impl fmt::Display for StationExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rule, &self.reason) {
            (Some(rule), None) => writeln!(f, "allowed by rule {rule:?}")?,
            (_, reason) => writeln!(f, "refused: {}", reason.as_deref().unwrap_or_default())?,
        }
        let clients = match self.clients.as_slice() {
            [] => "none that the policy knows".to_owned(),
            names => names.join(", "),
        };
        writeln!(f, "  call     {}", self.call)?;
        writeln!(f, "  station  {}", self.station)?;
        writeln!(f, "  client   {clients}")?;
        if let (false, Some(rule)) = (self.allowed, &self.rule) {
            writeln!(f, "  rule     {rule:?}")?;
        }
        if let Some(reason) = &self.rule_reason {
            writeln!(f, "  because  {reason}")?;
        }
        if self.rules.is_empty() {
            return write!(f, "the policy has no rules for stations");
        }
        write_verdicts(f, &self.rules)
    }
}
