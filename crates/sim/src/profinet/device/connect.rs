//! Connect: what a device accepts, and what it says when it doesn't.

use std::time::Instant;

use fieldlock_profinet::cm::{AlarmCr, ArBlock, ConnectRequest, ExpectedSubmodule, Iocr, IocrKind};
use fieldlock_profinet::service::ArType;
use fieldlock_profinet::{FrameId, frame_id};

use super::ar::{Ar, State, tenths};
use super::{Device, Ended};
use crate::profinet::alarms::{Channel, Endpoint};
use crate::profinet::blocks::{Direction, alarm_cr_response, ar_response, iocr_response};
use crate::profinet::cyclic::{Cadence, Consumer, Provider, WATCHDOG_LIMIT, cycle};
use crate::profinet::event::Event;
use crate::profinet::lan::{CM_PORT, PROFINET, Peer};
use crate::profinet::layout::{Layout, MAX_C_SDU, MIN_C_SDU, Placed};

/// PNIOStatus of a Connect that is refused.
pub(super) type Refusal = u32;

/// Which block is faulty (ErrorCode1); ErrorCode2 counts its parameters.
const AR_BLOCK: u8 = 1;
const IOCR_BLOCK: u8 = 2;
const SUBMODULE_BLOCK: u8 = 3;
const ALARM_BLOCK: u8 = 4;
/// Connection management itself refuses.
const CM: u8 = 0x40;

const IOCR_MISSING: u8 = 2;
const WRONG_ALARM_CRS: u8 = 3;
const OUT_OF_ARS: u8 = 4;
const OUT_OF_CRS: u8 = 7;

const RE_RUN: u8 = 0x0e;

const fn refused(code1: u8, code2: u8) -> Refusal {
    0xdb81_0000 | (code1 as u32) << 8 | code2 as u32
}

/// One direction as requested.
struct Cr {
    reference: u16,
    cadence: Cadence,
    layout: Layout,
}

