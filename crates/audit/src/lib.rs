//! The audit log: what crossed, what was refused, and what came of each write.
//!
//! [`Record`] is one line of `audit.jsonl`; its fields are the schema. [`DenialFilter`] keeps
//! a flood of refusals from filling the disk. [`Journal`] writes: its handle never blocks, a
//! thread of its own formats, writes and makes durable. On start it picks up where a crash
//! left off and returns the writes whose outcome nobody recorded ([`Recovered`]).

mod content;
mod denial;
mod disk;
mod journal;
mod record;
mod recover;

pub use content::{Address, Table, Values};
pub use denial::DenialFilter;
pub use disk::FILE_NAME;
pub use journal::{Journal, JournalError, Options, Progress, State, Ticket, Unavailable};
pub use record::{Decision, Kind, Outcome, Party, Record, SCHEMA_VERSION};
pub use recover::{Recovered, Torn};
