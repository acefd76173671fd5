//! The same in real time: real agents, real sockets, a wire that is as bad as in the sweep, and
//! OpenVPN beside them.
//!
//! - [`cell`]: the networks; [`carrier`]: who carries, and how it is set up.
//! - [`plant`]: namespaces, cables and processes; [`stations`]: the simulated ends.
//! - [`trial`]: one measurement; [`table`]: what is written of them.

mod carrier;
mod cell;
mod plant;
mod stations;
mod table;
mod trial;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use carrier::Carrier;
use cell::{CELLS, Cell};
pub(crate) use stations::Stations;
use trial::{Outcome, Trial};

/// Carriers that are compared on each bad network.
const CONTENDERS: &str = "bare,openvpn-udp,openvpn-tcp,fieldlock,fieldlock+r2+playout,\
     fieldlock+hold,fieldlock+r2+playout+hold,fieldlock+r5+playout,fieldlock+tls+r2+playout";
const LOADED: &str = "bare,openvpn-udp,openvpn-tcp,fieldlock,fieldlock+r2,fieldlock+tls";

/// Uptime and age of data over bad networks, of each carrier
#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// clean, loss-jitter, loss, bursts, jitter, blackouts [default: all]
    #[arg(long, value_delimiter = ',', value_parser = cell_of)]
    cells: Vec<Cell>,
    /// bare, openvpn-udp, openvpn-tcp, fieldlock[+tls][+rN][+playout][+hold]
    #[arg(long, value_delimiter = ',', default_value = CONTENDERS)]
    contenders: Vec<Carrier>,
    #[command(flatten)]
    how: How,
}

/// Latency, octets and processor time of each carrier on a perfect cable
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// ARs at once, 1 to 100
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    ars: Vec<usize>,
    /// Cycle in milliseconds, a power of two up to 512
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=512))]
    cycle: u64,
    /// Measurements of each carrier, in turns; the one with the median age at p50 is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,
    /// bare, openvpn-udp, openvpn-tcp, fieldlock[+tls][+rN]
    #[arg(long, value_delimiter = ',', default_value = LOADED)]
    contenders: Vec<Carrier>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Real-time priority (SCHED_FIFO) of all that takes part; 0: none
    #[arg(long, default_value_t = 10)]
    priority: u8,
    /// Where the table goes, row by row; without it, to standard output
    #[arg(long)]
    markdown: Option<PathBuf>,
}

impl Confirm {
    pub(crate) fn run(&self) -> Result<(), String> {
        let mut out = self.how.output()?;
        write(&mut out, table::CONFIRMED)?;
        let cells = match self.cells.is_empty() {
            true => &CELLS[..],
            false => &self.cells,
        };
        for cell in cells {
            for carrier in &self.contenders {
                let trial = Trial {
                    carrier: *carrier,
                    timing: cell.timing,
                    network: cell.network,
                    wire: Some(cell.wire(self.how.seed)),
                    ars: 1,
                };
                let outcome = self.how.measure(&trial)?;
                write(&mut out, &table::confirmed(cell, *carrier, &outcome))?;
            }
        }
        Ok(())
    }
}

impl Load {
    pub(crate) fn run(&self) -> Result<(), String> {
        let mut out = self.how.output()?;
        write(&mut out, table::LOADED)?;
        let cycle = Duration::from_millis(self.cycle);
        for ars in &self.ars {
            let trial = |carrier: &Carrier| Trial::on_a_cable(*carrier, cycle, *ars);
            let trials: Vec<Trial> = self.contenders.iter().map(trial).collect();
            let mut outcomes: Vec<Vec<Outcome>> = trials.iter().map(|_| Vec::new()).collect();
            for _ in 0..self.rounds {
                for (trial, outcomes) in trials.iter().zip(&mut outcomes) {
                    outcomes.push(self.how.measure(trial)?);
                }
            }
            let mut bare = None;
            for (trial, mut outcomes) in trials.iter().zip(outcomes) {
                outcomes.sort_by_key(|outcome| outcome.age.p50);
                let Some(median) = outcomes.get(outcomes.len() / 2) else {
                    continue;
                };
                if trial.carrier == Carrier::Bare {
                    bare = Some(median.age);
                }
                write(&mut out, &table::loaded(trial, median, bare))?;
            }
        }
        Ok(())
    }
}

impl How {
    fn output(&self) -> Result<Box<dyn Write>, String> {
        let Some(path) = &self.markdown else {
            return Ok(Box::new(std::io::stdout()));
        };
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Box::new(file))
    }

    fn measure(&self, trial: &Trial) -> Result<Outcome, String> {
        trial
            .run(self.priority, self.seed, Duration::from_secs(self.seconds))
            .map_err(|error| format!("{}: {error}", trial.carrier))
    }
}

fn write(out: &mut Box<dyn Write>, text: &str) -> Result<(), String> {
    let done = writeln!(out, "{text}").and_then(|()| out.flush());
    done.map_err(|error| format!("writing the table: {error}"))
}

fn cell_of(name: &str) -> Result<Cell, String> {
    let found = CELLS.iter().find(|cell| cell.name == name).copied();
    let known = || CELLS.map(|cell| cell.name).join(", ");
    found.ok_or_else(|| format!("the cells are {}", known()))
}
