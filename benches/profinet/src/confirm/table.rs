//! Tables of what was measured in real time.

use super::carrier::Carrier;
use super::cell::Cell;
use super::trial::{Outcome, Spread, Trial};

pub(super) const CONFIRMED: &str = "\
| network, cycle x factor | carrier | seconds | up % | aborts | age p50 / p99 / max ms | gap p99 / max ms | repeated % |
|---|---|---|---|---|---|---|---|";

pub(super) const LOADED: &str = "\
| ARs | carrier | frames/s | age p50 / p99 / max us | added p50 / p99 us | octets per frame | processor ms per 1,000 frames |
|---|---|---|---|---|---|---|";

pub(super) fn confirmed(cell: &Cell, carrier: Carrier, outcome: &Outcome) -> String {
    let millis = |micros: u64| format!("{:.1}", micros as f64 / 1e3);
    let Outcome { age, gap, .. } = outcome;
    format!(
        "| {} | {carrier} | {:.0} | {:.2} | {} | {} / {} / {} | {} / {} | {:.2} |",
        cell.title(),
        outcome.lasted.as_secs_f64(),
        outcome.up * 100.0,
        outcome.aborts,
        millis(age.p50),
        millis(age.p99),
        millis(age.max),
        millis(gap.p99),
        millis(gap.max),
        outcome.repeated * 100.0,
    )
}

pub(super) fn loaded(trial: &Trial, outcome: &Outcome, bare: Option<Spread>) -> String {
    let Spread { p50, p99, max } = outcome.age;
    let added = |of: u64, bare: u64| of as i64 - bare as i64;
    let added = match bare {
        Some(bare) => format!("{} / {}", added(p50, bare.p50), added(p99, bare.p99)),
        None => "-".into(),
    };
    format!(
        "| {} | {} | {:.0} | {p50} / {p99} / {max} | {added} | {:.0} | {:.1} |",
        trial.ars,
        trial.carrier,
        outcome.rate,
        outcome.octets,
        outcome.processor / outcome.rate * 1e3,
    )
}
