//! Connect: what a device accepts, and what it says when it doesn't.

use std::time::Instant;

use fieldlock_profinet::{FrameId, StationName, frame_id};

use super::ar::{Ar, State, tenths};
use super::{Device, Ended};
use crate::profinet::alarms::{Channel, Endpoint};
use crate::profinet::blocks::{Direction, alarm_cr_response, ar_response, iocr_response};
use crate::profinet::cyclic::{Cadence, Consumer, Provider, WATCHDOG_LIMIT, cycle};
use crate::profinet::event::Event;
use crate::profinet::lan::{CM_PORT, PROFINET, Peer};
use crate::profinet::layout::{Layout, MAX_C_SDU, MIN_C_SDU, Placed};
use crate::profinet::received::{AlarmCr, Ar as Requested, Connect, Expected, Iocr, Place};

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

/// ErrorCode2 of any block that is not as long as its content.
const BLOCK_LENGTH: u8 = 1;

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
        request: &Connect<'_>,
    ) -> Result<Vec<u8>, Refusal> {
        self.asked.connect += 1;
        let ar = &request.ar;
        check_ar(ar, from)?;
        let &[alarm] = request.alarm_crs.as_slice() else {
            return Err(refused(CM, WRONG_ALARM_CRS));
        };
        let alarm = AlarmCr::read(alarm.body).map_err(|_| refused(ALARM_BLOCK, BLOCK_LENGTH))?;
        check_alarm(&alarm)?;
        let (input, mut output) = self.crs(request)?;
        for block in &request.expected {
            let wrong = |_| refused(SUBMODULE_BLOCK, BLOCK_LENGTH);
            for expected in Expected::read(block.body).map_err(wrong)? {
                self.check_expected(&expected)?;
            }
        }

        // A controller that connects again has given up its former AR.
        if let Some(at) = self
            .ars
            .iter()
            .position(|old| old.endpoint.remote == ar.mac)
        {
            self.end(now, at, Ended::own(RE_RUN));
        }
        if self.ars.len() >= self.config.max_ars {
            return Err(refused(CM, OUT_OF_ARS));
        }
        let overrides = self.config.overrides_frame_ids;
        if overrides || output.cadence.frame_id == UNASSIGNED {
            output.cadence.frame_id = self.assign_frame_id();
        }
        let reference = 1 + (self.random.next() as u16 & 0x7fff);

        let mut blocks = Vec::new();
        ar_response(&mut blocks, ar.kind, ar.uuid, ar.session, self.config.mac);
        for (direction, cr) in [(Direction::Input, &input), (Direction::Output, &output)] {
            iocr_response(&mut blocks, direction, cr.reference, cr.cadence.frame_id);
        }
        alarm_cr_response(&mut blocks, reference);
        let established = self.establish(now, from, (ar, &alarm, reference), (&input, &output));
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
        (ar, alarm, reference): (&Requested<'_>, &AlarmCr, u16),
        (input, output): (&Cr, &Cr),
    ) -> Ar {
        let endpoint = Endpoint {
            local: self.config.mac,
            remote: ar.mac,
            local_reference: reference,
            remote_reference: alarm.reference,
            tags: self.config.tagged.then_some(alarm.tags),
        };
        let (timeout, retries) = (tenths(alarm.timeout_factor), alarm.retries);
        let activity_timeout = tenths(ar.activity_timeout);
        let priority = self.config.tagged.then_some(6);
        let mut provider = Provider::new(&input.cadence, &input.layout, priority, now);
        provider.set_running(self.running);
        Ar {
            uuid: ar.uuid,
            session: ar.session,
            object: ar.object,
            controller: Peer {
                port: CM_PORT,
                ..from
            },
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
            releasing: false,
        }
    }

    /// The one IOCR of each direction, input first.
    fn crs(&self, request: &Connect<'_>) -> Result<(Cr, Cr), Refusal> {
        let (mut input, mut output) = (None, None);
        for block in &request.iocrs {
            let iocr = Iocr::read(block.body).map_err(|_| refused(IOCR_BLOCK, BLOCK_LENGTH))?;
            let (direction, place) = match iocr.kind {
                1 => (Direction::Input, &mut input),
                2 => (Direction::Output, &mut output),
                _ => return Err(refused(IOCR_BLOCK, 4)),
            };
            let cr = self.cr(&iocr, &request.ar, direction)?;
            if place.replace(cr).is_some() {
                return Err(refused(CM, OUT_OF_CRS));
            }
        }
        input.zip(output).ok_or(refused(CM, IOCR_MISSING))
    }

    fn cr(&self, iocr: &Iocr, ar: &Requested<'_>, direction: Direction) -> Result<Cr, Refusal> {
        check_iocr(iocr, direction)?;
        let (provider, consumer) = match direction {
            Direction::Input => (self.config.mac, ar.mac),
            Direction::Output => (ar.mac, self.config.mac),
        };
        Ok(Cr {
            reference: iocr.reference,
            cadence: Cadence {
                provider,
                consumer,
                frame_id: iocr.frame_id,
                send_clock: iocr.send_clock,
                reduction_ratio: iocr.reduction_ratio,
                watchdog_factor: iocr.watchdog_factor,
            },
            layout: self.layout(iocr, direction)?,
        })
    }

    /// Where the request places data and statuses, all within the data length.
    fn layout(&self, iocr: &Iocr, direction: Direction) -> Result<Layout, Refusal> {
        let mut layout = Layout {
            objects: Vec::new(),
            statuses: Vec::new(),
            data_length: u32::from(iocr.data_length),
        };
        for api in &iocr.apis {
            if api.number != 0 {
                return Err(refused(IOCR_BLOCK, 20));
            }
            for object in &api.objects {
                let submodule = self
                    .slots
                    .find(object.slot, object.subslot)
                    .ok_or(refused(IOCR_BLOCK, 22))?;
                let length = match direction {
                    Direction::Input => submodule.input,
                    Direction::Output => submodule.output,
                };
                let place = placed(object, length);
                if !layout.holds(&place) {
                    return Err(refused(IOCR_BLOCK, 24));
                }
                layout.objects.push(place);
            }
            for status in &api.statuses {
                self.slots
                    .find(status.slot, status.subslot)
                    .ok_or(refused(IOCR_BLOCK, 26))?;
                let place = placed(status, 0);
                if !layout.holds(&place) {
                    return Err(refused(IOCR_BLOCK, 28));
                }
                layout.statuses.push(place);
            }
        }
        Ok(layout)
    }

    fn check_expected(&self, expected: &Expected) -> Result<(), Refusal> {
        let wrong = |parameter| Err(refused(SUBMODULE_BLOCK, parameter));
        if expected.api != 0 {
            return wrong(5);
        }
        let Some((_, plugged)) = self
            .slots
            .by_slot()
            .find(|(slot, _)| *slot == expected.slot)
        else {
            return wrong(6);
        };
        if plugged[0].module_ident != expected.module {
            return wrong(7);
        }
        let Some(submodule) = self.slots.find(expected.slot, expected.subslot) else {
            return wrong(10);
        };
        if submodule.ident != expected.submodule {
            return wrong(11);
        }
        if (submodule.input, submodule.output) != (expected.input, expected.output) {
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

/// FrameIDs that the device assigns: 0x8000 to 0xBBFF, or 0xC000 to 0xF7FF.
fn following(id: u16) -> u16 {
    match id {
        0xbbff => 0x8000,
        0xf7ff => 0xc000,
        id => id + 1,
    }
}

fn placed(place: &Place, length: u16) -> Placed {
    Placed {
        slot: place.slot,
        subslot: place.subslot,
        offset: place.offset,
        length,
    }
}

fn check_ar(ar: &Requested<'_>, from: Peer) -> Result<(), Refusal> {
    let wrong = |parameter| Err(refused(AR_BLOCK, parameter));
    if ar.kind != 1 {
        return wrong(4);
    }
    // Cyclic frames don't cross a router: the request comes from the controller itself.
    if ar.mac != from.mac || !ar.mac.is_station() {
        return wrong(7);
    }
    if !(1..=1000).contains(&ar.activity_timeout) {
        return wrong(10);
    }
    let name = std::str::from_utf8(ar.station).map(str::parse::<StationName>);
    if !matches!(name, Ok(Ok(_))) {
        return wrong(13);
    }
    Ok(())
}

fn check_alarm(alarm: &AlarmCr) -> Result<(), Refusal> {
    let wrong = |parameter| Err(refused(ALARM_BLOCK, parameter));
    if alarm.ethertype != PROFINET {
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

fn check_iocr(iocr: &Iocr, direction: Direction) -> Result<(), Refusal> {
    let wrong = |parameter| Err(refused(IOCR_BLOCK, parameter));
    if iocr.ethertype != PROFINET {
        return wrong(6);
    }
    if iocr.properties & 0x0f != 1 {
        return wrong(7);
    }
    if !(MIN_C_SDU..=MAX_C_SDU).contains(&u32::from(iocr.data_length)) {
        return wrong(8);
    }
    let unassigned = iocr.frame_id == UNASSIGNED && direction == Direction::Output;
    if !unassigned && FrameId(iocr.frame_id).kind() != frame_id::Kind::Cyclic {
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
    if iocr.hold_factor == 0 {
        return wrong(16);
    }
    Ok(())
}
