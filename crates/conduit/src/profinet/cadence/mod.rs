//! The way of cyclic frames through a tunnel that loses, delays and reorders.
//!
//! A [`Sender`] at the agent that hears the provider puts each frame into a datagram, with some of
//! the frames before it. A [`Receiver`] at the agent that feeds the consumer gives them out in a
//! cadence that the consumer's watchdog can live with. Both are for one direction of one
//! application relation, know no socket and no clock (`now` never decreases from call to call),
//! and do not allocate once they have seen their first frames.
//!
//! Three means, each with its own switch and its own count:
//!
//! 1. *Redundancy*: a datagram carries earlier frames too, so that what was lost arrives with a
//!    later one. Alone it changes nothing for a watchdog, since a repaired frame arrives with a
//!    newer one; it needs play-out to be of use.
//! 2. *Play-out*: a frame is given out at its provider's cadence, a fixed time after the earliest
//!    moment at which it could have arrived. Jitter, reordering and repaired losses up to that
//!    time vanish; the age of data grows by it. Where frames are missing and the watchdog would
//!    expire, the next that waits leaves before its slot, so that the watchdog outlives a gap that
//!    is longer than its time by most of the delay.
//! 3. *Hold*: off unless asked for. The last frame again, with a cycle counter that is newer,
//!    while the age of its data is within a limit; then silence. **Not a safety function**: for
//!    that long, a provider that is gone looks alive. What a provider says about itself (DataStatus)
//!    and every octet of data, PROFIsafe included, are never altered by any of the three.
//!
//! [`Newest`] queues datagrams where they have to wait, over TCP: a newer one takes the place of
//! one that still waits.

mod datagram;
mod newest;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

pub use datagram::{Datagram, DatagramError, Frame, Header, MAX_EARLIER, Stream, fits};
pub use newest::{Newest, Pushed};
pub use receiver::{
    Ages, Config as ReceiverConfig, ConfigError, Emit, Hold, Receiver, Refused,
    Stats as ReceiverStats, Stop,
};
pub use sender::{Config as SenderConfig, Sender, Stats as SenderStats};
