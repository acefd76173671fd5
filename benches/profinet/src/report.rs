//! Tables for people, lines for programs.

use std::fmt::Write;
use std::time::Duration;

use crate::plan::{Contender, DELAY, Network, Timing};
use crate::run::{Case, Outcome};

/// All measurements of one contender, network and timing, one for each seed.
pub(crate) struct Row {
    pub(crate) timing: Timing,
    pub(crate) network: Network,
    pub(crate) contender: Contender,
    pub(crate) outcomes: Vec<(u64, Outcome)>,
}

/// How long until the consumer failed safe, of many trials.
pub(crate) struct FailSafe {
    pub(crate) timing: Timing,
    pub(crate) network: Network,
    pub(crate) contender: Contender,
    /// Each with its bound.
    pub(crate) trials: Vec<(Duration, Duration)>,
}

impl FailSafe {
    pub(crate) fn beyond(&self) -> usize {
        let beyond = |(took, bound): &&(Duration, Duration)| took > bound;
        self.trials.iter().filter(beyond).count()
    }
}

pub(crate) fn csv(rows: &[Row]) -> String {
    let mut out = String::from(
        "cycle_ms,watchdog_factor,network,contender,seed,minutes,uptime_percent,aborts,\
         age_p50_ms,age_p99_ms,age_max_ms,held_percent,longest_hold_ms,repaired,octets_per_cycle\n",
    );
    for row in rows {
        for (seed, outcome) in &row.outcomes {
            let [p50, p99, max] = outcome.ages.map(millis);
            let _ = writeln!(
                out,
                "{},{},\"{}\",{},{seed},{:.1},{:.4},{},{p50:.2},{p99:.2},{max:.2},{:.3},{:.1},{},{:.0}",
                row.timing.cycle.as_millis(),
                row.timing.factor,
                row.network.name(),
                row.contender.name(),
                outcome.lasted.as_secs_f64() / 60.0,
                uptime(outcome),
                outcome.aborts,
                outcome.held * 100.0,
                millis(outcome.longest_hold),
                outcome.repaired,
                outcome.octets_per_cycle,
            );
        }
    }
    out
}

pub(crate) fn markdown(rows: &[Row], trials: &[FailSafe], command: &str) -> String {
    let mut out = String::new();
    let seeds: Vec<u64> = rows.first().map_or(Vec::new(), |row| {
        row.outcomes.iter().map(|(seed, _)| *seed).collect()
    });
    let minutes = rows
        .first()
        .and_then(|row| row.outcomes.first())
        .map_or(0.0, |(_, outcome)| outcome.lasted.as_secs_f64() / 60.0);
    let _ = write!(
        out,
        "# PROFINET over bad networks: measurements

Written by `{command}`; not by hand.

One application relation with 40 octets of data each way, in virtual time: a provider, the network,
a consumer with the watchdog rule of the standard, in both directions. Where a watchdog expires the
relation is down for 3 s, for the time that discovery, connection and parameters take. The
agents' own code carries the frames; agents and stations have no delay of their own, and the
simulated consumer is strict: its watchdog expires a nanosecond after its time. So these figures
show what the *cadence* does and nothing else; a real machine adds its own delays.

Every column has the same network under the same seeds ({seeds:?}), {minutes} minutes each. Networks
have {} ms of delay each way, jitter evenly spread, and never reorder. Losses in bursts are 2 % of all
frames.

- *Play-out* delays by D: 2 cycles (as many as are repeated, if those are more), plus the jitter.
- *Hold* repeats up to an age A of D + a round trip + W, at most 1.92 s: the consumer fails safe
  within A + W, and not within W.
- Ages are those of data when the consumer accepts it, repeated or not. An uptime without its age
  says little.

Redundancy without play-out is in the CSV alone: it changes nothing here, since a repaired frame
arrives together with a newer one.

A cell: uptime in %, aborts an hour, age p50 / p99 / greatest in ms.
",
        DELAY.as_millis()
    );
    for timing in Timing::all() {
        table(&mut out, rows, timing);
    }
    bandwidth(&mut out, rows);
    fail_safe(&mut out, trials);
    out
}

