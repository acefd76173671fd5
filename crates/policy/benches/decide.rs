//! What a decision costs, all rules for one device, unit and function: no rule can be skipped
//! for being about something else.

use std::fmt::Write;
use std::hint::black_box;
use std::net::IpAddr;

use divan::Bencher;
use fieldlock_modbus::Request;
use fieldlock_policy::{Call, Client, Controller, Now, Origin, Policy, Side, StationOrigin};
use fieldlock_profinet::Mac;

/// Reports allocations where there are any: `decide` shows none.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

const RULES: [usize; 3] = [1, 100, 1_000];

/// Setpoints of a plant: each rule has its own registers and its own bounds.
fn apart(rule: usize) -> (usize, usize, usize, usize) {
    (rule * 20, rule * 20 + 9, rule, rule + 500)
}

/// Every range overlaps every other one, none contains another.
fn nested(rule: usize) -> (usize, usize, usize, usize) {
    (rule, 30_000 + rule, 0, 65_535)
}

/// The same registers in every rule, and scattered narrow bounds: nothing but the bounds tells
/// the rules apart.
fn same(rule: usize) -> (usize, usize, usize, usize) {
    let min = rule * 7_919 % 60_000;
    (0, 65_535, min, min + 10)
}

/// Every range holds the address, bounds are scattered over all values with gaps between, and
/// neither follows the other.
fn scattered(rule: usize) -> (usize, usize, usize, usize) {
    let min = rule * 7_919 % 1_000 * 60;
    (rule, 65_535 - rule * 31 % 1_000, min, min + 10)
}

fn policy(kind: &str, rules: usize, shape: fn(usize) -> (usize, usize, usize, usize)) -> Policy {
    let mut text = String::from("syntax = 1\n");
    for rule in 0..rules {
        let (first, last, min, max) = shape(rule);
        let value = match (min, max) {
            (0, 65_535) => String::new(),
            _ => format!("value = {{ min = {min}, max = {max} }}"),
        };
        let _ = write!(
            text,
            "[[{kind}]]\nname = \"rule {rule}\"\ndevice = \"press-07\"\nfunction = 16\n\
             address = \"holding {first}-{last}\"\n{value}\n"
        );
    }
    if kind == "deny" {
        text +=
            "[[allow]]\nname = \"all\"\ndevice = \"any\"\nfunction = \"any\"\naddress = \"any\"\n";
    }
    match Policy::parse(&text, "bench.toml") {
        Ok(policy) => policy,
        Err(errors) => unreachable!("{errors}"),
    }
}

fn origin() -> Origin<'static> {
    Origin {
        side: Side::Edge,
        via: Some("hd-1"),
        client: Client {
            address: Some(IpAddr::from([10, 1, 1, 20])),
            ..Client::default()
        },
    }
}

/// Function 16, two registers.
fn write(start: usize, value: usize) -> Vec<u8> {
    let mut pdu = vec![16];
    for word in [start, 2] {
        pdu.extend((word as u16).to_be_bytes());
    }
    pdu.push(4);
    for _ in 0..2 {
        pdu.extend((value as u16).to_be_bytes());
    }
    pdu
}

fn decide(bencher: Bencher, policy: &Policy, pdu: &[u8], allowed: bool) {
    let view = policy.view(&origin(), "press-07", &policy.phase(Now::Unknown));
    let Ok(request) = Request::parse(pdu) else {
        unreachable!("valid PDU");
    };
    assert_eq!(view.decide(1, &request).allowed(), allowed);
    bencher.bench(|| view.decide(black_box(1), black_box(&request)));
}

#[divan::bench(args = RULES)]
fn allow_apart_last_rule(bencher: Bencher, rules: usize) {
    let (first, _, min, _) = apart(rules - 1);
    decide(
        bencher,
        &policy("allow", rules, apart),
        &write(first, min),
        true,
    );
}

#[divan::bench(args = RULES)]
fn refuse_apart_value(bencher: Bencher, rules: usize) {
    let (first, _, _, max) = apart(rules - 1);
    decide(
        bencher,
        &policy("allow", rules, apart),
        &write(first, max + 1),
        false,
    );
}

#[divan::bench(args = RULES)]
fn refuse_apart_address(bencher: Bencher, rules: usize) {
    let (_, last, min, _) = apart(rules - 1);
    decide(
        bencher,
        &policy("allow", rules, apart),
        &write(last, min),
        false,
    );
}

