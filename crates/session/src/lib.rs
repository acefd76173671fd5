//! The tunnel session between an edge and a headend, without sockets or clocks.
//!
//! The same frames run over QUIC (a stream per channel) and over one TLS connection:
//! [`frame`] is their wire format, [`hello`] what both sides state first, [`state`] the
//! rules of a session from the first byte to the last, [`backoff`], [`race`] and [`dialler`] when and
//! by which transport an edge dials, [`admission`] which handshakes a headend takes, [`place`] which of an
//! edge's tunnels it keeps.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests say when time begins")
)]

pub mod admission;
pub mod backoff;
pub mod dialler;
pub mod frame;
pub mod hello;
#[cfg(test)]
mod links;
pub mod place;
pub mod race;
pub mod state;
mod wire;

pub use admission::Admission;
pub use backoff::Backoff;
pub use dialler::Dialler;
pub use frame::{Checkpoint, ClientOpen, Decoder, Fate, Frame, FrameError, Outcome};
pub use hello::{DeviceOffer, Hello, HelloError};
pub use place::{Place, Step};
pub use race::{Failure, Race, Transport};
pub use state::{Close, Event, Liveness, Session, Side, Violation};

/// ALPN protocol of the tunnel (RFC 7301), the same on both transports.
pub const ALPN: &[u8] = b"fieldlock/1";

/// ALPN protocol of the second connection that carries cyclic data where the tunnel is TLS.
pub const CYCLIC_ALPN: &[u8] = b"fieldlock-cyclic/1";

/// Version of the session protocol spoken by this build.
pub const VERSION: u16 = 1;

/// Oldest version that a headend of this build still serves. There was none before 1.
pub const OLDEST_VERSION: u16 = 1;
