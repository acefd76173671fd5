//! What a bridge wants done, in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use fieldlock_profinet::Mac;

use super::event::Event;

/// One tunnel, as the agent numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// One thing that is to be done; frames are lent until the next is asked for.
#[derive(Debug, PartialEq)]
pub enum Output<'a> {
    /// A frame for the own wire.
    Wire(&'a [u8]),
    /// A frame for a station's ordered channel.
    Station {
        link: LinkId,
        channel: u16,
        frame: &'a [u8],
    },
    /// A datagram of cyclic data.
    Datagram { link: LinkId, datagram: &'a [u8] },
    /// Frames for this address are to be heard from now on.
    Join(Mac),
    /// And no more.
    Leave(Mac),
    /// Something for the audit log. Frames behind an [`Event::Changes`] of the same input leave
    /// once its record is kept, and never without it.
    Event(Event),
}

/// The controller that asked, in events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requester {
    pub mac: Mac,
    pub name: Option<Arc<str>>,
}

/// Outputs that wait to be polled. Their frames lie one behind the other in one buffer, which is used
/// again: once it has grown to what one input brings about, no frame costs an allocation. Frames of
/// cyclic data are made right there, so that they are not copied more often than without a queue.
#[derive(Debug, Default)]
pub(super) struct OutputQueue {
    waiting: VecDeque<Waiting>,
    octets: Vec<u8>,
    /// Whether what was polled last is a drop if its tunnel does not take it.
    counts: bool,
}

#[derive(Debug)]
enum Waiting {
    Frame(To, Range<usize>),
    Join(Mac),
    Leave(Mac),
    Event(Event),
}

#[derive(Debug, Clone, Copy)]
enum To {
    Wire,
    Station {
        link: LinkId,
        channel: u16,
        counts: bool,
    },
    Datagram(LinkId),
}

impl OutputQueue {
    pub(super) fn wire(&mut self, frame: &[u8]) {
        self.wire_with(|octets| octets.extend_from_slice(frame));
    }

    /// A frame for the own wire, which `put` appends.
    pub(super) fn wire_with(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let start = self.octets.len();
        put(&mut self.octets);
        self.push_frame(To::Wire, start);
    }

    /// A frame that was heard, for the only station that it goes to: a drop where the tunnel does
    /// not take it.
    pub(super) fn station(&mut self, way: (LinkId, u16), frame: &[u8]) {
        self.push_station(way, true, |octets| octets.extend_from_slice(frame));
    }

    /// One of several copies of a frame that was heard. A frame is a drop once at most, so these are
    /// not counted.
    pub(super) fn station_copy(&mut self, way: (LinkId, u16), frame: &[u8]) {
        self.push_station(way, false, |octets| octets.extend_from_slice(frame));
    }

    /// A frame that is made here, which `put` appends; not counted either.
    pub(super) fn station_with(&mut self, way: (LinkId, u16), put: impl FnOnce(&mut Vec<u8>)) {
        self.push_station(way, false, put);
    }

    /// A datagram of cyclic data, if `put` appends one.
    pub(super) fn datagram_with<E>(
        &mut self,
        link: LinkId,
        put: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.octets.len();
        put(&mut self.octets)?;
        self.push_frame(To::Datagram(link), start);
        Ok(())
    }

    pub(super) fn join(&mut self, mac: Mac) {
        self.waiting.push_back(Waiting::Join(mac));
    }

    pub(super) fn leave(&mut self, mac: Mac) {
        self.waiting.push_back(Waiting::Leave(mac));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.waiting.push_back(Waiting::Event(event));
    }

    pub(super) fn poll(&mut self) -> Option<Output<'_>> {
        let Some(next) = self.waiting.pop_front() else {
            self.octets.clear();
            return None;
        };
        Some(match next {
            Waiting::Frame(to, range) => self.lend(to, range),
            Waiting::Join(mac) => Output::Join(mac),
            Waiting::Leave(mac) => Output::Leave(mac),
            Waiting::Event(event) => Output::Event(event),
        })
    }

    /// Whether the frame that was polled last is a drop, now that its tunnel did not take it.
    pub(super) fn not_taken(&self) -> bool {
        self.counts
    }

    fn push_station(
        &mut self,
        (link, channel): (LinkId, u16),
        counts: bool,
        put: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.octets.len();
        put(&mut self.octets);
        let to = To::Station {
            link,
            channel,
            counts,
        };
        self.push_frame(to, start);
    }

    fn push_frame(&mut self, to: To, start: usize) {
        let range = start..self.octets.len();
        self.waiting.push_back(Waiting::Frame(to, range));
    }

    fn lend(&mut self, to: To, range: Range<usize>) -> Output<'_> {
        self.counts = !matches!(to, To::Station { counts: false, .. });
        // The octets are cleared when nothing waits any more.
        let frame = self.octets.get(range).unwrap_or_default();
        match to {
            To::Wire => Output::Wire(frame),
            To::Station { link, channel, .. } => Output::Station {
                link,
                channel,
                frame,
            },
            To::Datagram(link) => Output::Datagram {
                link,
                datagram: frame,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: (LinkId, u16) = (LinkId(1), 2);

    #[test]
    fn outputs_come_in_the_order_in_which_they_went_in() {
        let mut queue = OutputQueue::default();
        for _ in 0..2 {
            queue.join(Mac::DCP_HELLO);
            queue.wire(b"first");
            queue.station(WAY, b"second");
            assert_eq!(queue.poll(), Some(Output::Join(Mac::DCP_HELLO)));
            queue.leave(Mac::DCP_HELLO);
            assert_eq!(queue.poll(), Some(Output::Wire(b"first")));
            let second = Output::Station {
                link: WAY.0,
                channel: WAY.1,
                frame: b"second",
            };
            assert_eq!(queue.poll(), Some(second));
            assert_eq!(queue.poll(), Some(Output::Leave(Mac::DCP_HELLO)));
            assert_eq!(queue.poll(), None);
        }
    }

    #[test]
    fn buffers_are_used_again() {
        let mut queue = OutputQueue::default();
        let mut buffers = Vec::new();
        for _ in 0..1_000 {
            queue.wire(&[0; 1_500]);
            let Some(Output::Wire(frame)) = queue.poll() else {
                panic!("a frame waits");
            };
            buffers.push(frame.as_ptr());
            assert_eq!(queue.poll(), None);
        }
        buffers.dedup();
        assert_eq!(buffers.len(), 1);
        assert!(queue.octets.capacity() < 4_000);
    }

    #[test]
    fn a_frame_is_a_drop_once_however_many_it_goes_to() {
        let mut queue = OutputQueue::default();
        queue.station(WAY, b"to one");
        queue.station_copy(WAY, b"to several");
        let datagram: Result<(), ()> = queue.datagram_with(WAY.0, |_| Ok(()));
        datagram.unwrap();
        let mut counted = Vec::new();
        while queue.poll().is_some() {
            counted.push(queue.not_taken());
        }
        assert_eq!(counted, [true, false, true]);
    }
}
