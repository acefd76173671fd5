//! Any number of simulated stations on one interface, as a process of their own.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use fieldlock_profinet::Mac;
use fieldlock_rawsock::{Filter, LinkError, PacketSocket, Timer};
use fieldlock_sim::profinet::{
    Clock, Controller, ControllerConfig, Device, DeviceConfig, IpSuite, Module, Stats,
};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// What the process prints when every controller exchanges data.
pub(super) const ALL_UP: &str = "all exchange data";
/// Octets of data each way.
const DATA: u16 = 40;
/// From the start of one controller to that of the next, beside a part of a cycle, so that
/// frames do not come all at once.
const APART: Duration = Duration::from_millis(50);
/// How long releasing an AR may take.
const GOODBYE: Duration = Duration::from_secs(3);
/// Stations of a kind: their addresses have to fit.
const MOST: usize = 100;

/// Simulated stations on an interface, until SIGTERM; what they measured is JSON
#[derive(Debug, Args)]
pub(crate) struct Stations {
    kind: Kind,
    #[arg(long, default_value = "eth0")]
    interface: String,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST as i64))]
    count: u32,
    /// Cycle in milliseconds, a power of two
    #[arg(long, default_value_t = 32)]
    cycle: u16,
    /// Cycles without a frame until an AR is aborted
    #[arg(long, default_value_t = 3)]
    factor: u16,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Devices,
    Controllers,
}

/// A device and its controller.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) device: String,
    pub(super) controller: String,
    pub(super) controller_mac: Mac,
    device_mac: Mac,
    device_ip: Ipv4Addr,
    controller_ip: Ipv4Addr,
}

pub(super) fn names(count: usize) -> Vec<Names> {
    let one = |number: u8| Names {
        device: format!("drive-{number}"),
        controller: format!("plc-{number}"),
        controller_mac: Mac([0x02, 0, 0, 0, 1, number]),
        device_mac: Mac([0x02, 0, 0, 0, 2, number]),
        controller_ip: Ipv4Addr::new(192, 168, 0, number),
        device_ip: Ipv4Addr::new(192, 168, 0, 100 + number),
    };
    (1..=count.min(MOST) as u8).map(one).collect()
}

#[expect(
    clippy::large_enum_variant,
    reason = "a handful, for as long as the process lives"
)]
enum Station {
    Device(Device),
    Controller(Controller),
}

struct Member {
    names: Names,
    starts: Instant,
    station: Option<Station>,
    first_up: Option<Instant>,
}

impl Stations {
    pub(crate) fn run(&self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(self.live())
    }

    async fn live(&self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let mut socket = PacketSocket::open(&self.interface, Filter::default())
            .map_err(|error| error.to_string())?;
        let start = Instant::now();
        let cycle = Duration::from_millis(self.cycle.into());
        let mut members = Vec::new();
        socket
            .join(Mac::DCP_IDENTIFY)
            .map_err(|error| error.to_string())?;
        for (index, names) in names(self.count as usize).into_iter().enumerate() {
            socket
                .join(self.mac(&names))
                .map_err(|error| error.to_string())?;
            let index = index as u32;
            let apart = APART.max(cycle) + cycle / self.count;
            members.push(Member {
                names,
                starts: start + apart * index,
                station: None,
                first_up: None,
            });
        }
        let mut timer = Timer::new().map_err(text)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
        let mut all_up = false;
        let mut ends: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let mut due = ends.unwrap_or(now + Duration::from_secs(1));
            for member in &mut members {
                due = due.min(self.serve(member, now, &mut socket)?);
            }
            if !all_up && members.iter().all(|it| it.first_up.is_some()) {
                all_up = true;
                println!("{ALL_UP}");
            }
            if ends.is_some_and(|end| now >= end || members.iter().all(Member::is_stopped)) {
                break;
            }
            timer.set(Some(due)).map_err(text)?;
            tokio::select! {
                biased;
                _ = terminate.recv() => {
                    ends = Some(Instant::now() + GOODBYE);
                    // Before the goodbyes, which are no part of what is measured.
                    println!("{:#}", summary(&members, Instant::now()));
                    members.iter_mut().for_each(Member::stop);
                }
                expired = timer.expired() => expired.map_err(text)?,
                received = socket.recv(|frame| deliver(&mut members, frame)) => {
                    heard(received.map(drop))?;
                }
            }
        }
        Ok(())
    }

    fn mac(&self, names: &Names) -> Mac {
        match self.kind {
            Kind::Devices => names.device_mac,
            Kind::Controllers => names.controller_mac,
        }
    }

    /// When the member is to be served again.
    fn serve(
        &self,
        member: &mut Member,
        now: Instant,
        socket: &mut PacketSocket,
    ) -> Result<Instant, String> {
        let far = now + Duration::from_secs(1);
        if member.station.is_none() {
            if member.starts > now {
                return Ok(member.starts);
            }
            member.station = Some(self.make(&member.names, now)?);
        }
        let due = match &mut member.station {
            Some(Station::Device(device)) => {
                device.handle_timeout(now);
                while let Some(frame) = device.poll_transmit() {
                    heard(socket.try_send(&[frame]).map(drop))?;
                }
                while device.poll_event().is_some() {}
                device.poll_timeout()
            }
            Some(Station::Controller(controller)) => {
                controller.handle_timeout(now);
                while let Some(frame) = controller.poll_transmit() {
                    heard(socket.try_send(&[frame]).map(drop))?;
                }
                while let Some(event) = controller.poll_event() {
                    eprintln!(
                        "{} {:?} {event}",
                        member.names.controller,
                        now - member.starts
                    );
                }
                controller.poll_timeout()
            }
            None => None,
        };
        if member.first_up.is_none() && member.stats().is_some_and(|stats| stats.established > 0) {
            member.first_up = Some(now);
        }
        Ok(due.unwrap_or(far))
    }

    fn make(&self, names: &Names, now: Instant) -> Result<Station, String> {
        let modules = vec![Module::input(DATA), Module::output(DATA)];
        let clock = clock();
        let seed = self.seed << 32 | now.duration_since(clock.epoch).as_nanos() as u64;
        Ok(match self.kind {
            Kind::Devices => {
                let ip = IpSuite::local(names.device_ip);
                let config = DeviceConfig {
                    modules,
                    seed,
                    ..DeviceConfig::new(names.device_mac, &names.device, ip, clock)
                };
                Station::Device(Device::new(config, now))
            }
            Kind::Controllers => {
                let ip = IpSuite::local(names.controller_ip);
                let (name, device) = (&names.controller, &names.device);
                let config = ControllerConfig {
                    modules,
                    // A send clock of 1 ms times the reduction ratio.
                    send_clock: 32,
                    reduction_ratio: self.cycle,
                    watchdog_factor: self.factor,
                    seed,
                    ..ControllerConfig::new(names.controller_mac, name, ip, device, clock)
                };
                let made = Controller::new(config, now);
                Station::Controller(made.map_err(|error| error.to_string())?)
            }
        })
    }
}

