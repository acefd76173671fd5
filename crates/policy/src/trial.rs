//! Tests that stand in the policy file: what a request must come to. A file whose tests fail is not
//! taken, so that a rule which was changed by mistake does not get into force.

use std::net::IpAddr;
use std::ops::Range;

use fieldlock_modbus::{FunctionCode, Request};

use crate::address::Span;
use crate::client::{Client, Side};
use crate::decision::Decision;
use crate::error::{Problem, Problems};
use crate::phase::{Now, Phase};
use crate::policy::{Policy, Via};
use crate::sample::Sample;
use crate::source::Given;

/// A `[[test]]` as written.
#[derive(Debug)]
pub(crate) struct SourceTest {
    pub(crate) span: Range<usize>,
    pub(crate) name: Given<String>,
    pub(crate) given: Given<SourceGiven>,
    pub(crate) expect: Given<Expect>,
    /// The rule that must decide.
    pub(crate) rule: Given<String>,
}

/// The request that a test is about.
#[derive(Debug)]
pub(crate) struct SourceGiven {
    /// Clients by their names, or else by what is seen of them.
    pub(crate) client: Given<Vec<String>>,
    pub(crate) ip: Given<IpAddr>,
    pub(crate) identity: Given<String>,
    pub(crate) role: Given<String>,
    /// The headend: then the edge decides.
    pub(crate) via: Given<String>,
    pub(crate) device: Given<String>,
    pub(crate) unit: Given<u8>,
    pub(crate) function: Given<FunctionCode>,
    pub(crate) address: Given<Span>,
    pub(crate) quantity: Given<u16>,
    pub(crate) value: Given<u16>,
    /// Seconds since 1970-01-01 UTC.
    pub(crate) at: Given<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Allow,
    Deny,
}

/// Runs the tests of a file on the policy that it makes. Keys are there and valid, or have been
/// reported.
pub(crate) fn run(policy: &Policy, tests: &[SourceTest], problems: &mut Problems) {
    for test in tests {
        if let Err(problem) = test.run(policy) {
            let name = test.name.as_valid().map_or("", |(_, name)| name);
            problems.add(test.span.clone(), format!("test {name:?}"), problem);
        }
    }
}

impl SourceTest {
    fn run(&self, policy: &Policy) -> Result<(), Problem> {
        let (Some((_, given)), Some((_, expect))) = (self.given.as_valid(), self.expect.as_valid())
        else {
            return Ok(());
        };
        if let Some((_, at)) = given.at.as_valid() {
            let phase = policy.phase(Now::At(*at));
            return self.judge(policy, *expect, given.ask(policy, &phase)?);
        }
        // All times lie between these: what both allow or both refuse always is.
        let narrowest = given.ask(policy, &policy.phase(Now::Unknown))?;
        let widest = given.ask(policy, &Phase::widest(policy))?;
        let [narrowest, widest] = [narrowest, widest].map(|d| self.judge(policy, *expect, d));
        if narrowest.is_ok() != widest.is_ok() {
            return Err(Problem::TestNeedsTime);
        }
        narrowest
    }

    /// Whether the decision is the expected one. `None` asks nothing.
    fn judge(
        &self,
        policy: &Policy,
        expect: Expect,
        decision: Option<Decision>,
    ) -> Result<(), Problem> {
        let Some(decision) = decision else {
            return Ok(());
        };
        let (got, rule) = match decision {
            Decision::Allow { rule, .. } => (Expect::Allow, Some(rule)),
            Decision::Refuse(refusal) => (Expect::Deny, refusal.rule),
        };
        let rule = rule.map(|rule| policy.rule_name(rule));
        let wanted_rule = self.rule.as_valid().map(|(_, rule)| rule.as_str());
        if got == expect && (wanted_rule.is_none() || wanted_rule == rule) {
            return Ok(());
        }
        let by = rule.map_or_else(String::new, |rule| format!(" by {rule:?}"));
        Err(Problem::TestFailed {
            expected: expect.text(wanted_rule),
            got: match decision {
                Decision::Allow { .. } => format!("allowed{by}"),
                Decision::Refuse(refusal) => format!("denied{by}: {}", refusal.reason),
            },
        })
    }
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
    fn ask(&self, policy: &Policy, phase: &Phase) -> Result<Option<Decision>, Problem> {
        fn valid<T: Copy>(given: &Given<T>) -> Option<T> {
            given.as_valid().map(|(_, value)| *value)
        }
        fn text(given: &Given<String>) -> Option<&str> {
            given.as_valid().map(|(_, value)| value.as_str())
        }
        let (Some(device), Some(function)) = (text(&self.device), valid(&self.function)) else {
            return Ok(None);
        };
        let (address, quantity) = (valid(&self.address), valid(&self.quantity));
        let sample = Sample::new(function, address, quantity, valid(&self.value).unwrap_or(0));
        let pdu = sample
            .map_err(|error| Problem::TestRequest(error.to_string()))?
            .pdu();
        let request =
            Request::parse(&pdu).map_err(|error| Problem::TestRequest(error.to_string()))?;
        let clients = match self.client.as_valid() {
            Some((_, names)) => policy.places(names).map_err(|unknown| {
                let (name, nearest) = (unknown.name, unknown.nearest);
                Problem::UnknownClient { name, nearest }
            })?,
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
        Ok(Some(view.decide(unit, &request)))
    }
}
