//! Rules that apply at certain times only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use fieldlock_modbus::Request;
use fieldlock_policy::{
    Asked, Client, Decision, Now, Origin, Policy, Side, ceiling, explain, summary, warnings,
};
use jiff::Timestamp;

const SHIFTS: &str = r#"
syntax = 1
[[allow]]
name = "always"
device = "press-07"
function = ["read"]
address = "holding 0-99"

[[allow]]
name = "day shift"
device = "press-07"
function = [6]
address = "holding 40"
time = { days = ["mon-fri"], from = "06:00", to = "18:00", zone = "Europe/Berlin" }

[[allow]]
name = "grant 4711"
device = "press-07"
function = [6]
address = "holding 50"
time = { not_before = "2026-03-02T08:00:00Z", not_after = 2026-03-02T12:00:00Z }

[[deny]]
name = "stocktaking"
device = "any"
function = "any"
address = "any"
time = [
    { days = "sun", zone = "Europe/Berlin" },
    { from = "23:00", to = "01:00", zone = "UTC" },
]
"#;

const READ: &[u8] = &[3, 0, 0, 0, 1];
const SHIFT: &[u8] = &[6, 0, 40, 0, 1];
const GRANT: &[u8] = &[6, 0, 50, 0, 1];

#[test]
fn rules_count_within_their_windows_alone() {
    let policy = Policy::parse(SHIFTS, "shifts.toml").unwrap();
    let day_off = "0x01 outside its time window by day shift";
    let no_grant = "0x01 outside its time window by grant 4711";
    for (time, pdu, expected) in [
        ("2026-03-02T07:00:00+01:00", READ, "always"),
        ("2026-03-02T07:00:00+01:00", SHIFT, "day shift"),
        ("2026-03-02T07:00:00+01:00", GRANT, no_grant),
        ("2026-03-02T05:59:59+01:00", SHIFT, day_off),
        ("2026-03-02T18:00:00+01:00", SHIFT, day_off),
        ("2026-03-02T08:00:00Z", GRANT, "grant 4711"),
        ("2026-03-02T11:59:59Z", GRANT, "grant 4711"),
        ("2026-03-02T12:00:00Z", GRANT, no_grant),
        (
            "2026-03-01T12:00:00Z",
            READ,
            "0x01 denied by rule by stocktaking",
        ),
        (
            "2026-03-03T00:30:00Z",
            READ,
            "0x01 denied by rule by stocktaking",
        ),
        ("2026-03-03T01:00:00Z", READ, "always"),
    ] {
        assert_eq!(decide(&policy, at(time), pdu), expected, "{time} {pdu:?}");
    }
}

#[test]
fn without_a_clock_allows_with_a_window_are_closed_and_denies_apply() {
    let policy = Policy::parse(SHIFTS, "shifts.toml").unwrap();
    let denied = "0x01 denied by rule by stocktaking";
    assert_eq!(decide(&policy, Now::Unknown, READ), denied);
    let (allows, _) = SHIFTS.split_once("[[deny]]").unwrap();
    let policy = Policy::parse(allows, "shifts.toml").unwrap();
    assert_eq!(decide(&policy, Now::Unknown, READ), "always");
    assert_eq!(
        decide(&policy, Now::Unknown, SHIFT),
        "0x01 outside its time window, as every one while the clock is wrong by day shift"
    );
}

#[test]
fn a_closed_rule_is_named_only_where_it_would_have_allowed() {
    let policy = Policy::parse(SHIFTS, "shifts.toml").unwrap();
    let night = at("2026-03-02T20:00:00+01:00");
    let other_register = decide(&policy, night, &[6, 0, 41, 0, 1]);
    assert_eq!(other_register, "0x01 no rule for function 6");
    let day = at("2026-03-02T09:00:00Z");
    let other_register = decide(&policy, day, &[6, 0, 41, 0, 1]);
    assert_eq!(other_register, "0x02 holding 41 outside every range");
}

#[test]
fn both_halves_of_function_23_wait_for_the_window_of_one() {
    let text = SHIFTS.replace(
        "function = [6]\naddress = \"holding 40\"",
        "function = [16, 23]\naddress = \"holding 40\"",
    );
    let policy = Policy::parse(&text, "shifts.toml").unwrap();
    let pdu = [23, 0, 0, 0, 1, 0, 40, 0, 1, 2, 0, 1];
    let night = at("2026-03-02T20:00:00+01:00");
    let waits = "0x01 outside its time window by day shift";
    assert_eq!(decide(&policy, night, &pdu), waits);
}

