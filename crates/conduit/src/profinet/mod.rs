//! PROFINET between two wires that frames cross only as what they mean.
//!
//! - [`cadence`]: what happens to cyclic frames on the way.

pub mod cadence;
