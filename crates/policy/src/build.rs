//! Builds a view: which rules apply, to which units, at which slots.

use std::collections::HashMap;

use crate::conditional::Conditional;
use crate::model::decision::{Reason, RuleId};
use crate::model::function::Slot;
use crate::model::phase::Phase;
use crate::model::rule::{Repeat, Rule};
use crate::model::scope::{Units, Via};
use crate::policy::Policy;
use crate::table::{Entry, IntervalTable};
use crate::view::{Class, Row, TypedRow, View};

impl View {
    pub(crate) fn build(
        policy: &Policy,
        phase: &Phase,
        clients: &[u32],
        via: Via<'_>,
        device: &str,
    ) -> Self {
        let for_origin = |rule: &&Rule| rule.applies_to_clients(clients) && rule.applies_via(via);
        let for_device = |rule: &&Rule| rule.devices.admits(device);
        let allows = || {
            let counting = policy.rules.iter().filter(|rule| phase.counts(rule));
            counting.filter(|rule| rule.is_allow())
        };
        let closed = if !allows().any(|rule| for_origin(&rule)) {
            Some(Reason::Client)
        } else if !allows().any(|rule| for_origin(&rule) && for_device(&rule)) {
            Some(Reason::Device)
        } else {
            None
        };
        let applying = policy.rules.iter().filter(for_origin).filter(for_device);
        let (counting, resting): (Vec<&Rule>, Vec<&Rule>) =
            applying.partition(|rule| phase.counts(rule));
        let resting: Vec<&Rule> = resting.into_iter().filter(|r| r.is_allow()).collect();
        let step = |rule: &Rule| rule.step.clone().filter(|_| via != Via::NotJudged);
        let repeatable: Vec<&Rule> = counting
            .iter()
            .copied()
            .filter(|rule| rule.repeat == Repeat::Allow)
            .collect();
        let (limited, counting): (Vec<&Rule>, Vec<&Rule>) = counting
            .into_iter()
            .partition(|rule| rule.rate.is_some() || step(rule).is_some());
        let reason = match phase.is_known() {
            true => Reason::Window,
            false => Reason::WindowUnknown,
        };
        let rate = |rule: &&Rule| Some((rule.id, rule.rate?));
        let conditional = (!limited.is_empty() || !resting.is_empty()).then(|| {
            Box::new(Conditional {
                limited: Self::of(&limited),
                rates: limited.iter().filter_map(rate).collect(),
                steps: limited
                    .iter()
                    .filter_map(|rule| Some((rule.id, step(rule)?)))
                    .collect(),
                resting: Self::of(&resting),
                reason,
            })
        });
        Self {
            read_only: policy.read_only.contains(device),
            closed,
            conditional,
            repeatable: (!repeatable.is_empty()).then(|| Box::new(Self::of(&repeatable))),
            ..Self::of(&counting)
        }
    }

    /// What these rules say.
    fn of(rules: &[&Rule]) -> Self {
        let mut builder = Builder::default();
        let units = builder.classify(rules);
        Self {
            units,
            classes: builder.classes,
            rows: builder.rows,
            typed: rules
                .iter()
                .filter_map(|rule| Some((rule.id, rule.typed.clone()?)))
                .collect(),
            read_only: false,
            closed: None,
            conditional: None,
            repeatable: None,
            narrowing: None,
        }
    }
}

#[derive(Default)]
struct Builder {
    classes: Vec<Class>,
    rows: Vec<Row>,
    /// Slots with the same entries of the same rules share a row: most of a group's functions do.
    known_rows: HashMap<RowKey, u16>,
}

/// Whether any allow has the slot; the entries of allows and denies, without a type and with one.
type RowKey = (bool, [Entries; 2], [Entries; 2]);

type Entries = Vec<(Entry, RuleId)>;

impl Builder {
    /// A class for every set of units that the same rules apply to.
    fn classify(&mut self, rules: &[&Rule]) -> Box<[u8; 256]> {
        let mut unit_sets: Vec<(Units, bool)> = Vec::new();
        let mut kinds: HashMap<(Units, bool), usize> = HashMap::new();
        let kind_of_rule: Vec<usize> = rules
            .iter()
            .map(|rule| {
                let kind = (rule.units, rule.is_allow());
                *kinds.entry(kind).or_insert_with(|| {
                    unit_sets.push(kind);
                    unit_sets.len() - 1
                })
            })
            .collect();
        let mut classes: HashMap<Vec<bool>, u8> = HashMap::new();
        let mut units = Box::new([0; 256]);
        for (unit, class) in (0..=255).zip(units.iter_mut()) {
            let applies: Vec<bool> = unit_sets
                .iter()
                .map(|(set, allow)| set.contains(unit) || (unit == 0 && !allow))
                .collect();
            *class = match classes.get(&applies) {
                Some(known) => *known,
                None => {
                    let selected = rules
                        .iter()
                        .zip(&kind_of_rule)
                        .filter(|(_, kind)| applies[**kind])
                        .map(|(rule, _)| *rule);
                    let number = self.add_class(selected.collect());
                    classes.insert(applies, number);
                    number
                }
            };
        }
        units
    }

    fn add_class(&mut self, rules: Vec<&Rule>) -> u8 {
        let mut rows = [0; Slot::COUNT];
        for (slot, row) in Slot::all().zip(&mut rows) {
            let (allows, denies): (Vec<&Rule>, Vec<&Rule>) = rules
                .iter()
                .filter(|rule| rule.functions.contains(slot))
                .partition(|rule| rule.is_allow());
            *row = self.add_row((
                !allows.is_empty(),
                [&allows, &denies].map(|rules| entries(rules, slot, false)),
                [&allows, &denies].map(|rules| entries(rules, slot, true)),
            ));
        }
        let any_allow = rules.iter().any(|rule| rule.is_allow());
        self.classes.push(Class { rows, any_allow });
        // At most one class for each of 256 units.
        (self.classes.len() - 1) as u8
    }

    fn add_row(&mut self, key: RowKey) -> u16 {
        if let Some(known) = self.known_rows.get(&key) {
            return *known;
        }
        // At most 256 classes of 128 slots.
        let number = self.rows.len() as u16;
        let tables = |entries: &[Entries; 2]| entries.clone().map(IntervalTable::new);
        let (permitted, [allows, denies]) = (key.0, tables(&key.1));
        let typed = key.2.iter().any(|entries| !entries.is_empty());
        let typed = typed.then(|| {
            let [allows, denies] = tables(&key.2);
            Box::new(TypedRow { allows, denies })
        });
        self.rows.push(Row {
            permitted,
            allows,
            denies,
            typed,
        });
        self.known_rows.insert(key, number);
        number
    }
}

/// Those of rules that judge this slot by a type, or of the others.
fn entries(rules: &[&Rule], slot: Slot, typed: bool) -> Entries {
    let mut entries = Vec::new();
    for rule in rules
        .iter()
        .filter(|rule| rule.typed_at(slot).is_some() == typed)
    {
        let Some(value) = rule.bounds_at(slot) else {
            continue;
        };
        let intervals = rule.intervals(slot);
        let entry = |interval| (Entry { interval, value }, rule.id);
        entries.extend(intervals.iter().copied().map(entry));
    }
    entries
}
