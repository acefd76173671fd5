//! What is wrong with a policy file: every place at once, each with what to do.

mod modbus;
mod profinet;

use std::fmt;
use std::ops::Range;

use crate::model::cidr::CidrError;
use crate::model::rate::Rate;

pub use modbus::ModbusProblem;
pub use profinet::ProfinetProblem;

/// At most this many places of one file are reported.
const MAX_REPORTED: usize = 50;

/// The places of one file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors {
    pub file: String,
    pub errors: Vec<PolicyError>,
    /// How many more there are than are listed.
    pub omitted: usize,
}

impl std::error::Error for PolicyErrors {}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:{}:{}: ", self.file, error.line, error.column)?;
            if !error.key.is_empty() {
                write!(f, "{}: ", error.key)?;
            }
            write!(f, "{}", error.problem)?;
        }
        if self.omitted > 0 {
            let errors = if self.omitted == 1 { "error" } else { "errors" };
            write!(f, "\n{}: {} more {errors}", self.file, self.omitted)?;
        }
        Ok(())
    }
}

/// One place: line and column count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    pub line: usize,
    pub column: usize,
    /// `allow.address`; empty for what belongs to no key.
    pub key: String,
    pub problem: Problem,
}

/// What is wrong at a place, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is not TOML; in the words of its parser.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// The file is longer than any policy that a person can judge.
    #[error("the file has {got} bytes, at most {max} are read")]
    TooLarge { got: usize, max: usize },
    /// A file has more entries, or a list more items, than are read.
    #[error("{got} entries, at most {max} are allowed")]
    TooMany { got: usize, max: usize },
    /// A key that a table of this kind does not have.
    #[error("unknown key; {}", did_you_mean(.nearest, .known))]
    UnknownKey {
        nearest: Option<String>,
        known: Vec<&'static str>,
    },
    /// A key without which its table means nothing.
    #[error("missing; {hint}")]
    Missing { hint: &'static str },
    /// A value of another TOML type than its key takes.
    #[error("expected {expected}, found {found}")]
    Type {
        expected: &'static str,
        found: &'static str,
    },
    /// `syntax` names a version that this build does not read.
    #[error("this file is written for syntax {got}; this version reads syntax 1")]
    Version { got: i64 },
    /// An empty list, where it could be taken for all or for none.
    #[error("the list is empty; {hint}")]
    Empty { hint: &'static str },
    /// `"any"` beside other items.
    #[error("\"any\" means all and must stand alone")]
    AnyAmongOthers,
    /// A device, headend or edge name that certificates could not carry.
    #[error("{0:?} is not a name; names have 1 to 63 of a-z, 0-9 and, not at the ends, hyphens")]
    Name(String),
    /// A name or comment that is empty, too long, or would steer a terminal.
    #[error("{got:?} is not usable here; 1 to {max} characters, none of them a control character")]
    Text { got: String, max: usize },
    /// Two entries of one kind with one name.
    #[error("the name {name:?} is already used at line {line}; the audit log needs each name once")]
    Duplicate { name: String, line: usize },
    /// An entry called `any`.
    #[error("\"any\" means all and can't be a name")]
    Reserved,
    /// A rule or test for a client that no `[[client]]` defines.
    #[error("no [[client]] is named {name:?}; {}", nearest_or(.nearest, "define it"))]
    UnknownClient {
        name: String,
        nearest: Option<String>,
    },
    /// A rule that uses a set that no `[[set]]` defines.
    #[error("no [[set]] is named {name:?}; {}", nearest_or(.nearest, "define it"))]
    UnknownSet {
        name: String,
        nearest: Option<String>,
    },
    /// A rule uses a set for a key that the set does not list.
    #[error("the set {name:?} lists no {key}; add {key} = [...] to it")]
    SetWithoutKey { name: String, key: String },
    /// A set named where only a rule may name one.
    #[error("only a rule can name a set; list the items themselves")]
    SetOutsideRule,
    /// A set with `"any"` in it.
    #[error("a set lists what it means; write \"any\" in the rule itself")]
    AnyInSet,
    /// Sets within rules make more items than a policy may hold.
    #[error("with this, sets put more than {max} items into rules; split the set or the file")]
    TooManyBySets { max: usize },
    /// A client whose name reads as a reference to a set.
    #[error("\"set:\" begins what names a set, so a client's name can't begin with it")]
    ReservedForSets,
    /// A client that nothing tells from others.
    #[error(
        "a client must be told by at least one of address, identity and role, or by its mac where it is a controller of PROFINET"
    )]
    ClientWithoutKey,
    /// A client with keys of Modbus and of PROFINET.
    #[error(
        "a client is one of Modbus (address, identity, role) or of PROFINET (mac, station); make it two [[client]] entries"
    )]
    ClientOfTwoProtocols,
    /// A rule or test with both `device` and `station`.
    #[error("it is for devices (Modbus) or for stations (PROFINET); make it two")]
    DeviceAndStation,
    /// A key of Modbus in a rule for stations.
    #[error(
        "this key belongs to devices (Modbus), and a station (PROFINET) is meant; leave it out"
    )]
    KeyOfDevices,
    /// A key of PROFINET in a rule for devices.
    #[error(
        "this key belongs to stations (PROFINET), and a device (Modbus) is meant; leave it out"
    )]
    KeyOfStations,
    /// A client's address that is not one, nor a network.
    #[error("{0}")]
    Cidr(#[from] CidrError),
    /// `reason` in an allow.
    #[error("only a [[deny]] has a reason; use comment")]
    ReasonInAllow,
    /// A text that is not a day of the week or range of them.
    #[error(
        "{0:?} is no day of the week; write days such as \"mon\" or ranges such as \"mon-fri\""
    )]
    Day(String),
    /// A text that is not a time of the day.
    #[error("{0:?} is no time of the day; write hours and minutes, from \"00:00\" to \"24:00\"")]
    Hour(String),
    /// Hours that end where they begin.
    #[error("it begins and ends at the same time; leave out from and to for the whole day")]
    HoursEmpty,
    /// A word that names no time zone.
    #[error(
        "no time zone is named {name:?}; {}",
        nearest_or(.nearest, "write an IANA name such as \"Europe/Berlin\", or \"UTC\"")
    )]
    Zone {
        name: String,
        nearest: Option<String>,
    },
    /// A zone with nothing that depends on it.
    #[error("nothing goes by the zone; give days, from or to, or leave it out")]
    ZoneUnused,
    /// A text that is not a date and time with an offset.
    #[error(
        "{0:?} is no moment; write date, time and offset, such as \"2026-03-02T07:00:00+01:00\""
    )]
    Moment(String),
    /// A test of what windows decide, without a time.
    #[error(
        "its outcome depends on the time; give at = \"2026-03-02T07:00:00+01:00\" or another moment"
    )]
    TestNeedsTime,
    /// A number of requests outside the range of rates.
    #[error("{got} is not a number of requests from 1 to {}", Rate::MAX_COUNT)]
    Requests { got: i64 },
    /// `rate` in a deny.
    #[error("only an [[allow]] has a rate: what it does not let through is refused")]
    RateInDeny,
    /// A length of time outside the range of rates.
    #[error(
        "{got:?} is no span of time from 1s to {}h; write seconds, minutes or hours, such as \"10s\", \"5m\" or \"1h\"",
        Rate::MAX_SECONDS / 3600
    )]
    Span { got: String },
    /// `step` in a deny.
    #[error("only an [[allow]] has a step: what is further away is refused")]
    StepInDeny,
    /// `repeat` in a deny.
    #[error("only an [[allow]] has repeat: what a deny matches is not sent at all; leave it out")]
    RepeatInDeny,
    /// `repeat` in a rule that lets nothing be written.
    #[error("no function of this rule writes, and whatever reads may be repeated; leave it out")]
    RepeatWithoutWrite,
    /// The policy decides otherwise than a `[[test]]` of the file expects.
    #[error("it fails: expected {expected}, but it is {got}")]
    TestFailed { expected: String, got: String },
    /// The parts of a test's request contradict each other.
    #[error("its request does not fit together: {0}")]
    TestRequest(String),
    /// A test that names its client in two ways.
    #[error("give the client's name, or its ip, identity and role, or its mac; not both")]
    TestClientTwice,
    /// Of the keys of Modbus.
    #[error(transparent)]
    Modbus(#[from] ModbusProblem),
    /// Of the keys of PROFINET.
    #[error(transparent)]
    Profinet(#[from] ProfinetProblem),
}

/// A client that somebody asks about by name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy has no [[client]] named {name:?}{}", .nearest.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
pub struct UnknownClient {
    pub name: String,
    pub nearest: Option<String>,
}

/// Collects problems by byte offset until the end of the file.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<(Range<usize>, String, Problem)>,
}

