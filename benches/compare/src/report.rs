//! Medians over the rounds, as tables and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::contender::Kind;
use crate::load::Window;
use crate::rounds::{Measurement, Results};
use crate::shape::Shape;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rounds: usize,
    /// Share of the time that the machine's host gave to others while measuring.
    stolen: f64,
    left_out: Vec<LeftOut>,
    shapes: Vec<ShapeReport>,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    contender: Kind,
    why: String,
}

#[derive(Debug, Serialize)]
struct ShapeReport {
    shape: Shape,
    rows: Vec<Row>,
}

/// One contender in one shape: medians over the rounds, and the rounds.
#[derive(Debug, Serialize)]
struct Row {
    contender: Kind,
    median: Figures,
    /// Medians of the ratios within a round; absent for what was not measured.
    of_direct: Option<Ratios>,
    of_floor: Option<Ratios>,
    errors: usize,
    first_error: Option<String>,
    rounds: Vec<Figures>,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Figures {
    requests_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Milliseconds of both relays per 1,000 requests.
    cpu_ms_per_1000: f64,
    resident_mib: f64,
}

/// This contender's figure divided by the other's, with the least and the greatest round.
#[derive(Debug, Serialize)]
struct Ratios {
    requests_per_second: Spread,
    p50: Spread,
}

#[derive(Debug, Serialize)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Report {
    pub(crate) fn of(results: &Results) -> Self {
        let all = &results.measurements;
        let mut shapes: Vec<ShapeReport> = Vec::new();
        for one in all.iter().filter(|one| one.round == 0) {
            let row = Row::of(all, one.shape, one.kind);
            match shapes.iter_mut().find(|report| report.shape == one.shape) {
                Some(report) => report.rows.push(row),
                None => shapes.push(ShapeReport {
                    shape: one.shape,
                    rows: vec![row],
                }),
            }
        }
        let left_out = results.left_out.iter().map(|(kind, why)| LeftOut {
            contender: *kind,
            why: why.clone(),
        });
        Self {
            rounds: all
                .iter()
                .map(|one| usize::from(one.round) + 1)
                .max()
                .unwrap_or(0),
            stolen: results.stolen,
            left_out: left_out.collect(),
            shapes,
        }
    }
}

impl Row {
    fn of(all: &[Measurement], shape: Shape, kind: Kind) -> Self {
        let own: Vec<&Measurement> = windows(all, shape, kind).collect();
        let rounds: Vec<Figures> = own.iter().map(|one| Figures::of(&one.window)).collect();
        let errors = || own.iter().flat_map(|one| &one.window.errors);
        Self {
            contender: kind,
            median: Figures {
                cpu_ms_per_1000: cpu_of_all(&own),
                ..Figures::median(&rounds)
            },
            of_direct: Ratios::of(all, shape, kind, Kind::Direct),
            of_floor: Ratios::of(all, shape, kind, Kind::Floor),
            errors: errors().count(),
            first_error: errors().next().cloned(),
            rounds,
        }
    }
}

/// Over all rounds together: the kernel counts in ticks of 10 ms, coarse for one round.
fn cpu_of_all(own: &[&Measurement]) -> f64 {
    let cpu: Duration = own.iter().map(|one| one.window.usage.cpu).sum();
    let requests: usize = own.iter().map(|one| one.window.latencies.len()).sum();
    cpu.as_secs_f64() * 1e6 / requests.max(1) as f64
}

impl Figures {
    fn of(window: &Window) -> Self {
        let count = window.latencies.len() as f64;
        let at_least_one = count.max(1.0);
        Self {
            requests_per_second: count / window.elapsed.as_secs_f64().max(1e-9),
            p50_us: microseconds(quantile(&window.latencies, 0.50)),
            p99_us: microseconds(quantile(&window.latencies, 0.99)),
            cpu_ms_per_1000: window.usage.cpu.as_secs_f64() * 1e6 / at_least_one,
            resident_mib: window.usage.resident as f64 / f64::from(1 << 20),
        }
    }

    fn median(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            requests_per_second: of(|one| one.requests_per_second),
            p50_us: of(|one| one.p50_us),
            p99_us: of(|one| one.p99_us),
            cpu_ms_per_1000: of(|one| one.cpu_ms_per_1000),
            resident_mib: of(|one| one.resident_mib),
        }
    }
}

impl Ratios {
    fn of(all: &[Measurement], shape: Shape, kind: Kind, base: Kind) -> Option<Self> {
        let pairs = windows(all, shape, kind).filter_map(|own| {
            let other = windows(all, shape, base).find(|other| other.round == own.round)?;
            Some((Figures::of(&own.window), Figures::of(&other.window)))
        });
        let pairs: Vec<(Figures, Figures)> = pairs.collect();
        let ratios = |figure: fn(&Figures) -> f64| {
            let ratio = |(own, other): &(Figures, Figures)| figure(own) / figure(other);
            pairs
                .iter()
                .map(ratio)
                .filter(|ratio| ratio.is_finite())
                .collect()
        };
        Some(Self {
            requests_per_second: Spread::of(ratios(|one| one.requests_per_second))?,
            p50: Spread::of(ratios(|one| one.p50_us))?,
        })
    }
}

