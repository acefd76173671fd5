//! What the plant's policy decides, case by case.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fieldlock_modbus::Request;
use fieldlock_policy::{
    Asked, Client, Decision, Now, Origin, Policy, Reason, Side, ceiling, explain, explain_named,
    summary, warnings,
};

const PLANT: &str = include_str!("valid/plant.toml");

#[test]
fn the_answer_and_the_rule_of_each_situation() {
    let policy = plant();
    #[rustfmt::skip]
    let cases: &[(&str, &str, u8, &[u8], &str)] = &[
        // client, device, unit, PDU, decision
        ("hmi", "press-07", 1, &[3, 0, 0, 0, 100], "hmi reads"),
        ("hmi", "press-07", 1, &[3, 0, 0, 0, 101], "0x02 holding 0-100 outside every range"),
        ("hmi", "press-07", 1, &[1, 0, 0, 0, 16], "hmi reads"),
        ("hmi", "press-07", 1, &[4, 0, 0, 0, 1], "0x02 input 0 outside every range"),
        ("hmi", "press-07", 2, &[3, 0, 0, 0, 1], "0x01 no rule for function 3"),
        ("hmi", "press-07", 0, &[3, 0, 0, 0, 1], "0x01 no rule names unit 0 (broadcast)"),
        ("hmi", "press-07", 1, &[6, 0, 40, 4, 176], "setpoint"),
        ("hmi", "press-07", 1, &[6, 0, 40, 4, 177], "0x03 value 1201 above 1200 by setpoint"),
        ("hmi", "press-07", 1, &[6, 0, 42, 0, 1], "0x02 holding 42 outside every range"),
        ("hmi", "press-07", 1, &[16, 0, 40, 0, 2, 4, 0, 1, 255, 255], "0x03 value 65535 above 1200 by setpoint"),
        ("hmi", "press-07", 1, &[5, 0, 1, 255, 0], "0x01 no rule for function 5"),
        ("hmi", "press-07", 1, &[90, 0, 1], "0x01 no rule for function 90"),
        ("hmi", "press-07", 1, &[43, 14, 1, 0], "identification"),
        // 23: the read half is allowed, no rule has the write half.
        ("hmi", "press-07", 1, &[23, 0, 0, 0, 1, 0, 40, 0, 1, 2, 0, 1], "0x01 no rule for function 23"),
        ("hmi", "meter-02", 1, &[3, 0, 0, 0, 1], "hmi reads"),
        ("hmi", "meter-02", 1, &[6, 0, 40, 0, 1], "0x01 read-only"),
        ("hmi", "meter-02", 1, &[8, 0, 1, 0, 0], "0x01 read-only"),
        ("hmi", "mixer-03", 9, &[17], "identification"),
        ("hmi", "mixer-03", 9, &[3, 0, 0, 0, 1], "0x01 no rule for function 3"),
        ("hmi", "press-07", 1, &[3, 35, 40, 0, 1], "0x01 denied by rule by safety registers"),
        ("engineer", "press-07", 10, &[90, 0, 1], "engineering"),
        ("engineer", "press-07", 11, &[90, 0, 1], "0x01 no rule for function 90"),
        ("engineer", "press-07", 0, &[6, 0, 40, 0, 1], "engineering"),
        // One register of the range is denied.
        ("engineer", "press-07", 1, &[16, 35, 39, 0, 2, 4, 0, 1, 0, 1], "0x01 denied by rule by safety registers"),
        ("engineer", "press-07", 1, &[22, 35, 39, 0, 0, 0, 1], "engineering"),
        ("engineer", "press-07", 1, &[23, 0, 0, 0, 1, 35, 40, 0, 1, 2, 0, 1], "0x01 denied by rule by safety registers"),
        ("nobody", "press-07", 1, &[3, 0, 0, 0, 1], "0x01 no rule for function 3"),
        ("nobody", "press-07", 1, &[17], "identification"),
    ];
    for (client, device, unit, pdu, expected) in cases {
        let origin = Origin {
            side: Side::Edge,
            via: Some("hd-1"),
            client: client_of(client),
        };
        let found = decide(&policy, &origin, device, *unit, pdu);
        assert_eq!(found, *expected, "{client} {device} {unit} {pdu:?}");
    }
}

