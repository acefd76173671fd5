//! The bridge of PROFINET at both ends, between stations and agents that any of them may be.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use fieldlock_conduit::profinet::{
    Bridge, BridgeSettings, LinkId, Output, Role, StationSettings, Tagging,
};
use fieldlock_policy::{Now, Policy};
use fieldlock_profinet::ar::{End, Phase};
use fieldlock_profinet::dcp::{Kind, ServiceId};
use fieldlock_profinet::{Class, Frame, FrameId, Mac, Service, classify};
use fieldlock_sim::profinet::{Clock, Controller, ControllerConfig, Device, DeviceConfig, IpSuite};

use crate::input::Input;

const PLC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const DRIVE: Mac = Mac([2, 0, 0, 0, 0, 2]);
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 9]);
const MAX_ARS: usize = 3;
const MAX_OPERATIONS: usize = 200;
/// Of each kind, the latest.
const MAX_TEMPLATES: usize = 64;
/// A write of many records tells of each.
const MAX_EVENTS: usize = 1_100;
const NOW: Now = Now::At(0);

/// Nothing, what an AR needs, and the setting of a name as well.
static POLICIES: LazyLock<[Arc<Policy>; 3]> = LazyLock::new(|| {
    let rule = |services: &str| {
        format!(
            "[[client]]\nname = \"plc-1\"\nmac = [\"{PLC}\"]\n[[allow]]\nname = \"io\"\n\
             client = [\"plc-1\"]\nstation = [\"drive-1\", \"pump-2\"]\nservice = [{services}]\nrecord = [\"any\"]\n"
        )
    };
    let io = rule("\"io\", \"records\"");
    let set = rule("\"io\", \"records\", \"set-name\"");
    [String::new(), io, set].map(|rules| {
        let text = format!("syntax = 1\n{rules}");
        Arc::new(Policy::parse(&text, "policy.toml").unwrap())
    })
});

/// Frames, datagrams, tunnels, rules, configurations and times of anybody's choice, while a
/// controller and a device try to get along.
///
/// The first byte chooses the rules of the two ends and whether the stations run first; then
/// operations. Whatever happens: no end says on its wire what comes from there, nothing crosses
/// without a rule, cyclic data belongs to an AR that is open, a Set needs its own rule, and what is
/// kept is bounded.
pub fn profinet_bridge(data: &[u8]) {
    let mut input = Input::new(data);
    let first = usize::from(input.u8());
    let mut world = World::new(first % 3, first / 3 % 3);
    if first & 0x80 == 0 {
        world.pass(Duration::from_secs(2));
    }
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        world.perform(&mut input);
        world.settle();
    }
    world.pass(Duration::from_secs(1));
}

enum Crossing {
    Station(u16, Vec<u8>),
    Datagram(Vec<u8>),
}

/// One agent.
struct Agent {
    bridge: Bridge,
    role: Role,
    rules: usize,
    joined: HashSet<Mac>,
    wire: VecDeque<Vec<u8>>,
    tunnel: VecDeque<(LinkId, Crossing)>,
    may_change: bool,
}

#[derive(Default)]
struct Out {
    wire: Vec<Vec<u8>>,
    tunnel: Vec<(LinkId, Crossing)>,
    joins: Vec<(Mac, bool)>,
    events: usize,
}

impl Out {
    fn take(&mut self, output: Output<'_>) {
        match output {
            Output::Wire(frame) => self.wire.push(frame.to_vec()),
            Output::Station {
                link,
                channel,
                frame,
            } => {
                let crossing = Crossing::Station(channel, frame.to_vec());
                self.tunnel.push((link, crossing));
            }
            Output::Datagram { link, datagram } => {
                let crossing = Crossing::Datagram(datagram.to_vec());
                self.tunnel.push((link, crossing));
            }
            Output::Join(mac) => self.joins.push((mac, true)),
            Output::Leave(mac) => self.joins.push((mac, false)),
            Output::Event(_) => self.events += 1,
        }
    }
}

