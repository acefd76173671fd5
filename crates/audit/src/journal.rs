//! Writes the log on a thread of its own.
//!
//! What waits for the disk is written at once; everything that arrives while the disk is busy
//! shares the next sync (group commit), so a lone write waits for one sync and a thousand at
//! a time wait for two. Records that nobody waits for are written within [`LINGER`] and synced
//! within [`SYNC_WITHIN`].

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, io, thread};

use crate::disk::{Disk, LogFile};
use crate::record::{Kind, Record};
use crate::recover::Recovered;

/// How long records that nobody waits for gather before they are written.
const LINGER: Duration = Duration::from_millis(10);

/// How long they may be written and not yet synced.
const SYNC_WITHIN: Duration = Duration::from_millis(200);

/// How often a log that can't be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes written and not synced are kept, since after a failed sync the kernel may have dropped
/// them. Beyond this a sync is due at once.
const MAX_UNSYNCED: usize = 1024 * 1024;

/// A record's `seq`. Tickets grow by one; 0 is before the first.
pub type Ticket = u64;

#[derive(Debug, Clone)]
pub struct Options {
    /// Where `audit.jsonl` lives; created with mode 0700 where it is missing.
    pub dir: PathBuf,
    /// The agent's name, in each record.
    pub agent: Arc<str>,
    /// Records that may wait for the thread, 4096 by default. At about 400 bytes each, and up
    /// to 10 KiB with the largest writes the moment they are formatted.
    pub capacity: usize,
}

impl Options {
    pub fn new(dir: impl Into<PathBuf>, agent: impl Into<Arc<str>>) -> Self {
        Self {
            dir: dir.into(),
            agent: agent.into(),
            capacity: 4096,
        }
    }
}

/// Told from the journal's thread; must not block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Every record up to this ticket is on the disk.
    Durable(Ticket),
    /// The log can't be written; [`Journal::state`] says why.
    Failed,
    /// The log can be written again, and what was waiting is on the disk.
    Recovered,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Ok,
    Failed { since: SystemTime, error: Arc<str> },
}

/// Why a record was not taken. It is counted, and the log will say how many were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("the audit queue is full")]
    Full,
    #[error("the audit log can't be written")]
    Failed,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("audit log {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "audit log {path} is being written by another agent: give each agent its own state directory",
        path = path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "audit log {path}: the {bytes} bytes from {at} on are not audit records; \
         move the file aside to keep it as evidence, and start again",
        path = path.display()
    )]
    Damaged { path: PathBuf, at: u64, bytes: u64 },
    #[error("the audit log was closed with {records} records not on the disk")]
    Unwritten { records: u64 },
}

/// A handle on the log; cheap to clone. When the last one is dropped, the thread writes what
/// it has and ends; [`close`](Journal::close) waits for that.
#[derive(Debug, Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    ended: Condvar,
    /// The last ticket that is on the disk.
    durable: AtomicU64,
    capacity: usize,
}

struct Queue {
    records: VecDeque<Record>,
    next: Ticket,
    /// Somebody waits for the disk, or the queue is half full.
    urgent: bool,
    /// Records not taken since the log last said so.
    refused: u64,
    asleep: Asleep,
    closing: bool,
    ended: bool,
    state: State,
}

/// What would wake the thread. Telling it spares a system call for each record otherwise.
#[derive(PartialEq, Eq)]
enum Asleep {
    No,
    UntilUrgent,
    UntilAny,
}

impl Journal {
    /// Opens `DIR/audit.jsonl`, as the only writer, and starts the thread. `notify` hears of
    /// each sync and of failures, on that thread.
    pub fn open(
        options: Options,
        notify: impl Fn(Progress) + Send + 'static,
    ) -> Result<(Self, Recovered), JournalError> {
        let (log, recovered, length) = LogFile::open(&options.dir)?;
        let io_error = |source| JournalError::Io {
            path: options.dir.clone(),
            source,
        };
        let journal = Self::start(log, length, recovered.next_seq, &options, notify);
        let journal = journal.map_err(io_error)?;
        if let Some(torn) = recovered.torn {
            let note = Record {
                reason: Some("the end of the log was not a complete record and was cut".into()),
                count: Some(torn.bytes),
                ..Record::new(Kind::TornTail)
            };
            // The queue is new: it has room, and a failing disk is told by the state.
            let _ = journal.append(note);
        }
        Ok((journal, recovered))
    }

