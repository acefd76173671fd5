//! The bridge between a wire and the tunnels.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_policy::{Now, Policy};
use fieldlock_profinet::ar::{Ar, End, Ended, Pair, Table};
use fieldlock_profinet::calls::Calls;
use fieldlock_profinet::{Frame, Mac, StationName};

use super::asked::Asked;
use super::carry::Came;
use super::drops::{Drop, Drops};
use super::event::Event;
use super::flows::Flows;
use super::outlet::{LinkId, Outlet, Who};
use super::parties::{
    Controller, Link, MAX_CONTROLLERS, MAX_CONTROLLERS_OF_PEER, Parties, Station, StationSettings,
};
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

/// Another station may answer to a name when the one before has been silent for this long.
const SETTLED: Duration = Duration::from_secs(3);
/// Who has been silent for this long, and has no AR, makes room for others.
const SILENT: Duration = Duration::from_secs(60);

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
/// Output goes to the [`Outlet`] of the call. `now` never decreases.
///
/// A frame never goes back to where it came from, and none is carried whose source is a station of
/// the other side: there can be no loop.
#[derive(Debug)]
pub struct Bridge {
    pub(super) settings: BridgeSettings,
    pub(super) parties: Parties,
    pub(super) views: Views,
    pub(super) asked: Asked,
    pub(super) calls: Calls,
    pub(super) table: Table,
    pub(super) flows: Flows,
    pub(super) drops: Drops,
    /// Any instant before all others.
    pub(super) epoch: Instant,
    /// A frame that is being made.
    pub(super) scratch: Vec<u8>,
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
            asked: Asked::default(),
            calls: Calls::default(),
            flows: Flows::default(),
            drops: Drops::default(),
            epoch: now,
            scratch: Vec::with_capacity(2048),
        }
    }

    /// Listens for what is sent to all stations, and for those whose address is configured.
    pub fn start(&self, outlet: &mut dyn Outlet) {
        match self.settings.role {
            Role::Headend => {
                outlet.join(Mac::DCP_IDENTIFY);
                for mac in self
                    .parties
                    .stations
                    .iter()
                    .filter_map(|station| station.mac)
                {
                    outlet.join(mac);
                }
            }
            Role::Edge => outlet.join(Mac::DCP_HELLO),
        }
    }

    /// Other stations or controllers are configured. What stays the same goes on.
    pub fn set_parties(
        &mut self,
        now: Instant,
        stations: Vec<StationSettings>,
        controllers: &[(Arc<str>, Mac)],
        outlet: &mut dyn Outlet,
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
            let change = self.table.end(id, Ended::Withdrawn("the configuration"));
            self.apply(now, change, outlet);
        }
        self.replace_stations(stations, &configured, outlet);
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
            self.forget_controllers(|known, _| configured.contains(&known.mac), outlet);
        }
        self.asked.clear();
        self.views.forget();
        let parties = &self.parties;
        self.calls.forget(|pair| {
            let known = parties.controller_of(pair.controller).is_some();
            !known || parties.station_of(pair.device).is_none()
        });
        self.rebuild_flows(now, outlet);
    }

    fn replace_stations(
        &mut self,
        stations: Vec<StationSettings>,
        configured: &[Mac],
        outlet: &mut dyn Outlet,
    ) {
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
        self.parties.number_channels();
        if headend {
            for mac in old.iter().filter_map(|station| station.mac) {
                outlet.leave(mac);
            }
            for mac in self
                .parties
                .stations
                .iter()
                .filter_map(|station| station.mac)
            {
                outlet.join(mac);
            }
        }
    }

    /// A tunnel is up that serves `channels`: the number of each with the station's name. What it
    /// shares with an older tunnel goes its way from here on.
    pub fn link_up(
        &mut self,
        now: Instant,
        id: LinkId,
        peer: Arc<str>,
        channels: &[(u16, StationName)],
        outlet: &mut dyn Outlet,
    ) {
        self.parties.links.push(Link {
            id,
            peer,
            offered: channels.to_vec(),
            channels: Vec::new(),
        });
        self.parties.number_channels();
        self.rebuild_flows(now, outlet);
    }

    /// A tunnel is gone. Its agent's older or newer one goes on with what it carried; without one
    /// nothing is held any more.
    pub fn link_down(&mut self, now: Instant, id: LinkId, outlet: &mut dyn Outlet) {
        self.parties.links.retain(|link| link.id != id);
        if self.settings.role == Role::Edge {
            // They are heard of again when there is a tunnel, or not at all.
            let links = &self.parties.links;
            let alive: Vec<_> = links.iter().map(|link| link.peer.clone()).collect();
            let gone = |known: &Controller, busy: bool| {
                let up = known.peer.as_ref().is_some_and(|peer| alive.contains(peer));
                !up && !busy
            };
            self.forget_controllers(gone, outlet);
        }
        self.rebuild_flows(now, outlet);
    }

    /// Forgets the controllers that are `gone`, which is told whether they have an AR.
    fn forget_controllers(
        &mut self,
        gone: impl Fn(&Controller, bool) -> bool,
        outlet: &mut dyn Outlet,
    ) {
        let table = &self.table;
        let busy = |mac| table.iter().any(|ar| ar.pair.controller == mac);
        let known = &mut self.parties.controllers;
        let forgotten = known.extract_if(.., |known| gone(known, busy(known.mac)));
        let forgotten: Vec<Mac> = forgotten.map(|controller| controller.mac).collect();
        if forgotten.is_empty() {
            return;
        }
        for mac in &forgotten {
            outlet.leave(*mac);
        }
        self.calls
            .forget(|pair| forgotten.contains(&pair.controller));
        self.views.forget();
    }

    /// A frame was heard on the own wire.
    pub fn handle_wire(&mut self, now: Instant, bytes: &[u8], outlet: &mut dyn Outlet) {
        let end = self.settings.role.end();
        let result = Frame::parse(bytes)
            .map_err(|_| Drop::Malformed)
            .and_then(|frame| self.carry(now, end, Ingress::Wire, &frame, bytes, outlet));
        if let Err(drop) = result {
            self.drops.add(drop);
        }
    }

    /// A frame came on a station's channel.
    pub fn handle_station(
        &mut self,
        now: Instant,
        link: LinkId,
        channel: u16,
        bytes: &[u8],
        outlet: &mut dyn Outlet,
    ) {
        let end = self.settings.role.end().other();
        let station = self
            .parties
            .link(link)
            .and_then(|link| link.station(channel));
        let result = station.ok_or(Drop::NotPaired).and_then(|station| {
            self.check_speaker(link, station)?;
            let frame = Frame::parse(bytes).map_err(|_| Drop::Malformed)?;
            let ingress = Ingress::Tunnel { link, station };
            self.carry(now, end, ingress, &frame, bytes, outlet)
        });
        if let Err(drop) = result {
            self.drops.add(drop);
        }
    }

    /// At the headend the agent with the newest tunnel for a station speaks for it, and no other.
    fn check_speaker(&self, link: LinkId, station: usize) -> Result<(), Drop> {
        let newest = self.parties.link_of_station(station, None);
        let speaks = newest.is_some_and(|newest| self.parties.same_peer(newest.id, link));
        match self.settings.role == Role::Edge || speaks {
            true => Ok(()),
            false => Err(Drop::ForeignSource),
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
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        let (station, controller) = pair;
        match ingress {
            Ingress::Tunnel { .. } => {
                outlet.wire(bytes);
                Ok(())
            }
            Ingress::Wire => {
                let (link, channel) = self.way(station, controller).ok_or(Drop::NoTunnel)?;
                match outlet.station(link, channel, bytes) {
                    true => Ok(()),
                    false => Err(Drop::TunnelFull),
                }
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

    /// Who speaks with this address on the controllers' side.
    pub(super) fn who(&self, mac: Mac) -> Who {
        let known = self.parties.controller_of(mac);
        let name = known.and_then(|index| self.parties.controllers[index].name.clone());
        Who { mac, name }
    }

    /// A controller speaks. At the edge one that is not known yet is entered, if the policy has
    /// anything for it: its frames, which come back by its address, are heard from here on.
    pub(super) fn note_controller(
        &mut self,
        now: Instant,
        mac: Mac,
        ingress: Ingress,
        outlet: &mut dyn Outlet,
    ) -> Result<usize, Drop> {
        if !mac.is_station() {
            return Err(Drop::Malformed);
        }
        if let Some(station) = self.parties.station_of(mac) {
            return Err(self.conflict(station, mac, "it speaks as a controller", outlet));
        }
        let (peer, station) = match ingress {
            Ingress::Wire => (None, None),
            Ingress::Tunnel { link, station } => {
                let link = self.parties.link(link).ok_or(Drop::NoTunnel)?;
                (Some(link.peer.clone()), Some(station))
            }
        };
        let Some(index) = self.parties.controller_of(mac) else {
            let (Some(peer), Some(station)) = (peer, station) else {
                return Err(Drop::NotPaired);
            };
            return self.enter_controller(now, mac, peer, station, outlet);
        };
        let known = self.parties.controllers[index].peer.as_ref();
        if known != peer.as_ref()
            && let (Some(peer), Some(station)) = (peer, station)
        {
            // The first headend keeps it while it is up: a second one can't take it over.
            if known.is_some_and(|known| self.parties.is_up(known)) {
                return Err(Drop::ForeignSource);
            }
            self.take_over(now, index, peer, station, outlet)?;
        }
        self.parties.controllers[index].seen = Some(now);
        Ok(index)
    }

    /// A controller is heard of through a tunnel for the first time.
    fn enter_controller(
        &mut self,
        now: Instant,
        mac: Mac,
        peer: Arc<str>,
        station: usize,
        outlet: &mut dyn Outlet,
    ) -> Result<usize, Drop> {
        if !self.may_enter(mac, &peer, station) {
            return Err(Drop::Denied);
        }
        let known = &self.parties.controllers;
        let of_peer = |known: &&Controller| known.peer.as_ref() == Some(&peer);
        let own_full = known.iter().filter(of_peer).count() >= MAX_CONTROLLERS_OF_PEER;
        if own_full || known.len() >= MAX_CONTROLLERS {
            let busy = |mac| self.table.iter().any(|ar| ar.pair.controller == mac);
            let idle = known.iter().filter(|known| {
                (!own_full || of_peer(known)) && is_silent(now, known.seen) && !busy(known.mac)
            });
            let longest = idle.min_by_key(|known| known.seen).map(|known| known.mac);
            let longest = longest.ok_or(Drop::Overload)?;
            self.forget_controllers(|known, _| known.mac == longest, outlet);
        }
        outlet.join(mac);
        self.parties.controllers.push(Controller {
            name: None,
            mac,
            station: None,
            ip: None,
            peer: Some(peer),
            seen: Some(now),
        });
        Ok(self.parties.controllers.len() - 1)
    }

    /// A controller is heard of through another headend, since its own is gone. What it had open
    /// the other one knows nothing of.
    fn take_over(
        &mut self,
        now: Instant,
        index: usize,
        peer: Arc<str>,
        station: usize,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        let mac = self.parties.controllers[index].mac;
        if !self.may_enter(mac, &peer, station) {
            return Err(Drop::Denied);
        }
        let of_it = self.table.iter().filter(|ar| ar.pair.controller == mac);
        let open: Vec<_> = of_it.map(|ar| ar.id).collect();
        for id in open {
            let change = self
                .table
                .end(id, Ended::Withdrawn("the loss of the tunnel"));
            self.apply(now, change, outlet);
        }
        self.calls.forget(|pair| pair.controller == mac);
        self.parties.controllers[index].peer = Some(peer);
        self.views.forget();
        Ok(())
    }

    /// Takes note of the IP address from which somebody speaks. It may not be that of another one,
    /// whose traffic would go astray.
    pub(super) fn note_ip(
        &mut self,
        came: &Came<'_>,
        station: usize,
        controller: Mac,
        ip: Ipv4Addr,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        if ip.is_unspecified() {
            return Ok(());
        }
        if self.is_of_another(came.now, ip, came.frame.src) {
            let reason = "it speaks from the IP address of another station";
            return Err(self.conflict(station, came.frame.src, reason, outlet));
        }
        match came.end {
            End::Device => self.parties.stations[station].ip = Some(ip),
            End::Controller => {
                if let Some(index) = self.parties.controller_of(controller) {
                    self.parties.controllers[index].ip = Some(ip);
                }
            }
        }
        Ok(())
    }

    /// Whether an IP address is that of somebody else than `mac`, who is not gone.
    pub(super) fn is_of_another(&self, now: Instant, ip: Ipv4Addr, mac: Mac) -> bool {
        let Parties {
            stations,
            controllers,
            ..
        } = &self.parties;
        let stations = stations
            .iter()
            .map(|known| (known.mac, known.ip, known.seen));
        let controllers = controllers.iter();
        let controllers = controllers.map(|known| (Some(known.mac), known.ip, known.seen));
        let mut known = stations.chain(controllers);
        known.any(|(other, other_ip, seen)| {
            let Some(other) = other.filter(|other| *other != mac) else {
                return false;
            };
            let pair = |ar: &Ar| ar.pair.controller == other || ar.pair.device == other;
            other_ip == Some(ip) && (!is_silent(now, seen) || self.table.iter().any(pair))
        })
    }

    /// A station speaks under an address. Its first one is taken; another only where no AR of it is
    /// open and none is configured.
    pub(super) fn note_station(
        &mut self,
        now: Instant,
        station: usize,
        mac: Mac,
        outlet: &mut dyn Outlet,
    ) -> Result<(), Drop> {
        if !mac.is_station() {
            return Err(Drop::Malformed);
        }
        let known = self.parties.stations[station].mac;
        if known != Some(mac) {
            let other = self.parties.station_of(mac).is_some();
            if other || self.parties.controller_of(mac).is_some() {
                return Err(self.conflict(
                    station,
                    mac,
                    "another station has this address",
                    outlet,
                ));
            }
            if self.parties.stations[station].settings.mac.is_some() {
                return Err(self.conflict(
                    station,
                    mac,
                    "its configured address is another",
                    outlet,
                ));
            }
            if let Some(known) = known {
                // Two that answer would take turns.
                let seen = self.parties.stations[station].seen;
                if seen.is_some_and(|seen| now.saturating_duration_since(seen) < SETTLED) {
                    return Err(self.conflict(station, mac, "two answer to its name", outlet));
                }
                if self.table.iter().any(|ar| ar.pair.device == known) {
                    return Err(self.conflict(
                        station,
                        mac,
                        "it has an AR under another address",
                        outlet,
                    ));
                }
                if self.settings.role == Role::Headend {
                    outlet.leave(known);
                }
                self.calls.forget(|pair| pair.device == known);
                self.parties.stations[station].ip = None;
            }
            self.parties.stations[station].mac = Some(mac);
            if self.settings.role == Role::Headend {
                outlet.join(mac);
            }
            let station = self.parties.stations[station].name().clone();
            outlet.event(Event::Found { station, mac });
        }
        self.parties.stations[station].seen = Some(now);
        Ok(())
    }

    pub(super) fn conflict(
        &self,
        station: usize,
        mac: Mac,
        reason: &'static str,
        outlet: &mut dyn Outlet,
    ) -> Drop {
        outlet.event(Event::Conflict {
            station: self.parties.stations[station].name().clone(),
            mac,
            reason,
        });
        Drop::ForeignSource
    }

    /// The two stations of a unicast frame that came from `end`.
    pub(super) fn pair(
        &mut self,
        came: &Came<'_>,
        outlet: &mut dyn Outlet,
    ) -> Result<(usize, Pair), Drop> {
        let Came {
            now,
            end,
            ingress,
            frame,
            ..
        } = *came;
        let pair = match end {
            End::Controller => Pair {
                controller: frame.src,
                device: frame.dst,
            },
            End::Device => Pair {
                controller: frame.dst,
                device: frame.src,
            },
        };
        let station = self
            .parties
            .station_of(pair.device)
            .ok_or(Drop::NotPaired)?;
        if let Ingress::Tunnel { station: of, .. } = ingress
            && of != station
        {
            return Err(Drop::NotPaired);
        }
        match end {
            End::Controller => {
                self.note_controller(now, pair.controller, ingress, outlet)?;
            }
            End::Device => {
                self.parties
                    .controller_of(pair.controller)
                    .ok_or(Drop::NotPaired)?;
                self.note_station(now, station, pair.device, outlet)?;
            }
        }
        Ok((station, pair))
    }
}

fn is_silent(now: Instant, seen: Option<Instant>) -> bool {
    seen.is_none_or(|seen| now.saturating_duration_since(seen) >= SILENT)
}

/// Whether a station that is configured anew may still have the address it has.
fn keeps(station: &Station, settings: &StationSettings, configured: &[Mac]) -> bool {
    match (settings.mac, station.mac) {
        (None, found) => found.is_none_or(|found| !configured.contains(&found)),
        (only, found) => only == found,
    }
}

/// Whether the address that a station was found under is now configured for somebody else.
fn is_taken(station: &Station, configured: &[Mac]) -> bool {
    let found = station.mac.filter(|_| station.settings.mac.is_none());
    found.is_some_and(|mac| configured.contains(&mac))
}
