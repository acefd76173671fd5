//! The thread: formats, writes, syncs, and starts over after a failure.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use super::queue::{Ended, Shared};
use super::{MAX_UNSYNCED, Progress, SYNC_WITHIN, State, Ticket};
use crate::disk::Disk;
use crate::record::Record;

pub(super) struct Writer<D, N> {
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
    pub(super) fn new(
        disk: D,
        length: u64,
        shared: Arc<Shared>,
        agent: Arc<str>,
        notify: N,
    ) -> Self {
        let last = shared.lock().next - 1;
        Self {
            disk,
            shared: Ended(shared),
            agent,
            notify,
            batch: VecDeque::new(),
            unsynced: Vec::new(),
            written: 0,
            synced_length: length,
            last,
            sync_due: None,
        }
    }

    pub(super) fn run(mut self) {
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
