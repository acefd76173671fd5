//! The edge's half of a device channel: one device, for all headends.
//!
//! [`Serving::request`] judges a request and lets it in. A write that it lets in is sent once its intent
//! is on the disk: the caller puts that on record and says [`Serving::hold`] with the number of the record, or
//! [`Serving::take_back`] if there can be none; [`Serving::handle_durable`] sends what has been written. Each
//! request that was let in and not taken back ends once, by [`Event::Ended`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Instant;

use fieldlock_modbus::rtu::BROADCAST;
use fieldlock_modbus::{Exception, Quirks, Range, Request};
use fieldlock_policy::{Stepped, View};
use foldhash::{HashMap, HashMapExt};

use crate::admit::{Count, Permit, Refused, admit};
use crate::device::{
    Borne, ClientKey, CloseReason, ConnId, DeviceSettings, DeviceSide, Event as Said, Fault, Key,
    Outcome, Pdu, QueueFull, Submit,
};
use crate::fate::Fate;
use crate::meter::{Meter, Who};
use crate::repeat::{self, Repeats};
use crate::step::{self, Mark, Registers};

/// One device; `A` is what the caller needs for the end of a request.
#[derive(Debug)]
pub struct Serving<A> {
    device: DeviceSide,
    quirks: Quirks,
    is_serial: bool,
    /// What rules with a step need to know; `None`: no such rule is for this device.
    registers: Option<Registers>,
    repeats: Repeats,
    under_way: HashMap<Key, UnderWay<A>>,
    /// Writes whose intent is not on the disk yet, by the number of its record, oldest first.
    held: VecDeque<(u64, Key)>,
    next_key: u64,
    /// Refused while they were held, not collected yet.
    refused: VecDeque<Ended<A>>,
}

#[derive(Debug)]
struct UnderWay<A> {
    asker: A,
    /// Whose request it is, as the headend states it.
    whose: Who,
    since: Instant,
    unit: u8,
    function: u8,
    read: Option<Range>,
    /// Of a write that is to be sent only once.
    repeat: Option<repeat::Ticket>,
    /// What the registers learn from its end.
    mark: Option<Mark>,
}

/// A request for the device, as it came out of a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The client's connection at the headend, with the headend process in the upper 32 bits.
    pub client: ClientKey,
    /// Whose it is, as the headend states it.
    pub whose: &'a Who,
    /// Whether the client may have answers to writes of which it is not known that they arrived. Kept for each client, false at
    /// first.
    pub has_written: &'a Cell<bool>,
    /// The headend's id.
    pub id: u64,
    /// When it is answered at the latest.
    pub deadline: Instant,
}

/// A request that was let in.
#[derive(Debug)]
pub enum Taken<'p> {
    /// A read.
    Read { permit: Permit<'p>, key: Key },
    /// To be put on record, then held.
    Write { permit: Permit<'p>, key: Key },
}

/// A request that was not.
#[derive(Debug)]
pub enum Shed<'p> {
    Refused(Refused<'p>),
    /// It repeats this write, by its id.
    Repeat {
        permit: Permit<'p>,
        first: u64,
    },
    /// Nobody answers a broadcast (Modbus over Serial Line, section 2.1).
    BroadcastRead {
        permit: Permit<'p>,
    },
    QueueFull {
        permit: Permit<'p>,
        full: QueueFull,
    },
    /// A write, and no more of them can be told from repeats.
    Unknowns {
        permit: Permit<'p>,
    },
}

/// What the shell has to act on; the first four are those of the [device](crate::device).
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are ends, and a box would be an allocation for each request"
)]
#[derive(Debug)]
pub enum Event<A> {
    Connect(ConnId),
    Close(ConnId, CloseReason),
    Seal(ConnId, CloseReason),
    Refused(Fault),
    Ended(Ended<A>),
}

