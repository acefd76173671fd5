//! What crossed, told to somebody who looks on: one value of fixed size for each exchange, through a
//! ring that another thread reads.
//!
//! The data path never waits for who reads. Where the ring is full what comes next is lost and counted;
//! where nobody reads, [`Observer::is_on`] is `false` and nothing is made. A push allocates nothing, takes
//! no lock and calls no system.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::hash::BuildHasher;
use std::time::Instant;

use fieldlock_modbus::{Exception, Range, Request, Values};
use foldhash::fast::FixedState;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::fate::Fate;

/// Octets of values that an exchange carries as they are.
pub const CARRIED: usize = 32;
/// Octets of an answer that tells what a device is, in each piece.
pub const PIECE: usize = 64;

/// Function 43 (0x2B), Encapsulated Interface Transport: with MEI type 14, Read Device Identification.
const ENCAPSULATED: u8 = 43;
/// Function 17 (0x11), Report Server ID.
const REPORT_SERVER_ID: u8 = 17;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    Exchange(Exchange),
    Identity(Piece),
}

/// A request of a client, and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// When it was asked.
    pub at: Instant,
    /// From then to its end, in microseconds; `u32::MAX` stands for 71 minutes and more.
    pub took: u32,
    pub who: Parties,
    pub function: u8,
    pub fate: Fate,
    /// Of the device, or of the agent that refused it; 0: none.
    pub exception: u8,
    pub read: Option<Range>,
    pub written: Option<Range>,
    /// Of what was written, else of what was read.
    pub values: Octets,
}

/// Who asked, and who was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parties {
    /// The client's connection; at an edge with the headend process in the upper 32 bits.
    pub client: u64,
    /// By its place in the configuration.
    pub device: u16,
    pub unit: u8,
}

/// As many as [`CARRIED`] as they are, and a digest of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Octets {
    /// How many there are, carried or not.
    pub length: u8,
    carried: [u8; CARRIED],
    /// Of all, where they are more than are carried; else 0. The same in all runs.
    pub digest: u64,
}

impl Octets {
    pub const NONE: Self = Self {
        length: 0,
        carried: [0; CARRIED],
        digest: 0,
    };

    /// `all`: at most 253, as in a PDU.
    pub fn of(all: &[u8]) -> Self {
        let mut carried = [0; CARRIED];
        let count = all.len().min(CARRIED);
        carried[..count].copy_from_slice(&all[..count]);
        let is_cut = all.len() > CARRIED;
        Self {
            length: u8::try_from(all.len()).unwrap_or(u8::MAX),
            carried,
            digest: if is_cut { SEED.hash_one(all) } else { 0 },
        }
    }

    /// The first of them.
    pub fn carried(&self) -> &[u8] {
        let count = usize::from(self.length).min(CARRIED);
        &self.carried[..count]
    }
}

/// So that digests of different runs compare. Nobody gains by two values with one digest but to look as
/// if nothing had changed, which a value that is repeated does as well.
const SEED: FixedState = FixedState::with_seed(0);

/// A piece of an answer in which a device says what it is: to function 17 or 43. All pieces of one
/// follow one another, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub at: Instant,
    pub who: Parties,
    /// Place of the first octet in the answer's PDU.
    pub offset: u8,
    /// Of the whole PDU.
    pub total: u8,
    octets: [u8; PIECE],
}

impl Piece {
    pub fn octets(&self) -> &[u8] {
        let count = usize::from(self.total - self.offset).min(PIECE);
        &self.octets[..count]
    }
}

impl Exchange {
    /// A request that is to end; what it reads or writes is yet to be said.
    pub fn new(at: Instant, who: Parties, function: u8) -> Self {
        Self {
            at,
            took: 0,
            who,
            function,
            fate: Fate::Refused,
            exception: 0,
            read: None,
            written: None,
            values: Octets::NONE,
        }
    }

    /// All that a request says of itself.
    pub fn asked(at: Instant, who: Parties, request: &Request<'_>) -> Self {
        let new = Self::new(at, who, request.function().0);
        let written = request.write();
        let values = match written.map(|write| write.values) {
            Some(Values::Coils { bits, .. } | Values::Registers(bits)) => Octets::of(bits),
            Some(Values::Coil(on)) => Octets::of(&[u8::from(on)]),
            Some(Values::Register(word)) => Octets::of(&word.to_be_bytes()),
            _ => Octets::NONE,
        };
        Self {
            read: request.read(),
            written: written.map(|write| write.range),
            values,
            ..new
        }
    }

