//! The simulators against each other, in virtual time, and what tshark says of their frames.

mod alarms;
mod association;
mod hostile;
mod oracle;
mod watchdog;
mod world;
