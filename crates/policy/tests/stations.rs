//! What a policy decides about stations, case by case, and against a model that looks at every rule
//! and knows nothing of views.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use fieldlock_policy::{
    AskedStation, Call, Controller, Now, Policy, Side, StationDecision, StationOrigin,
    StationReason, ceiling, diff, explain_station, summary, warnings,
};
use fieldlock_profinet::{ArType, Service, StationName};
use proptest::prelude::*;

const LINE: &str = include_str!("valid/stations.toml");

const PLC_1: &str = "00:1b:1b:01:02:03";
const PLC_2: &str = "00:1b:1b:01:02:05";
const TOOL: &str = "00:1b:1b:01:02:06";
const STRANGER: &str = "00:1b:1b:01:02:99";

/// 2026-06-01T00:00:00Z
const JUNE: Now = Now::At(1_780_272_000);
/// 2026-03-02T08:00:00Z
const THAT_DAY: Now = Now::At(1_772_438_400);

fn parse(text: &str) -> Policy {
    Policy::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn station(name: &str) -> StationName {
    name.parse().unwrap()
}

fn origin<'a>(
    mac: &str,
    called: Option<&'a StationName>,
    via: Option<&'a str>,
) -> StationOrigin<'a> {
    StationOrigin {
        side: via.map_or(Side::Headend, |_| Side::Edge),
        via,
        controller: Controller {
            mac: mac.parse().unwrap(),
            station: called,
        },
    }
}

fn read(index: u16) -> Call {
    Call::Read {
        index,
        slot: 1,
        subslot: 1,
    }
}

fn write(index: u16, slot: u16, subslot: u16) -> Call {
    Call::Write {
        index,
        slot,
        subslot,
    }
}

#[test]
fn the_rule_or_the_reason_of_each_situation() {
    let policy = parse(LINE);
    let of = Call::Service;
    let connect = Call::Connect(ArType::IoController);
    let named = Some("plc-2.line-1");
    #[rustfmt::skip]
    let cases = [
        // controller, what it calls itself, station, call, decision
        (PLC_1, None, "drive-1", of(Service::Identify), "line 1 io"),
        (PLC_1, None, "drive-1", of(Service::Cyclic), "line 1 io"),
        (PLC_1, None, "valve-2.line-1", connect, "line 1 io"),
        (PLC_1, Some("whoever"), "drive-1", connect, "line 1 io"),
        (PLC_1, None, "drive-2", connect, "no rule for this station"),
        (PLC_1, None, "drive-1", Call::Connect(ArType::Supervisor), "no rule for an AR as supervisor"),
        (PLC_1, None, "drive-1", Call::Connect(ArType::Other(9)), "no rule for AR type 0x0009"),
        (PLC_1, None, "drive-1", of(Service::SetName), "no rule for service set-name"),
        (PLC_1, None, "drive-1", read(0xaff0), "line 1 io"),
        (PLC_1, None, "drive-1", read(0xaff1), "line 1 io"),
        (PLC_1, None, "drive-1", read(0xaff2), "record 0xaff2 outside every range"),
        (PLC_1, None, "drive-1", write(0x8001, 1, 1), "parameters"),
        (PLC_1, None, "drive-1", write(0x8001, 3, 0x8000), "parameters"),
        (PLC_1, None, "drive-1", write(0x8001, 5, 0x8000), "parameters"),
        (PLC_1, None, "drive-1", write(0x8001, 5, 1), "slot 5.0x1 outside every range"),
        (PLC_1, None, "drive-1", write(0x8001, 1, 2), "slot 1.0x2 outside every range"),
        (PLC_1, None, "drive-1", write(0x8080, 1, 1), "denied by rule by safety"),
        (PLC_1, None, "valve-2.line-1", write(0x8001, 1, 1), "no rule for service write"),
        // Nobody has said yet who it is.
        (PLC_2, None, "drive-1", of(Service::Identify), "line 1 io"),
        (PLC_2, None, "drive-1", connect, "its client has to name itself in a Connect before by line 1 io"),
        (PLC_2, None, "valve-2.line-1", connect, "denied by rule by valve stays"),
        (PLC_2, named, "drive-1", connect, "line 1 io"),
        (PLC_2, named, "valve-2.line-1", connect, "denied by rule by valve stays"),
        (PLC_2, Some("plc-9"), "drive-1", of(Service::Identify), "no rule for this controller"),
        (TOOL, None, "drive-9", Call::Connect(ArType::Supervisor), "tool"),
        (TOOL, None, "drive-9", connect, "no rule for an AR as io-controller"),
        (TOOL, None, "drive-9", of(Service::Signal), "tool"),
        (TOOL, None, "drive-9", of(Service::Reset), "no rule for service reset"),
        (TOOL, None, "drive-1", of(Service::SetIp), "outside its time window by naming, order 4711"),
        (STRANGER, None, "drive-1", of(Service::Identify), "no rule for this controller"),
    ];
    for (mac, called, name, call, expected) in cases {
        let called = called.map(station);
        let origin = origin(mac, called.as_ref(), Some("hd-1"));
        let found = decide(&policy, &origin, name, &call, JUNE);
        assert_eq!(found, expected, "{mac} {called:?} {name} {call}");
    }
}

