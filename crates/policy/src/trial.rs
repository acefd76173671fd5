//! Tests that stand in the policy file: what a request must come to. A file whose tests fail is not
//! taken, so that a rule which was changed by mistake does not get into force.

use fieldlock_modbus::Request;

use crate::error::{Problem, Problems};
use crate::model::client::{Client, Side};
use crate::model::decision::{Decision, RuleId};
use crate::model::number::Number;
use crate::model::phase::{Now, Phase};
use crate::model::sample::Sample;
use crate::model::scope::Via;
use crate::policy::Policy;
use crate::source::{Expect, Given, SourceGiven, SourceTest};
use crate::station::{Call, Controller, Matching, StationDecision, StationReason, StationView};

/// Which windows are open.
#[derive(Debug, Clone, Copy)]
enum When {
    /// No window of an allow, and all of denies.
    Narrowest,
    /// Every window of an allow, and none of denies.
    Widest,
    At(i64),
}

impl When {
    fn phase(self, policy: &Policy) -> Phase {
        match self {
            Self::Narrowest => policy.phase(Now::Unknown),
            Self::Widest => Phase::widest(policy.all_rules()),
            Self::At(at) => policy.phase(Now::At(at)),
        }
    }

    fn judge(self, view: &StationView, call: &Call) -> StationDecision {
        match self {
            Self::Narrowest => view.judge(call, Now::Unknown),
            Self::Widest => view.judge_where(call, StationReason::Window, |rule| {
                rule.is_allow() || rule.time.is_empty()
            }),
            Self::At(at) => view.judge(call, Now::At(at)),
        }
    }
}

/// What came of a test, of a device as of a station.
struct Outcome {
    got: Expect,
    rule: Option<RuleId>,
    /// Why it was refused.
    reason: Option<String>,
}

/// Runs the tests of a file on the policy that it makes. Keys are there and valid, or have been
/// reported.
pub(crate) fn run(policy: &Policy, tests: &[SourceTest], problems: &mut Problems) {
    // All times lie between these: what both allow or both refuse always is. One after the other,
    // since a policy keeps the views of one phase.
    let in_phase = |when: When| -> Vec<_> {
        let phase = when.phase(policy);
        tests.iter().map(|t| t.run(policy, when, &phase)).collect()
    };
    let [narrowest, widest] = [When::Narrowest, When::Widest].map(in_phase);
    for ((test, narrowest), widest) in tests.iter().zip(narrowest).zip(widest) {
        let outcome = match test.at().map(When::At) {
            Some(at) => test.run(policy, at, &at.phase(policy)),
            None if narrowest.is_ok() == widest.is_ok() => narrowest,
            None => Err(Problem::TestNeedsTime),
        };
        if let Err(problem) = outcome {
            let name = test.name.as_valid().map_or("", |(_, name)| name);
            problems.add(test.span.clone(), format!("test {name:?}"), problem);
        }
    }
}

impl SourceTest {
    /// When it is asked, if it says so.
    fn at(&self) -> Option<i64> {
        let (_, given) = self.given.as_valid()?;
        given.at.as_valid().map(|(_, at)| *at)
    }

    fn run(&self, policy: &Policy, when: When, phase: &Phase) -> Result<(), Problem> {
        let (Some((_, given)), Some((_, expect))) = (self.given.as_valid(), self.expect.as_valid())
        else {
            return Ok(());
        };
        let asked = match given.station.is_absent() {
            true => given.ask(policy, phase)?,
            false => given.ask_station(policy, when)?,
        };
        let Some(Outcome { got, rule, reason }) = asked else {
            return Ok(());
        };
        let rule = rule.map(|rule| policy.rule_name(rule));
        let wanted_rule = self.rule.as_valid().map(|(_, rule)| rule.as_str());
        if got == *expect && (wanted_rule.is_none() || wanted_rule == rule) {
            return Ok(());
        }
        let by = rule.map_or_else(String::new, |rule| format!(" by {rule:?}"));
        Err(Problem::TestFailed {
            expected: expect.text(wanted_rule),
            got: match reason {
                None => format!("allowed{by}"),
                Some(reason) => format!("denied{by}: {reason}"),
            },
        })
    }
}

