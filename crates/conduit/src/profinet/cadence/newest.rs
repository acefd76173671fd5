//! A queue in which a newer datagram takes the place of one that still waits.

use std::collections::VecDeque;

use super::datagram::{DatagramError, Header, Stream};

/// Datagrams that wait for a way that does not lose but stalls (TCP). Per stream only the newest
/// waits, so what crosses after a stall is the present and not the past.
///
/// Order is that of waiting: a replaced datagram leaves its place to its successor, so no stream
/// waits longer because it has more to say. Holds at most `streams` datagrams, each of at most
/// `max_datagram` octets; buffers are kept for reuse.
#[derive(Debug)]
pub struct Newest {
    streams: usize,
    max_datagram: usize,
    waiting: VecDeque<(Stream, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    /// What [`Newest::pop`] gave out last.
    current: Vec<u8>,
    replaced: u64,
    refused: u64,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// An older one of its stream will not be sent.
    Replaced,
    /// Too long, or as many streams wait as may. It is not sent.
    Refused,
}

impl Newest {
    pub fn new(streams: usize, max_datagram: usize) -> Self {
        Self {
            streams,
            max_datagram,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            current: Vec::new(),
            replaced: 0,
            refused: 0,
        }
    }

    /// Queues a datagram, newer than all that its stream queued before.
    pub fn push(&mut self, datagram: &[u8]) -> Result<Pushed, DatagramError> {
        let stream = Header::peek(datagram)?.stream;
        if datagram.len() > self.max_datagram {
            self.refused += 1;
            return Ok(Pushed::Refused);
        }
        if let Some((_, older)) = self.waiting.iter_mut().find(|(of, _)| *of == stream) {
            older.clear();
            older.extend_from_slice(datagram);
            self.replaced += 1;
            return Ok(Pushed::Replaced);
        }
        if self.waiting.len() >= self.streams {
            self.refused += 1;
            return Ok(Pushed::Refused);
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(datagram);
        self.waiting.push_back((stream, buffer));
        Ok(Pushed::Queued)
    }

    /// The datagram that has waited longest.
    pub fn pop(&mut self) -> Option<&[u8]> {
        let (_, datagram) = self.waiting.pop_front()?;
        self.spare
            .push(std::mem::replace(&mut self.current, datagram));
        Some(&self.current)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many datagrams a newer one has replaced.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// How many datagrams found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use fieldlock_profinet::FrameId;

    use super::*;

    fn datagram(ar: u16, sequence: u32) -> Vec<u8> {
        let stream = Stream {
            channel: 0,
            ar,
            frame_id: FrameId(0xc001),
        };
        let mut out = Vec::new();
        let header = Header {
            stream,
            sequence,
            sent: 0,
            count: 1,
        };
        header.write(&mut out);
        out
    }

    #[test]
    fn a_newer_datagram_takes_the_place_of_the_one_that_waits() {
        let mut queue = Newest::new(4, 100);
        assert_eq!(queue.push(&datagram(1, 1)), Ok(Pushed::Queued));
        assert_eq!(queue.push(&datagram(2, 1)), Ok(Pushed::Queued));
        assert_eq!(queue.push(&datagram(1, 2)), Ok(Pushed::Replaced));
        assert_eq!(queue.pop(), Some(&datagram(1, 2)[..]));
        assert_eq!(queue.push(&datagram(1, 3)), Ok(Pushed::Queued));
        assert_eq!(queue.pop(), Some(&datagram(2, 1)[..]));
        assert_eq!(queue.pop(), Some(&datagram(1, 3)[..]));
        assert_eq!(queue.pop(), None);
        assert_eq!((queue.replaced(), queue.refused()), (1, 0));
    }

    #[test]
    fn no_more_streams_and_octets_wait_than_may() {
        let mut queue = Newest::new(1, 16);
        assert_eq!(queue.push(&datagram(1, 1)), Ok(Pushed::Queued));
        assert_eq!(queue.push(&datagram(2, 1)), Ok(Pushed::Refused));
        let mut long = datagram(1, 2);
        long.push(0);
        assert_eq!(queue.push(&long), Ok(Pushed::Refused));
        assert_eq!(queue.push(&[0x10]), Err(DatagramError::Short));
        assert_eq!(queue.pop(), Some(&datagram(1, 1)[..]));
        assert_eq!(queue.refused(), 2);
    }
}
