//! What a view decided about a request, and why.

use std::fmt;

use fieldlock_modbus::{Exception, Table};

use crate::model::address::Span;
use crate::model::number::{Number, NumberType};

/// A rule of one policy, in the order of the file: allows first, then denies. Those of a policy
/// that narrows it come after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub(crate) u32);

impl RuleId {
    /// Its place in that order, from 0.
    pub fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// For function 23 `rule` covers the write half and `read` the read half.
    Allow {
        rule: RuleId,
        read: Option<RuleId>,
        /// The same, of the policy that narrows this one.
        narrowing: Option<(RuleId, Option<RuleId>)>,
    },
    Refuse(Refusal),
}

impl Decision {
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// A refusal: what the client is answered and what the audit log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub exception: Exception,
    /// The deny that matched, or the allow whose value bounds were broken or whose window is
    /// closed.
    pub rule: Option<RuleId>,
    pub reason: Reason,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, rule: Option<RuleId>) -> Self {
        Self {
            exception: reason.exception(),
            rule,
            reason,
        }
    }
}

/// Why a request was refused, with the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A deny matched.
    Denied,
    /// The device is read-only and the request may change its state.
    ReadOnly,
    /// No allow names this client, or none through this headend.
    Client,
    /// No allow of this client names the device.
    Device,
    Unit {
        unit: u8,
    },
    Function {
        function: u8,
    },
    /// The function is allowed (8, 43), but not this part of it.
    SubFunction {
        function: u8,
        sub_function: u16,
    },
    /// The function is allowed, but not for all of this range by one rule.
    Address {
        table: Table,
        first: u16,
        last: u16,
    },
    ValueAbove {
        value: Number,
        max: Number,
    },
    ValueBelow {
        value: Number,
        min: Number,
    },
    /// A float that is NaN or an infinity.
    NotFinite {
        value: Number,
    },
    /// Some registers of a value are written and others are not, or one is masked.
    PartOfValue {
        /// Of the value.
        first: u16,
        last: u16,
        number: NumberType,
    },
    /// An allow covers it, and its time window is closed.
    Window,
    /// An allow covers it, and its time window counts as closed since the clock is wrong.
    WindowUnknown,
    /// Function 22: the result depends on what the device holds.
    MaskWithBounds,
}

impl Reason {
    /// What a client is answered.
    pub fn exception(self) -> Exception {
        match self {
            Self::Address { .. } => Exception::IllegalDataAddress,
            Self::ValueAbove { .. }
            | Self::ValueBelow { .. }
            | Self::NotFinite { .. }
            | Self::PartOfValue { .. }
            | Self::MaskWithBounds => Exception::IllegalDataValue,
            Self::Denied
            | Self::ReadOnly
            | Self::Client
            | Self::Device
            | Self::Unit { .. }
            | Self::Function { .. }
            | Self::SubFunction { .. }
            | Self::Window
            | Self::WindowUnknown => Exception::IllegalFunction,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Denied => f.write_str("denied by rule"),
            Self::ReadOnly => f.write_str("read-only"),
            Self::Client => f.write_str("no rule for this client"),
            Self::Device => f.write_str("no rule for this device"),
            Self::Unit { unit: 0 } => f.write_str("no rule names unit 0 (broadcast)"),
            Self::Unit { unit } => write!(f, "no rule for unit {unit}"),
            Self::Function { function } => write!(f, "no rule for function {function}"),
            Self::SubFunction {
                function,
                sub_function,
            } => write!(f, "no rule for function {function}/{sub_function}"),
            Self::Address { table, first, last } => {
                write!(f, "{} outside every range", Span { table, first, last })
            }
            Self::ValueAbove { value, max } => write!(f, "value {value} above {max}"),
            Self::ValueBelow { value, min } => write!(f, "value {value} below {min}"),
            Self::NotFinite { value } => write!(f, "value {value} is no finite number"),
            Self::PartOfValue {
                first,
                last,
                number,
            } => {
                write!(f, "writes a part of the {number} at holding {first}-{last}")
            }
            Self::Window => f.write_str("outside its time window"),
            Self::WindowUnknown => {
                f.write_str("outside its time window, as every one while the clock is wrong")
            }
            Self::MaskWithBounds => {
                f.write_str("the result of a mask write is not known, value bounds can't be held")
            }
        }
    }
}
