//! The view against a model that knows nothing of intervals, classes or trees: sets of single
//! addresses, and every rule looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use fieldlock_modbus::{Exception, Request, Table};
use fieldlock_policy::{Asked, Client, Decision, Now, Origin, Policy, Side, explain};
use proptest::prelude::*;

/// A rule as a person would tell it.
#[derive(Debug, Clone)]
struct ModelRule {
    allow: bool,
    clients: Option<BTreeSet<usize>>,
    via: Option<usize>,
    device: Option<usize>,
    units: Option<BTreeSet<u8>>,
    /// Words of `function`.
    functions: Vec<&'static str>,
    /// Table and addresses; `None` is `"any"`.
    addresses: Option<Vec<(Table, u16, u16)>>,
    value: Option<(u16, u16)>,
    /// Whether its window is open at [`NOW`]; `None`: it has none.
    open: Option<bool>,
    /// Of an allow: it has a rate, which changes nothing as long as nobody counts.
    rated: bool,
    /// Of an allow: it has a step, which changes nothing either, but for function 22.
    stepped: bool,
}

/// One half of a request.
#[derive(Debug)]
struct Half {
    code: u8,
    write: bool,
    table: Option<Table>,
    addresses: Vec<u16>,
    /// The sub-function, or MEI type.
    part: u16,
    /// `None` where no value is told: reads and masks.
    values: Option<Vec<u16>>,
}

const WORDS: [(&str, &[u8], &[u8]); 16] = [
    // word, codes and read halves, codes and write halves
    ("\"read\"", &[1, 2, 3, 4, 23], &[]),
    ("\"write\"", &[], &[5, 6, 15, 16, 22, 23]),
    ("3", &[3], &[]),
    ("1", &[1], &[]),
    ("5", &[], &[5]),
    ("6", &[], &[6]),
    ("15", &[], &[15]),
    ("16", &[], &[16]),
    ("22", &[], &[22]),
    ("23", &[23], &[23]),
    ("\"diagnostics\"", &[7, 8, 11, 12, 17, 43], &[]),
    ("90", &[90], &[]),
    ("8", &[8], &[]),
    ("\"8/0\"", &[8], &[]),
    ("\"8/1-4\"", &[8], &[]),
    ("\"43/14\"", &[43], &[]),
];

/// Whether a word that stands for this function does so for this part of it.
fn has_part(word: &str, code: u8, part: u16) -> bool {
    match (word, code) {
        ("\"8/0\"", _) => part == 0,
        ("\"8/1-4\"", _) => (1..=4).contains(&part),
        ("\"43/14\"", _) | ("\"diagnostics\"", 43) => part == 14,
        ("\"diagnostics\"", 8) => [0, 2, 11, 12, 13, 14, 15, 16, 17, 18].contains(&part),
        _ => true,
    }
}

/// 2026-06-01T00:00:00Z
const NOW: Now = Now::At(1_780_272_000);

const DEVICES: [&str; 3] = ["press-07", "mixer-03", "oven-01"];
const HEADENDS: [&str; 2] = ["hd-1", "hd-2"];

impl ModelRule {
    fn functions(&self) -> impl Iterator<Item = (&'static str, &'static [u8], &'static [u8])> {
        let named = self.functions.clone();
        WORDS
            .into_iter()
            .filter(move |(word, ..)| named.contains(word))
    }

    fn has(&self, half: &Half) -> bool {
        self.functions()
            .any(|(word, reads, writes)| match half.write {
                true if half.code == 22 && self.stepped => word == "22",
                true => writes.contains(&half.code),
                false => reads.contains(&half.code) && has_part(word, half.code, half.part),
            })
    }

    fn holds(&self, table: Table, address: u16) -> bool {
        match &self.addresses {
            None => true,
            Some(list) => list
                .iter()
                .any(|(of, first, last)| *of == table && (*first..=*last).contains(&address)),
        }
    }

    fn scope(&self, question: &Question) -> bool {
        self.clients
            .as_ref()
            .is_none_or(|c| c.iter().any(|c| question.clients.contains(c)))
            && self
                .via
                .is_none_or(|via| !question.edge || via == question.via)
            && self.device.is_none_or(|device| device == question.device)
            && match (&self.units, question.unit, self.allow) {
                (_, 0, false) => true,
                (None, unit, _) => unit != 0,
                (Some(units), unit, _) => units.contains(&unit),
            }
    }

