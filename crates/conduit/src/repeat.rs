//! Writes that a client sends again by itself, held so that one call of it reaches the device at
//! most once.
//!
//! Client libraries send a write again when no answer comes in time, or when the connection is closed
//! under it (docs/clients.md). Each end remembers the writes it let through, by who asked, and finds
//! the first of two that are the same: of the same client, to the same unit of the same device, with
//! the same PDU. A second one is a repeat while the first is under way, and for a bounded time after
//! it ended, as long as the client can't know what became of it:
//!
//! - **Headend**: nobody knows (0x0B, or the tunnel was lost), or the answer was not acknowledged by
//!   the client's system.
//! - **Edge**: they came through different headend processes. What one process lets through it has
//!   judged itself; the edge knows what another, or one that was killed, can't tell it.
//!
//! The client knows once it has read the range, or has written all of it with success, after the first
//! ended.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fieldlock_modbus::{Range, Request};

use crate::meter::Who;

/// Identical writes on one connection, the second asked sooner than this while the first is under way,
/// are meant twice: the shortest time-out that a client library is delivered with is 500 ms.
const MEANT_TWICE_WITHIN: Duration = Duration::from_millis(200);

/// A repeat on the same connection has crossed the answer to the first if it comes this soon after...
const CROSSES_WITHIN: Duration = Duration::from_millis(50);
/// ...an answer that took at least this long, so that a client may have stopped waiting for it: the
/// shortest time-out, less what the way from the client took.
const LONGEST_WAIT: Duration = Duration::from_millis(400);

/// Writes of one client that are remembered at once; about 150 bytes each, and at most 253 of PDU.
const MAX_WRITES: usize = 256;

/// And of all clients together: at an edge a headend states who they are.
const MAX_IN_ALL: usize = 16_384;

/// A write that a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub who: &'a Who,
    /// At the headend the client's connection. At the edge the same, with the headend process in the
    /// upper 32 bits.
    pub connection: u64,
    /// Its transaction id on that connection; 0 at the edge, which does not know it.
    pub transaction: u16,
    /// Tells devices apart.
    pub device: usize,
    pub unit: u8,
    pub request: &'a Request<'a>,
}

/// A remembered write; to be given to [`Repeats::ended`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It certainly did not reach the device.
    NotSent,
    /// The device did it and said so.
    Done,
    /// The device refused it.
    Refused,
    /// It may have happened.
    Unknown,
}

/// This client has [`MAX_WRITES`] writes whose outcome it does not know, or all have [`MAX_IN_ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Headend,
    Edge,
}

/// Writes that are under way, or whose outcome the client may not know.
///
/// For each write that must not be repeated: [`Repeats::first`] says whether it is a repeat; if not,
/// and it goes on, [`Repeats::begin`], and [`Repeats::ended`] when it has its answer. Moments do not
/// decrease.
#[derive(Debug)]
pub struct Repeats {
    side: Side,
    hold: Duration,
    /// Of each client oldest first; no client without any.
    writes: HashMap<Who, Vec<Write>>,
    /// Of all clients.
    count: usize,
    next: u64,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Write {
    ticket: Ticket,
    connection: u64,
    transaction: u16,
    device: usize,
    unit: u8,
    pdu: Box<[u8]>,
    range: Option<Range>,
    /// The headend's id of the request.
    id: u64,
    asked: Instant,
    /// `None`: under way.
    end: Option<(Instant, Fate)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Unknown,
}

impl Repeats {
    /// `hold` is how long a repeat is recognised after the first ended.
    pub fn at_headend(hold: Duration) -> Self {
        Self::new(Side::Headend, hold)
    }

    /// The same for an edge.
    pub fn at_edge(hold: Duration) -> Self {
        Self::new(Side::Edge, hold)
    }

    fn new(side: Side, hold: Duration) -> Self {
        Self {
            side,
            hold,
            writes: HashMap::new(),
            count: 0,
            next: 0,
            swept: None,
        }
    }

    /// Counts for what ended before as well.
    pub fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    /// The headend's id of the write that this one repeats, if it does. `is_delivered` says of a
    /// connection that all its answers were acknowledged by the client's system; only headends are
    /// asked.
    pub fn first(
        &self,
        now: Instant,
        asked: &Asked<'_>,
        is_delivered: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let writes = self.writes.get(asked.who)?;
        let mut same = writes
            .iter()
            .filter(|write| write.is_same(asked) && !write.is_over(now, self.hold));
        let first = match self.side {
            Side::Headend => same.find(|write| write.is_repeated(now, asked, &is_delivered)),
            Side::Edge => same.find(|write| process(write.connection) != process(asked.connection)),
        };
        first.map(|write| write.id)
    }

