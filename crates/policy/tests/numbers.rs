//! Rules that see registers as numbers, against a model that reads octets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use fieldlock_modbus::Request;
use fieldlock_policy::{
    Asked, Client, Decision, Now, Origin, Policy, Side, View, ceiling, diff, explain, warnings,
};
use proptest::prelude::*;

/// A rule for writes of holding registers of one device.
#[derive(Debug, Clone)]
struct ModelRule {
    allow: bool,
    /// `None`: it judges register by register.
    number: Option<(&'static str, usize)>,
    little: bool,
    partial: bool,
    names_22: bool,
    /// First register, and how many values.
    ranges: Vec<(u16, u16)>,
    bounds: Option<(i32, i32)>,
}

const TYPES: [(&str, usize); 6] = [
    ("int16", 1),
    ("uint16", 1),
    ("int32", 2),
    ("uint32", 2),
    ("float32", 2),
    ("float64", 4),
];

impl ModelRule {
    fn size(&self) -> usize {
        self.number.map_or(1, |(_, size)| size)
    }

    /// First register of each value.
    fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges.iter().flat_map(|(first, count)| {
            (0..usize::from(*count)).map(|value| usize::from(*first) + value * self.size())
        })
    }

    fn holds(&self, address: usize) -> bool {
        self.starts()
            .any(|start| (start..start + self.size()).contains(&address))
    }

    /// What the octets of one value say; `None`: no finite number.
    fn value(&self, words: &[u16]) -> Option<f64> {
        let mut words = words.to_vec();
        if self.little {
            words.reverse();
        }
        let octets: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
        let value: f64 = match self.number.map_or("uint16", |(name, _)| name) {
            "int16" => i16::from_be_bytes(octets.try_into().unwrap()).into(),
            "uint16" => u16::from_be_bytes(octets.try_into().unwrap()).into(),
            "int32" => i32::from_be_bytes(octets.try_into().unwrap()).into(),
            "uint32" => u32::from_be_bytes(octets.try_into().unwrap()).into(),
            "float32" => f32::from_be_bytes(octets.try_into().unwrap()).into(),
            _ => f64::from_be_bytes(octets.try_into().unwrap()),
        };
        Some(value).filter(|value| value.is_finite())
    }

    fn within(&self, value: f64) -> bool {
        self.bounds
            .is_none_or(|(min, max)| (min.into()..=max.into()).contains(&value))
    }

    /// The values that a write touches: whole ones as they are written, `None` for parts.
    fn touched(&self, write: &ModelWrite) -> Vec<Option<Vec<u16>>> {
        let touches = |start: &usize| {
            (*start..start + self.size()).any(|address| write.registers.contains_key(&address))
        };
        let whole = |start: usize| {
            (start..start + self.size())
                .map(|address| *write.registers.get(&address)?)
                .collect()
        };
        self.starts().filter(touches).map(whole).collect()
    }

    fn covers(&self, write: &ModelWrite) -> bool {
        if !write.registers.keys().all(|address| self.holds(*address)) {
            return false;
        }
        if write.masks && self.bounds.is_some() && !self.names_22 {
            return false;
        }
        self.touched(write).into_iter().all(|value| match value {
            Some(words) => self.value(&words).is_some_and(|value| self.within(value)),
            None => self.size() == 1 || self.partial,
        })
    }

    fn denies(&self, write: &ModelWrite) -> bool {
        self.touched(write).into_iter().any(|value| match value {
            Some(words) => self.value(&words).is_none_or(|value| self.within(value)),
            None => true,
        })
    }

