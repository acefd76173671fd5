//! One direction of a TCP connection: segments in order, cut into ADUs.

use crate::packet::Segment;
use crate::{At, Direction, Ends, Piece, PieceKind};

const MBAP: usize = 7;

/// Lengths that still look like a header. The specification ends at 254, but real devices
/// go beyond (Schneider's UMAS sends 255), and those requests are worth replaying too.
const LENGTHS: std::ops::RangeInclusive<usize> = 2..=512;

/// Segments that may wait for a missing one before it is taken for lost, and their octets.
const WAITING: usize = 64;
const WAITING_OCTETS: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Stream {
    first: Option<u32>,
    /// The sequence number of the next byte in order.
    next: u32,
    waiting: Vec<Waiting>,
    unfinished: Vec<u8>,
    last: At,
    cuts: Vec<Cut>,
}

/// A piece without whose it is.
#[derive(Debug)]
pub(crate) struct Cut {
    at: At,
    bytes: Vec<u8>,
    kind: PieceKind,
}

impl Cut {
    pub(crate) fn piece(self, connection: usize, ends: Ends, direction: Direction) -> Piece {
        let (client, server) = ends;
        Piece {
            connection,
            client,
            server,
            direction,
            frame: self.at.frame,
            time: self.at.time,
            bytes: self.bytes,
            kind: self.kind,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    sequence: u32,
    at: At,
    payload: Vec<u8>,
}

impl Stream {
    /// Was this the first sequence number? True while there was none.
    pub(crate) fn began_with(&self, sequence: u32) -> bool {
        self.first.is_none_or(|first| first == sequence)
    }

    pub(crate) fn handle(&mut self, at: At, segment: &Segment<'_>) {
        if self.first.is_none() {
            // A capture that starts within a connection starts with its first segment.
            self.first = Some(segment.sequence);
            self.next = segment.sequence;
        }
        if segment.payload.is_empty() || is_keep_alive(segment, self.next) {
            return;
        }
        self.waiting.push(Waiting {
            sequence: segment.sequence,
            at,
            payload: segment.payload.to_vec(),
        });
        self.take_in_order();
        while self.waiting.len() > WAITING || self.waiting_octets() > WAITING_OCTETS {
            self.skip_gap();
        }
    }

    pub(crate) fn finish(&mut self) {
        while !self.waiting.is_empty() {
            self.skip_gap();
        }
        self.end_run();
    }

    /// What has been cut since the last call.
    pub(crate) fn cut(&mut self) -> impl Iterator<Item = Cut> {
        self.cuts.drain(..)
    }

    fn waiting_octets(&self) -> usize {
        self.waiting.iter().map(|one| one.payload.len()).sum()
    }

    fn take_in_order(&mut self) {
        while let Some(place) = self.waiting.iter().position(|one| self.ahead(one) <= 0) {
            let segment = self.waiting.swap_remove(place);
            // What came before already, wholly or in part, is a retransmission.
            let known = self.ahead(&segment).unsigned_abs() as usize;
            if let Some(fresh) = segment.payload.get(known..).filter(|rest| !rest.is_empty()) {
                self.next = self.next.wrapping_add(fresh.len() as u32);
                self.append(segment.at, fresh);
            }
        }
    }

    /// Goes on with the nearest segment behind the gap.
    fn skip_gap(&mut self) {
        let nearest = self.waiting.iter().min_by_key(|one| self.ahead(one));
        if let Some(sequence) = nearest.map(|one| one.sequence) {
            self.end_run();
            self.next = sequence;
            self.take_in_order();
        }
    }

    /// How far ahead of the stream a segment begins; sequence numbers wrap.
    fn ahead(&self, segment: &Waiting) -> i32 {
        segment.sequence.wrapping_sub(self.next) as i32
    }

    fn append(&mut self, at: At, bytes: &[u8]) {
        self.last = at;
        self.unfinished.extend_from_slice(bytes);
        while let Some(cut) = next_cut(&self.unfinished) {
            let (kind, length) = match cut {
                Next::Adu(length) => (PieceKind::Adu, length),
                // The next segment may begin with a good header again.
                Next::NotModbus => (PieceKind::Unframed, self.unfinished.len()),
            };
            let bytes = self.unfinished.drain(..length).collect();
            self.cuts.push(Cut { at, bytes, kind });
        }
    }

    fn end_run(&mut self) {
        if !self.unfinished.is_empty() {
            self.cuts.push(Cut {
                at: self.last,
                bytes: std::mem::take(&mut self.unfinished),
                kind: PieceKind::Partial,
            });
        }
    }
}

/// A TCP keep-alive repeats the last byte, or sends a byte of nothing before the next.
fn is_keep_alive(segment: &Segment<'_>, next: u32) -> bool {
    segment.payload.len() == 1 && segment.sequence == next.wrapping_sub(1)
}

enum Next {
    Adu(usize),
    NotModbus,
}

fn next_cut(bytes: &[u8]) -> Option<Next> {
    if bytes.len() < MBAP {
        return None;
    }
    let protocol = u16::from_be_bytes([bytes[2], bytes[3]]);
    let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    if protocol != 0 || !LENGTHS.contains(&length) {
        return Some(Next::NotModbus);
    }
    (bytes.len() >= length + 6).then_some(Next::Adu(length + 6))
}