    /// A write goes on under the headend's `id`.
    ///
    /// # Errors
    ///
    /// [`Full`]: it must not go on, since it could not be told from a repeat of it.
    pub fn begin(&mut self, now: Instant, asked: &Asked<'_>, id: u64) -> Result<Ticket, Full> {
        let is_due = self.swept.is_none_or(|at| now >= at + self.hold);
        if is_due || self.count >= MAX_IN_ALL {
            self.sweep(now);
        }
        let own = self.writes.get(asked.who).map_or(0, Vec::len);
        if own >= MAX_WRITES {
            // Most likely the client has its answer.
            let answered = |write: &Write| matches!(write.end, Some((_, Fate::Answered)));
            let writes = self.writes.get_mut(asked.who).ok_or(Full)?;
            let oldest = writes.iter().position(answered).ok_or(Full)?;
            writes.remove(oldest);
            self.count -= 1;
        } else if self.count >= MAX_IN_ALL {
            return Err(Full);
        }
        self.count += 1;
        let writes = self.writes.entry(asked.who.clone()).or_default();
        let ticket = Ticket(self.next);
        self.next += 1;
        writes.push(Write {
            ticket,
            connection: asked.connection,
            transaction: asked.transaction,
            device: asked.device,
            unit: asked.unit,
            pdu: asked.request.pdu().into(),
            range: asked.request.write().map(|write| write.range),
            id,
            asked: now,
            end: None,
        });
        Ok(ticket)
    }

    /// The write has its answer, or never gets one.
    pub fn ended(&mut self, now: Instant, who: &Who, ticket: Ticket, end: End) {
        let Some(writes) = self.writes.get_mut(who) else {
            return;
        };
        let Some(at) = writes.iter().position(|write| write.ticket == ticket) else {
            return;
        };
        let write = &mut writes[at];
        let fate = match end {
            End::NotSent => return self.retain(who, |write| write.ticket != ticket),
            End::Done | End::Refused => Fate::Answered,
            End::Unknown => Fate::Unknown,
        };
        write.end = Some((now, fate));
        if let (End::Done, Some(range)) = (end, write.range) {
            let (device, unit, asked) = (write.device, write.unit, write.asked);
            self.retain(who, |other| {
                other.ticket == ticket || !other.is_known_by(device, unit, &range, asked)
            });
        }
    }

    /// The client has the values of `range`, which it asked for at `asked`.
    pub fn read(&mut self, who: &Who, device: usize, unit: u8, range: &Range, asked: Instant) {
        self.retain(who, |write| !write.is_known_by(device, unit, range, asked));
    }

    /// The client asks something else on `connection`: it has the answers that it got there. True as
    /// long as it is worth saying so again.
    pub fn goes_on(&mut self, who: &Who, connection: u64) -> bool {
        let mut is_under_way = false;
        self.retain(who, |write| {
            if write.connection != connection {
                return true;
            }
            is_under_way |= write.end.is_none();
            !matches!(write.end, Some((_, Fate::Answered)))
        });
        is_under_way
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Forgets writes of this client, and the client with its last.
    fn retain(&mut self, who: &Who, keep: impl FnMut(&Write) -> bool) {
        let Some(writes) = self.writes.get_mut(who) else {
            return;
        };
        let before = writes.len();
        writes.retain(keep);
        self.count -= before - writes.len();
        if writes.is_empty() {
            self.writes.remove(who);
        }
    }

    /// Forgets what is over.
    fn sweep(&mut self, now: Instant) {
        self.swept = Some(now);
        let hold = self.hold;
        self.writes.retain(|_, writes| {
            writes.retain(|write| !write.is_over(now, hold));
            !writes.is_empty()
        });
        self.count = self.writes.values().map(Vec::len).sum();
    }
}

impl Write {
    fn is_same(&self, asked: &Asked<'_>) -> bool {
        (self.device, self.unit) == (asked.device, asked.unit) && *self.pdu == *asked.request.pdu()
    }

    fn is_over(&self, now: Instant, hold: Duration) -> bool {
        self.end
            .is_some_and(|(at, _)| now.saturating_duration_since(at) >= hold)
    }

    /// Of two that are the same, at the headend.
    fn is_repeated(
        &self,
        now: Instant,
        asked: &Asked<'_>,
        is_delivered: impl Fn(u64) -> bool,
    ) -> bool {
        let is_here = self.connection == asked.connection;
        match self.end {
            None => {
                let since = now.saturating_duration_since(self.asked);
                !is_here || since >= MEANT_TWICE_WITHIN
            }
            Some((_, Fate::Unknown)) => true,
            Some((at, Fate::Answered)) => {
                let crosses = is_here
                    && at.saturating_duration_since(self.asked) >= LONGEST_WAIT
                    && now.saturating_duration_since(at) < CROSSES_WITHIN;
                let is_next = is_here && self.transaction != asked.transaction;
                crosses || !is_next && !is_delivered(self.connection)
            }
        }
    }

    /// Whoever has this range of the device, asked for at `asked`, knows what became of the write.
    fn is_known_by(&self, device: usize, unit: u8, range: &Range, asked: Instant) -> bool {
        let ended_before = self.end.is_some_and(|(at, _)| at <= asked);
        ended_before
            && (self.device, self.unit) == (device, unit)
            && self.range.is_some_and(|own| {
                own.table == range.table && own.start >= range.start && own.end() <= range.end()
            })
    }
}

/// The headend process in a connection as an edge has it.
fn process(connection: u64) -> u64 {
    connection >> 32
}

#[cfg(test)]
mod tests;