/// The end of a request.
#[derive(Debug)]
pub struct Ended<A> {
    pub asker: A,
    pub fate: Fate,
    /// How it ended at the device; `None`: it was held, and its intent could not be put on record.
    pub outcome: Option<Outcome>,
    pub borne: Borne,
    pub since: Instant,
    pub unit: u8,
    pub function: u8,
    /// What it reads, where it has an address.
    pub read: Option<Range>,
    /// For the client.
    pub pdu: Pdu,
}

impl<A> Serving<A> {
    /// `seed` as for [`DeviceSide::new`].
    pub fn new(settings: DeviceSettings, seed: u64, repeats: Repeats, now: Instant) -> Self {
        Self {
            quirks: settings.quirks,
            is_serial: settings.is_serial(),
            device: DeviceSide::new(settings, seed, now),
            registers: None,
            repeats,
            under_way: HashMap::new(),
            held: VecDeque::new(),
            next_key: 0,
            refused: VecDeque::new(),
        }
    }

    /// Its connections, and what waits for them.
    pub fn device(&self) -> &DeviceSide {
        &self.device
    }

    pub fn device_mut(&mut self) -> &mut DeviceSide {
        &mut self.device
    }

    /// Requests without an answer.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Another policy is in force. The registers of its steps are learnt anew: until `quiet_at` writes may be
    /// under way that are not known of.
    pub fn follow_policy(&mut self, stepped: Stepped, quiet_at: Instant) {
        self.device.policy_changed();
        for under_way in self.under_way.values_mut() {
            under_way.mark = None;
        }
        self.registers = (!stepped.is_empty()).then(|| Registers::new(stepped, quiet_at));
    }

    /// It does not see any more all that reaches the device.
    pub fn forget_registers(&mut self) {
        self.registers = None;
    }

