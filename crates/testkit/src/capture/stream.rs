//! One direction of a TCP connection: segments in order, cut into ADUs.

use super::packet::Segment;
use super::{Piece, PieceKind};

const MBAP: usize = 7;

/// Lengths that still look like a header. The specification ends at 254, but real devices
/// go beyond (Schneider's UMAS sends 255), and those requests are worth replaying too.
const LENGTHS: std::ops::RangeInclusive<usize> = 2..=512;

/// Segments that may wait for a missing one before it is taken for lost.
const WAITING: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Stream {
    first: Option<u32>,
    /// The sequence number of the next byte in order.
    next: u32,
    waiting: Vec<Waiting>,
    unfinished: Vec<u8>,
    last_frame: u32,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Waiting {
    sequence: u32,
    frame: u32,
    payload: Vec<u8>,
}

impl Stream {
    /// Was this the first sequence number? True while there was none.
    pub(super) fn began_with(&self, sequence: u32) -> bool {
        self.first.is_none_or(|first| first == sequence)
    }

    pub(super) fn handle(&mut self, frame: u32, segment: &Segment<'_>) {
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
            frame,
            payload: segment.payload.to_vec(),
        });
        self.take_in_order();
        if self.waiting.len() > WAITING {
            self.skip_gap();
        }
    }

    pub(super) fn finish(mut self) -> Vec<Piece> {
        while !self.waiting.is_empty() {
            self.skip_gap();
        }
        self.end_run();
        self.pieces
    }

    fn take_in_order(&mut self) {
        while let Some(place) = self.waiting.iter().position(|one| self.ahead(one) <= 0) {
            let segment = self.waiting.swap_remove(place);
            // What came before already, wholly or in part, is a retransmission.
            let known = self.ahead(&segment).unsigned_abs() as usize;
            if let Some(fresh) = segment.payload.get(known..).filter(|rest| !rest.is_empty()) {
                self.next = self.next.wrapping_add(fresh.len() as u32);
                self.append(segment.frame, fresh);
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

    fn append(&mut self, frame: u32, bytes: &[u8]) {
        self.last_frame = frame;
        self.unfinished.extend_from_slice(bytes);
        while let Some(cut) = next_cut(&self.unfinished) {
            let (kind, length) = match cut {
                Cut::Adu(length) => (PieceKind::Adu, length),
                // The next segment may begin with a good header again.
                Cut::NotModbus => (PieceKind::Unframed, self.unfinished.len()),
            };
            let bytes = self.unfinished.drain(..length).collect();
            self.pieces.push(Piece { frame, bytes, kind });
        }
    }

    fn end_run(&mut self) {
        if !self.unfinished.is_empty() {
            self.pieces.push(Piece {
                frame: self.last_frame,
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

enum Cut {
    Adu(usize),
    NotModbus,
}

fn next_cut(bytes: &[u8]) -> Option<Cut> {
    if bytes.len() < MBAP {
        return None;
    }
    let protocol = u16::from_be_bytes([bytes[2], bytes[3]]);
    let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    if protocol != 0 || !LENGTHS.contains(&length) {
        return Some(Cut::NotModbus);
    }
    (bytes.len() >= length + 6).then_some(Cut::Adu(length + 6))
}
