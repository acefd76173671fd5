//! A compiled policy.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fieldlock_profinet::{Mac, StationName};

use crate::error::UnknownClient;
use crate::model::client::{Client, ClientEntry, Origin};
use crate::model::decision::RuleId;
use crate::model::phase::{Now, Phase};
use crate::model::rule::Rule;
use crate::model::scope::{ReadOnly, Scope, Via};
use crate::model::spelling::nearest;
use crate::station::{Controller, Matching, StationRule};
use crate::view::View;

/// Views kept for the next client that matches alike. A plant has a few kinds of clients and
/// tens of devices; beyond this many combinations all are forgotten and built again.
const MAX_VIEWS: usize = 1_024;

/// Who may do what to which device.
#[derive(Debug, Default)]
pub struct Policy {
    pub(crate) clients: Vec<ClientEntry>,
    /// For devices. A rule's id is its place.
    pub(crate) rules: Vec<Rule>,
    /// For stations; numbered on from those for devices.
    pub(crate) stations: Vec<Arc<StationRule>>,
    pub(crate) read_only: ReadOnly,
    /// The names of the sets, and whether a rule uses each.
    pub(crate) sets: Vec<(String, bool)>,
    /// How many `[[test]]` it has passed.
    pub(crate) tests: usize,
    /// What has to allow a request as well. Its rules are numbered on from those of this one.
    narrowing: Option<Box<Self>>,
    views: Mutex<Views>,
}

/// The views of one phase.
#[derive(Debug, Default)]
struct Views {
    phase: Option<Phase>,
    built: HashMap<ViewKey, Arc<View>>,
}

impl Policy {
    pub(crate) fn of(
        clients: Vec<ClientEntry>,
        rules: Vec<Rule>,
        stations: Vec<Arc<StationRule>>,
    ) -> Self {
        Self {
            clients,
            rules,
            stations,
            ..Self::default()
        }
    }

    /// The same clients and read-only devices with other rules for devices, which are numbered anew,
    /// and none for stations.
    pub(crate) fn with_rules(&self, rules: Vec<Rule>) -> Self {
        let numbered = (0..).zip(rules).map(|(id, rule)| Rule {
            id: RuleId(id),
            ..rule
        });
        Self {
            clients: self.clients.clone(),
            rules: numbered.collect(),
            read_only: self.read_only.clone(),
            ..Self::default()
        }
    }

    /// The policy of an empty file: nothing crosses.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// What both policies allow, and nothing else: `local` can take away, never add. A policy
    /// narrows at most one other, and is not narrowed itself. [`crate::explain()`] and
    /// [`crate::ceiling()`] tell of one policy alone: ask them of each before.
    #[must_use]
    pub fn narrowed_by(mut self, mut local: Self) -> Self {
        // A policy has a few ten thousand rules at most.
        let offset = (self.rules.len() + self.stations.len()) as u32;
        for rule in &mut local.rules {
            rule.id.0 += offset;
        }
        for rule in &mut local.stations {
            Arc::make_mut(rule).id.0 += offset;
        }
        local.narrowing = None;
        local.views = Mutex::default();
        self.narrowing = Some(Box::new(local));
        self.views = Mutex::default();
        self
    }

    /// The name of a rule of this policy, or of the one that narrows it; empty for the id of
    /// another policy's rule.
    pub fn rule_name(&self, rule: RuleId) -> &str {
        let policies = std::iter::once(self).chain(self.narrowing());
        let mut names = policies.flat_map(|policy| {
            let devices = policy.rules.iter().map(|rule| rule.name.as_str());
            devices.chain(policy.stations.iter().map(|rule| &*rule.name))
        });
        names.nth(rule.index()).unwrap_or_default()
    }

    /// The rules for devices, then those of the policy that narrows this one: in the order of their
    /// ids.
    pub(crate) fn all_rules(&self) -> impl Iterator<Item = &Rule> + Clone {
        let narrowing = self.narrowing().into_iter().flat_map(|local| &local.rules);
        self.rules.iter().chain(narrowing)
    }

    pub(crate) fn narrowing(&self) -> Option<&Self> {
        self.narrowing.as_deref()
    }

    /// The names of the `[[client]]` entries that a controller matches, as far as it is known.
    pub fn controller_names(&self, controller: &Controller<'_>) -> impl Iterator<Item = &str> {
        let matching = Matching::of(&self.clients, controller);
        let places = matching.sure.into_iter().chain(matching.unnamed);
        places.filter_map(|place| Some(self.clients.get(place as usize)?.name.as_str()))
    }

    /// Whether some `[[client]]` is told by this address.
    pub fn knows_controller(&self, mac: Mac) -> bool {
        self.clients.iter().any(|entry| entry.macs.contains(&mac))
    }

