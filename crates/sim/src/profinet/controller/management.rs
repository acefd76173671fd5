//! The calls of a controller, in their order, and ApplicationReady.

use std::time::{Duration, Instant};

use fieldlock_profinet::FrameId;

use super::relation::{CALL_PORT, Relation};
use super::{Controller, Defect, Phase};
use crate::profinet::alarms::{Channel, Endpoint};
use crate::profinet::blocks::{
    AlarmCrRequest, ArRequest, Control, Direction, IocrRequest, RecordHead, alarm_cr_request,
    ar_request, control, expected_submodules, iocr_request, write_request,
};
use crate::profinet::calls::Call;
use crate::profinet::cyclic::{Cadence, Consumer, Provider};
use crate::profinet::event::Event;
use crate::profinet::lan::{CM_PORT, PROFINET, Peer};
use crate::profinet::layout::Layout;
use crate::profinet::received::{Connected, Control as Asked};
use crate::profinet::rpc::{
    CONTROLLER, DEVICE, Head, Kind, Packet, Uuid, arguments, object, request_body,
};
use crate::profinet::stats::Side;

/// Which call of the life of an AR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    /// The record of this number in the configuration.
    Write(usize),
    PrmEnd,
    Release,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connects",
            Self::Write(_) => "writes records",
            Self::PrmEnd => "ends parametrization",
            Self::Release => "releases",
        }
    }

    fn opnum(self) -> u16 {
        match self {
            Self::Connect => 0,
            Self::Release => 1,
            Self::Write(_) => 3,
            Self::PrmEnd => 4,
        }
    }
}

/// A step that waits for its answer.
#[derive(Debug)]
pub(super) struct Calling {
    pub(super) step: Step,
    pub(super) call: Call,
    /// Of the AR, from Connect on.
    ar: Attempt,
}

/// What a Connect was made with.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    uuid: Uuid,
    activity: Uuid,
    session: u16,
    alarm_reference: u16,
}

const IRT: u16 = 0x0100;
/// Server boot time: any but 0.
const BOOT: u32 = 1;
const RPC_CALL: u8 = 0x0c;

impl Controller {
    /// Begins a step.
    pub(super) fn call(&mut self, now: Instant, step: Step) {
        let (ar, sequence) = match (&self.phase, step) {
            (_, Step::Connect) => (self.attempt(), 0),
            (Phase::Calling(last), _) => (last.ar, last.call.head().sequence + 1),
            // Release, from any phase that has an AR.
            _ => match &self.relation {
                Some(relation) => {
                    let (uuid, session) = (relation.uuid, relation.session);
                    let attempt = self.attempt();
                    let attempt = Attempt {
                        uuid,
                        session,
                        ..attempt
                    };
                    (attempt, 0)
                }
                None => return,
            },
        };
        let mut blocks = Vec::new();
        match step {
            Step::Connect => self.connect_blocks(&ar, &mut blocks),
            Step::Write(number) => {
                // Only numbers of configured records are begun.
                let record = &self.config.records[number];
                let head = RecordHead {
                    sequence: number as u16,
                    ar: ar.uuid,
                    slot: record.slot,
                    subslot: record.subslot,
                    index: record.index,
                    length: record.data.len() as u32,
                };
                write_request(&mut blocks, &head, &record.data);
            }
            Step::PrmEnd => control(&mut blocks, Control::PrmEnd, false, ar.uuid, ar.session),
            Step::Release => control(&mut blocks, Control::Release, false, ar.uuid, ar.session),
        }
        let call = self.start_call(now, ar.activity, sequence, step.opnum(), &blocks);
        self.phase = Phase::Calling(Box::new(Calling { step, call, ar }));
    }

    fn attempt(&mut self) -> Attempt {
        let asks = self.config.asks;
        let (uuid, session) = match asks.keeps_uuid {
            true => (self.uuid, 1),
            false => (self.random.uuid(), self.stats.established as u16),
        };
        let chosen = 1 + (self.random.next() as u16 & 0x7fff);
        Attempt {
            uuid,
            activity: self.random.uuid(),
            session,
            alarm_reference: asks.alarm_reference.unwrap_or(chosen),
        }
    }

    pub(super) fn start_call(
        &mut self,
        now: Instant,
        activity: Uuid,
        sequence: u32,
        opnum: u16,
        blocks: &[u8],
    ) -> Call {
        let head = Head {
            kind: Kind::Request,
            order: self.config.order,
            object: object(1, self.config.device_device_id, self.config.device_vendor),
            interface: DEVICE,
            activity,
            boot: 0,
            sequence,
            opnum,
        };
        let mut body = request_body(head.order, blocks);
        if self.config.defect == Some(Defect::BigNdrCount) && opnum == 0 {
            // The actual count of the array.
            body[16..20].fill(0xff);
        }
        let to = Peer {
            port: CM_PORT,
            ..self.device
        };
        let ends = (self.own_peer(CALL_PORT), to);
        Call::start(
            now,
            head,
            ends,
            &body,
            self.config.patience(),
            &mut self.out,
        )
    }

