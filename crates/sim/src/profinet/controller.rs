//! A simulated IO-controller with one IO-device.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fieldlock_profinet::arp::{Arp, Operation};
use fieldlock_profinet::ip::Datagram;
use fieldlock_profinet::{Class, Frame, Mac, classify};
use thiserror::Error;

use super::calls::{Patience, Server};
use super::cyclic::{WATCHDOG_LIMIT, cycle};
use super::discovery::IpSuite;
use super::event::Event;
use super::lan::{ArpOperation, CM_PORT, Peer, arp as put_arp};
use super::layout::{MAX_C_SDU, Module, Slots};
use super::outbox::Outbox;
use super::payload::Clock;
use super::profile::Asks;
use super::random::Random;
use super::rpc::Order;
use super::rpc::Uuid;
use super::stats::{Abort, Side, Stats};

mod find;
mod management;
mod records;
mod relation;

use management::Step;
use records::{RecordCall, RecordJob};
use relation::Relation;

/// What a controller does wrong on purpose, so that a test sees who notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The cycle counter of its frames stands still.
    WrongCycleCounter,
    /// Its cyclic frames have four octets more than its IOCR says.
    WrongDataLength,
    /// Asks for isochronous real-time (RT_CLASS_3).
    IrtConnect,
    /// Asks for real-time over UDP.
    RtOverUdp,
    /// Its Connect claims an array of 4 GiB.
    BigNdrCount,
    /// Neither acknowledges the transport of an alarm nor the alarm.
    NeverAcknowledgesAlarms,
    /// As soon as it has found the device, its IP suite is set from this address.
    SetsIpFrom(Mac),
}

/// A record that is written before PrmEnd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub slot: u16,
    pub subslot: u16,
    pub index: u16,
    pub data: Vec<u8>,
}

/// How a controller is, and what it wants of its device.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    pub mac: Mac,
    /// Its own name-of-station.
    pub name: String,
    pub ip: IpSuite,
    pub vendor: u16,
    pub device_id: u16,
    /// Name-of-station of the device.
    pub device: String,
    /// Set through DCP when the device has another one; None takes what it has.
    pub device_ip: Option<IpSuite>,
    /// Identity and modules of the device, as an engineering tool would know them.
    pub device_vendor: u16,
    pub device_device_id: u16,
    pub modules: Vec<Module>,
    /// 1 to 128, x 31.25 us. Default 32.
    pub send_clock: u16,
    /// A power of two, 1 to 512. Default 32: a cycle of 32 ms.
    pub reduction_ratio: u16,
    /// Cycles without a frame until the AR is aborted. Default 3.
    pub watchdog_factor: u16,
    /// Priority tags (VLAN id 0) on cyclic frames and alarms. Default: yes.
    pub tagged: bool,
    /// Byte order of its requests. Default big.
    pub order: Order,
    /// How long an answer to Identify, Set or ARP may take. Default 2 s, 3 tries.
    pub identify_timeout: Duration,
    pub identify_tries: u32,
    /// Devices spread their answers over this much x 10 ms. Default 1.
    pub delay_factor: u16,
    /// Between two requests of a call. Default 2 s, 3 tries.
    pub rpc_retry: Duration,
    pub rpc_tries: u32,
    /// x 100 ms, 1 to 1000: from Connect to the first frame, and from PrmEnd to
    /// ApplicationReady. Default 200.
    pub activity_timeout: u16,
    /// From the end of an AR to the next Identify. Default 1 s.
    pub restart_after: Duration,
    /// x 100 ms. Default 1.
    pub rta_timeout_factor: u16,
    /// 3 to 15. Default 3.
    pub rta_retries: u16,
    /// Default [`Asks::USUAL`].
    pub asks: Asks,
    pub records: Vec<Record>,
    pub defect: Option<Defect>,
    /// Epoch of the stamps in the data; share it with the device.
    pub clock: Clock,
    /// For identifiers.
    pub seed: u64,
}

impl ControllerConfig {
    /// For a device as [`DeviceConfig::new`](super::DeviceConfig::new) makes it.
    pub fn new(mac: Mac, name: &str, ip: IpSuite, device: &str, clock: Clock) -> Self {
        Self {
            mac,
            name: name.to_owned(),
            ip,
            vendor: 0x0493,
            device_id: 0x0002,
            device: device.to_owned(),
            device_ip: None,
            device_vendor: 0x0493,
            device_device_id: 0x0001,
            modules: vec![Module::input(16), Module::output(16)],
            send_clock: 32,
            reduction_ratio: 32,
            watchdog_factor: 3,
            tagged: true,
            order: Order::Big,
            identify_timeout: Duration::from_secs(2),
            identify_tries: 3,
            delay_factor: 1,
            rpc_retry: Duration::from_secs(2),
            rpc_tries: 3,
            activity_timeout: 200,
            restart_after: Duration::from_secs(1),
            rta_timeout_factor: 1,
            rta_retries: 3,
            asks: Asks::USUAL,
            records: Vec::new(),
            defect: None,
            clock,
            seed: 2,
        }
    }