#[test]
fn via_is_judged_at_the_edge_only() {
    let policy = plant();
    let pdu = [90, 0, 1];
    for (side, via, expected) in [
        (Side::Edge, Some("hd-1"), "engineering"),
        (Side::Edge, Some("hd-2"), "0x01 no rule for function 90"),
        (Side::Edge, None, "0x01 no rule for function 90"),
        (Side::Headend, None, "engineering"),
    ] {
        let client = client_of("engineer");
        let origin = Origin { side, via, client };
        assert_eq!(decide(&policy, &origin, "press-07", 1, &pdu), expected);
    }
}

#[test]
fn every_given_key_of_a_client_must_match() {
    let policy = plant();
    let mut client = client_of("engineer");
    assert_eq!(policy.client_names(&client).count(), 1);
    client.role = Some("operator");
    assert_eq!(policy.client_names(&client).count(), 0);
    client.role = None;
    assert_eq!(policy.client_names(&client).count(), 0);
}

#[test]
fn nothing_passes_an_empty_policy() {
    let origin = headend(client_of("hmi"));
    for policy in [
        Policy::deny_all(),
        Policy::parse("syntax = 1", "empty.toml").unwrap(),
    ] {
        let found = decide(&policy, &origin, "press-07", 1, &[3, 0, 0, 0, 1]);
        assert_eq!(found, "0x01 no rule for this client");
    }
}

#[test]
fn no_two_allows_add_up_but_ranges_of_one_do() {
    let policy = parse(
        r#"
        [[allow]]
        name = "low"
        device = "any"
        function = 3
        address = "holding 0-9"
        [[allow]]
        name = "high"
        device = "any"
        function = 3
        address = "holding 10-19"
        [[allow]]
        name = "joined"
        device = "any"
        function = 3
        address = ["holding 30-39", "holding 20-29"]
        "#,
    );
    let origin = headend(Client::default());
    let read = |first| decide(&policy, &origin, "d", 1, &[3, 0, first, 0, 10]);
    assert_eq!(read(0), "low");
    assert_eq!(read(5), "0x02 holding 5-14 outside every range");
    assert_eq!(read(25), "joined");
}

#[test]
fn function_23_needs_both_halves_from_whatever_rules() {
    let policy = parse(
        r#"
        [[allow]]
        name = "read"
        device = "any"
        function = "read"
        address = "holding 0-9"
        [[allow]]
        name = "write"
        device = "any"
        function = "write"
        address = "holding 20-29"
        value = { min = 5 }
        [[allow]]
        name = "both"
        device = "other"
        function = 23
        address = "holding 0-9"
        "#,
    );
    let origin = headend(Client::default());
    let both = |device, read, write, value| {
        let pdu = [23, 0, read, 0, 1, 0, write, 0, 1, 2, 0, value];
        decide(&policy, &origin, device, 1, &pdu)
    };
    assert_eq!(both("d", 0, 20, 5), "write");
    assert_eq!(both("d", 0, 20, 4), "0x03 value 4 below 5 by write");
    assert_eq!(both("d", 0, 30, 5), "0x02 holding 30 outside every range");
    assert_eq!(both("d", 30, 20, 4), "0x02 holding 30 outside every range");
    assert_eq!(both("other", 0, 1, 4), "both");
}

#[test]
fn a_mask_write_passes_bounds_only_by_its_own_name() {
    let rule = |function: &str| {
        parse(&format!(
            "[[allow]]\nname = \"r\"\ndevice = \"any\"\nfunction = {function}\n\
             address = \"holding 0-9\"\nvalue = {{ max = 10 }}"
        ))
    };
    let mask = [22, 0, 0, 255, 255, 0, 0];
    let origin = headend(Client::default());
    for (function, allowed) in [
        ("\"write\"", false),
        ("[\"write\", 22]", true),
        ("22", true),
        ("[\"mask-write-register\"]", true),
    ] {
        let found = decide(&rule(function), &origin, "d", 1, &mask);
        assert_eq!(found == "r", allowed, "{function} {found}");
        assert!(allowed || found.starts_with("0x03 the result of a mask write"));
    }
}