/// One tunnel takes no datagrams.
fn max_datagram(link: LinkId) -> usize {
    if link == LinkId(3) { 0 } else { 1_150 }
}

fn station(name: &str, mac: Option<Mac>, hold: bool) -> StationSettings {
    StationSettings {
        name: name.parse().unwrap(),
        mac,
        redundancy: 2,
        spread: 1,
        play_out: u8::from(hold),
        hold: hold.then_some(Duration::from_millis(300)),
        fail_safe_limit: None,
    }
}

fn stations(choice: u8) -> Vec<StationSettings> {
    let drive = |mac| station("drive-1", mac, choice & 1 == 1);
    let pump = |mac| station("pump-2", mac, false);
    match choice >> 1 & 7 {
        0..=2 => vec![drive(None), pump(None)],
        3 => vec![pump(None), drive(Some(DRIVE))],
        4 => vec![pump(Some(DRIVE)), drive(None)],
        5 => vec![drive(Some(STRANGER))],
        6 => vec![pump(Some(PLC))],
        _ => Vec::new(),
    }
}

impl Agent {
    fn new(role: Role, rules: usize, now: Instant) -> Self {
        let settings = BridgeSettings {
            role,
            tagging: Tagging::Keep,
            max_ars: MAX_ARS,
            seed: 1,
        };
        let controllers = match role {
            Role::Headend => vec![("plc-1".into(), PLC)],
            Role::Edge => Vec::new(),
        };
        let policy = (POLICIES[rules].clone(), NOW);
        let mut agent = Self {
            bridge: Bridge::new(now, settings, policy, stations(0), controllers),
            role,
            rules,
            joined: HashSet::new(),
            wire: VecDeque::new(),
            tunnel: VecDeque::new(),
            may_change: true,
        };
        agent.act(|bridge| bridge.start());
        agent
    }

    fn act(&mut self, act: impl FnOnce(&mut Bridge)) {
        let mut out = Out::default();
        let open = self.open();
        self.bridge.set_writable(self.may_change);
        act(&mut self.bridge);
        while let Some(output) = self.bridge.poll_output() {
            out.take(output);
        }
        for (mac, wanted) in out.joins {
            match wanted {
                true => self.joined.insert(mac),
                false => self.joined.remove(&mac),
            };
        }
        self.check(&out.wire, &open);
        assert!(out.events <= MAX_EVENTS);
        if self.rules == 0 {
            assert!(out.wire.is_empty() && out.tunnel.is_empty());
        }
        self.wire.extend(out.wire);
        self.tunnel.extend(out.tunnel);
    }

    /// The cyclic data that may be on the wire.
    fn open(&self) -> HashSet<(Mac, Mac, FrameId)> {
        let ars = self.bridge.table().iter();
        let ars = ars.filter(|ar| matches!(ar.phase, Phase::Connected | Phase::Running));
        ars.flat_map(|ar| {
            let key =
                |provider: End, id| (ar.pair.mac(provider), ar.pair.mac(provider.other()), id);
            let crs = ar.crs.iter();
            crs.filter_map(move |cr| Some(key(cr.provider, cr.frame_id?)))
        })
        .collect()
    }

    fn check(&self, wire: &[Vec<u8>], open: &HashSet<(Mac, Mac, FrameId)>) {
        let parties = self.bridge.parties();
        for bytes in wire {
            let frame = Frame::parse(bytes).unwrap();
            match self.role {
                Role::Headend => assert!(parties.controller_of(frame.src).is_none()),
                Role::Edge => assert!(parties.station_of(frame.src).is_none()),
            }
            match classify(&frame).unwrap() {
                Class::Cyclic { id, .. } => assert!(open.contains(&(frame.src, frame.dst, id))),
                Class::Dcp(pdu) if (pdu.service, pdu.kind) == (ServiceId::Set, Kind::Request) => {
                    assert!(self.may_change);
                    let services = pdu.services().unwrap();
                    let allowed = |service| self.rules == 2 && service == Service::SetName;
                    assert!(services.into_iter().all(allowed));
                }
                Class::Never(never) => panic!("{} on the wire", never.name()),
                _ => {}
            }
        }
        // One may be connected anew beside as many as there may be.
        assert!(self.bridge.table().len() <= MAX_ARS + 1);
        assert!(parties.controllers.len() <= 64);
        assert!(self.joined.len() <= 1 + parties.controllers.len().max(parties.stations.len()));
    }

