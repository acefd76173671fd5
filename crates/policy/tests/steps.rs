//! Rules that let values move only so far.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use fieldlock_modbus::Request;
use fieldlock_policy::{
    Asked, Client, Decision, Now, Number, Origin, Policy, Side, View, ceiling, explain,
};

const STEPS: &str = r#"
syntax = 1
[[allow]]
name = "line"
device = "press-07"
unit = [1, 2]
function = ["read", "write"]
address = ["holding 0-99", "coil 0-15"]
step = { max = 50 }

[[allow]]
name = "masks"
device = "press-07"
unit = 2
function = 22
address = "holding 90-109"
step = { max = 3, within = "100ms" }

[[allow]]
name = "setpoint"
device = "press-07"
unit = 1
function = 6
address = "holding 40"
"#;

#[test]
fn an_allow_without_a_step_decides_before_one_with_a_step() {
    let (policy, view) = view(Side::Edge);
    for (unit, pdu, rule, step) in [
        (1, &[6, 0, 40, 0, 1][..], "setpoint", None),
        (1, &[6, 0, 41, 0, 1], "line", Some((50, 10_000))),
        (2, &[22, 0, 99, 0, 1, 0, 1], "masks", Some((3, 100))),
    ] {
        let Decision::Allow { rule: by, .. } = view.decide(unit, &Request::parse(pdu).unwrap())
        else {
            panic!("{pdu:?} is refused");
        };
        assert_eq!(policy.rule_name(by), rule);
        let found = view.step(by);
        let step = step.map(|(max, within)| (Number::from(max), Duration::from_millis(within)));
        assert_eq!(found.map(|step| (step.max(), step.within())), step);
    }
}

#[test]
fn a_mask_write_needs_a_rule_that_names_it() {
    let (_, view) = view(Side::Edge);
    let decide = |pdu| view.decide(2, &Request::parse(pdu).unwrap()).allowed();
    assert!(!decide(&[22, 0, 41, 0, 1, 0, 1]));
    assert!(decide(&[22, 0, 100, 0, 1, 0, 1]));
}

#[test]
fn a_headend_knows_no_steps() {
    let (_, view) = view(Side::Headend);
    let request = [6, 0, 41, 0, 1];
    let Decision::Allow { rule, .. } = view.decide(1, &Request::parse(&request).unwrap()) else {
        panic!("refused");
    };
    assert!(view.step(rule).is_none());
}

#[test]
fn registers_of_rules_with_a_step_are_known_by_unit() {
    let (policy, _) = view(Side::Edge);
    let stepped = policy.stepped("press-07");
    let of = |unit, first, last| stepped.within(unit, first, last).collect::<Vec<_>>();
    assert_eq!(of(1, 0, 9), [0..=9]);
    assert_eq!(of(1, 90, 105), [90..=99]);
    assert_eq!(of(2, 90, 200), [90..=109]);
    assert_eq!(of(2, 110, 200), []);
    assert_eq!(of(3, 0, u16::MAX), []);
    assert!(policy.stepped("mixer-03").is_empty());
}

#[test]
fn people_are_told_of_the_step() {
    let (policy, _) = view(Side::Edge);
    let text = ceiling(&policy, None).to_string();
    for grant in [
        "unit 1: function 6, 16, 23 at holding 0-99, in steps of at most 50  by \"line\"",
        "unit 1: function 3, 23 (read half) at holding 0-99  by \"line\"",
        "unit 1: function 1, 5, 15 at coil 0-15  by \"line\"",
        "unit 2: function 22 at holding 90-109, in steps of at most 3  by \"masks\"",
    ] {
        let grant = grant.replace("16, 23 at", "16, 23 (write half) at");
        assert!(text.contains(&grant), "{text}");
    }
    for (side, pdu, why) in [
        (
            Side::Edge,
            [6, 0, 41, 0, 1],
            "covers the request, in steps of at most 50",
        ),
        (
            Side::Headend,
            [6, 0, 41, 0, 1],
            "covers the request, in steps of at most 50 (judged at the edge)",
        ),
        (Side::Edge, [3, 0, 41, 0, 1], "covers the request"),
    ] {
        let asked = Asked {
            device: "press-07",
            unit: 1,
            request: &Request::parse(&pdu).unwrap(),
            now: Now::Unknown,
        };
        let explained = explain(&policy, &origin(side), asked);
        assert!(explained.allowed);
        assert_eq!(explained.rules[0].why, why);
    }
}

fn origin(side: Side) -> Origin<'static> {
    Origin {
        side,
        via: None,
        client: Client::default(),
    }
}

fn view(side: Side) -> (Policy, Arc<View>) {
    let policy = Policy::parse(STEPS, "steps.toml").unwrap();
    let view = policy.view(&origin(side), "press-07", &policy.phase(Now::Unknown));
    (policy, view)
}
