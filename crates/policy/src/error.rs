//! What is wrong with a policy file: every place at once, each with what to do.

use std::fmt;
use std::ops::Range;

use crate::model::address::{AddressError, Span};
use crate::model::cidr::CidrError;
use crate::model::number::{Bounds, Number, NumberType};

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
            write!(f, "\n{}: {} more errors", self.file, self.omitted)?;
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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("the file has {got} bytes, at most {max} are read")]
    TooLarge { got: usize, max: usize },
    #[error("{got} entries, at most {max} are allowed")]
    TooMany { got: usize, max: usize },
    #[error("unknown key; {}", did_you_mean(.nearest, .known))]
    UnknownKey {
        nearest: Option<String>,
        known: Vec<&'static str>,
    },
    #[error("missing; {hint}")]
    Missing { hint: &'static str },
    #[error("expected {expected}, found {found}")]
    Type {
        expected: &'static str,
        found: &'static str,
    },
    #[error("this file is written for syntax {got}; this version reads syntax 1")]
    Version { got: i64 },
    #[error("the list is empty; {hint}")]
    Empty { hint: &'static str },
    #[error("\"any\" means all and must stand alone")]
    AnyAmongOthers,
    #[error(
        "{got:?} is no part of a function; write \"8/0\", \"8/11-18\" or \"43/14\": functions 8 and 43 alone \
         have sub-functions, 0 to 30"
    )]
    SubFunction { got: String },
    #[error("{0:?} is not a name; names have 1 to 63 of a-z, 0-9 and, not at the ends, hyphens")]
    Name(String),
    #[error("{got:?} is not usable here; 1 to {max} characters, none of them a control character")]
    Text { got: String, max: usize },
    #[error("the name {name:?} is already used at line {line}; the audit log needs each name once")]
    Duplicate { name: String, line: usize },
    #[error("\"any\" means all and can't be a name")]
    Reserved,
    #[error("no [[client]] is named {name:?}; {}", nearest_or(.nearest, "define it"))]
    UnknownClient {
        name: String,
        nearest: Option<String>,
    },
    #[error("no [[set]] is named {name:?}; {}", nearest_or(.nearest, "define it"))]
    UnknownSet {
        name: String,
        nearest: Option<String>,
    },
    #[error("the set {name:?} lists no {key}; add {key} = [...] to it")]
    SetWithoutKey { name: String, key: String },
    #[error("only a rule can name a set; list the items themselves")]
    SetOutsideRule,
    #[error("a set lists what it means; write \"any\" in the rule itself")]
    AnyInSet,
    #[error("with this, sets put more than {max} items into rules; split the set or the file")]
    TooManyBySets { max: usize },
    #[error("\"set:\" begins what names a set, so a client's name can't begin with it")]
    ReservedForSets,
    #[error(
        "a client must be told by at least one of address, identity and role, or by its mac where it is a controller of PROFINET"
    )]
    ClientWithoutKey,
    #[error(
        "a client is one of Modbus (address, identity, role) or of PROFINET (mac, station); make it two [[client]] entries"
    )]
    ClientOfTwoProtocols,
    #[error(
        "a name alone tells nothing, anyone may use it; add mac = [...], the addresses it speaks from"
    )]
    ControllerWithoutMac,
    #[error(
        "{0:?} is no Ethernet address; write six octets in hexadecimal, such as \"00:1b:1b:01:02:03\""
    )]
    Mac(String),
    #[error("{0} is not the address of one station: it is a group's, or all zero")]
    MacOfGroup(String),
    #[error("{name:?} is no name-of-station: {why}")]
    Station {
        name: String,
        why: fieldlock_profinet::NameError,
    },
    #[error(
        "no service or group is named {name:?}; {}",
        nearest_or(.nearest, "write io, records, or services such as identify, connect, read, write, set-name, or any")
    )]
    UnknownService {
        name: String,
        nearest: Option<String>,
    },
    #[error(
        "no service is named {name:?}; {}",
        nearest_or(.nearest, "a test is about a single one, such as identify, connect, read or set-name")
    )]
    UnknownSingleService {
        name: String,
        nearest: Option<String>,
    },
    #[error("no kind of AR is named {name:?}; {}", did_you_mean(.nearest, .known))]
    UnknownAr {
        name: String,
        nearest: Option<String>,
        known: Vec<&'static str>,
    },
    #[error(
        "{0:?} is no index of a record or rising range, such as \"0xaff0\" or \"0x8000-0x80ff\""
    )]
    Record(String),
    #[error(
        "{0:?} is no slot; write \"1\", a range \"1-4\", or with a subslot \"1.1\" or \"1.0x8000\""
    )]
    Slot(String),
    #[error("{0:?} is not one slot with its subslot; write \"1.1\" or \"1.0x8000\"")]
    SlotAlone(String),
    #[error("it is for devices (Modbus) or for stations (PROFINET); make it two")]
    DeviceAndStation,
    #[error(
        "this key belongs to devices (Modbus), and a station (PROFINET) is meant; leave it out"
    )]
    KeyOfDevices,
    #[error(
        "this key belongs to stations (PROFINET), and a device (Modbus) is meant; leave it out"
    )]
    KeyOfStations,
    #[error("no service of this rule has it: it belongs to {of}; leave it out")]
    KeyWithoutService { of: &'static str },
    #[error("{0}")]
    Cidr(#[from] CidrError),
    #[error("unit {0} is not a number or rising range from 0 to 255")]
    Unit(String),
    #[error("a range of units can't include 0 (broadcast); list 0 by itself")]
    UnitRangeWithBroadcast,
    #[error("function codes are 1 to 127, found {0}")]
    FunctionCode(i64),
    #[error(
        "no function or group is named {name:?}; {}",
        nearest_or(.nearest, "write a number from 1 to 127, or read, write, diagnostics, files, fifo, programming or any")
    )]
    UnknownFunction {
        name: String,
        nearest: Option<String>,
    },
    #[error("{0}")]
    Address(#[from] AddressError),
    #[error("{}", value_of(.got, *.number))]
    Value { got: String, number: NumberType },
    #[error("no value lies between min {min} and max {max}")]
    ValueReversed { min: Number, max: Number },
    #[error("no type is named {name:?}; {}", nearest_or(.nearest, &format!("write {}", NumberType::names().join(", "))))]
    UnknownType {
        name: String,
        nearest: Option<String>,
    },
    #[error(
        "it is about values of several registers; give the rule type = \"int32\", \"uint32\", \"float32\" or \"float64\", or leave it out"
    )]
    WithoutWideType,
    #[error(
        "no function of this rule writes registers, so no value of a type is written; leave it out"
    )]
    TypeWithoutRegisters,
    #[error("without value a deny matches every value of any type; leave it out, or give value")]
    TypeInDeny,
    #[error("a deny matches a write of a part of a value always; leave it out")]
    PartialInDeny,
    #[error("coils have no type; give functions 5 and 15 and their coils a rule of their own")]
    TypeOfCoils,
    #[error(
        "with a type it must be known where values begin; list the ranges of registers in place of \"any\""
    )]
    TypeAnywhere,
    #[error(
        "{span} is not made of whole values: a {number} takes {} registers; begin with the first register of a value and end with the last of one, such as {}",
        .number.registers(), whole(*.span, *.number)
    )]
    Uneven { span: Span, number: NumberType },
    #[error(
        "{span} does not begin where a {number} of {joined} does, which the ranges of this rule make together; let them agree, or make them two rules"
    )]
    Interleaved {
        span: Span,
        joined: Span,
        number: NumberType,
    },
    #[error("no function of this rule writes, so there is no value to bound; leave it out")]
    ValueWithoutWrite,
    #[error(
        "the values of {function} can't be judged; give that function a rule of its own, without {key}"
    )]
    ValueOfOpaque { function: String, key: &'static str },
    #[error(
        "\"any\" function includes diagnostics, files and programming, which no address limits; name functions or groups, such as [\"read\", \"write\"], or write address = \"any\""
    )]
    AnyFunctionAtAddresses,
    #[error("only a [[deny]] has a reason; use comment")]
    ReasonInAllow,
    #[error(
        "{0:?} is no day of the week; write days such as \"mon\" or ranges such as \"mon-fri\""
    )]
    Day(String),
    #[error("{0:?} is no time of the day; write hours and minutes, from \"00:00\" to \"24:00\"")]
    Hour(String),
    #[error("it begins and ends at the same time; leave out from and to for the whole day")]
    HoursEmpty,
    #[error(
        "no time zone is named {name:?}; {}",
        nearest_or(.nearest, "write an IANA name such as \"Europe/Berlin\", or \"UTC\"")
    )]
    Zone {
        name: String,
        nearest: Option<String>,
    },
    #[error("nothing goes by the zone; give days, from or to, or leave it out")]
    ZoneUnused,
    #[error(
        "{0:?} is no moment; write date, time and offset, such as \"2026-03-02T07:00:00+01:00\""
    )]
    Moment(String),
    #[error(
        "its outcome depends on the time; give at = \"2026-03-02T07:00:00+01:00\" or another moment"
    )]
    TestNeedsTime,
    #[error("{got} is not a number of requests from 1 to 1000000")]
    Requests { got: i64 },
    #[error("only an [[allow]] has a rate: what it does not let through is refused")]
    RateInDeny,
    #[error(
        "{0:?} is no span of time from 1s to 24h; write seconds, minutes or hours, such as \"10s\", \"5m\" or \"1h\""
    )]
    Span(String),
    #[error("{}", step_of(.got, *.number))]
    Step { got: String, number: NumberType },
    #[error(
        "{0:?} is no span of time from 100ms to 1h; write it such as \"500ms\", \"10s\", \"5m\" or \"1h\""
    )]
    Within(String),
    #[error("only an [[allow]] has a step: what is further away is refused")]
    StepInDeny,
    #[error(
        "no function of this rule writes registers, so there is no step to bound; leave it out"
    )]
    StepWithoutRegisters,
    #[error("only an [[allow]] has repeat: what a deny matches is not sent at all; leave it out")]
    RepeatInDeny,
    #[error("no function of this rule writes, and whatever reads may be repeated; leave it out")]
    RepeatWithoutWrite,
    #[error("it fails: expected {expected}, but it is {got}")]
    TestFailed { expected: String, got: String },
    #[error("its request does not fit together: {0}")]
    TestRequest(String),
    #[error("give the client's name, or its ip, identity and role, or its mac; not both")]
    TestClientTwice,
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

fn value_of(got: &str, number: NumberType) -> String {
    let Bounds { min, max } = number.all();
    match number {
        NumberType::Uint16 => format!(
            "{got} is not a register value from 0 to 65535; for negative values give the rule type = \"int16\""
        ),
        _ if number.is_float() => format!("{got} is no finite number of type {number}"),
        _ => format!("{got} is no {number}: those are the whole numbers from {min} to {max}"),
    }
}

fn step_of(got: &str, number: NumberType) -> String {
    match number.is_float() {
        true => format!("{got} is not a step: it must be above 0, and finite as a {number}"),
        false => format!("{got} is not a step from 1 to {}", number.all().max),
    }
}

/// The range up to the end of the value that it cuts.
fn whole(span: Span, number: NumberType) -> Span {
    let size = u32::from(number.registers());
    let count = u32::from(span.last - span.first) + 1;
    let last = u32::from(span.first) + count.next_multiple_of(size) - 1;
    let last = u16::try_from(last).unwrap_or(span.last);
    Span { last, ..span }
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
