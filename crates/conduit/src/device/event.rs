//! What a [`DeviceSide`](super::DeviceSide) is asked and what it says.

use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use fieldlock_modbus::mbap::MAX_PDU;
use fieldlock_modbus::{Exception, Request};

use super::bear::Borne;
use super::fault::Fault;
use crate::admit::Grounds;

/// The caller's id of a request, unique per device while the request is outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u64);

/// Whose request it is: requests of one client keep their order, clients take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u64);

/// One connection to the device. Never used twice, so that what is said about a connection
/// of the past is not taken for its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(super) slot: u16,
    pub(super) generation: u32,
}

impl ConnId {
    /// Below `max_connections`. At any time at most one connection that wasn't closed has
    /// this index.
    pub fn index(self) -> usize {
        usize::from(self.slot)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A request for the device.
#[derive(Debug, Clone, Copy)]
pub struct Submit<'a> {
    pub key: Key,
    pub client: ClientKey,
    pub unit: u8,
    pub request: &'a Request<'a>,
    /// Equal reads of several clients on equal grounds may be answered by one.
    pub grounds: Grounds,
    /// When it is answered at the latest, with 0x0B.
    pub deadline: Instant,
    /// Don't send before it is released: a write that waits for its intent to be durable.
    pub held: bool,
}

/// Too many requests wait already. The newest is shed, with exception 0x06.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueFull {
    #[error("{limit} requests wait for the device already")]
    Device { limit: usize },
    #[error("{limit} requests of this client wait for the device already")]
    Client { limit: usize },
}

/// What the shell has to act on.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are answers, and a box would be an allocation for each request"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Open a connection, then say whether it stands.
    Connect(ConnId),
    /// Close this connection, or give up opening it. Nothing is expected in return.
    Close(ConnId, CloseReason),
    /// Close this connection in an orderly way: send nothing more, say so to the device (FIN), and
    /// wait until it has closed its side, two seconds at most; then say
    /// [`DeviceSide::handle_sealed`](super::DeviceSide::handle_sealed).
    Seal(ConnId, CloseReason),
    /// What came on a serial line is not taken; the line stays open.
    Refused(Fault),
    /// The end of a request; exactly one for each.
    Answer {
        key: Key,
        client: ClientKey,
        outcome: Outcome,
        /// It was not sent itself: it shared the read of another client.
        shared: bool,
        /// In which ways the device's answer deviated.
        borne: Borne,
        /// For the client: the device's answer, or the exception that fits the outcome.
        /// Empty after a broadcast.
        pdu: Pdu,
    },
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The device answered, perhaps with an exception.
    Answered,
    /// Sent to all devices of a serial line; none answers.
    Broadcast,
    /// Never sent: its time was over, or too short for an answer, before its turn came (0x06), or its
    /// client left (0x0A).
    NotSent,
    /// Never sent: its unit has not answered lately, and others have (0x0B).
    HeldOff,
    /// Never sent: there was no connection to the device (0x0B).
    Unreachable,
    /// Sent, and the device may or may not have acted on it (0x0B).
    Unknown(Loss),
}

/// What became of the answer to a request that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// None before the deadline.
    Timeout,
    /// Something came that does not match.
    Mismatch,
    /// On a serial line, the request itself came back.
    Echo,
    /// The connection closed, by the device or because of another request on it.
    Closed,
}

impl Outcome {
    /// Whether the request may have reached the device.
    pub fn was_sent(self) -> bool {
        !matches!(self, Self::NotSent | Self::HeldOff | Self::Unreachable)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::Broadcast => "broadcast",
            Self::NotSent => "not sent: its time was over before its turn came",
            Self::HeldOff => "not sent: the unit has not answered lately, while others do",
            Self::Unreachable => "not sent, the device can't be reached",
            Self::Unknown(Loss::Timeout) => "no answer in time",
            Self::Unknown(Loss::Mismatch) => "answer that does not match",
            Self::Unknown(Loss::Echo) => "echo of the request",
            Self::Unknown(Loss::Closed) => "connection to the device lost",
        })
    }
}

/// Why a connection is closed by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("idle")]
    Idle,
    #[error("no answer in time")]
    Timeout,
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A PDU of up to 253 bytes, held inline.
#[derive(Clone, Copy)]
pub struct Pdu {
    len: u8,
    bytes: [u8; MAX_PDU],
}

impl Pdu {
    pub(super) const EMPTY: Self = Self {
        len: 0,
        bytes: [0; MAX_PDU],
    };

    /// `pdu` has at most 253 bytes: all come out of a parser that checked it.
    pub(super) fn set(&mut self, pdu: &[u8]) {
        debug_assert!(pdu.len() <= MAX_PDU);
        let len = pdu.len().min(MAX_PDU);
        self.bytes[..len].copy_from_slice(&pdu[..len]);
        self.len = len as u8;
    }

    /// Keeps the first `len` bytes at most.
    pub(super) fn truncate(&mut self, len: u8) {
        self.len = self.len.min(len);
    }

    pub(crate) fn exception(exception: Exception, function: u8) -> Self {
        let mut pdu = Self::EMPTY;
        pdu.set_exception(exception, function);
        pdu
    }

    pub(super) fn set_exception(&mut self, exception: Exception, function: u8) {
        self.set(&exception.pdu(function));
    }
}

impl Deref for Pdu {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialEq for Pdu {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Pdu {}

impl fmt::Debug for Pdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", &self[..])
    }
}

/// Counters since the start, and what is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Established now.
    pub connections: usize,
    /// Waiting now, held ones included.
    pub queued: usize,
    /// Sent and not answered now.
    pub in_flight: usize,
    pub sent: u64,
    pub answered: u64,
    /// Requests that were not sent themselves, since a read that was answers them too.
    pub shared: u64,
    /// Requests that were sent and had no answer before their deadline.
    pub timeouts: u64,
    /// Reads that were sent once more after their connection was lost.
    pub asked_again: u64,
    /// Answers to requests that had been given up, and times that bytes came on a serial line
    /// while no answer was awaited.
    pub late: u64,
    /// Answers that do not match, and bytes that are not Modbus.
    pub mismatched: u64,
    /// Attempts to connect after the first on the same place in the pool.
    pub reconnects: u64,
    pub connect_failures: u64,
}
