//! What was asked by DCP and not yet answered.

use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;

/// Questions that are remembered at a time, of all controllers together and of one. One costs some
/// 40 octets.
const MAX: usize = 1024;
const MAX_OF_ONE: usize = 256;

/// What an answer may take beside the delay that the question allows: the way through the tunnel
/// and back, and a station that is slower than it was told to be.
const GRACE: Duration = Duration::from_secs(5);

/// A question to all is forwarded once for each station; what follows within this is the same one.
const TOGETHER: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question {
    controller: Mac,
    xid: u32,
    station: usize,
    identify: bool,
    asked: Instant,
    until: Instant,
}

/// Open questions. A station answers up to some seconds late, so they are told apart by their Xid
/// and never end at the pace of a local network.
#[derive(Debug, Default)]
pub(super) struct PendingQueries(Vec<Question>);

impl PendingQueries {
    /// Notes a question; `window` is the time by which answers may be delayed on purpose. `None`
    /// when there are too many; else whether the same question went to another station just now.
    pub(super) fn note(
        &mut self,
        now: Instant,
        controller: Mac,
        xid: u32,
        station: usize,
        identify: bool,
        window: Duration,
    ) -> Option<bool> {
        self.0.retain(|question| question.until > now);
        let same = |question: &&mut Question| {
            (question.controller, question.xid) == (controller, xid)
                && question.identify == identify
        };
        let repeated = self.0.iter_mut().filter(same).any(|question| {
            question.station != station && now.saturating_duration_since(question.asked) < TOGETHER
        });
        let until = now + window + GRACE;
        if let Some(known) = self
            .0
            .iter_mut()
            .filter(same)
            .find(|q| q.station == station)
        {
            known.asked = now;
            known.until = until;
            return Some(repeated);
        }
        let of_one = self
            .0
            .iter()
            .filter(|question| question.controller == controller);
        if self.0.len() >= MAX || of_one.count() >= MAX_OF_ONE {
            return None;
        }
        self.0.push(Question {
            controller,
            xid,
            station,
            identify,
            asked: now,
            until,
        });
        Some(repeated)
    }

    /// Whether an answer of `station` with this Xid was asked for. It stays open: a repeated question
    /// is answered twice.
    pub(super) fn is_open(
        &self,
        now: Instant,
        controller: Mac,
        xid: u32,
        station: usize,
        identify: bool,
    ) -> bool {
        self.0.iter().any(|question| {
            (question.controller, question.xid) == (controller, xid)
                && question.station == station
                && question.identify == identify
                && question.until > now
        })
    }

    /// Stations are numbered anew.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn an_answer_may_be_as_late_as_the_question_allows_and_a_long_way_more() {
        let mut asked = PendingQueries::default();
        let now = Instant::now();
        let window = Duration::from_millis(1280);
        assert_eq!(asked.note(now, PLC, 7, 0, true, window), Some(false));
        let open = |asked: &PendingQueries, after: u64, xid, station, identify| {
            let at = now + Duration::from_millis(after);
            asked.is_open(at, PLC, xid, station, identify)
        };
        assert!(open(&asked, 6_279, 7, 0, true));
        assert!(!open(&asked, 6_280, 7, 0, true));
        assert!(!open(&asked, 1, 8, 0, true));
        assert!(!open(&asked, 1, 7, 1, true));
        assert!(!open(&asked, 1, 7, 0, false));
    }

    #[test]
    fn a_flood_of_questions_fills_only_its_own_share() {
        let mut asked = PendingQueries::default();
        let now = Instant::now();
        let ask = |asked: &mut PendingQueries, mac, xid, now| {
            asked.note(now, mac, xid, 0, true, Duration::ZERO)
        };
        for xid in 0..MAX_OF_ONE as u32 {
            assert!(ask(&mut asked, PLC, xid, now).is_some());
        }
        assert_eq!(ask(&mut asked, PLC, 9_999, now), None);
        assert!(ask(&mut asked, Mac([2, 0, 0, 0, 0, 2]), 1, now).is_some());
        let later = now + GRACE + Duration::from_millis(1);
        assert!(ask(&mut asked, PLC, 9_999, later).is_some());
    }
}
