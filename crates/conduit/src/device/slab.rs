//! Where requests live from submission to the collection of their answer: places that are
//! reused, and lists that run through them, so that a request allocates nothing.

use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use fieldlock_modbus::Expected;

use super::bear::Borne;
use super::event::{ClientKey, ConnId, Key, Outcome, Pdu};
use crate::admit::Grounds;

/// A place in the [`Slab`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

/// What tells requests in flight on one connection apart.
pub(super) type Transaction = u16;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) client: ClientKey,
    pub(super) unit: u8,
    pub(super) expected: Expected,
    pub(super) deadline: Instant,
    /// Half of the time that it had when it was submitted is over.
    pub(super) half_time: Instant,
    /// It may change the state of the device.
    pub(super) changes_state: bool,
    /// It is of functions 1 to 4, which certainly change nothing.
    pub(super) only_reads: bool,
    /// Which of the [`Queue`](super::queue::Queue)'s lanes it is in.
    pub(super) lane: usize,
    /// The how many-th it was to be sent of its lane.
    pub(super) turn: u64,
    /// It was sent, its connection was lost, and it may not be sent a third time.
    pub(super) asked_again: bool,
    pub(super) state: State,
    /// With whom it may share a read; `None`: it is sent by itself.
    pub(super) share: Option<Share>,
    /// It was not sent itself: another was, that asks the same.
    pub(super) shared: bool,
    /// How the answer deviates.
    pub(super) borne: Borne,
    /// The request until it is done, then what answers it.
    pub(super) pdu: Pdu,
    next: Option<Place>,
}

/// Only equal ones are answered together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Counts the policies.
    pub(super) policy: u64,
    pub(super) grounds: Grounds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Waiting { held: bool },
    Sent(ConnId, Transaction),
    Done(Outcome),
}

impl Entry {
    pub(super) fn new(
        key: Key,
        client: ClientKey,
        unit: u8,
        expected: Expected,
        deadline: Instant,
        held: bool,
    ) -> Self {
        Self {
            key,
            client,
            unit,
            expected,
            deadline,
            half_time: deadline,
            changes_state: false,
            only_reads: false,
            lane: 0,
            turn: 0,
            asked_again: false,
            state: State::Waiting { held },
            share: None,
            shared: false,
            borne: Borne::default(),
            pdu: Pdu::EMPTY,
            next: None,
        }
    }

    /// Whether the answer to `sent`, which is about to go to the device, answers this too.
    pub(super) fn shares(&self, sent: &Self, now: Instant) -> bool {
        self.share.is_some()
            && self.share == sent.share
            && self.unit == sent.unit
            && self.pdu == sent.pdu
            && self.client != sent.client
            && self.deadline > now
    }

    /// Whether it may still be sent, where an answer takes up to `least`. One that has waited for less than half
    /// of its time always may.
    pub(super) fn is_in_time(&self, now: Instant, least: Duration) -> bool {
        now < self.deadline && (now + least < self.deadline || now < self.half_time)
    }

    pub(super) fn is_held(&self) -> bool {
        self.state == State::Waiting { held: true }
    }
}

#[derive(Debug, Default)]
pub(super) struct Slab {
    entries: Vec<Entry>,
    free: List,
}

impl Slab {
    pub(super) fn occupied(&self) -> usize {
        self.entries.len() - self.free.len
    }

    pub(super) fn insert(&mut self, entry: Entry) -> Place {
        let mut free = std::mem::take(&mut self.free);
        let reused = free.pop_front(self);
        self.free = free;
        match reused {
            Some(place) => {
                self[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                Place(self.entries.len() as u32 - 1)
            }
        }
    }

    pub(super) fn free(&mut self, place: Place) {
        self[place].state = State::Free;
        let mut free = std::mem::take(&mut self.free);
        free.push_back(self, place);
        self.free = free;
    }

    /// All places, free ones included.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + use<> {
        (0..self.entries.len() as u32).map(Place)
    }

