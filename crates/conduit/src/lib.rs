//! One permitted path between two zones, without sockets or clocks.
//!
//! - [`device`]: the edge's half, the pool of connections to one device.

pub mod device;
