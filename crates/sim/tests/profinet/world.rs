//! One wire, virtual time: jumps from deadline to deadline.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;
use fieldlock_sim::profinet::{
    Clock, Controller, ControllerConfig, Device, DeviceConfig, Event, IpSuite,
};

pub(crate) const DEVICE: Mac = Mac([0x02, 0, 0, 0, 0, 0x20]);
pub(crate) const DEVICE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 20);

/// The MAC of the controller with this number.
pub(crate) const fn controller_mac(number: usize) -> Mac {
    Mac([0x02, 0, 0, 0, 0, 0x10 + number as u8])
}

/// Who is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Device,
    Controller(usize),
}

/// Decides whether a frame arrives: time since the start, who sent it, the frame.
pub(crate) type Passes = Box<dyn FnMut(Duration, Who, &[u8]) -> bool>;

pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) device: Device,
    pub(crate) controllers: Vec<Controller>,
    /// One way.
    pub(crate) delay: Duration,
    pub(crate) passes: Passes,
    pub(crate) events: Vec<(Duration, Who, Event)>,
    /// Every frame as it was sent, when `record` is on.
    pub(crate) sent: Vec<(Duration, Vec<u8>)>,
    pub(crate) record: bool,
    flying: BTreeMap<(Instant, u64), (Who, Vec<u8>)>,
    number: u64,
}

pub(crate) fn clock(start: Instant) -> Clock {
    Clock { epoch: start }
}

pub(crate) fn device_config(start: Instant) -> DeviceConfig {
    DeviceConfig::new(DEVICE, "drive-1", IpSuite::local(DEVICE_IP), clock(start))
}

pub(crate) fn controller_config(start: Instant, number: usize) -> ControllerConfig {
    ControllerConfig {
        seed: 100 + number as u64,
        ..ControllerConfig::new(
            controller_mac(number),
            "plc-1",
            IpSuite::local(Ipv4Addr::new(192, 168, 0, 10 + number as u8)),
            "drive-1",
            clock(start),
        )
    }
}

impl World {
    /// One controller and the device, as `change` has them.
    pub(crate) fn new(change: impl FnOnce(&mut ControllerConfig, &mut DeviceConfig)) -> Self {
        let start = Instant::now();
        let (mut controller, mut device) = (controller_config(start, 0), device_config(start));
        change(&mut controller, &mut device);
        Self {
            start,
            now: start,
            device: Device::new(device, start),
            controllers: vec![Controller::new(controller, start).expect("configuration")],
            delay: Duration::from_millis(1),
            passes: Box::new(|_, _, _| true),
            events: Vec::new(),
            sent: Vec::new(),
            record: false,
            flying: BTreeMap::new(),
            number: 0,
        }
    }

    /// A world that exchanges data, and the events up to then gone.
    pub(crate) fn established(
        change: impl FnOnce(&mut ControllerConfig, &mut DeviceConfig),
    ) -> Self {
        let mut world = Self::new(change);
        assert!(
            world.run_until(Duration::from_secs(5), |world| world.controllers[0]
                .is_established()
                && world.device.established() == 1),
            "{:?}",
            world.events
        );
        world.events.clear();
        world
    }

    pub(crate) fn controller(&mut self) -> &mut Controller {
        &mut self.controllers[0]
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Lets this much time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// Lets time pass until `done`; false when `span` was over first.
    pub(crate) fn run_until(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + span;
        loop {
            self.collect();
            if done(self) {
                return true;
            }
            let controllers = self.controllers.iter().filter_map(Controller::poll_timeout);
            let next = controllers
                .chain(self.device.poll_timeout())
                .chain(self.flying.keys().next().map(|(at, _)| *at))
                .min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return false;
                }
            }
            self.deliver();
            self.device.handle_timeout(self.now);
            for controller in &mut self.controllers {
                controller.handle_timeout(self.now);
            }
        }
    }

    /// Puts a frame on the wire, as if `who` had sent it.
    pub(crate) fn inject(&mut self, who: Who, frame: &[u8]) {
        self.number += 1;
        self.flying
            .insert((self.now + self.delay, self.number), (who, frame.to_vec()));
    }

    /// Events of the device or a controller, without their times.
    pub(crate) fn events_of(&self, who: Who) -> Vec<&Event> {
        self.events
            .iter()
            .filter(|(_, from, _)| *from == who)
            .map(|(_, _, event)| event)
            .collect()
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from, frame) = entry.remove();
            if from != Who::Device {
                self.device.handle_frame(self.now, &frame);
            }
            for (number, controller) in self.controllers.iter_mut().enumerate() {
                if from != Who::Controller(number) {
                    controller.handle_frame(self.now, &frame);
                }
            }
        }
    }

    fn collect(&mut self) {
        let since = self.now - self.start;
        let mut frames = Vec::new();
        while let Some(frame) = self.device.poll_transmit() {
            frames.push((Who::Device, frame.to_vec()));
        }
        while let Some(event) = self.device.poll_event() {
            self.events.push((since, Who::Device, event));
        }
        for (number, controller) in self.controllers.iter_mut().enumerate() {
            while let Some(frame) = controller.poll_transmit() {
                frames.push((Who::Controller(number), frame.to_vec()));
            }
            while let Some(event) = controller.poll_event() {
                self.events.push((since, Who::Controller(number), event));
            }
        }
        for (who, frame) in frames {
            if self.record {
                self.sent.push((since, frame.clone()));
            }
            if (self.passes)(since, who, &frame) {
                self.inject(who, &frame);
            }
        }
    }
}

/// FrameID of a PROFINET frame, tagged or not.
pub(crate) fn frame_id(frame: &[u8]) -> Option<u16> {
    let frame = fieldlock_profinet::Frame::parse(frame).ok()?;
    let id = frame.payload.first_chunk()?;
    (frame.ethertype == 0x8892).then(|| u16::from_be_bytes(*id))
}

pub(crate) fn is_cyclic(frame: &[u8]) -> bool {
    frame_id(frame).is_some_and(|id| (0x8000..0xfc00).contains(&id))
}

pub(crate) fn is_udp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
}
