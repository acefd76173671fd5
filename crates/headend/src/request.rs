//! What becomes of a client's request: sent on, or answered here, and put on record.

use std::rc::Rc;
use std::time::Instant;

use fieldlock_audit::{Kind, Outcome, Record};
use fieldlock_conduit::admit::{Permit, Refused};
use fieldlock_conduit::client::{By, Place, Target};
use fieldlock_conduit::fate::Fate;
use fieldlock_conduit::observe::Parties;
use fieldlock_modbus::{Exception, Request};

use super::channel::{Unsent, parties};
use super::client::ClientConn;
use super::devices::Device;
use super::{Headend, STOPS};
use fieldlock_agent::fates;
use fieldlock_agent::ledger::{denial, describe};

/// Who waits for the answer, in which place, and under which transaction id and unit.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) client: &'a Rc<ClientConn>,
    pub(crate) place: Place,
    pub(crate) transaction: u16,
    /// The unit that the client used.
    pub(crate) unit: u8,
}

impl Asked<'_> {
    fn answer(&self, exception: Exception, function: u8) {
        let pdu = exception.pdu(function);
        self.client.answer(self.place, &pdu, By::Agent);
    }
}

impl Headend {
    /// Sends a permitted request on, or answers it here.
    pub(super) fn forward(
        &self,
        now: Instant,
        asked: Asked<'_>,
        device: usize,
        permit: &Permit<'_>,
    ) {
        let Some(device) = self.devices.borrow().get(device).cloned() else {
            return;
        };
        let first = asked.client.first_of(self, now, asked, &device, permit);
        if let Some(first) = first {
            self.refuse_repeat(asked, &device, permit, first);
            return;
        }
        asked.client.goes_on();
        let channel = match self.runtime.vitals.is_stopping() {
            true => Err(STOPS),
            false => device.live.borrow().clone().ok_or("no tunnel"),
        };
        let channel = match channel {
            Ok(channel) => channel,
            Err(reason) => {
                device.counters.not_sent.add();
                let path = Exception::GatewayPathUnavailable;
                self.unsent(asked, &device, permit, path, reason);
                return;
            }
        };
        let reason = match channel.submit(now, asked, permit) {
            Ok(()) => {
                asked.client.sent(asked.place, &channel);
                device.counters.forwarded.add();
                return;
            }
            Err(Unsent::Busy) => "as many requests under way as the edge allows",
            Err(Unsent::Unknowns) => fates::UNKNOWNS,
            Err(Unsent::NoAudit) => fates::NO_AUDIT,
        };
        device.counters.busy.add();
        self.unsent(asked, &device, permit, Exception::ServerDeviceBusy, reason);
    }

    /// Tells of a request that does not cross to whoever looks on.
    fn observe_refused(
        &self,
        asked: Asked<'_>,
        device: Option<&Device>,
        request: Result<&Request<'_>, u8>,
        (unit, fate, exception): (u8, Fate, Exception),
    ) {
        let observer = &self.runtime.watcher.observer;
        if !observer.is_on() {
            return;
        }
        let who = match device {
            Some(device) => parties(asked.client, device, unit),
            None => Parties {
                client: asked.client.number.into(),
                device: u16::MAX,
                unit,
            },
        };
        observer.refused(Instant::now(), who, request, (fate, exception));
    }

    /// Answers a write that was permitted, and was sent before: nobody told the client what became of that.
    fn refuse_repeat(&self, asked: Asked<'_>, device: &Device, permit: &Permit<'_>, first: u64) {
        asked
            .client
            .put_back(permit, &mut self.runtime.meter.borrow_mut());
        let exception = Exception::GatewayTargetFailedToRespond;
        asked.answer(exception, permit.request().function().0);
        let end = (permit.unit(), Fate::RepeatRefused, exception);
        self.observe_refused(asked, Some(device), Ok(permit.request()), end);
        device.counters.repeats_refused.add();
        let unit = Some(permit.unit());
        let mut record = Record {
            rule: Some(asked.client.rule_name(permit.rule())),
            outcome: Some(Outcome::RepeatRefused),
            repeats: Some(first),
            ..refusal(asked, Some(device), unit, fates::REPEAT, exception)
        };
        describe(&mut record, permit.request(), permit.layout());
        self.runtime.ledger.repeated(record);
    }

    /// Answers a request that was permitted and did not leave.
    fn unsent(
        &self,
        asked: Asked<'_>,
        device: &Device,
        permit: &Permit<'_>,
        exception: Exception,
        reason: &'static str,
    ) {
        asked
            .client
            .put_back(permit, &mut self.runtime.meter.borrow_mut());
        asked.answer(exception, permit.request().function().0);
        let fate = match exception {
            Exception::GatewayPathUnavailable => Fate::NotSent,
            _ => Fate::Refused,
        };
        let end = (permit.unit(), fate, exception);
        self.observe_refused(asked, Some(device), Ok(permit.request()), end);
        let record = refusal(asked, Some(device), Some(permit.unit()), reason, exception);
        let mut record = if exception == Exception::GatewayPathUnavailable {
            Record {
                kind: Kind::Lost,
                decision: None,
                outcome: Some(Outcome::NotSent),
                ..record
            }
        } else {
            record
        };
        describe(&mut record, permit.request(), permit.layout());
        self.runtime.ledger.repeated(record);
    }

    /// Answers a request that does not cross.
    pub(super) fn refuse(&self, asked: Asked<'_>, target: Option<Target>, refused: &Refused<'_>) {
        asked.answer(refused.exception, refused.function);
        let device = target.and_then(|to| self.devices.borrow().get(to.device).cloned());
        match &device {
            Some(device) => device.counters.refused.add(),
            None => self.counters.no_route.add(),
        }
        let unit = target.map(|to| to.unit);
        let request = refused.request.as_ref().ok_or(refused.function);
        let end = (unit.unwrap_or(asked.unit), Fate::Refused, refused.exception);
        self.observe_refused(asked, device.as_deref(), request, end);
        let mut record = Record {
            function: Some(refused.function),
            rule: refused.rule.map(|rule| asked.client.rule_name(rule)),
            ..refusal(
                asked,
                device.as_deref(),
                unit,
                refused.why,
                refused.exception,
            )
        };
        if let Some(request) = &refused.request {
            describe(&mut record, request, refused.layout.as_ref());
        }
        self.runtime.ledger.repeated(record);
    }
}

fn refusal(
    asked: Asked<'_>,
    device: Option<&Device>,
    unit: Option<u8>,
    reason: impl std::fmt::Display,
    exception: Exception,
) -> Record {
    Record {
        device: device.map(|device| device.name.clone()),
        unit,
        client_unit: (unit != Some(asked.unit)).then_some(asked.unit),
        transaction: Some(asked.transaction),
        outcome: Some(Outcome::Refused),
        exception: Some(exception.code()),
        ..denial(Kind::Denied, &asked.client.party, reason)
    }
}
