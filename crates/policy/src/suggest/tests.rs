#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, UNIX_EPOCH};

use fieldlock_modbus::Table;
use proptest::prelude::*;

use super::*;
use crate::diff::test_request;
use crate::model::client::{Client, Origin, Side};
use crate::policy::Policy;

fn asker(address: &str) -> Asker {
    Asker {
        address: Some(address.parse().unwrap()),
        ..Asker::default()
    }
}

fn observed(pdu: &[u8]) -> Observation {
    Observation::of(&Request::parse(pdu).unwrap())
}

fn parsed(text: &str) -> Policy {
    Policy::parse(text, "suggested.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// Adds a request of 10.1.1.20 to unit 1 of press-07, seen once in the given second.
fn seen(traffic: &mut Traffic, pdu: &[u8], second: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(second);
    let asker = asker("10.1.1.20");
    let added = traffic.add(&asker, "press-07", 1, observed(pdu), Some(time), 1);
    added.unwrap();
}

#[test]
fn a_suggestion_reads_as_if_a_person_had_written_it() {
    let mut traffic = Traffic::default();
    for second in 0..10 {
        seen(&mut traffic, &[3, 0, 0, 0, 50], second);
        seen(&mut traffic, &[3, 0, 50, 0, 50], second);
        seen(&mut traffic, &[1, 0, 0, 0, 16], second);
    }
    seen(&mut traffic, &[6, 0, 40, 0, 100], 3);
    seen(&mut traffic, &[6, 0, 40, 4, 176], 7);
    let expected = r#"syntax = 1

[[client]]
name = "10.1.1.20"
address = ["10.1.1.20"]

# 30 requests, 1970-01-01T00:00:00Z to 1970-01-01T00:00:09Z
[[allow]]
name = "10.1.1.20 reads press-07"
client = "10.1.1.20"
device = "press-07"
unit = [1]
function = [1, 3]
address = ["coil 0-15", "holding 0-99"]

# 2 requests, 1970-01-01T00:00:03Z to 1970-01-01T00:00:07Z
[[allow]]
name = "10.1.1.20 writes press-07 holding 40"
client = "10.1.1.20"
device = "press-07"
unit = [1]
function = [6]
address = ["holding 40"]
value = { min = 100, max = 1200 }
"#;
    assert_eq!(traffic.suggest(&Options::default()), expected);
    parsed(expected);
}

#[test]
fn gaps_are_closed_as_far_as_told() {
    let mut traffic = Traffic::default();
    seen(&mut traffic, &[3, 0, 0, 0, 10], 0);
    seen(&mut traffic, &[3, 0, 13, 0, 10], 0);
    let with = |gap| {
        let options = Options {
            gap,
            ..Options::default()
        };
        traffic.suggest(&options)
    };
    assert!(with(2).contains("\"holding 0-9\", \"holding 13-22\""));
    assert!(with(3).contains("[\"holding 0-22\"]"));
}

#[test]
fn halves_at_different_addresses_are_left_out_unless_wanted() {
    let mut traffic = Traffic::default();
    let pdu = [23, 0, 0, 0, 10, 0, 40, 0, 1, 2, 0, 7];
    seen(&mut traffic, &pdu, 0);
    let without = traffic.suggest(&Options::default());
    assert!(without.contains("# Left out: 10.1.1.20 reads holding 0-9 and writes holding 40"));
    assert!(!without.contains("[[allow]]"));
    let options = Options {
        joined_halves: true,
        ..Options::default()
    };
    let with = parsed(&traffic.suggest(&options));
    assert!(allows(&with, "10.1.1.20", "press-07", 1, &pdu));
}

#[test]
fn what_cannot_be_named_is_refused() {
    let mut traffic = Traffic::default();
    let what = observed(&[3, 0, 0, 0, 1]);
    let mut add = |asker: &Asker, device: &str, what| traffic.add(asker, device, 1, what, None, 1);
    let someone = asker("10.1.1.20");
    assert_eq!(
        add(&Asker::default(), "press", what),
        Err(SuggestError::Nobody)
    );
    assert_eq!(add(&someone, "Press 7", what), Err(SuggestError::Device));
    let bare = Observation { read: None, ..what };
    assert_eq!(add(&someone, "press", bare), Err(SuggestError::Incomplete));
}

#[test]
fn names_that_others_chose_do_not_break_the_file() {
    let mut traffic = Traffic::default();
    let names = ["any", "set:x", "a\"b\\c\n[[allow]]", "same", "same", ""];
    for (number, name) in names.into_iter().enumerate() {
        let asker = Asker {
            name: Some(name.to_owned()),
            identity: Some(format!("spiffe://x/\"{number}\n")),
            ..Asker::default()
        };
        let what = observed(&[3, 0, 0, 0, 1]);
        traffic.add(&asker, "press", 1, what, None, 1).unwrap();
    }
    let text = traffic.suggest(&Options::default());
    assert_eq!(text.matches("\n[[allow]]").count(), names.len());
}

#[test]
fn of_diagnostics_only_what_was_seen_is_suggested() {
    let mut traffic = Traffic::default();
    let asker = Asker {
        address: Some(CLIENTS[0].parse().unwrap()),
        ..Asker::default()
    };
    let asked: [&[u8]; 3] = [&[17], &[8, 0, 0, 0, 0], &[43, 14, 1, 0]];
    for pdu in asked {
        traffic
            .add(&asker, "press", 1, observed(pdu), None, 1)
            .unwrap();
    }
    let text = traffic.suggest(&Options::default());
    assert!(
        text.contains("function = [17, \"8/0\", \"43/14\"]"),
        "{text}"
    );
    let policy = Policy::parse(&text, "suggested").unwrap();
    for pdu in asked {
        assert!(allows(&policy, CLIENTS[0], "press", 1, pdu), "{pdu:?}");
    }
    assert!(!allows(&policy, CLIENTS[0], "press", 1, &[8, 0, 1, 0, 0]));

    let reserved = observed(&[8, 0, 77, 0, 0]);
    traffic.add(&asker, "press", 1, reserved, None, 1).unwrap();
    let text = traffic.suggest(&Options::default());
    assert!(text.contains("function = [8, 17, \"43/14\"]"), "{text}");
}

fn allows(policy: &Policy, client: &str, device: &str, unit: u8, pdu: &[u8]) -> bool {
    let client = Client {
        address: Some(client.parse().unwrap()),
        ..Client::default()
    };
    let origin = Origin {
        side: Side::Headend,
        via: None,
        client,
    };
    let request = Request::parse(pdu).unwrap();
    policy
        .view(
            &origin,
            device,
            &policy.phase(crate::model::phase::Now::Unknown),
        )
        .decide(unit, &request)
        .allowed()
}

const CLIENTS: [&str; 2] = ["10.1.1.20", "2001:db8::1"];
const DEVICES: [&str; 2] = ["press-07", "oven"];

#[derive(Debug, Clone)]
struct Asked {
    client: usize,
    device: usize,
    unit: u8,
    pdu: Vec<u8>,
}

prop_compose! {
    fn asked()(
        client in 0usize..2,
        device in 0usize..2,
        unit in 0u8..3,
        function in prop::sample::select(vec![1u8, 2, 3, 4, 5, 6, 8, 15, 16, 22, 43]),
        first in 0u16..30,
        values in prop::collection::vec(0u16..100, 1..6),
    ) -> Asked {
        Asked { client, device, unit, pdu: test_request(function, first, &values) }
    }
}

/// Function and element, with the value where one is known.
type Element = (u8, Option<(Table, u16)>, Option<u16>);

fn elements(pdu: &[u8]) -> Vec<Element> {
    let request = Request::parse(pdu).unwrap();
    let function = request.function().0;
    let places = |range: fieldlock_modbus::Range| {
        (range.start..=range.last()).map(move |address| (range.table, address))
    };
    if let Some(range) = request.read() {
        return places(range)
            .map(|place| (function, Some(place), None))
            .collect();
    }
    let Some(write) = request.write() else {
        return vec![(function, None, None)];
    };
    let values: Vec<Option<u16>> = match function {
        22 => vec![None],
        _ => write.values.iter().map(Some).collect(),
    };
    let places = places(write.range).zip(values);
    places
        .map(|(place, value)| (function, Some(place), value))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_suggestion_allows_what_was_seen_and_no_element_that_was_not(
        learned in prop::collection::vec(asked(), 0..40),
        others in prop::collection::vec(asked(), 40),
        bound_values in any::<bool>(),
    ) {
        let mut traffic = Traffic::default();
        for one in &learned {
            let asker = asker(CLIENTS[one.client]);
            let added = traffic.add(&asker, DEVICES[one.device], one.unit, observed(&one.pdu), None, 1);
            prop_assert_eq!(added, Ok(()));
        }
        let text = traffic.suggest(&Options { bound_values, ..Options::default() });
        let policy = parsed(&text);
        let allowed = |one: &Asked| {
            allows(&policy, CLIENTS[one.client], DEVICES[one.device], one.unit, &one.pdu)
        };
        for one in &learned {
            prop_assert!(allowed(one), "{one:?} is not allowed by\n{text}");
        }
        for one in others.iter().filter(|one| allowed(one)) {
            let alike = |other: &&Asked| {
                (other.client, other.device, other.unit) == (one.client, one.device, one.unit)
            };
            let known: Vec<_> = learned.iter().filter(alike).flat_map(|o| elements(&o.pdu)).collect();
            for (function, place, value) in elements(&one.pdu) {
                let same = || known.iter().filter(|(f, p, _)| *f == function && *p == place);
                prop_assert!(same().count() > 0, "{one:?} was never seen:\n{text}");
                // Bounds are those of a joined range: within the extremes of the function.
                if let (true, Some(value)) = (bound_values, value) {
                    let seen = || known.iter().filter(|(f, ..)| *f == function).filter_map(|k| k.2);
                    let bounds = seen().min().unwrap()..=seen().max().unwrap();
                    prop_assert!(bounds.contains(&value), "{one:?} {text}");
                }
            }
        }
    }
}
