//! The RPC server of a device, and the answers to its own calls.

use std::time::Instant;

use fieldlock_profinet::cm::{Message, RecordAccess};
use fieldlock_profinet::rpc::{Interface, PacketType, Rpc, Uuid};

use super::ar::State;
use super::{Device, Ended};
use crate::profinet::blocks::{
    Control, RecordHead, control, iandm0, read_response, write_response,
};
use crate::profinet::event::Event;
use crate::profinet::lan::Peer;

/// ErrorCode of the PNIOStatus, by the service that is refused.
const RELEASE: u32 = 0xdc;
const CONTROL: u32 = 0xdd;
const READ: u32 = 0xde;
const WRITE: u32 = 0xdf;

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
        let Ok(rpc) = Rpc::parse(payload) else {
            self.asked.malformed += 1;
            return;
        };
        match rpc.ptype {
            PacketType::Request if rpc.interface == Interface::Device => {
                self.handle_request(now, from, &rpc);
            }
            PacketType::Response => self.handle_response(now, &rpc),
            _ => {}
        }
    }

    fn handle_request(&mut self, now: Instant, from: Peer, rpc: &Rpc<'_>) {
        let ends = (self.own_peer(), from);
        let Some(body) = self.server.handle_request(rpc, ends, &mut self.out) else {
            return;
        };
        let Ok(message) = Message::parse(rpc, &body) else {
            self.asked.malformed += 1;
            return;
        };
        let mut blocks = Vec::new();
        let mut released = None;
        let status = match message {
            Message::ConnectRequest(request) => match self.connect(now, from, &request) {
                Ok(accepted) => {
                    blocks = accepted;
                    0
                }
                Err(status) => {
                    self.event(Event::Refused { status });
                    status
                }
            },
            Message::ControlRequest(request) => {
                self.prm_end(now, request.ar_uuid, request.session_key, &mut blocks)
            }
            Message::ReleaseRequest(request) => match self.find(request.ar_uuid) {
                Some(at) => {
                    released = Some(at);
                    let (uuid, session) = (request.ar_uuid, request.session_key);
                    control(&mut blocks, Control::Release, true, uuid, session);
                    0
                }
                None => cm_error(RELEASE, AR_UNKNOWN),
            },
            Message::ReadRequest(request) | Message::ReadImplicitRequest(request) => {
                self.read(&request.access, rpc.opnum == 5, &mut blocks)
            }
            Message::WriteRequest(request) => {
                let known = self.find(request.access().ar_uuid).is_some();
                match known {
                    true => self.write(&request, &mut blocks),
                    false => cm_error(WRITE, AR_UNKNOWN),
                }
            }
            _ => {
                self.asked.malformed += 1;
                return;
            }
        };
        let boot = BOOT;
        self.server
            .answer(rpc, ends, boot, (status, &blocks), &mut self.out);
        if let Some(at) = released {
            self.end(now, at, Ended::Released);
        }
    }

    fn find(&self, uuid: Uuid) -> Option<usize> {
        self.ars.iter().position(|ar| ar.uuid == uuid)
    }

    fn prm_end(&mut self, now: Instant, uuid: Uuid, session: u16, blocks: &mut Vec<u8>) -> u32 {
        let Some(at) = self.find(uuid) else {
            return cm_error(CONTROL, AR_UNKNOWN);
        };
        let activity = self.uuid();
        let ar = &mut self.ars[at];
        if !matches!(ar.state, State::Parametrizing { .. }) || ar.session != session {
            return cm_error(CONTROL, STATE_CONFLICT);
        }
        ar.state = State::Preparing {
            at: now + self.config.ready_after,
            activity,
        };
        control(blocks, Control::PrmEnd, true, uuid, session);
        0
    }

    /// The answer to ApplicationReady.
    fn handle_response(&mut self, now: Instant, rpc: &Rpc<'_>) {
        let answered = self.ars.iter_mut().enumerate().find_map(|(at, ar)| {
            let State::Announcing(call) = &mut ar.state else {
                return None;
            };
            Some((at, call.handle_response(rpc)?))
        });
        let Some((at, body)) = answered else { return };
        match Message::parse(rpc, &body) {
            Ok(Message::ControlResponse(response)) if response.status.is_ok() => {
                self.ars[at].state = State::Established;
                self.stats.established(now);
                self.event(Event::Established);
            }
            Ok(_) | Err(_) => self.end(now, at, Ended::own(RPC_CALL)),
        }
    }

    fn read(&mut self, access: &RecordAccess, implicit: bool, blocks: &mut Vec<u8>) -> u32 {
        self.asked.read += 1;
        let (slot, subslot, index) = (access.slot, access.subslot, access.index);
        let mut data = Vec::new();
        let status = if !implicit && self.find(access.ar_uuid).is_none() {
            cm_error(READ, AR_UNKNOWN)
        } else if self.slots.find(slot, subslot).is_none() {
            record_error(READ, INVALID_SLOT)
        } else if index == IANDM0 {
            let serial = self.config.mac.to_string();
            iandm0(&mut data, self.config.vendor, "SIM-IO-DEVICE", &serial);
            0
        } else if let Some(record) = self.records.get(&(slot, subslot, index)) {
            data.clone_from(record);
            0
        } else {
            record_error(READ, INVALID_INDEX)
        };
        data.truncate(access.length as usize);
        read_response(blocks, &head(access, data.len() as u32), &data);
        status
    }

    fn write(
        &mut self,
        request: &fieldlock_profinet::cm::WriteRequest<'_>,
        blocks: &mut Vec<u8>,
    ) -> u32 {
        let outer = request.access();
        if outer.index == MULTIPLE_WRITE {
            write_response(blocks, &head(&outer, outer.length), 0);
        }
        let mut last = 0;
        for item in request.items() {
            let Ok(item) = item else {
                self.asked.malformed += 1;
                break;
            };
            last = self.write_record(&item.access, item.data);
            write_response(blocks, &head(&item.access, item.data.len() as u32), last);
        }
        match outer.index {
            // Each has its own status.
            MULTIPLE_WRITE => 0,
            _ => last,
        }
    }

    fn write_record(&mut self, access: &RecordAccess, data: &[u8]) -> u32 {
        self.asked.write += 1;
        let (slot, subslot, index) = (access.slot, access.subslot, access.index);
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

fn head(access: &RecordAccess, length: u32) -> RecordHead {
    RecordHead {
        sequence: access.sequence,
        ar: access.ar_uuid,
        slot: access.slot,
        subslot: access.subslot,
        index: access.index,
        length,
    }
}
