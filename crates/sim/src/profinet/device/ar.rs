//! One application relation of a device.

use std::time::{Duration, Instant};

use fieldlock_profinet::alarm::{Body, Notice, Rta};
use fieldlock_profinet::{FrameId, Mac};

use super::DeviceConfig;
use crate::profinet::alarms::{self, Channel, Endpoint, Failed, rta_error};
use crate::profinet::blocks::{Control, alarm_notification, control};
use crate::profinet::calls::Call;
use crate::profinet::cyclic::{Consumer, Provider};
use crate::profinet::event::Event;
use crate::profinet::lan::Peer;
use crate::profinet::layout::Submodule;
use crate::profinet::outbox::Outbox;
use crate::profinet::rpc::{CONTROLLER, Head, Kind, Uuid, request_body};
use crate::profinet::stats::{Side, Stats};

#[derive(Debug)]
pub(super) struct Ar {
    pub(super) uuid: Uuid,
    pub(super) session: u16,
    /// CMInitiatorObjectUUID: whom ApplicationReady is for.
    pub(super) object: Uuid,
    /// Where ApplicationReady goes: the controller's 34964.
    pub(super) controller: Peer,
    pub(super) own: Peer,
    pub(super) output: FrameId,
    pub(super) provider: Provider,
    pub(super) consumer: Consumer,
    pub(super) endpoint: Endpoint,
    pub(super) high: Channel,
    pub(super) low: Channel,
    pub(super) state: State,
    pub(super) specifier: u16,
    /// Ends when its Release is answered.
    pub(super) releasing: bool,
}

/// How far an AR has come.
#[derive(Debug)]
pub(super) enum State {
    /// Records are written until PrmEnd, at the latest by `until`.
    Parametrizing {
        until: Instant,
    },
    /// PrmEnd came; ApplicationReady follows at `at`.
    Preparing {
        at: Instant,
        activity: Uuid,
    },
    /// ApplicationReady waits for its answer.
    Announcing(Box<Call>),
    Established,
}

/// Why an AR is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Released,
    Aborted { side: Side, status: u32 },
}

impl Ended {
    /// The device itself ends the AR; `code` is the last octet of 0xCF81FDxx.
    pub(super) fn own(code: u8) -> Self {
        Self::Aborted {
            side: Side::Device,
            status: rta_error(code),
        }
    }
}

const WATCHDOG: u8 = 0x05;
const CMI_TIMEOUT: u8 = 0x06;
const ALARM_SEND: u8 = 0x08;
const RPC_CALL: u8 = 0x0c;

impl Ar {
    pub(super) fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    /// Cyclic frames of this AR are known by their source and FrameID.
    pub(super) fn is_output(&self, src: Mac, id: FrameId) -> bool {
        src == self.endpoint.remote && id == self.output
    }

    pub(super) fn is_alarm(&self, src: Mac, rta: &Rta<'_>) -> bool {
        src == self.endpoint.remote && rta.destination == self.endpoint.local_reference
    }

    pub(super) fn deadline(&self) -> Instant {
        let state = match &self.state {
            State::Parametrizing { until } => Some(*until),
            State::Preparing { at, .. } => Some(*at),
            State::Announcing(call) => Some(call.deadline()),
            State::Established => None,
        };
        [state, self.high.deadline(), self.low.deadline()]
            .into_iter()
            .flatten()
            .fold(
                self.provider.due().min(self.consumer.deadline()),
                Instant::min,
            )
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        config: &DeviceConfig,
        out: &mut Outbox,
        stats: &mut Stats,
    ) -> Result<(), Ended> {
        if self.consumer.deadline() <= now {
            let Some(event) = self.consumer.fail_safe(now, config.clock) else {
                return Err(Ended::own(CMI_TIMEOUT));
            };
            stats.fail_safe(event);
            return Err(Ended::own(WATCHDOG));
        }
        if let Some((frame, missed)) = self.provider.poll(now, config.clock) {
            out.push(|out| out.extend_from_slice(frame));
            stats.sent += 1;
            stats.skipped += missed;
        }
        for channel in [&mut self.high, &mut self.low] {
            match channel.handle_timeout(now, out) {
                Ok(again) => stats.retransmits += u64::from(again),
                Err(Failed) => return Err(Ended::own(ALARM_SEND)),
            }
        }
        match &mut self.state {
            State::Parametrizing { until } if *until <= now => return Err(Ended::own(CMI_TIMEOUT)),
            State::Preparing { at, activity } if *at <= now => {
                let activity = *activity;
                self.announce(now, activity, config, out);
            }
            State::Announcing(call) => match call.handle_timeout(now, out) {
                Ok(again) => stats.retransmits += u64::from(again),
                Err(_) => return Err(Ended::own(RPC_CALL)),
            },
            State::Parametrizing { .. } | State::Preparing { .. } | State::Established => {}
        }
        Ok(())
    }

