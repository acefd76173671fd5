//! A simulated PLC for the demo and for tests.
//!
//! [`Plc`] is a well-behaved Modbus/TCP server on tokio-modbus, an implementation that shares
//! no code with ours, in front of a pump station that moves ([`station`]). [`Faulty`] is a
//! server that breaks the protocol in the ways that tokio-modbus can't be made to.

mod faulty;
mod plc;
pub mod profinet;
pub mod station;

pub use faulty::{Fault, Faulty, Received};
pub use plc::{Options, Plc, Write};
