//! One permitted path between two zones, without sockets or clocks.
//!
//! - [`admit`]: may this request cross? Asked at both ends, with each end's own policy.
//! - [`meter`]: what rules with a rate have let through; one for an agent.
//! - [`forward`], [`serve`]: a device channel, its half at the headend and its half at the edge.
//! - [`fate`]: what became of a request, in the words of both.
//! - [`repeat`]: writes that clients send again by themselves; one at a headend, one for a device at
//!   the edge.
//! - [`step`]: the last values of registers, for rules with a step; one for a device, at the edge.
//! - [`client`]: the headend's half, one Modbus/TCP client.
//! - [`device`]: the edge's half, the pool of connections to one device.
//! - [`profinet`]: PROFINET IO, at both ends.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests say when time begins")
)]

pub mod admit;
pub mod client;
pub mod device;
pub mod fate;
pub mod forward;
pub mod meter;
pub mod observe;
pub mod profinet;
pub mod repeat;
pub mod serve;
pub mod step;

#[cfg(test)]
mod way;
