//! The headend's half: one client's Modbus/TCP connection.

mod route;
#[cfg(test)]
mod tests;
mod turns;
mod under_way;

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_modbus::{Adu, Exception, FramingError, mbap};
use fieldlock_policy::{Client, Origin, Phase, Policy, Side, View};
use foldhash::quality::RandomState;

use crate::admit::{Count, Permit, Refused, Why, admit};
use crate::fate::is_no_answer;
use crate::meter::{Meter, Who};
pub use route::{Known, Routes, Target};
pub use turns::{By, Place};
use turns::{Lane, Turns};
pub use under_way::UnderWay;

/// Who asks again after less than this does not wait for one answer before the next question. The
/// shortest time-out that a client library is delivered with is 500 ms.
const PIPELINES_WITHIN: Duration = Duration::from_millis(200);

/// Who a client is, as far as the headend knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    pub address: Option<IpAddr>,
    /// What its certificate proves (MBAPS), if it showed one.
    pub identity: Option<String>,
    pub role: Option<String>,
}

impl Origins {
    /// Who uses up a rate: an identity is the same from wherever it connects.
    fn who(&self) -> Who {
        let address = self.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let identity = self.identity.as_deref();
        identity.map_or(Who::Address(address), |identity| {
            Who::Identity(identity.into())
        })
    }

    pub fn as_client(&self) -> Client<'_> {
        Client {
            address: self.address,
            identity: self.identity.as_deref(),
            role: self.role.as_deref(),
        }
    }
}

/// One ADU of a client, judged.
#[derive(Debug)]
pub struct Step<'a> {
    /// The client's own transaction id; its answer carries it.
    pub transaction: u16,
    /// The unit that the client used.
    pub unit: u8,
    pub verdict: Verdict<'a>,
}

#[derive(Debug)]
pub enum Verdict<'a> {
    /// To be sent to this device.
    Forward {
        place: Place,
        device: usize,
        permit: Permit<'a>,
    },
    /// To be answered with the exception at once.
    Refuse {
        place: Place,
        /// Where the unit leads, if anywhere.
        target: Option<Target>,
        refused: Refused<'a>,
    },
    /// It is under way already, with this transaction id: its answer is that of the first.
    Repeated,
}

/// Cuts a client's bytes into requests, judges each, and lets answers out.
///
/// Feed [`ClientSide::next`] what has arrived until it gives nothing; an error means that
/// the framing is lost and nothing more can be read. Each request that is forwarded or refused
/// gets one [`ClientSide::answer`], in any order and at any time.
///
/// # What holds
///
/// - Answers of one unit of one device leave in the order in which the client asked, whoever made
///   them; units do not wait for each other.
/// - A transaction id that is under way is no new request: the same octets are not sent again, other
///   octets are refused.
/// - 0x0B that an agent made is kept from a client that has given up waiting for it: one that had
///   asked nothing else, then asked the next, and never was seen to ask without waiting. It would
///   take it for the answer to what it asked next.
/// - What has no answer yet is bounded: [`ClientSide::next`] stops at twice the limit
///   ([`ClientSide::is_full`]).
#[derive(Debug)]
pub struct ClientSide {
    origin: Origins,
    who: Who,
    routes: Arc<Routes>,
    known: Known,
    policy: Arc<Policy>,
    phase: Phase,
    /// What this client may do, by device; looked up once per policy and phase.
    views: Vec<(usize, Arc<View>)>,
    turns: Turns,
    limit: usize,
    /// It asks without waiting for answers.
    pipelines: bool,
    /// Nobody takes answers any more.
    gone: bool,
    /// Tells requests under way apart, see [`ClientSide::tell_apart`]. Who finds two that it does not
    /// tell apart has kept a request of his own from being sent.
    hash: RandomState,
}

