//! What is to be done on the interface, and what waits for its record.

use std::collections::VecDeque;
use std::ops::Range;

use fieldlock_audit::Ticket;
use fieldlock_conduit::profinet::LinkId;
use fieldlock_profinet::Mac;

/// Octets of frames that wait for the interface's own queue; more are dropped, the newest first.
const MAX_WAITING: usize = 256 * 1024;
/// Frames that wait for their record, at most: an AR writes a few dozen records at its start, each
/// after the answer to the one before.
const MAX_HELD: usize = 256;

/// What is to be done on the interface.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) octets: Vec<u8>,
    pub(super) frames: Vec<Range<usize>>,
    /// Frames that change a station, until their record is on the disk.
    held: VecDeque<(Ticket, Way, Vec<u8>)>,
    pub(super) memberships: Vec<(Mac, bool)>,
    pub(super) overflow: u64,
}

/// Where a frame that waits is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Wire,
    Station(LinkId, u16),
}

impl Pending {
    pub(super) fn push(&mut self, frame: &[u8]) {
        let start = self.octets.len();
        if start + frame.len() > MAX_WAITING {
            self.overflow += 1;
            return;
        }
        self.octets.extend_from_slice(frame);
        self.frames.push(start..self.octets.len());
    }

    /// Drops what waits for the interface.
    pub(super) fn forget(&mut self) {
        self.overflow += self.frames.len() as u64;
        self.frames.clear();
        self.octets.clear();
    }

    /// A frame leaves once the record before it is on the disk.
    pub(super) fn hold(&mut self, ticket: Ticket, way: Way, frame: &[u8]) -> bool {
        if self.held.len() >= MAX_HELD {
            self.overflow += 1;
            return false;
        }
        self.held.push_back((ticket, way, frame.to_vec()));
        true
    }

    /// What changes a station leaves once its record is on the disk; if it can't get there, never.
    /// `kept`: the last record that is, `None` when the log can't be written. `station` sends on a
    /// tunnel.
    pub(super) fn release(
        &mut self,
        kept: Option<Ticket>,
        station: impl Fn(LinkId, u16, &[u8]) -> bool,
    ) {
        let Some(durable) = kept else {
            self.overflow += self.held.len() as u64;
            self.held.clear();
            return;
        };
        let is_kept = |(ticket, ..): &(Ticket, Way, Vec<u8>)| *ticket <= durable;
        while self.held.front().is_some_and(is_kept) {
            let Some((_, way, frame)) = self.held.pop_front() else {
                break;
            };
            match way {
                Way::Wire => self.push(&frame),
                Way::Station(link, channel) => {
                    self.overflow += u64::from(!station(link, channel, &frame));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: Way = Way::Station(LinkId(1), 2);

    fn on_the_wire(pending: &Pending) -> Vec<&[u8]> {
        let frames = pending.frames.iter().cloned();
        frames.map(|range| &pending.octets[range]).collect()
    }

    #[test]
    fn what_changes_a_station_leaves_when_its_record_is_on_the_disk() {
        let mut pending = Pending::default();
        assert!(pending.hold(5, Way::Wire, b"first"));
        assert!(pending.hold(6, TUNNEL, b"second"));
        assert!(pending.hold(8, Way::Wire, b"third"));
        pending.release(Some(4), |_, _, _| panic!("too early"));
        assert_eq!(on_the_wire(&pending), Vec::<&[u8]>::new());
        pending.release(Some(5), |_, _, _| panic!("too early"));
        assert_eq!(on_the_wire(&pending), [b"first"]);
        pending.release(Some(7), |link, channel, frame| {
            assert_eq!((link, channel, frame), (LinkId(1), 2, &b"second"[..]));
            true
        });
        assert_eq!(on_the_wire(&pending), [b"first"]);
        assert_eq!((pending.held.len(), pending.overflow), (1, 0));
    }

    #[test]
    fn without_a_log_it_never_leaves() {
        let mut pending = Pending::default();
        pending.hold(5, Way::Wire, b"first");
        pending.hold(5, TUNNEL, b"second");
        pending.release(None, |_, _, _| panic!("not on record"));
        // Not when the log is back either: by then nobody waits for it.
        pending.release(Some(9), |_, _, _| panic!("not on record"));
        assert_eq!(on_the_wire(&pending), Vec::<&[u8]>::new());
        assert_eq!(pending.overflow, 2);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut pending = Pending::default();
        for number in 0..2 * MAX_HELD {
            let taken = pending.hold(5, Way::Wire, b"frame");
            assert_eq!(taken, number < MAX_HELD);
        }
        for _ in 0..1_000 {
            pending.push(&[0; 1_500]);
        }
        assert!(pending.octets.len() <= MAX_WAITING);
    }
}
