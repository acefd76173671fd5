//! Who is paired: stations, controllers, and the tunnels on which each is reached.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_profinet::cm::ReadResponse;
use fieldlock_profinet::iandm::Im0;
use fieldlock_profinet::{Mac, StationName};

use super::output::LinkId;

/// Controllers that an edge hears of, at most: of all headends together, and of one. Each is an
/// address that the interface listens for, of which it takes 128.
pub(super) const MAX_CONTROLLERS: usize = 64;
pub(super) const MAX_CONTROLLERS_OF_PEER: usize = 32;

/// Cycles of play-out, at most.
pub const MAX_PLAY_OUT: u8 = 64;

/// What is configured for one station (an IO-device).
#[derive(Debug, Clone, PartialEq)]
pub struct StationSettings {
    pub name: StationName,
    /// The only address under which it may answer.
    pub mac: Option<Mac>,
    /// Earlier frames that each datagram carries again, 0 to 7.
    pub redundancy: u8,
    /// Their distance in cycles, 1 to 8.
    pub spread: u8,
    /// Cycles by which frames are delayed, to leave evenly, up to [`MAX_PLAY_OUT`]; 0 sends at once.
    pub play_out: u8,
    /// Age up to which data may be repeated; `None` never repeats.
    pub hold: Option<Duration>,
    /// The most that hold and watchdog may come to together.
    pub fail_safe_limit: Option<Duration>,
}

/// What a station told of itself in DCP and I&M records that passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub vendor_id: Option<u16>,
    pub device_id: Option<u16>,
    pub order_number: Option<String>,
    pub software: Option<String>,
    pub serial: Option<String>,
}

/// A station as it is known now.
#[derive(Debug)]
pub struct Station {
    pub settings: StationSettings,
    pub mac: Option<Mac>,
    pub ip: Option<Ipv4Addr>,
    pub facts: Facts,
    /// When it last said anything.
    pub seen: Option<Instant>,
    /// What it calls itself where that is not its name: empty where it has none. Its configured
    /// address tells that it is this one.
    pub nameless: Option<Arc<str>>,
}

impl Station {
    pub fn new(settings: StationSettings) -> Self {
        Self {
            mac: settings.mac,
            ip: None,
            facts: Facts::default(),
            seen: None,
            nameless: None,
            settings,
        }
    }

    pub fn name(&self) -> &StationName {
        &self.settings.name
    }

    /// Takes note of what a record says that it has been read from.
    pub(super) fn learn_record(&mut self, response: &ReadResponse<'_>) {
        let Some(im0) = Im0::of(response) else {
            return;
        };
        // Whatever octets a device sends there: they are shown to people.
        let text = |octets: &[u8]| octets.escape_ascii().to_string();
        self.facts.vendor_id = Some(im0.vendor);
        self.facts.order_number = Some(text(im0.order_id));
        self.facts.serial = Some(text(im0.serial_number));
        self.facts.software = Some(im0.software_revision.to_string());
    }
}

/// A controller (or an engineering tool): configured at the headend, at the edge heard of.
#[derive(Debug)]
pub struct Controller {
    pub name: Option<Arc<str>>,
    pub mac: Mac,
    /// As its last Connect named it.
    pub station: Option<StationName>,
    pub ip: Option<Ipv4Addr>,
    /// At the edge: the headend through which it speaks.
    pub peer: Option<Arc<str>>,
    /// When it last said anything.
    pub seen: Option<Instant>,
}

/// A tunnel that is up.
#[derive(Debug)]
pub struct Link {
    pub id: LinkId,
    /// The other agent's name, as its certificate proves it.
    pub peer: Arc<str>,
    /// What its hello offers: each channel with the station's name.
    pub offered: Vec<(u16, StationName)>,
    /// Channel and index of those that are configured here.
    pub channels: Vec<(u16, usize)>,
    /// The longest that was measured.
    pub round_trip: Option<Duration>,
    /// The longest datagram that it takes at present, in octets.
    pub max_datagram: usize,
}

impl Link {
    pub fn station(&self, channel: u16) -> Option<usize> {
        let served = self.channels.iter().find(|(number, _)| *number == channel);
        served.map(|(_, station)| *station)
    }

    pub fn channel(&self, station: usize) -> Option<u16> {
        let served = self.channels.iter().find(|(_, index)| *index == station);
        served.map(|(channel, _)| *channel)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Parties {
    pub stations: Vec<Station>,
    pub controllers: Vec<Controller>,
    pub links: Vec<Link>,
}

impl Parties {
    pub fn station_of(&self, mac: Mac) -> Option<usize> {
        let of = |station: &Station| station.mac == Some(mac);
        self.stations.iter().position(of)
    }

    pub fn station_named(&self, name: &[u8]) -> Option<usize> {
        let of = |station: &Station| station.name().as_str().as_bytes() == name;
        self.stations.iter().position(of)
    }

    pub fn controller_of(&self, mac: Mac) -> Option<usize> {
        let of = |controller: &Controller| controller.mac == mac;
        self.controllers.iter().position(of)
    }

    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.iter().find(|link| link.id == id)
    }

    /// The newest tunnel that serves a station, of one agent or of any.
    pub fn link_of_station(&self, station: usize, peer: Option<&str>) -> Option<&Link> {
        let of_peer = |link: &&Link| peer.is_none_or(|peer| *link.peer == *peer);
        let serves = |link: &&Link| link.channel(station).is_some();
        self.links.iter().rev().filter(of_peer).find(serves)
    }

    pub(super) fn set_round_trip(&mut self, id: LinkId, round_trip: Duration) {
        let mut links = self.links.iter_mut();
        if let Some(link) = links.find(|link| link.id == id) {
            link.round_trip = link.round_trip.max(Some(round_trip));
        }
    }

    pub(super) fn set_max_datagram(&mut self, id: LinkId, max_datagram: usize) {
        let mut links = self.links.iter_mut();
        if let Some(link) = links.find(|link| link.id == id) {
            link.max_datagram = max_datagram;
        }
    }

    /// The longest datagram that a tunnel takes; 0 where there is no such tunnel.
    pub(super) fn max_datagram(&self, id: LinkId) -> usize {
        self.link(id).map_or(0, |link| link.max_datagram)
    }

    /// Whether two tunnels are of one agent.
    pub fn same_peer(&self, one: LinkId, other: LinkId) -> bool {
        let peer = |id| self.link(id).map(|link| &link.peer);
        peer(one).is_some() && peer(one) == peer(other)
    }

    /// Whether a tunnel of this agent is up.
    pub fn is_up(&self, peer: &str) -> bool {
        self.links.iter().any(|link| *link.peer == *peer)
    }

    /// Stations are numbered anew, or tunnels are new.
    pub(super) fn number_channels(&mut self) {
        let stations = &self.stations;
        let index = |name: &StationName| stations.iter().position(|known| known.name() == name);
        for link in &mut self.links {
            let known = |(channel, name): &(u16, StationName)| Some((*channel, index(name)?));
            link.channels = link.offered.iter().filter_map(known).collect();
        }
    }
}