    /// Tells the controller that the application is ready.
    fn announce(&mut self, now: Instant, activity: Uuid, config: &DeviceConfig, out: &mut Outbox) {
        self.provider.set_good(true);
        let mut blocks = Vec::new();
        let which = Control::ApplicationReady;
        control(&mut blocks, which, false, self.uuid, self.session);
        let head = Head {
            kind: Kind::Request,
            order: config.order,
            object: self.object,
            interface: CONTROLLER,
            activity,
            boot: 0,
            sequence: 0,
            opnum: 4,
        };
        let ends = (self.own, self.controller);
        let call = Call::start(
            now,
            head,
            ends,
            &request_body(head.order, &blocks),
            config.patience(),
            out,
        );
        self.state = State::Announcing(Box::new(call));
    }

    /// An alarm PDU from the controller.
    pub(super) fn handle_alarm(
        &mut self,
        now: Instant,
        high: bool,
        rta: &Rta<'_>,
        out: &mut Outbox,
    ) -> Result<Option<Event>, Ended> {
        let channel = match high {
            true => &mut self.high,
            false => &mut self.low,
        };
        match rta.body {
            Body::Err { status, .. } => Err(Ended::Aborted {
                side: Side::Controller,
                status: u32::from_be_bytes(status),
            }),
            Body::Ack => {
                channel.handle_ack(now, rta.ack_sequence, out);
                Ok(None)
            }
            Body::Data(data) => {
                channel.handle_ack(now, rta.ack_sequence, out);
                let acknowledged = channel.handle_data(rta.send_sequence, out)
                    && matches!(Notice::parse(data), Ok(Notice::Ack(..)));
                Ok(acknowledged.then_some(Event::AlarmAcknowledged { high }))
            }
            Body::Nack => Ok(None),
        }
    }

    pub(super) fn raise_alarm(
        &mut self,
        now: Instant,
        (high, kind): (bool, u16),
        submodule: &Submodule,
        data: &[u8],
        out: &mut Outbox,
    ) -> bool {
        if !self.is_established() {
            return false;
        }
        let mut block = Vec::new();
        // Sequence number (11 bits), no diagnosis.
        let specifier = self.specifier & 0x07ff;
        self.specifier = self.specifier.wrapping_add(1);
        alarm_notification(
            &mut block,
            (high, kind),
            (submodule.slot, submodule.subslot),
            (submodule.module_ident, submodule.ident),
            specifier,
            data,
        );
        let channel = match high {
            true => &mut self.high,
            false => &mut self.low,
        };
        channel.send(now, block, out).is_ok()
    }

    /// Tells the controller that the AR is over, unless it said so itself.
    pub(super) fn close(&self, ended: Ended, out: &mut Outbox) {
        if let Ended::Aborted {
            side: Side::Device,
            status,
        } = ended
        {
            alarms::abort(out, &self.endpoint, status);
        }
    }
}

/// Factors of the standard that count 100 ms.
pub(super) const fn tenths(factor: u16) -> Duration {
    Duration::from_millis(factor as u64 * 100)
}