    fn own_peer(&self, port: u16) -> Peer {
        Peer {
            mac: self.config.mac,
            ip: self.config.ip.address,
            port,
        }
    }

    fn connect_blocks(&self, ar: &Attempt, blocks: &mut Vec<u8>) {
        let config = &self.config;
        ar_request(
            blocks,
            &ArRequest {
                uuid: ar.uuid,
                session: ar.session,
                mac: config.mac,
                object: object(1, config.device_id, config.vendor),
                properties: config.asks.properties,
                activity_timeout: config.activity_timeout,
                station: &config.name,
            },
        );
        let asks = &config.asks;
        let alarm_cr = |blocks: &mut Vec<u8>| {
            alarm_cr_request(
                blocks,
                &AlarmCrRequest {
                    reference: ar.alarm_reference,
                    timeout: config.rta_timeout_factor,
                    retries: config.rta_retries,
                    max_data: asks.max_alarm_data,
                    tags: asks.alarm_tags,
                },
            );
        };
        if asks.alarm_first {
            alarm_cr(blocks);
        }
        let (class, ethertype, input) = match config.defect {
            Some(Defect::IrtConnect) => (3, PROFINET, IRT),
            Some(Defect::RtOverUdp) => (4, 0x0800, asks.input),
            _ => (1, PROFINET, asks.input),
        };
        for (direction, layout, frame_id) in [
            (Direction::Input, self.slots.input(), input),
            (Direction::Output, self.slots.output(), asks.output),
        ] {
            iocr_request(
                blocks,
                &IocrRequest {
                    direction,
                    reference: asks.references[direction as usize - 1],
                    ethertype,
                    class,
                    data_length: layout.data_length as u16,
                    frame_id,
                    send_clock: config.send_clock,
                    reduction_ratio: config.reduction_ratio,
                    phase: asks.phase,
                    watchdog_factor: config.watchdog_factor,
                    objects: &layout.objects,
                    statuses: &layout.statuses,
                },
            );
        }
        expected_submodules(blocks, &self.slots);
        if !asks.alarm_first {
            alarm_cr(blocks);
        }
    }

    pub(super) fn call_timeout(&mut self, now: Instant) {
        let Phase::Calling(calling) = &mut self.phase else {
            return;
        };
        match calling.call.handle_timeout(now, &mut self.out) {
            Ok(again) => self.stats.retransmits += u64::from(again),
            Err(_) if calling.step == Step::Release => self.released(now),
            // Without an AR there is nobody to tell.
            Err(_) if self.relation.is_none() => self.ended(now, Side::Device, 0),
            Err(_) => self.abort(now, RPC_CALL),
        }
    }

    pub(super) fn handle_rpc(&mut self, now: Instant, from: Peer, payload: &[u8]) {
        let Some(packet) = Packet::parse(payload) else {
            return;
        };
        match packet.head.kind {
            Kind::Request if packet.head.interface == CONTROLLER => {
                self.handle_request(now, from, &packet);
            }
            Kind::Response => self.handle_response(now, &packet),
            Kind::Request | Kind::Fack => {}
        }
    }

    fn handle_response(&mut self, now: Instant, packet: &Packet<'_>) {
        let order = packet.head.order;
        if let Some(record) = &mut self.record_call
            && let Some(body) = record.call.handle_response(packet)
        {
            let index = record.index;
            self.record_call = None;
            if let Some((status, blocks)) = arguments(order, &body) {
                self.record_answered(index, packet.head.opnum, status, blocks);
            }
            return self.next_record(now);
        }
        let Phase::Calling(calling) = &mut self.phase else {
            return;
        };
        let Some(body) = calling.call.handle_response(packet) else {
            return;
        };
        let (step, ar) = (calling.step, calling.ar);
        let Some((status, blocks)) = arguments(order, &body) else {
            return self.refused(now, 0);
        };
        match step {
            Step::Release => self.released(now),
            _ if status != 0 => self.refused(now, status),
            Step::Connect => match Connected::read(blocks) {
                Ok(response) if response.uuid == ar.uuid => self.connected(now, &ar, &response),
                Ok(_) | Err(_) => self.refused(now, 0),
            },
            Step::Write(number) => self.after_write(now, number + 1),
            Step::PrmEnd => {
                self.phase = Phase::AwaitingReady {
                    until: now + self.activity_timeout(),
                };
            }
        }
    }

    fn activity_timeout(&self) -> Duration {
        Duration::from_millis(100) * u32::from(self.config.activity_timeout)
    }