    /// Time between two frames.
    pub fn cycle(&self) -> Duration {
        cycle(self.send_clock, self.reduction_ratio)
    }

    /// Time without a frame after which an AR is aborted.
    pub fn watchdog(&self) -> Duration {
        self.cycle() * u32::from(self.watchdog_factor)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=128).contains(&self.send_clock) {
            return Err(ConfigError::SendClock(self.send_clock));
        }
        if !self.reduction_ratio.is_power_of_two() || self.reduction_ratio > 512 {
            return Err(ConfigError::ReductionRatio(self.reduction_ratio));
        }
        let ticks = u64::from(self.send_clock)
            * u64::from(self.reduction_ratio)
            * u64::from(self.watchdog_factor);
        if ticks == 0 || ticks > WATCHDOG_LIMIT {
            return Err(ConfigError::Watchdog(self.watchdog()));
        }
        let slots = Slots::new(&self.modules);
        for layout in [slots.input(), slots.output()] {
            if layout.data_length > MAX_C_SDU {
                return Err(ConfigError::DataLength(layout.data_length));
            }
        }
        Ok(())
    }

    fn patience(&self) -> Patience {
        Patience {
            retry: self.rpc_retry,
            tries: self.rpc_tries,
        }
    }
}

/// Why a controller can't be as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("send clock factor {0}, allowed 1 to 128")]
    SendClock(u16),
    #[error("reduction ratio {0}, allowed powers of two up to 512")]
    ReductionRatio(u16),
    #[error(
        "watchdog of {0:?}, allowed more than none and up to 1.92 s: lower the factor or the cycle"
    )]
    Watchdog(Duration),
    #[error("{0} octets in one direction with statuses, allowed 1440: fewer or smaller modules")]
    DataLength(u32),
}

/// An IO-controller that wants one AR and starts again whenever it ends.
///
/// Used like a [`Device`](super::Device); the operator's side is [`read`](Self::read),
/// [`write`](Self::write), [`set_running`](Self::set_running) and [`stop`](Self::stop).
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    slots: Slots,
    phase: Phase,
    /// The device as DCP found it; its port is where requests go.
    device: Peer,
    relation: Option<Relation>,
    /// That it uses for every AR, where it keeps one.
    uuid: Uuid,
    running: bool,
    server: Server,
    record_call: Option<RecordCall>,
    record_queue: VecDeque<RecordJob>,
    record_sequence: u16,
    out: Outbox,
    events: VecDeque<Event>,
    stats: Stats,
    random: Random,
}

/// What the controller waits for.
#[derive(Debug)]
enum Phase {
    Stopped,
    /// Before the next try.
    Resting {
        until: Instant,
    },
    Identifying(find::Try),
    SettingIp(find::Try),
    Resolving(find::Try),
    /// Connect, Writes, PrmEnd, Release.
    Calling(Box<management::Calling>),
    /// PrmEnd is answered, ApplicationReady has not come.
    AwaitingReady {
        until: Instant,
    },
    Established,
}

impl Controller {
    const EVENTS: usize = 256;

    /// Begins to look for its device at once.
    pub fn new(config: ControllerConfig, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let mut random = Random::new(config.seed);
        let mut controller = Self {
            slots: Slots::new(&config.modules),
            phase: Phase::Stopped,
            device: Peer {
                mac: Mac([0; 6]),
                ip: IpSuite::NONE.address,
                port: CM_PORT,
            },
            relation: None,
            uuid: random.uuid(),
            running: true,
            server: Server::default(),
            record_call: None,
            record_queue: VecDeque::new(),
            record_sequence: 0,
            out: Outbox::default(),
            events: VecDeque::new(),
            stats: Stats::new(),
            random,
            config,
        };
        controller.identify(now);
        Ok(controller)
    }

