//! One measurement in real time.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::carrier::Carrier;
use super::plant::{Place, Plant, Wire, processor_time};
use super::stations::ALL_UP;
use crate::plan::{Network, Timing, Trouble};

/// How long ARs may take to come up, on a network that loses a lot.
const FIRST: Duration = Duration::from_secs(60);
/// From there until rates are measured.
const SETTLED: Duration = Duration::from_secs(2);

/// A watchdog time that is just within the standard's.
const WIDE: Duration = Duration::from_millis(1_900);

#[derive(Debug)]
pub(super) struct Trial {
    pub(super) carrier: Carrier,
    pub(super) timing: Timing,
    pub(super) network: Network,
    pub(super) wire: Wire,
    pub(super) ars: usize,
}

/// Of age or gaps, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

#[derive(Debug)]
pub(super) struct Outcome {
    /// Share of the time since the first AR came up.
    pub(super) up: f64,
    pub(super) aborts: u64,
    /// Time since the first AR came up, as controllers see it.
    pub(super) lasted: Duration,
    /// The worse of both directions.
    pub(super) age: Spread,
    pub(super) gap: Spread,
    /// Share of accepted frames that repeat data.
    pub(super) repeated: f64,
    /// Frames per second that consumers accepted, both directions.
    pub(super) rate: f64,
    /// Of the carrier on its own wire, for each frame that was accepted; without a carrier, of
    /// the stations' wire.
    pub(super) octets: f64,
    /// Of the carrier's processes at both ends together, in milliseconds per second.
    pub(super) processor: f64,
}

impl Trial {
    pub(super) fn on_a_cable(carrier: Carrier, cycle: Duration, ars: usize) -> Self {
        Self {
            carrier,
            timing: Timing {
                cycle,
                // Wide, so that nothing aborts while it is measured.
                factor: WIDE.as_millis().div_euclid(cycle.as_millis().max(1)) as u32,
            },
            network: Network {
                trouble: Trouble::Loss(0.0),
                jitter: Duration::ZERO,
            },
            wire: None,
            ars,
        }
    }

    pub(super) fn run(
        &self,
        priority: u8,
        seed: u64,
        lasting: Duration,
    ) -> Result<Outcome, String> {
        let mut plant = Plant::new(priority)?;
        let plant = &mut plant;
        let workers = self
            .carrier
            .up(plant, &self.wire, self.timing, &self.network, self.ars)?;
        let devices = self.stations(plant, Place::Device, "devices", seed)?;
        let controllers = self.stations(plant, Place::Controller, "controllers", seed)?;
        plant
            .process(controllers)?
            .wait_log(ALL_UP, FIRST)
            .map_err(|error| error.to_string())?;
        std::thread::sleep(SETTLED);
        let before = self.costs(plant, &workers)?;
        let began = Instant::now();
        std::thread::sleep(lasting.saturating_sub(SETTLED));
        let after = self.costs(plant, &workers)?;
        let took = began.elapsed().as_secs_f64();
        let of_controllers = end(plant, controllers)?;
        let of_devices = end(plant, devices)?;
        let both = |key: &str| count(&of_controllers, key) + count(&of_devices, key);
        let since_up = count(&of_controllers, "since_up_us");
        let lasted = Duration::from_micros(since_up) / self.ars as u32;
        let accepted = both("accepted") as f64;
        let rate = accepted / lasted.as_secs_f64();
        Ok(Outcome {
            up: count(&of_controllers, "up_us") as f64 / since_up as f64,
            aborts: count(&of_controllers, "aborts"),
            lasted,
            age: worse(&of_controllers["age"], &of_devices["age"]),
            gap: worse(&of_controllers["gap"], &of_devices["gap"]),
            repeated: both("repeated") as f64 / accepted,
            rate,
            octets: (after.octets - before.octets) as f64 / (took * rate),
            processor: (after.processor - before.processor).as_secs_f64() * 1e3 / took,
        })
    }

    fn stations(
        &self,
        plant: &mut Plant,
        place: Place,
        kind: &str,
        seed: u64,
    ) -> Result<usize, String> {
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command: Command = plant.command(&this);
        command.args(["stations", kind, "--count", &self.ars.to_string()]);
        command.args(["--cycle", &self.timing.cycle.as_millis().to_string()]);
        command.args(["--factor", &self.timing.factor.to_string()]);
        command.args(["--seed", &seed.to_string()]);
        plant.start(place, kind, &mut command)
    }

    fn costs(&self, plant: &Plant, workers: &[usize]) -> Result<Costs, String> {
        let (place, interface) = match self.carrier {
            Carrier::Bare => (Place::Controller, "eth0"),
            Carrier::OpenVpn { .. } | Carrier::Fieldlock(_) => (Place::West, "wan"),
        };
        let (sent, received) = plant.octets(place, interface)?;
        let mut processor = Duration::ZERO;
        for worker in workers {
            processor += processor_time(plant.id(*worker)?)?;
        }
        Ok(Costs {
            octets: sent + received,
            processor,
        })
    }
}

struct Costs {
    octets: u64,
    processor: Duration,
}

/// Asks stations to end; what they measured.
fn end(plant: &mut Plant, stations: usize) -> Result<Value, String> {
    let process = plant.process(stations)?;
    process.terminate();
    process
        .wait_exit(Duration::from_secs(20))
        .map_err(|error| error.to_string())?;
    let log = process.log();
    let start = log.find("\n{").unwrap_or_default();
    let mut values = serde_json::Deserializer::from_str(&log[start..]).into_iter();
    match values.next() {
        Some(Ok(value)) => Ok(value),
        _ => Err(format!("stations said nothing\n{}", process.log_tail())),
    }
}

fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

fn worse(one: &Value, other: &Value) -> Spread {
    let of = |key| count(one, key).max(count(other, key));
    Spread {
        p50: of("p50"),
        p99: of("p99"),
        max: of("max"),
    }
}
