//! Why a request is allowed or refused, rule by rule, for people.

use std::fmt;

use fieldlock_modbus::{Request, Write};
use serde::Serialize;

use crate::error::UnknownClient;
use crate::half::{Half, Halves};
use crate::model::address::Span;
use crate::model::client::{Origin, Side};
use crate::model::decision::{Decision, Reason, RuleId};
use crate::model::interval::{Interval, ValueBounds};
use crate::model::phase::Now;
use crate::model::rule::{Repeat, Rule};
use crate::model::scope::Via;
use crate::model::typed::{Placed, Typed};
use crate::model::window::Window;
use crate::policy::Policy;
use crate::station::StationReason;
use crate::table::Entry;
use crate::view::out_of_bounds;

/// A decision with its grounds. `Display` gives the text, `Serialize` the same for programs.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub allowed: bool,
    /// What the client is answered, if refused.
    pub exception: Option<u8>,
    /// Why it is refused.
    pub reason: Option<String>,
    /// The deciding rule.
    pub rule: Option<String>,
    /// What a deny gives as its own reason.
    pub rule_reason: Option<String>,
    /// The `[[client]]` entries that match.
    pub clients: Vec<String>,
    pub device: String,
    pub unit: u8,
    pub request: String,
    /// Every rule, in the order of the file: allows, then denies.
    pub rules: Vec<RuleVerdict>,
}

/// What one rule has to do with the request.
#[derive(Debug, Clone, Serialize)]
pub struct RuleVerdict {
    pub rule: String,
    /// `allow` or `deny`.
    pub effect: &'static str,
    pub applies: bool,
    /// Whether the decision rests on this rule.
    pub decides: bool,
    pub why: String,
}

/// What is asked of a device, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub device: &'a str,
    pub unit: u8,
    pub request: &'a Request<'a>,
    pub now: Now,
}

/// Explains what [`crate::View::decide`] says about the request.
pub fn explain(policy: &Policy, origin: &Origin<'_>, asked: Asked<'_>) -> Explanation {
    let via = Via::of(origin.side, origin.via);
    let clients = policy.matching(&origin.client);
    Question::new(policy, &clients, via, asked).explain()
}

/// As [`explain`], for a client that matches exactly the `[[client]]` entries of these names.
pub fn explain_named(
    policy: &Policy,
    clients: &[String],
    side: Side,
    via: Option<&str>,
    asked: Asked<'_>,
) -> Result<Explanation, UnknownClient> {
    let places = policy.places(clients)?;
    let via = Via::of(side, via);
    Ok(Question::new(policy, &places, via, asked).explain())
}

struct Question<'q> {
    policy: &'q Policy,
    clients: &'q [u32],
    via: Via<'q>,
    asked: Asked<'q>,
    halves: Halves<'q>,
}

impl<'q> Question<'q> {
    fn new(policy: &'q Policy, clients: &'q [u32], via: Via<'q>, asked: Asked<'q>) -> Self {
        Self {
            policy,
            clients,
            via,
            asked,
            halves: Halves::of(asked.request),
        }
    }

    fn explain(&self) -> Explanation {
        let phase = self.policy.phase(self.asked.now);
        let view = self
            .policy
            .view_of(self.clients, self.via, self.asked.device, &phase);
        let decision = view.decide(self.asked.unit, self.asked.request);
        let (refusal, rule) = match decision {
            Decision::Allow { rule, .. } => (None, Some(rule)),
            Decision::Refuse(refusal) => (Some(refusal), refusal.rule),
        };
        let deciding = rule.and_then(|rule| self.policy.rules.get(rule.index()));
        let verdicts = self.policy.rules.iter();
        Explanation {
            allowed: decision.allowed(),
            exception: refusal.map(|refusal| refusal.exception.code()),
            reason: refusal.map(|refusal| refusal.reason.to_string()),
            rule: deciding.map(|rule| rule.name.clone()),
            rule_reason: deciding.and_then(|rule| rule.reason.clone()),
            clients: self.client_names(self.clients),
            device: self.asked.device.to_owned(),
            unit: self.asked.unit,
            request: describe(self.asked.request, &self.halves),
            rules: verdicts.map(|r| self.verdict(r, rule)).collect(),
        }
    }