    /// How it ended; `pdu`: what the client was told.
    pub fn ended(self, now: Instant, fate: Fate, pdu: &[u8]) -> Self {
        let took = now.saturating_duration_since(self.at).as_micros();
        let is_exception = pdu.first().is_some_and(|first| first & 0x80 != 0);
        let exception = pdu.get(1).copied().filter(|_| is_exception);
        let is_read = self.written.is_none() && !is_exception && self.read.is_some();
        Self {
            took: u32::try_from(took).unwrap_or(u32::MAX),
            fate,
            exception: exception.unwrap_or(0),
            // Behind function and byte count.
            values: match pdu.get(2..) {
                Some(values) if is_read => Octets::of(values),
                _ => self.values,
            },
            ..self
        }
    }

    fn tells_identity(&self, pdu: &[u8]) -> bool {
        matches!(self.function, REPORT_SERVER_ID | ENCAPSULATED)
            && matches!(self.fate, Fate::Answered | Fate::Shared)
            && pdu.first() == Some(&self.function)
    }
}

/// The end of the data path.
#[derive(Default)]
pub struct Observer {
    ring: RefCell<Option<Producer<Observation>>>,
    taken: Cell<u64>,
    lost: Cell<u64>,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("taken", &self.taken)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Observer {
    /// Somebody reads from here on, from a ring with room for `capacity`; nobody reads from the one
    /// before.
    pub fn turn_on(&self, capacity: usize) -> Consumer<Observation> {
        let (producer, consumer) = RingBuffer::new(capacity);
        *self.ring.borrow_mut() = Some(producer);
        consumer
    }

    /// Nobody reads any more; who did sees that by [`Consumer::is_abandoned`].
    pub fn turn_off(&self) {
        *self.ring.borrow_mut() = None;
    }

    /// Whether there is anybody to make an [`Exchange`] for.
    pub fn is_on(&self) -> bool {
        self.ring.borrow().is_some()
    }

    /// Those that found room.
    pub fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Those that did not.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Tells of an exchange that has ended. `pdu`: what the client was told.
    pub fn exchange(&self, exchange: &Exchange, pdu: &[u8]) {
        let mut ring = self.ring.borrow_mut();
        let Some(ring) = ring.as_mut() else { return };
        self.push(ring, Observation::Exchange(*exchange));
        if exchange.tells_identity(pdu) {
            self.identity(ring, exchange, pdu);
        }
    }

    /// Tells of a request that goes no further, and of which `asked` is all that could be parsed, or its
    /// function alone. `end`: what became of it, and what its client was told.
    pub fn refused(
        &self,
        now: Instant,
        who: Parties,
        asked: Result<&Request<'_>, u8>,
        (fate, exception): (Fate, Exception),
    ) {
        let (exchange, function) = match asked {
            Ok(request) => (Exchange::asked(now, who, request), request.function().0),
            Err(function) => (Exchange::new(now, who, function), function),
        };
        let pdu = exception.pdu(function);
        self.exchange(&exchange.ended(now, fate, &pdu), &pdu);
    }

    fn identity(&self, ring: &mut Producer<Observation>, exchange: &Exchange, pdu: &[u8]) {
        let pieces = pdu.chunks(PIECE).zip((0..=u8::MAX).step_by(PIECE));
        for (piece, offset) in pieces {
            let mut octets = [0; PIECE];
            octets[..piece.len()].copy_from_slice(piece);
            let piece = Piece {
                at: exchange.at,
                who: exchange.who,
                offset,
                total: u8::try_from(pdu.len()).unwrap_or(u8::MAX),
                octets,
            };
            self.push(ring, Observation::Identity(piece));
        }
    }

    fn push(&self, ring: &mut Producer<Observation>, observation: Observation) {
        let count = match ring.push(observation) {
            Ok(()) => &self.taken,
            Err(_) => &self.lost,
        };
        count.set(count.get() + 1);
    }
}

#[cfg(test)]
mod tests;
