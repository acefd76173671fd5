//! Rules that let through only so much.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use fieldlock_modbus::Request;
use fieldlock_policy::{
    Asked, Client, Decision, Now, Origin, Policy, Side, View, ceiling, explain,
};

const RATES: &str = r#"
syntax = 1
[[allow]]
name = "slow writes"
device = "press-07"
function = [6, 23]
address = "holding 0-99"
rate = { count = 10, per = "1m", burst = 2 }

[[allow]]
name = "setpoint"
device = "press-07"
function = 6
address = "holding 40"

[[allow]]
name = "reads"
device = "press-07"
function = [3, 23]
address = "holding 200-299"
rate = { per_second = 100 }
"#;

#[test]
fn an_allow_without_a_rate_decides_before_one_with_a_rate() {
    let (policy, view) = view();
    for (pdu, rule, rate) in [
        (&[6, 0, 40, 0, 1][..], "setpoint", None),
        (
            &[6, 0, 41, 0, 1],
            "slow writes",
            Some("10 in 60s and 2 at once"),
        ),
        (&[3, 0, 200, 0, 1], "reads", Some("100 in 1s")),
    ] {
        let Decision::Allow { rule: by, read, .. } = view.decide(1, &Request::parse(pdu).unwrap())
        else {
            panic!("{pdu:?} is refused");
        };
        assert_eq!((policy.rule_name(by), read), (rule, None));
        let found = view.rate(by).map(|rate| rate.to_string());
        assert_eq!(found.as_deref(), rate, "{pdu:?}");
    }
}

#[test]
fn function_23_names_the_rules_of_both_halves() {
    let (policy, view) = view();
    let pdu = [23, 0, 200, 0, 1, 0, 41, 0, 1, 2, 0, 1];
    let decision = view.decide(1, &Request::parse(&pdu).unwrap());
    let Decision::Allow { rule, read, .. } = decision else {
        panic!("{decision:?}");
    };
    assert_eq!(policy.rule_name(rule), "slow writes");
    assert_eq!(policy.rule_name(read.unwrap()), "reads");
}

#[test]
fn the_reason_is_that_of_the_rule_that_comes_closest() {
    let (_, view) = view();
    for (pdu, reason) in [
        (&[3, 0, 1, 0, 1][..], "holding 1 outside every range"),
        (&[6, 1, 0, 0, 1], "holding 256 outside every range"),
        (&[16, 0, 40, 0, 1, 2, 0, 1], "no rule for function 16"),
    ] {
        let Decision::Refuse(refusal) = view.decide(1, &Request::parse(pdu).unwrap()) else {
            panic!("{pdu:?} is allowed");
        };
        assert_eq!(refusal.reason.to_string(), reason);
    }
}

#[test]
fn a_rate_is_an_interval_and_a_burst() {
    let (_, view) = view();
    let rate = |pdu: &[u8]| match view.decide(1, &Request::parse(pdu).unwrap()) {
        Decision::Allow { rule, .. } => view.rate(rule).unwrap(),
        refused @ Decision::Refuse(_) => panic!("{refused:?}"),
    };
    let (slow, fast) = (rate(&[6, 0, 41, 0, 1]), rate(&[3, 0, 200, 0, 1]));
    assert_eq!((slow.interval(), slow.burst()), (Duration::from_secs(6), 2));
    let interval = Duration::from_millis(10);
    assert_eq!((fast.interval(), fast.burst()), (interval, 100));
}

#[test]
fn people_are_told_of_the_rate() {
    let (policy, _) = view();
    let text = ceiling(&policy, None).to_string();
    let grant = "function 3, 23 at holding 200-299, at most 100 in 1s  by \"reads\"";
    assert!(text.contains(grant), "{text}");
    let asked = Asked {
        device: "press-07",
        unit: 1,
        request: &Request::parse(&[6, 0, 41, 0, 1]).unwrap(),
        now: Now::Unknown,
    };
    let text = explain(&policy, &HEADEND, asked).to_string();
    let verdict = "> allow \"slow writes\": covers the request, at most 10 in 60s and 2 at once";
    assert!(text.contains(verdict), "{text}");
}

const HEADEND: Origin<'static> = Origin {
    side: Side::Headend,
    via: None,
    client: Client {
        address: None,
        identity: None,
        role: None,
    },
};

fn view() -> (Policy, std::sync::Arc<View>) {
    let policy = Policy::parse(RATES, "rates.toml").unwrap();
    let view = policy.view(&HEADEND, "press-07", &policy.phase(Now::Unknown));
    (policy, view)
}