    fn verdict(&self, rule: &Rule, deciding: Option<RuleId>) -> RuleVerdict {
        let time = judge_windows(&rule.time, rule.is_allow(), self.asked.now);
        let judged = time.and_then(|()| self.judge(rule));
        RuleVerdict {
            rule: rule.name.clone(),
            effect: if rule.is_allow() { "allow" } else { "deny" },
            applies: judged.is_ok(),
            decides: deciding == Some(rule.id),
            why: judged.unwrap_or_else(|mismatch| mismatch.to_string()),
        }
    }

    /// What of the request the rule takes, or why nothing.
    fn judge(&self, rule: &Rule) -> Result<String, Mismatch> {
        self.judge_scope(rule)?;
        let mut taken = self.judge_halves(rule)?;
        for half in self.halves.iter() {
            if let (Some(typed), Some(write)) = (rule.typed_at(half.slot), half.write()) {
                taken += &format!(" ({}; allowed are {})", seen(typed, &write), typed.words());
            }
        }
        if let Some(step) = self.halves.iter().find_map(|half| rule.step_at(half.slot)) {
            taken += &format!(", in steps of at most {}", step.max());
            if self.via == Via::NotJudged {
                taken += " (judged at the edge)";
            }
        }
        if let Some(rate) = rule.rate {
            taken += &format!(", at most {rate}");
        }
        if rule.repeat == Repeat::Allow && self.asked.request.changes_state() {
            taken += ", and again while the outcome of the first is not known";
        }
        Ok(taken)
    }

    fn judge_halves(&self, rule: &Rule) -> Result<String, Mismatch> {
        let Some(second) = &self.halves.second else {
            judge_half(rule, &self.halves.first)?;
            return Ok(match rule.is_allow() {
                true => "covers the request".to_owned(),
                false => "matches the request".to_owned(),
            });
        };
        let verb = if rule.is_allow() { "covers" } else { "matches" };
        match (
            judge_half(rule, &self.halves.first),
            judge_half(rule, second),
        ) {
            (Ok(()), Ok(())) => Ok(format!("{verb} both halves")),
            (Ok(()), Err(why)) => Ok(format!("{verb} the read half; the write half: {why}")),
            (Err(why), Ok(())) => Ok(format!("{verb} the write half; the read half: {why}")),
            (Err(read), Err(write)) => Err(Mismatch::Halves {
                read: read.into(),
                write: write.into(),
            }),
        }
    }

    fn judge_scope(&self, rule: &Rule) -> Result<(), Mismatch> {
        if !rule.applies_to_clients(self.clients) {
            let wanted = self.client_names(rule.clients.listed()).join(", ");
            return Err(Mismatch::Clients(wanted));
        }
        if !rule.applies_via(self.via) {
            let wanted = rule.via.listed().join(", ");
            return Err(Mismatch::Via(wanted));
        }
        if !rule.devices.admits(self.asked.device) {
            let wanted = rule.devices.listed().join(", ");
            return Err(Mismatch::Devices(wanted));
        }
        if !rule.applies_to_unit(self.asked.unit) {
            return Err(match self.asked.unit {
                0 => Mismatch::Broadcast,
                _ => Mismatch::Units(rule.units.to_string()),
            });
        }
        Ok(())
    }

    fn client_names(&self, places: &[u32]) -> Vec<String> {
        places
            .iter()
            .filter_map(|place| self.policy.clients.get(*place as usize))
            .map(|entry| entry.name.clone())
            .collect()
    }
}

