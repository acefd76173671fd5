//! Two wires, a bridge at each, a tunnel between, and simulated stations, in virtual time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_conduit::profinet::{
    Bridge, BridgeSettings, Event, LinkId, Output, Role, StationSettings, Tagging,
};
use fieldlock_policy::{Now, Policy};
use fieldlock_profinet::Mac;
use fieldlock_sim::profinet::{Clock, Controller, ControllerConfig, Device, DeviceConfig, IpSuite};
use fieldlock_testkit::link::{Decision, Impairment, Link};

pub(crate) const PLC: Mac = Mac([0x02, 0, 0, 0, 0, 1]);
pub(crate) const DRIVE: Mac = Mac([0x02, 0, 0, 0, 0, 2]);
pub(crate) const STRANGER: Mac = Mac([0x02, 0, 0, 0, 0, 9]);
pub(crate) const LINK: LinkId = LinkId(7);
/// Octets that a tunnel takes in a datagram.
pub(crate) const MAX_DATAGRAM: usize = 1_150;

/// The controller may do all that an AR needs.
pub(crate) const IO: &str = r#"
syntax = 1
[[client]]
name = "plc-1"
mac = ["02:00:00:00:00:01"]
[[allow]]
name = "line 1 io"
client = ["plc-1"]
station = ["drive-1"]
service = ["io", "records"]
record = ["any"]
"#;

pub(crate) fn policy(text: &str) -> Arc<Policy> {
    Arc::new(Policy::parse(text, "policy.toml").unwrap())
}

pub(crate) fn station() -> StationSettings {
    StationSettings {
        name: "drive-1".parse().unwrap(),
        mac: None,
        redundancy: 2,
        spread: 1,
        play_out: 0,
        hold: None,
        fail_safe_limit: None,
    }
}

fn ip(last: u8) -> IpSuite {
    IpSuite::local([192, 168, 0, last].into())
}

/// What crosses a tunnel.
#[derive(Clone)]
pub(crate) enum Crossing {
    Station(u16, Vec<u8>),
    Datagram(Vec<u8>),
}

/// One agent: its bridge, and what it did.
pub(crate) struct End {
    pub(crate) bridge: Bridge,
    pub(crate) events: Vec<Event>,
    pub(crate) joined: Vec<Mac>,
    pub(crate) may_change: bool,
    /// Frames for the own wire, and for the other agent.
    pub(crate) wire: VecDeque<Vec<u8>>,
    pub(crate) tunnel: VecDeque<(LinkId, Crossing)>,
    /// How it was configured, to begin anew.
    pub(crate) made: Made,
}

/// How an agent is configured.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) role: Role,
    pub(crate) policy: Arc<Policy>,
    pub(crate) stations: Vec<StationSettings>,
    pub(crate) controllers: Vec<(Arc<str>, Mac)>,
    pub(crate) max_ars: usize,
}

impl End {
    fn new(role: Role, text: &str, station: StationSettings, now: Instant) -> Self {
        let made = Made {
            role,
            policy: policy(text),
            stations: vec![station],
            controllers: vec![("plc-1".into(), PLC)],
            max_ars: 4,
        };
        Self::made(made, now)
    }

    pub(crate) fn made(made: Made, now: Instant) -> Self {
        let settings = BridgeSettings {
            role: made.role,
            tagging: Tagging::Keep,
            max_ars: made.max_ars,
            seed: 1,
        };
        let controllers = match made.role {
            Role::Headend => made.controllers.clone(),
            Role::Edge => Vec::new(),
        };
        let rules = (made.policy.clone(), Now::At(0));
        let mut end = Self {
            bridge: Bridge::new(now, settings, rules, made.stations.clone(), controllers),
            events: Vec::new(),
            joined: Vec::new(),
            may_change: true,
            wire: VecDeque::new(),
            tunnel: VecDeque::new(),
            made,
        };
        end.act(|bridge| bridge.start());
        end
    }