impl Device {
    /// Establishes the AR and writes the blocks of the response.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        from: Peer,
        request: &ConnectRequest<'_>,
    ) -> Result<Vec<u8>, Refusal> {
        self.asked.connect += 1;
        let ar = request.ar();
        check_ar(&ar, from)?;
        let alarm = request.alarm_cr().ok_or(refused(CM, WRONG_ALARM_CRS))?;
        check_alarm(&alarm)?;
        let input = self.cr(request, &ar, IocrKind::Input)?;
        let mut output = self.cr(request, &ar, IocrKind::Output)?;
        for expected in request.submodules() {
            self.check_expected(&expected.map_err(|_| refused(SUBMODULE_BLOCK, 1))?)?;
        }

        // A controller that connects again has given up its former AR.
        if let Some(at) = self.ars.iter().position(|old| old.endpoint.remote == ar.mac) {
            self.end(now, at, Ended::own(RE_RUN));
        }
        if self.ars.len() >= self.config.max_ars {
            return Err(refused(CM, OUT_OF_ARS));
        }
        if output.cadence.frame_id == UNASSIGNED {
            output.cadence.frame_id = self.assign_frame_id();
        }
        let reference = 1 + (self.random.next() as u16 & 0x7fff);

        let mut blocks = Vec::new();
        ar_response(&mut blocks, 1, ar.ar_uuid, ar.session_key, self.config.mac);
        for (direction, cr) in [(Direction::Input, &input), (Direction::Output, &output)] {
            iocr_response(&mut blocks, direction, cr.reference, cr.cadence.frame_id);
        }
        alarm_cr_response(&mut blocks, reference);
        let established = self.establish(now, from, (&ar, &alarm, reference), (&input, &output));
        self.ars.push(established);
        self.event(Event::Connected {
            peer: ar.mac,
            input: FrameId(input.cadence.frame_id),
            output: FrameId(output.cadence.frame_id),
            cycle: cycle(output.cadence.send_clock, output.cadence.reduction_ratio),
            watchdog: output.cadence.watchdog(),
        });
        Ok(blocks)
    }

    fn establish(
        &self,
        now: Instant,
        from: Peer,
        (ar, alarm, reference): (&ArBlock<'_>, &AlarmCr, u16),
        (input, output): (&Cr, &Cr),
    ) -> Ar {
        let endpoint = Endpoint {
            local: self.config.mac,
            remote: ar.mac,
            local_reference: reference,
            remote_reference: alarm.local_reference,
            tagged: self.config.tagged,
        };
        let (timeout, retries) = (tenths(alarm.timeout_factor), alarm.retries);
        let activity_timeout = tenths(ar.activity_timeout_100ms);
        let priority = self.config.tagged.then_some(6);
        let mut provider = Provider::new(&input.cadence, &input.layout, priority, now);
        provider.set_running(self.running);
        Ar {
            uuid: ar.ar_uuid,
            session: ar.session_key,
            object: ar.object,
            controller: Peer { port: CM_PORT, ..from },
            own: self.own_peer(),
            output: FrameId(output.cadence.frame_id),
            provider,
            consumer: Consumer::new(&output.cadence, &output.layout, activity_timeout, now),
            endpoint,
            high: Channel::new(true, endpoint, timeout, retries),
            low: Channel::new(false, endpoint, timeout, retries),
            state: State::Parametrizing {
                until: now + activity_timeout,
            },
            specifier: 0,
        }
    }

    /// The one IOCR of a direction.
    fn cr(
        &self,
        request: &ConnectRequest<'_>,
        ar: &ArBlock<'_>,
        kind: IocrKind,
    ) -> Result<Cr, Refusal> {
        let mut found = None;
        for iocr in request.iocrs() {
            let iocr = iocr.map_err(|_| refused(IOCR_BLOCK, 1))?;
            if !matches!(iocr.kind, IocrKind::Input | IocrKind::Output) {
                return Err(refused(IOCR_BLOCK, 4));
            }
            if iocr.kind == kind && found.replace(iocr).is_some() {
                return Err(refused(CM, OUT_OF_CRS));
            }
        }
        let iocr = found.ok_or(refused(CM, IOCR_MISSING))?;
        check_iocr(&iocr)?;
        let (provider, consumer) = match kind {
            IocrKind::Input => (self.config.mac, ar.mac),
            _ => (ar.mac, self.config.mac),
        };
        Ok(Cr {
            reference: iocr.reference,
            cadence: Cadence {
                provider,
                consumer,
                frame_id: iocr.frame_id.0,
                send_clock: iocr.send_clock,
                reduction_ratio: iocr.reduction_ratio,
                watchdog_factor: iocr.watchdog_factor,
            },
            layout: self.layout(&iocr, kind)?,
        })
    }

    /// Where the request places data and statuses, all within the data length.
    fn layout(&self, iocr: &Iocr<'_>, kind: IocrKind) -> Result<Layout, Refusal> {
        let mut layout = Layout {
            objects: Vec::new(),
            statuses: Vec::new(),
            data_length: u32::from(iocr.data_length),
        };
        for api in iocr.apis() {
            let api = api.map_err(|_| refused(IOCR_BLOCK, 19))?;
            if api.api != 0 {
                return Err(refused(IOCR_BLOCK, 20));
            }
            for object in api.data_objects() {
                let submodule = self
                    .slots
                    .find(object.slot, object.subslot)
                    .ok_or(refused(IOCR_BLOCK, 22))?;
                let length = match kind {
                    IocrKind::Input => submodule.input,
                    _ => submodule.output,
                };
                let place = placed(object.slot, object.subslot, object.offset, length);
                if !layout.holds(&place) {
                    return Err(refused(IOCR_BLOCK, 24));
                }
                layout.objects.push(place);
            }
            for status in api.iocs() {
                self.slots
                    .find(status.slot, status.subslot)
                    .ok_or(refused(IOCR_BLOCK, 26))?;
                let place = placed(status.slot, status.subslot, status.offset, 0);
                if !layout.holds(&place) {
                    return Err(refused(IOCR_BLOCK, 28));
                }
                layout.statuses.push(place);
            }
        }
        Ok(layout)
    }

    fn check_expected(&self, expected: &ExpectedSubmodule<'_>) -> Result<(), Refusal> {
        let wrong = |parameter| Err(refused(SUBMODULE_BLOCK, parameter));
        if expected.api != 0 {
            return wrong(5);
        }
        let Some((_, plugged)) = self.slots.by_slot().find(|(slot, _)| *slot == expected.slot) else {
            return wrong(6);
        };
        if plugged[0].module_ident != expected.module_ident {
            return wrong(7);
        }
        let Some(submodule) = self.slots.find(expected.slot, expected.subslot) else {
            return wrong(10);
        };
        if submodule.ident != expected.submodule_ident {
            return wrong(11);
        }
        if (submodule.input, submodule.output) != (expected.input_length(), expected.output_length()) {
            return wrong(14);
        }
        Ok(())
    }

    fn assign_frame_id(&mut self) -> u16 {
        let taken = |id| self.ars.iter().any(|ar| ar.output == FrameId(id));
        let mut id = self.next_frame_id;
        while taken(id) {
            id = following(id);
        }
        self.next_frame_id = following(id);
        id
    }
}

