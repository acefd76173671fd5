//! Cyclic data of PROFINET over bad networks, in virtual time.
//!
//! The same network, under the same seeds, once between the stations themselves ("bare") and once
//! between two agents, with each combination of the means of their cadence. A day of a relation
//! takes seconds. See `report.rs` for what is left out.

mod confirm;
mod half;
mod plan;
mod report;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use plan::{Contender, Network, Timing, Trouble};
use report::{FailSafe, Row};
use run::Case;

/// Measures the cadence of cyclic frames over bad networks, in virtual time.
#[derive(Debug, Parser)]
#[command(name = "fieldlock-bench-profinet")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every network, timing and contender. Exit code 1 if a consumer failed safe too late.
    Sweep(Sweep),
    Confirm(confirm::Confirm),
    Load(confirm::Load),
    #[command(hide = true)]
    Stations(confirm::Stations),
}

#[derive(Debug, Args)]
struct Sweep {
    /// Virtual minutes of each measurement
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
    /// Seeds, each a measurement of its own
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    seeds: Vec<u64>,
    /// Trials of the time to fail-safe, for each network, timing and contender there
    #[arg(long, default_value_t = 200)]
    trials: u32,
    /// Where the tables go; without it, to standard output
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Where the figures of each single measurement go
    #[arg(long)]
    csv: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Sweep(sweep) => run(&sweep),
        Command::Confirm(confirm) => confirm.run().map(|()| 0),
        Command::Load(load) => load.run().map(|()| 0),
        Command::Stations(stations) => stations.run().map(|()| 0),
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(beyond) => {
            eprintln!("error: {beyond} trials failed safe later than they may");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The number of trials that were beyond their bound.
fn run(sweep: &Sweep) -> Result<usize, String> {
    let rows = measure(
        &Timing::all(),
        &Network::all(),
        &sweep.seeds,
        Duration::from_secs(60) * sweep.minutes,
    )?;
    let trials = fail_safe(&Timing::all(), sweep.trials)?;
    let command = "cargo run -p fieldlock-bench-profinet --release -- sweep";
    let markdown = report::markdown(&rows, &trials, command);
    match &sweep.markdown {
        Some(path) => write(path, &markdown)?,
        None => println!("{markdown}"),
    }
    if let Some(path) = &sweep.csv {
        write(path, &report::csv(&rows))?;
    }
    Ok(trials.iter().map(FailSafe::beyond).sum())
}

fn write(path: &PathBuf, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn measure(
    timings: &[Timing],
    networks: &[Network],
    seeds: &[u64],
    lasted: Duration,
) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for timing in timings {
        for network in networks {
            for contender in Contender::all() {
                rows.push(Row {
                    timing: *timing,
                    network: *network,
                    contender,
                    outcomes: Vec::new(),
                });
            }
        }
    }
    let cases: Vec<Case> = rows
        .iter()
        .flat_map(|row| seeds.iter().map(|seed| row.case(*seed)))
        .collect();
    let mut outcomes = on_all_cores(&cases, |case| case.run(lasted))?.into_iter();
    for row in &mut rows {
        let of_row = outcomes.by_ref().take(seeds.len());
        row.outcomes = seeds.iter().copied().zip(of_row).collect();
    }
    Ok(rows)
}

/// On a good and on a bad network, with and without hold.
fn fail_safe(timings: &[Timing], trials: u32) -> Result<Vec<FailSafe>, String> {
    let networks = [(0.0, 0), (0.05, 20), (0.1, 100)].map(|(loss, jitter)| Network {
        trouble: Trouble::Loss(loss),
        jitter: Duration::from_millis(jitter),
    });
    let contenders = [(false, false), (true, false), (false, true), (true, true)];
    let contenders = contenders.map(|(play_out, hold)| Contender::Fieldlock {
        redundancy: 2,
        play_out,
        hold,
    });
    let mut rows = Vec::new();
    for timing in timings {
        for network in networks {
            for contender in contenders {
                let case = |seed| Case {
                    contender,
                    timing: *timing,
                    network,
                    seed: u64::from(seed),
                };
                let cases: Vec<Case> = (1..=trials).map(case).collect();
                let took = on_all_cores(&cases, Case::time_to_fail_safe)?;
                let bounds = cases.iter().map(Case::fail_safe_bound);
                rows.push(FailSafe {
                    timing: *timing,
                    network,
                    contender,
                    trials: took.into_iter().zip(bounds).collect(),
                });
            }
        }
    }
    Ok(rows)
}

/// In the order of the cases.
fn on_all_cores<T: Send>(
    cases: &[Case],
    work: impl Fn(&Case) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some(case) = cases.get(index)
        {
            done.push((index, work(case)));
        }
        done
    };
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    let done = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let joined = handles.into_iter().map(|handle| handle.join());
        joined
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| "a measurement panicked".to_owned())
    })?;
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        cycle: Duration::from_millis(32),
        factor: 3,
    };

    fn outcomes(trouble: Trouble, jitter: u64, minutes: u64) -> Vec<(Contender, run::Outcome)> {
        let network = Network {
            trouble,
            jitter: Duration::from_millis(jitter),
        };
        let lasted = Duration::from_secs(60 * minutes);
        let rows = measure(&[TIMING], &[network], &[7], lasted).unwrap();
        let outcome = |mut row: Row| (row.contender, row.outcomes.remove(0).1);
        rows.into_iter().map(outcome).collect()
    }

    fn aborts(outcomes: &[(Contender, run::Outcome)], wanted: Contender) -> u64 {
        let found = outcomes.iter().find(|(contender, _)| *contender == wanted);
        found.unwrap().1.aborts
    }

    const fn with(redundancy: u8, play_out: bool, hold: bool) -> Contender {
        Contender::Fieldlock {
            redundancy,
            play_out,
            hold,
        }
    }

    #[test]
    fn on_a_perfect_network_everyone_stays_up_and_data_is_as_old_as_its_way() {
        for (contender, outcome) in outcomes(Trouble::Loss(0.0), 0, 1) {
            assert_eq!(outcome.aborts, 0, "{contender:?}");
            assert_eq!(outcome.up, outcome.lasted);
            let network = Network {
                trouble: Trouble::Loss(0.0),
                jitter: Duration::ZERO,
            };
            let expected = plan::DELAY + contender.play_out(TIMING, &network).unwrap_or_default();
            let off = outcome.ages[0].abs_diff(expected);
            assert!(off < Duration::from_millis(1), "{contender:?}: {off:?}");
            assert_eq!(outcome.held, 0.0);
        }
    }

    #[test]
    fn redundancy_and_play_out_keep_up_what_losses_and_jitter_end() {
        let outcomes = outcomes(Trouble::Loss(0.05), 10, 60);
        assert!(aborts(&outcomes, Contender::Bare) > 5);
        assert!(aborts(&outcomes, with(0, false, false)) > 5);
        assert_eq!(aborts(&outcomes, with(5, true, false)), 0);
        assert_eq!(aborts(&outcomes, with(2, true, true)), 0);
    }

    #[test]
    fn play_out_outlives_a_blackout_that_a_watchdog_does_not_and_hold_a_longer_one() {
        let short = outcomes(Trouble::Blackouts(0.9), 5, 2);
        for contender in [Contender::Bare, with(2, false, false)] {
            assert!(aborts(&short, contender) >= 3, "{contender:?}");
        }
        assert_eq!(aborts(&short, with(0, true, false)), 0);
        assert_eq!(aborts(&short, with(2, true, false)), 0);
        let long = outcomes(Trouble::Blackouts(2.0), 5, 2);
        for contender in [Contender::Bare, with(2, true, false)] {
            assert!(aborts(&long, contender) >= 3, "{contender:?}");
        }
        assert_eq!(aborts(&long, with(2, true, true)), 0);
    }

    #[test]
    fn consumers_fail_safe_in_time_and_the_report_says_so() {
        let trials = fail_safe(&[TIMING], 20).unwrap();
        assert!(trials.iter().all(|row| row.beyond() == 0));
        let text = report::markdown(&[], &trials, "sweep");
        assert!(text.contains(
            "| 32 ms x 3 | loss 5 %, jitter 20 ms | redundancy 2 + play-out + hold | 20 |"
        ));
    }
}
