//! Rows of Markdown.

use std::time::Duration;

use fieldlock_tests::Transport;
use fieldlock_tests::chaos::fault::Fault;
use fieldlock_tests::chaos::ledger::{Account, Wrongs};
use fieldlock_tests::chaos::{kill, soak, trial};

pub(crate) const MATRIX: &str = "\
| fault | transport | requests | good | exceptions | no answer | p50 / p99 / max ms | longest outage s | first good answer after the end, s | tunnel before, during, after | writes twice / misreported | outcome unknown (made) |
|---|---|---|---|---|---|---|---|---|---|---|---|";

pub(crate) const KILLS: &str = "\
| transport | kills of headend, edge | requests | good | exceptions | no answer | longest outage s | writes twice / misreported | outcome unknown (made) |
|---|---|---|---|---|---|---|---|---|";

pub(crate) const SOAK: &str = "\
| transport | agent | changes | requests | good | KiB at first | growth KiB | growth of descriptors | writes twice / misreported |
|---|---|---|---|---|---|---|---|---|";

pub(crate) fn matrix(fault: &Fault, transport: Transport, outcome: &trial::Outcome) -> String {
    let account = &outcome.account;
    let [before, during, after] = outcome.transports.each_ref().map(|it| match it.as_str() {
        "" => "none",
        some => some,
    });
    let back = match account.back {
        Some(back) => seconds(back),
        None => "never".into(),
    };
    let returned = outcome
        .returned
        .map(|it| format!(" (QUIC after {} s)", seconds(it)));
    format!(
        "| {} | {transport} | {} | {} | {} | {} | {} / {} / {} | {} | {back} | {before}, {during}, {after}{} | {} | {} |",
        fault.name,
        account.requests,
        account.good,
        exceptions(account),
        account.nothing,
        millis(account.p50),
        millis(account.p99),
        millis(account.longest),
        seconds(account.outage),
        returned.unwrap_or_default(),
        wrongs(&account.wrongs),
        unknown(account),
    )
}

pub(crate) fn kills(transport: Transport, outcome: &kill::Outcome) -> String {
    let account = &outcome.account;
    format!(
        "| {transport} | {}, {} | {} | {} | {} | {} | {} | {} | {} |",
        outcome.kills[0],
        outcome.kills[1],
        account.requests,
        account.good,
        exceptions(account),
        account.nothing,
        seconds(account.outage),
        wrongs(&account.wrongs),
        unknown(account),
    )
}

pub(crate) fn soak(transport: Transport, outcome: &soak::Outcome) -> String {
    let row = |growth: &soak::Growth| {
        format!(
            "| {transport} | {} | {} | {} | {} | {:.0} | {:+.0} | {:+.1} | {} |",
            growth.agent,
            outcome.changes,
            outcome.account.requests,
            outcome.account.good,
            growth.octets_at_first / 1024.0,
            growth.octets / 1024.0,
            growth.descriptors,
            wrongs(&outcome.account.wrongs),
        )
    };
    let rows: Vec<String> = outcome.growths.iter().map(row).collect();
    rows.join("\n")
}

fn exceptions(account: &Account) -> String {
    let each = account.exceptions.iter();
    let each: Vec<String> = each
        .map(|(code, count)| format!("{count} x {code:#04x}"))
        .collect();
    match each.is_empty() {
        true => "0".into(),
        false => each.join(", "),
    }
}

fn wrongs(wrongs: &Wrongs) -> String {
    let Wrongs {
        twice,
        not_made,
        made_anyway,
        answers,
        invented,
    } = wrongs;
    format!(
        "{} / {}",
        twice,
        not_made + made_anyway + answers + invented
    )
}

fn unknown(account: &Account) -> String {
    format!("{} ({})", account.unknown, account.unknown_made)
}

fn millis(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1e3)
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}