impl From<Decision> for Outcome {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Allow { rule, .. } => Self {
                got: Expect::Allow,
                rule: Some(rule),
                reason: None,
            },
            Decision::Refuse(refusal) => Self {
                got: Expect::Deny,
                rule: refusal.rule,
                reason: Some(refusal.reason.to_string()),
            },
        }
    }
}

impl From<StationDecision> for Outcome {
    fn from(decision: StationDecision) -> Self {
        match decision {
            StationDecision::Allow { rule, .. } => Self {
                got: Expect::Allow,
                rule: Some(rule),
                reason: None,
            },
            StationDecision::Refuse(refusal) => Self {
                got: Expect::Deny,
                rule: refusal.rule,
                reason: Some(refusal.reason.to_string()),
            },
        }
    }
}

fn valid<T: Copy>(given: &Given<T>) -> Option<T> {
    given.as_valid().map(|(_, value)| *value)
}

fn text(given: &Given<String>) -> Option<&str> {
    given.as_valid().map(|(_, value)| value.as_str())
}

impl Expect {
    fn text(self, rule: Option<&str>) -> String {
        let decision = match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        };
        match rule {
            Some(rule) => format!("{decision} by {rule:?}"),
            None => decision.to_owned(),
        }
    }
}

impl SourceGiven {
    /// `None`: a key is missing or invalid, and was reported.
    fn ask(&self, policy: &Policy, phase: &Phase) -> Result<Option<Outcome>, Problem> {
        let (Some(device), Some(function)) = (text(&self.device), valid(&self.function)) else {
            return Ok(None);
        };
        let (address, quantity) = (valid(&self.address), valid(&self.quantity));
        let value = valid(&self.value).unwrap_or(Number::from(0));
        let order = valid(&self.word_order).unwrap_or_default();
        let sample = Sample::new(function, address, quantity, (value, order));
        let pdu = sample
            .map_err(|error| Problem::TestRequest(error.to_string()))?
            .pdu();
        let request =
            Request::parse(&pdu).map_err(|error| Problem::TestRequest(error.to_string()))?;
        let clients = match self.client.as_valid() {
            Some((_, names)) => places(policy, names)?,
            None => policy.matching(&Client {
                address: valid(&self.ip),
                identity: text(&self.identity),
                role: text(&self.role),
            }),
        };
        let via = text(&self.via);
        let side = via.map_or(Side::Headend, |_| Side::Edge);
        let view = policy.view_of(&clients, Via::of(side, via), device, phase);
        let unit = valid(&self.unit).unwrap_or(1);
        Ok(Some(view.decide(unit, &request).into()))
    }

    /// As [`SourceGiven::ask`], of a station.
    fn ask_station(&self, policy: &Policy, when: When) -> Result<Option<Outcome>, Problem> {
        let (Some((_, station)), Some(service)) = (self.station.as_valid(), valid(&self.service))
        else {
            return Ok(None);
        };
        let (ar, record, slot) = (valid(&self.ar), valid(&self.record), valid(&self.slot));
        let call = Call::new(service, ar, record, slot)
            .map_err(|error| Problem::TestRequest(error.to_string()))?;
        let matching = match (self.client.as_valid(), valid(&self.mac)) {
            (Some((_, names)), _) => Matching {
                sure: places(policy, names)?,
                unnamed: Vec::new(),
            },
            (None, Some(mac)) => {
                let station = None;
                Matching::of(&policy.clients, &Controller { mac, station })
            }
            (None, None) => Matching::default(),
        };
        let via = text(&self.via);
        let via = Via::of(via.map_or(Side::Headend, |_| Side::Edge), via);
        let view = StationView::build(policy, &matching, via, station);
        Ok(Some(when.judge(&view, &call).into()))
    }
}

fn places(policy: &Policy, names: &[String]) -> Result<Vec<u32>, Problem> {
    policy.places(names).map_err(|unknown| {
        let (name, nearest) = (unknown.name, unknown.nearest);
        Problem::UnknownClient { name, nearest }
    })
}
