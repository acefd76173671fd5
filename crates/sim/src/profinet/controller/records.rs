//! Records that are read and written while data is exchanged.

use std::time::Instant;

use super::{Controller, Record};
use crate::profinet::blocks::{RecordHead, read_request, write_request};
use crate::profinet::calls::Call;
use crate::profinet::event::Event;
use crate::profinet::received::record;

/// A record to read or write while data is exchanged.
#[derive(Debug)]
pub(super) struct RecordJob {
    slot: u16,
    subslot: u16,
    index: u16,
    /// None reads.
    data: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct RecordCall {
    pub(super) index: u16,
    pub(super) call: Call,
}

/// Records that wait at a time.
const JOBS: usize = 16;
/// Opnum of a Read.
const READ: u16 = 2;
/// RPC-client: no answer.
const RPC_CALL: u8 = 0x0c;

impl Controller {
    /// Reads a record of the device; the answer is an [`Event::RecordRead`]. False when no data is
    /// exchanged or too many wait.
    pub fn read(&mut self, now: Instant, slot: u16, subslot: u16, index: u16) -> bool {
        let data = None;
        self.enqueue(
            now,
            RecordJob {
                slot,
                subslot,
                index,
                data,
            },
        )
    }

    /// Writes a record of the device. Likewise; a refusal is an [`Event::Refused`].
    pub fn write(&mut self, now: Instant, record: Record) -> bool {
        self.enqueue(
            now,
            RecordJob {
                slot: record.slot,
                subslot: record.subslot,
                index: record.index,
                data: Some(record.data),
            },
        )
    }

    fn enqueue(&mut self, now: Instant, job: RecordJob) -> bool {
        if !self.is_established() || self.record_queue.len() >= JOBS {
            return false;
        }
        self.record_queue.push_back(job);
        self.next_record(now);
        true
    }

    pub(super) fn next_record(&mut self, now: Instant) {
        if self.record_call.is_some() {
            return;
        }
        let (Some(relation), Some(job)) = (&self.relation, self.record_queue.pop_front()) else {
            return;
        };
        self.record_sequence = self.record_sequence.wrapping_add(1);
        let mut head = RecordHead {
            sequence: self.record_sequence,
            ar: relation.uuid,
            slot: job.slot,
            subslot: job.subslot,
            index: job.index,
            length: 4096,
        };
        let mut blocks = Vec::new();
        let opnum = match &job.data {
            Some(data) => {
                head.length = data.len() as u32;
                write_request(&mut blocks, &head, data);
                3
            }
            None => {
                read_request(&mut blocks, &head);
                READ
            }
        };
        let activity = self.random.uuid();
        let call = self.start_call(now, activity, 0, opnum, &blocks);
        self.record_call = Some(RecordCall {
            index: job.index,
            call,
        });
    }

    pub(super) fn record_timeout(&mut self, now: Instant) {
        let Some(record) = &mut self.record_call else {
            return;
        };
        match record.call.handle_timeout(now, &mut self.out) {
            Ok(again) => self.stats.retransmits += u64::from(again),
            Err(_) => self.abort(now, RPC_CALL),
        }
    }

    pub(super) fn record_answered(&mut self, index: u16, opnum: u16, status: u32, blocks: &[u8]) {
        if opnum == READ {
            let data = record(blocks).map_or_else(|_| Vec::new(), |(_, data)| data.to_vec());
            self.event(Event::RecordRead {
                index,
                status,
                data,
            });
        } else if status != 0 {
            self.event(Event::Refused { status });
        }
    }
}
