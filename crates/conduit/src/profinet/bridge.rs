//! The bridge between a wire and the tunnels.

use std::sync::Arc;
use std::time::Instant;

use fieldlock_policy::{Now, Policy};
use fieldlock_profinet::ar::{Ar, End, Ended, Table};
use fieldlock_profinet::calls::Calls;
use fieldlock_profinet::{Frame, Mac, StationName};

use super::drops::{DropReason, Drops};
use super::event::Event;
use super::flows::Flows;
use super::output::{LinkId, Output, OutputQueue};
use super::parties::{Controller, Link, Parties, Station, StationSettings};
use super::pending::PendingQueries;
use super::views::Views;

/// Which end of the tunnel a bridge is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// On the controllers' wire.
    Headend,
    /// On the devices' wire.
    Edge,
}

impl Role {
    /// Whose wire it is.
    pub fn end(self) -> End {
        match self {
            Self::Headend => End::Controller,
            Self::Edge => End::Device,
        }
    }
}

/// What becomes of a frame's 802.1Q tag on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tagging {
    /// As it came.
    #[default]
    Keep,
    /// Real-time frames that came without get a priority tag.
    Priority,
}

/// Settings of a bridge beside its stations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeSettings {
    pub role: Role,
    pub tagging: Tagging,
    /// ARs at a time.
    pub max_ars: usize,
    /// Makes the numbers that tell a sender that begins anew from one that goes on.
    pub seed: u64,
}

/// Where a frame came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ingress {
    Wire,
    Tunnel { link: LinkId, station: usize },
}

/// Joins one wire with the tunnels, for the stations that are paired and nothing else.
///
/// Input: [`Bridge::handle_wire`] for what was heard, [`Bridge::handle_station`] and
/// [`Bridge::handle_datagram`] for what a tunnel brought, [`Bridge::link_up`] and
/// [`Bridge::link_down`], [`Bridge::handle_timeout`] at the instant of [`Bridge::poll_timeout`].
/// [`Bridge::set_writable`], [`Bridge::set_max_datagram`] and [`Bridge::set_round_trip`] say how the
/// log and the tunnels are; what has not been told is taken for the worse. Output: drain
/// [`Bridge::poll_output`] after each input, and tell [`Bridge::handle_not_taken`] of what a tunnel
/// refused. `now` never decreases.
///
/// A frame never goes back to where it came from, and none is carried whose source is a station of
/// the other side: there can be no loop.
#[derive(Debug)]
pub struct Bridge {
    pub(super) settings: BridgeSettings,
    pub(super) parties: Parties,
    pub(super) views: Views,
    pub(super) asked: PendingQueries,
    pub(super) calls: Calls,
    pub(super) table: Table,
    pub(super) flows: Flows,
    pub(super) drops: Drops,
    /// Any instant before all others.
    pub(super) epoch: Instant,
    pub(super) output: OutputQueue,
    /// The audit log can be written, so that a change of a station may pass.
    pub(super) writable: bool,
}

impl Bridge {
    /// `controllers`: at the headend who is on its wire, with names; at the edge none.
    pub fn new(
        now: Instant,
        settings: BridgeSettings,
        (policy, wall): (Arc<Policy>, Now),
        stations: Vec<StationSettings>,
        controllers: Vec<(Arc<str>, Mac)>,
    ) -> Self {
        let controllers = controllers.into_iter().map(|(name, mac)| Controller {
            name: Some(name),
            mac,
            station: None,
            ip: None,
            peer: None,
            seen: None,
        });
        Self {
            table: Table::new(settings.max_ars),
            settings,
            parties: Parties {
                stations: stations.into_iter().map(Station::new).collect(),
                controllers: controllers.collect(),
                links: Vec::new(),
            },
            views: Views::new(policy, wall),
            asked: PendingQueries::default(),
            calls: Calls::default(),
            flows: Flows::default(),
            drops: Drops::default(),
            epoch: now,
            output: OutputQueue::default(),
            writable: false,
        }
    }

    /// Listens for what is sent to all stations, and for those whose address is configured.
    pub fn start(&mut self) {
        match self.settings.role {
            Role::Headend => {
                self.output.join(Mac::DCP_IDENTIFY);
                for mac in self
                    .parties
                    .stations
                    .iter()
                    .filter_map(|station| station.mac)
                {
                    self.output.join(mac);
                }
            }
            Role::Edge => self.output.join(Mac::DCP_HELLO),
        }
    }