    fn text(&self, index: usize) -> String {
        let effect = if self.allow { "allow" } else { "deny" };
        let ranges: Vec<String> = self
            .ranges
            .iter()
            .map(|(first, count)| {
                let last = usize::from(*first) + usize::from(*count) * self.size() - 1;
                format!("\"holding {first}-{last}\"")
            })
            .collect();
        let functions = if self.names_22 {
            "[6, 16, 22, 23]"
        } else {
            "[6, 16, \"write\"]"
        };
        let mut text = format!(
            "[[{effect}]]\nname = \"{index}\"\ndevice = \"any\"\nfunction = {functions}\naddress = [{}]\n",
            ranges.join(", ")
        );
        if let Some((number, size)) = self.number {
            text += &format!("type = {number:?}\n");
            if size > 1 && self.little {
                text += "word_order = \"little\"\n";
            }
            if size > 1 && self.allow && self.partial {
                text += "partial = \"allow\"\n";
            }
        }
        if let Some((min, max)) = self.bounds {
            text += &format!("value = {{ min = {min}, max = {max} }}\n");
        }
        text
    }
}

#[derive(Debug)]
struct ModelWrite {
    /// Address to what is written there; `None`: it is masked.
    registers: std::collections::BTreeMap<usize, Option<u16>>,
    masks: bool,
}

impl ModelWrite {
    fn of(request: &Request<'_>) -> Self {
        let write = request.write().unwrap();
        let addresses = usize::from(write.range.start)..;
        let masks = request.function().0 == 22;
        let mut values: Vec<Option<u16>> = write.values.iter().map(Some).collect();
        if masks {
            values = vec![None];
        }
        Self {
            registers: addresses.zip(values).collect(),
            masks,
        }
    }
}

fn rule() -> impl Strategy<Value = ModelRule> {
    (
        prop::bool::weighted(0.7),
        prop::option::weighted(0.8, prop::sample::select(TYPES.to_vec())),
        any::<(bool, bool, bool)>(),
        prop::collection::vec((0u16..12, 1u16..4), 1..3),
        prop::option::weighted(0.7, (-3i32..4, 0i32..4)),
    )
        .prop_map(
            |(allow, number, (little, partial, names_22), mut ranges, bounds)| {
                // Ranges of one rule agree on where values begin.
                let second = ranges.get(1).map_or(0, |range| range.0);
                for range in ranges.iter_mut().skip(1) {
                    range.0 = 40 + second;
                }
                let signed = number.is_none_or(|(name, _)| name.starts_with('u'));
                let bounds = bounds.map(|(min, more)| match signed {
                    true => (min + 3, min + 3 + more),
                    false => (min, min + more),
                });
                let bounds = match (allow, number) {
                    (false, Some(_)) => bounds.or(Some((0, 2))),
                    _ => bounds,
                };
                ModelRule {
                    allow,
                    number,
                    little: little && number.is_some_and(|(_, size)| size > 1),
                    partial: partial && allow,
                    names_22,
                    ranges,
                    bounds,
                }
            },
        )
}

/// Registers that are small numbers in some type and order, or anything, or no number.
fn words() -> impl Strategy<Value = Vec<u16>> {
    let number =
        (0usize..6, any::<bool>(), -4i32..8, 0u8..12).prop_map(|(kind, little, near, odd)| {
            let octets = match TYPES[kind].0 {
                "int16" | "uint16" => (near as i16).to_be_bytes().to_vec(),
                "int32" | "uint32" => near.to_be_bytes().to_vec(),
                "float32" => match odd {
                    0 => f32::NAN,
                    1 => f32::INFINITY,
                    2 => f32::NEG_INFINITY,
                    3 => -0.0,
                    4 => (near as f32).next_up(),
                    5 => (near as f32).next_down(),
                    _ => near as f32,
                }
                .to_be_bytes()
                .to_vec(),
                _ => match odd {
                    0 => f64::NAN,
                    1 => f64::INFINITY,
                    2 => f64::NEG_INFINITY,
                    3 => -0.0,
                    4 => f64::from(near).next_up(),
                    5 => f64::from(near).next_down(),
                    _ => f64::from(near),
                }
                .to_be_bytes()
                .to_vec(),
            };
            let pairs = octets
                .chunks(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            let mut words: Vec<u16> = pairs.collect();
            if little {
                words.reverse();
            }
            words
        });
    prop::collection::vec(
        prop_oneof![8 => number, 1 => any::<u16>().prop_map(|word| vec![word])],
        1..4,
    )
    .prop_map(|parts| parts.concat())
}

fn pdu() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![0u8..16, 40u8..56];
    (
        prop::sample::select(vec![6u8, 16, 16, 16, 22, 23]),
        start,
        words(),
    )
        .prop_map(|(function, start, words)| {
            let octets: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let count = words.len() as u8;
            match function {
                6 => vec![6, 0, start, octets[0], octets[1]],
                16 => [vec![16, 0, start, 0, count, 2 * count], octets].concat(),
                22 => vec![22, 0, start, 255, 0, 0, 1],
                _ => [
                    vec![23, 0, 200, 0, 1, 0, start, 0, count, 2 * count],
                    octets,
                ]
                .concat(),
            }
        })
}

