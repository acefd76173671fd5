//! Rules for stations of PROFINET: who may do what to which station.
//!
//! The agent asks for a [`StationView`] of one controller and one station
//! ([`Policy::station_view`](crate::Policy::station_view)); the view judges every call without
//! allocating. Those of one pair are few, so a call is held against each in turn.
//!
//! What holds for devices holds here: order has no meaning, a matching deny wins, one single allow
//! must cover the call. What goes from the device to the controller (answers, Hello, alarms, cyclic
//! input, ApplicationReady) is judged as the same pair's service. Beyond that:
//!
//! - `service = "any"` in an allow is every service but those that set something on the station
//!   itself; those must be named. In a deny it is every service.
//! - An allow without `ar` lets an IO-controller connect, and nobody else; a deny without it is for
//!   every kind of AR.
//! - A client with `station` is one that names itself so in its Connect. Before that it is told by
//!   its address alone: what an allow gives it then is Identify, Get and Hello, and every deny
//!   applies to it.
//! - `read_only = true` leaves Identify, Get, Hello and Read: an AR changes what a device puts out.

mod call;
mod decision;
mod diff;
mod explain;
mod parts;
mod reach;
mod rule;
mod view;
mod warn;

pub use call::{Call, CallError, Controller, StationOrigin};
pub use decision::{StationDecision, StationReason, StationRefusal};
pub use diff::StationChange;
pub use explain::{AskedStation, StationExplanation, explain_station, explain_station_named};
pub use parts::{SlotSpan, parse_ar, parse_index, parse_slot};
pub use reach::{CeilingStation, StationClause};
pub use view::StationView;

pub(crate) use diff::changes;
pub(crate) use parts::{ArTypes, Services, ar_words, indexes, service_words};
pub(crate) use reach::station_ceilings;
pub(crate) use rule::{Matching, StationRule};
pub(crate) use warn::station_warnings;
