//! The RPC server of a device, and the answers to its own calls.

use std::time::Instant;

use super::ar::State;
use super::{Device, Ended};
use crate::profinet::blocks::{
    Control as Step, RecordHead, control, iandm0, read_response, write_response,
};
use crate::profinet::event::Event;
use crate::profinet::lan::Peer;
use crate::profinet::received::{Connect, Control, record, records};
use crate::profinet::rpc::{DEVICE, Head, Kind, Packet, Uuid, arguments};

/// ErrorCode of the PNIOStatus, by the service that is refused.
const RELEASE: u32 = 0xdc;
const CONTROL: u32 = 0xdd;
const READ: u32 = 0xde;
const WRITE: u32 = 0xdf;

const RELEASE_OPNUM: u16 = 1;

/// Records that are kept, and their octets.
const RECORDS: usize = 64;
const RECORD: usize = 4096;

const IANDM0: u16 = 0xaff0;
const MULTIPLE_WRITE: u16 = 0xe040;

/// Connection management: no such AR; the AR is in another state.
const fn cm_error(code: u32, detail: u8) -> u32 {
    code << 24 | 0x81_4000 | detail as u32
}
const AR_UNKNOWN: u8 = 5;
const STATE_CONFLICT: u8 = 6;

/// Access to a record (PNIORW).
const fn record_error(code: u32, detail: u8) -> u32 {
    code << 24 | 0x80_0000 | (detail as u32) << 8
}
const INVALID_INDEX: u8 = 0xb0;
const WRITE_LENGTH: u8 = 0xb1;
const INVALID_SLOT: u8 = 0xb2;
const RESOURCE: u8 = 0xc3;

const RPC_CALL: u8 = 0x0c;

impl Device {
    pub(super) fn handle_rpc(&mut self, now: Instant, from: Peer, payload: &[u8]) {
        let Some(packet) = Packet::parse(payload) else {
            self.asked.malformed += 1;
            return;
        };
        match packet.head.kind {
            Kind::Request if packet.head.interface == DEVICE => {
                self.handle_request(now, from, &packet);
            }
            Kind::Response => self.handle_response(now, &packet),
            Kind::Request | Kind::Fack => {}
        }
    }

    fn handle_request(&mut self, now: Instant, from: Peer, packet: &Packet<'_>) {
        let ends = (self.own_peer(), from);
        let Some(body) = self.server.handle_request(packet, ends, &mut self.out) else {
            return;
        };
        let mut answer = Vec::new();
        let Some(status) = self.serve(now, from, (&packet.head, &body), &mut answer) else {
            self.asked.malformed += 1;
            return;
        };
        let answer = (status, answer.as_slice());
        self.server
            .answer(packet, ends, BOOT, answer, &mut self.out);
        if packet.head.opnum == RELEASE_OPNUM
            && status == 0
            && let Some(at) = self.ars.iter().position(|ar| ar.releasing)
        {
            self.end(now, at, Ended::Released);
        }
    }

    /// The PNIOStatus of a call, and the blocks of its answer; None for what is no call.
    fn serve(
        &mut self,
        now: Instant,
        from: Peer,
        (head, body): (&Head, &[u8]),
        answer: &mut Vec<u8>,
    ) -> Option<u32> {
        let (_, blocks) = arguments(head.order, body)?;
        Some(match head.opnum {
            0 => match self.connect(now, from, &Connect::read(blocks).ok()?) {
                Ok(accepted) => {
                    *answer = accepted;
                    0
                }
                Err(status) => {
                    self.event(Event::Refused { status });
                    status
                }
            },
            RELEASE_OPNUM => self.release(&Control::read(blocks).ok()?, answer),
            2 | 5 => {
                let (record, _) = record(blocks).ok()?;
                self.read(&record, head.opnum == 5, answer)
            }
            3 => {
                let (outer, data) = record(blocks).ok()?;
                self.write(&outer, data, answer)?
            }
            4 => self.prm_end(now, &Control::read(blocks).ok()?, answer),
            _ => return None,
        })
    }

    fn release(&mut self, request: &Control, answer: &mut Vec<u8>) -> u32 {
        let Some(at) = self.find(request.uuid) else {
            return cm_error(RELEASE, AR_UNKNOWN);
        };
        self.ars[at].releasing = true;
        let (uuid, session) = (request.uuid, request.session);
        control(answer, Step::Release, true, uuid, session);
        0
    }