    fn refused(&mut self, now: Instant, status: u32) {
        self.event(Event::Refused { status });
        match self.relation {
            Some(_) => self.abort(now, RPC_CALL),
            None => self.ended(now, Side::Device, status),
        }
    }

    fn after_write(&mut self, now: Instant, next: usize) {
        match next < self.config.records.len() {
            true => self.call(now, Step::Write(next)),
            false => self.call(now, Step::PrmEnd),
        }
    }

    /// The device accepted: cyclic data begins at once.
    fn connected(&mut self, now: Instant, ar: &Attempt, response: &Connected) {
        let frame_id = |direction: Direction| {
            let mut ids = response.frame_ids.iter();
            ids.find(|(kind, _)| *kind == direction as u16)
                .map(|(_, id)| FrameId(*id))
        };
        let ids = (frame_id(Direction::Input), frame_id(Direction::Output));
        let (Some(input), Some(output)) = ids else {
            return self.refused(now, 0);
        };
        let config = &self.config;
        let (own, device) = (config.mac, self.device.mac);
        let cadence = |provider, consumer, id: FrameId| Cadence {
            provider,
            consumer,
            frame_id: id.0,
            send_clock: config.send_clock,
            reduction_ratio: config.reduction_ratio,
            watchdog_factor: config.watchdog_factor,
        };
        let sends = cadence(own, device, output);
        let hears = cadence(device, own, input);
        let endpoint = Endpoint {
            local: own,
            remote: device,
            local_reference: ar.alarm_reference,
            remote_reference: response.alarm_reference,
            tags: config.tagged.then_some(config.asks.alarm_tags),
        };
        let mut layout = self.slots.output();
        if config.defect == Some(Defect::WrongDataLength) {
            layout.data_length += 4;
        }
        let relation = self.relation_of(now, ar, (&sends, &layout), &hears, endpoint);
        self.event(Event::Connected {
            peer: device,
            input,
            output,
            cycle: self.config.cycle(),
            watchdog: self.config.watchdog(),
        });
        self.relation = Some(relation);
        self.after_write(now, 0);
    }

    fn relation_of(
        &self,
        now: Instant,
        ar: &Attempt,
        (sends, layout): (&Cadence, &Layout),
        hears: &Cadence,
        endpoint: Endpoint,
    ) -> Relation {
        let config = &self.config;
        let mut provider = Provider::new(sends, layout, config.tagged.then_some(6), now);
        provider.set_running(self.running);
        if config.defect == Some(Defect::WrongCycleCounter) {
            provider.freeze_counter();
        }
        let timeout = Duration::from_millis(100) * u32::from(config.rta_timeout_factor);
        let channel = |high| Channel::new(high, endpoint, timeout, config.rta_retries);
        Relation {
            uuid: ar.uuid,
            session: ar.session,
            input: FrameId(hears.frame_id),
            provider,
            consumer: Consumer::new(hears, &self.slots.input(), self.activity_timeout(), now),
            endpoint,
            high: channel(true),
            low: channel(false),
        }
    }

    /// ApplicationReady from the device: confirmed when the AR is this one.
    fn handle_request(&mut self, now: Instant, from: Peer, packet: &Packet<'_>) {
        let ends = (self.own_peer(CM_PORT), from);
        let Some(body) = self.server.handle_request(packet, ends, &mut self.out) else {
            return;
        };
        let request = arguments(packet.head.order, &body)
            .and_then(|(_, blocks)| Asked::read(blocks).ok())
            .filter(|request| request.kind == Control::ApplicationReady as u16);
        let Some(request) = request else { return };
        let known = self.relation.as_ref().is_some_and(|relation| {
            (relation.uuid, relation.session) == (request.uuid, request.session)
        });
        let mut blocks = Vec::new();
        let status = match known {
            true => {
                let (uuid, session) = (request.uuid, request.session);
                control(&mut blocks, Control::ApplicationReady, true, uuid, session);
                0
            }
            false => AR_UNKNOWN,
        };
        let answer = (status, blocks.as_slice());
        self.server
            .answer(packet, ends, BOOT, answer, &mut self.out);
        if !known {
            return;
        }
        // The answer to PrmEnd may have been lost, or come later.
        let awaited = match &self.phase {
            Phase::AwaitingReady { .. } => true,
            Phase::Calling(calling) => calling.step == Step::PrmEnd,
            _ => false,
        };
        if awaited {
            self.establish(now);
        }
    }

    pub(super) fn released(&mut self, now: Instant) {
        self.relation = None;
        self.record_call = None;
        self.record_queue.clear();
        self.stats.down(now);
        self.stats.released += 1;
        self.phase = Phase::Stopped;
        self.event(Event::Released);
    }
}

/// Control refused by connection management: no such AR.
const AR_UNKNOWN: u32 = 0xdd81_4005;