    /// Whether some rule of this policy, or of one that narrows it, is for stations.
    pub fn has_station_rules(&self) -> bool {
        let narrowing = self.narrowing().is_some_and(Self::has_station_rules);
        narrowing || !self.stations.is_empty()
    }

    /// Every station that a rule names, once.
    pub fn stations(&self) -> BTreeSet<&StationName> {
        let rules = self.stations.iter();
        rules.flat_map(|rule| rule.stations.listed()).collect()
    }

    /// Which `[[client]]` entries match.
    pub fn client_names(&self, client: &Client<'_>) -> impl Iterator<Item = &str> {
        self.clients
            .iter()
            .filter(|entry| entry.matches(client))
            .map(|entry| entry.name.as_str())
    }

    /// The phase at this time. Costs a look at every rule with a window.
    pub fn phase(&self, now: Now) -> Phase {
        Phase::of(self.all_rules(), now)
    }

    /// What this origin may do to the device in a phase of this policy: built at most once for
    /// origins that match alike, until another phase is asked for.
    pub fn view(&self, origin: &Origin<'_>, device: &str, phase: &Phase) -> Arc<View> {
        let via = Via::of(origin.side, origin.via);
        let clients = self.matching(&origin.client);
        let Some(local) = &self.narrowing else {
            return self.view_of(&clients, via, device, phase);
        };
        let narrowing = local.matching(&origin.client);
        let key = ViewKey {
            narrowing: Some(Box::new(local.key(&narrowing, via, device))),
            ..self.key(&clients, via, device)
        };
        self.cached(key, phase, || View {
            narrowing: Some(local.view_of(&narrowing, via, device, phase)),
            ..View::build(self, phase, &clients, via, device)
        })
    }

    /// As [`Policy::view`], for clients given by their places.
    pub(crate) fn view_of(
        &self,
        clients: &[u32],
        via: Via<'_>,
        device: &str,
        phase: &Phase,
    ) -> Arc<View> {
        self.cached(self.key(clients, via, device), phase, || {
            View::build(self, phase, clients, via, device)
        })
    }

    fn cached(&self, key: ViewKey, phase: &Phase, build: impl FnOnce() -> View) -> Arc<View> {
        if let Some(view) = self.views(phase).built.get(&key) {
            return Arc::clone(view);
        }
        // Built outside the lock; two threads may build the same view, which does no harm.
        let view = Arc::new(build());
        let mut views = self.views(phase);
        if views.built.len() >= MAX_VIEWS {
            views.built.clear();
        }
        views.built.insert(key, Arc::clone(&view));
        view
    }

    pub(crate) fn matching(&self, client: &Client<'_>) -> Vec<u32> {
        (0..)
            .zip(&self.clients)
            .filter(|(_, entry)| entry.matches(client))
            .map(|(index, _)| index)
            .collect()
    }

    /// The places of the `[[client]]` entries with these names.
    pub(crate) fn places(&self, names: &[String]) -> Result<Vec<u32>, UnknownClient> {
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let found = (0..).zip(&self.clients).find(|(_, e)| e.name == *name);
            let (place, _) = found.ok_or_else(|| UnknownClient {
                name: name.clone(),
                nearest: nearest(name, self.clients.iter().map(|e| e.name.as_str()))
                    .map(str::to_owned),
            })?;
            places.push(place);
        }
        places.sort_unstable();
        places.dedup();
        Ok(places)
    }

    /// The views of this phase; those of another one are forgotten.
    fn views(&self, phase: &Phase) -> MutexGuard<'_, Views> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if !views.phase.as_ref().is_some_and(|p| p.same_rules(phase)) {
            views.built.clear();
            views.phase = Some(phase.clone());
        }
        views
    }

    /// Names that no rule knows are all the same to the policy; so they share a view, and a peer
    /// that makes up names adds none.
    fn key(&self, clients: &[u32], via: Via<'_>, device: &str) -> ViewKey {
        let known = |scope: fn(&Rule) -> &Scope<String>, name: &str| {
            self.rules
                .iter()
                .any(|rule| scope(rule).listed().iter().any(|listed| listed == name))
        };
        let device_known = known(|rule| &rule.devices, device)
            || matches!(&self.read_only, ReadOnly::Devices(list) if list.iter().any(|d| d == device));
        ViewKey {
            clients: clients.into(),
            via: match via {
                Via::NotJudged => ViaKey::NotJudged,
                Via::Named(name) if known(|rule| &rule.via, name) => ViaKey::Known(name.into()),
                Via::Named(_) => ViaKey::Unknown,
                Via::Unproven => ViaKey::Unproven,
            },
            device: device_known.then(|| device.into()),
            narrowing: None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ViewKey {
    clients: Box<[u32]>,
    via: ViaKey,
    device: Option<Box<str>>,
    narrowing: Option<Box<Self>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum ViaKey {
    NotJudged,
    Known(Box<str>),
    Unknown,
    Unproven,
}
