//! `[[set]]`: lists under a name. A rule that says `"set:NAME"` in a list gets what the set lists
//! under the same key, as if it stood there.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Keys, items};
use super::{Given, MAX_EXPANDED};
use crate::error::{Problem, Problems};
use crate::model::scope::Scope;
use crate::model::spelling::nearest;

type Value<'t> = Spanned<DeValue<'t>>;

/// What a set may list.
const LISTS: [&str; 7] = [
    "client", "device", "unit", "function", "address", "station", "record",
];
/// A name of a device can't have a colon, and a client's must not begin like this.
pub(crate) const PREFIX: &str = "set:";

/// A set by what the rest of the compiler has to know.
#[derive(Debug)]
pub(crate) struct SourceSet {
    pub(crate) span: Range<usize>,
    pub(crate) name: Given<String>,
    pub(crate) used: bool,
    pub(crate) clients: Vec<Spanned<String>>,
}

/// All sets of a file, for rules to look things up.
#[derive(Default)]
pub(super) struct Sets<'t> {
    by_name: HashMap<&'t str, Listed<'t>>,
    /// Items that sets have put into rules so far.
    expanded: Cell<usize>,
}

struct Listed<'t> {
    /// In the order of [`LISTS`].
    lists: [List<'t>; LISTS.len()],
    used: Cell<bool>,
}

#[derive(Clone, Copy)]
enum List<'t> {
    Absent,
    /// Reported where it stands.
    Invalid,
    Valid(&'t [Value<'t>]),
}

impl<'t> Sets<'t> {
    pub(super) fn read(file: &mut Keys<'t>) -> (Self, Vec<SourceSet>) {
        let mut sets = Self::default();
        let read = file.tables("set", |span, table, problems| {
            let (set, lists) = read_set(span, table, problems);
            let name = set.name.as_valid().map(|(_, name)| name.clone());
            (set, name.and(named(table)), lists)
        });
        let mut sources = Vec::with_capacity(read.len());
        for (set, name, lists) in read {
            if let Some(name) = name {
                let used = Cell::new(false);
                sets.by_name.entry(name).or_insert(Listed { lists, used });
            }
            sources.push(set);
        }
        (sets, sources)
    }

    /// What the set lists under the key; `None` where that is invalid and was reported.
    pub(super) fn look_up(
        &self,
        name: &str,
        key: &str,
    ) -> Result<Option<&'t [Value<'t>]>, Problem> {
        let Some(set) = self.by_name.get(name) else {
            let mut known: Vec<&str> = self.by_name.keys().copied().collect();
            known.sort_unstable();
            return Err(Problem::UnknownSet {
                name: name.to_owned(),
                nearest: nearest(name, known).map(str::to_owned),
            });
        };
        set.used.set(true);
        let place = LISTS.iter().position(|list| *list == key);
        match place.and_then(|place| set.lists.get(place)) {
            Some(List::Valid(items)) => {
                let expanded = self.expanded.get().saturating_add(items.len());
                self.expanded.set(expanded);
                match expanded > MAX_EXPANDED {
                    true => Err(Problem::TooManyBySets { max: MAX_EXPANDED }),
                    false => Ok(Some(items)),
                }
            }
            Some(List::Invalid) => Ok(None),
            Some(List::Absent) | None => Err(Problem::SetWithoutKey {
                name: name.to_owned(),
                key: key.to_owned(),
            }),
        }
    }

    /// Writes down which sets some rule uses.
    pub(super) fn note_use(&self, sources: &mut [SourceSet]) {
        for source in sources {
            let name = source.name.as_valid().map(|(_, name)| name.as_str());
            let set = name.and_then(|name| self.by_name.get(name));
            source.used = set.is_some_and(|set| set.used.get());
        }
    }
}

impl<'t> Keys<'t> {
    /// The item itself, or all that stands in the set that it names.
    pub(super) fn expand(&mut self, key: &str, item: &'t Value<'t>) -> Option<&'t [Value<'t>]> {
        let Some(name) = name_of(key, item) else {
            return Some(std::slice::from_ref(item));
        };
        let Some(sets) = self.sets else {
            // Only rules look up sets, but a test's `client` names clients alone.
            self.report(item.span(), key, Problem::SetOutsideRule);
            return None;
        };
        match sets.look_up(name, key) {
            Ok(items) => items,
            Err(problem) => {
                self.report(item.span(), key, problem);
                None
            }
        }
    }
}

/// The set that a list's item names, if the key may have sets and it names one.
fn name_of<'v>(key: &str, item: &'v Value<'_>) -> Option<&'v str> {
    let text = item.get_ref().as_str()?;
    LISTS.contains(&key).then_some(())?;
    text.strip_prefix(PREFIX).map(str::trim)
}

fn named<'t>(table: &'t DeTable<'t>) -> Option<&'t str> {
    let (_, name) = table.iter().find(|(key, _)| key.get_ref() == "name")?;
    name.get_ref().as_str()
}

fn read_set<'t>(
    span: Range<usize>,
    table: &'t DeTable<'t>,
    problems: &mut Problems,
) -> (SourceSet, [List<'t>; LISTS.len()]) {
    const KEYS: &[&str] = &[
        "name", "client", "device", "unit", "function", "address", "station", "record", "comment",
    ];
    let mut keys = Keys::new("set", table, KEYS, problems);
    keys.value("comment", Keys::text);
    let name = keys.value("name", Keys::label);
    let clients = keys.value("client", Keys::clients);
    let lists = [
        list(table, "client", &clients),
        list(table, "device", &keys.value("device", Keys::names)),
        list(table, "unit", &keys.value("unit", Keys::units)),
        list(table, "function", &keys.value("function", Keys::functions)),
        list(table, "address", &keys.value("address", Keys::addresses)),
        list(table, "station", &keys.value("station", Keys::stations)),
        list(table, "record", &keys.value("record", Keys::records)),
    ];
    if lists.iter().all(|list| matches!(list, List::Absent)) {
        let hint = "list clients, devices, units, functions, addresses, stations or records";
        keys.problems
            .add(span.clone(), "set", Problem::Missing { hint });
    }
    let clients = match clients.valid() {
        Some(Scope::Only(clients)) => clients,
        Some(Scope::Any) | None => Vec::new(),
    };
    let set = SourceSet {
        span,
        name,
        used: false,
        clients,
    };
    (set, lists)
}

fn list<'t, T>(table: &'t DeTable<'t>, key: &str, given: &Given<T>) -> List<'t> {
    match (given, table.iter().find(|(name, _)| name.get_ref() == key)) {
        (Given::Valid(..), Some((_, value))) => List::Valid(match value.get_ref().as_array() {
            Some(array) => items(array),
            None => std::slice::from_ref(value),
        }),
        (Given::Invalid, _) => List::Invalid,
        (Given::Absent, _) | (_, None) => List::Absent,
    }
}
