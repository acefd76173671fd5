//! The asking side of enrolment: how an agent gets its identity, and keeps it.
//!
//! - [`files`]: requests, bundles and CRLs that travel as files.
//! - [`client`]: EST (RFC 7030) and the trust list, over the network.
//! - [`join`]: a whole enrolment by a one-time token.
//! - [`clock`]: what time it is, where the system may not know.
//!
//! Times are seconds since 1970-01-01 UTC.

pub mod client;
pub mod clock;
pub mod files;
pub mod join;
mod verify;

pub use client::{Client, ClientError, Renewed};
pub use clock::AgentClock;
pub use files::EnrollError;