fn decide(
    policy: &Policy,
    origin: &StationOrigin<'_>,
    name: &str,
    call: &Call,
    now: Now,
) -> String {
    let view = policy.station_view(origin, &station(name));
    match view.judge(call, now) {
        StationDecision::Allow { rule, .. } => {
            let name = policy.rule_name(rule).to_owned();
            assert_eq!(view.rule_name(rule).map(|name| &**name), Some(&*name));
            name
        }
        StationDecision::Refuse(refusal) => match refusal.rule {
            Some(rule) => format!("{} by {}", refusal.reason, policy.rule_name(rule)),
            None => refusal.reason.to_string(),
        },
    }
}

#[test]
fn a_headend_is_judged_at_the_edge_alone() {
    let policy = parse(LINE);
    let call = Call::Service(Service::Cyclic);
    let decide = |origin| decide(&policy, &origin, "drive-1", &call, JUNE);
    assert_eq!(decide(origin(PLC_1, None, None)), "line 1 io");
    let other = decide(origin(PLC_1, None, Some("hd-2")));
    assert_eq!(other, "no rule for service cyclic");
    let unproven = StationOrigin {
        side: Side::Edge,
        ..origin(PLC_1, None, None)
    };
    assert_eq!(decide(unproven), "no rule for service cyclic");
}

#[test]
fn windows_open_and_close_and_an_unknown_time_is_the_worst() {
    let policy = parse(LINE);
    let view = policy.station_view(&origin(TOOL, None, None), &station("drive-1"));
    let call = Call::Service(Service::SetName);
    let reason = |now| match view.judge(&call, now) {
        StationDecision::Allow { .. } => None,
        StationDecision::Refuse(refusal) => Some(refusal.reason),
    };
    assert_eq!(reason(THAT_DAY), None);
    assert_eq!(reason(JUNE), Some(StationReason::Window));
    assert_eq!(reason(Now::Unknown), Some(StationReason::WindowUnknown));
}

#[test]
fn a_pair_without_an_allow_has_nothing_to_say() {
    let policy = parse(LINE);
    let any = |mac, name| {
        let origin = origin(mac, None, Some("hd-1"));
        policy.station_view(&origin, &station(name)).any()
    };
    assert!(any(PLC_1, "drive-1") && any(PLC_2, "drive-1") && any(TOOL, "x"));
    assert!(!any(PLC_1, "drive-2") && !any(STRANGER, "drive-1"));
    assert!(policy.knows_controller(PLC_1.parse().unwrap()));
    assert!(!policy.knows_controller(STRANGER.parse().unwrap()));
    let stations: Vec<&str> = policy.stations().iter().map(|s| s.as_str()).collect();
    assert_eq!(stations, ["drive-1", "valve-2.line-1"]);
    let names = |mac| {
        policy
            .controller_names(&origin(mac, None, None).controller)
            .count()
    };
    assert_eq!((names(PLC_1), names(PLC_2), names(STRANGER)), (1, 1, 0));
}

