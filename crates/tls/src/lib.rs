//! What TLS has in common in tunnels, in MBAPS, at the CA and at those who ask it.
//!
//! - [`words`]: what TLS says went wrong, for people.
//! - [`verify_signatures`]: the half of a verifier in which all of ours agree.

mod signatures;
pub mod words;
