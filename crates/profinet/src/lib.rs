//! PROFINET IO as Fieldlock must understand it to inspect it: Ethernet frames with their tags,
//! DCP, cyclic data and alarms of real-time class 1, and the connection management (DCE/RPC over
//! UDP) that says which of them belong to an application relation (AR).
//!
//! Nothing here allocates on the way in or knows a socket or a clock. Multi-octet fields are
//! big-endian unless DCE/RPC says otherwise.
//!
//! Sources: IEC 61158-6-10 (frames, blocks), IEC 61784-2 (profiles), C706 (DCE/RPC, connectionless).

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests say when time begins")
)]

pub mod alarm;
pub mod ar;
pub mod arp;
pub mod calls;
pub mod classify;
pub mod cm;
pub mod cyclic;
pub mod dcp;
pub mod epm;
pub mod eth;
pub mod fragments;
pub mod frame_id;
pub mod iandm;
pub mod ip;
pub mod mac;
pub mod name;
pub mod reader;
pub mod rpc;
pub mod service;
pub mod status;
#[cfg(test)]
mod testing;

pub use classify::{Class, Malformed, Never, classify};
pub use eth::{Frame, Tag};
pub use frame_id::FrameId;
pub use mac::Mac;
pub use name::{NameError, StationName};
pub use reader::{Reader, Short};
pub use service::{ArType, Service};
