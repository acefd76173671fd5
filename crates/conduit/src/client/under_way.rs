//! Requests that a tunnel has under way to one device.

use std::collections::VecDeque;
use std::mem;
use std::time::Instant;

/// Requests by id, at most as many as the edge gave credit for.
#[derive(Debug)]
pub struct UnderWay<R> {
    slots: Vec<Option<(u64, R)>>,
    free: Vec<u32>,
    /// In the order of sending, which is that of the deadlines.
    deadlines: VecDeque<(Instant, u64)>,
    next: u64,
}

impl<R> UnderWay<R> {
    pub fn new(credit: u32) -> Self {
        Self {
            slots: std::iter::repeat_with(|| None)
                .take(credit as usize)
                .collect(),
            free: (0..credit).rev().collect(),
            deadlines: VecDeque::new(),
            next: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An id whose low 16 bits are a free slot; the rest makes it unique.
    pub fn reserve(&mut self) -> Option<u64> {
        let slot = self.free.pop()?;
        self.next += 1;
        Some(self.next << 16 | u64::from(slot))
    }

    pub fn release(&mut self, id: u64) {
        self.free.push(slot(id) as u32);
    }

    /// Notes when a request is overdue. An edge that leaves one without an answer keeps those
    /// behind it in the line: they are dropped before the line is twice as long as the table.
    pub fn watch(&mut self, deadline: Instant, id: u64) {
        if self.deadlines.len() >= 2 * self.slots.len() {
            let mut deadlines = mem::take(&mut self.deadlines);
            deadlines.retain(|(_, id)| self.is_under_way(*id));
            self.deadlines = deadlines;
        }
        self.deadlines.push_back((deadline, id));
    }

    pub fn fill(&mut self, id: u64, request: R) {
        self.slots[slot(id)] = Some((id, request));
    }

    pub fn take(&mut self, id: u64) -> Option<R> {
        let slot = self.slots.get_mut(slot(id))?;
        let (_, request) = slot.take_if(|(known, _)| *known == id)?;
        self.release(id);
        // A poller's requests end in the order they came: forget its deadline with it.
        if self
            .deadlines
            .front()
            .is_some_and(|(_, first)| *first == id)
        {
            self.deadlines.pop_front();
        }
        Some(request)
    }

    pub fn drain(&mut self) -> impl Iterator<Item = R> {
        self.deadlines.clear();
        self.free = (0..self.slots.len() as u32).rev().collect();
        let taken = self.slots.iter_mut().filter_map(Option::take);
        taken.map(|(_, request)| request)
    }

    fn is_under_way(&self, id: u64) -> bool {
        let slot = self.slots.get(slot(id)).and_then(Option::as_ref);
        slot.is_some_and(|(known, _)| *known == id)
    }

    pub fn next_deadline(&mut self) -> Option<Instant> {
        while let Some((deadline, id)) = self.deadlines.front().copied() {
            if self.is_under_way(id) {
                return Some(deadline);
            }
            self.deadlines.pop_front();
        }
        None
    }

    pub fn take_overdue(&mut self, now: Instant) -> Option<R> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        let (_, id) = self.deadlines.pop_front()?;
        self.take(id)
    }
}

fn slot(id: u64) -> usize {
    (id & 0xffff) as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_without_an_answer_does_not_let_the_line_of_deadlines_grow() {
        let mut table = UnderWay::new(4);
        let now = Instant::now();
        let ask = |table: &mut UnderWay<u64>| {
            let id = table.reserve().unwrap();
            table.watch(now + Duration::from_secs(1), id);
            table.fill(id, id);
            id
        };
        let ignored = ask(&mut table);
        for _ in 0..1000 {
            let id = ask(&mut table);
            assert_eq!(table.take(id), Some(id));
            assert_eq!(table.take(id), None);
            assert!(table.deadlines.len() <= 8);
        }
        assert_eq!(table.take_overdue(now), None);
        let overdue = table.take_overdue(now + Duration::from_secs(1));
        assert_eq!(overdue, Some(ignored));
        assert_eq!(table.next_deadline(), None);
    }
}