    /// Judges a request and lets it in, or gives the asker back. `meter` counts for `metered`.
    #[expect(
        clippy::result_large_err,
        reason = "what was asked goes back by value: a box would be an allocation for each refusal"
    )]
    pub fn request<'p>(
        &mut self,
        now: Instant,
        asker: A,
        asked: Asked<'_>,
        view: &View,
        (unit, pdu): (u8, &'p [u8]),
        (meter, metered): (&mut Meter, &Who),
    ) -> Result<Taken<'p>, (A, Shed<'p>)> {
        let count = Count {
            meter: &mut *meter,
            who: metered,
            registers: self.registers.as_ref(),
            now,
        };
        let permit = match admit(view, unit, pdu, self.quirks, count) {
            Ok(permit) => permit,
            Err(refused) => return Err((asker, Shed::Refused(refused))),
        };
        self.let_in(now, asker, asked, permit)
            .map_err(|(asker, shed)| {
                if let Some(permit) = shed.permit() {
                    permit.put_back(meter, metered);
                }
                (asker, shed)
            })
    }

    #[expect(clippy::result_large_err, reason = "as of `request`")]
    fn let_in<'p>(
        &mut self,
        now: Instant,
        asker: A,
        asked: Asked<'_>,
        permit: Permit<'p>,
    ) -> Result<Taken<'p>, (A, Shed<'p>)> {
        let written = repeat::Asked {
            who: asked.whose,
            connection: asked.client.0,
            transaction: 0,
            device: 0,
            unit: permit.unit(),
            request: permit.request(),
        };
        if permit.is_once()
            && let Some(first) = self.repeats.first(now, &written, |_| false)
        {
            return Err((asker, Shed::Repeat { permit, first }));
        }
        if asked.has_written.get() {
            let more = self.repeats.goes_on(asked.whose, asked.client.0);
            asked.has_written.set(more);
        }
        let request = permit.request();
        let is_write = request.changes_state();
        if self.is_serial && permit.unit() == BROADCAST && !is_write {
            return Err((asker, Shed::BroadcastRead { permit }));
        }
        let key = Key(self.next_key);
        self.next_key += 1;
        let repeat = if permit.is_once() {
            match self.repeats.begin(now, &written, asked.id) {
                Ok(ticket) => Some(ticket),
                Err(repeat::Full) => return Err((asker, Shed::Unknowns { permit })),
            }
        } else {
            None
        };
        let submit = Submit {
            key,
            client: asked.client,
            unit: permit.unit(),
            request,
            grounds: permit.grounds(),
            deadline: asked.deadline,
            held: is_write,
        };
        if let Err(full) = self.device.submit(now, submit) {
            if let Some(ticket) = repeat {
                let end = repeat::End::NotSent;
                self.repeats.ended(now, asked.whose, ticket, end);
            }
            return Err((asker, Shed::QueueFull { permit, full }));
        }
        if repeat.is_some() {
            asked.has_written.set(true);
        }
        let mark = self
            .registers
            .as_mut()
            .and_then(|r| r.submitted(now, permit.unit(), request, asked.deadline));
        let under_way = UnderWay {
            asker,
            whose: asked.whose.clone(),
            since: now,
            unit: permit.unit(),
            function: request.function().0,
            read: request.read(),
            repeat,
            mark,
        };
        self.under_way.insert(key, under_way);
        Ok(match is_write {
            true => Taken::Write { permit, key },
            false => Taken::Read { permit, key },
        })
    }

    /// What the caller keeps of a request that was let in.
    pub fn asker_mut(&mut self, key: Key) -> Option<&mut A> {
        self.under_way.get_mut(&key).map(|known| &mut known.asker)
    }

    /// The intent of a write is record number `ticket`.
    pub fn hold(&mut self, key: Key, ticket: u64) {
        self.held.push_back((ticket, key));
    }

    /// The intent of a write can't be put on record: it is not sent, and there is no further word of it.
    pub fn take_back(&mut self, now: Instant, key: Key) -> Option<A> {
        // It may have its end already, of which nobody hears.
        self.device.refuse(key);
        let under_way = self.under_way.remove(&key)?;
        self.learn(now, &under_way, Fate::Refused, false, &[]);
        Some(under_way.asker)
    }

    /// All records up to number `ticket` are on the disk; unless it is `writable` no other will be.
    pub fn handle_durable(&mut self, now: Instant, ticket: u64, writable: bool) {
        let may_go = |held: &mut (u64, Key)| held.0 <= ticket || !writable;
        while let Some((number, key)) = self.held.pop_front_if(may_go) {
            if number <= ticket {
                self.device.release(now, key);
            } else if self.device.refuse(key)
                && let Some(under_way) = self.under_way.remove(&key)
            {
                let pdu = Pdu::exception(Exception::ServerDeviceBusy, under_way.function);
                self.learn(now, &under_way, Fate::Refused, false, &pdu);
                let ended = under_way.ended(Fate::Refused, None, Borne::default(), pdu);
                self.refused.push_back(ended);
            }
        }
    }

    pub fn poll_event(&mut self, now: Instant) -> Option<Event<A>> {
        if let Some(refused) = self.refused.pop_front() {
            return Some(Event::Ended(refused));
        }
        loop {
            let (key, outcome, shared, borne, pdu) = match self.device.poll_event()? {
                Said::Connect(conn) => return Some(Event::Connect(conn)),
                Said::Close(conn, reason) => return Some(Event::Close(conn, reason)),
                Said::Seal(conn, reason) => return Some(Event::Seal(conn, reason)),
                Said::Refused(fault) => return Some(Event::Refused(fault)),
                Said::Answer {
                    key,
                    outcome,
                    shared,
                    borne,
                    pdu,
                    ..
                } => (key, outcome, shared, borne, pdu),
            };
            // Otherwise it was taken back.
            let Some(under_way) = self.under_way.remove(&key) else {
                continue;
            };
            let fate = fate(outcome, shared, &pdu);
            self.learn(now, &under_way, fate, borne.is_foreign(), &pdu);
            let ended = under_way.ended(fate, Some(outcome), borne, pdu);
            return Some(Event::Ended(ended));
        }
    }

    /// What an end teaches of registers, and of what the client knows of its writes.
    fn learn(
        &mut self,
        now: Instant,
        under_way: &UnderWay<A>,
        fate: Fate,
        is_foreign: bool,
        pdu: &[u8],
    ) {
        if let (Some(mark), Some(registers)) = (under_way.mark, &mut self.registers) {
            let end = match fate {
                // Not a word of what the registers hold, or of fewer than they are.
                Fate::Answered | Fate::Shared if is_foreign => step::End::Lost,
                Fate::Answered | Fate::Shared => step::End::Answered(pdu),
                Fate::Exception | Fate::NotSent | Fate::Refused | Fate::RepeatRefused => {
                    step::End::Refused
                }
                Fate::Sent | Fate::Unknown => step::End::Lost,
            };
            registers.ended(now, mark, end);
        }
        let whose = &under_way.whose;
        if let Some(ticket) = under_way.repeat {
            self.repeats.ended(now, whose, ticket, fate.known(pdu));
        } else if let (Fate::Answered | Fate::Shared, Some(range), false) =
            (fate, &under_way.read, is_foreign)
            && !self.repeats.is_empty()
        {
            let (unit, since) = (under_way.unit, under_way.since);
            self.repeats.read(whose, 0, unit, range, since);
        }
    }
}