const READS: &str =
    "[[allow]]\nname = \"reads\"\ndevice = \"any\"\nfunction = \"read\"\naddress = \"any\"\n";

fn policy(rules: &[ModelRule]) -> Policy {
    let mut text = format!("syntax = 1\n{READS}");
    for (index, rule) in rules.iter().enumerate() {
        text += &rule.text(index);
    }
    Policy::parse(&text, "numbers.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_written_is_judged_as_the_octets_say(
        rules in prop::collection::vec(rule(), 1..5),
        pdus in prop::collection::vec(pdu(), 1..12),
    ) {
        let policy = policy(&rules);
        let view = view(&policy);
        for pdu in pdus {
            let request = Request::parse(&pdu).unwrap();
            let write = ModelWrite::of(&request);
            let denied = rules.iter().any(|rule| !rule.allow && rule.denies(&write));
            let allowed = !denied && rules.iter().any(|rule| rule.allow && rule.covers(&write));
            let decision = view.decide(1, &request);
            prop_assert_eq!(decision.allowed(), allowed, "{:?} {:02x?}", decision, pdu);

            let asked = Asked { device: "press-07", unit: 1, request: &request, now: Now::Unknown };
            let explanation = explain(&policy, &anyone(), asked);
            prop_assert_eq!(explanation.allowed, allowed);
            for verdict in explanation.rules.iter().filter(|verdict| verdict.decides) {
                let blamed = verdict.effect == "allow" && !allowed;
                prop_assert!(verdict.applies != blamed || pdu[0] == 23, "{}", explanation);
            }
        }
    }
}

const FLOATS: &str = r#"
syntax = 1
[[allow]]
name = "pressure"
device = "press-07"
function = ["read", 6, 16]
address = "holding 40-43"
type = "float32"
word_order = "little"
value = { min = -0.5, max = 20.1 }
"#;

/// Function 16 at holding 40: these words.
fn write(words: &[u16]) -> Vec<u8> {
    let count = words.len() as u8;
    let octets = words.iter().flat_map(|word| word.to_be_bytes());
    [16, 0, 40, 0, count, 2 * count]
        .into_iter()
        .chain(octets)
        .collect()
}

fn float(value: f32) -> [u16; 2] {
    let bits = value.to_bits();
    [bits as u16, (bits >> 16) as u16]
}

#[test]
fn a_refusal_tells_the_value_and_its_bound() {
    let policy = Policy::parse(FLOATS, "floats.toml").unwrap();
    let view = view(&policy);
    let why = |pdu: &[u8]| match view.decide(1, &Request::parse(pdu).unwrap()) {
        Decision::Allow { .. } => "allowed".to_owned(),
        Decision::Refuse(refusal) => {
            format!("{:#04x} {}", refusal.exception.code(), refusal.reason)
        }
    };
    for (pdu, expected) in [
        (write(&float(20.1)), "allowed"),
        (write(&[float(20.1), float(-0.5)].concat()), "allowed"),
        (write(&float(20.2)), "0x03 value 20.2 above 20.1"),
        (write(&float(-0.6)), "0x03 value -0.6 below -0.5"),
        (
            write(&[float(1.0), float(-7.0)].concat()),
            "0x03 value -7.0 below -0.5",
        ),
        (
            write(&float(f32::NAN)),
            "0x03 value NaN is no finite number",
        ),
        (
            write(&float(f32::INFINITY)),
            "0x03 value inf is no finite number",
        ),
        (
            write(&[0]),
            "0x03 writes a part of the float32 at holding 40-41",
        ),
        (
            write(&[0, 0, 0]),
            "0x03 writes a part of the float32 at holding 42-43",
        ),
        (
            vec![6, 0, 41, 0, 0],
            "0x03 writes a part of the float32 at holding 40-41",
        ),
        (write(&[0; 5]), "0x02 holding 40-44 outside every range"),
        (vec![3, 0, 41, 0, 1], "allowed"),
    ] {
        assert_eq!(why(&pdu), expected, "{pdu:02x?}");
    }
}

