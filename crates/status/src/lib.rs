//! What an agent says of itself: one set of types for those who write it and for all who read it.
//!
//! - [`Status`]: everything, tagged by `role`. What `fieldlock status --json` prints; [`SCHEMA`] is its
//!   JSON Schema.
//! - [`edge`], [`headend`], [`profinet`]: its parts.
//! - [`Request`], [`Answer`]: questions on the control socket, and what is said to them
//!   ([`ANSWER_SCHEMA`]); docs/control.md is the reference.
//! - [`State`], [`Delta`]: what a subscriber gets first, and then.
//! - [`Ring`]: the last events, bounded in number and octets.
//!
//! **Readers and writers of different versions.** A reader ignores fields that it does not know, and
//! takes a field that is missing for its default: so an older `fieldlock status` reads a newer agent,
//! and a newer one an older agent. Words of which there may be more in a later version (transports,
//! phases, grades of the sandbox) are texts for that reason.

mod answer;
mod counters;
pub mod edge;
mod event;
pub mod headend;
mod page;
pub mod profinet;
mod request;
mod ring;
mod snapshot;
mod state;

#[cfg(test)]
mod schema;

pub use answer::{Answer, Devices, Listing, OneDevice, Refused};
pub use event::Event;
pub use page::{Chosen, choose};
pub use request::{DEFAULT_LIMIT, Filter, MAX_LIMIT, MAX_LINE, Page, Request, RequestError};
pub use ring::Ring;
pub use snapshot::{
    Alarm, Audit, Certificate, Clock, Common, Observations, Sandbox, StationCounters, Stations,
    Status,
};
pub use state::{AlarmRow, Delta, DeviceRow, PeerRow, State};

/// The JSON Schema (draft 2020-12) of [`Status`] as this version writes it. A test holds the file to
/// the types: `UPDATE_EXPECTED=1 cargo test -p fieldlock-status` writes it.
pub const SCHEMA: &str = include_str!("../../../docs/status.schema.json");

/// The same for [`Answer`].
pub const ANSWER_SCHEMA: &str = include_str!("../../../docs/control.schema.json");
