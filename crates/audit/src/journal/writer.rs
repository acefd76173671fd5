//! The thread: formats, writes, syncs, and starts over after a failure.

#![expect(
    clippy::disallowed_methods,
    reason = "the journal's thread is a shell: it waits by the clock"
)]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::checkpoint::Checkpoints;
use super::queue::{Ended, Shared};
use super::{End, MAX_UNSYNCED, Progress, SYNC_WITHIN, State};
use crate::chain::{self, Hash};
use crate::disk::Disk;
use crate::line;
use crate::record::{Kind, Record, Ticket};

pub(super) struct Writer<D, N> {
    disk: D,
    shared: Ended,
    agent: Arc<str>,
    notify: N,
    batch: VecDeque<Record>,
    /// What the log says of itself, with the next batch.
    own: Vec<Record>,
    /// Lines since the last sync that succeeded; the first `written` bytes are in the file.
    unsynced: Vec<u8>,
    written: usize,
    /// Length of the file at that sync.
    synced_length: u64,
    /// The last ticket in `unsynced`, or before it.
    last: Ticket,
    /// Hash of that record.
    head: Hash,
    sync_due: Option<Instant>,
    checkpoints: Checkpoints,
    /// Closed files to delete, each with the record that says so.
    drops: VecDeque<(Ticket, Box<str>)>,
}

impl<D: Disk, N: Fn(Progress)> Writer<D, N> {
    pub(super) fn new(disk: D, end: End, shared: Arc<Shared>, agent: Arc<str>, notify: N) -> Self {
        let last = shared.lock().next - 1;
        Self {
            disk,
            shared: Ended(shared),
            agent,
            notify,
            batch: VecDeque::new(),
            own: Vec::new(),
            unsynced: Vec::new(),
            written: 0,
            synced_length: end.length,
            last,
            head: end.head,
            sync_due: None,
            checkpoints: Checkpoints::new(Instant::now()),
            drops: VecDeque::new(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let due = self
                .sync_due
                .into_iter()
                .chain(self.checkpoints.due())
                .min();
            let shared = &self.shared.0;
            let taken = shared.take(&mut self.batch, &mut self.own, due);
            self.format_batch();
            if self.write_out(taken.urgent || taken.closing).is_err()
                && let Err(error) = self.start_over()
                && !self.outlast(&error)
            {
                return;
            }
            let signer = || self.shared.0.lock().signer.clone();
            let now = Instant::now();
            // Before the end, what came last is signed as well.
            if let Some(record) = self.checkpoints.make(now, taken.closing, signer) {
                self.own.push(record);
            } else if taken.closing {
                return;
            }
        }
    }

    fn format_batch(&mut self) {
        for mut record in self.batch.drain(..) {
            record.agent = Some(Arc::clone(&self.agent));
            if record.kind == Kind::Checkpoint {
                record.head = Some(self.checkpoints.sign(&self.agent, self.last, self.head));
            }
            let start = self.unsynced.len();
            if line::write(&record, &mut self.unsynced).is_err() {
                // Nothing in a record can fail to serialize; half a line must not stay anyway.
                self.unsynced.truncate(start);
                continue;
            }
            self.last = record.seq;
            self.head = chain::seal(&mut self.unsynced, start, &self.head);
            self.checkpoints.count(record.kind);
            if record.kind == Kind::SegmentDropped {
                let file = record.head.and_then(|head| head.file);
                self.drops.extend(file.map(|file| (record.seq, file)));
            }
        }
        self.checkpoints.plan(Instant::now());
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
        if let Some(made) = self.checkpoints.made.take() {
            self.shared.0.lock().checkpoint = Some(made);
        }
        (self.notify)(Progress::Durable(self.last));
        self.tidy_files()
    }

    /// Begins a new file where it is time, and deletes what is on record as deleted.
    fn tidy_files(&mut self) -> io::Result<()> {
        let durable = self.last;
        while let Some((_, file)) = self.drops.pop_front_if(|(said, _)| *said <= durable) {
            // One that somebody else took away is gone as well.
            let _ = self.disk.remove(&file);
        }
        let shared = &self.shared.0;
        let now = shared.clock.stamp();
        let rotated = self.disk.rotate(now.time)?;
        shared
            .filling
            .store(self.disk.is_filling(), Ordering::Relaxed);
        if rotated {
            self.synced_length = 0;
            self.checkpoints.begin_file();
            let surplus = self.disk.surplus(now).into_iter();
            self.own.extend(surplus.map(|head| Record {
                head: Some(Box::new(head)),
                reason: Some("deleted to keep the log within its limits".into()),
                ..Record::new(Kind::SegmentDropped)
            }));
        }
        Ok(())
    }

    /// Writes everything since the last good sync again: after an error neither the file's end
    /// nor what the kernel kept of it can be trusted.
    fn start_over(&mut self) -> io::Result<()> {
        self.synced_length = self.disk.rewind(self.synced_length)?;
        self.written = 0;
        self.write_out(true)?;
        self.tidy_files()
    }

    /// Tries until the log can be written again; false when it is closed without.
    fn outlast(&mut self, error: &io::Error) -> bool {
        self.shared.0.lock().state = State::Failed {
            since: self.shared.0.clock.stamp().time,
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
