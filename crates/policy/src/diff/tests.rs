#![allow(clippy::unwrap_used, clippy::panic)]

use fieldlock_modbus::Request;
use proptest::prelude::*;

use super::*;
use crate::half::Halves;
use crate::model::address::parse_address;
use crate::model::client::{Client, Origin};

const CLIENTS: &str = r#"
[[client]]
name = "hmi"
address = "10.0.0.1"
[[client]]
name = "line"
address = "10.0.0.0/24"
[[client]]
name = "operators"
role = "Operator"
"#;

fn policy(text: &str) -> Policy {
    Policy::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn rules(text: &str) -> Policy {
    policy(&format!("syntax = 1\n{CLIENTS}{text}"))
}

fn text_of(old: &str, new: &str) -> String {
    diff(&rules(old), &rules(new), Side::Headend)
        .unwrap()
        .to_string()
}

fn allow(name: &str, rest: &str) -> String {
    format!("[[allow]]\nname = {name:?}\ndevice = \"press\"\nunit = 1\n{rest}\n")
}

#[test]
fn another_form_of_the_same_meaning_is_no_difference() {
    let one = allow(
        "a",
        "function = [3, 4]\naddress = [\"holding 0-99\", \"input 0-9\"]",
    );
    let other = allow(
        "x",
        "function = 3\naddress = [\"4x00001-4x00050\", \"holding 50-99\"]",
    ) + &allow("y", "function = 4\naddress = \"input 0-9\"")
        + &allow("z", "function = 3\naddress = \"holding 7\"");
    assert_eq!(text_of(&one, &other), "no difference");
}

#[test]
fn a_wider_bound_opens_the_values_between() {
    let bounded = |max: u16| {
        allow(
            "setpoint",
            &format!(
                "client = \"hmi\"\nfunction = 6\naddress = \"holding 40-41\"\nvalue = {{ max = {max} }}"
            ),
        )
    };
    assert_eq!(
        text_of(&bounded(1200), &bounded(1300)),
        "opens\n  hmi + line, hmi + line + operators -> press, unit 1: function 6 at holding 40-41, values 1201-1300\
         \n      such as 6 (0x06) write-single-register, write holding 40 = 1201"
    );
}

#[test]
fn two_halves_are_less_than_the_whole() {
    let whole = allow("whole", "function = 3\naddress = \"holding 0-19\"");
    let halves = allow("low", "function = 3\naddress = \"holding 0-9\"")
        + &allow("high", "function = 3\naddress = \"holding 10-19\"");
    assert_eq!(
        text_of(&whole, &halves),
        "closes\n  any client -> press, unit 1: function 3 at holding 0-19, in one request; the other file allows the parts alone\
         \n      such as 3 (0x03) read-holding-registers, read holding 9-10"
    );
}

#[test]
fn a_client_that_moves_closes_and_opens() {
    let old = rules(&allow(
        "a",
        "client = \"hmi\"\nfunction = 1\naddress = \"coil 0\"",
    ));
    let new = policy(
        "syntax = 1\n[[client]]\nname = \"hmi\"\naddress = \"10.0.9.1\"\n\
         [[allow]]\nname = \"a\"\nclient = \"hmi\"\ndevice = \"press\"\nunit = 1\nfunction = 1\naddress = \"coil 0\"",
    );
    let text = diff(&old, &new, Side::Headend).unwrap().to_string();
    assert!(text.contains("10.0.9.1/32 (no client, then hmi)"), "{text}");
    assert!(
        text.contains("10.0.0.1/32 (hmi + line, then no client)"),
        "{text}"
    );
}

#[test]
fn read_only_keeps_the_diagnostics_that_change_nothing() {
    let rule = allow("a", "function = [8, 17]");
    let closed = format!("syntax = 1\nread_only = true\n{rule}");
    let changed = diff(
        &policy(&format!("syntax = 1\n{rule}")),
        &policy(&closed),
        Side::Headend,
    );
    let text = changed.unwrap().to_string();
    assert!(text.contains("function 8/1, 8/3-10, 8/19-65535"), "{text}");
    assert!(!text.contains("17"), "{text}");
}

#[test]
fn at_the_edge_the_headend_counts() {
    let rule = |via| {
        allow(
            "a",
            &format!("via = \"{via}\"\nfunction = 1\naddress = \"coil 0\""),
        )
    };
    let (old, new) = (rules(&rule("hd-1")), rules(&rule("hd-2")));
    assert!(diff(&old, &new, Side::Headend).unwrap().regions.is_empty());
    let text = diff(&old, &new, Side::Edge).unwrap().to_string();
    assert!(
        text.contains("opens\n  any client via hd-2 -> press"),
        "{text}"
    );
    assert!(
        text.contains("closes\n  any client via hd-1 -> press"),
        "{text}"
    );
}

#[test]
fn a_comparison_ends_when_its_budget_is_spent() {
    let policy = rules(&allow("a", "function = 3\naddress = \"holding 0-9\""));
    let mut budget = Budget(0);
    assert!(origin::groups(&policy, &policy, &mut budget).is_err());
}

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

prop_compose! {
    fn rule()(
        deny in prop::bool::weighted(0.25),
        client in pick(&["", "client = \"hmi\"\n", "client = \"line\"\n", "client = [\"operators\", \"hmi\"]\n"]),
        via in pick(&["", "", "via = \"hd-1\"\n"]),
        device in pick(&["\"press\"", "[\"press\", \"oven\"]", "\"any\""]),
        unit in pick(&["", "unit = 1\n", "unit = [0, 1, 2]\n"]),
        function in pick(&["\"read\"", "\"write\"", "[3, 16]", "[6, 16]", "[23, 22]", "[15, 5]", "[3, 8]", "[3, \"8/0\"]", "[\"8/0-3\", 3, \"43/14\"]", "[\"diagnostics\", 3]", "[16]", "[16, 3]"]),
        addresses in prop::collection::vec((0u16..10, 0u16..6), 1..3),
        bounds in prop::option::of((0u16..5, 0u16..4)),
    ) -> String {
        let listed: Vec<String> = addresses
            .iter()
            .flat_map(|(first, more)| {
                let last = first + more;
                [format!("\"holding {first}-{last}\""), format!("\"coil {first}-{last}\"")]
            })
            .collect();
        let opaque = function.contains('8') || function.contains("diag");
        let boundable = !opaque && function != "\"read\"";
        let value = match bounds.filter(|_| boundable) {
            Some((min, more)) => format!("value = {{ min = {min}, max = {} }}\n", min + more),
            None => String::new(),
        };
        let effect = if deny { "deny" } else { "allow" };
        format!(
            "[[{effect}]]\nname = \"NAME\"\n{client}{via}device = {device}\n{unit}function = {function}\naddress = [{}]\n{value}",
            listed.join(", ")
        )
    }
}

fn file(rules: &[String], read_only: bool, hmi: &str) -> String {
    let mut text = format!(
        "syntax = 1\nread_only = {}\n",
        if read_only { "[\"oven\"]" } else { "[]" }
    );
    text += &CLIENTS.replace("10.0.0.1", hmi);
    for (number, rule) in rules.iter().enumerate() {
        text += &rule.replace("NAME", &number.to_string());
    }
    text.replace("read_only = []\n", "")
}

prop_compose! {
    /// Two files with rules in common.
    fn pair()(
        shared in prop::collection::vec(rule(), 0..4),
        old in prop::collection::vec(rule(), 0..3),
        new in prop::collection::vec(rule(), 0..3),
        read_only in any::<(bool, bool)>(),
        moved in prop::bool::weighted(0.2),
    ) -> (String, String) {
        let with = |own: Vec<String>| [shared.clone(), own].concat();
        let hmi = if moved { "10.0.0.9" } else { "10.0.0.1" };
        (file(&with(old), read_only.0, "10.0.0.1"), file(&with(new), read_only.1, hmi))
    }
}

#[derive(Debug, Clone)]
struct Asked {
    address: IpAddr,
    role: Option<&'static str>,
    via: &'static str,
    device: &'static str,
    unit: u8,
    pdu: Vec<u8>,
}

fn pdu() -> impl Strategy<Value = Vec<u8>> {
    let function = pick(&[1u8, 3, 5, 6, 8, 43, 15, 16, 16, 16, 22, 23]);
    let values = prop::collection::vec(0u16..9, 1..5);
    (function, 0u16..14, values, 0u16..14, 1u16..4).prop_map(
        |(code, first, values, read, quantity)| {
            if code == 23 {
                return examples::read_write(read, quantity, first, &values);
            }
            test_request(code, first, &values)
        },
    )
}

prop_compose! {
    fn asked()(
        address in pick(&["10.0.0.1", "10.0.0.2", "10.0.0.9", "192.0.2.1"]),
        role in pick(&[None, Some("Operator")]),
        via in pick(&["hd-1", "hd-2"]),
        device in pick(&["press", "oven", "mill"]),
        unit in 0u8..4,
        pdu in pdu(),
    ) -> Asked {
        Asked { address: address.parse().unwrap(), role, via, device, unit, pdu }
    }
}

fn decides(policy: &Policy, side: Side, asked: &Asked) -> bool {
    let client = Client {
        address: Some(asked.address),
        identity: None,
        role: asked.role,
    };
    let origin = Origin {
        side,
        via: Some(asked.via),
        client,
    };
    let request = Request::parse(&asked.pdu).unwrap();
    policy
        .view(&origin, asked.device, &policy.phase(Now::Unknown))
        .decide(asked.unit, &request)
        .allowed()
}

fn in_ranges(ranges: &[String], number: u16) -> bool {
    ranges.is_empty()
        || ranges.iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.trim().parse().unwrap()..=last.trim().parse().unwrap()).contains(&number)
        })
}