#[test]
fn read_only_leaves_what_changes_nothing() {
    let policy = parse(
        "syntax = 1\nread_only = true\n[[allow]]\nname = \"all\"\nstation = \"any\"\n\
         service = [\"io\", \"records\", \"set-ip\"]\nrecord = \"any\"\n",
    );
    let view = policy.station_view(&origin(PLC_1, None, None), &station("drive-1"));
    for service in Service::ALL {
        let call = match service {
            Service::Read => read(1),
            Service::Write => write(1, 1, 1),
            other => Call::Service(other),
        };
        let harmless = [
            Service::Identify,
            Service::Get,
            Service::Hello,
            Service::Read,
        ];
        let allowed = view.judge(&call, JUNE).allowed();
        assert_eq!(allowed, harmless.contains(&service), "{service}");
    }
}

#[test]
fn a_narrowing_policy_takes_away_and_never_adds() {
    let local = "syntax = 1\n[[client]]\nname = \"plc\"\nmac = \"00:1b:1b:01:02:03\"\n\
                 [[allow]]\nname = \"unused\"\ndevice = \"any\"\nfunction = 7\n\
                 [[allow]]\nname = \"local io\"\nclient = \"plc\"\nstation = [\"drive-1\", \"drive-2\"]\n\
                 service = [\"io\", \"set-name\"]\n";
    let policy = parse(LINE).narrowed_by(parse(local));
    let decide = |mac, name, call| {
        let origin = origin(mac, None, Some("hd-1"));
        decide(&policy, &origin, name, &call, THAT_DAY)
    };
    let cyclic = Call::Service(Service::Cyclic);
    assert_eq!(decide(PLC_1, "drive-1", cyclic), "line 1 io");
    assert_eq!(
        decide(PLC_1, "valve-2.line-1", cyclic),
        "no rule for this station"
    );
    assert_eq!(
        decide(PLC_1, "drive-1", read(0xaff0)),
        "no rule for service read"
    );
    assert_eq!(decide(PLC_1, "drive-2", cyclic), "no rule for this station");
    let set = Call::Service(Service::SetName);
    assert_eq!(
        decide(PLC_1, "drive-1", set),
        "no rule for service set-name"
    );
    assert_eq!(decide(TOOL, "drive-1", set), "no rule for this controller");
    // The names of both policies' rules.
    let view = policy.station_view(&origin(PLC_1, None, Some("hd-1")), &station("drive-1"));
    let StationDecision::Allow {
        rule,
        narrowing: Some(local),
    } = view.judge(&cyclic, JUNE)
    else {
        panic!("refused");
    };
    assert_eq!(policy.rule_name(rule), "line 1 io");
    assert_eq!(policy.rule_name(local), "local io");
    assert_eq!(view.rule_name(local).map(|name| &**name), Some("local io"));
    assert!(view.any());
    let other = policy.station_view(&origin(TOOL, None, None), &station("drive-1"));
    assert!(!other.any());
    let empty = parse(LINE).narrowed_by(Policy::deny_all());
    let view = empty.station_view(&origin(PLC_1, None, Some("hd-1")), &station("drive-1"));
    assert!(!view.any() && !view.judge(&cyclic, JUNE).allowed());
}

#[test]
fn a_controller_is_no_client_of_modbus() {
    let policy = parse(LINE);
    let client = fieldlock_policy::Client::default();
    assert_eq!(policy.client_names(&client).count(), 0);
}

