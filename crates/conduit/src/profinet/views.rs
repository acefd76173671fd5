//! What the policy says of each pair, looked up once.

use std::collections::HashMap;
use std::sync::Arc;

use fieldlock_policy::{
    Call, Controller as Asker, Now, Policy, Side, StationDecision, StationOrigin, StationView,
};
use fieldlock_profinet::{Mac, StationName};

use super::bridge::{Bridge, Role};
use super::drops::Drop;
use super::event::{Event, RecordPlace};
use super::outlet::{LinkId, Outlet};
use super::parties::Parties;

/// The views of all pairs that have talked: at most one for each station, controller and tunnel.
#[derive(Debug)]
pub(super) struct Views {
    policy: Arc<Policy>,
    now: Now,
    known: HashMap<(Mac, Option<LinkId>, usize), StationView>,
}

impl Views {
    pub(super) fn new(policy: Arc<Policy>, now: Now) -> Self {
        Self {
            policy,
            now,
            known: HashMap::new(),
        }
    }

    /// Other rules, another time, other tunnels, or a controller that named itself.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

impl Bridge {
    /// Other rules are in force, or another time window: what is open is judged by them.
    pub fn set_policy(
        &mut self,
        now: std::time::Instant,
        policy: Arc<Policy>,
        wall: Now,
        outlet: &mut dyn Outlet,
    ) {
        self.views = Views::new(policy, wall);
        let open: Vec<_> = self
            .table
            .iter()
            .map(|ar| (ar.id, ar.pair, ar.kind))
            .collect();
        for (id, pair, kind) in open {
            let Some(station) = self.parties.station_of(pair.device) else {
                continue;
            };
            let call = Call::Connect(kind);
            if self.judge(pair.controller, station, &call, outlet).is_err() {
                let why = fieldlock_profinet::ar::Ended::Withdrawn("the policy");
                let change = self.table.end(id, why);
                self.apply(now, change, outlet);
            }
        }
    }

    /// Whether the policy has anything for this pair: only then may the two talk at all.
    pub(super) fn may_talk(&mut self, station: usize, controller: Mac) -> bool {
        let link = self.link_to(station, controller);
        self.view(controller, link, station).any()
    }

    /// Whether the policy allows a call, without a record of a refusal.
    pub(super) fn allows(&mut self, controller: Mac, station: usize, call: &Call) -> bool {
        let link = self.link_to(station, controller);
        let now = self.views.now;
        self.view(controller, link, station)
            .judge(call, now)
            .allowed()
    }

    /// Judges a call, and puts a refusal on record; the name of the rule that allows it.
    pub(super) fn judge(
        &mut self,
        controller: Mac,
        station: usize,
        call: &Call,
        outlet: &mut dyn Outlet,
    ) -> Result<Option<Arc<str>>, Drop> {
        let link = self.link_to(station, controller);
        let now = self.views.now;
        let view = self.view(controller, link, station);
        let refusal = match view.judge(call, now) {
            StationDecision::Allow { rule, .. } => return Ok(view.rule_name(rule).cloned()),
            StationDecision::Refuse(refusal) => refusal,
        };
        let rule = refusal.rule.and_then(|rule| view.rule_name(rule).cloned());
        let said = refusal
            .rule
            .and_then(|rule| view.rule_reason(rule).cloned());
        outlet.event(Event::Refused {
            who: self.who(controller),
            station: self.parties.stations[station].name().clone(),
            service: call.service(),
            record: place_of(call),
            rule,
            reason: said.unwrap_or_else(|| refusal.reason.to_string().into()),
        });
        Err(Drop::Denied)
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

    fn link_to(&self, station: usize, controller: Mac) -> Option<LinkId> {
        match self.settings.role {
            // There the headend is not judged: it is this one.
            Role::Headend => None,
            Role::Edge => self.way(station, controller).map(|(link, _)| link),
        }
    }

    /// The view of a pair; at the edge through a tunnel.
    pub(super) fn view(&mut self, mac: Mac, link: Option<LinkId>, station: usize) -> &StationView {
        let Self {
            views,
            parties,
            settings,
            ..
        } = self;
        let Views { policy, known, .. } = views;
        known
            .entry((mac, link, station))
            .or_insert_with(|| build(policy, parties, settings.role, mac, link, station))
    }
}

fn build(
    policy: &Policy,
    parties: &Parties,
    role: Role,
    mac: Mac,
    link: Option<LinkId>,
    station: usize,
) -> StationView {
    let named = parties
        .controller_of(mac)
        .map(|index| &parties.controllers[index]);
    let peer = link
        .and_then(|link| parties.link(link))
        .map(|link| &*link.peer);
    let origin = StationOrigin {
        side: match role {
            Role::Headend => Side::Headend,
            Role::Edge => Side::Edge,
        },
        via: peer,
        controller: Asker {
            mac,
            station: named.and_then(|controller| controller.station.as_ref()),
        },
    };
    policy.station_view(&origin, parties.stations[station].name())
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