    fn denies(&self, half: &Half) -> bool {
        let Some((min, max)) = self.value else {
            return self.has(half)
                && half.table.is_none_or(|table| {
                    half.addresses
                        .iter()
                        .any(|address| self.holds(table, *address))
                });
        };
        let Some(table) = half.table.filter(|_| half.write && self.has(half)) else {
            return false;
        };
        half.addresses.iter().enumerate().any(|(index, address)| {
            let value = half.values.as_ref().map(|values| values[index]);
            self.holds(table, *address) && value.is_none_or(|v| (min..=max).contains(&v))
        })
    }

    /// The worst that is wrong, as the exception that tells it.
    fn covers(&self, half: &Half) -> Result<(), Exception> {
        if !self.has(half) {
            return Err(Exception::IllegalFunction);
        }
        let Some(table) = half.table else {
            return Ok(());
        };
        // One rule of touching ranges covers what crosses them, so single addresses are enough.
        if !half
            .addresses
            .iter()
            .all(|address| self.holds(table, *address))
        {
            return Err(Exception::IllegalDataAddress);
        }
        let named_22 = half.code == 22 && self.functions.contains(&"22");
        let within = match (self.value, &half.values) {
            (Some(_), _) if !half.write || named_22 => true,
            (Some((min, max)), Some(values)) => {
                values.iter().all(|value| (min..=max).contains(value))
            }
            (Some(bounds), None) => bounds == (0, u16::MAX),
            (None, _) => true,
        };
        match within {
            true => Ok(()),
            false => Err(Exception::IllegalDataValue),
        }
    }

    fn text(&self, index: usize) -> String {
        let mut text = match self.allow {
            true => format!("[[allow]]\nname = \"rule {index}\"\n"),
            false => format!("[[deny]]\nname = \"rule {index}\"\n"),
        };
        if let Some(clients) = &self.clients {
            let names: Vec<String> = clients.iter().map(|c| format!("\"client-{c}\"")).collect();
            text += &format!("client = [{}]\n", names.join(", "));
        }
        if let Some(via) = self.via {
            text += &format!("via = \"{}\"\n", HEADENDS[via]);
        }
        if let Some(units) = &self.units {
            text += &format!("unit = {:?}\n", units.iter().collect::<Vec<_>>());
        }
        let mut set = String::new();
        let device = self.device.map_or("any", |device| DEVICES[device]);
        text += &format!("device = \"{device}\"\n");
        text += &format!("function = [{}]\n", self.functions.join(", "));
        text += &match &self.addresses {
            None => "address = \"any\"\n".to_owned(),
            Some(list) => {
                let list: Vec<String> = list
                    .iter()
                    .map(|(table, first, last)| format!("\"{} {first}-{last}\"", name(*table)))
                    .collect();
                // To the model a set is nothing but another way to write the list.
                match list.as_slice() {
                    [first, rest @ ..] if index % 2 == 1 && !rest.is_empty() => {
                        let rest = rest.join(", ");
                        set = format!("[[set]]\nname = \"{index}\"\naddress = [{rest}]\n");
                        format!("address = [{first}, \"set:{index}\"]\n")
                    }
                    list => format!("address = [{}]\n", list.join(", ")),
                }
            }
        };
        if let Some((min, max)) = self.value {
            text += &format!("value = {{ min = {min}, max = {max} }}\n");
        }
        if let Some(open) = self.open {
            let from = if open { 2020 } else { 2030 };
            text += &format!("time = {{ not_before = {from}-01-01T00:00:00Z }}\n");
        }
        if self.rated {
            text += "rate = { per_second = 1 }\n";
        }
        if self.stepped {
            text += "step = { max = 1 }\n";
        }
        text + &set
    }
}

fn name(table: Table) -> &'static str {
    match table {
        Table::Coil => "coil",
        Table::DiscreteInput => "discrete",
        Table::InputRegister => "input",
        Table::HoldingRegister => "holding",
    }
}

#[derive(Debug, Clone)]
struct Question {
    edge: bool,
    via: usize,
    clients: Vec<usize>,
    device: usize,
    unit: u8,
    pdu: Vec<u8>,
}