#[test]
fn a_person_is_told_why() {
    let policy = parse(LINE);
    let call = write(0x8080, 1, 1);
    let asked = AskedStation {
        station: &station("drive-1"),
        call: &call,
        now: JUNE,
    };
    let explanation = explain_station(&policy, &origin(PLC_1, None, Some("hd-1")), asked);
    let expected = "\
refused: denied by rule
  call     write record 0x8080 of slot 1.0x1
  station  drive-1
  client   plc-1
  rule     \"safety\"
  because  belongs to the safety program
rules
  - allow \"line 1 io\": it is for service identify, get, hello, connect, cyclic, alarm, read, record 0x8000-0x80ff, 0xaff0-0xaff1
  + allow \"parameters\": covers the call
  - allow \"tool\": it is for the clients engineering
  - allow \"naming, order 4711\": outside its time window, which does not open any more
  > deny \"safety\": matches the call
  - deny \"valve stays\": it is for the clients plc-2";
    assert_eq!(explanation.to_string(), expected);
}

#[test]
fn the_ceiling_counts_what_any_controller_may() {
    let policy = parse(LINE);
    let text = ceiling(&policy, Some("hd-2")).to_string();
    let expected = "\
At most, whatever clients it states, the headend hd-2 can reach:
  press-07
    unit any: function 1 at coil 0-65535  by \"hmi reads\"";
    assert!(text.starts_with(expected), "{text}");
    let expected = "
  station drive-1
    service write, record 0x8000-0x80ff, slot 1.0x1, 2-4, 5.0x8000-0x8fff  by \"parameters\"
    service identify, get, signal, connect, read, ar supervisor, record any  by \"tool\"
    service set-ip, set-name, only from 2026-03-02T07:00:00Z until 2026-03-02T15:00:00Z  by \"naming, order 4711\"
    less service write, record 0x8080-0x80ff  by \"safety\"
  station valve-2.line-1
    service identify, get, signal, connect, read, ar supervisor, record any  by \"tool\"
    less service write, record 0x8080-0x80ff  by \"safety\"
    less service connect, ar any  by \"valve stays\" (does not bind: it is limited to clients or headends)
  any other station
    service identify, get, signal, connect, read, ar supervisor, record any  by \"tool\"
    less service write, record 0x8080-0x80ff  by \"safety\"";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_change_of_rules_for_stations_shows() {
    let same = diff(&parse(LINE), &parse(LINE), Side::Edge).unwrap();
    assert!(same.is_empty());
    let changes = |from: &str, to: &str| {
        let changed = LINE.replace(from, to);
        assert_ne!(changed, LINE);
        let text = changed.split("[[test]]").next().unwrap();
        let diff = diff(&parse(LINE), &parse(text), Side::Edge).unwrap();
        assert!(diff.regions.is_empty());
        diff.to_string()
    };
    let wider = changes("record = \"any\"", "record = \"0xaff0\"");
    let expected = "\
rules for stations, one by one
  * \"tool\": allow engineering (00:1b:1b:01:02:06) -> station any: service identify, get, signal, connect, read, ar supervisor, record 0xaff0
      was: allow engineering (00:1b:1b:01:02:06) -> station any: service identify, get, signal, connect, read, ar supervisor, record any";
    assert_eq!(wider, expected);
    // Another address of a client is another rule.
    let other = changes("00:1b:1b:01:02:06", "00:1b:1b:01:02:07");
    assert_eq!(other.matches("\n  *").count(), 2, "{other}");
    let renamed = changes("name = \"safety\"", "name = \"unsafety\"");
    assert!(renamed.contains("\n  - \"safety\": deny any client -> station any: service write"));
    assert!(renamed.contains("\n  + \"unsafety\": deny any client"));
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let policy = parse(LINE);
    assert_eq!(warnings(&policy, 1_700_000_000), []);
    let summary = summary(&policy);
    assert_eq!((summary.allows, summary.denies), (5, 2));
    assert_eq!(summary.stations, ["drive-1", "valve-2.line-1"]);
    assert!(summary.any_station);
    let careless = "syntax = 1\n[[client]]\nname = \"hmi\"\naddress = \"10.0.0.1\"\n\
        [[client]]\nname = \"plc\"\nmac = \"00:1b:1b:01:02:03\"\n\
        [[allow]]\nname = \"a\"\nstation = \"any\"\nservice = [\"set-ip\", \"reset\", \"write\"]\nrecord = \"any\"\n\
        [[allow]]\nname = \"b\"\nclient = [\"hmi\", \"plc\"]\nstation = \"x\"\nservice = \"connect\"\nar = [\"rt-class-3\", \"redundant\"]\n\
        [[allow]]\nname = \"c\"\nclient = \"plc\"\ndevice = \"x\"\nfunction = 7\n\
        [[deny]]\nname = \"d\"\nstation = \"x\"\nservice = \"connect\"\n";
    let found: Vec<String> = warnings(&parse(careless), 0)
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "the rule \"c\" is for devices, and its client \"plc\" is told by a mac: no client of Modbus is ever that client",
        "the allow \"a\" lets any controller use set-ip, reset: whoever reaches the headend's wire can take the station over",
        "the allow \"a\" is for writing any record: that includes addresses, names, firmware and what else the station has records for",
        "the rule \"b\" is for stations, and its client \"hmi\" has no mac: no controller is ever that client",
        "the allow \"b\" names rt-class-3: isochronous data is never carried, so such a Connect is refused",
        "the allow \"b\" names redundant: system redundancy is never carried, so such a Connect is refused",
        "the allow \"b\" never applies: the deny \"d\" covers all of it",
    ];
    assert_eq!(found, expected);
}

