//! Writes that were sent and not answered, and that the device may still carry out: from its own receive
//! buffer, or out of the network. A newer write to the same unit must not overtake one of these.

use std::time::{Duration, Instant};

use super::event::ConnId;

/// How long a newer write waits at most for the device to close a connection that was given up. A device
/// that has not read what it was sent by then is taken for one that never will.
pub(super) const SEAL_WITHIN: Duration = Duration::from_secs(2);

/// The units with writes of unknown fate, each with the connection they were sent on. Few, and nearly
/// always none: one for each unit and connection at most.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    writes: Vec<Write>,
    /// What an earlier process sent, to whatever unit, until then.
    earlier: Option<Instant>,
}

#[derive(Debug)]
struct Write {
    unit: u8,
    conn: ConnId,
    /// How many of them.
    count: usize,
    /// When it counts as settled whatever happens; `None` while the connection is open.
    until: Option<Instant>,
}

impl Unsettled {
    /// An earlier process has left writes of unknown fate: all its connections are closed.
    pub(super) fn left_by_earlier(&mut self, now: Instant) {
        self.earlier = Some(now + SEAL_WITHIN);
    }

    pub(super) fn add(&mut self, conn: ConnId, unit: u8) {
        let is_it = |write: &&mut Write| write.conn == conn && write.unit == unit;
        match self.writes.iter_mut().find(is_it) {
            Some(write) => write.count += 1,
            None => self.writes.push(Write {
                unit,
                conn,
                count: 1,
                until: None,
            }),
        }
    }

    /// Whether a write to this unit may be sent on `conn`: what is unsettled was sent before it on the
    /// same connection, which a device reads in order, or is none.
    pub(super) fn allows(&self, conn: ConnId, unit: u8) -> bool {
        let mut of_unit = self.writes.iter().filter(|write| write.unit == unit);
        self.earlier.is_none() && of_unit.all(|write| write.conn == conn)
    }

    /// The late answer to one of them came.
    pub(super) fn answered(&mut self, conn: ConnId, unit: u8) {
        self.writes.retain_mut(|write| {
            let is_it = write.conn == conn && write.unit == unit;
            write.count -= usize::from(is_it);
            write.count > 0
        });
    }

    /// We close this connection. True: something on it is unsettled, and the device is to be waited for.
    pub(super) fn closing(&mut self, now: Instant, conn: ConnId) -> bool {
        let mut any = false;
        for write in self.writes.iter_mut().filter(|write| write.conn == conn) {
            write.until = Some(now + SEAL_WITHIN);
            any = true;
        }
        any
    }

    /// The device has closed this connection: what it has not carried out, it never will.
    pub(super) fn sealed(&mut self, conn: ConnId) {
        self.writes.retain(|write| write.conn != conn);
    }

    pub(super) fn pass(&mut self, now: Instant) {
        self.writes
            .retain(|write| write.until.is_none_or(|until| until > now));
        self.earlier = self.earlier.filter(|until| *until > now);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let writes = self.writes.iter().filter_map(|write| write.until);
        writes.chain(self.earlier).min()
    }
}