fn halves(pdu: &[u8]) -> Vec<Half> {
    let request = Request::parse(pdu).unwrap();
    let code = request.function().0;
    let span = |start: u16, count: u16| (0..count).map(|i| start + i).collect();
    let mut halves = Vec::new();
    if let Some(range) = request.read() {
        halves.push(Half {
            code,
            write: false,
            table: Some(range.table),
            addresses: span(range.start, range.count),
            values: None,
            part: 0,
        });
    }
    if let Some(write) = request.write() {
        let values: Vec<u16> = write.values.iter().collect();
        halves.push(Half {
            code,
            write: true,
            table: Some(write.range.table),
            addresses: span(write.range.start, write.range.count),
            values: (code != 22).then_some(values),
            part: 0,
        });
    }
    if halves.is_empty() {
        halves.push(Half {
            code,
            write: false,
            table: None,
            addresses: Vec::new(),
            values: None,
            part: request.sub_function().unwrap_or(0),
        });
    }
    halves
}

/// What must be answered: nothing, or the exception.
fn model(rules: &[ModelRule], read_only: Option<usize>, question: &Question) -> Option<Exception> {
    let halves = halves(&question.pdu);
    let request = Request::parse(&question.pdu).unwrap();
    let scoped = rules.iter().filter(|r| r.scope(question));
    let (applying, closed): (Vec<&ModelRule>, Vec<&ModelRule>) =
        scoped.partition(|rule| rule.open != Some(false));
    let denied = |rule: &&ModelRule| !rule.allow && halves.iter().any(|half| rule.denies(half));
    let refused = applying.iter().any(denied)
        || read_only == Some(question.device) && request.changes_state();
    if refused {
        return Some(Exception::IllegalFunction);
    }
    let covered = |rules: &[&ModelRule], half: &Half| {
        let mut allows = rules.iter().filter(|rule| rule.allow);
        allows.any(|rule| rule.covers(half).is_ok())
    };
    let mut waiting = halves.iter().filter(|half| !covered(&applying, half));
    let waits = waiting.clone().next().is_some();
    if waits && waiting.all(|half| covered(&closed, half)) {
        return Some(Exception::IllegalFunction);
    }
    let answers = halves.iter().map(|half| {
        let allows = applying.iter().filter(|rule| rule.allow);
        let answers: Vec<_> = allows.map(|rule| rule.covers(half)).collect();
        match answers.iter().any(Result::is_ok) {
            true => None,
            // The rule that comes closest tells what is wrong.
            false => Some(
                answers
                    .into_iter()
                    .filter_map(Result::err)
                    .max_by_key(|exception| exception.code())
                    .unwrap_or(Exception::IllegalFunction),
            ),
        }
    });
    answers.flatten().min_by_key(|exception| exception.code())
}

fn rule() -> impl Strategy<Value = ModelRule> {
    let tables = prop_oneof![
        4 => Just(Table::HoldingRegister),
        2 => Just(Table::Coil),
        1 => Just(Table::InputRegister),
        1 => Just(Table::DiscreteInput),
    ];
    let span = (tables, 0u16..30, 0u16..10).prop_map(|(t, first, more)| (t, first, first + more));
    let units = proptest::collection::btree_set(0u8..4, 1..3);
    let clients = proptest::collection::btree_set(0usize..3, 1..3);
    (
        prop::bool::weighted(0.75),
        proptest::option::weighted(0.3, clients),
        proptest::option::weighted(0.2, 0usize..2),
        proptest::option::weighted(0.5, 0usize..3),
        proptest::option::weighted(0.5, units),
        proptest::sample::subsequence(WORDS.map(|(word, ..)| word).to_vec(), 1..5),
        proptest::option::weighted(0.8, proptest::collection::vec(span, 1..4)),
        proptest::option::weighted(0.4, (0u16..6, 0u16..6)),
        (
            proptest::option::weighted(0.3, any::<bool>()),
            prop::bool::weighted(0.3),
            prop::bool::weighted(0.3),
        ),
    )
        .prop_map(
            |(
                allow,
                clients,
                via,
                device,
                units,
                functions,
                addresses,
                value,
                (open, rated, stepped),
            )| {
                let mut rule = ModelRule {
                    allow,
                    clients,
                    via,
                    device,
                    units,
                    functions,
                    addresses,
                    value: value.map(|(min, more)| (min, min + more)),
                    open,
                    rated: allow && rated,
                    stepped: allow && stepped,
                };
                // Where a policy file refuses value bounds, there are none.
                let opaque = rule
                    .functions()
                    .any(|(_, reads, _)| reads.iter().any(|code| [8, 43, 90].contains(code)));
                let writes = rule.functions().any(|(_, _, writes)| !writes.is_empty());
                if opaque || !writes {
                    rule.value = None;
                }
                let registers = rule
                    .functions()
                    .any(|(_, _, writes)| writes.iter().any(|code| [6, 16, 22, 23].contains(code)));
                rule.stepped &= !opaque && registers;
                rule
            },
        )
}

