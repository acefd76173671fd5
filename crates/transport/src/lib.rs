//! What carries a session, and the sockets at its ends: QUIC and TLS over TCP, who is at the other end,
//! and the connections of Modbus clients and devices, plain or with TLS.
//!
//! - [`tunnel`]: one live tunnel over either transport; drives the core `fieldlock-session`.
//! - [`tls`]: an agent's certificate, whom it trusts, and why a handshake was refused; [`peer`]: whom
//!   one has proven.
//! - [`client_hello`]: what a connection to the tunnel port is for.
//! - [`socket`] and [`sealed`]: connections of Modbus clients and devices.
//! - [`counter`]: counters and histograms.
//!
//! Everything of one connection lives on one thread, and neither end of a tunnel is in here.

pub mod client_hello;
pub mod counter;
pub mod peer;
pub mod sealed;
pub mod socket;
pub mod tls;
pub mod tunnel;
