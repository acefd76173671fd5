//! What the handles and the thread share: records that wait, and who sleeps.

#![expect(
    clippy::disallowed_methods,
    reason = "the journal's thread is a shell: it waits by the clock"
)]

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::checkpoint::Sign;
use super::{LINGER, Options, RETRY, State, Unavailable};
use crate::class::Class;
use crate::clock::Clock;
use crate::record::{Head, Kind, Record, Ticket};

pub(super) struct Shared {
    queue: Mutex<Queue>,
    pub(super) work: Condvar,
    pub(super) ended: Condvar,
    /// The last ticket that is on the disk.
    pub(super) durable: AtomicU64,
    /// The rest of the log is kept for the plant's own records.
    pub(super) filling: AtomicBool,
    pub(super) capacity: usize,
    pub(super) clock: Arc<dyn Clock>,
}

pub(super) struct Queue {
    records: VecDeque<Record>,
    pub(super) next: Ticket,
    /// Somebody waits for the disk, or the queue is half full.
    pub(super) urgent: bool,
    /// Records not taken since the log last said so.
    refused: u64,
    pub(super) asleep: Asleep,
    closing: bool,
    pub(super) ended: bool,
    pub(super) state: State,
    pub(super) signer: Option<Arc<dyn Sign>>,
    /// The last checkpoint that is on the disk.
    pub(super) checkpoint: Option<Head>,
}

/// What would wake the thread. Telling it spares a system call for each record otherwise.
#[derive(PartialEq, Eq)]
pub(super) enum Asleep {
    No,
    UntilUrgent,
    UntilAny,
}

impl Queue {
    pub(super) fn push(
        &mut self,
        mut record: Record,
        capacity: usize,
    ) -> Result<Ticket, Unavailable> {
        // The outcome of an intent that was taken always finds room, or the log would leave it
        // open. There are no more of these than writes under way.
        let is_promised = record.intent.is_some();
        let (missed, capacity) = match Class::of(&record) {
            Class::Plant => (1, capacity),
            Class::Identified | Class::Stranger => (0, capacity / 2),
        };
        if self.closing || self.state != State::Ok && !is_promised {
            self.refused += missed;
            return Err(Unavailable::Failed);
        }
        if self.records.len() >= capacity && !is_promised {
            self.refused += missed;
            return Err(Unavailable::Full);
        }
        let ticket = self.next;
        record.seq = ticket;
        self.next += 1;
        self.urgent |= record.durable || self.records.len() >= capacity / 2;
        self.records.push_back(record);
        Ok(ticket)
    }

    /// Takes a record of the thread's own, which always finds room.
    fn push_own(&mut self, record: Record) {
        let record = Record {
            seq: self.next,
            ..record
        };
        self.next += 1;
        self.records.push_back(record);
    }

    /// Says in the log what it does not hold.
    fn gap(&mut self) -> Record {
        Record {
            reason: Some("records that came while the log could not take them".into()),
            count: Some(std::mem::take(&mut self.refused)),
            ..Record::new(Kind::AuditGap)
        }
    }
}

impl Shared {
    pub(super) fn new(next: Ticket, options: &Options) -> Self {
        Self {
            queue: Mutex::new(Queue {
                records: VecDeque::new(),
                next,
                urgent: false,
                refused: 0,
                asleep: Asleep::No,
                closing: false,
                ended: false,
                state: State::Ok,
                signer: None,
                checkpoint: None,
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
            durable: AtomicU64::new(next - 1),
            filling: AtomicBool::new(false),
            capacity: options.capacity.max(1),
            clock: Arc::clone(&options.clock),
        }
    }

    /// Dates `record` now, and where that is not what the system clock says, says so.
    pub(super) fn stamp(&self, record: &mut Record) {
        let stamp = self.clock.stamp();
        (record.time, record.clock) = (Some(stamp.time), stamp.system);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// Waits until there is something to do, at `due` at the latest, and moves all waiting
    /// records to `batch`, after them those in `own`.
    pub(super) fn take(
        &self,
        batch: &mut VecDeque<Record>,
        own: &mut Vec<Record>,
        due: Option<Instant>,
    ) -> Taken {
        let mut queue = self.lock();
        let mut write_due = None;
        while !(queue.urgent || queue.closing || queue.refused > 0 || !own.is_empty()) {
            let now = Instant::now();
            if !queue.records.is_empty() {
                write_due.get_or_insert(now + LINGER);
            }
            queue.asleep = match write_due {
                Some(_) => Asleep::UntilUrgent,
                None => Asleep::UntilAny,
            };
            let due = write_due.into_iter().chain(due).min();
            queue = match due.map(|due| due.saturating_duration_since(now)) {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.work.wait_timeout(queue, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.work.wait(queue);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
        queue.asleep = Asleep::No;
        let gap = queue.refused > 0;
        if gap {
            own.insert(0, queue.gap());
        }
        for mut record in own.drain(..) {
            self.stamp(&mut record);
            queue.push_own(record);
        }
        std::mem::swap(&mut queue.records, batch);
        Taken {
            urgent: std::mem::take(&mut queue.urgent) || gap,
            closing: queue.closing,
        }
    }

    /// Waits before the next attempt; true when there should be no other after it.
    pub(super) fn wait_for_retry(&self) -> bool {
        let waited = self
            .work
            .wait_timeout_while(self.lock(), RETRY, |queue| !queue.closing);
        waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }
}

pub(super) struct Taken {
    pub(super) urgent: bool,
    pub(super) closing: bool,
}

/// Tells the handles that the thread ended, by whatever way.
pub(super) struct Ended(pub(super) Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closing = true;
        queue.ended = true;
        self.0.ended.notify_all();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("durable", &self.durable)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