    fn start(
        disk: impl Disk + 'static,
        length: u64,
        next: Ticket,
        options: &Options,
        notify: impl Fn(Progress) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                records: VecDeque::new(),
                next,
                urgent: false,
                refused: 0,
                asleep: Asleep::No,
                closing: false,
                ended: false,
                state: State::Ok,
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
            durable: AtomicU64::new(next - 1),
            capacity: options.capacity.max(1),
        });
        let writer = Writer {
            disk,
            shared: Ended(Arc::clone(&shared)),
            agent: Arc::clone(&options.agent),
            notify,
            batch: VecDeque::new(),
            unsynced: Vec::new(),
            written: 0,
            synced_length: length,
            last: next - 1,
            sync_due: None,
        };
        thread::Builder::new()
            .name("audit-journal".into())
            .spawn(move || writer.run())?;
        Ok(Self {
            handle: Arc::new(Handle { shared }),
        })
    }

    /// Hands a record to the thread and never blocks. The ticket is the record's `seq`.
    pub fn append(&self, mut record: Record) -> Result<Ticket, Unavailable> {
        let shared = &self.handle.shared;
        record.time.get_or_insert_with(SystemTime::now);
        let mut queue = shared.lock();
        let ticket = queue.push(record, shared.capacity)?;
        let wake = match queue.asleep {
            Asleep::No => false,
            Asleep::UntilUrgent => queue.urgent,
            Asleep::UntilAny => true,
        };
        if wake {
            queue.asleep = Asleep::No;
            drop(queue);
            shared.work.notify_one();
        }
        Ok(ticket)
    }

    /// All records with a ticket up to this one are on the disk.
    pub fn durable(&self) -> Ticket {
        self.handle.shared.durable.load(Ordering::Acquire)
    }

    pub fn state(&self) -> State {
        self.handle.shared.lock().state.clone()
    }

    /// Takes no more records, writes those it has and waits for that at most `within`.
    pub fn close(&self, within: Duration) -> Result<(), JournalError> {
        let shared = &self.handle.shared;
        shared.close();
        let waiting = shared
            .ended
            .wait_timeout_while(shared.lock(), within, |queue| !queue.ended);
        let (queue, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        match queue.next - 1 - self.durable() {
            0 => Ok(()),
            records => Err(JournalError::Unwritten { records }),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Queue {
    fn push(&mut self, mut record: Record, capacity: usize) -> Result<Ticket, Unavailable> {
        if self.closing || self.state != State::Ok {
            self.refused += 1;
            return Err(Unavailable::Failed);
        }
        if self.records.len() >= capacity {
            self.refused += 1;
            return Err(Unavailable::Full);
        }
        let ticket = self.next;
        record.seq = ticket;
        self.next += 1;
        self.urgent |= record.durable || self.records.len() >= capacity / 2;
        self.records.push_back(record);
        Ok(ticket)
    }

    /// Says in the log what it does not hold.
    fn push_gap(&mut self) {
        let gap = Record {
            seq: self.next,
            time: Some(SystemTime::now()),
            reason: Some("records that came while the log could not take them".into()),
            count: Some(std::mem::take(&mut self.refused)),
            ..Record::new(Kind::AuditGap)
        };
        self.next += 1;
        self.records.push_back(gap);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// Waits until there is something to do and moves all waiting records to `batch`.
    fn take(&self, batch: &mut VecDeque<Record>, sync_due: Option<Instant>) -> Taken {
        let mut queue = self.lock();
        let mut write_due = None;
        while !(queue.urgent || queue.closing || queue.refused > 0) {
            let now = Instant::now();
            if !queue.records.is_empty() {
                write_due.get_or_insert(now + LINGER);
            }
            queue.asleep = match write_due {
                Some(_) => Asleep::UntilUrgent,
                None => Asleep::UntilAny,
            };
            let due = write_due.into_iter().chain(sync_due).min();
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
            queue.push_gap();
        }
        std::mem::swap(&mut queue.records, batch);
        Taken {
            urgent: std::mem::take(&mut queue.urgent) || gap,
            closing: queue.closing,
        }
    }

    /// Waits before the next attempt; true when there should be no other after it.
    fn wait_for_retry(&self) -> bool {
        let waited = self
            .work
            .wait_timeout_while(self.lock(), RETRY, |queue| !queue.closing);
        waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }
}

struct Taken {
    urgent: bool,
    closing: bool,
}

/// The thread.
struct Writer<D, N> {
    disk: D,
    shared: Ended,
    agent: Arc<str>,
    notify: N,
    batch: VecDeque<Record>,
    /// Lines since the last sync that succeeded; the first `written` bytes are in the file.
    unsynced: Vec<u8>,
    written: usize,
    /// Length of the file at that sync.
    synced_length: u64,
    /// The last ticket in `unsynced`, or before it.
    last: Ticket,
    sync_due: Option<Instant>,
}

impl<D: Disk, N: Fn(Progress)> Writer<D, N> {
    fn run(mut self) {
        loop {
            let taken = self.shared.0.take(&mut self.batch, self.sync_due);
            self.format_batch();
            if self.write_out(taken.urgent || taken.closing).is_err()
                && let Err(error) = self.start_over()
                && !self.outlast(&error)
            {
                return;
            }
            if taken.closing {
                return;
            }
        }
    }

    fn format_batch(&mut self) {
        for mut record in self.batch.drain(..) {
            self.last = record.seq;
            record.agent = Some(Arc::clone(&self.agent));
            let start = self.unsynced.len();
            if serde_json::to_writer(&mut self.unsynced, &record).is_err() {
                // Nothing in a record can fail to serialize; half a line must not stay anyway.
                self.unsynced.truncate(start);
                continue;
            }
            self.unsynced.push(b'\n');
        }
    }

    fn write_out(&mut self, urgent: bool) -> io::Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        if self.written < self.unsynced.len() {
            self.disk.write(&self.unsynced[self.written..])?;
            self.written = self.unsynced.len();
        }
        let now = Instant::now();
        let due = *self.sync_due.get_or_insert(now + SYNC_WITHIN);
        if urgent || now >= due || self.unsynced.len() > MAX_UNSYNCED {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()?;
        self.synced_length += self.unsynced.len() as u64;
        self.unsynced.clear();
        self.unsynced.shrink_to(MAX_UNSYNCED);
        self.written = 0;
        self.sync_due = None;
        self.shared.0.durable.store(self.last, Ordering::Release);
        (self.notify)(Progress::Durable(self.last));
        Ok(())
    }

    /// Writes everything since the last good sync again: after an error neither the file's end
    /// nor what the kernel kept of it can be trusted.
    fn start_over(&mut self) -> io::Result<()> {
        self.synced_length = self.disk.rewind(self.synced_length)?;
        self.written = 0;
        self.write_out(true)
    }

    /// Tries until the log can be written again; false when it is closed without.
    fn outlast(&mut self, error: &io::Error) -> bool {
        self.shared.0.lock().state = State::Failed {
            since: SystemTime::now(),
            error: error.to_string().into(),
        };
        (self.notify)(Progress::Failed);
        loop {
            let last_chance = self.shared.0.wait_for_retry();
            if self.start_over().is_ok() {
                self.shared.0.lock().state = State::Ok;
                (self.notify)(Progress::Recovered);
                return true;
            }
            if last_chance {
                return false;
            }
        }
    }
}

/// Tells the handles that the thread ended, by whatever way.
struct Ended(Arc<Shared>);

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

#[cfg(test)]
mod tests;
