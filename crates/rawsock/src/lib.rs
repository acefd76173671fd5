//! What the agents need of Linux and the standard library does not have: for PROFINET, Ethernet
//! frames with their tags, a timer that keeps time, and giving up the right to all that once it is
//! open; for QUIC, a queue of its own for those who knock; for TCP, whether the peer has what was
//! sent.
//!
//! - [`PacketSocket`]: frames from and to one interface, chosen in the kernel by a [`Filter`].
//! - [`Timer`]: absolute deadlines, as exact as the kernel's.
//! - [`separate_knocks`]: what begins a connection waits apart from what belongs to one.
//! - [`unacknowledged`]: what a TCP peer has not got yet.
//! - [`privileges`]: away with CAP_NET_RAW and CAP_NET_ADMIN.
//! - [`Tap`], [`Namespace`]: an interface whose wire is this program, and a network of its own,
//!   for simulations and tests.
//!
//! Sockets, timers and TAPs are made without a runtime, so that privileges are dropped before
//! one starts; they register with tokio when they are first waited for, and that panics outside
//! of a runtime.
//!
//! This is the only crate with `unsafe`, and it is in three files: `sys`, `batch` and `ready`.

mod batch;
mod bpf;
mod checksum;
mod filter;
mod interface;
mod namespace;
mod packet;
pub mod privileges;
mod ready;
mod steer;
mod sys;
mod tap;
mod tcp;
mod timer;

pub use batch::{BATCH, LONGEST_FRAME};
pub use filter::{Filter, MOST_STATIONS, Vlans};
pub use interface::{InterfaceError, interface_mac};
pub use namespace::Namespace;
pub use packet::{Counters, JoinError, LinkError, OpenError, PacketSocket};
pub use steer::separate_knocks;
pub use tap::Tap;
pub use tcp::unacknowledged;
pub use timer::Timer;
