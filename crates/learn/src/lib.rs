//! Policies and recorded traffic: which requests a capture holds ([`traffic`]), what a policy would
//! have decided about each ([`replay`]), and an allow-list of what a capture or an audit log holds
//! ([`suggest`]).
//!
//! Captures and logs may be of any size and from anywhere: what is kept of them is bounded, and a
//! malformed piece is counted, not trusted.

#[cfg(test)]
mod recording;
pub mod replay;
pub mod suggest;
pub mod traffic;