impl ClientSide {
    /// `phase` is one of the policy; `limit` is how many requests the client may have without an
    /// answer, 1 and up.
    pub fn new(
        origin: Origins,
        routes: Arc<Routes>,
        policy: Arc<Policy>,
        phase: Phase,
        limit: usize,
    ) -> Self {
        Self {
            who: origin.who(),
            origin,
            routes,
            known: Known::default(),
            policy,
            phase,
            views: Vec::new(),
            turns: Turns::default(),
            limit,
            pipelines: false,
            gone: false,
            hash: RandomState::default(),
        }
    }

    /// What is known of the devices, from now on.
    pub fn knowing(self, known: &Known) -> Self {
        let known = known.clone();
        Self { known, ..self }
    }

    /// Whose rates its requests use up, and whose writes they repeat.
    pub fn who(&self) -> &Who {
        &self.who
    }

    pub fn origin(&self) -> &Origins {
        &self.origin
    }

    /// A permitted request is not sent on after all.
    pub fn put_back(&self, permit: &Permit<'_>, meter: &mut Meter) {
        permit.put_back(meter, &self.who);
    }

    /// Judges by this policy, in this phase of it, from the next request on.
    pub fn set_policy(&mut self, policy: Arc<Policy>, phase: Phase) {
        self.policy = policy;
        self.phase = phase;
        self.views.clear();
    }