    fn timeout(&mut self, now: Instant) {
        self.act(|bridge| bridge.handle_timeout(now));
        let next = self.bridge.poll_timeout();
        assert!(next.is_none_or(|at| at > now), "time stands still");
    }
}

struct World {
    now: Instant,
    headend: Agent,
    edge: Agent,
    controller: Controller,
    device: Device,
    frames: VecDeque<Vec<u8>>,
    datagrams: VecDeque<Vec<u8>>,
}

fn keep(templates: &mut VecDeque<Vec<u8>>, bytes: &[u8]) {
    if templates.len() == MAX_TEMPLATES {
        templates.pop_front();
    }
    templates.push_back(bytes.to_vec());
}

impl World {
    fn new(headend: usize, edge: usize) -> Self {
        let now = Instant::now();
        let clock = Clock { epoch: now };
        let ip = |last| IpSuite::local([192, 168, 0, last].into());
        let wants = ControllerConfig::new(PLC, "plc-1", ip(1), "drive-1", clock);
        let is = DeviceConfig::new(DRIVE, "drive-1", ip(20), clock);
        let mut world = Self {
            now,
            headend: Agent::new(Role::Headend, headend, now),
            edge: Agent::new(Role::Edge, edge, now),
            controller: Controller::new(wants, now).unwrap(),
            device: Device::new(is, now),
            frames: VecDeque::new(),
            datagrams: VecDeque::new(),
        };
        for headend in [true, false] {
            world.link_up(headend, LinkId(0), "first");
        }
        world
    }

    fn agent(&mut self, headend: bool) -> &mut Agent {
        match headend {
            true => &mut self.headend,
            false => &mut self.edge,
        }
    }

    fn link_up(&mut self, headend: bool, link: LinkId, peer: &str) {
        let now = self.now;
        let channels = ["drive-1", "pump-2"].map(|name| name.parse().unwrap());
        let channels: Vec<_> = (0..).zip(channels).collect();
        let max = max_datagram(link);
        self.agent(headend)
            .act(|bridge| bridge.link_up(now, link, peer.into(), &channels, max));
    }

    fn perform(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        let headend = choice & 0x80 == 0;
        let link = LinkId(u32::from(choice >> 4 & 3));
        let now = self.now;
        match choice & 0x0f {
            0 | 1 => self.pass(Duration::from_millis(4 * u64::from(input.u8()))),
            2..=4 => {
                let frame = mutated(&self.frames, input, true);
                let agent = self.agent(headend);
                agent.act(|bridge| bridge.handle_wire(now, &frame));
            }
            5..=7 => {
                let frame = mutated(&self.frames, input, true);
                let agent = self.agent(headend);
                agent.act(|bridge| bridge.handle_station(now, link, 0, &frame));
            }
            8 => {
                let datagram = mutated(&self.datagrams, input, false);
                let agent = self.agent(headend);
                agent.act(|bridge| bridge.handle_datagram(now, link, &datagram));
            }
            9 => {
                let known = self.agent(headend).bridge.parties().link(link).is_some();
                if !known {
                    let peer = if input.bool() { "first" } else { "second" };
                    self.link_up(headend, link, peer);
                }
            }
            10 => {
                let agent = self.agent(headend);
                agent.act(|bridge| bridge.link_down(now, link));
            }
            11 => {
                let rules = input.below(3);
                let agent = self.agent(headend);
                agent.rules = rules;
                let policy = POLICIES[rules].clone();
                agent.act(|bridge| bridge.set_policy(now, policy, NOW));
            }
            12 => {
                let stations = stations(input.u8());
                let controllers: &[_] = match (headend, input.below(3)) {
                    (false, _) | (true, 0) => &[],
                    (true, 1) => &[("plc-1".into(), PLC)],
                    (true, _) => &[("plc-9".into(), STRANGER), ("plc-1".into(), PLC)],
                };
                let agent = self.agent(headend);
                agent.act(|bridge| bridge.set_parties(now, stations, controllers));
            }
            13 => {
                let time = Duration::from_millis(input.u8().into());
                self.agent(headend).bridge.set_round_trip(link, time);
            }
            14 => match input.below(4) {
                0 => self.controller.stop(now),
                1 => self.controller.start(now),
                2 => self.device.restart(now),
                _ => self.agent(headend).may_change ^= true,
            },
            _ => {
                self.now += Duration::from_secs(u64::from(input.u8()));
                let now = self.now;
                self.headend.timeout(now);
                self.edge.timeout(now);
            }
        }
    }

