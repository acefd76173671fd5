//! Encoders of the blocks of connection management.

use super::rpc::Uuid;
use fieldlock_profinet::Mac;

use super::lan::{PROFINET, put16, put32};
use super::layout::{Placed, Slots};

/// A block: header (type, length, version 1.0), then what `write` appends.
fn block(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    put16(out, kind);
    let length = out.len();
    put16(out, 0);
    out.extend_from_slice(&[1, 0]);
    write(out);
    let octets = (out.len() - length - 2) as u16;
    out[length..length + 2].copy_from_slice(&octets.to_be_bytes());
}

/// ARBlockReq of a controller that parametrizes by itself.
#[derive(Debug, Clone)]
pub(super) struct ArRequest<'a> {
    pub(super) uuid: Uuid,
    pub(super) session: u16,
    pub(super) mac: Mac,
    pub(super) object: Uuid,
    pub(super) properties: u32,
    /// x 100 ms.
    pub(super) activity_timeout: u16,
    pub(super) station: &'a str,
}

pub(super) fn ar_request(out: &mut Vec<u8>, ar: &ArRequest<'_>) {
    block(out, 0x0101, |out| {
        put16(out, 1); // IO controller AR
        out.extend_from_slice(&ar.uuid.0);
        put16(out, ar.session);
        out.extend_from_slice(&ar.mac.0);
        out.extend_from_slice(&ar.object.0);
        put32(out, ar.properties);
        put16(out, ar.activity_timeout);
        put16(out, PROFINET);
        put16(out, ar.station.len() as u16);
        out.extend_from_slice(ar.station.as_bytes());
    });
}

/// Direction of an IOCR, as its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Input = 1,
    Output = 2,
}

#[derive(Debug, Clone)]
pub(super) struct IocrRequest<'a> {
    pub(super) direction: Direction,
    pub(super) reference: u16,
    pub(super) ethertype: u16,
    pub(super) class: u8,
    pub(super) data_length: u16,
    pub(super) frame_id: u16,
    pub(super) send_clock: u16,
    pub(super) reduction_ratio: u16,
    pub(super) phase: u16,
    pub(super) watchdog_factor: u16,
    pub(super) objects: &'a [Placed],
    pub(super) statuses: &'a [Placed],
}

pub(super) fn iocr_request(out: &mut Vec<u8>, iocr: &IocrRequest<'_>) {
    block(out, 0x0102, |out| {
        put16(out, iocr.direction as u16);
        put16(out, iocr.reference);
        put16(out, iocr.ethertype);
        put32(out, u32::from(iocr.class));
        put16(out, iocr.data_length);
        put16(out, iocr.frame_id);
        put16(out, iocr.send_clock);
        put16(out, iocr.reduction_ratio);
        put16(out, iocr.phase);
        put16(out, 0); // sequence
        put32(out, 0xffff_ffff); // frame send offset: best effort
        put16(out, iocr.watchdog_factor);
        put16(out, iocr.watchdog_factor); // data hold factor
        put16(out, 0xc000); // tag: priority 6
        out.extend_from_slice(&[0; 6]);
        put16(out, 1);
        put32(out, 0); // API 0
        put16(out, iocr.objects.len() as u16);
        put_placed(out, iocr.objects);
        put16(out, iocr.statuses.len() as u16);
        put_placed(out, iocr.statuses);
    });
}

fn put_placed(out: &mut Vec<u8>, placed: &[Placed]) {
    for place in placed {
        put16(out, place.slot);
        put16(out, place.subslot);
        put16(out, place.offset);
    }
}

/// One ExpectedSubmoduleBlockReq for each slot.
pub(super) fn expected_submodules(out: &mut Vec<u8>, slots: &Slots) {
    for (slot, submodules) in slots.by_slot() {
        block(out, 0x0104, |out| {
            put16(out, 1);
            put32(out, 0);
            put16(out, slot);
            put32(out, submodules[0].module_ident);
            put16(out, 0);
            put16(out, submodules.len() as u16);
            for submodule in submodules {
                put16(out, submodule.subslot);
                put32(out, submodule.ident);
                let (input, output) = (submodule.input, submodule.output);
                put16(out, u16::from(input > 0) | u16::from(output > 0) << 1);
                // A submodule without data is described as an input of no octets.
                if input > 0 || output == 0 {
                    put16(out, 1);
                    put16(out, input);
                    out.extend_from_slice(&[1, 1]);
                }
                if output > 0 {
                    put16(out, 2);
                    put16(out, output);
                    out.extend_from_slice(&[1, 1]);
                }
            }
        });
    }
}

#[derive(Debug, Clone)]
pub(super) struct AlarmCrRequest {
    pub(super) reference: u16,
    pub(super) timeout: u16,
    pub(super) retries: u16,
    pub(super) max_data: u16,
    /// Of high and low priority.
    pub(super) tags: [u16; 2],
}

pub(super) fn alarm_cr_request(out: &mut Vec<u8>, alarm: &AlarmCrRequest) {
    block(out, 0x0103, |out| {
        put16(out, 1);
        put16(out, PROFINET);
        put32(out, 0);
        put16(out, alarm.timeout);
        put16(out, alarm.retries);
        put16(out, alarm.reference);
        put16(out, alarm.max_data);
        put16(out, alarm.tags[0]);
        put16(out, alarm.tags[1]);
    });
}

