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
