//! The headend's half of a device channel: requests that went to an edge over one tunnel.
//!
//! Before a request leaves: [`Forwarding::reserve`], then [`Forwarding::begin`], or
//! [`Forwarding::release`] if it does not leave after all. Each that has begun ends once, by
//! [`Forwarding::handle_answer`], [`Forwarding::handle_timeout`] or [`Forwarding::close`].

use std::time::{Duration, Instant};

use fieldlock_modbus::rtu::BROADCAST;
use fieldlock_modbus::{Answer, Exception, Expected, Quirks, Range};
use fieldlock_session::Outcome;

use crate::admit::Permit;
use crate::client::UnderWay;
use crate::fate::{Fate, is_no_answer};

/// Kept back from `answer_within` beside the round trip, so that the edge's own word on a
/// request ("not sent", "unknown") arrives before this side gives up.
const MARGIN: Duration = Duration::from_millis(20);

/// Between two looks at the round trip.
const REFRESH: Duration = Duration::from_secs(1);

/// Requests under way to one device over one tunnel, each with what the caller needs for its end.
#[derive(Debug)]
pub struct Forwarding<A> {
    under_way: UnderWay<Pending<A>>,
    answer_within: Duration,
    quirks: Quirks,
    /// What the edge is given to answer, in milliseconds, and when that was worked out.
    within: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Pending<A> {
    id: u64,
    asker: A,
    since: Instant,
    unit: u8,
    expected: Expected,
    read: Option<Range>,
}

/// The end of a request.
#[derive(Debug)]
pub struct Ended<A> {
    pub asker: A,
    pub id: u64,
    pub fate: Fate,
    /// Why, where the device did not answer; empty where it did.
    pub reason: &'static str,
    pub since: Instant,
    pub unit: u8,
    pub function: u8,
    /// What it reads, where it has an address.
    pub read: Option<Range>,
    /// What the client is answered in place of the edge's PDU.
    own: Option<[u8; 2]>,
}

impl<A> Forwarding<A> {
    /// `credit` is how many requests the edge takes at once, `answer_within` its own bound, and `quirks`
    /// how the device deviates, all as its hello says.
    pub fn new(credit: u32, answer_within: Duration, quirks: Quirks) -> Self {
        Self {
            under_way: UnderWay::new(credit),
            answer_within,
            quirks,
            within: None,
        }
    }

    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// An id for a request, the same at both ends. `None`: all credit is used.
    pub fn reserve(&mut self) -> Option<u64> {
        self.under_way.reserve()
    }

    pub fn release(&mut self, id: u64) {
        self.under_way.release(id);
    }

    /// A request leaves; within how many milliseconds the edge is to answer it. Nothing sends it again.
    pub fn begin(
        &mut self,
        now: Instant,
        id: u64,
        permit: &Permit<'_>,
        asker: A,
        round_trip: impl FnOnce() -> Option<Duration>,
    ) -> u32 {
        let request = permit.request();
        self.under_way.watch(now + self.answer_within, id);
        let pending = Pending {
            id,
            asker,
            since: now,
            unit: permit.unit(),
            expected: Expected::of(request),
            read: request.read(),
        };
        self.under_way.fill(id, pending);
        match self.within {
            Some((at, within)) if now.saturating_duration_since(at) <= REFRESH => within,
            _ => {
                let within = self.within_of(round_trip().unwrap_or_default());
                self.within = Some((now, within));
                within
            }
        }
    }

    fn within_of(&self, round_trip: Duration) -> u32 {
        // A device with a very short time still gets half of it.
        let within = self
            .answer_within
            .saturating_sub(round_trip + MARGIN)
            .max(self.answer_within / 2);
        let millis = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        millis.max(1)
    }

    /// The edge's answer to request `id`. `None`: nobody waits for it any more.
    pub fn handle_answer(&mut self, id: u64, outcome: Outcome, pdu: &[u8]) -> Option<Ended<A>> {
        let pending = self.under_way.take(id)?;
        let answer = pending.expected.check_of(pdu, self.quirks);
        let (fate, reason) = match (outcome, answer) {
            (Outcome::Answered, Ok(Answer::Normal)) => (Fate::Answered, ""),
            (Outcome::Answered, Ok(Answer::Exception(_))) => (Fate::Exception, ""),
            // A broadcast has left and nobody answers it.
            (Outcome::Answered, Err(_)) if pdu.is_empty() && pending.unit == BROADCAST => {
                (Fate::Sent, "")
            }
            (Outcome::Refused, Ok(Answer::Exception(_))) if is_no_answer(pdu) => {
                (Fate::RepeatRefused, "refused by the edge")
            }
            (Outcome::Refused, Ok(Answer::Exception(_))) => (Fate::Refused, "refused by the edge"),
            (Outcome::NotSent, Ok(Answer::Exception(_))) => (Fate::NotSent, "not sent by the edge"),
            (Outcome::Unknown, Ok(Answer::Exception(_))) => {
                (Fate::Unknown, "no answer from the device")
            }
            _ => return Some(pending.lost("the edge's answer does not match the request")),
        };
        Some(pending.ended(fate, reason, None))
    }

    /// When the next request is overdue.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.under_way.next_deadline()
    }

    /// To be called until it gives nothing.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Ended<A>> {
        let pending = self.under_way.take_overdue(now)?;
        Some(pending.lost("no answer in time"))
    }

    /// The tunnel is gone: what left may have happened.
    pub fn close(&mut self) -> Vec<Ended<A>> {
        let pending = self.under_way.drain();
        pending
            .map(|pending| pending.lost("the tunnel was lost"))
            .collect()
    }
}

impl<A> Pending<A> {
    fn lost(self, reason: &'static str) -> Ended<A> {
        let exception = Exception::GatewayTargetFailedToRespond;
        let own = exception.pdu(self.expected.function());
        self.ended(Fate::Unknown, reason, Some(own))
    }

    fn ended(self, fate: Fate, reason: &'static str, own: Option<[u8; 2]>) -> Ended<A> {
        Ended {
            asker: self.asker,
            id: self.id,
            fate,
            reason,
            since: self.since,
            unit: self.unit,
            function: self.expected.function(),
            read: self.read,
            own,
        }
    }
}

impl<A> Ended<A> {
    /// What the client is answered; `from_edge` is the edge's PDU, if there is one.
    pub fn pdu<'a>(&'a self, from_edge: &'a [u8]) -> &'a [u8] {
        self.own.as_ref().map_or(from_edge, |own| own)
    }
}

#[cfg(test)]
mod tests;