pub(super) fn ar_response(out: &mut Vec<u8>, kind: u16, uuid: Uuid, session: u16, mac: Mac) {
    block(out, 0x8101, |out| {
        put16(out, kind);
        out.extend_from_slice(&uuid.0);
        put16(out, session);
        out.extend_from_slice(&mac.0);
        put16(out, PROFINET);
    });
}

pub(super) fn iocr_response(
    out: &mut Vec<u8>,
    direction: Direction,
    reference: u16,
    frame_id: u16,
) {
    block(out, 0x8102, |out| {
        put16(out, direction as u16);
        put16(out, reference);
        put16(out, frame_id);
    });
}

pub(super) fn alarm_cr_response(out: &mut Vec<u8>, reference: u16) {
    block(out, 0x8103, |out| {
        put16(out, 1);
        put16(out, reference);
        put16(out, 200);
    });
}

/// Control and Release blocks, by their types in requests; a response has bit 15 set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    PrmEnd = 0x0110,
    ApplicationReady = 0x0112,
    Release = 0x0114,
}

pub(super) fn control(out: &mut Vec<u8>, which: Control, response: bool, uuid: Uuid, session: u16) {
    let (kind, command) = match which {
        _ if response => (0x8000 | which as u16, 8), // done
        Control::PrmEnd => (which as u16, 1),
        Control::ApplicationReady => (which as u16, 2),
        Control::Release => (which as u16, 4),
    };
    block(out, kind, |out| {
        put16(out, 0);
        out.extend_from_slice(&uuid.0);
        put16(out, session);
        put16(out, 0);
        put16(out, command);
        put16(out, 0);
    });
}

/// Which record a header is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub(super) sequence: u16,
    pub(super) ar: Uuid,
    pub(super) slot: u16,
    pub(super) subslot: u16,
    pub(super) index: u16,
    pub(super) length: u32,
}

fn put_record(out: &mut Vec<u8>, record: &RecordHead) {
    put16(out, record.sequence);
    out.extend_from_slice(&record.ar.0);
    put32(out, 0);
    put16(out, record.slot);
    put16(out, record.subslot);
    put16(out, 0);
    put16(out, record.index);
    put32(out, record.length);
}

pub(super) fn write_request(out: &mut Vec<u8>, record: &RecordHead, data: &[u8]) {
    block(out, 0x0008, |out| {
        put_record(out, record);
        out.extend_from_slice(&[0; 24]);
    });
    out.extend_from_slice(data);
}

pub(super) fn write_response(out: &mut Vec<u8>, record: &RecordHead, status: u32) {
    block(out, 0x8008, |out| {
        put_record(out, record);
        put32(out, 0);
        put32(out, status);
        out.extend_from_slice(&[0; 16]);
    });
}

/// `target` is zero but for an implicit read.
pub(super) fn read_request(out: &mut Vec<u8>, record: &RecordHead) {
    block(out, 0x0009, |out| {
        put_record(out, record);
        out.extend_from_slice(&[0; 24]);
    });
}

pub(super) fn read_response(out: &mut Vec<u8>, record: &RecordHead, data: &[u8]) {
    block(out, 0x8009, |out| {
        put_record(out, record);
        out.extend_from_slice(&[0; 24]);
    });
    out.extend_from_slice(data);
}

/// I&M0 (0xAFF0): who made the device.
pub(super) fn iandm0(out: &mut Vec<u8>, vendor: u16, order: &str, serial: &str) {
    let text = |out: &mut Vec<u8>, text: &str, width: usize| {
        let end = out.len() + width;
        out.extend(text.bytes().take(width));
        out.resize(end, b' ');
    };
    block(out, 0x0020, |out| {
        put16(out, vendor);
        text(out, order, 20);
        text(out, serial, 16);
        put16(out, 1); // hardware revision
        out.extend_from_slice(&[b'V', 1, 0, 0]);
        put16(out, 0); // revision counter
        put16(out, 0); // profile
        put16(out, 3); // profile specific type: I/O
        out.extend_from_slice(&[1, 1]); // version of I&M
        put16(out, 0); // I&M0 alone
    });
}

/// An AlarmNotification of a process alarm without maintenance data.
pub(super) fn alarm_notification(
    out: &mut Vec<u8>,
    (high, kind): (bool, u16),
    (slot, subslot): (u16, u16),
    (module, submodule): (u32, u32),
    specifier: u16,
    data: &[u8],
) {
    block(out, if high { 0x0001 } else { 0x0002 }, |out| {
        put16(out, kind);
        put32(out, 0);
        put16(out, slot);
        put16(out, subslot);
        put32(out, module);
        put32(out, submodule);
        put16(out, specifier);
        if !data.is_empty() {
            put16(out, 0x0001); // user structure: manufacturer specific
            out.extend_from_slice(data);
        }
    });
}

pub(super) fn alarm_ack(
    out: &mut Vec<u8>,
    (high, kind): (bool, u16),
    (slot, subslot): (u16, u16),
    specifier: u16,
) {
    block(out, if high { 0x8001 } else { 0x8002 }, |out| {
        put16(out, kind);
        put32(out, 0);
        put16(out, slot);
        put16(out, subslot);
        put16(out, specifier);
        put32(out, 0);
    });
}
