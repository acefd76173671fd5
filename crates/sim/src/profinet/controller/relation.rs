//! The AR of a controller from the Connect response on: cyclic data and alarms.

use std::time::Instant;

use fieldlock_profinet::alarm::{Body, Notice, Rta};
use fieldlock_profinet::{FrameId, Mac};

use super::{Controller, Defect, Phase};
use crate::profinet::alarms::{Channel, Endpoint, Failed};
use crate::profinet::blocks::alarm_ack;
use crate::profinet::cyclic::{Consumer, Provider};
use crate::profinet::event::Event;
use crate::profinet::rpc::Uuid;
use crate::profinet::stats::Side;

/// UDP port from which the controller calls.
pub(super) const CALL_PORT: u16 = 49153;

const WATCHDOG: u8 = 0x05;
pub(super) const CMI_TIMEOUT: u8 = 0x06;
const ALARM_ACK_SEND: u8 = 0x09;

#[derive(Debug)]
pub(super) struct Relation {
    pub(super) uuid: Uuid,
    pub(super) session: u16,
    pub(super) input: FrameId,
    pub(super) provider: Provider,
    pub(super) consumer: Consumer,
    pub(super) endpoint: Endpoint,
    pub(super) high: Channel,
    pub(super) low: Channel,
}

impl Relation {
    pub(super) fn deadline(&self) -> Instant {
        [self.high.deadline(), self.low.deadline()]
            .into_iter()
            .flatten()
            .fold(
                self.provider.due().min(self.consumer.deadline()),
                Instant::min,
            )
    }
}

impl Controller {
    pub(super) fn handle_cyclic(&mut self, now: Instant, src: Mac, id: FrameId, pdu: &[u8]) {
        if let Some(relation) = &mut self.relation
            && relation.input == id
            && relation.endpoint.remote == src
        {
            let (clock, consumed) = (self.config.clock, &mut self.stats.consumed);
            relation.consumer.handle(now, pdu, clock, consumed);
        }
    }

    pub(super) fn relation_timeout(&mut self, now: Instant) {
        let Some(relation) = &mut self.relation else {
            return;
        };
        if relation.consumer.deadline() <= now {
            let code = match relation.consumer.fail_safe(now, self.config.clock) {
                Some(event) => {
                    self.stats.fail_safe(event);
                    WATCHDOG
                }
                None => CMI_TIMEOUT,
            };
            return self.abort(now, code);
        }
        if let Some((frame, missed)) = relation.provider.poll(now, self.config.clock) {
            self.out.push(|out| out.extend_from_slice(frame));
            self.stats.sent += 1;
            self.stats.skipped += missed;
        }
        let high = relation.high.handle_timeout(now, &mut self.out);
        let low = relation.low.handle_timeout(now, &mut self.out);
        match (high, low) {
            (Ok(high), Ok(low)) => {
                self.stats.retransmits += u64::from(high) + u64::from(low);
            }
            (Err(Failed), _) | (_, Err(Failed)) => self.abort(now, ALARM_ACK_SEND),
        }
    }

    pub(super) fn handle_alarm(&mut self, now: Instant, src: Mac, high: bool, rta: &Rta<'_>) {
        let Some(relation) = self.relation.as_mut().filter(|relation| {
            relation.endpoint.remote == src && relation.endpoint.local_reference == rta.destination
        }) else {
            return;
        };
        let channel = match high {
            true => &mut relation.high,
            false => &mut relation.low,
        };
        match rta.body {
            Body::Err { status, .. } => self.ended(now, Side::Device, u32::from_be_bytes(status)),
            Body::Ack => channel.handle_ack(now, rta.ack_sequence, &mut self.out),
            Body::Data(data) => {
                if self.config.defect == Some(Defect::NeverAcknowledgesAlarms) {
                    return;
                }
                channel.handle_ack(now, rta.ack_sequence, &mut self.out);
                if !channel.handle_data(rta.send_sequence, &mut self.out) {
                    return;
                }
                let Ok(Notice::Alarm(notification)) = Notice::parse(data) else {
                    return;
                };
                let about = notification.about;
                let (slot, subslot, kind) = (about.slot, about.subslot, about.alarm_type);
                let mut block = Vec::new();
                alarm_ack(&mut block, (high, kind), (slot, subslot), about.specifier.0);
                if channel.send(now, block, &mut self.out).is_err() {
                    return self.abort(now, ALARM_ACK_SEND);
                }
                self.stats.alarms_received += 1;
                self.event(Event::AlarmReceived {
                    high,
                    kind,
                    slot,
                    subslot,
                });
            }
            Body::Nack => {}
        }
    }

    /// ApplicationReady came and was confirmed.
    pub(super) fn establish(&mut self, now: Instant) {
        if let Some(relation) = &mut self.relation {
            relation.provider.set_good(true);
        }
        self.phase = Phase::Established;
        self.stats.established(now);
        self.event(Event::Established);
    }
}