#[test]
fn explain_shows_what_is_decoded_and_the_bounds() {
    let policy = Policy::parse(FLOATS, "floats.toml").unwrap();
    let why = |pdu: &[u8]| {
        let request = Request::parse(pdu).unwrap();
        let asked = Asked {
            device: "press-07",
            unit: 1,
            request: &request,
            now: Now::Unknown,
        };
        explain(&policy, &anyone(), asked).rules[0].why.clone()
    };
    let order = "float32 with the least significant word first";
    assert_eq!(
        why(&write(&float(1.5))),
        format!(
            "covers the request (as {order}: holding 40-41 = 1.5; allowed are {order} from -0.5 to 20.1)"
        )
    );
    assert_eq!(
        why(&write(&float(21.0))),
        format!("value 21.0 above 20.1; as {order}: holding 40-41 = 21.0")
    );
}

#[test]
fn the_ceiling_tells_of_numbers() {
    let policy = Policy::parse(FLOATS, "floats.toml").unwrap();
    let text = ceiling(&policy, None).to_string();
    let grant = "function 16 at holding 40-43, values -0.5 to 20.1, whole as float32 with the least significant word first";
    assert!(text.contains(grant), "{text}");
}

#[test]
fn a_function_that_writes_parts_alone_is_warned_of() {
    let told = |text: &str| -> Vec<String> {
        let policy = Policy::parse(text, "floats.toml").unwrap();
        warnings(&policy, 0)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let [warning] = &told(FLOATS)[..] else {
        panic!()
    };
    let expected = "write-single-register (6), which writes one register, a part of a float32";
    assert!(warning.contains(expected), "{warning}");
    assert!(told(&FLOATS.replace(" 6,", "")).is_empty());
}

#[test]
fn a_type_that_changes_is_a_difference() {
    let policy = |text: &str| Policy::parse(text, "floats.toml").unwrap();
    let old = policy(FLOATS);
    for (from, to, told) in [
        ("max = 20.1", "max = 20.2", "from -0.5 to 20.2"),
        ("\"little\"", "\"big\"", "float32 from"),
        ("float32", "float64", "float64 with"),
        ("type", "partial = \"allow\"\ntype", "and parts of values"),
        ("40-43", "40-47", "holding 40-47"),
    ] {
        let new = policy(&FLOATS.replacen(from, to, 1));
        let text = diff(&old, &new, Side::Headend).unwrap().to_string();
        let begins = "rules with a type, one by one\n  \"pressure\": allow any client";
        assert!(text.starts_with(begins) && text.contains(told), "{text}");
    }
    assert!(
        diff(&old, &policy(FLOATS), Side::Headend)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_policy_that_narrows_may_see_numbers_where_the_wider_one_does_not() {
    let wide = "syntax = 1\n[[allow]]\nname = \"all\"\ndevice = \"any\"\nfunction = \"write\"\naddress = \"any\"\n";
    let wide = Policy::parse(wide, "wide.toml").unwrap();
    let narrowed = wide.narrowed_by(Policy::parse(FLOATS, "floats.toml").unwrap());
    let view = view(&narrowed);
    let decide = |words: &[u16]| view.decide(1, &Request::parse(&write(words)).unwrap());
    let Decision::Allow {
        narrowing: Some((rule, _)),
        ..
    } = decide(&float(20.1))
    else {
        panic!("refused");
    };
    assert!(view.layout(rule).is_some());
    assert!(!decide(&float(20.2)).allowed());
    assert!(!decide(&[0]).allowed());
}
