//! One direction of a bad network, as a decision per packet: lost, late, twice, damaged.
//!
//! A [`Link`] has no socket and no clock. Whoever carries the packets (the virtual wire with
//! real time, a simulation with virtual time) asks [`Link::handle`] about each packet when it
//! enters and does what it says. The same impairment, seed, times and lengths give the same
//! decisions on every run; only the delays of [`Jitter::Pareto`] may differ in their last
//! nanoseconds between machines.
//!
//! Each kind of impairment draws from a stream of its own, once per packet. So a link with 5 %
//! of loss loses every packet that it would lose with 1 %, and turning jitter on does not move
//! the losses: what is compared under one seed suffers alike.

mod burst;
mod impairment;

use std::time::{Duration, Instant};

use crate::random::Random;
pub use crate::random::derive;
use burst::Chain;
pub use impairment::{Burst, Cuts, Impairment, Jitter, Rate, Reorder};

/// What is to happen to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Drop(Reason),
    Deliver(Delivery),
}

/// When and how a packet arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Never before the `now` of its [`Link::handle`].
    pub at: Instant,
    /// 1, or 2 for a duplicate, which arrives at the same time.
    pub copies: u8,
    /// An octet to damage, by [`damage`]: 0 to the packet's length (out).
    pub corrupt: Option<usize>,
}

/// Why a packet does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Independent loss.
    Loss,
    /// Lost in the bad state of [`Burst`].
    Burst,
    /// Entered while the link was cut.
    Cut,
    /// Did not fit the queue of [`Rate`].
    Queue,
}

/// One direction. `now` never decreases from one call to the next.
#[derive(Debug)]
pub struct Link {
    impairment: Impairment,
    start: Instant,
    loss: Random,
    burst: Random,
    jitter: Random,
    reorder: Random,
    duplicate: Random,
    corrupt: Random,
    chain: Chain,
    /// When the last octet that was accepted has left the queue of the rate limit.
    idle_from: Instant,
    /// Packets that keep their order do not arrive before this.
    not_before: Instant,
}

impl Link {
    /// `start` is the zero of [`Cuts`] and of a burst's steps.
    pub fn new(impairment: Impairment, seed: u64, start: Instant) -> Self {
        let stream = |number| Random::seeded(derive(seed, number));
        Self {
            impairment,
            start,
            loss: stream(0),
            burst: stream(1),
            jitter: stream(2),
            reorder: stream(3),
            duplicate: stream(4),
            corrupt: stream(5),
            chain: Chain::new(start),
            idle_from: start,
            not_before: start,
        }
    }

    /// Both directions of one wire, alike but each with its own stream of the seed.
    pub fn pair(impairment: &Impairment, seed: u64, start: Instant) -> [Self; 2] {
        [0, 1].map(|direction| Self::new(impairment.clone(), derive(seed, direction), start))
    }

    /// Another impairment from the next packet on; the order of packets holds across the change.
    pub fn change(&mut self, impairment: Impairment) {
        self.impairment = impairment;
    }

    /// Decides about a packet of `length` octets that enters now.
    ///
    /// Packets arrive in the order in which they entered, whatever the jitter: a late one holds
    /// back those behind it. Only [`Reorder`] lets packets overtake.
    pub fn handle(&mut self, now: Instant, length: usize) -> Decision {
        let with = &self.impairment;
        // Every stream is drawn from for every packet: see the module.
        let lost = self.loss.happens(with.loss);
        let lost_in_burst = match &with.burst {
            Some(burst) => self.chain.loses(burst, now, &mut self.burst),
            None => false,
        };
        let jitter = with.jitter.sample(&mut self.jitter);
        let held_back = match with.reorder {
            Some(reorder) => self.reorder.happens(reorder.share).then_some(reorder.by),
            None => None,
        };
        let copies = 1 + u8::from(self.duplicate.happens(with.duplicate));
        let corrupt = self.corrupt.happens(with.corrupt);
        let corrupt_at = self.corrupt.next();

        if with.cuts.contain(now.saturating_duration_since(self.start)) {
            return Decision::Drop(Reason::Cut);
        }
        if lost {
            return Decision::Drop(Reason::Loss);
        }
        if lost_in_burst {
            return Decision::Drop(Reason::Burst);
        }
        let Some(left) = self.leaves(now, length) else {
            return Decision::Drop(Reason::Queue);
        };
        let mut at = left + self.impairment.delay.min(LONGEST) + jitter;
        match held_back {
            Some(by) => at += by.min(LONGEST),
            None => {
                at = at.max(self.not_before);
                self.not_before = at;
            }
        }
        Decision::Deliver(Delivery {
            at,
            copies,
            corrupt: (corrupt && length > 0).then(|| (corrupt_at % length as u64) as usize),
        })
    }

    /// When the packet has left the queue of the rate limit, if there is room in it.
    fn leaves(&mut self, now: Instant, length: usize) -> Option<Instant> {
        let Some(rate) = self.impairment.rate else {
            return Some(now);
        };
        let waiting = rate.octets_in(self.idle_from.saturating_duration_since(now));
        // A packet that finds the queue empty goes out whatever its length.
        if waiting > 0 && waiting + length as u64 > rate.queue as u64 {
            return None;
        }
        self.idle_from = self.idle_from.max(now) + rate.time_of(length);
        Some(self.idle_from)
    }
}

/// Damages the octet that [`Delivery::corrupt`] names.
pub fn damage(packet: &mut [u8], at: usize) {
    if let Some(octet) = packet.get_mut(at) {
        *octet ^= 0x55;
    }
}

/// The longest delay of anything: keeps instants far from their limits.
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
