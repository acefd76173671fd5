//! What a policy would have decided about recorded requests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use fieldlock_policy::{Client, Decision, Now, Origin, Phase, Policy, Reason, Side, Spans};

use crate::traffic::Seen;

/// Groups and names of clients that are kept; requests beyond that are counted.
const MAX_GROUPS: usize = 65_536;

/// Requests judged one after another, each by the rules that applied when it was captured.
///
/// Clients are judged by their addresses alone: a capture proves no identity and no role.
#[derive(Debug)]
pub struct Replay<'a> {
    policy: &'a Policy,
    /// Judge as an edge does for requests through this headend; without it, as a headend.
    via: Option<&'a str>,
    phase: Phase,
    /// How clients are called, by address.
    names: BTreeMap<IpAddr, Rc<str>>,
    groups: BTreeMap<Key, Group>,
    ungrouped: u64,
    allowed: u64,
    denied: u64,
}

/// What requests of one group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub client: Rc<str>,
    pub device: Rc<str>,
    pub unit: u8,
    pub function: u8,
    pub denied: bool,
    /// The rule or the reason, without what differs from request to request.
    pub why: String,
}

/// The requests of one [`Key`].
#[derive(Debug, Clone)]
pub struct Group {
    pub addresses: Spans,
    pub count: u64,
    /// Frame and time of the first request, and of the last.
    pub first: (u32, Option<SystemTime>),
    pub last: (u32, Option<SystemTime>),
}

impl<'a> Replay<'a> {
    pub fn new(policy: &'a Policy, via: Option<&'a str>) -> Self {
        Self {
            policy,
            via,
            phase: policy.phase(Now::Unknown),
            names: BTreeMap::new(),
            groups: BTreeMap::new(),
            ungrouped: 0,
            allowed: 0,
            denied: 0,
        }
    }

    /// Takes the next request. The decision's reason has the numbers of this request, which its
    /// group's has not.
    pub fn handle(&mut self, seen: &Seen<'_>) -> Decision {
        let decision = self.decide(seen);
        match decision.allowed() {
            true => self.allowed += 1,
            false => self.denied += 1,
        }
        let key = Key {
            client: self.client_name(seen.client),
            device: Rc::clone(&seen.device),
            unit: seen.unit,
            function: seen.request.function().0,
            denied: !decision.allowed(),
            why: self.kind(&decision),
        };
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.ungrouped += 1;
            return decision;
        }
        let at = (seen.frame, seen.time);
        let group = self.groups.entry(key).or_insert_with(|| Group {
            addresses: Spans::default(),
            count: 0,
            first: at,
            last: at,
        });
        group.count += 1;
        group.last = at;
        for span in seen.spans() {
            group.addresses.insert(span);
        }
        decision
    }

    fn decide(&mut self, seen: &Seen<'_>) -> Decision {
        let side = self.via.map_or(Side::Headend, |_| Side::Edge);
        let origin = Origin {
            side,
            via: self.via,
            client: client(seen.client),
        };
        let now = now(seen.time);
        if !self.phase.holds(now) {
            self.phase = self.policy.phase(now);
        }
        let view = self.policy.view(&origin, &seen.device, &self.phase);
        view.decide(seen.unit, &seen.request)
    }

    /// Its names in the policy and its address, or the address alone.
    pub fn client_name(&mut self, address: IpAddr) -> Rc<str> {
        if let Some(name) = self.names.get(&address) {
            return Rc::clone(name);
        }
        let client = client(address);
        let names: Vec<&str> = self.policy.client_names(&client).collect();
        let name: Rc<str> = match names.as_slice() {
            [] => address.to_string().into(),
            names => format!("{} ({address})", names.join(" + ")).into(),
        };
        if self.names.len() < MAX_GROUPS {
            self.names.insert(address, Rc::clone(&name));
        }
        name
    }

    /// The clients of the policy that have this address.
    pub fn client_names(&self, address: IpAddr) -> Vec<&'a str> {
        self.policy.client_names(&client(address)).collect()
    }

    /// The rule that allowed or denied, if one did.
    pub fn rule(&self, decision: &Decision) -> Option<&'a str> {
        let rule = match decision {
            Decision::Allow { rule, .. } => Some(*rule),
            Decision::Refuse(refusal) => refusal.rule,
        };
        rule.map(|rule| self.policy.rule_name(rule))
    }

    /// The rule that allowed, or the reason for a refusal with the numbers of the request.
    pub fn why(&self, decision: &Decision) -> String {
        match (decision, self.rule(decision)) {
            (Decision::Allow { .. }, rule) => format!("{:?}", rule.unwrap_or_default()),
            (Decision::Refuse(refusal), Some(rule)) => format!("{} {rule:?}", refusal.reason),
            (Decision::Refuse(refusal), None) => refusal.reason.to_string(),
        }
    }

    /// Why, without what differs from request to request.
    fn kind(&self, decision: &Decision) -> String {
        let Decision::Refuse(refusal) = decision else {
            return self.why(decision);
        };
        match (refusal.reason, self.rule(decision)) {
            (Reason::Address { .. }, _) => "outside every range".to_owned(),
            (Reason::ValueAbove { max, .. }, Some(rule)) => format!("value above {max} {rule:?}"),
            (Reason::ValueBelow { min, .. }, Some(rule)) => format!("value below {min} {rule:?}"),
            (Reason::NotFinite { .. }, Some(rule)) => format!("no finite number {rule:?}"),
            (Reason::PartOfValue { number, .. }, Some(rule)) => {
                format!("a part of a {number} {rule:?}")
            }
            _ => self.why(decision),
        }
    }

    pub fn groups(&self) -> impl Iterator<Item = (&Key, &Group)> {
        self.groups.iter()
    }

    /// Requests in groups beyond those that are kept.
    pub fn ungrouped(&self) -> u64 {
        self.ungrouped
    }

    pub fn allowed(&self) -> u64 {
        self.allowed
    }

    pub fn denied(&self) -> u64 {
        self.denied
    }
}

