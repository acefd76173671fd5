//! What a bridge does to the world.

use std::sync::Arc;

use fieldlock_profinet::Mac;

use super::event::Event;

/// One tunnel, as the agent numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// Takes what a bridge puts out, as it comes: the agent's socket and tunnels, or a test.
pub trait Outlet {
    /// A frame for the own wire.
    fn wire(&mut self, frame: &[u8]);
    /// A frame for a station's ordered channel; `false` if the tunnel did not take it.
    fn station(&mut self, link: LinkId, channel: u16, frame: &[u8]) -> bool;
    /// A datagram of cyclic data; `false` if the tunnel did not take it.
    fn datagram(&mut self, link: LinkId, datagram: &[u8]) -> bool;
    /// Longest datagram that the tunnel takes at present, in octets.
    fn max_datagram(&self, link: LinkId) -> usize;
    /// Frames for this address are to be heard from now on.
    fn join(&mut self, mac: Mac);
    /// And no more.
    fn leave(&mut self, mac: Mac);
    /// Something for the audit log.
    fn event(&mut self, event: Event);
    /// Whether a change of a station may pass: its record can be kept.
    fn may_change(&self) -> bool;
}

/// The controller that asked, in events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requester {
    pub mac: Mac,
    pub name: Option<Arc<str>>,
}