    /// Other stations or controllers are configured. What stays the same goes on.
    pub fn set_parties(
        &mut self,
        now: Instant,
        stations: Vec<StationSettings>,
        controllers: &[(Arc<str>, Mac)],
    ) {
        let headend = self.settings.role == Role::Headend;
        let configured = stations.iter().filter_map(|station| station.mac);
        let configured: Vec<Mac> = configured.chain(controllers.iter().map(|c| c.1)).collect();
        let changed = |old: &&Station| {
            let same = |new: &StationSettings| *new == old.settings;
            !stations.iter().any(same) || is_taken(old, &configured)
        };
        let affected = self.parties.stations.iter().filter(changed);
        let affected: Vec<Mac> = affected.filter_map(|station| station.mac).collect();
        let gone = |ar: &Ar| {
            // At the edge a controller may not have the address of a station.
            let orphan = configured.contains(&ar.pair.controller) != headend;
            (orphan || affected.contains(&ar.pair.device)).then_some(ar.id)
        };
        let gone: Vec<_> = self.table.iter().filter_map(gone).collect();
        for id in gone {
            let change = self
                .table
                .end(now, id, Ended::Withdrawn("the configuration"));
            self.apply(now, change);
        }
        self.replace_stations(stations, &configured);
        if headend {
            let old = std::mem::take(&mut self.parties.controllers);
            let new = controllers.iter().map(|(name, mac)| {
                let known = old.iter().find(|known| known.mac == *mac);
                Controller {
                    name: Some(name.clone()),
                    mac: *mac,
                    station: known.and_then(|known| known.station.clone()),
                    ip: known.and_then(|known| known.ip),
                    peer: None,
                    seen: known.and_then(|known| known.seen),
                }
            });
            self.parties.controllers = new.collect();
        } else {
            self.forget_controllers(|known, _| configured.contains(&known.mac));
        }
        self.asked.clear();
        self.views.forget();
        let parties = &self.parties;
        self.calls.forget(|pair| {
            let known = parties.controller_of(pair.controller).is_some();
            !known || parties.station_of(pair.device).is_none()
        });
        self.rebuild_flows(now);
    }

    fn replace_stations(&mut self, stations: Vec<StationSettings>, configured: &[Mac]) {
        let mut old = std::mem::take(&mut self.parties.stations);
        let headend = self.settings.role == Role::Headend;
        let new = stations.into_iter().map(|settings| {
            let known = old.iter().position(|old| *old.name() == settings.name);
            match known.map(|known| old.swap_remove(known)) {
                // Another address is configured: what was known of it counts no more.
                Some(known) if keeps(&known, &settings, configured) => {
                    Station { settings, ..known }
                }
                known => {
                    old.extend(known);
                    Station::new(settings)
                }
            }
        });
        self.parties.stations = new.collect();
        for station in old.iter().filter(|station| station.nameless.is_some()) {
            let station = station.name().clone();
            self.output.event(Event::Named { station });
        }
        self.parties.number_channels();
        if headend {
            for mac in old.iter().filter_map(|station| station.mac) {
                self.output.leave(mac);
            }
            for mac in self
                .parties
                .stations
                .iter()
                .filter_map(|station| station.mac)
            {
                self.output.join(mac);
            }
        }
    }

    /// A tunnel is up that serves `channels`: the number of each with the station's name. It takes
    /// datagrams of `max_datagram` octets. What it shares with an older tunnel goes its way from here
    /// on.
    pub fn link_up(
        &mut self,
        now: Instant,
        id: LinkId,
        peer: Arc<str>,
        channels: &[(u16, StationName)],
        max_datagram: usize,
    ) {
        self.parties.links.push(Link {
            id,
            peer,
            offered: channels.to_vec(),
            channels: Vec::new(),
            round_trip: None,
            max_datagram,
        });
        self.parties.number_channels();
        self.rebuild_flows(now);
    }

    /// A tunnel is gone. Its agent's older or newer one goes on with what it carried; without one
    /// nothing is held any more.
    pub fn link_down(&mut self, now: Instant, id: LinkId) {
        self.parties.links.retain(|link| link.id != id);
        if self.settings.role == Role::Edge {
            // They are heard of again when there is a tunnel, or not at all.
            let links = &self.parties.links;
            let alive: Vec<_> = links.iter().map(|link| link.peer.clone()).collect();
            let gone = |known: &Controller, busy: bool| {
                let up = known.peer.as_ref().is_some_and(|peer| alive.contains(peer));
                !up && !busy
            };
            self.forget_controllers(gone);
        }
        self.rebuild_flows(now);
    }