/// Whether a rule with these windows applies at this time; if not, when it will.
pub(crate) fn judge_windows(windows: &[Window], is_allow: bool, now: Now) -> Result<(), Mismatch> {
    let time = match now {
        _ if windows.is_empty() => return Ok(()),
        Now::At(time) if windows.iter().any(|window| window.is_open(time)) => return Ok(()),
        Now::At(time) => time,
        Now::Unknown if !is_allow => return Ok(()),
        Now::Unknown => return Err(Mismatch::TimeUnknown),
    };
    let opens = |window: &Window| Some((window.next_open(time)?, window.clone()));
    let next = windows.iter().filter_map(opens).min_by_key(|(at, _)| *at);
    Err(match next {
        Some((at, window)) => Mismatch::Closed {
            opens: window.moment(at),
        },
        None => Mismatch::Over,
    })
}

/// One rule and one half, by looking at every range: what the view's tables must agree with.
fn judge_half(rule: &Rule, half: &Half<'_>) -> Result<(), Mismatch> {
    let Some(bounds) = rule.bounds_at(half.slot) else {
        return Err(match rule.functions.contains(half.slot) {
            true => Mismatch::NoValue,
            false => Mismatch::Functions(rule.functions.to_string()),
        });
    };
    let ranges = rule.intervals(half.slot);
    let wanted = half.interval;
    let entry = |interval| Entry {
        interval,
        value: bounds,
    };
    let taken = ranges.iter().any(|range| match rule.is_allow() {
        true => range.first <= wanted.first && wanted.last <= range.last,
        false => {
            let overlaps = range.first <= wanted.last && wanted.first <= range.last;
            overlaps && (!entry(*range).bounded() || half.writes_within(&entry(*range)))
        }
    });
    let typed = rule.typed_at(half.slot).filter(|_| !rule.is_allow());
    let matches = |typed: &Typed| half.write().is_some_and(|write| typed.matches(&write));
    let taken = taken && typed.is_none_or(matches);
    if !taken {
        return Err(outside(rule, half));
    }
    if let (Some(typed), Some(write)) = (rule.typed_at(half.slot), half.write()) {
        let objection = typed.objects(&write).filter(|_| rule.is_allow());
        return objection.map_or(Ok(()), |reason| {
            let seen = seen(typed, &write);
            Err(Mismatch::Typed { reason, seen })
        });
    }
    let written = half.written();
    let unbounded = bounds == ValueBounds::FULL;
    if !rule.is_allow()
        || unbounded
        || (bounds.contains(written.min) && bounds.contains(written.max))
    {
        return Ok(());
    }
    Err(Mismatch::Value(out_of_bounds(half, bounds, written)))
}

/// Why a rule takes nothing of a request, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("it is for the clients {0}")]
    Clients(String),
    #[error("it is for what comes via {0}")]
    Via(String),
    #[error("it is for the devices {0}")]
    Devices(String),
    #[error("it does not name unit 0 (broadcast)")]
    Broadcast,
    #[error("it is for the units {0}")]
    Units(String),
    #[error("it is for the functions {0}")]
    Functions(String),
    #[error("it is for {listed}{values}")]
    Addresses { listed: String, values: String },
    #[error("it has value bounds and the request writes no value")]
    NoValue,
    #[error("{0}")]
    Value(Reason),
    /// With the write as a rule of that type sees it.
    #[error("{reason}; {seen}")]
    Typed { reason: Reason, seen: String },
    /// Of function 23.
    #[error("the read half: {read}; the write half: {write}")]
    Halves {
        read: Box<Mismatch>,
        write: Box<Mismatch>,
    },
    #[error("it is for the stations {0}")]
    Stations(String),
    #[error("it is for {0}")]
    Calls(String),
    #[error("{}", StationReason::Unnamed)]
    Unnamed,
    #[error("outside its time window; opens {opens}")]
    Closed { opens: String },
    #[error("outside its time window, which does not open any more")]
    Over,
    #[error("{}", Reason::WindowUnknown)]
    TimeUnknown,
}

