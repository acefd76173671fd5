//! Frames that wait for the wire.

use std::collections::VecDeque;

/// A queue of whole frames whose buffers are used again, so that a cyclic frame allocates
/// nothing. Holds at most [`Outbox::LIMIT`]; one more is dropped and counted.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    current: Vec<u8>,
    dropped: u64,
}

impl Outbox {
    const LIMIT: usize = 1024;

    /// Appends the frame that `write` puts into an empty buffer.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting.len() >= Self::LIMIT {
            self.dropped += 1;
            return;
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        write(&mut frame);
        self.waiting.push_back(frame);
    }

    /// The oldest frame; it stays readable until the next call.
    pub(super) fn pop(&mut self) -> Option<&[u8]> {
        let next = self.waiting.pop_front()?;
        let mut used = std::mem::replace(&mut self.current, next);
        used.clear();
        self.spare.push(used);
        Some(&self.current)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_in_order_and_too_many_are_counted() {
        let mut outbox = Outbox::default();
        for n in 0..=Outbox::LIMIT {
            outbox.push(|frame| frame.push(n as u8));
        }
        assert_eq!(outbox.dropped(), 1);
        for n in 0..Outbox::LIMIT {
            assert_eq!(outbox.pop(), Some(&[n as u8][..]));
        }
        assert_eq!(outbox.pop(), None);
    }
}
