//! Packets on their way through links.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use fieldlock_testkit::link::{Decision, Delivery, Link, Reason};

/// Packets that are under way at a time, over all lanes.
const MOST: usize = 65_536;

/// What happened to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered(Delivery),
    Lost(Reason),
    /// More than [`MOST`] were under way.
    Overflow,
}

/// What all lanes have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) packets: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) burst: u64,
    pub(crate) cut: u64,
    pub(crate) queue: u64,
    pub(crate) overflow: u64,
    /// How much later than decided a packet left at worst: what this program adds.
    pub(crate) latest: Duration,
}

/// Holds packets until they are due. `L` says where a packet goes.
///
/// Call [`handle`](Self::handle) with each packet and its link, [`poll`](Self::poll) until it
/// returns nothing, and wait for [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub(crate) struct Carrier<L> {
    held: BinaryHeap<Reverse<Held<L>>>,
    entered: u64,
    totals: Totals,
}

#[derive(Debug)]
struct Held<L> {
    due: Instant,
    number: u64,
    lane: L,
    packet: Vec<u8>,
}

impl<L: Copy> Carrier<L> {
    pub(crate) fn new() -> Self {
        Self {
            held: BinaryHeap::new(),
            entered: 0,
            totals: Totals::default(),
        }
    }

    /// Takes a packet that enters `link` now; `damage` changes the octet that is to arrive damaged.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        link: &mut Link,
        lane: L,
        mut packet: Vec<u8>,
        damage: impl Fn(&mut [u8], usize),
    ) -> Fate {
        self.totals.packets += 1;
        let decision = link.handle(now, packet.len());
        let fate = match decision {
            Decision::Drop(reason) => Fate::Lost(reason),
            Decision::Deliver(_) if self.held.len() + 1 >= MOST => Fate::Overflow,
            Decision::Deliver(delivery) => {
                if let Some(at) = delivery.corrupt {
                    damage(&mut packet, at);
                }
                for _ in 1..delivery.copies {
                    self.hold(delivery.at, lane, packet.clone());
                }
                self.hold(delivery.at, lane, packet);
                Fate::Delivered(delivery)
            }
        };
        let counter = match fate {
            Fate::Delivered(_) => &mut self.totals.delivered,
            Fate::Lost(Reason::Loss) => &mut self.totals.lost,
            Fate::Lost(Reason::Burst) => &mut self.totals.burst,
            Fate::Lost(Reason::Cut) => &mut self.totals.cut,
            Fate::Lost(Reason::Queue) => &mut self.totals.queue,
            Fate::Overflow => &mut self.totals.overflow,
        };
        *counter += 1;
        fate
    }

    /// The next packet that is due.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(L, Vec<u8>)> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Reverse(held) = self.held.pop()?;
        let late = now.saturating_duration_since(held.due);
        self.totals.latest = self.totals.latest.max(late);
        Some((held.lane, held.packet))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse(held)| held.due)
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    fn hold(&mut self, due: Instant, lane: L, packet: Vec<u8>) {
        self.entered += 1;
        self.held.push(Reverse(Held {
            due,
            number: self.entered,
            lane,
            packet,
        }));
    }
}

/// By time, and where that is the same in the order of entering.
impl<L> Ord for Held<L> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<L> PartialOrd for Held<L> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<L> PartialEq for Held<L> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<L> Eq for Held<L> {}

#[cfg(test)]
mod tests {
    use fieldlock_testkit::link::{Impairment, Jitter, damage};

    use super::*;

    #[test]
    fn packets_leave_when_due_in_the_order_in_which_they_came() {
        let start = Instant::now();
        let with = Impairment {
            delay: Duration::from_millis(10),
            jitter: Jitter::Uniform(Duration::from_millis(5)),
            duplicate: 0.5,
            ..Impairment::default()
        };
        let mut link = Link::new(with, 3, start);
        let mut carrier = Carrier::new();
        let mut expected = Vec::new();
        for number in 0..100 {
            let Fate::Delivered(delivery) =
                carrier.handle(start, &mut link, 0, vec![number], damage)
            else {
                panic!("nothing is lost");
            };
            expected.extend(vec![number; delivery.copies.into()]);
        }
        assert!(carrier.poll(start).is_none());
        let mut left = Vec::new();
        while let Some(due) = carrier.poll_timeout() {
            assert!(due >= start + Duration::from_millis(10));
            left.extend(carrier.poll(due).map(|(_, packet)| packet[0]));
        }
        assert_eq!(left, expected);
        assert_eq!(carrier.totals().delivered, 100);
        assert_eq!(carrier.totals().latest, Duration::ZERO);
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let start = Instant::now();
        let with = Impairment {
            delay: Duration::from_secs(1),
            ..Impairment::default()
        };
        let mut link = Link::new(with, 3, start);
        let mut carrier = Carrier::new();
        for _ in 0..MOST + 10 {
            carrier.handle(start, &mut link, (), Vec::new(), damage);
        }
        assert_eq!(carrier.totals().overflow, 11);
    }
}
