//! What stations send through a tunnel: frames in order, and datagrams that may get lost.

use std::rc::Rc;

use bytes::Bytes;
use fieldlock_session::Frame;
use fieldlock_session::frame::{MAX_ETHERNET, MIN_ETHERNET};
use quinn::SendDatagramError;
use thiserror::Error;

use super::{Handler, Link, Path};
use crate::counter::Counter;

/// Why something did not leave for the other side. Nothing of it waits anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotSent {
    #[error("the tunnel does not take more: the link stands still")]
    Full,
    #[error("there is no way for it, or not yet")]
    NotYet,
    #[error("longer than the path takes at present")]
    TooLarge,
}

/// What became of what stations sent through one tunnel.
#[derive(Debug, Default)]
pub struct StationCounters {
    pub frames_sent: Counter,
    pub frames_received: Counter,
    /// Dropped, since the link stood still.
    pub frames_dropped: Counter,
    pub datagrams_sent: Counter,
    pub datagrams_received: Counter,
    /// Dropped: too long, or there was no way for them.
    pub datagrams_dropped: Counter,
    /// Dropped while they waited, for newer ones.
    pub datagrams_replaced: Counter,
    /// Received when there was no use for them: before the tunnel was up, or without stations.
    pub datagrams_unwanted: Counter,
}

impl Link {
    /// How many stations both ends carry, once the tunnel is up. Their order is the hello's.
    pub fn stations(&self) -> u16 {
        self.stations.get()
    }

    /// Sends an Ethernet frame on the channel of the n-th station, from 0: reliably and in order.
    pub fn send_station(&self, station: u16, frame: &[u8]) -> Result<(), NotSent> {
        let sent = self.push_station(station, frame);
        match sent {
            Ok(()) => self.counters.frames_sent.add(),
            Err(_) => self.counters.frames_dropped.add(),
        }
        sent
    }

    fn push_station(&self, station: u16, frame: &[u8]) -> Result<(), NotSent> {
        if !self.is_up() || station >= self.stations.get() {
            return Err(NotSent::NotYet);
        }
        if !(MIN_ETHERNET..=MAX_ETHERNET).contains(&frame.len()) {
            return Err(NotSent::TooLarge);
        }
        // At most 256 of each.
        let channel = self.devices.get() + station + 1;
        let outbox = self.channel(channel).ok_or(NotSent::NotYet)?;
        if outbox.is_stalled() {
            return Err(NotSent::Full);
        }
        outbox.push(|out| Frame::Station(frame).encode(channel, out));
        Ok(())
    }

    /// Sends a datagram, which may get lost. It never waits for room: a newer one takes the place
    /// of an older one that has not left.
    pub fn send_datagram(&self, datagram: &[u8]) -> Result<(), NotSent> {
        let sent = self.push_datagram(datagram);
        match sent {
            Ok(()) => self.counters.datagrams_sent.add(),
            Err(_) => self.counters.datagrams_dropped.add(),
        }
        sent
    }

    fn push_datagram(&self, datagram: &[u8]) -> Result<(), NotSent> {
        if !self.is_up() || self.stations.get() == 0 {
            return Err(NotSent::NotYet);
        }
        match &self.path {
            Path::Quic(connection) => {
                if connection.datagram_send_buffer_space() < datagram.len() {
                    self.counters.datagrams_replaced.add();
                }
                let sent = connection.send_datagram(Bytes::copy_from_slice(datagram));
                sent.map_err(|error| match error {
                    SendDatagramError::TooLarge => NotSent::TooLarge,
                    _ => NotSent::NotYet,
                })
            }
            Path::Tls => {
                let replaced = self.lane.send(datagram)?;
                if replaced {
                    self.counters.datagrams_replaced.add();
                }
                Ok(())
            }
        }
    }

    /// Longest datagram that can be sent at present, in octets: 0 while there is no way for any.
    /// It changes with the path.
    pub fn max_datagram(&self) -> usize {
        if !self.is_up() || self.stations.get() == 0 {
            return 0;
        }
        match &self.path {
            Path::Quic(connection) => connection.max_datagram_size().unwrap_or(0),
            Path::Tls => self.lane.max_datagram(),
        }
    }

    pub(super) fn deliver_datagram(self: &Rc<Self>, handler: &dyn Handler, datagram: &[u8]) {
        // One may overtake the frame that says the tunnel is up.
        if !self.is_up() || self.stations.get() == 0 {
            self.counters.datagrams_unwanted.add();
            return;
        }
        self.counters.datagrams_received.add();
        handler.datagram(self, datagram);
    }
}