fn pdu() -> impl Strategy<Value = Vec<u8>> {
    let small = || (0u8..35, 1u8..8);
    let values = || proptest::collection::vec(0u8..12, 8);
    let bytes = |values: &[u8], count: u8| -> Vec<u8> {
        let words = values.iter().take(usize::from(count));
        words.flat_map(|value| [0, *value]).collect()
    };
    prop_oneof![
        2 => (1u8..5, small()).prop_map(|(code, (start, count))| vec![code, 0, start, 0, count]),
        1 => (small(), any::<bool>()).prop_map(|((start, _), on)| {
            vec![5, 0, start, if on { 255 } else { 0 }, 0]
        }),
        1 => (small(), 0u8..12).prop_map(|((start, _), value)| vec![6, 0, start, 0, value]),
        1 => (small(), any::<u8>()).prop_map(|((start, count), bits)| {
            vec![15, 0, start, 0, count, 1, bits]
        }),
        2 => (small(), values()).prop_map(move |((start, count), values)| {
            let mut pdu = vec![16, 0, start, 0, count, 2 * count];
            pdu.extend(bytes(&values, count));
            pdu
        }),
        1 => small().prop_map(|(start, or)| vec![22, 0, start, 0, 0, 0, or]),
        2 => (small(), small(), values()).prop_map(move |((read, reads), (write, writes), values)| {
            let mut pdu = vec![23, 0, read, 0, reads, 0, write, 0, writes, 2 * writes];
            pdu.extend(bytes(&values, writes));
            pdu
        }),
        1 => prop_oneof![
            Just(vec![7]),
            (0u8..33).prop_map(|part| vec![8, 0, part, 0, 0]),
            Just(vec![8, 255, 255, 0, 0]),
            Just(vec![43, 13]),
            Just(vec![17]),
            Just(vec![43, 14, 1, 0]),
            Just(vec![90, 1]),
            Just(vec![24, 0, 3]),
        ],
    ]
}

fn question() -> impl Strategy<Value = Question> {
    (
        any::<bool>(),
        0usize..2,
        proptest::sample::subsequence(vec![0usize, 1, 2], 0..=3),
        0usize..3,
        0u8..4,
        pdu(),
    )
        .prop_map(|(edge, via, clients, device, unit, pdu)| Question {
            edge,
            via,
            clients,
            device,
            unit,
            pdu,
        })
}