    /// Lets the stations run.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        loop {
            let deadlines = [
                self.controller.poll_timeout(),
                self.device.poll_timeout(),
                self.headend.bridge.poll_timeout(),
                self.edge.bridge.poll_timeout(),
            ];
            let next = deadlines.into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = next.max(self.now);
            let now = self.now;
            self.controller.handle_timeout(now);
            self.device.handle_timeout(now);
            for agent in [&mut self.headend, &mut self.edge] {
                if agent.bridge.poll_timeout().is_some_and(|at| at <= now) {
                    agent.timeout(now);
                }
            }
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        let now = self.now;
        loop {
            let mut moved = false;
            while let Some(frame) = self.controller.poll_transmit() {
                keep(&mut self.frames, frame);
                self.headend.act(|bridge| bridge.handle_wire(now, frame));
                moved = true;
            }
            while let Some(frame) = self.device.poll_transmit() {
                keep(&mut self.frames, frame);
                self.edge.act(|bridge| bridge.handle_wire(now, frame));
                moved = true;
            }
            while let Some(frame) = self.headend.wire.pop_front() {
                self.controller.handle_frame(now, &frame);
                moved = true;
            }
            while let Some(frame) = self.edge.wire.pop_front() {
                self.device.handle_frame(now, &frame);
                moved = true;
            }
            for to_headend in [true, false] {
                let sent = std::mem::take(&mut self.agent(!to_headend).tunnel);
                for (link, crossing) in sent {
                    moved = true;
                    if let Crossing::Datagram(datagram) = &crossing {
                        keep(&mut self.datagrams, datagram);
                    }
                    let to = self.agent(to_headend);
                    to.act(|bridge| match &crossing {
                        Crossing::Station(channel, frame) => {
                            bridge.handle_station(now, link, *channel, frame);
                        }
                        Crossing::Datagram(datagram) => {
                            bridge.handle_datagram(now, link, datagram);
                        }
                    });
                }
            }
            if !moved {
                break;
            }
        }
    }
}

/// Something that was said before, changed in some places.
fn mutated(templates: &VecDeque<Vec<u8>>, input: &mut Input<'_>, frame: bool) -> Vec<u8> {
    let back = usize::from(input.u8()) % templates.len().max(1);
    let mut bytes = templates
        .get(templates.len().saturating_sub(1 + back))
        .cloned()
        .unwrap_or_default();
    let changes = input.u8();
    if frame && bytes.len() >= 12 {
        let others = [PLC, DRIVE, STRANGER, Mac::DCP_IDENTIFY];
        if changes & 0x10 != 0 {
            bytes[..6].copy_from_slice(&others[input.below(4)].0);
        }
        if changes & 0x20 != 0 {
            bytes[6..12].copy_from_slice(&others[input.below(3)].0);
        }
    }
    for _ in 0..changes & 7 {
        let at = usize::from(input.u16());
        let value = input.u8();
        if let Some(octet) = at.checked_rem(bytes.len()).and_then(|at| bytes.get_mut(at)) {
            *octet = value;
        }
    }
    if changes & 8 != 0 {
        bytes.extend_from_slice(input.field());
    }
    if changes & 0x40 != 0 {
        bytes.truncate(usize::from(input.u8()) * 4);
    }
    bytes
}