fn outside(rule: &Rule, half: &Half<'_>) -> Mismatch {
    if half.slot.table().is_none() {
        return Mismatch::Functions(rule.functions.to_string());
    }
    let of_table: Vec<Span> = rule
        .addresses
        .spans()
        .filter(|span| half.slot.table() == Some(span.table))
        .collect();
    let values = match (rule.is_allow(), rule.value, &rule.typed) {
        (false, Some(value), _) => format!(" with values from {} to {}", value.min, value.max),
        (false, _, Some(typed)) => format!(" with {}", typed.words()),
        _ => String::new(),
    };
    let listed = match of_table.as_slice() {
        [] => "other tables".to_owned(),
        spans => list(spans),
    };
    Mismatch::Addresses { listed, values }
}

fn list(items: &[impl fmt::Display]) -> String {
    const SHOWN: usize = 8;
    let mut text: Vec<String> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    if items.len() > SHOWN {
        text.push(format!("and {} more", items.len() - SHOWN));
    }
    text.join(", ")
}

/// What a write is to a rule with a type: `float32 at holding 40-41 = 1.5`.
fn seen(typed: &Typed, write: &Write<'_>) -> String {
    let values: Vec<String> = typed
        .layout
        .written(write)
        .map(
            |Placed {
                 first,
                 last,
                 number,
             }| {
                let place = Span {
                    table: write.range.table,
                    first,
                    last,
                };
                match number {
                    Some(number) => format!("{place} = {number}"),
                    None => format!("{place} in part"),
                }
            },
        )
        .collect();
    format!("as {}: {}", typed.layout.format(), list(&values))
}

/// A request in words: function, addresses, values.
pub(crate) fn described(request: &Request<'_>) -> String {
    describe(request, &Halves::of(request))
}

fn describe(request: &Request<'_>, halves: &Halves<'_>) -> String {
    let mut text = request.function().to_string();
    for half in halves.iter() {
        let Interval { first, last } = half.interval;
        if let Some(table) = half.slot.table() {
            let verb = if half.slot.writes() { "write" } else { "read" };
            text += &format!(", {verb} {}", Span { table, first, last });
        }
    }
    if let Some(write) = request.write() {
        let values: Vec<u16> = write.values.iter().collect();
        if !values.is_empty() {
            text += &format!(" = {}", list(&values));
        }
    }
    if let Some(sub_function) = request.sub_function() {
        text += &format!(", sub-function {sub_function}");
    }
    text
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rule, self.exception, &self.reason) {
            (Some(rule), None, _) => writeln!(f, "allowed by rule {rule:?}")?,
            (_, Some(exception), Some(reason)) => {
                writeln!(f, "refused with exception {exception:#04x}: {reason}")?;
            }
            _ => {}
        }
        let clients = match self.clients.as_slice() {
            [] => "none that the policy knows".to_owned(),
            names => names.join(", "),
        };
        writeln!(f, "  request  {}", self.request)?;
        writeln!(f, "  device   {}, unit {}", self.device, self.unit)?;
        writeln!(f, "  client   {clients}")?;
        if let (false, Some(rule)) = (self.allowed, &self.rule) {
            writeln!(f, "  rule     {rule:?}")?;
        }
        if let Some(reason) = &self.rule_reason {
            writeln!(f, "  because  {reason}")?;
        }
        if self.rules.is_empty() {
            return write!(f, "the policy has no rules");
        }
        write_verdicts(f, &self.rules)
    }
}

/// What each rule has to do with what is asked.
pub(crate) fn write_verdicts(f: &mut fmt::Formatter<'_>, rules: &[RuleVerdict]) -> fmt::Result {
    write!(f, "rules")?;
    for verdict in rules {
        let mark = match (verdict.decides, verdict.applies) {
            (true, _) => '>',
            (false, true) => '+',
            (false, false) => '-',
        };
        let RuleVerdict {
            rule, effect, why, ..
        } = verdict;
        write!(f, "\n  {mark} {effect} {rule:?}: {why}")?;
    }
    Ok(())
}