fn table(out: &mut String, rows: &[Row], timing: Timing) {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.timing == timing && !row.contender.is_redundancy_alone())
        .collect();
    let Some(first) = rows.first() else {
        return;
    };
    let _ = write!(
        out,
        "\n## Cycle {} ms, watchdog factor {} (W = {} ms)\n\n| network |",
        timing.cycle.as_millis(),
        timing.factor,
        timing.watchdog().as_millis()
    );
    let columns = rows
        .iter()
        .take_while(|row| row.network == first.network)
        .count();
    for row in rows.iter().take(columns) {
        let _ = write!(out, " {} |", row.contender.name());
    }
    let _ = write!(out, "\n|---|{}\n", "---|".repeat(columns));
    for line in rows.chunks(columns) {
        let Some(first) = line.first() else {
            continue;
        };
        let _ = write!(out, "| {} |", first.network.name());
        for row in line {
            let _ = write!(out, " {} |", cell(row));
        }
        out.push('\n');
    }
}

/// Over all seeds: the mean of uptime, the sum of aborts, the worst of ages.
fn cell(row: &Row) -> String {
    let count = row.outcomes.len().max(1) as f64;
    let outcomes = row.outcomes.iter().map(|(_, outcome)| outcome);
    let up = outcomes.clone().map(uptime).sum::<f64>() / count;
    let hours: f64 = outcomes
        .clone()
        .map(|outcome| outcome.lasted.as_secs_f64() / 3600.0)
        .sum();
    let aborts = outcomes.clone().map(|outcome| outcome.aborts).sum::<u64>() as f64 / hours;
    let [p50, p99, max] = [0, 1, 2].map(|which: usize| {
        let ages = outcomes
            .clone()
            .filter_map(|outcome| outcome.ages.get(which));
        millis(ages.max().copied().unwrap_or_default())
    });
    format!("{up:.2} · {aborts:.0}/h · {p50:.0} / {p99:.0} / {max:.0}")
}

fn bandwidth(out: &mut String, rows: &[Row]) {
    out.push_str(
        "\n## Octets per cycle and direction, on the network\n\nWith the headers of Ethernet, IPv4, \
         UDP and QUIC (72 octets).\n\n| | octets |\n|---|---|\n",
    );
    for contender in Contender::all() {
        let row = rows.iter().find(|row| row.contender == contender);
        if let Some((_, outcome)) = row.and_then(|row| row.outcomes.first()) {
            let _ = writeln!(
                out,
                "| {} | {:.0} |",
                contender.name(),
                outcome.octets_per_cycle
            );
        }
    }
}

fn fail_safe(out: &mut String, trials: &[FailSafe]) {
    out.push_str(
        "\n## Time to fail-safe\n\nThe provider dies at a random moment. From the sending of the \
         last data that the consumer accepted to the end of its watchdog. The bound is A + W with \
         hold, and else D + W + the longest one-way delay of the network + a cycle.\n\n\
         | cycle, factor | network | | trials | longest | bound | beyond |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in trials {
        let longest = row.trials.iter().map(|(took, _)| *took).max();
        let bound = row.trials.iter().map(|(_, bound)| *bound).max();
        let _ = writeln!(
            out,
            "| {} ms x {} | {} | {} | {} | {:.0} ms | {:.0} ms | {} |",
            row.timing.cycle.as_millis(),
            row.timing.factor,
            row.network.name(),
            row.contender.name(),
            row.trials.len(),
            millis(longest.unwrap_or_default()),
            millis(bound.unwrap_or_default()),
            row.beyond(),
        );
    }
}

fn uptime(outcome: &Outcome) -> f64 {
    outcome.up.as_secs_f64() / outcome.lasted.as_secs_f64() * 100.0
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Row {
    pub(crate) fn case(&self, seed: u64) -> Case {
        Case {
            contender: self.contender,
            timing: self.timing,
            network: self.network,
            seed,
        }
    }
}
