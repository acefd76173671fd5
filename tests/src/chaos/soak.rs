//! A long time of everyday changes: clients come and go, tunnels are lost, policies and certificates
//! are taken up anew, audit logs begin new files. Memory and descriptors must not grow.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::fault::open_files;
use super::field::{Field, Setup};
use super::ledger::Account;
use super::load::{Load, Plan};
use crate::{Agent, OPEN_POLICY, Role, Site, Transport, resident};

/// Between one change and the next.
const PACE: Duration = Duration::from_millis(700);

/// Of one agent at one time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Seconds since the start.
    at: f64,
    octets: f64,
    descriptors: f64,
}

/// By how much an agent grew, by the straight line that fits its samples best.
#[derive(Debug, Clone)]
pub struct Growth {
    pub agent: String,
    pub octets_at_first: f64,
    /// From the first sample to the last.
    pub octets: f64,
    pub descriptors: f64,
}

#[derive(Debug)]
pub struct Outcome {
    pub account: Account,
    pub growths: Vec<Growth>,
    /// Changes that were made after the warm-up.
    pub changes: u32,
}

/// The first third warms up, at most a minute: buffers and tables grow to what the load takes. Then
/// there is a sample after each change.
pub fn run(transport: Transport, lasting: Duration, seed: u64) -> Outcome {
    let audit = "[audit]\nsegment_size = \"64KiB\"\nmax_size = \"1MiB\"\n";
    let mut field = Field::start(&Setup {
        seed,
        headend_more: audit.to_owned(),
        edge_more: audit.to_owned(),
        ..Setup::new(transport)
    });
    field.wait_up();
    let load = Load::start(
        field.clients(),
        &Plan {
            clients: 8,
            pause: Duration::from_millis(5),
            requests_each: 20,
            ..field.plan()
        },
    );
    let start = Instant::now();
    let warm = (lasting / 3).min(Duration::from_secs(60));
    let mut samples = [Vec::new(), Vec::new()];
    let mut changes = 0;
    for number in 0.. {
        if start.elapsed() >= lasting {
            break;
        }
        change(&mut field, number);
        sleep(PACE);
        if start.elapsed() >= warm {
            changes += 1;
            let at = start.elapsed().as_secs_f64();
            let processes = [field.headends[0].process().id(), field.edge.process().id()];
            for (samples, process) in samples.iter_mut().zip(processes) {
                samples.push(Sample {
                    at,
                    octets: resident(process) as f64,
                    descriptors: open_files(process) as f64,
                });
            }
        }
    }
    let ended = Instant::now();
    let growths = samples.iter().zip(["headend", "edge"]);
    let growths = growths
        .map(|(samples, agent)| growth(agent, samples))
        .collect();
    let notes = load.stop();
    field.wait_up();
    for agent in field.headends.iter_mut().chain([&mut field.edge]) {
        assert_eq!(agent.terminate().code(), Some(0), "{}", agent.name());
    }
    Outcome {
        account: Account::of(&notes, &field.plc.made(), ended),
        growths,
        changes,
    }
}

/// One change after the other.
fn change(field: &mut Field, number: u32) {
    match number % 4 {
        0 => {
            let policy = format!("{OPEN_POLICY}# {number}\n");
            field.edge.write_policy(&policy);
            field.headends[0].write_policy(&policy);
        }
        // The edge dials anew.
        1 => renew(&field.edge, Role::Edge, number),
        2 => renew(&field.headends[0], Role::Headend, number),
        // The tunnel is lost, without a word.
        _ => {
            field.change_wire("--cut 0s-1h");
            sleep(Duration::from_secs(3));
            field.change_wire("");
        }
    }
}

/// Two certificates in turns.
fn renew(agent: &Agent, role: Role, number: u32) {
    let minutes = 60 * 24 + i64::from(number / 4 % 2);
    let identity = Site::shared().identity_between(role, agent.name(), -5, minutes);
    for file in ["identity/key.pem", "identity/chain.pem"] {
        let to = agent.state().join(file);
        let new = to.with_extension("new");
        fs::copy(identity.join(file), &new).unwrap();
        fs::rename(new, to).unwrap();
    }
}

/// Least squares.
fn growth(agent: &str, samples: &[Sample]) -> Growth {
    let count = samples.len().max(1) as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let middle = mean(|it| it.at);
    let spread: f64 = samples.iter().map(|it| (it.at - middle).powi(2)).sum();
    let slope = |of: fn(&Sample) -> f64| {
        let products = samples.iter().map(|it| (it.at - middle) * of(it));
        if spread > 0.0 {
            products.sum::<f64>() / spread
        } else {
            0.0
        }
    };
    let time = match samples {
        [first, .., last] => last.at - first.at,
        _ => 0.0,
    };
    Growth {
        agent: agent.to_owned(),
        octets_at_first: samples.first().map_or(0.0, |it| it.octets),
        octets: slope(|it| it.octets) * time,
        descriptors: slope(|it| it.descriptors) * time,
    }
}

impl Growth {
    /// Each change brings a new tunnel or a new policy, and more than a hundred connections of
    /// clients: what is kept of each shows. A tunnel is some 60 KiB, a compiled policy or a
    /// certificate some 10 KiB; what the allocator and the system do is below 1 MiB.
    pub fn is_flat(&self) -> bool {
        self.octets < f64::from(1 << 20) && self.descriptors < 4.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_slope_of_the_line_that_fits_best() {
        let sample = |at: u8| Sample {
            at: f64::from(at),
            octets: 1e6 * f64::from(at) + f64::from(at % 2),
            descriptors: 20.0 + f64::from(at % 2),
        };
        let samples: Vec<Sample> = (10..=20).map(sample).collect();
        let growth = growth("edge", &samples);
        assert!((growth.octets - 1e7).abs() < 10.0, "{growth:?}");
        assert!(growth.descriptors.abs() < 0.2, "{growth:?}");
    }
}
