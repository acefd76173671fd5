//! Agents, PLC and clients in network namespaces of their own, and what can go wrong between them.
//!
//! ```text
//!  west: clients, headends        east: edge          plc
//!  10.77.0.1 wan ==== wire ==== wan 10.77.0.2
//!                              10.78.0.1 eth0 ------- eth0 10.78.0.2:502
//! ```
//!
//! - [`field`]: the namespaces, and the processes in them.
//! - [`load`]: clients that read and write, and note what each request came to.
//! - [`plc`]: a PLC that counts how often it has made each write.
//! - [`ledger`]: both accounts against each other.
//! - [`fault`]: what goes wrong; [`trial`]: one fault under load, and what came of it.
//! - [`kill`]: one agent after the other killed; [`soak`]: a long time of everyday changes.

pub mod fault;
pub mod field;
pub mod kill;
pub mod ledger;
pub mod load;
pub mod plc;
pub mod soak;
pub mod trial;
