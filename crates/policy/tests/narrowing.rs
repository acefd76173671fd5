//! A policy narrowed by another, beyond what the model tells: rates, time windows, names.

#![allow(clippy::unwrap_used, clippy::panic)]

use fieldlock_modbus::Request;
use fieldlock_policy::{Client, Decision, Now, Origin, Policy, Side};

const WIDE: &str = r#"
syntax = 1
[[allow]]
name = "reads"
device = "any"
function = "read"
address = "any"
[[allow]]
name = "writes"
device = "any"
function = "write"
address = "any"
rate = { count = 100, per = "1m" }
[[allow]]
name = "early"
device = "any"
function = 5
address = "any"
time = { not_after = 2026-01-01T00:00:00Z }
"#;

const LOCAL: &str = r#"
syntax = 1
[[allow]]
name = "local reads"
device = "any"
function = "read"
address = ["holding 0-9"]
rate = { per_second = 5 }
[[allow]]
name = "local writes"
device = "any"
function = 6
address = ["holding 0-9"]
time = { not_before = 2026-02-01T00:00:00Z }
"#;

const JANUARY: i64 = 1_768_000_000;
const MARCH: i64 = 1_773_000_000;
const WRITE: &[u8] = &[6, 0, 1, 0, 1];
const READ: &[u8] = &[3, 0, 1, 0, 1];

#[test]
fn rates_of_both_count() {
    let policy = narrowed();
    for (pdu, rule, local, rates) in [
        (READ, "reads", "local reads", [None, Some("5 in 1s")]),
        (WRITE, "writes", "local writes", [Some("100 in 60s"), None]),
    ] {
        let view = policy.view(&ORIGIN, "press-07", &policy.phase(Now::At(MARCH)));
        let decision = view.decide(1, &Request::parse(pdu).unwrap());
        let Decision::Allow {
            rule: own,
            narrowing: Some((narrowing, None)),
            ..
        } = decision
        else {
            panic!("{decision:?}");
        };
        assert_eq!(policy.rule_name(own), rule);
        assert_eq!(policy.rule_name(narrowing), local);
        let found = [own, narrowing].map(|rule| view.rate(rule).map(|rate| rate.to_string()));
        assert_eq!(found.each_ref().map(Option::as_deref), rates);
    }
}

#[test]
fn time_windows_of_both_count() {
    let policy = narrowed();
    let decide = |time| {
        let view = policy.view(&ORIGIN, "press-07", &policy.phase(Now::At(time)));
        view.decide(1, &Request::parse(WRITE).unwrap())
    };
    let Decision::Refuse(refusal) = decide(JANUARY) else {
        panic!("allowed before its time");
    };
    assert_eq!(refusal.reason.to_string(), "outside its time window");
    assert_eq!(policy.rule_name(refusal.rule.unwrap()), "local writes");
    assert!(decide(MARCH).allowed());
    // It ends when the local window opens, though the wide policy changes at no such time.
    let phase = policy.phase(Now::At(JANUARY));
    assert!(phase.holds(Now::At(JANUARY + 1)) && !phase.holds(Now::At(MARCH)));
}

#[test]
fn an_empty_local_policy_lets_nothing_through_and_an_empty_wide_one_neither() {
    for (wide, local) in [(WIDE, "syntax = 1"), ("syntax = 1", LOCAL)] {
        let policy = parse(wide).narrowed_by(parse(local));
        let view = policy.view(&ORIGIN, "press-07", &policy.phase(Now::At(MARCH)));
        for pdu in [READ, WRITE] {
            assert!(!view.decide(1, &Request::parse(pdu).unwrap()).allowed());
        }
    }
}

const ORIGIN: Origin<'static> = Origin {
    side: Side::Edge,
    via: Some("hd-1"),
    client: Client {
        address: None,
        identity: None,
        role: None,
    },
};

fn narrowed() -> Policy {
    parse(WIDE).narrowed_by(parse(LOCAL))
}

fn parse(text: &str) -> Policy {
    Policy::parse(text, "policy.toml").unwrap()
}
