//! What the policy says of each pair, looked up once.

use std::collections::HashMap;
use std::sync::Arc;

use fieldlock_policy::{
    Call, Controller as Asker, Now, Policy, Side, StationDecision, StationOrigin, StationView,
};
use fieldlock_profinet::ar::Ar;
use fieldlock_profinet::{ArType, Mac, Service, StationName};

use super::bridge::{Bridge, Role};
use super::drops::DropReason;
use super::event::{Event, RecordPlace};

/// The views of all pairs that have talked: at most one for each station and known controller.
#[derive(Debug)]
pub(super) struct Views {
    policy: Arc<Policy>,
    now: Now,
    known: HashMap<(Mac, usize), StationView>,
}

impl Views {
    pub(super) fn new(policy: Arc<Policy>, now: Now) -> Self {
        Self {
            policy,
            now,
            known: HashMap::new(),
        }
    }

    /// Other rules, another time, or a controller that named itself or is reached otherwise.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

impl Bridge {
    /// Other rules are in force, or another time window: what is open is judged by them.
    pub fn set_policy(&mut self, now: std::time::Instant, policy: Arc<Policy>, wall: Now) {
        self.views = Views::new(policy, wall);
        let opened = |ar: &Ar| {
            (
                ar.id,
                ar.pair,
                opens(ar.kind, !ar.crs.is_empty(), ar.alarms.is_some()),
            )
        };
        let open: Vec<_> = self.table.iter().map(opened).collect();
        for (id, pair, mut calls) in open {
            let Some(station) = self.parties.station_of(pair.device) else {
                continue;
            };
            if calls.any(|call| self.judge(pair.controller, station, &call).is_err()) {
                let why = fieldlock_profinet::ar::Ended::Withdrawn("the policy");
                let change = self.table.end(now, id, why);
                self.apply(now, change);
            }
        }
    }

    /// Whether the policy has anything for this pair: only then may the two talk at all.
    pub(super) fn may_talk(&mut self, station: usize, controller: Mac) -> bool {
        self.view(controller, station).any()
    }

    /// Whether the policy has anything for a controller that a headend speaks for, who is not known
    /// yet.
    pub(super) fn may_enter(&self, controller: Mac, peer: &str, station: usize) -> bool {
        self.build_view(controller, Some(peer), station).any()
    }

    /// Whether the policy allows a call, without a record of a refusal.
    pub(super) fn allows(&mut self, controller: Mac, station: usize, call: &Call) -> bool {
        let now = self.views.now;
        self.view(controller, station).judge(call, now).allowed()
    }

    /// Judges a call, and puts a refusal on record; the name of the rule that allows it.
    pub(super) fn judge(
        &mut self,
        controller: Mac,
        station: usize,
        call: &Call,
    ) -> Result<Option<Arc<str>>, DropReason> {
        let now = self.views.now;
        let view = self.view(controller, station);
        let refusal = match view.judge(call, now) {
            StationDecision::Allow { rule, .. } => return Ok(view.rule_name(rule).cloned()),
            StationDecision::Refuse(refusal) => refusal,
        };
        let rule = refusal.rule.and_then(|rule| view.rule_name(rule).cloned());
        let said = refusal
            .rule
            .and_then(|rule| view.rule_reason(rule).cloned());
        self.output.event(Event::Refused {
            who: self.who(controller),
            station: self.parties.stations[station].name().clone(),
            service: call.service(),
            record: place_of(call),
            rule,
            reason: said.unwrap_or_else(|| refusal.reason.to_string().into()),
        });
        Err(DropReason::Denied)
    }

    /// A controller names itself in its Connect.
    pub(super) fn controller_named(&mut self, mac: Mac, name: Option<StationName>) {
        let Some(index) = self.parties.controller_of(mac) else {
            return;
        };
        let controller = &mut self.parties.controllers[index];
        if controller.station != name {
            controller.station = name;
            self.views.forget();
        }
    }

    /// The view of a pair; at the edge through the headend that speaks for the controller.
    fn view(&mut self, mac: Mac, station: usize) -> &StationView {
        let key = (mac, station);
        if !self.views.known.contains_key(&key) {
            let index = self.parties.controller_of(mac);
            let peer = index.and_then(|index| self.parties.controllers[index].peer.as_deref());
            let view = self.build_view(mac, peer, station);
            self.views.known.insert(key, view);
        }
        &self.views.known[&key]
    }

    fn build_view(&self, mac: Mac, peer: Option<&str>, station: usize) -> StationView {
        let index = self.parties.controller_of(mac);
        let known = index.map(|index| &self.parties.controllers[index]);
        let (side, via) = match self.settings.role {
            // There the headend is not judged: it is this one.
            Role::Headend => (Side::Headend, None),
            Role::Edge => (Side::Edge, peer),
        };
        let origin = StationOrigin {
            side,
            via,
            controller: Asker {
                mac,
                station: known.and_then(|controller| controller.station.as_ref()),
            },
        };
        let name = self.parties.stations[station].name();
        self.views.policy.station_view(&origin, name)
    }
}

/// What an AR needs to be allowed: one whose data is refused would come up, and be lost a watchdog
/// later.
pub(super) fn opens(kind: ArType, data: bool, alarms: bool) -> impl Iterator<Item = Call> {
    let data = data.then_some(Call::Service(Service::Cyclic));
    let alarms = alarms.then_some(Call::Service(Service::Alarm));
    [Some(Call::Connect(kind)), data, alarms]
        .into_iter()
        .flatten()
}

fn place_of(call: &Call) -> Option<RecordPlace> {
    match *call {
        Call::Read {
            index,
            slot,
            subslot,
        }
        | Call::Write {
            index,
            slot,
            subslot,
        } => Some(RecordPlace {
            index,
            slot,
            subslot,
        }),
        Call::Service(_) | Call::Connect(_) => None,
    }
}
