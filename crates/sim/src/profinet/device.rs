//! A simulated IO-device of real-time class 1.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use fieldlock_profinet::alarm::Rta;
use fieldlock_profinet::arp::{Arp, Operation};
use fieldlock_profinet::ip::Datagram;
use fieldlock_profinet::{Class, Frame, FrameId, Mac, classify};

use super::calls::{Patience, Server};
use super::discovery::IpSuite;
use super::event::Event;
use super::lan::{ArpOperation, CM_PORT, Peer, arp as put_arp};
use super::layout::{Module, Slots};
use super::outbox::Outbox;
use super::payload::Clock;
use super::random::Random;
use super::rpc::Order;
use super::stats::Stats;

mod ar;
mod connect;
mod discovery;
mod management;

use ar::{Ar, Ended};

/// How a device is and behaves.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    pub mac: Mac,
    /// Name-of-station; empty for a device fresh from the factory.
    pub name: String,
    pub ip: IpSuite,
    pub vendor: u16,
    pub device: u16,
    /// In slot 1 and following.
    pub modules: Vec<Module>,
    /// Priority tags (VLAN id 0) on cyclic frames and alarms. Default: yes.
    pub tagged: bool,
    /// UDP port from which answers and ApplicationReady are sent. Default 49152; real devices
    /// seldom use 34964, where requests arrive.
    pub rpc_port: u16,
    /// Byte order of the device's own requests; answers take that of the request.
    pub order: Order,
    /// Between PrmEnd and ApplicationReady. Default 20 ms.
    pub ready_after: Duration,
    /// For the device's own calls. Default 2 s, 3 tries.
    pub rpc_retry: Duration,
    pub rpc_tries: u32,
    /// The first FrameID that it assigns. Default 0x8000.
    pub first_frame_id: u16,
    /// Assigns FrameIDs also where the controller gave one. Default: no.
    pub overrides_frame_ids: bool,
    /// Sends DCP Hello when it starts. Default: no.
    pub hello: bool,
    /// ARs at a time. Default 4.
    pub max_ars: usize,
    /// Epoch of the stamps in the data; share it with the controller.
    pub clock: Clock,
    /// For delays and identifiers.
    pub seed: u64,
}

impl DeviceConfig {
    /// A device with an input and an output module of 16 octets.
    pub fn new(mac: Mac, name: &str, ip: IpSuite, clock: Clock) -> Self {
        Self {
            mac,
            name: name.to_owned(),
            ip,
            vendor: 0x0493,
            device: 0x0001,
            modules: vec![Module::input(16), Module::output(16)],
            tagged: true,
            rpc_port: 49152,
            order: Order::Little,
            ready_after: Duration::from_millis(20),
            rpc_retry: Duration::from_secs(2),
            rpc_tries: 3,
            first_frame_id: 0x8000,
            overrides_frame_ids: false,
            hello: false,
            max_ars: 4,
            clock,
            seed: 1,
        }
    }
}

/// What was asked of a device through DCP and records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub identify: u64,
    pub get: u64,
    pub set_ip: u64,
    pub set_name: u64,
    pub signal: u64,
    pub reset: u64,
    pub set_other: u64,
    pub connect: u64,
    pub read: u64,
    pub write: u64,
    /// Cyclic frames of no AR.
    pub unknown_cyclic: u64,
    /// Octets that are no frame for this device, or no PDU.
    pub malformed: u64,
}

/// An IO-device: discovery, connection management, cyclic data, alarms.
///
/// Input: [`handle_frame`](Self::handle_frame), [`handle_timeout`](Self::handle_timeout), and what
/// an operator does ([`raise_alarm`](Self::raise_alarm), [`set_running`](Self::set_running),
/// [`restart`](Self::restart)). After each, drain [`poll_transmit`](Self::poll_transmit) and
/// [`poll_event`](Self::poll_event) and set the timer to [`poll_timeout`](Self::poll_timeout).
/// `now` never decreases. Holds at most `max_ars` ARs, 256 events, 64 written records.
#[derive(Debug)]
pub struct Device {
    config: DeviceConfig,
    slots: Slots,
    name: String,
    ip: IpSuite,
    running: bool,
    ars: Vec<Ar>,
    server: Server,
    records: BTreeMap<(u16, u16, u16), Vec<u8>>,
    identify_answers: Vec<discovery::Delayed>,
    next_frame_id: u16,
    out: Outbox,
    events: VecDeque<Event>,
    stats: Stats,
    asked: Asked,
    random: Random,
}

impl Device {
    const EVENTS: usize = 256;

    pub fn new(config: DeviceConfig, now: Instant) -> Self {
        let mut device = Self {
            slots: Slots::new(&config.modules),
            name: config.name.clone(),
            ip: config.ip,
            running: true,
            ars: Vec::new(),
            server: Server::default(),
            records: BTreeMap::new(),
            identify_answers: Vec::new(),
            next_frame_id: config.first_frame_id,
            out: Outbox::default(),
            events: VecDeque::new(),
            stats: Stats::new(),
            asked: Asked::default(),
            random: Random::new(config.seed),
            config,
        };
        device.start(now);
        device
    }

    /// Power off and on: ARs are gone without a word, name and IP suite stay.
    pub fn restart(&mut self, now: Instant) {
        if !self.ars.is_empty() {
            self.stats.down(now);
        }
        self.ars.clear();
        self.server = Server::default();
        self.identify_answers.clear();
        self.start(now);
    }

    fn start(&mut self, _now: Instant) {
        if self.config.hello {
            self.hello();
        }
    }