fn client(address: IpAddr) -> Client<'static> {
    Client {
        address: Some(address),
        ..Client::default()
    }
}

/// A frame without a time is judged as if the clock were wrong.
fn now(time: Option<SystemTime>) -> Now {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds.map_or(Now::Unknown, Now::At)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{HMI, PRESS, Recording};
    use crate::traffic::{self, Scope};

    const POLICY: &str = r#"
        syntax = 1

        [[client]]
        name = "hmi-1"
        address = "10.1.1.20"

        [[allow]]
        name = "levels"
        client = "hmi-1"
        device = "press-07"
        function = "read"
        address = "holding 0-9"

        [[allow]]
        name = "setpoint"
        client = "hmi-1"
        via = "hd-1"
        device = "press-07"
        function = 6
        address = "holding 40"
        value = { max = 1200 }
    "#;

    fn policy() -> Policy {
        Policy::parse(POLICY, "policy.toml").unwrap()
    }

    /// Judges all of it, and gives back why each was decided as it was.
    fn judge(replay: &mut Replay<'_>, recording: &Recording) -> Vec<(bool, String)> {
        let (_folder, path) = recording.stored();
        let scope = Scope {
            port: 502,
            devices: vec!["press-07=10.1.1.50".parse().unwrap()],
            frames: None,
        };
        let mut decided = Vec::new();
        traffic::read(&path, &scope, |seen| {
            let decision = replay.handle(seen);
            decided.push((decision.allowed(), replay.why(&decision)));
        })
        .unwrap();
        decided
    }

    #[test]
    fn requests_that_differ_in_numbers_alone_are_one_group() {
        let policy = policy();
        let mut replay = Replay::new(&policy, Some("hd-1"));
        let recording = Recording::new()
            .request(HMI, PRESS, 1, &[3, 0, 0, 0, 2])
            .request(HMI, PRESS, 2, &[3, 0, 4, 0, 1])
            .request(HMI, PRESS, 3, &[6, 0, 40, 5, 0])
            .request(HMI, PRESS, 4, &[6, 0, 40, 6, 0])
            .request(HMI, PRESS, 5, &[3, 0, 9, 0, 2]);
        let decided = judge(&mut replay, &recording);
        assert_eq!(decided[0], (true, "\"levels\"".to_owned()));
        assert_eq!(
            decided[2],
            (false, "value 1280 above 1200 \"setpoint\"".to_owned())
        );
        assert_eq!((replay.allowed(), replay.denied()), (2, 3));
        let groups: Vec<String> = replay
            .groups()
            .map(|(key, group)| {
                let Group {
                    addresses, count, ..
                } = group;
                format!(
                    "{} {} {addresses} x{count} {}",
                    key.client, key.function, key.why
                )
            })
            .collect();
        assert_eq!(
            groups,
            [
                "hmi-1 (10.1.1.20) 3 holding 0-1, holding 4 x2 \"levels\"",
                "hmi-1 (10.1.1.20) 3 holding 9-10 x1 outside every range",
                "hmi-1 (10.1.1.20) 6 holding 40 x2 value above 1200 \"setpoint\"",
            ]
        );
        let (_, last) = replay.groups().last().unwrap();
        assert_eq!((last.first.0, last.last.0), (3, 4));
    }

    #[test]
    fn what_is_for_one_headend_is_denied_through_another() {
        let policy = policy();
        let write = Recording::new().request(HMI, PRESS, 1, &[6, 0, 40, 0, 7]);
        for (via, allowed) in [(Some("hd-1"), true), (Some("hd-2"), false), (None, true)] {
            let decided = judge(&mut Replay::new(&policy, via), &write);
            assert_eq!(decided[0].0, allowed, "{via:?}");
        }
    }

    #[test]
    fn each_request_is_judged_by_the_time_of_its_frame() {
        let window = r#"time = { not_after = "2026-09-21T14:13:21Z" }"#;
        let text = POLICY.replace(
            r#"address = "holding 0-9""#,
            &format!("address = \"holding 0-9\"\n{window}"),
        );
        let policy = Policy::parse(&text, "policy.toml").unwrap();
        let read = &[3, 0, 0, 0, 2];
        let recording = Recording::new()
            .request(HMI, PRESS, 1, read)
            .request(HMI, PRESS, 2, read);
        let decided = judge(&mut Replay::new(&policy, None), &recording);
        assert_eq!([decided[0].0, decided[1].0], [true, false]);
    }

    #[test]
    fn a_client_of_no_name_is_called_by_its_address() {
        let policy = policy();
        let mut replay = Replay::new(&policy, None);
        let stranger = "10.9.9.9".parse().unwrap();
        assert_eq!(&*replay.client_name(stranger), "10.9.9.9");
        assert!(replay.client_names(stranger).is_empty());
        assert_eq!(replay.client_names(HMI.into()), ["hmi-1"]);
    }
}