impl<A> UnderWay<A> {
    fn ended(self, fate: Fate, outcome: Option<Outcome>, borne: Borne, pdu: Pdu) -> Ended<A> {
        Ended {
            asker: self.asker,
            fate,
            outcome,
            borne,
            since: self.since,
            unit: self.unit,
            function: self.function,
            read: self.read,
            pdu,
        }
    }
}

impl<'p> Shed<'p> {
    /// Of a request that the policy permits.
    pub fn permit(&self) -> Option<&Permit<'p>> {
        match self {
            Self::Refused(_) => None,
            Self::Repeat { permit, .. }
            | Self::BroadcastRead { permit }
            | Self::QueueFull { permit, .. }
            | Self::Unknowns { permit } => Some(permit),
        }
    }

    /// What was asked; its function alone, where the rest could not be parsed.
    pub fn asked(&self) -> Result<&Request<'p>, u8> {
        match self {
            Self::Refused(refused) => refused.request.as_ref().ok_or(refused.function),
            Self::Repeat { permit, .. }
            | Self::BroadcastRead { permit }
            | Self::QueueFull { permit, .. }
            | Self::Unknowns { permit } => Ok(permit.request()),
        }
    }

    pub fn fate(&self) -> Fate {
        match self {
            Self::Repeat { .. } => Fate::RepeatRefused,
            _ => Fate::Refused,
        }
    }

    pub fn exception(&self) -> Exception {
        match self {
            Self::Refused(refused) => refused.exception,
            Self::Repeat { .. } => Exception::GatewayTargetFailedToRespond,
            Self::BroadcastRead { .. } => Exception::IllegalFunction,
            Self::QueueFull { .. } | Self::Unknowns { .. } => Exception::ServerDeviceBusy,
        }
    }

    /// For the client.
    pub fn pdu(&self) -> [u8; 2] {
        let function = match self {
            Self::Refused(refused) => refused.function,
            _ => self.permit().map_or(0, |p| p.request().function().0),
        };
        self.exception().pdu(function)
    }
}

fn fate(outcome: Outcome, shared: bool, pdu: &[u8]) -> Fate {
    let is_exception = pdu.first().is_some_and(|function| function & 0x80 != 0);
    match outcome {
        Outcome::Answered if is_exception => Fate::Exception,
        Outcome::Answered if shared => Fate::Shared,
        Outcome::Answered => Fate::Answered,
        Outcome::Broadcast => Fate::Sent,
        Outcome::NotSent | Outcome::HeldOff | Outcome::Unreachable => Fate::NotSent,
        Outcome::Unknown(_) => Fate::Unknown,
    }
}

#[cfg(test)]
mod tests;