    /// The earliest deadline of a request that is not done.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.entries
            .iter()
            .filter(|entry| matches!(entry.state, State::Waiting { .. } | State::Sent(..)))
            .map(|entry| entry.deadline)
            .min()
    }
}

impl Index<Place> for Slab {
    type Output = Entry;

    fn index(&self, place: Place) -> &Entry {
        &self.entries[place.0 as usize]
    }
}

impl IndexMut<Place> for Slab {
    fn index_mut(&mut self, place: Place) -> &mut Entry {
        &mut self.entries[place.0 as usize]
    }
}

/// First in, first out. A place is in one list at most.
#[derive(Debug, Default)]
pub(super) struct List {
    head: Option<Place>,
    tail: Option<Place>,
    len: usize,
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn front(&self) -> Option<Place> {
        self.head
    }

    pub(super) fn push_front(&mut self, slab: &mut Slab, place: Place) {
        slab[place].next = self.head;
        self.head = Some(place);
        self.tail = self.tail.or(self.head);
        self.len += 1;
    }

    pub(super) fn push_back(&mut self, slab: &mut Slab, place: Place) {
        slab[place].next = None;
        match self.tail {
            Some(tail) => slab[tail].next = Some(place),
            None => self.head = Some(place),
        }
        self.tail = Some(place);
        self.len += 1;
    }

    pub(super) fn pop_front(&mut self, slab: &mut Slab) -> Option<Place> {
        let place = self.head?;
        self.head = slab[place].next.take();
        if self.head.is_none() {
            self.tail = None;
        }
        self.len -= 1;
        Some(place)
    }

    pub(super) fn for_each(&self, slab: &mut Slab, mut tell: impl FnMut(&mut Entry)) {
        let mut at = self.head;
        while let Some(place) = at {
            tell(&mut slab[place]);
            at = slab[place].next;
        }
    }

    /// Walks: for what is rare, in lists that are short.
    pub(super) fn remove(&mut self, slab: &mut Slab, place: Place) {
        if self.head == Some(place) {
            self.pop_front(slab);
            return;
        }
        let mut at = self.head;
        while let Some(before) = at {
            at = slab[before].next;
            if at == Some(place) {
                slab[before].next = slab[place].next.take();
                if self.tail == Some(place) {
                    self.tail = Some(before);
                }
                self.len -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fieldlock_modbus::Request;

    use super::*;

    #[test]
    fn a_freed_place_is_used_again() {
        let mut slab = Slab::default();
        let first = slab.insert(entry(1));
        let second = slab.insert(entry(2));
        slab.free(first);
        assert_eq!(slab.occupied(), 1);
        assert_eq!(slab.insert(entry(3)), first);
        assert_ne!(first, second);
        assert_eq!(slab.occupied(), 2);
    }

    #[test]
    fn a_list_keeps_its_order_whatever_is_removed() {
        for removed in 0..3 {
            let mut slab = Slab::default();
            let mut list = List::default();
            let places: Vec<Place> = (0..3).map(|key| slab.insert(entry(key))).collect();
            places
                .iter()
                .for_each(|&place| list.push_back(&mut slab, place));
            list.remove(&mut slab, places[removed]);
            let last = slab.insert(entry(9));
            list.push_back(&mut slab, last);
            let mut left = Vec::new();
            while let Some(place) = list.pop_front(&mut slab) {
                left.push(slab[place].key.0);
            }
            let expected: Vec<u64> = [0, 1, 2, 9]
                .into_iter()
                .filter(|&key| key != removed as u64)
                .collect();
            assert_eq!(left, expected);
            assert_eq!((list.len(), list.front()), (0, None));
        }
    }

    fn entry(key: u64) -> Entry {
        let expected = Expected::of(&Request::parse(&[3, 0, 0, 0, 1]).unwrap());
        Entry::new(Key(key), ClientKey(0), 1, expected, Instant::now(), false)
    }
}
