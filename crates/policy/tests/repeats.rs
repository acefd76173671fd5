//! Which writes may go again before the outcome of the first is known.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use fieldlock_modbus::Request;
use fieldlock_policy::{Asked, Client, Now, Origin, Policy, Repeat, Side, View, diff, explain};

const REPEATS: &str = r#"
syntax = 1
[[allow]]
name = "setpoint"
device = "press-07"
function = [6, 16]
address = "holding 0-99"

[[allow]]
name = "heartbeat"
device = "press-07"
function = [6, 23]
address = "holding 40"
value = { max = 1 }
repeat = "allow"

[[allow]]
name = "reads"
device = "press-07"
function = [3, 23]
address = "holding 200-299"
"#;

const LOCAL: &str = r#"
syntax = 1
[[allow]]
name = "all"
device = "any"
function = "any"
address = "any"
"#;

/// Function 23: reads holding 200, writes 1 to holding 40.
const BOTH: &[u8] = &[23, 0, 200, 0, 1, 0, 40, 0, 1, 2, 0, 1];

#[test]
fn a_write_may_go_again_where_an_allow_that_says_so_covers_it() {
    let view = view(&policy(REPEATS));
    for (pdu, repeat) in [
        (&[6, 0, 40, 0, 1][..], Repeat::Allow),
        (&[6, 0, 40, 0, 2], Repeat::Refuse),
        (&[6, 0, 41, 0, 1], Repeat::Refuse),
        (&[16, 0, 40, 0, 1, 2, 0, 1], Repeat::Refuse),
        (BOTH, Repeat::Allow),
    ] {
        let request = Request::parse(pdu).unwrap();
        assert!(view.decide(1, &request).allowed(), "{pdu:?}");
        assert_eq!(view.repeat(1, &request), repeat, "{pdu:?}");
    }
}

#[test]
fn a_policy_that_narrows_has_a_say_in_repeats_too() {
    let heartbeat = Request::parse(&[6, 0, 40, 0, 1]).unwrap();
    let narrowed = |local: &str| view(&policy(REPEATS).narrowed_by(policy(local)));
    assert_eq!(narrowed(LOCAL).repeat(1, &heartbeat), Repeat::Refuse);
    let local = format!("{LOCAL}repeat = \"allow\"\n");
    assert_eq!(narrowed(&local).repeat(1, &heartbeat), Repeat::Allow);
}

#[test]
fn explain_tells_of_repeats() {
    let policy = policy(REPEATS);
    let request = Request::parse(&[6, 0, 40, 0, 1]).unwrap();
    let asked = Asked {
        device: "press-07",
        unit: 1,
        request: &request,
        now: Now::Unknown,
    };
    let explanation = explain(&policy, &anyone(), asked);
    let why: Vec<&str> = explanation.rules.iter().map(|v| v.why.as_str()).collect();
    let again = "covers the request, and again while the outcome of the first is not known";
    assert_eq!(why[..2], ["covers the request", again]);
}

#[test]
fn a_repeat_that_changes_is_a_difference() {
    let old = policy(REPEATS);
    let new = policy(&REPEATS.replace("repeat = \"allow\"\n", ""));
    let told = |old, new| diff(old, new, Side::Headend).unwrap().to_string();
    let lines = "repeat of \"heartbeat\": refuse, was allow";
    assert_eq!(told(&old, &new), lines);
    assert_eq!(
        told(&new, &old),
        "repeat of \"heartbeat\": allow, was refuse"
    );
    assert_eq!(told(&old, &policy(REPEATS)), "no difference");
}

fn policy(text: &str) -> Policy {
    Policy::parse(text, "test.toml").unwrap()
}

fn anyone() -> Origin<'static> {
    Origin {
        side: Side::Headend,
        via: None,
        client: Client::default(),
    }
}

fn view(policy: &Policy) -> Arc<View> {
    policy.view(&anyone(), "press-07", &policy.phase(Now::Unknown))
}