    /// A frame from the wire, with its 802.1Q tag if it has one.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        let Ok(frame) = Frame::parse(frame) else {
            return;
        };
        let mine = frame.dst == self.config.mac || frame.dst == Mac::BROADCAST;
        if !mine || frame.src == self.config.mac {
            return;
        }
        match classify(&frame) {
            Ok(Class::Cyclic { id, pdu }) => self.handle_cyclic(now, frame.src, id, pdu),
            Ok(Class::AlarmHigh(rta)) => self.handle_alarm(now, frame.src, true, &rta),
            Ok(Class::AlarmLow(rta)) => self.handle_alarm(now, frame.src, false, &rta),
            Ok(Class::Dcp(pdu)) => self.handle_dcp(now, frame.src, &pdu),
            Ok(Class::Arp(arp)) => self.handle_arp(now, &arp),
            Ok(Class::Udp(datagram)) => self.handle_udp(now, frame.src, &datagram),
            Ok(Class::Never(_)) | Err(_) => {}
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.stats.dropped = self.out.dropped();
        self.relation_timeout(now);
        match &self.phase {
            Phase::Resting { until } if *until <= now => self.identify(now),
            Phase::Identifying(_) | Phase::SettingIp(_) | Phase::Resolving(_) => {
                self.find_timeout(now);
            }
            Phase::Calling(_) => self.call_timeout(now),
            Phase::AwaitingReady { until } if *until <= now => {
                self.abort(now, relation::CMI_TIMEOUT);
            }
            _ => {}
        }
        self.record_timeout(now);
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
        let phase = match &self.phase {
            Phase::Stopped | Phase::Established => None,
            Phase::Resting { until } | Phase::AwaitingReady { until } => Some(*until),
            Phase::Identifying(tried) | Phase::SettingIp(tried) | Phase::Resolving(tried) => {
                Some(tried.deadline)
            }
            Phase::Calling(calling) => Some(calling.call.deadline()),
        };
        let relation = self.relation.as_ref().map(Relation::deadline);
        let record = self
            .record_call
            .as_ref()
            .map(|record| record.call.deadline());
        [phase, relation, record].into_iter().flatten().min()
    }

    /// RUN or STOP, in the data status of what is sent.
    pub fn set_running(&mut self, running: bool) {
        self.running = running;
        if let Some(relation) = &mut self.relation {
            relation.provider.set_running(running);
        }
    }

    /// Releases the AR and stays down; [`is_stopped`](Self::is_stopped) when it is done.
    pub fn stop(&mut self, now: Instant) {
        match &self.relation {
            Some(_) if self.is_releasing() => {}
            Some(_) => self.call(now, Step::Release),
            None => self.phase = Phase::Stopped,
        }
    }

    fn is_releasing(&self) -> bool {
        matches!(&self.phase, Phase::Calling(calling) if calling.step == Step::Release)
    }

    /// Looks for its device again after [`stop`](Self::stop).
    pub fn start(&mut self, now: Instant) {
        if self.is_stopped() {
            self.identify(now);
        }
    }

    pub fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// What it is doing, in a word or two for people.
    pub fn state(&self) -> &'static str {
        match &self.phase {
            Phase::Stopped => "stopped",
            Phase::Resting { .. } => "waits to start again",
            Phase::Identifying(_) => "looks for the device",
            Phase::SettingIp(_) => "sets the IP address",
            Phase::Resolving(_) => "resolves the IP address",
            Phase::Calling(calling) => calling.step.name(),
            Phase::AwaitingReady { .. } => "waits for ApplicationReady",
            Phase::Established => "exchanges data",
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= Self::EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn handle_arp(&mut self, now: Instant, arp: &Arp) {
        let own = self.config.ip.address;
        match arp.operation {
            Operation::Request if arp.target == own => {
                let (mac, asker) = (self.config.mac, (arp.sender_mac, arp.sender));
                self.out
                    .push(|out| put_arp(out, ArpOperation::Reply, (mac, own), asker));
            }
            Operation::Request => {}
            Operation::Reply => self.handle_arp_reply(now, arp.sender_mac, arp.sender),
        }
    }

    fn handle_udp(&mut self, now: Instant, src: Mac, datagram: &Datagram<'_>) {
        let (source, destination) = (datagram.source(), datagram.destination());
        let ports = [CM_PORT, relation::CALL_PORT];
        let mine = *destination.ip() == self.config.ip.address
            && ports.contains(&destination.port())
            && datagram.checksums_hold();
        if mine {
            let from = Peer {
                mac: src,
                ip: *source.ip(),
                port: source.port(),
            };
            self.handle_rpc(now, from, datagram.udp.payload);
        }
    }

    /// Ends the AR with this last octet of 0xCF81FDxx, tells the device, and rests.
    fn abort(&mut self, now: Instant, code: u8) {
        self.ended(now, Side::Controller, super::alarms::rta_error(code));
    }

    /// The AR, or the attempt, is over; `status` is what ended it.
    fn ended(&mut self, now: Instant, side: Side, status: u32) {
        if self.is_releasing() {
            // It was to end: a device that has released sends no more data.
            return self.released(now);
        }
        if let Some(relation) = self.relation.take() {
            if side == Side::Controller {
                super::alarms::abort(&mut self.out, &relation.endpoint, status);
            }
            self.stats.down(now);
        }
        let abort = Abort {
            at: now,
            side,
            status,
        };
        self.stats.aborted(abort);
        self.event(Event::Aborted(abort));
        self.rest(now);
    }

    fn rest(&mut self, now: Instant) {
        self.record_call = None;
        self.record_queue.clear();
        self.phase = Phase::Resting {
            until: now + self.config.restart_after,
        };
    }
}