    /// Takes the first complete ADU of `input`, and says how many octets it took. `meter` is shared
    /// by all clients; `now` does not decrease.
    pub fn next<'a>(
        &mut self,
        input: &'a [u8],
        meter: &mut Meter,
        now: Instant,
    ) -> Result<Option<(Step<'a>, usize)>, FramingError> {
        if self.is_full() {
            return Ok(None);
        }
        let Some((adu, consumed)) = mbap::decode_request(input)? else {
            return Ok(None);
        };
        let step = Step {
            transaction: adu.transaction,
            unit: adu.unit,
            verdict: self.take(&adu, meter, now),
        };
        Ok(Some((step, consumed)))
    }

    fn take<'a>(&mut self, adu: &Adu<'a>, meter: &mut Meter, now: Instant) -> Verdict<'a> {
        let octets = self.tell_apart(adu);
        let mut used = None;
        for turn in self.turns.iter() {
            if turn.transaction == adu.transaction {
                if turn.octets == octets {
                    return Verdict::Repeated;
                }
                used = Some(turn.lane);
            }
        }
        self.note_impatience(now);
        let target = self.routes.target(adu.unit);
        let own = target.map_or(Lane::Unmapped(adu.unit), Lane::To);
        let judged = match used {
            // Behind the request that has the id, whatever its unit: its answer is not this one.
            Some(_) => Err(refused(adu.pdu, Exception::ServerDeviceBusy, Why::IdInUse)),
            None => self.judge(target, adu, meter, now),
        };
        let asked = (adu.transaction, adu.unit, adu.pdu);
        let place = self.turns.push(used.unwrap_or(own), asked, octets, now);
        match judged {
            Ok((device, permit)) => Verdict::Forward {
                place,
                device,
                permit,
            },
            Err(refused) => Verdict::Refuse {
                place,
                target,
                refused,
            },
        }
    }

    /// What tells a request from others under the same transaction id: its octets, with their number,
    /// where they fit, as those of reads do; else a hash of them.
    fn tell_apart(&self, adu: &Adu<'_>) -> u64 {
        let mut octets = [0; 8];
        match octets.get_mut(2..2 + adu.pdu.len()) {
            Some(own) => {
                own.copy_from_slice(adu.pdu);
                octets[0] = adu.pdu.len() as u8;
                octets[1] = adu.unit;
                u64::from_le_bytes(octets)
            }
            // No number of octets that fit.
            None => self.hash.hash_one((adu.unit, adu.pdu)) | 0xFF,
        }
    }

    /// Another request comes: what has no answer yet is either one of several that the client waits
    /// for, or it has given up waiting.
    fn note_impatience(&mut self, now: Instant) {
        if self.pipelines {
            return;
        }
        for turn in self.turns.iter_mut() {
            match now.saturating_duration_since(turn.since) < PIPELINES_WITHIN {
                true => self.pipelines = true,
                false => turn.given_up = true,
            }
        }
    }

    fn judge<'a>(
        &mut self,
        target: Option<Target>,
        adu: &Adu<'a>,
        meter: &mut Meter,
        now: Instant,
    ) -> Result<(usize, Permit<'a>), Refused<'a>> {
        let Some(target) = target else {
            let why = Why::NoRoute { unit: adu.unit };
            return Err(refused(adu.pdu, Exception::GatewayPathUnavailable, why));
        };
        let index = self.view(target.device);
        let count = Count {
            meter: &mut *meter,
            who: &self.who,
            registers: None,
            now,
        };
        let quirks = self.known.quirks(target.device);
        let permit = admit(&self.views[index].1, target.unit, adu.pdu, quirks, count)?;
        if self.in_flight() >= self.limit {
            self.put_back(&permit, meter);
            let why = Why::InFlight { limit: self.limit };
            return Err(refused(adu.pdu, Exception::ServerDeviceBusy, why));
        }
        Ok((target.device, permit))
    }

    /// The answer to the request at `place`: a PDU, or nothing where nobody answers. What leaves by
    /// that is appended to `out`, other answers that waited for this one included. Returns how many
    /// were kept from a client that has given up waiting for them.
    pub fn answer(&mut self, place: Place, pdu: &[u8], by: By, out: &mut Vec<u8>) -> usize {
        let (pipelines, gone) = (self.pipelines, self.gone);
        let mut kept = 0;
        self.turns.answer(place, pdu, by, |turn, pdu, by| {
            if gone || pdu.is_empty() {
                return;
            }
            if turn.given_up && !pipelines && by == By::Agent && is_no_answer(pdu) {
                kept += 1;
                return;
            }
            turn.encode(pdu, out);
        });
        kept
    }

    /// The connection is about to be closed from this side: whatever has no answer gets 0x0B, and
    /// nothing else comes of it.
    pub fn give_up(&mut self, out: &mut Vec<u8>) {
        let gone = self.gone;
        self.turns.end(|turn, answer| {
            let unknown = Exception::GatewayTargetFailedToRespond.pdu(turn.function);
            let pdu = answer.map_or(&unknown[..], |(pdu, _)| pdu);
            if !gone && !pdu.is_empty() {
                turn.encode(pdu, out);
            }
        });
    }

    /// The client takes no answers any more. What it has asked goes on.
    pub fn gone(&mut self) {
        self.gone = true;
    }

    /// Requests without an answer, those whose answer waits for an earlier one included.
    pub fn in_flight(&self) -> usize {
        self.turns.len()
    }

    /// The request at `place` was sent by this tunnel.
    pub fn sent(&mut self, place: Place, tunnel: u32) {
        if let Some(turn) = self.turns.get_mut(place) {
            turn.tunnel = Some(tunnel);
        }
    }

    /// Whether something is under way by another tunnel than the one that `serves` its device now, by
    /// number: one that was replaced. What the client asks next would overtake it on the newer one, and
    /// is to be left in the socket until it has its answer.
    pub fn is_held_back(&self, serves: impl Fn(usize) -> Option<u32>) -> bool {
        self.turns
            .iter()
            .any(|turn| turn.is_on_older_tunnel(&serves))
    }

    /// Nothing more is taken before something is answered.
    pub fn is_full(&self) -> bool {
        self.turns.len() >= 2 * self.limit
    }

    /// The place in the views of that of the device.
    fn view(&mut self, device: usize) -> usize {
        let known = self.views.iter().position(|(known, _)| *known == device);
        known.unwrap_or_else(|| {
            let origin = Origin {
                side: Side::Headend,
                via: None,
                client: self.origin.as_client(),
            };
            let name = self.routes.name(device);
            let view = self.policy.view(&origin, name, &self.phase);
            self.views.push((device, view));
            self.views.len() - 1
        })
    }
}

fn refused(pdu: &[u8], exception: Exception, why: Why) -> Refused<'_> {
    Refused {
        function: pdu.first().copied().unwrap_or(0),
        exception,
        why,
        rule: None,
        layout: None,
        request: None,
    }
}