impl Problems {
    pub(crate) fn add(
        &mut self,
        span: Range<usize>,
        key: impl Into<String>,
        problem: impl Into<Problem>,
    ) {
        self.found.push((span, key.into(), problem.into()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn into_result(mut self, source: &str, file: &str) -> Result<(), PolicyErrors> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|(span, ..)| span.start);
        let omitted = self.found.len().saturating_sub(MAX_REPORTED);
        let errors = self.found.into_iter().take(MAX_REPORTED);
        Err(PolicyErrors {
            file: file.to_owned(),
            errors: errors
                .map(|(span, key, problem)| {
                    let (line, column) = position(source, span.start);
                    PolicyError {
                        line,
                        column,
                        key,
                        problem,
                    }
                })
                .collect(),
            omitted,
        })
    }
}

/// Line and column of a byte offset, both from 1, the column in characters.
pub(crate) fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[start..].chars().count() + 1;
    (line, column)
}

fn did_you_mean(nearest: &Option<String>, known: &[&str]) -> String {
    match nearest {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

fn nearest_or(nearest: &Option<String>, otherwise: &str) -> String {
    match nearest {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None => otherwise.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(count: usize) -> PolicyErrors {
        let mut problems = Problems::default();
        for at in 0..count {
            problems.add(at..at + 1, "", Problem::Reserved);
        }
        problems
            .into_result(&"\n".repeat(count), "policy.toml")
            .unwrap_err()
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        for (more, last) in [
            (1, "policy.toml: 1 more error"),
            (2, "policy.toml: 2 more errors"),
        ] {
            let errors = problems(MAX_REPORTED + more);
            assert_eq!(errors.errors.len(), MAX_REPORTED);
            assert_eq!(errors.to_string().lines().last(), Some(last));
        }
        assert_eq!(problems(1).to_string().lines().count(), 1);
    }

    #[test]
    fn problems_come_in_the_order_of_the_file() {
        let mut problems = Problems::default();
        assert!(problems.is_empty());
        problems.add(8..9, "allow.rate", Problem::RateInDeny);
        problems.add(
            3..4,
            "allow.unit",
            ModbusProblem::Unit("\"9-1\"".to_owned()),
        );
        let errors = problems.into_result("ä\nab\nü=", "p").unwrap_err();
        let places: Vec<_> = errors.errors.iter().map(|e| (e.line, e.column)).collect();
        assert_eq!(places, [(2, 1), (3, 2)]);
    }

    #[test]
    fn limits_in_texts_are_those_that_are_held() {
        for (problem, limit) in [
            (Problem::Requests { got: 0 }, "1 to 1000000"),
            (Problem::Span { got: "2d".into() }, "1s to 24h"),
            (
                ModbusProblem::Within { got: "1d".into() }.into(),
                "100ms to 1h",
            ),
            (ModbusProblem::FunctionCode { got: 128 }.into(), "1 to 127"),
            (
                ModbusProblem::SubFunction { got: "8/31".into() }.into(),
                "0 to 30",
            ),
        ] {
            let text = problem.to_string();
            assert!(text.contains(limit), "{text}");
        }
    }
}