    fn find(&self, uuid: Uuid) -> Option<usize> {
        self.ars.iter().position(|ar| ar.uuid == uuid)
    }

    fn prm_end(&mut self, now: Instant, request: &Control, answer: &mut Vec<u8>) -> u32 {
        let Some(at) = self.find(request.uuid) else {
            return cm_error(CONTROL, AR_UNKNOWN);
        };
        let activity = self.random.uuid();
        let ar = &mut self.ars[at];
        let parametrizing = matches!(ar.state, State::Parametrizing { .. });
        let asked = (request.kind, request.command) == (Step::PrmEnd as u16, 1);
        if !parametrizing || !asked || ar.session != request.session {
            return cm_error(CONTROL, STATE_CONFLICT);
        }
        ar.state = State::Preparing {
            at: now + self.config.ready_after,
            activity,
        };
        control(answer, Step::PrmEnd, true, ar.uuid, ar.session);
        0
    }

    /// The answer to ApplicationReady.
    fn handle_response(&mut self, now: Instant, packet: &Packet<'_>) {
        let answered = self.ars.iter_mut().enumerate().find_map(|(at, ar)| {
            let State::Announcing(call) = &mut ar.state else {
                return None;
            };
            Some((at, call.handle_response(packet)?))
        });
        let Some((at, body)) = answered else { return };
        match arguments(packet.head.order, &body) {
            Some((0, _)) => {
                self.ars[at].state = State::Established;
                self.stats.established(now);
                self.event(Event::Established);
            }
            Some(_) | None => self.end(now, at, Ended::own(RPC_CALL)),
        }
    }

    fn read(&mut self, record: &RecordHead, implicit: bool, answer: &mut Vec<u8>) -> u32 {
        self.asked.read += 1;
        let (slot, subslot, index) = (record.slot, record.subslot, record.index);
        let mut data = Vec::new();
        let status = if !implicit && self.find(record.ar).is_none() {
            cm_error(READ, AR_UNKNOWN)
        } else if self.slots.find(slot, subslot).is_none() {
            record_error(READ, INVALID_SLOT)
        } else if index == IANDM0 {
            let serial = self.config.mac.to_string();
            iandm0(&mut data, self.config.vendor, "SIM-IO-DEVICE", &serial);
            0
        } else if let Some(kept) = self.records.get(&(slot, subslot, index)) {
            data.clone_from(kept);
            0
        } else {
            record_error(READ, INVALID_INDEX)
        };
        data.truncate(record.length as usize);
        let head = RecordHead {
            length: data.len() as u32,
            ..*record
        };
        read_response(answer, &head, &data);
        status
    }

    /// None when the lengths of a multiple write lie.
    fn write(&mut self, outer: &RecordHead, data: &[u8], answer: &mut Vec<u8>) -> Option<u32> {
        if self.find(outer.ar).is_none() {
            return Some(cm_error(WRITE, AR_UNKNOWN));
        }
        if outer.index != MULTIPLE_WRITE {
            let data = data.get(..outer.length as usize)?;
            let status = self.write_record(outer, data);
            write_response(answer, outer, status);
            return Some(status);
        }
        let items = records(data).ok()?;
        write_response(answer, outer, 0);
        for (record, data) in items {
            let status = self.write_record(&record, data);
            write_response(answer, &record, status);
        }
        // Each has its own status.
        Some(0)
    }

    fn write_record(&mut self, record: &RecordHead, data: &[u8]) -> u32 {
        self.asked.write += 1;
        let (slot, subslot, index) = (record.slot, record.subslot, record.index);
        let key = (slot, subslot, index);
        if self.slots.find(slot, subslot).is_none() {
            return record_error(WRITE, INVALID_SLOT);
        }
        // User records and I&M1 to I&M4.
        if !matches!(index, 0..=0x7fff | 0xaff1..=0xaff4) {
            return record_error(WRITE, INVALID_INDEX);
        }
        if data.len() > RECORD {
            return record_error(WRITE, WRITE_LENGTH);
        }
        if self.records.len() >= RECORDS && !self.records.contains_key(&key) {
            return record_error(WRITE, RESOURCE);
        }
        self.records.insert(key, data.to_vec());
        self.event(Event::RecordWritten {
            slot,
            subslot,
            index,
            data: data.to_vec(),
        });
        0
    }
}

/// Server boot time: any but 0, the same for as long as the simulator lives.
const BOOT: u32 = 1;