/// A rule as a person would tell it.
#[derive(Debug, Clone)]
struct ModelRule {
    allow: bool,
    clients: Option<BTreeSet<usize>>,
    via: Option<usize>,
    stations: Option<BTreeSet<usize>>,
    services: BTreeSet<usize>,
    ars: Option<BTreeSet<usize>>,
    records: (u16, u16),
    slots: Option<(u16, u16)>,
    /// Whether its window is open at [`JUNE`]; `None`: it has none.
    open: Option<bool>,
}

const STATIONS: [&str; 3] = ["a", "b.c", "d"];
const HEADENDS: [&str; 2] = ["hd-1", "hd-2"];
/// Addresses by client; the second calls itself [`CALLED`].
const MACS: [&str; 3] = [PLC_1, PLC_2, TOOL];
const CALLED: &str = "plc-2.line-1";
const ARS: [ArType; 3] = [ArType::IoController, ArType::Supervisor, ArType::Redundant];

#[derive(Debug, Clone)]
struct Question {
    mac: usize,
    called: Option<bool>,
    via: Option<usize>,
    station: usize,
    call: Call,
}

impl ModelRule {
    fn text(&self, number: usize) -> String {
        let quoted = |items: Vec<String>| format!("{items:?}");
        let mut text = format!(
            "[[{}]]\nname = \"{number}\"\n",
            if self.allow { "allow" } else { "deny" }
        );
        let mut add = |key: &str, value: String| text += &format!("{key} = {value}\n");
        if let Some(clients) = &self.clients {
            add(
                "client",
                quoted(clients.iter().map(|c| format!("c{c}")).collect()),
            );
        }
        if let Some(via) = self.via {
            add("via", format!("{:?}", HEADENDS[via]));
        }
        add(
            "station",
            match &self.stations {
                None => "\"any\"".to_owned(),
                Some(list) => quoted(list.iter().map(|s| STATIONS[*s].to_owned()).collect()),
            },
        );
        let services = self.services.iter().map(|s| Service::ALL[*s]);
        add(
            "service",
            quoted(services.clone().map(|s| s.name().to_owned()).collect()),
        );
        if let (Some(ars), true) = (&self.ars, services.clone().any(|s| s == Service::Connect)) {
            add(
                "ar",
                quoted(ars.iter().map(|ar| ARS[*ar].name().to_owned()).collect()),
            );
        }
        if services
            .clone()
            .any(|s| matches!(s, Service::Read | Service::Write))
        {
            let (first, last) = self.records;
            add("record", format!("\"{first:#x}-{last:#x}\""));
            if let Some((slot, subslot)) = self.slots {
                add("slot", format!("\"{slot}.{subslot:#x}\""));
            }
        }
        if let Some(open) = self.open {
            let key = if open { "not_before" } else { "not_after" };
            add("time", format!("{{ {key} = 2026-01-01T00:00:00Z }}"));
        }
        text
    }