fn policy(rules: &[ModelRule], read_only: Option<usize>) -> Policy {
    let mut text = String::from("syntax = 1\n");
    if let Some(device) = read_only {
        text += &format!("read_only = [\"{}\"]\n", DEVICES[device]);
    }
    // Client 0 is told by its address, 1 by its identity, 2 by its role, so that any may match.
    text += "[[client]]\nname = \"client-0\"\naddress = \"10.0.0.0/8\"\n\
             [[client]]\nname = \"client-1\"\nidentity = \"spiffe://site/client/one\"\n\
             [[client]]\nname = \"client-2\"\nrole = \"Operator\"\n";
    for (index, rule) in rules.iter().enumerate() {
        text += &rule.text(index);
    }
    match Policy::parse(&text, "model.toml") {
        Ok(policy) => policy,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

fn origin(question: &Question) -> Origin<'static> {
    let has = |client| question.clients.contains(&client);
    Origin {
        side: if question.edge {
            Side::Edge
        } else {
            Side::Headend
        },
        via: question.edge.then_some(HEADENDS[question.via]),
        client: Client {
            address: has(0).then(|| "10.1.2.3".parse().unwrap()),
            identity: has(1).then_some("spiffe://site/client/one"),
            role: has(2).then_some("Operator"),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_view_agrees_with_the_model(
        rules in proptest::collection::vec(rule(), 0..24),
        read_only in proptest::option::weighted(0.2, 0usize..3),
        questions in proptest::collection::vec(question(), 1..20),
    ) {
        let policy = policy(&rules, read_only);
        for question in questions {
            let request = Request::parse(&question.pdu).unwrap();
            let origin = origin(&question);
            let device = DEVICES[question.device];
            let decision = policy
                .view(&origin, device, &policy.phase(NOW))
                .decide(question.unit, &request);
            let found = match decision {
                Decision::Allow { .. } => None,
                Decision::Refuse(refusal) => Some(refusal.exception),
            };
            prop_assert_eq!(found, model(&rules, read_only, &question), "{:?}", question);

            // The explanation must blame or credit the same rule, on the same grounds.
            let explanation = explain(&policy, &origin, Asked { device, unit: question.unit, request: &request, now: NOW });
            prop_assert_eq!(explanation.allowed, decision.allowed());
            for verdict in explanation.rules.iter().filter(|verdict| verdict.decides) {
                let blamed_for_value = verdict.effect == "allow" && !explanation.allowed;
                // Of function 23 the other half may well be covered.
                let applies = verdict.applies != blamed_for_value || question.pdu[0] == 23;
                prop_assert!(applies, "{}", explanation);
            }
        }
    }

    #[test]
    fn a_narrowed_policy_allows_what_both_allow_and_nothing_else(
        wide in proptest::collection::vec(rule(), 0..16),
        local in proptest::collection::vec(rule(), 0..16),
        read_only in [proptest::option::weighted(0.2, 0usize..3), proptest::option::weighted(0.2, 0usize..3)],
        questions in proptest::collection::vec(question(), 1..20),
    ) {
        let both = [policy(&wide, read_only[0]), policy(&local, read_only[1])];
        let narrowed = policy(&wide, read_only[0]).narrowed_by(policy(&local, read_only[1]));
        for question in questions {
            let request = Request::parse(&question.pdu).unwrap();
            let decide = |policy: &Policy| {
                let view = policy.view(&origin(&question), DEVICES[question.device], &policy.phase(NOW));
                view.decide(question.unit, &request)
            };
            let alone = both.each_ref().map(decide);
            let found = decide(&narrowed);
            prop_assert_eq!(found.allowed(), alone.iter().all(Decision::allowed), "{:?}", question);

            // The rule that refuses goes by the name it has in the policy that refuses.
            if let Decision::Refuse(found) = found {
                let (policy, Decision::Refuse(own)) = (match alone[0] {
                    Decision::Refuse(_) => (&both[0], alone[0]),
                    Decision::Allow { .. } => (&both[1], alone[1]),
                }) else {
                    panic!("{alone:?}");
                };
                prop_assert_eq!((found.reason, found.exception), (own.reason, own.exception));
                let name = |policy: &Policy, rule: Option<_>| {
                    rule.map(|rule| policy.rule_name(rule).to_owned())
                };
                prop_assert_eq!(name(&narrowed, found.rule), name(policy, own.rule));
            }
        }
    }

    #[test]
    fn nothing_is_allowed_that_no_rule_names(
        rules in proptest::collection::vec(rule(), 0..12),
        question in question(),
    ) {
        let naming = rules.iter().filter(|rule| rule.allow && rule.scope(&question));
        let halves = halves(&question.pdu);
        let named = halves.iter().all(|half| naming.clone().any(|rule| rule.has(half)));
        let request = Request::parse(&question.pdu).unwrap();
        let policy = policy(&rules, None);
        let view = policy.view(&origin(&question), DEVICES[question.device], &policy.phase(NOW));
        prop_assert!(named || !view.decide(question.unit, &request).allowed());
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(syntax = 1\n)?(\\PC|\n){0,200}", words in proptest::collection::vec(prop_oneof![
        Just("[[allow]]\n"), Just("[[client]]\n"), Just("[[deny]]\n"), Just("name = \"a\"\n"), Just("function = "),
        Just("address = "), Just("unit = "), Just("value = "), Just("["), Just("]"), Just("{ min = 1 }"), Just("\n"),
        Just("[[set]]\n"), Just("\"set:a\""), Just("\"any\""), Just("3"), Just("-"), Just("\"holding 3-5\""), Just("device = \"d\"\n"),
        Just("time = "), Just("{ zone = \"UTC\", days = \"sun-mon\" }"), Just("{ not_after = 2026-01-01T00:00:00Z }"), Just("rate = "), Just("step = "), Just("{ max = 1, within = \"1s\" }"), Just("{ count = 1, per = \"1h\" }"), Just("syntax = 1\n"),
    ], 0..30)) {
        for text in [text, words.concat()] {
            if let Err(errors) = Policy::parse(&text, "fuzz.toml") {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }
}