#[test]
fn a_deny_with_values_looks_at_its_own_addresses_only() {
    let policy = parse(
        r#"
        [[allow]]
        name = "all"
        device = "any"
        unit = ["any"]
        function = "any"
        address = "any"
        [[allow]]
        name = "broadcast"
        device = "any"
        unit = 0
        function = "any"
        address = "any"
        [[deny]]
        name = "stop"
        device = "any"
        unit = 5
        function = ["read", "write"]
        address = ["holding 10", "coil 3"]
        value = { max = 0 }
        "#,
    );
    let origin = headend(Client::default());
    let unit = |unit, pdu: &[u8]| decide(&policy, &origin, "d", unit, pdu);
    let write = |first, a, b| vec![16, 0, first, 0, 2, 4, 0, a, 0, b];
    assert_eq!(unit(5, &write(9, 0, 1)), "all");
    assert_eq!(unit(5, &write(9, 1, 0)), "0x01 denied by rule by stop");
    assert_eq!(unit(5, &write(10, 0, 1)), "0x01 denied by rule by stop");
    assert_eq!(unit(5, &write(11, 0, 0)), "all");
    assert_eq!(unit(6, &write(10, 0, 0)), "all");
    // A broadcast reaches unit 5 as well.
    assert_eq!(unit(0, &write(10, 0, 0)), "0x01 denied by rule by stop");
    assert_eq!(unit(0, &write(10, 1, 0)), "broadcast");
    assert_eq!(unit(5, &[3, 0, 10, 0, 1]), "all");
    assert_eq!(
        unit(5, &[15, 0, 0, 0, 4, 1, 0b0111]),
        "0x01 denied by rule by stop"
    );
    assert_eq!(unit(5, &[15, 0, 0, 0, 4, 1, 0b1000]), "all");
    let mask = [22, 0, 10, 0, 0, 255, 255];
    assert_eq!(unit(5, &mask), "0x01 denied by rule by stop");
}

#[test]
fn a_read_only_policy_lets_reads_through() {
    let text = include_str!("valid/read-only.toml");
    let policy = Policy::parse(text, "read-only.toml").unwrap();
    let origin = headend(Client::default());
    for (pdu, expected) in [
        (&[3, 0, 0, 0, 1][..], "all"),
        (&[8, 0, 0, 1, 2], "all"),
        (&[43, 14, 1, 0], "all"),
        (&[8, 0, 4, 0, 0], "0x01 read-only"),
        (&[6, 0, 0, 0, 1], "0x01 read-only"),
        (&[90, 1], "0x01 read-only"),
    ] {
        assert_eq!(decide(&policy, &origin, "d", 1, pdu), expected, "{pdu:?}");
    }
}

#[test]
fn views_are_shared_by_origins_that_match_alike() {
    let policy = plant();
    let view = |via, client, device| {
        let side = Side::Edge;
        let phase = policy.phase(Now::Unknown);
        policy.view(&Origin { side, via, client }, device, &phase)
    };
    let hmi = client_of("hmi");
    let first = view(Some("hd-2"), hmi, "press-07");
    let again = view(Some("made-up"), hmi, "press-07");
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    let other = view(Some("hd-1"), hmi, "press-07");
    assert!(!std::sync::Arc::ptr_eq(&first, &other));
}