    /// Whether it is for the one who asks; an allow for one that has not named itself is not.
    fn scope(&self, question: &Question) -> bool {
        let dcp = matches!(
            question.call.service(),
            Service::Identify | Service::Get | Service::Hello
        );
        let is = |client: usize| {
            client == question.mac
                && (client != 1
                    || match question.called {
                        Some(right) => right,
                        None => dcp || !self.allow,
                    })
        };
        self.clients
            .as_ref()
            .is_none_or(|list| list.iter().any(|c| is(*c)))
            && self
                .via
                .is_none_or(|via| question.via.is_none_or(|through| through == via))
            && self
                .stations
                .as_ref()
                .is_none_or(|list| list.contains(&question.station))
    }

    fn takes(&self, call: &Call) -> bool {
        let service = call.service();
        if !self
            .services
            .iter()
            .any(|place| Service::ALL[*place] == service)
        {
            return false;
        }
        match *call {
            Call::Service(_) => true,
            Call::Connect(kind) => match &self.ars {
                Some(ars) => ars.iter().any(|ar| ARS[*ar] == kind),
                None => !self.allow || kind == ArType::IoController,
            },
            Call::Read {
                index,
                slot,
                subslot,
            }
            | Call::Write {
                index,
                slot,
                subslot,
            } => {
                let (first, last) = self.records;
                first <= index
                    && index <= last
                    && self.slots.is_none_or(|only| only == (slot, subslot))
            }
        }
    }
}

fn model(rules: &[ModelRule], question: &Question) -> bool {
    let applies = |rule: &&ModelRule| {
        rule.open != Some(false) && rule.scope(question) && rule.takes(&question.call)
    };
    let mut applying = rules.iter().filter(applies);
    let denied = applying.clone().any(|rule| !rule.allow);
    !denied && applying.any(|rule| rule.allow)
}

fn some_of(size: usize) -> impl Strategy<Value = BTreeSet<usize>> {
    proptest::collection::btree_set(0..size, 1..=size)
}

fn rule() -> impl Strategy<Value = ModelRule> {
    let scope = (
        prop::bool::weighted(0.7),
        prop::option::of(some_of(MACS.len())),
        prop::option::of(0..HEADENDS.len()),
        prop::option::of(some_of(STATIONS.len())),
    );
    let what = (
        some_of(Service::ALL.len()),
        prop::option::of(some_of(ARS.len())),
        (0u16..6, 0u16..6),
        prop::option::of((0u16..2, 0u16..2)),
        prop::option::of(any::<bool>()),
    );
    (scope, what).prop_map(
        |((allow, clients, via, stations), (services, ars, (one, other), slots, open))| ModelRule {
            allow,
            clients,
            via,
            stations,
            services,
            ars,
            records: (one.min(other), one.max(other)),
            slots,
            open,
        },
    )
}

fn question() -> impl Strategy<Value = Question> {
    let call = (0..Service::ALL.len(), 0..4usize, 0u16..6, 0u16..2, 0u16..2).prop_map(
        |(service, ar, index, slot, subslot)| match Service::ALL[service] {
            Service::Connect => Call::Connect(ARS.get(ar).copied().unwrap_or(ArType::Other(0x99))),
            Service::Read => Call::Read {
                index,
                slot,
                subslot,
            },
            Service::Write => Call::Write {
                index,
                slot,
                subslot,
            },
            other => Call::Service(other),
        },
    );
    // One more than there are: a stranger, another headend, another station.
    (
        0..=MACS.len(),
        prop::option::of(any::<bool>()),
        prop::option::of(0..=HEADENDS.len()),
        0..=STATIONS.len(),
        call,
    )
        .prop_map(|(mac, called, via, station, call)| Question {
            mac,
            called,
            via,
            station,
            call,
        })
}