    /// A frame from the wire, with its 802.1Q tag if it has one.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        let Ok(frame) = Frame::parse(frame) else {
            self.asked.malformed += 1;
            return;
        };
        let mine = frame.dst == self.config.mac
            || frame.dst == Mac::BROADCAST
            || frame.dst == Mac::DCP_IDENTIFY;
        if !mine || frame.src == self.config.mac {
            return;
        }
        match classify(&frame) {
            Ok(Class::Cyclic { id, pdu }) => self.handle_cyclic(now, frame.src, id, pdu),
            Ok(Class::AlarmHigh(rta)) => self.handle_alarm(now, frame.src, true, &rta),
            Ok(Class::AlarmLow(rta)) => self.handle_alarm(now, frame.src, false, &rta),
            Ok(Class::Dcp(pdu)) => self.handle_dcp(now, frame.src, &pdu),
            Ok(Class::Arp(arp)) => self.handle_arp(&arp),
            Ok(Class::Udp(datagram)) => self.handle_udp(now, frame.src, &datagram),
            Ok(Class::Never(_)) => {}
            Err(_) => self.asked.malformed += 1,
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.stats.dropped = self.out.dropped();
        self.answer_identify(now);
        let mut at = 0;
        while let Some(ar) = self.ars.get_mut(at) {
            match ar.handle_timeout(now, &self.config, &mut self.out, &mut self.stats) {
                Ok(()) => at += 1,
                Err(ended) => self.end(now, at, ended),
            }
        }
    }

    /// The next frame for the wire; it stays readable until the next call.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        self.out.pop()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let answers = self.identify_answers.iter().map(|answer| answer.due);
        let ars = self.ars.iter().map(Ar::deadline);
        answers.chain(ars).min()
    }

    /// Alarm of `kind` (1 diagnosis, 2 process, ...) of a submodule, with user data, to all
    /// controllers. False when no AR exchanges data or too many alarms wait.
    pub fn raise_alarm(
        &mut self,
        now: Instant,
        high: bool,
        kind: u16,
        slot: u16,
        data: &[u8],
    ) -> bool {
        let Some(submodule) = self.slots.find(slot, 1).copied() else {
            return false;
        };
        let mut raised = false;
        for ar in &mut self.ars {
            raised |= ar.raise_alarm(now, (high, kind), &submodule, data, &mut self.out);
        }
        raised
    }

    /// RUN or STOP, in the data status of what is sent.
    pub fn set_running(&mut self, running: bool) {
        self.running = running;
        for ar in &mut self.ars {
            ar.provider.set_running(running);
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// ARs that exchange data.
    pub fn established(&self) -> usize {
        self.ars.iter().filter(|ar| ar.is_established()).count()
    }

    /// Name-of-station as it is now.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// IP suite as it is now.
    pub fn ip(&self) -> IpSuite {
        self.ip
    }

    /// What was written to a record.
    pub fn record(&self, slot: u16, subslot: u16, index: u16) -> Option<&[u8]> {
        self.records.get(&(slot, subslot, index)).map(Vec::as_slice)
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= Self::EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn handle_cyclic(&mut self, now: Instant, src: Mac, id: FrameId, pdu: &[u8]) {
        match self.ars.iter_mut().find(|ar| ar.is_output(src, id)) {
            Some(ar) => {
                ar.consumer
                    .handle(now, pdu, self.config.clock, &mut self.stats.consumed);
            }
            None => self.asked.unknown_cyclic += 1,
        }
    }

    fn handle_alarm(&mut self, now: Instant, src: Mac, high: bool, rta: &Rta<'_>) {
        let Some(at) = self.ars.iter().position(|ar| ar.is_alarm(src, rta)) else {
            return;
        };
        match self.ars[at].handle_alarm(now, high, rta, &mut self.out) {
            Ok(None) => {}
            Ok(Some(event)) => {
                self.stats.alarms_acknowledged += 1;
                self.event(event);
            }
            Err(ended) => self.end(now, at, ended),
        }
    }

    fn handle_arp(&mut self, arp: &Arp) {
        let own = self.ip.address;
        if arp.operation == Operation::Request && arp.target == own && !own.is_unspecified() {
            let (mac, asker) = (self.config.mac, (arp.sender_mac, arp.sender));
            self.out
                .push(|out| put_arp(out, ArpOperation::Reply, (mac, own), asker));
        }
    }

    fn handle_udp(&mut self, now: Instant, src: Mac, datagram: &Datagram<'_>) {
        let (source, destination) = (datagram.source(), datagram.destination());
        if !datagram.checksums_hold() {
            self.asked.malformed += 1;
            return;
        }
        let ports = [CM_PORT, self.config.rpc_port];
        if *destination.ip() == self.ip.address && ports.contains(&destination.port()) {
            let from = Peer {
                mac: src,
                ip: *source.ip(),
                port: source.port(),
            };
            self.handle_rpc(now, from, datagram.udp.payload);
        }
    }

    /// Where the device's own packets come from.
    fn own_peer(&self) -> Peer {
        Peer {
            mac: self.config.mac,
            ip: self.ip.address,
            port: self.config.rpc_port,
        }
    }

    /// Removes an AR that ended, and tells the controller unless it knows.
    fn end(&mut self, now: Instant, at: usize, ended: Ended) {
        let ar = self.ars.remove(at);
        ar.close(ended, &mut self.out);
        match ended {
            Ended::Released => {
                self.stats.released += 1;
                self.event(Event::Released);
            }
            Ended::Aborted { side, status } => {
                let abort = super::stats::Abort {
                    at: now,
                    side,
                    status,
                };
                self.stats.aborted(abort);
                self.event(Event::Aborted(abort));
            }
        }
        if self.established() == 0 {
            self.stats.down(now);
        }
    }
}

impl DeviceConfig {
    fn patience(&self) -> Patience {
        Patience {
            retry: self.rpc_retry,
            tries: self.rpc_tries,
        }
    }
}
