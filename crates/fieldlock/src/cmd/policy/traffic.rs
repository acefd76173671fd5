//! The requests of a capture, as the commands take them.

use std::path::Path;

use fieldlock_capture::MODBUS;
use fieldlock_learn::traffic::{Frames, Malformed, Mapping, Scope, Tally};

/// Servers that are named in notes; beyond that they are counted.
const MAX_NAMED: usize = 20;

/// Which devices and frames of a capture count.
#[derive(Debug, clap::Args)]
pub(super) struct ScopeArgs {
    /// The port of the Modbus servers.
    #[arg(long, value_name = "PORT", default_value_t = MODBUS)]
    port: u16,
    /// Which server is which device; may be repeated. A server without a name here is called by its
    /// address: 10.1.1.50 is the device 10-1-1-50.
    #[arg(long = "device", value_name = "NAME=IP[:PORT]")]
    devices: Vec<Mapping>,
    /// Only requests of these frames, as tshark counts them: "1-5000", or "5001-" up to the end.
    #[arg(long, value_name = "FIRST-LAST")]
    frames: Option<Frames>,
}

impl ScopeArgs {
    /// Whether it says anything: it means nothing without a capture.
    pub(super) fn is_given(&self) -> bool {
        self.port != MODBUS || !self.devices.is_empty() || self.frames.is_some()
    }

    pub(super) fn scope(&self) -> Scope {
        Scope {
            port: self.port,
            devices: self.devices.clone(),
            frames: self.frames,
        }
    }
}

/// What a person should know about how the capture was read.
pub(super) fn notes(tally: &Tally, file: &Path) {
    let file = file.display();
    for (server, name) in tally.unnamed.iter().take(MAX_NAMED) {
        eprintln!("note: no --device names {server}: it is called {name}");
    }
    if let Some(more) = tally
        .unnamed
        .len()
        .checked_sub(MAX_NAMED)
        .filter(|n| *n > 0)
    {
        eprintln!("note: and {more} more servers are called by their addresses");
    }
    if tally.unreadable_frames > 0 {
        eprintln!(
            "warning: {file}: {} frames were passed over: they are from interfaces whose link type is \
             neither Ethernet, raw IP nor Linux cooked",
            tally.unreadable_frames
        );
    }
    if let Some(cut) = &tally.cut {
        eprintln!("warning: {file}: {cut}; what is before it counts");
    }
    for Malformed { frame, what } in &tally.malformed_frames {
        eprintln!("warning: {file}: frame {frame}: {what}");
    }
    let unnamed = tally.malformed - tally.malformed_frames.len() as u64;
    if unnamed > 0 {
        eprintln!("warning: {file}: and {unnamed} more malformed");
    }
}
