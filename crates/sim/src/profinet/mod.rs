//! A simulated IO-device and a simulated IO-controller of PROFINET, real-time class 1.
//!
//! [`Device`] and [`Controller`] are state machines without a socket or a clock: frames and the
//! time go in, frames, events and the next deadline come out, so that hours pass in seconds.
//! They are strict: each watches the other's cyclic data with the standard's rules and ends the AR
//! when it fails. Process data carries the time of its sending ([`Stamp`]), so that the
//! consumer measures how old it is ([`Stats`]).
//!
//! What they send is encoded here, and connection management is read here too, apart from
//! `fieldlock-profinet`: where one misreads the standard, the other does not follow.

mod alarms;
mod blocks;
mod calls;
mod controller;
mod cyclic;
mod device;
mod discovery;
mod event;
mod lan;
mod layout;
mod outbox;
mod payload;
mod profile;
mod random;
mod received;
mod rpc;
mod stats;

pub use controller::{ConfigError, Controller, ControllerConfig, Defect, Record};
pub use device::{Asked, Device, DeviceConfig};
pub use discovery::IpSuite;
pub use event::Event;
pub use layout::Module;
pub use payload::{Clock, STAMP, Stamp};
pub use profile::{Asks, Profile};
pub use rpc::Order;
pub use stats::{Abort, Consumed, Durations, FailSafe, Side, Stats};
