//! Fieldlock: who may do what to which device. Default deny.
//!
//! A policy file (TOML, [`source`]) is checked and compiled ([`Policy::parse`]) once. When a
//! client connects, the agent asks for its [`View`] of one device ([`Policy::view`]) in the present
//! [`Phase`]; the view then decides every request ([`View::decide`]) without allocating and without
//! a clock. When the phase has passed ([`Phase::holds`]), the agent asks for views again. [`explain`] tells a person
//! why, rule by rule, and [`ceiling`] what a hostile headend could reach at most.
//!
//! Rules for stations of PROFINET have a view of their own, [`StationView`]; what is said below of
//! units, functions, addresses, values, rates and steps is of devices alone.
//!
//! The way of one request: [`View::decide`] in `view.rs` splits it into halves (function 23 is a
//! read and a write), finds the row of the unit and function, and asks the row's interval tables
//! (`table.rs`): a deny matches by overlap, an allow by cover.
//!
//! The meaning of a rule, the same for the view and for [`explain`]:
//!
//! - Order has no meaning. A matching deny wins; then read-only; then one single allow must cover
//!   the request (each half of function 23); otherwise no.
//! - `client` and `via` absent mean any. `unit` absent or `"any"` means units 1 to 255: broadcast
//!   (unit 0) needs an allow that names 0. A broadcast reaches every unit, so every deny of the
//!   device applies to it, whatever units the deny names.
//! - `value` bounds what is written and says nothing about reads. In an allow every written value
//!   must lie within; a deny with `value` matches a write of at least one value within, at an
//!   address of the deny. The result of a mask write (22) is not known: bounds of an allow refuse
//!   it unless the rule names 22 itself, and it matches every bounded deny.
//! - `type`: the rule sees the holding registers of its addresses as numbers of one or several
//!   registers each; `value` and `step` are of those. An allow takes whole finite values, parts only
//!   with `partial = "allow"`, and then unseen; a deny matches whatever it can't tell to be outside
//!   of its bounds.
//! - `time`: outside its windows a rule counts for nothing. Where the time is not known an allow
//!   with a window counts as closed and a deny as applying.
//! - `rate`: counted by whoever sends requests on ([`View::rate`]). Where several allows cover a
//!   request, one without a rate decides; of several with one, any.
//! - `step`: judged by who knows the last values of registers ([`View::step`]), at the edge only;
//!   otherwise like `rate`. Such a rule is for function 22 only if it names it.
//! - `repeat`: says of the writes that an allow covers whether the same one may be sent again
//!   before the outcome of the first is known ([`View::repeat`]); held by whoever sends them on.
//! - `station` in place of `device`: see `station.rs`.
//! - A policy can be narrowed by another ([`Policy::narrowed_by`]): both have to allow a request.
//! - `via` is judged at the edge only, where the tunnel's certificate proves it.

mod build;
pub mod bundle;
mod ceiling;
mod check;
mod compile;
mod conditional;
mod diff;
mod error;
mod explain;
mod half;
mod model;
mod parse;
mod policy;
mod source;
mod station;
mod stepped;
mod stranger;
mod suggest;
mod table;
mod trial;
mod view;

/// The JSON Schema (draft 2020-12) of a policy file, for editors. It says less than the parser: what it
/// refuses, [`Policy::parse`] refuses too.
pub const SCHEMA: &str = include_str!("../policy.schema.json");

pub use bundle::Bundle;
pub use ceiling::{Ceiling, CeilingDeny, CeilingDevice, CeilingGrant, ceiling};
pub use check::{Summary, Warning, summary, warnings};
pub use diff::{Change, Diff, Example, ExampleClient, Region, TooLarge, diff};
pub use error::{
    ModbusProblem, PolicyError, PolicyErrors, Problem, ProfinetProblem, UnknownClient,
};
pub use explain::{Asked, Explanation, RuleVerdict, explain, explain_named};
pub use model::address::{AddressError, Span, Spans, parse_address, table_name};
pub use model::cidr::CidrError;
pub use model::client::{Client, Origin, Side};
pub use model::decision::{Decision, Reason, Refusal, RuleId};
pub use model::function::parse_function;
pub use model::number::{Format, NotANumberType, NotAWordOrder, Number, NumberType, WordOrder};
pub use model::phase::{Now, Phase};
pub use model::rate::Rate;
pub use model::rule::Repeat;
pub use model::sample::{Sample, SampleError};
pub use model::step::Step;
pub use model::typed::{Layout, Placed};
pub use policy::Policy;
pub use source::is_device_name;
pub use station::{
    AskedStation, Call, CallError, CeilingStation, Controller, SlotSpan, StationChange,
    StationClause, StationDecision, StationExplanation, StationOrigin, StationReason,
    StationRefusal, StationView, explain_station, explain_station_named, parse_ar, parse_index,
    parse_slot,
};
pub use stepped::Stepped;
pub use stranger::{Known, Strangers};
pub use suggest::{Asker, Observation, Options as SuggestOptions, SuggestError, Traffic};
pub use view::View;
