//! The audit log: what crossed, what was refused, and what came of each write.
//!
//! [`Record`] is one line of `audit.jsonl`; its fields are the schema. [`DenialFilter`] joins
//! what repeats, and a [`Budget`] bounds what outsiders can cause, so that no flood pushes out
//! what operators did. [`Journal`] writes: its handle never blocks, a
//! thread of its own formats, writes and makes durable. On start it picks up where a crash
//! left off and returns the writes whose outcome nobody recorded ([`Recovered`]). Each line is
//! chained to the one before it; [`Verifier`] reads a log and says where that was broken.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests say when time begins")
)]

mod chain;
mod class;
mod clock;
mod content;
mod denial;
mod disk;
mod error;
pub mod export;
mod filter;
mod journal;
mod line;
mod lines;
mod profinet;
mod read;
mod record;
mod recover;
mod segment;
mod verify;

pub use chain::Hash;
pub use class::{Budget, Class};
pub use clock::{Clock, Stamp};
pub use content::{Address, Decoded, DecodedValue, Table, Values};
pub use denial::DenialFilter;
pub use error::JournalError;
pub use filter::Filter;
pub use journal::{Journal, Options, Progress, Sign, State, Unavailable, signed_text};
pub use line::steers;
pub use lines::Lines;
pub use profinet::{Ar, Slot};
pub use read::{ReadFilter, Reads};
pub use record::{Decision, Head, Kind, Outcome, Party, Record, SCHEMA_VERSION, Ticket};
pub use recover::{Recovered, Torn};
pub use segment::{FILE_NAME, Limits, Segment, Snapshot, WhenFull, log_files, segments};
pub use verify::{Fault, Place, Summary, Verifier};