#[test]
fn a_phase_holds_until_something_opens_or_closes() {
    let policy = Policy::parse(SHIFTS, "shifts.toml").unwrap();
    let (six, before) = (at("2026-03-02T05:00:00Z"), at("2026-03-02T04:59:59Z"));
    let night = policy.phase(at("2026-03-02T02:00:00Z"));
    assert!(night.holds(before));
    assert!(!night.holds(six));
    // The clock was set back, or is not to be trusted any more.
    assert!(!night.holds(at("2026-03-02T01:59:59Z")));
    assert!(!night.holds(Now::Unknown));
    assert!(!night.same_rules(&policy.phase(six)));
    assert!(night.same_rules(&policy.phase(before)));
    assert!(policy.phase(Now::Unknown).holds(Now::Unknown));
    let timeless = Policy::deny_all().phase(at("2026-03-02T02:00:00Z"));
    assert!(timeless.holds(at("2226-03-02T02:00:00Z")));
}

#[test]
fn views_of_one_phase_are_shared_and_those_of_another_are_not() {
    let policy = Policy::parse(SHIFTS, "shifts.toml").unwrap();
    let view = |now| policy.view(&HEADEND, "press-07", &policy.phase(now));
    let day = view(at("2026-03-02T09:00:00Z"));
    assert!(Arc::ptr_eq(&day, &view(at("2026-03-02T09:00:01Z"))));
    assert!(!Arc::ptr_eq(&day, &view(at("2026-03-02T20:00:00Z"))));
}

#[test]
fn an_explanation_says_when_a_rule_opens() {
    let policy = Policy::parse(SHIFTS, "shifts.toml").unwrap();
    let request = Request::parse(SHIFT).unwrap();
    let asked = Asked {
        device: "press-07",
        unit: 1,
        request: &request,
        now: at("2026-03-06T20:00:00+01:00"),
    };
    let text = explain(&policy, &HEADEND, asked).to_string();
    for line in [
        "refused with exception 0x01: outside its time window",
        "> allow \"day shift\": outside its time window; opens 2026-03-09T06:00:00+01:00",
        "- allow \"grant 4711\": outside its time window, which does not open any more",
        "- deny \"stocktaking\": outside its time window; opens 2026-03-06T23:00:00Z",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn the_ceiling_tells_the_windows() {
    let policy = Policy::parse(SHIFTS, "shifts.toml").unwrap();
    let text = ceiling(&policy, None).to_string();
    for line in [
        "holding 40, only mon-fri 06:00-18:00 Europe/Berlin  by \"day shift\"",
        "only from 2026-03-02T08:00:00Z until 2026-03-02T12:00:00Z  by \"grant 4711\"",
        "at any, only sun Europe/Berlin or 23:00-01:00 UTC",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn a_window_that_never_opens_is_warned_of() {
    let policy = Policy::parse(SHIFTS, "shifts.toml").unwrap();
    assert_eq!(summary(&policy).timed, 3);
    let found = |time: &str| -> Vec<String> {
        let time = time.parse::<Timestamp>().unwrap().as_second();
        let found = warnings(&policy, time).into_iter();
        let found = found.map(|warning| warning.to_string());
        found.filter(|text| text.contains("never opens")).collect()
    };
    assert!(found("2026-03-02T11:00:00Z").is_empty());
    let [passed] = &found("2026-03-02T12:00:00Z")[..] else {
        panic!("one warning");
    };
    assert!(passed.contains("\"grant 4711\" never opens"), "{passed}");
}

#[test]
fn a_test_without_a_time_holds_at_all_times_or_asks_for_one() {
    let test = |given: &str, expect: &str| {
        let text = format!(
            "{SHIFTS}\n[[test]]\nname = \"t\"\ngiven = {{ device = \"press-07\", function = 6, {given} }}\nexpect = \"{expect}\"\n"
        );
        Policy::parse(&text, "t.toml").map_err(|errors| errors.to_string())
    };
    test("address = \"holding 41\"", "deny").unwrap();
    let at_day = "address = \"holding 40\", at = \"2026-03-02T07:00:00+01:00\"";
    test(at_day, "allow").unwrap();
    test(
        "address = \"holding 40\", at = 2026-03-02T19:00:00+01:00",
        "deny",
    )
    .unwrap();
    for expect in ["allow", "deny"] {
        let error = test("address = \"holding 40\"", expect).unwrap_err();
        assert!(error.contains("depends on the time; give at"), "{error}");
    }
    let error = test(at_day, "deny").unwrap_err();
    assert!(error.contains("it is allowed by \"day shift\""), "{error}");
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

fn at(time: &str) -> Now {
    Now::At(time.parse::<Timestamp>().unwrap().as_second())
}

/// The rule's name, or the exception, the reason and the rule that gave it.
fn decide(policy: &Policy, now: Now, pdu: &[u8]) -> String {
    let view = policy.view(&HEADEND, "press-07", &policy.phase(now));
    match view.decide(1, &Request::parse(pdu).unwrap()) {
        Decision::Allow { rule, .. } => policy.rule_name(rule).to_owned(),
        Decision::Refuse(refusal) => {
            let by = refusal.rule.map(|rule| policy.rule_name(rule));
            let by = by.map_or_else(String::new, |rule| format!(" by {rule}"));
            format!("{:#04x} {}{by}", refusal.exception.code(), refusal.reason)
        }
    }
}