#[divan::bench(args = RULES)]
fn refuse_nested_address(bencher: Bencher, rules: usize) {
    decide(
        bencher,
        &policy("allow", rules, nested),
        &write(60_000, 1),
        false,
    );
}

#[divan::bench(args = RULES)]
fn refuse_same_addresses_value(bencher: Bencher, rules: usize) {
    decide(
        bencher,
        &policy("allow", rules, same),
        &write(10, 65_000),
        false,
    );
}

#[divan::bench(args = RULES)]
fn allow_same_addresses_value(bencher: Bencher, rules: usize) {
    let (_, _, min, _) = same(rules - 1);
    decide(
        bencher,
        &policy("allow", rules, same),
        &write(10, min),
        true,
    );
}

#[divan::bench(args = RULES)]
fn refuse_scattered_value(bencher: Bencher, rules: usize) {
    decide(
        bencher,
        &policy("allow", rules, scattered),
        &write(2_000, 30_030),
        false,
    );
}

#[divan::bench(args = RULES)]
fn allow_scattered_value(bencher: Bencher, rules: usize) {
    let (_, _, min, _) = scattered(rules - 1);
    decide(
        bencher,
        &policy("allow", rules, scattered),
        &write(2_000, min),
        true,
    );
}

/// Every deny is looked for and none matches.
#[divan::bench(args = RULES)]
fn allow_past_denies(bencher: Bencher, rules: usize) {
    let (_, last, min, _) = apart(rules - 1);
    decide(
        bencher,
        &policy("deny", rules, apart),
        &write(last + 1, min),
        true,
    );
}

/// 123 registers to be bounded, one rule.
#[divan::bench]
fn allow_longest_write(bencher: Bencher) {
    let mut pdu = vec![16, 0, 0, 0, 123, 246];
    pdu.extend([1, 44].repeat(123));
    let text = "syntax = 1\n[[allow]]\nname = \"a\"\ndevice = \"any\"\nfunction = 16\n\
                address = \"any\"\nvalue = { max = 300 }\n";
    let Ok(policy) = Policy::parse(text, "bench.toml") else {
        unreachable!("valid policy");
    };
    decide(bencher, &policy, &pdu, true);
}

#[divan::bench(args = RULES)]
fn build_view(bencher: Bencher, rules: usize) {
    bencher
        .with_inputs(|| policy("allow", rules, apart))
        .bench_refs(|policy| policy.view(&origin(), "press-07", &policy.phase(Now::Unknown)));
}

#[divan::bench(args = RULES)]
fn known_view(bencher: Bencher, rules: usize) {
    let policy = policy("allow", rules, apart);
    let phase = policy.phase(Now::Unknown);
    bencher.bench(|| policy.view(black_box(&origin()), "press-07", &phase));
}

#[divan::bench(args = RULES)]
fn parse(bencher: Bencher, rules: usize) {
    bencher.bench(|| policy("allow", black_box(rules), apart));
}

/// Rules for stations that all are for this pair and cover everything but the call.
fn stations(rules: usize) -> Policy {
    let mut text = String::from("syntax = 1\n");
    for rule in 0..rules {
        let _ = write!(
            text,
            "[[allow]]\nname = \"rule {rule}\"\nstation = \"drive-1\"\nservice = \"write\"\n\
             record = \"{rule}\"\nslot = \"1-4\"\n"
        );
    }
    match Policy::parse(&text, "bench.toml") {
        Ok(policy) => policy,
        Err(errors) => unreachable!("{errors}"),
    }
}

#[divan::bench(args = RULES)]
fn judge_station_last_rule(bencher: Bencher, rules: usize) {
    let origin = StationOrigin {
        side: Side::Edge,
        via: Some("hd-1"),
        controller: Controller {
            mac: Mac([0, 0x1b, 0x1b, 1, 2, 3]),
            station: None,
        },
    };
    let Ok(station) = "drive-1".parse() else {
        unreachable!("valid name");
    };
    let view = stations(rules).station_view(&origin, &station);
    let call = Call::Write {
        index: rules as u16 - 1,
        slot: 1,
        subslot: 1,
    };
    assert!(view.judge(&call, Now::Unknown).allowed());
    bencher.bench(|| view.judge(black_box(&call), Now::Unknown));
}