/// Whether the request touches the region, or lies within one of joined elements.
fn concerns(region: &Region, old: &Policy, new: &Policy, asked: &Asked) -> bool {
    let client = Client {
        address: Some(asked.address),
        identity: None,
        role: asked.role,
    };
    let matching = [old.matching(&client), new.matching(&client)];
    let block = match asked.address.to_string().as_str() {
        text @ ("10.0.0.1" | "10.0.0.9") => format!("{text}/32"),
        "10.0.0.2" => "10.0.0.0/24".to_owned(),
        _ => "any other address".to_owned(),
    };
    let label = origin::label(old, new, &matching, &block, &client);
    let via = match headends(old, new, Side::Edge).contains(&Via::Named(asked.via)) {
        true => asked.via,
        false => "another headend",
    };
    let device = match devices(old, new).contains(&Some(asked.device)) {
        true => asked.device,
        false => OTHER_DEVICE,
    };
    let units: Vec<String> = region.units.split(", ").map(str::to_owned).collect();
    let unit = match region.units.as_str() {
        "any" => asked.unit > 0,
        _ => in_ranges(&units, asked.unit.into()),
    };
    let request = Request::parse(&asked.pdu).unwrap();
    unit && (region.clients.is_empty() || region.clients.contains(&label))
        && region.via.as_ref().is_none_or(|wanted| wanted == via)
        && (region.devices.is_empty() || region.devices.iter().any(|name| name == device))
        && Halves::of(&request).iter().any(|half| {
            let functions: Vec<String> = region.functions.split(", ").map(str::to_owned).collect();
            let named = |text: &str| functions.iter().any(|f| f == text);
            let function = match half.slot {
                crate::model::function::Slot::READ_OF_23 => named("23 (read half)") || named("23"),
                crate::model::function::Slot::WRITE_OF_23 => {
                    named("23 (write half)") || named("23")
                }
                slot => {
                    let plain: Vec<String> = functions
                        .iter()
                        .filter(|f| !f.contains("half") && !f.contains('/'))
                        .cloned()
                        .collect();
                    let whole = !plain.is_empty() && in_ranges(&plain, slot.function().0.into());
                    let part = |f: &String| {
                        let (function, body) = f.split_once('/')?;
                        let body = [body.to_owned()];
                        let meant = function == slot.function().0.to_string();
                        Some(meant && in_ranges(&body, half.interval.first))
                    };
                    whole || functions.iter().filter_map(part).any(|meant| meant)
                }
            };
            let Some(table) = half.slot.table() else {
                return function;
            };
            let values: Vec<Option<u16>> = match request
                .write()
                .filter(|_| half.slot.writes() && half.slot.function().0 != 22)
            {
                Some(write) => write.values.iter().map(Some).collect(),
                None => vec![None; usize::from(half.interval.last - half.interval.first) + 1],
            };
            let mut elements =
                (half.interval.first..=half.interval.last)
                    .zip(values)
                    .map(|(address, value)| {
                        region.addresses.iter().any(|text| {
                            let span = parse_address(text).unwrap();
                            span.table == table && (span.first..=span.last).contains(&address)
                        }) && value.is_none_or(|value| in_ranges(&region.values, value))
                    });
            function
                && match region.joined {
                    true => elements.all(|inside| inside),
                    false => elements.any(|inside| inside),
                }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn differences_are_exactly_what_is_listed(
        (old, new) in pair(),
        edge in any::<bool>(),
        asked in prop::collection::vec(asked(), 40),
    ) {
        let (old, new) = (policy(&old), policy(&new));
        let side = if edge { Side::Edge } else { Side::Headend };
        let diff = diff(&old, &new, side).unwrap();
        for asked in asked {
            let answers = (decides(&old, side, &asked), decides(&new, side, &asked));
            let change = match answers {
                (false, true) => Change::Opens,
                (true, false) => Change::Closes,
                _ => continue,
            };
            let listed = diff.regions.iter().any(|region| {
                region.change == change && concerns(region, &old, &new, &asked)
            });
            prop_assert!(listed, "{asked:?} {change:?} is not in\n{diff}");
        }
        for region in &diff.regions {
            let Example { unit, pdu, client, .. } = &region.example;
            let asked = Asked {
                address: client.address.unwrap(),
                role: client.role.as_ref().map(|_| "Operator"),
                via: match region.via.as_deref() { Some("hd-1") => "hd-1", _ => "hd-2" },
                device: match region.devices.first().map(String::as_str) { Some("press") => "press", Some("oven") => "oven", _ => "mill" },
                unit: *unit,
                pdu: pdu.clone(),
            };
            let answers = (decides(&old, side, &asked), decides(&new, side, &asked));
            let expected = (region.change == Change::Closes, region.change == Change::Opens);
            prop_assert_eq!(answers, expected, "{:?}\n{}", region, diff);
            prop_assert!(concerns(region, &old, &new, &asked), "{region:?} {asked:?}");
        }
    }
}

const DAY: &str = "time = { from = \"06:00\", to = \"18:00\", zone = \"UTC\" }\n";
const NIGHT: &str = "time = { from = \"18:00\", to = \"06:00\", zone = \"UTC\" }\n";

#[test]
fn a_window_that_is_added_or_moved_closes_and_opens_by_its_hours() {
    let reads = |extra: &str| {
        allow(
            "reads",
            &format!("function = 3\naddress = \"holding 0-9\"\n{extra}"),
        )
    };
    assert_eq!(text_of(&reads(DAY), &reads(DAY)), "no difference");
    let text = text_of(&reads(""), &reads(DAY));
    assert!(text.starts_with("closes"), "{text}");
    assert!(text.contains(", outside of 06:00-18:00 UTC\n"), "{text}");
    let text = text_of(&reads(DAY), &reads(NIGHT));
    let (opens, closes) = text.split_once("closes").unwrap();
    assert!(opens.contains("within 18:00-06:00 UTC"), "{text}");
    assert!(closes.contains("within 06:00-18:00 UTC"), "{text}");
}

fn timed(window: &str) -> String {
    allow(
        "reads",
        &format!("function = 3\naddress = \"holding 0\"\ntime = {window}"),
    )
}

#[test]
fn a_window_that_grows_by_a_day_opens_that_day_and_closes_nothing() {
    let days = |days: &str| timed(&format!("{{ days = {days:?}, zone = \"Europe/Berlin\" }}"));
    assert_eq!(
        text_of(&days("mon-fri"), &days("mon-sat")),
        "opens\n  any client -> press, unit 1: function 3 at holding 0, within mon-sat Europe/Berlin, \
         outside of mon-fri Europe/Berlin\n      such as 3 (0x03) read-holding-registers, read holding 0"
    );
    assert!(text_of(&days("mon-sat"), &days("mon-fri")).starts_with("closes\n"));
    let split =
        timed("[{ days = \"mon-wed\", zone = \"UTC\" }, { days = \"thu-sun\", zone = \"UTC\" }]");
    let whole = allow("reads", "function = 3\naddress = \"holding 0\"");
    assert_eq!(text_of(&split, &whole), "no difference");
}

prop_compose! {
    fn window()(
        days in pick(&["", "days = \"mon-fri\", ", "days = \"mon-sat\", ", "days = [\"sun\", \"wed\"], "]),
        hours in pick(&["", "from = \"06:00\", to = \"18:00\", ", "from = \"07:00\", ", "from = \"22:00\", to = \"06:00\", "]),
        zone in pick(&["UTC", "Europe/Berlin", "America/New_York"]),
        ends in pick(&["", "", "not_before = 2026-03-29T00:30:00Z, ", "not_after = 2026-06-01T00:00:00Z, "]),
    ) -> String {
        let zone = match (days, hours) {
            ("", "") => String::new(),
            _ => format!("zone = {zone:?}, "),
        };
        let all = format!("{days}{hours}{zone}{ends}");
        match all.trim_end_matches(", ") {
            "" => "{ not_before = 2020-01-01T00:00:00Z }".to_owned(),
            all => format!("{{ {all} }}"),
        }
    }
}

prop_compose! {
    fn windows()(effect in pick(&["allow", "allow", "deny"]), first in 0u16..4, windows in prop::collection::vec(window(), 0..3)) -> String {
        let rule = format!(
            "[[{effect}]]\nname = \"NAME\"\ndevice = \"press\"\nfunction = 3\naddress = \"holding {first}-{}\"\n",
            first + 2
        );
        match windows.is_empty() {
            true => rule,
            false => format!("{rule}time = [{}]\n", windows.join(", ")),
        }
    }
}

/// Whether what a region says of its time holds at this moment.
fn is_then(region: &Region, policies: [&Policy; 2], at: i64) -> bool {
    let rules = policies.into_iter().flat_map(|policy| &policy.rules);
    let open: HashMap<String, bool> = rules
        .map(|rule| {
            let windows: Vec<String> = rule.time.iter().map(ToString::to_string).collect();
            (windows.join(" or "), rule.is_open(at))
        })
        .collect();
    let holds = |part: &str| match part.split_once("within ") {
        Some((_, windows)) => windows.split(" and ").all(|window| open[window]),
        None => part["outside of ".len()..]
            .split(" and ")
            .all(|window| !open[window]),
    };
    let when = region.when.as_deref();
    when.is_none_or(|when| when.split("; ").any(|told| told.split(", ").all(holds)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn at_every_moment_the_regions_tell_what_is_decided_differently(
        old in prop::collection::vec(windows(), 1..3),
        new in prop::collection::vec(windows(), 1..3),
        moments in prop::collection::vec(0i64..400 * 86_400, 60),
    ) {
        let [old, new] = [old, new].map(|rules| policy(&file(&rules, false, "10.0.0.1")));
        let diff = diff(&old, &new, Side::Headend).unwrap();
        for moment in moments {
            // From the middle of 2025 on.
            let at = 1_750_000_000 + moment;
            for address in 0..7u16 {
                let pdu = [3, 0, address as u8, 0, 1];
                let request = Request::parse(&pdu).unwrap();
                let decides = |policy: &Policy| {
                    let origin = Origin { side: Side::Headend, via: None, client: Client::default() };
                    let view = policy.view(&origin, "press", &policy.phase(Now::At(at)));
                    view.decide(1, &request).allowed()
                };
                let told = |change: Change| {
                    diff.regions.iter().any(|region| {
                        let there = region.addresses.iter().any(|span| {
                            let span = parse_address(span).unwrap();
                            (span.first..=span.last).contains(&address)
                        });
                        region.change == change && !region.joined && there && is_then(region, [&old, &new], at)
                    })
                };
                let (before, after) = (decides(&old), decides(&new));
                prop_assert_eq!(told(Change::Opens), after && !before, "{} {}\n{}", at, address, diff);
                prop_assert_eq!(told(Change::Closes), before && !after, "{} {}\n{}", at, address, diff);
            }
        }
    }
}

#[test]
fn a_rate_is_a_condition_of_its_own() {
    let reads = |extra: &str| {
        allow(
            "reads",
            &format!("function = 3\naddress = \"holding 0-9\"\n{extra}"),
        )
    };
    let (slow, fast) = (
        "rate = { count = 2, per = \"1m\" }\n",
        "rate = { per_second = 9 }\n",
    );
    let text = text_of(&reads(slow), &reads(fast));
    assert_eq!(text, "rate of \"reads\": 9 in 1s, was 2 in 60s");
    let text = text_of(&reads(slow), &reads(""));
    assert_eq!(text, "rate of \"reads\": none, was 2 in 60s");
    assert!(text_of("", &reads(slow)).starts_with("opens"));
}

#[test]
fn a_step_is_a_condition_of_its_own_but_for_function_22() {
    let writes = |function: &str, extra: &str| {
        let body = format!("function = {function}\naddress = \"holding 0-9\"\n{extra}");
        allow("writes", &body)
    };
    let (short, long) = (
        "step = { max = 5 }\n",
        "step = { max = 50, within = \"500ms\" }\nrate = { per_second = 1 }\n",
    );
    let text = text_of(&writes("6", short), &writes("6", long));
    let rate = "rate of \"writes\": 1 in 1s, was none";
    let step = "step of \"writes\": 50 within 500ms, was 5 within 10s";
    assert_eq!(text, format!("{rate}\n{step}"));
    let text = text_of(&writes("\"write\"", ""), &writes("\"write\"", short));
    assert!(text.starts_with("closes\n"), "{text}");
    assert!(text.contains(": function 22 at holding 0-9"), "{text}");
    let step = "\nstep of \"writes\": 5 within 10s, was none";
    assert!(text.ends_with(step), "{text}");
}