    /// Something comes in; then what the bridge wants done is done.
    pub(crate) fn act(&mut self, act: impl FnOnce(&mut Bridge)) {
        self.bridge.set_writable(self.may_change);
        act(&mut self.bridge);
        while let Some(output) = self.bridge.poll_output() {
            match output {
                Output::Wire(frame) => self.wire.push_back(frame.to_vec()),
                Output::Station {
                    link,
                    channel,
                    frame,
                } => {
                    let crossing = Crossing::Station(channel, frame.to_vec());
                    self.tunnel.push_back((link, crossing));
                }
                Output::Datagram { link, datagram } => {
                    let crossing = Crossing::Datagram(datagram.to_vec());
                    self.tunnel.push_back((link, crossing));
                }
                Output::Join(mac) => self.joined.push(mac),
                Output::Leave(mac) => self.joined.retain(|joined| *joined != mac),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    pub(crate) fn link_up(&mut self, now: Instant, link: LinkId) {
        let peer = match self.made.role {
            Role::Headend => "cell-4",
            Role::Edge => "hd-1",
        };
        let names = self
            .made
            .stations
            .iter()
            .map(|station| station.name.clone());
        let channels: Vec<_> = (0..).zip(names).collect();
        self.act(|bridge| bridge.link_up(now, link, peer.into(), &channels, MAX_DATAGRAM));
    }

    pub(crate) fn link_down(&mut self, now: Instant, link: LinkId) {
        self.act(|bridge| bridge.link_down(now, link));
    }

    /// The agent is started anew, and has no tunnel yet.
    pub(crate) fn restart(&mut self, now: Instant) {
        *self = Self::made(self.made.clone(), now);
    }
}

/// See the module.
pub(crate) struct Plant {
    pub(crate) now: Instant,
    pub(crate) controller: Controller,
    pub(crate) headend: End,
    pub(crate) edge: End,
    pub(crate) device: Device,
    /// One way through the tunnel.
    pub(crate) delay: Duration,
    /// Every frame comes twice, the second one late by this.
    pub(crate) again: Option<Duration>,
    on_the_way: VecDeque<(Instant, Role, LinkId, Crossing)>,
    /// Frames that reached the two wires, for who looks for leaks.
    pub(crate) on_controllers_wire: Vec<Vec<u8>>,
    pub(crate) on_devices_wire: Vec<Vec<u8>>,
    pub(crate) cut: bool,
    /// What the network does to datagrams, to the headend and to the edge.
    links: Option<[Link; 2]>,
}

impl Plant {
    pub(crate) fn new(text: &str) -> Self {
        Self::with(text, text, station(), |_| {}, |_| {})
    }

    pub(crate) fn with(
        headend: &str,
        edge: &str,
        station: StationSettings,
        controller: impl FnOnce(&mut ControllerConfig),
        device: impl FnOnce(&mut DeviceConfig),
    ) -> Self {
        let now = Instant::now();
        let clock = Clock { epoch: now };
        let mut wants = ControllerConfig::new(PLC, "plc-1", ip(1), "drive-1", clock);
        controller(&mut wants);
        let mut is = DeviceConfig::new(DRIVE, "drive-1", ip(20), clock);
        device(&mut is);
        let mut plant = Self {
            now,
            controller: Controller::new(wants, now).unwrap(),
            headend: End::new(Role::Headend, headend, station.clone(), now),
            edge: End::new(Role::Edge, edge, station, now),
            device: Device::new(is, now),
            delay: Duration::from_millis(10),
            again: None,
            on_the_way: VecDeque::new(),
            on_controllers_wire: Vec::new(),
            on_devices_wire: Vec::new(),
            cut: false,
            links: None,
        };
        plant.headend.link_up(now, LINK);
        plant.edge.link_up(now, LINK);
        plant
    }

    /// Somebody on the controllers' wire sends a frame.
    pub(crate) fn say_to_headend(&mut self, frame: &[u8]) {
        let now = self.now;
        self.headend.act(|bridge| bridge.handle_wire(now, frame));
        self.settle();
    }

    /// Somebody on the devices' wire does.
    pub(crate) fn say_to_edge(&mut self, frame: &[u8]) {
        let now = self.now;
        self.edge.act(|bridge| bridge.handle_wire(now, frame));
        self.settle();
    }

    /// A headend that somebody took over sends a frame on the station's channel.
    pub(crate) fn headend_claims(&mut self, frame: &[u8]) {
        let now = self.now;
        self.edge
            .act(|bridge| bridge.handle_station(now, LINK, 0, frame));
        self.settle();
    }

    /// Datagrams suffer from here on; frames in order are only late.
    pub(crate) fn impair(&mut self, impairment: &Impairment, seed: u64) {
        self.links = Some(Link::pair(impairment, seed, self.now));
    }

    /// Loses the tunnel, at both ends at once.
    pub(crate) fn tunnel_is_lost(&mut self) {
        let now = self.now;
        for end in [&mut self.headend, &mut self.edge] {
            end.link_down(now, LINK);
        }
        self.on_the_way.clear();
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.wake();
            self.settle();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let deadlines = [
            self.controller.poll_timeout(),
            self.device.poll_timeout(),
            self.headend.bridge.poll_timeout(),
            self.edge.bridge.poll_timeout(),
            self.on_the_way.front().map(|(at, ..)| *at),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn wake(&mut self) {
        let now = self.now;
        while self.on_the_way.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, to, link, crossing)) = self.on_the_way.pop_front() else {
                break;
            };
            let end = match to {
                Role::Headend => &mut self.headend,
                Role::Edge => &mut self.edge,
            };
            end.act(|bridge| match &crossing {
                Crossing::Station(channel, frame) => {
                    bridge.handle_station(now, link, *channel, frame);
                }
                Crossing::Datagram(datagram) => {
                    bridge.handle_datagram(now, link, datagram);
                }
            });
        }
        self.controller.handle_timeout(now);
        self.device.handle_timeout(now);
        for end in [&mut self.headend, &mut self.edge] {
            if end.bridge.poll_timeout().is_some_and(|at| at <= now) {
                end.act(|bridge| bridge.handle_timeout(now));
            }
        }
    }

    /// Moves everything that is to move at this instant.
    fn settle(&mut self) {
        let now = self.now;
        loop {
            let mut moved = false;
            while let Some(frame) = self.controller.poll_transmit().map(<[u8]>::to_vec) {
                self.headend.act(|bridge| bridge.handle_wire(now, &frame));
                moved = true;
            }
            while let Some(frame) = self.device.poll_transmit().map(<[u8]>::to_vec) {
                self.edge.act(|bridge| bridge.handle_wire(now, &frame));
                moved = true;
            }
            while let Some(frame) = self.headend.wire.pop_front() {
                self.controller.handle_frame(now, &frame);
                self.on_controllers_wire.push(frame);
                moved = true;
            }
            while let Some(frame) = self.edge.wire.pop_front() {
                self.device.handle_frame(now, &frame);
                self.on_devices_wire.push(frame);
                moved = true;
            }
            let at = now + self.delay;
            let links = &mut self.links;
            for (from, to) in [
                (&mut self.headend, Role::Edge),
                (&mut self.edge, Role::Headend),
            ] {
                for (link, crossing) in from.tunnel.drain(..) {
                    let arrives = match (&crossing, links.as_mut()) {
                        _ if self.cut => None,
                        (Crossing::Datagram(datagram), Some(links)) => {
                            let link = &mut links[usize::from(to == Role::Edge)];
                            match link.handle(now, datagram.len()) {
                                Decision::Deliver(delivery) => Some(delivery.at),
                                Decision::Drop(_) => None,
                            }
                        }
                        _ => Some(at),
                    };
                    let Some(at) = arrives else { continue };
                    if let Some(late) = self.again {
                        let copy = (at + late, to, link, crossing.clone());
                        self.on_the_way.push_back(copy);
                    }
                    self.on_the_way.push_back((at, to, link, crossing));
                }
            }
            // What arrives together does so in the order in which it left.
            let on_the_way = self.on_the_way.make_contiguous();
            on_the_way.sort_by_key(|(at, ..)| *at);
            if !moved {
                break;
            }
        }
    }
}
