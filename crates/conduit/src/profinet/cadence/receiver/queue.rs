//! Frames that wait for their slots.

use std::collections::VecDeque;

use fieldlock_profinet::Tag;
use fieldlock_profinet::cyclic::DataStatus;

use super::timeline::Nanos;
use crate::profinet::cadence::datagram::Frame;

/// A frame in a buffer that is used again.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) sequence: i64,
    pub(super) born: Nanos,
    /// It came with a later one.
    pub(super) repaired: bool,
    pub(super) tag: Option<Tag>,
    pub(super) cycle_counter: u16,
    pub(super) data_status: DataStatus,
    pub(super) data: Vec<u8>,
}

impl Waiting {
    pub(super) fn frame(&self) -> Frame<'_> {
        Frame {
            tag: self.tag,
            cycle_counter: self.cycle_counter,
            data_status: self.data_status,
            data: &self.data,
        }
    }
}

/// In order of sequence, at most `room` at a time.
#[derive(Debug)]
pub(super) struct Queue {
    room: usize,
    waiting: VecDeque<Waiting>,
    spare: Vec<Vec<u8>>,
}

impl Queue {
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            waiting: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// `false`: the oldest had to give way.
    pub(super) fn insert(
        &mut self,
        sequence: i64,
        born: Nanos,
        repaired: bool,
        frame: &Frame<'_>,
    ) -> bool {
        let fits = self.waiting.len() < self.room;
        if !fits {
            self.drop_front();
        }
        let mut data = self.spare.pop().unwrap_or_default();
        data.clear();
        data.extend_from_slice(frame.data);
        let waiting = Waiting {
            sequence,
            born,
            repaired,
            tag: frame.tag,
            cycle_counter: frame.cycle_counter,
            data_status: frame.data_status,
            data,
        };
        let at = self
            .waiting
            .partition_point(|other| other.sequence < sequence);
        self.waiting.insert(at, waiting);
        fits
    }

    pub(super) fn first(&self) -> Option<i64> {
        self.waiting.front().map(|waiting| waiting.sequence)
    }

    /// The newest of those that are due; the number of older ones that were passed over.
    pub(super) fn take(&mut self, is_due: impl Fn(i64) -> bool) -> Option<(Waiting, u64)> {
        let due = self
            .waiting
            .partition_point(|waiting| is_due(waiting.sequence));
        let older = due.checked_sub(1)?;
        for _ in 0..older {
            self.drop_front();
        }
        Some((self.waiting.pop_front()?, older as u64))
    }

    pub(super) fn put_back(&mut self, frame: Waiting) {
        self.spare.push(frame.data);
    }

    pub(super) fn clear(&mut self) {
        self.spare
            .extend(self.waiting.drain(..).map(|frame| frame.data));
    }

    fn drop_front(&mut self) {
        self.spare
            .extend(self.waiting.pop_front().map(|frame| frame.data));
    }
}
