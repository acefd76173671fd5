//! What is wrong with a rule or test for devices.

use super::nearest_or;
use crate::model::address::{AddressError, Span};
use crate::model::function::{self, Slot};
use crate::model::number::{Bounds, Number, NumberType};
use crate::model::step::Step;
use crate::model::subfunction::SubFunctions;

/// What is wrong with keys that only rules and tests of Modbus have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModbusProblem {
    /// What stands after a function's number is not a sub-function or MEI type.
    #[error(
        "{got:?} is not a sub-function; write \"8/0\", \"8/11-18\" or \"43/14\": functions 8 and 43 alone \
         have sub-functions, 0 to {}",
        SubFunctions::LAST
    )]
    SubFunction { got: String },
    /// A text that is not a unit or range of them.
    #[error("unit {0} is not a number or rising range from 0 to 255")]
    Unit(String),
    /// A range that would take in broadcast unnoticed.
    #[error("a range of units can't include 0 (broadcast); list 0 by itself")]
    UnitRangeWithBroadcast,
    /// A number that is not a function code.
    #[error("function codes are 1 to {}, found {got}", Slot::COUNT - 1)]
    FunctionCode { got: i64 },
    /// A word that names neither a function nor a group of them.
    #[error(
        "no function or group is named {name:?}; {}",
        nearest_or(.nearest, &functions())
    )]
    UnknownFunction {
        name: String,
        nearest: Option<String>,
    },
    /// An address of a coil or register that can't be read, or could mean two things.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// A bound, or a test's value, that the type of the rule does not have.
    #[error("{}", value_of(.got, *.number))]
    Value { got: String, number: NumberType },
    /// Bounds between which there is nothing.
    #[error("no value lies between min {min} and max {max}")]
    ValueReversed { min: Number, max: Number },
    /// A word that names no type of numbers.
    #[error("no type is named {name:?}; {}", nearest_or(.nearest, &format!("write {}", NumberType::names().join(", "))))]
    UnknownType {
        name: String,
        nearest: Option<String>,
    },
    /// `word_order` or `partial` without a type of several registers.
    #[error(
        "it is about values of several registers; give the rule type = \"int32\", \"uint32\", \"float32\" or \"float64\", or leave it out"
    )]
    WithoutWideType,
    /// A type in a rule that lets no registers be written.
    #[error(
        "no function of this rule writes registers, so no value of a type is written; leave it out"
    )]
    TypeWithoutRegisters,
    /// A type in a deny without bounds, where it changes nothing.
    #[error("without value a deny matches every value of any type; leave it out, or give value")]
    TypeInDeny,
    /// `partial` in a deny, which takes parts always.
    #[error("a deny matches a write of a part of a value always; leave it out")]
    PartialInDeny,
    /// A type in a rule that lets coils be written too.
    #[error("coils have no type; give functions 5 and 15 and their coils a rule of their own")]
    TypeOfCoils,
    /// A type with `address = "any"`: nothing says where values begin.
    #[error(
        "with a type it must be known where values begin; list the ranges of registers in place of \"any\""
    )]
    TypeAnywhere,
    /// A range that cuts a value of the rule's type.
    #[error(
        "{span} is not made of whole values: a {number} takes {} registers; begin with the first register of a value and end with the last of one, such as {}",
        .number.registers(), whole(*.span, *.number)
    )]
    Uneven { span: Span, number: NumberType },
    /// Ranges that make values begin at different places of one run of registers.
    #[error(
        "{span} does not begin where a {number} of {joined} does, which the ranges of this rule make together; let them agree, or make them two rules"
    )]
    Interleaved {
        span: Span,
        joined: Span,
        number: NumberType,
    },
    /// Bounds in a rule that lets nothing be written.
    #[error("no function of this rule writes, so there is no value to bound; leave it out")]
    ValueWithoutWrite,
    /// Bounds for a function whose values have no known form.
    #[error(
        "the values of {function} can't be judged; give that function a rule of its own, without {key}"
    )]
    ValueOfOpaque { function: String, key: &'static str },
    /// Every function at some addresses, though many functions have none.
    #[error(
        "\"any\" function includes diagnostics, files and programming, which no address limits; name functions or groups, such as [\"read\", \"write\"], or write address = \"any\""
    )]
    AnyFunctionAtAddresses,
    /// A greatest change that the type of the rule does not have.
    #[error("{}", step_of(.got, *.number))]
    Step { got: String, number: NumberType },
    /// An age of last values outside its range.
    #[error(
        "{got:?} is no span of time from {}ms to {}h; write it such as \"500ms\", \"10s\", \"5m\" or \"1h\"",
        Step::WITHIN.start(),
        Step::WITHIN.end() / 3_600_000
    )]
    Within { got: String },
    /// `step` in a rule that lets no registers be written.
    #[error(
        "no function of this rule writes registers, so there is no step to bound; leave it out"
    )]
    StepWithoutRegisters,
}

fn functions() -> String {
    let groups = function::GROUPS.join(", ");
    format!(
        "write a number from 1 to {}, or {groups} or any",
        Slot::COUNT - 1
    )
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
