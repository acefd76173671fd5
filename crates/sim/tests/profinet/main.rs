//! The simulators against each other, in virtual time, and what tshark says of their frames.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alarms;
mod association;
mod hostile;
mod oracle;
mod watchdog;
mod world;