fn policy_of(rules: &[ModelRule]) -> Policy {
    let mut text = String::from("syntax = 1\n");
    for (number, mac) in MACS.iter().enumerate() {
        text += &format!("[[client]]\nname = \"c{number}\"\nmac = {mac:?}\n");
        if number == 1 {
            text += &format!("station = {CALLED:?}\n");
        }
    }
    for (number, rule) in rules.iter().enumerate() {
        text += &rule.text(number);
    }
    parse(&text)
}

fn judged(policy: &Policy, question: &Question) -> bool {
    let called = question
        .called
        .map(|right| station(if right { CALLED } else { "other" }));
    let via = question
        .via
        .map(|via| HEADENDS.get(via).copied().unwrap_or("hd-9"));
    let mac: &str = MACS.get(question.mac).copied().unwrap_or(STRANGER);
    let origin = origin(mac, called.as_ref(), via);
    let name = station(STATIONS.get(question.station).copied().unwrap_or("other"));
    let view = policy.station_view(&origin, &name);
    let decision = view.judge(&question.call, JUNE);
    if decision.allowed() {
        assert!(view.any());
    }
    let asked = AskedStation {
        station: &name,
        call: &question.call,
        now: JUNE,
    };
    if policy.has_station_rules() {
        let explained = explain_station(policy, &origin, asked);
        let applies = |effect| {
            let mut rules = explained.rules.iter();
            rules.any(|rule| rule.effect == effect && rule.applies)
        };
        assert_eq!(explained.allowed, applies("allow") && !applies("deny"));
    }
    decision.allowed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_view_decides_as_the_model_does(
        rules in proptest::collection::vec(rule(), 0..8),
        questions in proptest::collection::vec(question(), 1..24),
    ) {
        let policy = policy_of(&rules);
        for question in questions {
            prop_assert_eq!(judged(&policy, &question), model(&rules, &question), "{:?}", question);
        }
    }

    #[test]
    fn a_narrowed_policy_allows_what_both_allow(
        wide in proptest::collection::vec(rule(), 0..6),
        local in proptest::collection::vec(rule(), 0..6),
        questions in proptest::collection::vec(question(), 1..24),
    ) {
        let [one, other] = [&wide, &local].map(|rules| policy_of(rules));
        let narrowed = policy_of(&wide).narrowed_by(policy_of(&local));
        for question in questions {
            let called = question.called.map(|right| station(if right { CALLED } else { "other" }));
            let via = question.via.map(|via| HEADENDS.get(via).copied().unwrap_or("hd-9"));
            let mac: &str = MACS.get(question.mac).copied().unwrap_or(STRANGER);
            let origin = origin(mac, called.as_ref(), via);
            let name = station(STATIONS.get(question.station).copied().unwrap_or("other"));
            let decision = narrowed.station_view(&origin, &name).judge(&question.call, JUNE);
            let both = judged(&one, &question) && judged(&other, &question);
            prop_assert_eq!(decision.allowed(), both, "{:?}", question);
        }
    }

    #[test]
    fn no_text_of_a_rule_panics(
        key in "(mac|station|service|record|slot|ar)",
        value in "\\PC{0,24}",
    ) {
        let quoted = toml_text(&value);
        let text = format!(
            "syntax = 1\n[[client]]\nname = \"c\"\n{key} = {quoted}\n\
             [[allow]]\nname = \"a\"\n{key} = {quoted}\n"
        );
        let _ = Policy::parse(&text, "test.toml");
    }
}

fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
