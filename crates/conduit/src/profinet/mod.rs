//! PROFINET between two wires that frames cross only as what they mean.
//!
//! [`Bridge`] is the same code at both agents. It owns the parties (who is paired), the views of the
//! policy, what was asked by DCP, the RPC calls and the table of ARs; it decides each frame, and
//! what is to be done is polled from it.
//!
//! - `bridge`: what comes in, and where it goes on; tunnels and configuration that change.
//! - `addresses`: which address belongs to which controller or station; rejects spoofed ones.
//! - `dispatch`: the kind of a frame; ARP.
//! - `dcp`, `pending`: discovery and configuration.
//! - `cm`, `answer`: connection management, and the refusals that an agent answers itself.
//! - `flows`: cyclic data and alarms.
//! - `shortfall`: watchdogs that the way can't keep.
//! - `views`: the policy.
//! - `output`: what is to be done, in order, until it is polled.
//! - [`cadence`]: what happens to cyclic frames on the way.

mod addresses;
mod answer;
mod bridge;
pub mod cadence;
mod cm;
mod dcp;
mod dispatch;
mod drops;
mod event;
mod flows;
mod output;
mod parties;
mod pending;
mod shortfall;
#[cfg(test)]
mod tests;
mod views;

pub use bridge::{Bridge, BridgeSettings, Role, Tagging};
pub use drops::{DropReason, Drops};
pub use event::{ArName, Event, RecordPlace};
pub use flows::{Flow, Half};
pub use output::{LinkId, Output, Requester};
pub use parties::{Controller, Facts, MAX_PLAY_OUT, Parties, Station, StationSettings};
pub use shortfall::Shortfall;
