//! What the tests and the comparison benchmark share; never part of what is shipped.
//!
//! - [`wire`]: a network of one hop in user space that can be cut, slowed and made lossy.
//! - [`link`]: the decisions of a bad network, without a socket or a clock.
//! - [`process`]: child processes with captured logs, signals, and an end when dropped.
//! - [`wait`], [`ports`]: waiting for conditions, and ports that are free.
//! - [`peers`]: foreign programs, found or named as missing.
//! - [`modbus`]: a raw Modbus/TCP client that knows nothing of our own codec, on purpose.
//! - [`capture`]: Modbus requests out of pcap files.
//! - [`seeds`]: simulations that follow from a seed: many, or the one that failed.
//! - [`usage`]: processor time and memory of processes.

pub mod capture;
pub mod link;
pub mod modbus;
pub mod peers;
pub mod ports;
pub mod process;
mod random;
pub mod seeds;
pub mod usage;
pub mod wait;
pub mod wire;