impl Spread {
    fn of(ratios: Vec<f64>) -> Option<Self> {
        Some(Self {
            least: ratios.iter().copied().reduce(f64::min)?,
            greatest: ratios.iter().copied().reduce(f64::max)?,
            median: median(ratios),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for report in &self.shapes {
            writeln!(f, "{}", report.shape.title())?;
            writeln!(
                f,
                "{:17} {:>8} {:>8} {:>8} {:>9} {:>7}  {:>17} {:>17} {:>17} {:>17} {:>6}",
                "",
                "req/s",
                "p50 us",
                "p99 us",
                "ms/1000",
                "MiB",
                "req/s of direct",
                "req/s x floor",
                "p50 x direct",
                "p50 x floor",
                "errors"
            )?;
            for row in &report.rows {
                row.line(f)?;
            }
            writeln!(f)?;
        }
        for row in self.shapes.iter().flat_map(|report| &report.rows) {
            if let Some(error) = &row.first_error {
                writeln!(f, "first error of {}: {error}", row.contender.name())?;
            }
        }
        for left_out in &self.left_out {
            writeln!(
                f,
                "left out: {}: {}",
                left_out.contender.name(),
                left_out.why
            )?;
        }
        write!(
            f,
            "Medians of {} rounds; ratios are taken within a round, (least-greatest) of the rounds. \
             ms/1000: CPU of both relays per 1,000 requests, all rounds together. MiB: resident, both relays. \
             {:.0} % of the machine's time was stolen by its host meanwhile.",
            self.rounds,
            self.stolen * 100.0
        )
    }
}

impl Row {
    fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = &self.median;
        write!(
            f,
            "{:17} {:>8.0} {:>8.0} {:>8.0}",
            self.contender.name(),
            median.requests_per_second,
            median.p50_us,
            median.p99_us
        )?;
        if self.contender == Kind::Direct {
            return writeln!(f, " {:>9} {:>7}  {:>78}", "-", "-", self.errors);
        }
        write!(
            f,
            " {:>9.1} {:>7.1} ",
            median.cpu_ms_per_1000, median.resident_mib
        )?;
        let rates =
            |ratios: &Option<Ratios>| text(ratios.as_ref().map(|one| &one.requests_per_second));
        let halves = |ratios: &Option<Ratios>| text(ratios.as_ref().map(|one| &one.p50));
        writeln!(
            f,
            " {:>17} {:>17} {:>17} {:>17} {:>6}",
            rates(&self.of_direct),
            rates(&self.of_floor),
            halves(&self.of_direct),
            halves(&self.of_floor),
            self.errors
        )
    }
}

fn text(spread: Option<&Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |one| format!("{:.2} ({:.2}-{:.2})", one.median, one.least, one.greatest),
    )
}

fn windows(all: &[Measurement], shape: Shape, kind: Kind) -> impl Iterator<Item = &Measurement> {
    all.iter()
        .filter(move |one| one.shape == shape && one.kind == kind)
}

/// `sorted` ascending; zero when there is none.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share) as usize;
    let place = place.min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The middle one, or the mean of the middle two; zero when there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(round: u16, kind: Kind, micros: u64) -> Measurement {
        let window = Window {
            latencies: vec![Duration::from_micros(micros); 1_000],
            elapsed: Duration::from_micros(1_000 * micros),
            ..Window::default()
        };
        Measurement {
            round,
            shape: Shape::One,
            kind,
            window,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is ten times slower in the second round; the ratio stays.
        let results = Results {
            measurements: vec![
                measurement(0, Kind::Direct, 100),
                measurement(0, Kind::Floor, 300),
                measurement(1, Kind::Floor, 3_000),
                measurement(1, Kind::Direct, 1_000),
            ],
            ..Results::default()
        };
        let report = Report::of(&results);
        let row = &report.shapes[0].rows[1];
        let ratios = row.of_direct.as_ref().unwrap();
        assert!((ratios.p50.least - 3.0).abs() < 1e-9 && (ratios.p50.greatest - 3.0).abs() < 1e-9);
        assert!((ratios.requests_per_second.median - 1.0 / 3.0).abs() < 1e-9);
        assert!((row.median.p50_us - 1_650.0).abs() < 1e-9);
        assert!(report.to_string().contains("3.00 (3.00-3.00)"));
    }

    #[test]
    fn medians_and_quantiles_of_little() {
        assert!(median(vec![]).abs() < 1e-9);
        assert!((median(vec![3.0, 1.0]) - 2.0).abs() < 1e-9);
        let some = [1, 2, 3].map(Duration::from_micros);
        assert_eq!(quantile(&some, 0.5), some[1]);
        assert_eq!(quantile(&some, 0.99), some[2]);
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
