//! What every fuzz target asserts, one function per target.
//!
//! The same functions run in three ways: under libFuzzer (`tests/fuzz`), over the committed
//! seeds and a bounded number of mutations of them in `cargo test`, and over whatever a
//! person passes them. A body panics when a property does not hold; bytes that mean nothing
//! to it are no failure.
//!
//! | body | hostile is |
//! |---|---|
//! | [`client_hello`], [`quic_initial`], [`certificate`], [`crl`] | anybody at a port with TLS |
//! | [`mbap_stream`], [`modbus_request`], [`client_side`] | a Modbus client |
//! | [`profinet_l2`], [`profinet_rpc`] | a station |
//! | [`modbus_answer`], [`rtu_answer`], [`device_side`] | a device |
//! | [`tunnel_frame`], [`hello`], [`session_ops`], [`profinet_datagram`] | the other end of a tunnel |
//! | [`profinet_bridge`] | stations of both sides, both agents, time |
//! | [`est_http`] | anybody at the CA |
//! | [`enrolment`] | an asker at the CA, or what stands in its place |
//! | [`trust_list`] | a carrier of trust lists |
//! | [`monitor_http`] | a local process, or a browser that was led to the port for monitoring |
//! | [`policy_parse`], [`audit_log`], [`capture_file`] | an editor |
//! | [`policy_bundle`], [`signed_text`] | a carrier of policy bundles, and of other signed texts |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a property that does not hold is a panic here"
)]

#[cfg(test)]
mod bounded;
mod bridge;
mod cadence;
mod certificate;
mod client;
mod device;
mod enrolment;
mod est;
mod files;
mod framing;
mod handshake;
mod initial;
mod input;
mod layer2;
mod monitor;
mod pdu;
mod policy;
mod rpc;
mod session;
mod signed;
mod tunnel;
mod wire;

pub use bridge::profinet_bridge;
pub use cadence::profinet_datagram;
pub use certificate::{certificate, crl};
pub use client::client_side;
pub use device::device_side;
pub use enrolment::{enrolment, trust_list};
pub use est::est_http;
pub use files::{audit_log, capture_file};
pub use framing::{mbap_stream, rtu_answer};
pub use handshake::client_hello;
pub use initial::quic_initial;
pub use layer2::profinet_l2;
pub use monitor::monitor_http;
pub use pdu::{modbus_answer, modbus_request};
pub use policy::{policy_bundle, policy_parse};
pub use rpc::profinet_rpc;
pub use session::session_ops;
pub use signed::signed_text;
pub use tunnel::{hello, tunnel_frame};