    /// Forgets the controllers that are `gone`, which is told whether they have an AR.
    pub(super) fn forget_controllers(&mut self, gone: impl Fn(&Controller, bool) -> bool) {
        let table = &self.table;
        let busy = |mac| table.iter().any(|ar| ar.pair.controller == mac);
        let known = &mut self.parties.controllers;
        let forgotten = known.extract_if(.., |known| gone(known, busy(known.mac)));
        let forgotten: Vec<Mac> = forgotten.map(|controller| controller.mac).collect();
        if forgotten.is_empty() {
            return;
        }
        for mac in &forgotten {
            self.output.leave(*mac);
        }
        self.calls
            .forget(|pair| forgotten.contains(&pair.controller));
        self.views.forget();
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        self.output.poll()
    }

    /// The tunnel did not take what was polled last.
    pub fn handle_not_taken(&mut self) {
        if self.output.not_taken() {
            self.drops.add(DropReason::TunnelFull);
        }
    }

    /// Whether the record of a change of a station can be kept: else none passes.
    pub fn set_writable(&mut self, writable: bool) {
        self.writable = writable;
    }

    /// The longest datagram that a tunnel takes at present, in octets; 0 where there is no way for
    /// datagrams.
    pub fn set_max_datagram(&mut self, link: LinkId, max_datagram: usize) {
        self.parties.set_max_datagram(link, max_datagram);
    }

    /// A frame was heard on the own wire.
    pub fn handle_wire(&mut self, now: Instant, bytes: &[u8]) {
        let end = self.settings.role.end();
        let result = Frame::parse(bytes)
            .map_err(|_| DropReason::Malformed)
            .and_then(|frame| self.dispatch(now, end, Ingress::Wire, &frame, bytes));
        if let Err(drop) = result {
            self.drops.add(drop);
        }
    }

    /// A frame came on a station's channel.
    pub fn handle_station(&mut self, now: Instant, link: LinkId, channel: u16, bytes: &[u8]) {
        let end = self.settings.role.end().other();
        let station = self
            .parties
            .link(link)
            .and_then(|link| link.station(channel));
        let result = station.ok_or(DropReason::NotPaired).and_then(|station| {
            self.check_speaker(link, station)?;
            let frame = Frame::parse(bytes).map_err(|_| DropReason::Malformed)?;
            let ingress = Ingress::Tunnel { link, station };
            self.dispatch(now, end, ingress, &frame, bytes)
        });
        if let Err(drop) = result {
            self.drops.add(drop);
        }
    }

    /// At the headend the agent with the newest tunnel for a station speaks for it, and no other.
    fn check_speaker(&self, link: LinkId, station: usize) -> Result<(), DropReason> {
        let newest = self.parties.link_of_station(station, None);
        let speaks = newest.is_some_and(|newest| self.parties.same_peer(newest.id, link));
        match self.settings.role == Role::Edge || speaks {
            true => Ok(()),
            false => Err(DropReason::ForeignSource),
        }
    }

    /// Counts of frames that did not cross.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    pub fn parties(&self) -> &Parties {
        &self.parties
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Sends a frame on, to the other side of where it came from.
    pub(super) fn forward(
        &mut self,
        ingress: Ingress,
        pair: (usize, Mac),
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let (station, controller) = pair;
        match ingress {
            Ingress::Tunnel { .. } => {
                self.output.wire(bytes);
                Ok(())
            }
            Ingress::Wire => {
                let way = self.way(station, controller).ok_or(DropReason::NoTunnel)?;
                self.output.station(way, bytes);
                Ok(())
            }
        }
    }

    /// The tunnel on which the other end of a pair is reached, and the station's channel in it.
    pub(super) fn way(&self, station: usize, controller: Mac) -> Option<(LinkId, u16)> {
        let peer = match self.settings.role {
            Role::Headend => None,
            Role::Edge => {
                let index = self.parties.controller_of(controller)?;
                Some(self.parties.controllers[index].peer.as_deref()?)
            }
        };
        let link = self.parties.link_of_station(station, peer)?;
        Some((link.id, link.channel(station)?))
    }
}

/// Whether the address that a station was found under is now configured for somebody else.
fn is_taken(station: &Station, configured: &[Mac]) -> bool {
    let found = station.mac.filter(|_| station.settings.mac.is_none());
    found.is_some_and(|mac| configured.contains(&mac))
}

/// Whether a station that is configured anew may still have the address it has.
fn keeps(station: &Station, settings: &StationSettings, configured: &[Mac]) -> bool {
    match (settings.mac, station.mac) {
        (None, found) => found.is_none_or(|found| !configured.contains(&found)),
        (only, found) => only == found,
    }
}
