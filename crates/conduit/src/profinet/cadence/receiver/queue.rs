//! Frames that wait for their slots.

use std::collections::VecDeque;

use fieldlock_profinet::Tag;

use super::timeline::Nanos;
use crate::profinet::cadence::datagram::Frame;

/// A frame in a buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) sequence: i64,
    pub(super) born: Nanos,
    /// It came with a later one.
    pub(super) repaired: bool,
    pub(super) tag: Option<Tag>,
    pub(super) cycle_counter: u16,
    pub(super) data_status: u8,
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
    spare: Vec<Waiting>,
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
        let mut waiting = self.spare.pop().unwrap_or_default();
        waiting.sequence = sequence;
        waiting.born = born;
        waiting.repaired = repaired;
        waiting.tag = frame.tag;
        waiting.cycle_counter = frame.cycle_counter;
        waiting.data_status = frame.data_status;
        waiting.data.clear();
        waiting.data.extend_from_slice(frame.data);
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

    pub(super) fn put_back(&mut self, buffer: Waiting) {
        self.spare.push(buffer);
    }

    pub(super) fn clear(&mut self) {
        self.spare.extend(self.waiting.drain(..));
    }

    fn drop_front(&mut self) {
        self.spare.extend(self.waiting.pop_front());
    }
}
