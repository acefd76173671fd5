//! One file per subcommand.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod ca;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod enroll;
mod log;
pub(crate) mod policy;
pub(crate) mod status;