/// FrameID of an output CR that the device shall choose.
const UNASSIGNED: u16 = 0xffff;

/// FrameIDs that the device assigns: 0x8000 to 0xBBFF.
fn following(id: u16) -> u16 {
    if id >= 0xbbff { 0x8000 } else { id + 1 }
}

fn placed(slot: u16, subslot: u16, offset: u16, length: u16) -> Placed {
    Placed {
        slot,
        subslot,
        offset,
        length,
    }
}

fn check_ar(ar: &ArBlock<'_>, from: Peer) -> Result<(), Refusal> {
    let wrong = |parameter| Err(refused(AR_BLOCK, parameter));
    if ar.ar_type != ArType::IoController {
        return wrong(4);
    }
    // Cyclic frames don't cross a router: the request comes from the controller itself.
    if ar.mac != from.mac || !ar.mac.is_station() {
        return wrong(7);
    }
    if !(1..=1000).contains(&ar.activity_timeout_100ms) {
        return wrong(10);
    }
    if ar.name().is_none() {
        return wrong(13);
    }
    Ok(())
}

fn check_alarm(alarm: &AlarmCr) -> Result<(), Refusal> {
    let wrong = |parameter| Err(refused(ALARM_BLOCK, parameter));
    if alarm.lt != PROFINET {
        return wrong(5);
    }
    if !(1..=100).contains(&alarm.timeout_factor) {
        return wrong(7);
    }
    if !(3..=15).contains(&alarm.retries) {
        return wrong(8);
    }
    if !(200..=1432).contains(&alarm.max_data) {
        return wrong(10);
    }
    Ok(())
}

fn check_iocr(iocr: &Iocr<'_>) -> Result<(), Refusal> {
    let wrong = |parameter| Err(refused(IOCR_BLOCK, parameter));
    if iocr.lt != PROFINET {
        return wrong(6);
    }
    if iocr.rt_class() != 1 {
        return wrong(7);
    }
    if !(MIN_C_SDU..=MAX_C_SDU).contains(&u32::from(iocr.data_length)) {
        return wrong(8);
    }
    let unassigned = iocr.frame_id.0 == UNASSIGNED && iocr.kind == IocrKind::Output;
    if !unassigned && iocr.frame_id.kind() != frame_id::Kind::Cyclic {
        return wrong(9);
    }
    if !(1..=128).contains(&iocr.send_clock) {
        return wrong(10);
    }
    if !iocr.reduction_ratio.is_power_of_two() || iocr.reduction_ratio > 512 {
        return wrong(11);
    }
    let ticks = u64::from(iocr.send_clock)
        * u64::from(iocr.reduction_ratio)
        * u64::from(iocr.watchdog_factor);
    if ticks == 0 || ticks > WATCHDOG_LIMIT {
        return wrong(15);
    }
    if iocr.data_hold_factor == 0 {
        return wrong(16);
    }
    Ok(())
}
