//! What TLS has in common in tunnels, in MBAPS, at the CA and at those who ask it.
//!
//! - [`words`]: what TLS says went wrong, for people.

pub mod words;