impl Member {
    fn stats(&self) -> Option<&Stats> {
        self.station.as_ref().map(|station| match station {
            Station::Device(device) => device.stats(),
            Station::Controller(controller) => controller.stats(),
        })
    }

    fn stop(&mut self) {
        if let Some(Station::Controller(controller)) = &mut self.station {
            controller.stop(Instant::now());
        }
    }

    fn is_stopped(&self) -> bool {
        match &self.station {
            Some(Station::Controller(controller)) => controller.is_stopped(),
            Some(Station::Device(_)) | None => true,
        }
    }
}

fn deliver(members: &mut [Member], frame: &[u8]) {
    let now = Instant::now();
    let Some(to) = frame.first_chunk().copied().map(Mac) else {
        return;
    };
    let is_for = |mac: Mac| to == mac || to.0[0] & 1 == 1;
    for member in members {
        let names = &member.names;
        match &mut member.station {
            Some(Station::Device(device)) if is_for(names.device_mac) => {
                device.handle_frame(now, frame);
            }
            Some(Station::Controller(controller)) if is_for(names.controller_mac) => {
                controller.handle_frame(now, frame);
            }
            Some(_) | None => {}
        }
    }
}

/// What finds no room in the interface's queue is lost, as on a wire.
fn heard(done: Result<(), LinkError>) -> Result<(), String> {
    match done {
        Ok(()) | Err(LinkError::Down) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The clock of stamps: this machine's monotonic one, so that processes share it.
fn clock() -> Clock {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since_boot = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    let here = Instant::now();
    Clock {
        epoch: here.checked_sub(since_boot).unwrap_or(here),
    }
}

/// Sums over the stations; durations in microseconds.
fn summary(members: &[Member], now: Instant) -> Value {
    let all = || members.iter().filter_map(Member::stats);
    let sum = |of: fn(&Stats) -> u64| all().map(of).sum::<u64>();
    let up: Duration = all().map(|stats| stats.up(now)).sum();
    let firsts = members.iter().filter_map(|it| it.first_up);
    let since_up: Duration = firsts.map(|first| now - first).sum();
    let ages = merged(all().map(|stats| stats.consumed.age.histogram()));
    let gaps = merged(all().map(|stats| stats.consumed.gap.histogram()));
    json!({
        "up_us": up.as_micros() as u64,
        "since_up_us": since_up.as_micros() as u64,
        "established": sum(|stats| stats.established),
        "aborts": sum(|stats| stats.aborts),
        "sent": sum(|stats| stats.sent),
        "skipped": sum(|stats| stats.skipped),
        "accepted": sum(|stats| stats.consumed.accepted),
        "repeated": sum(|stats| stats.consumed.repeated),
        "age": ages,
        "gap": gaps,
    })
}

fn merged<'a>(all: impl Iterator<Item = &'a Histogram<u64>>) -> Value {
    let mut all = all.peekable();
    let Some(mut merged) = all.peek().map(|first| Histogram::new_from(first)) else {
        return Value::Null;
    };
    // They have the same bounds, so that nothing is lost.
    all.for_each(|one| merged.add(one).unwrap_or_default());
    json!({
        "p50": merged.value_at_quantile(0.5),
        "p99": merged.value_at_quantile(0.99),
        "p999": merged.value_at_quantile(0.999),
        "max": merged.max(),
    })
}
