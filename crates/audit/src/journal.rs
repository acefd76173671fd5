//! Writes the log on a thread of its own.
//!
//! What waits for the disk is written at once; everything that arrives while the disk is busy
//! shares the next sync (group commit), so a lone write waits for one sync and a thousand at
//! a time wait for two. Records that nobody waits for are written within [`LINGER`] and synced
//! within [`SYNC_WITHIN`].

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};
use std::{io, thread};

use crate::chain::Hash;
use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, LogFile};
use crate::error::JournalError;
use crate::record::{Head, Kind, Record, Ticket};
use crate::recover::Recovered;
use crate::segment::Limits;

mod checkpoint;
mod queue;
mod writer;

pub use checkpoint::{Sign, signed_text};
use queue::{Asleep, Shared};
use writer::Writer;

/// How long records that nobody waits for gather before they are written.
const LINGER: Duration = Duration::from_millis(10);

/// How long they may be written and not yet synced.
const SYNC_WITHIN: Duration = Duration::from_millis(200);

/// How often a log that can't be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes written and not synced are kept, since after a failed sync the kernel may have dropped
/// them. Beyond this a sync is due at once.
const MAX_UNSYNCED: usize = 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Options {
    /// Where `audit.jsonl` lives; created with mode 0700 where it is missing.
    pub dir: PathBuf,
    /// The agent's name, in each record.
    pub agent: Arc<str>,
    /// Records that may wait for the thread, 4096 by default. At about 400 bytes each, and up
    /// to 10 KiB with the largest writes the moment they are formatted.
    pub capacity: usize,
    pub limits: Limits,
    /// What records are stamped with, and files aged by; the system clock by default.
    pub clock: Arc<dyn Clock>,
}

impl Options {
    pub fn new(dir: impl Into<PathBuf>, agent: impl Into<Arc<str>>) -> Self {
        Self {
            dir: dir.into(),
            agent: agent.into(),
            capacity: 4096,
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
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

/// A handle on the log; cheap to clone. When the last one is dropped, the thread writes what
/// it has and ends; [`close`](Journal::close) waits for that.
#[derive(Debug, Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

/// Where an earlier run left the log.
struct End {
    /// Length of the current file.
    length: u64,
    next: Ticket,
    head: Hash,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens `DIR/audit.jsonl`, as the only writer, and starts the thread. `notify` hears of
    /// each sync and of failures, on that thread.
    pub fn open(
        options: Options,
        notify: impl Fn(Progress) + Send + 'static,
    ) -> Result<(Self, Recovered), JournalError> {
        let (log, recovered) = LogFile::open(&options.dir, options.limits)?;
        let io_error = |source| JournalError::Io {
            path: options.dir.clone(),
            source,
        };
        let end = End {
            length: log.length(),
            next: recovered.next_seq,
            head: recovered.head,
        };
        let journal = Self::start(log, end, &options, notify).map_err(io_error)?;
        // The queue is new: it has room, and a failing disk is told by the state.
        if let Some(torn) = recovered.torn {
            let _ = journal.append(Record {
                reason: Some("the end of the log was not a complete record and was cut".into()),
                count: Some(torn.bytes),
                ..Record::new(Kind::TornTail)
            });
        }
        if let Some(seq) = recovered.broken {
            let _ = journal.append(Record {
                reason: Some(
                    format!("record {seq} is not what was written, or the one before it").into(),
                ),
                ..Record::new(Kind::ChainBroken)
            });
        }
        Ok((journal, recovered))
    }

    fn start(
        disk: impl Disk + 'static,
        end: End,
        options: &Options,
        notify: impl Fn(Progress) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(end.next, options));
        let agent = Arc::clone(&options.agent);
        let writer = Writer::new(disk, end, Arc::clone(&shared), agent, notify);
        thread::Builder::new()
            .name("audit-journal".into())
            .spawn(move || writer.run())?;
        Ok(Self {
            handle: Arc::new(Handle { shared }),
        })
    }

    /// Who signs checkpoints from now on. Without one there are none.
    pub fn set_signer(&self, signer: Arc<dyn Sign>) {
        self.handle.shared.lock().signer = Some(signer);
    }

    /// The last checkpoint that is on the disk, without its certificate, if it is about more
    /// than the record `seq`.
    pub fn checkpoint_after(&self, seq: Ticket) -> Option<Head> {
        let queue = self.handle.shared.lock();
        queue
            .checkpoint
            .as_ref()
            .filter(|head| head.seq > seq)
            .cloned()
    }

    /// Hands a record to the thread and never blocks. The ticket is the record's `seq`.
    ///
    /// Records of outsiders find room in half of the queue only, and are not missed in the log's
    /// own account where there is none: whoever keeps their [`Budget`](crate::Budget) says so.
    pub fn append(&self, mut record: Record) -> Result<Ticket, Unavailable> {
        let shared = &self.handle.shared;
        let mut queue = shared.lock();
        if record.time.is_none() {
            shared.stamp(&mut record);
        }
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

    /// Whether the rest of the log is kept for the plant's own records: with
    /// [`WhenFull::Stop`](crate::WhenFull::Stop), from half of its size on.
    pub fn is_filling(&self) -> bool {
        self.handle.shared.filling.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> State {
        self.handle.shared.lock().state.clone()
    }

    /// Whether the thread runs; it ends when the log is closed, or by a panic.
    pub fn is_alive(&self) -> bool {
        !self.handle.shared.lock().ended
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

#[cfg(test)]
mod tests;
