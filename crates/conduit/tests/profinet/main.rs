//! The bridge between simulated stations, in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "tests say when time begins")]

mod captures;
mod carried;
mod faults;
mod hostile;
mod plant;
mod profiles;
mod real;
mod refused;
mod wires;
