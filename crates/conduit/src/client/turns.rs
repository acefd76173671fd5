//! Requests of one connection that have no answer yet, in the order in which they came.

use std::collections::VecDeque;
use std::time::Instant;

use fieldlock_modbus::mbap;

use super::route::Target;

/// A request of a connection that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

/// Requests of one lane are answered in the order in which they came; lanes do not wait for each
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    To(Target),
    /// A unit that leads nowhere.
    Unmapped(u8),
}

#[derive(Debug)]
pub(super) struct Turn {
    pub(super) place: Place,
    pub(super) lane: Lane,
    /// What the client calls it, and the unit that it used.
    pub(super) transaction: u16,
    pub(super) unit: u8,
    pub(super) function: u8,
    /// Tells what was asked from anything else, see [`super::ClientSide`].
    pub(super) octets: u64,
    pub(super) since: Instant,
    /// The tunnel that it was sent by.
    pub(super) tunnel: Option<u32>,
    /// The client has asked the next instead of waiting.
    pub(super) given_up: bool,
    /// Its answer, while an earlier one of its lane has none.
    answer: Option<(Box<[u8]>, By)>,
}

/// Who made an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Device,
    /// An agent: a refusal, or word that the device gave no answer.
    Agent,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// By place.
    line: VecDeque<Turn>,
    next: u64,
}

impl Turns {
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Turn> {
        self.line.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Turn> {
        self.line.iter_mut()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Turn> {
        let at = self.find(place)?;
        self.line.get_mut(at)
    }

    /// Mostly there is one, or it is asked for the first.
    fn find(&self, place: Place) -> Option<usize> {
        match self.line.front() {
            Some(first) if first.place == place => Some(0),
            _ => {
                let found = self.line.binary_search_by_key(&place, |turn| turn.place);
                found.ok()
            }
        }
    }

    pub(super) fn push(
        &mut self,
        lane: Lane,
        (transaction, unit, pdu): (u16, u8, &[u8]),
        octets: u64,
        since: Instant,
    ) -> Place {
        let place = Place(self.next);
        self.next += 1;
        self.line.push_back(Turn {
            place,
            lane,
            transaction,
            unit,
            function: pdu.first().copied().unwrap_or(0),
            octets,
            since,
            tunnel: None,
            given_up: false,
            answer: None,
        });
        place
    }

    /// The answer to the request at `place`. Tells of each request whose turn it is by that, first
    /// those that came first: it is over.
    pub(super) fn answer(
        &mut self,
        place: Place,
        pdu: &[u8],
        by: By,
        mut tell: impl FnMut(&Turn, &[u8], By),
    ) {
        let Some(at) = self.find(place) else {
            return;
        };
        let lane = self.line[at].lane;
        if self.line.range(..at).any(|turn| turn.lane == lane) {
            self.line[at].answer = Some((pdu.into(), by));
            return;
        }
        if let Some(turn) = self.line.remove(at) {
            tell(&turn, pdu, by);
        }
        let mut at = at;
        while let Some(turn) = self.line.get_mut(at) {
            if turn.lane != lane {
                at += 1;
                continue;
            }
            let Some((pdu, by)) = turn.answer.take() else {
                break;
            };
            if let Some(turn) = self.line.remove(at) {
                tell(&turn, &pdu, by);
            }
        }
    }

    /// Ends all: tells of each its answer, if it has one that waits.
    pub(super) fn end(&mut self, mut tell: impl FnMut(&Turn, Option<(&[u8], By)>)) {
        for turn in self.line.drain(..) {
            let answer = turn.answer.as_ref().map(|(pdu, by)| (&pdu[..], *by));
            tell(&turn, answer);
        }
    }
}

impl Turn {
    /// Whether it is under way by another tunnel than the one that serves its device now.
    pub(super) fn is_on_older_tunnel(&self, serves: impl Fn(usize) -> Option<u32>) -> bool {
        let (Some(tunnel), Lane::To(target), None) = (self.tunnel, self.lane, &self.answer) else {
            return false;
        };
        serves(target.device).is_some_and(|serves| serves != tunnel)
    }

    pub(super) fn encode(&self, pdu: &[u8], out: &mut Vec<u8>) {
        mbap::encode(out, self.transaction, self.unit, pdu);
    }
}
