//! The bridge between a wire and the tunnels.

use std::sync::Arc;
use std::time::Instant;

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
use super::parties::{Controller, Link, MAX_CONTROLLERS, Parties, Station, StationSettings};
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
            link: None,
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
        let changed = |old: &Station| {
            let same = |new: &StationSettings| *new == old.settings;
            !stations.iter().any(same)
        };
        let parties = &self.parties;
        let affected: Vec<_> = parties.stations.iter().filter(|s| changed(s)).collect();
        let affected: Vec<Mac> = affected.iter().filter_map(|station| station.mac).collect();
        let gone = |ar: &Ar| {
            let mut known = controllers.iter().map(|(_, mac)| *mac);
            let headend = self.settings.role == Role::Headend;
            let orphan = headend && !known.any(|mac| mac == ar.pair.controller);
            (orphan || affected.contains(&ar.pair.device)).then_some(ar.id)
        };
        let gone: Vec<_> = self.table.iter().filter_map(gone).collect();
        for id in gone {
            let change = self.table.end(id, Ended::Withdrawn("the configuration"));
            self.apply(now, change, outlet);
        }
        self.replace_stations(stations, outlet);
        if self.settings.role == Role::Headend {
            let old = std::mem::take(&mut self.parties.controllers);
            let new = controllers.iter().map(|(name, mac)| {
                let known = old.iter().find(|known| known.mac == *mac);
                Controller {
                    name: Some(name.clone()),
                    mac: *mac,
                    station: known.and_then(|known| known.station.clone()),
                    ip: known.and_then(|known| known.ip),
                    link: None,
                    seen: known.and_then(|known| known.seen),
                }
            });
            self.parties.controllers = new.collect();
        }
        self.asked.clear();
        self.views.forget();
        self.rebuild_flows(now, outlet);
    }

    fn replace_stations(&mut self, stations: Vec<StationSettings>, outlet: &mut dyn Outlet) {
        let mut old = std::mem::take(&mut self.parties.stations);
        let places: Vec<_> = old
            .iter()
            .map(|old| stations.iter().position(|new| new.name == *old.name()))
            .collect();
        for link in &mut self.parties.links {
            let place = |(channel, station): &(u16, usize)| Some((*channel, places[*station]?));
            link.channels = link.channels.iter().filter_map(place).collect();
        }
        let headend = self.settings.role == Role::Headend;
        let new = stations.into_iter().map(|settings| {
            let known = old.iter().position(|old| *old.name() == settings.name);
            match known.map(|known| old.swap_remove(known)) {
                // Another address is configured: what was known of it counts no more.
                Some(known) if settings.mac.is_none() || settings.mac == known.mac => {
                    Station { settings, ..known }
                }
                known => {
                    old.extend(known);
                    Station::new(settings)
                }
            }
        });
        self.parties.stations = new.collect();
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
        let known = |(channel, name): &(u16, StationName)| {
            let station = self.parties.station_named(name.as_str().as_bytes())?;
            Some((*channel, station))
        };
        let channels = channels.iter().filter_map(known).collect();
        if self.settings.role == Role::Edge {
            let Parties {
                controllers, links, ..
            } = &mut self.parties;
            let older = |known: LinkId| links.iter().any(|l| l.id == known && l.peer == peer);
            for controller in controllers {
                if controller.link.is_some_and(older) {
                    controller.link = Some(id);
                }
            }
        }
        self.parties.links.push(Link { id, peer, channels });
        self.views.forget();
        self.rebuild_flows(now, outlet);
    }

    /// A tunnel is gone: nothing is held for it any more.
    pub fn link_down(&mut self, now: Instant, id: LinkId, outlet: &mut dyn Outlet) {
        self.parties.links.retain(|link| link.id != id);
        if self.settings.role == Role::Edge {
            // Its controllers are heard of again through another tunnel, or not at all.
            let table = &self.table;
            self.parties.controllers.retain(|controller| {
                let gone = controller.link == Some(id);
                let busy = table.iter().any(|ar| ar.pair.controller == controller.mac);
                if gone && !busy {
                    outlet.leave(controller.mac);
                }
                !gone || busy
            });
        }
        self.views.forget();
        self.rebuild_flows(now, outlet);
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
            let frame = Frame::parse(bytes).map_err(|_| Drop::Malformed)?;
            let ingress = Ingress::Tunnel { link, station };
            self.carry(now, end, ingress, &frame, bytes, outlet)
        });
        if let Err(drop) = result {
            self.drops.add(drop);
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
        match self.settings.role {
            Role::Headend => self.parties.link_of_station(station),
            Role::Edge => {
                let index = self.parties.controller_of(controller)?;
                let link = self.parties.controllers[index].link?;
                let channel = self.parties.link(link)?.channel(station)?;
                Some((link, channel))
            }
        }
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
        if let Some(index) = self.parties.controller_of(mac) {
            let alive = |link| self.parties.link(link).is_some();
            let controller = &self.parties.controllers[index];
            // The first tunnel keeps it while it is up: a second headend can't take it over.
            let takes = !controller.link.is_some_and(alive);
            let same_peer = self.same_peer(controller.link, ingress);
            let controller = &mut self.parties.controllers[index];
            controller.seen = Some(now);
            if let Ingress::Tunnel { link, .. } = ingress
                && controller.link != Some(link)
            {
                if !takes && !same_peer {
                    return Err(Drop::ForeignSource);
                }
                controller.link = Some(link);
                self.rebuild_flows(now, outlet);
            }
            return Ok(index);
        }
        let Ingress::Tunnel { link, station } = ingress else {
            return Err(Drop::NotPaired);
        };
        if !self.view(mac, Some(link), station).any() {
            return Err(Drop::Denied);
        }
        if self.parties.controllers.len() >= MAX_CONTROLLERS {
            return Err(Drop::Overload);
        }
        outlet.join(mac);
        self.parties.controllers.push(Controller {
            name: None,
            mac,
            station: None,
            ip: None,
            link: Some(link),
            seen: Some(now),
        });
        Ok(self.parties.controllers.len() - 1)
    }

    /// Both tunnels are of one agent: the newer takes over.
    fn same_peer(&self, older: Option<LinkId>, ingress: Ingress) -> bool {
        let peer = |link| self.parties.link(link).map(|link| &link.peer);
        match (older, ingress) {
            (Some(older), Ingress::Tunnel { link, .. }) => {
                older <= link && peer(older) == peer(link)
            }
            _ => false,
        }
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