#[test]
fn an_explanation_names_what_each_rule_lacks() {
    let policy = plant();
    let pdu = [6, 0, 40, 4, 177];
    let request = Request::parse(&pdu).unwrap();
    let text = explain(
        &policy,
        &headend(client_of("hmi")),
        asked("press-07", &request),
    )
    .to_string();
    for line in [
        "refused with exception 0x03: value 1201 above 1200",
        "request  6 (0x06) write-single-register, write holding 40 = 1201",
        "> allow \"setpoint\": value 1201 above 1200",
        "- allow \"hmi reads\": it is for the functions 1-4, 23 (read half)",
        "- allow \"engineering\": it is for the clients engineer",
        "- deny \"safety registers\": it is for holding 9000-9099",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let named = |name: &str| {
        let names = [name.to_owned()];
        let asked = asked("press-07", &request);
        explain_named(&policy, &names, Side::Edge, Some("hd-2"), asked)
    };
    let text = named("engineer").unwrap().to_string();
    assert!(text.contains("it is for what comes via hd-1"), "{text}");
    assert_eq!(
        named("enginer").unwrap_err().nearest.as_deref(),
        Some("engineer")
    );
}

#[test]
fn the_ceiling_ignores_stated_clients_and_lists_denies() {
    let policy = plant();
    let text = ceiling(&policy, Some("hd-2")).to_string();
    for line in [
        "the headend hd-2 can reach",
        "press-07\n    unit 1: ",
        "function 6, 16 at holding 40-41, values 0 to 1200  by \"setpoint\"",
        "function 1 at coil 0-15  by \"hmi reads\"",
        "meter-02 (read-only",
        "any other device",
        "\"safety registers\": device any, unit any, function 1-6, 15-16, 22-23 at holding 9000-9099",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("engineering"), "{text}");
    assert!(!text.contains("23 (read half)"), "{text}");
    let all = ceiling(&policy, None).to_string();
    assert!(all.contains("engineering"), "{all}");
    let nothing = ceiling(&Policy::deny_all(), None).to_string();
    assert!(nothing.contains("nothing"), "{nothing}");
}

#[test]
fn a_deny_that_names_clients_does_not_bind_a_hostile_headend() {
    let policy = parse(
        r#"
        [[client]]
        name = "hmi-1"
        address = "10.1.1.20"
        [[deny]]
        name = "not the hmi"
        client = "hmi-1"
        device = "any"
        function = 43
        [[deny]]
        name = "not by hd-9"
        via = "hd-9"
        device = "any"
        function = 17
        "#,
    );
    let binds = |via| -> Vec<bool> {
        let denies = ceiling(&policy, via).denies;
        denies.iter().map(|deny| deny.binds).collect()
    };
    assert_eq!(binds(Some("hd-9")), [false, true]);
    assert_eq!(binds(None), [false, false]);
    assert_eq!(binds(Some("hd-1")), [false]);
}

#[test]
fn check_tells_what_probably_was_not_meant() {
    let policy = parse(
        r#"
        read_only = ["meter-02", "meter-09"]
        [[client]]
        name = "unused"
        role = "Operator"
        [[allow]]
        name = "shadowed"
        device = "press-07"
        unit = [1, 2]
        function = [6, 16]
        address = "holding 10-20"
        [[allow]]
        name = "writes"
        device = "meter-02"
        function = "write"
        address = "any"
        [[allow]]
        name = "tables"
        device = "press-07"
        function = [3, 5]
        address = ["holding 0-9", "input 0"]
        [[deny]]
        name = "all writes"
        device = "any"
        function = "write"
        address = "holding 0-100"
        "#,
    );
    let found: Vec<String> = warnings(&policy, 0).iter().map(|w| w.to_string()).collect();
    assert_eq!(
        found,
        [
            "the client \"unused\" is used by no rule",
            "the allow \"shadowed\" never applies: the deny \"all writes\" covers all of it",
            "the allow \"writes\" never applies: all it allows changes state, and its devices are read-only",
            "the rule \"tables\" has addresses in table input, but no function that uses it",
            "the rule \"tables\" names write-single-coil (5), but lists no address in table coil: that function never applies",
        ]
    );
    let summary = summary(&policy);
    assert_eq!((summary.clients, summary.allows, summary.denies), (1, 3, 1));
    assert_eq!(summary.devices, ["meter-02", "press-07"]);
}

fn plant() -> Policy {
    Policy::parse(PLANT, "plant.toml").unwrap()
}

fn parse(rules: &str) -> Policy {
    match Policy::parse(&format!("syntax = 1\n{rules}"), "test.toml") {
        Ok(policy) => policy,
        Err(errors) => panic!("{errors}"),
    }
}

fn headend(client: Client<'_>) -> Origin<'_> {
    Origin {
        side: Side::Headend,
        via: None,
        client,
    }
}

fn client_of(name: &str) -> Client<'static> {
    match name {
        "hmi" => Client {
            address: Some("10.1.1.20".parse().unwrap()),
            ..Client::default()
        },
        "engineer" => Client {
            address: Some("10.9.9.9".parse().unwrap()),
            identity: Some("spiffe://plant1.example/operator/jane"),
            role: Some("Operator"),
        },
        _ => Client::default(),
    }
}

/// Of unit 1, whatever the time.
fn asked<'a>(device: &'a str, request: &'a Request<'a>) -> Asked<'a> {
    Asked {
        device,
        unit: 1,
        request,
        now: Now::Unknown,
    }
}

/// The rule's name, or the exception, the reason and the rule that gave it.
fn decide(policy: &Policy, origin: &Origin<'_>, device: &str, unit: u8, pdu: &[u8]) -> String {
    let request = Request::parse(pdu).unwrap();
    let phase = policy.phase(Now::Unknown);
    match policy.view(origin, device, &phase).decide(unit, &request) {
        Decision::Allow { rule, .. } => policy.rule_name(rule).to_owned(),
        Decision::Refuse(refusal) => {
            assert_eq!(refusal.exception, Reason::exception(refusal.reason));
            let by = refusal
                .rule
                .map(|rule| format!(" by {}", policy.rule_name(rule)));
            let exception = refusal.exception.code();
            format!(
                "{exception:#04x} {}{}",
                refusal.reason,
                by.unwrap_or_default()
            )
        }
    }
}
