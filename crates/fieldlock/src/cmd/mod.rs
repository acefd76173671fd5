//! One file per subcommand.

pub(crate) mod agent;
pub(crate) mod audit;
#[cfg(feature = "ca")]
pub(crate) mod ca;
pub(crate) mod completions;
#[cfg(feature = "demo")]
pub(crate) mod demo;
pub(crate) mod enroll;
mod log;
pub(crate) mod policy;
pub(crate) mod status;
