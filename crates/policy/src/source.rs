//! The policy file as written: TOML with the place of every value.
//!
//! The keys are read by hand rather than by a derived deserialiser, which would stop at the first
//! error. Here each value stands for itself; `compile.rs` looks at how they fit together.

mod keys;
mod rate;
mod set;
mod station;
mod step;
mod test;
mod time;

pub use keys::is_device_name;

use std::ops::Range;

use fieldlock_profinet::{Mac, StationName};
use toml::Spanned;
use toml::de::DeTable;

use crate::error::{Problem, Problems};
use crate::model::address::Span;
use crate::model::cidr::Cidr;
use crate::model::function::Functions;
use crate::model::number::{Number, NumberType, WordOrder};
use keys::Keys;
use set::Sets;
pub(crate) use set::{PREFIX as SET_PREFIX, SourceSet};
pub(crate) use station::SourceStations;
pub(crate) use test::{Expect, SourceGiven, SourceTest};

use crate::model::rate::Rate;
use crate::model::scope::{Effect, ReadOnly, Scope, Units};
use crate::model::window::Window;

/// Bytes. Ten thousand long rules fit; more is not a policy that a person can judge.
const MAX_SOURCE: usize = 8 << 20;
/// Clients, and rules of each kind.
const MAX_ENTRIES: usize = 10_000;
/// Items that sets may put into rules, all rules together.
const MAX_EXPANDED: usize = 1_000_000;
/// Time windows of one rule.
const MAX_WINDOWS: usize = 100;
/// Characters of a rule's or client's name.
const MAX_NAME: usize = 100;
/// Characters of an identity, a role, a comment or a reason.
const MAX_TEXT: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) read_only: ReadOnly,
    pub(crate) clients: Vec<SourceClient>,
    pub(crate) sets: Vec<SourceSet>,
    pub(crate) rules: Vec<SourceRule>,
    pub(crate) tests: Vec<SourceTest>,
}

#[derive(Debug)]
pub(crate) struct SourceClient {
    pub(crate) span: Range<usize>,
    pub(crate) name: Given<String>,
    pub(crate) address: Given<Vec<Cidr>>,
    pub(crate) identity: Given<String>,
    pub(crate) role: Given<String>,
    pub(crate) mac: Given<Vec<Mac>>,
    pub(crate) station: Given<StationName>,
}

#[derive(Debug)]
pub(crate) struct SourceRule {
    pub(crate) effect: Effect,
    pub(crate) span: Range<usize>,
    pub(crate) name: Given<String>,
    pub(crate) client: Given<Scope<Spanned<String>>>,
    pub(crate) device: Given<Scope<String>>,
    pub(crate) unit: Given<Units>,
    pub(crate) function: Given<Functions>,
    pub(crate) address: Given<Scope<Spanned<Span>>>,
    pub(crate) number: Given<NumberType>,
    pub(crate) word_order: Given<WordOrder>,
    pub(crate) partial: Given<bool>,
    /// Least and greatest number of that type, of a register where there is none.
    pub(crate) value: Given<(Number, Number)>,
    pub(crate) via: Given<Scope<String>>,
    pub(crate) reason: Given<String>,
    pub(crate) time: Given<Vec<Window>>,
    pub(crate) rate: Given<Rate>,
    /// As a distance of that type, and within how many milliseconds.
    pub(crate) step: Given<(Number, u32)>,
    pub(crate) repeat: Given<bool>,
    /// What makes it a rule for stations.
    pub(crate) stations: SourceStations,
}

/// A key's value; what is invalid has been reported already.
#[derive(Debug)]
pub(crate) enum Given<T> {
    Absent,
    Invalid,
    Valid(Range<usize>, T),
}

impl<T> Given<T> {
    pub(crate) fn valid(self) -> Option<T> {
        match self {
            Self::Valid(_, value) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(crate) fn as_valid(&self) -> Option<(&Range<usize>, &T)> {
        match self {
            Self::Valid(span, value) => Some((span, value)),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Where it stands; `None` as well for what has been reported already.
    pub(crate) fn span(&self) -> Option<Range<usize>> {
        self.as_valid().map(|(span, _)| span.clone())
    }
}

pub(crate) fn read(text: &str, problems: &mut Problems) -> Source {
    if text.len() > MAX_SOURCE {
        let (got, max) = (text.len(), MAX_SOURCE);
        problems.add(0..0, "", Problem::TooLarge { got, max });
        return Source::default();
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return read_file(&table, problems);
    }
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        problems.add(span, "", Problem::Syntax(error.message().to_owned()));
    }
    Source::default()
}

fn read_file(table: &Spanned<DeTable<'_>>, problems: &mut Problems) -> Source {
    const KEYS: &[&str] = &[
        "syntax",
        "read_only",
        "client",
        "set",
        "allow",
        "deny",
        "test",
    ];
    let mut file = Keys::new("", table.get_ref(), KEYS, problems);
    file.syntax();
    let read_only = file.value("read_only", Keys::read_only);
    let clients = file.tables("client", read_client);
    let (known, mut sets) = Sets::read(&mut file);
    let mut rules = file.tables("allow", |span, table, problems| {
        read_rule(Effect::Allow, span, table, &known, problems)
    });
    rules.extend(file.tables("deny", |span, table, problems| {
        read_rule(Effect::Deny, span, table, &known, problems)
    }));
    known.note_use(&mut sets);
    Source {
        read_only: read_only.valid().unwrap_or_default(),
        clients,
        sets,
        rules,
        tests: file.tables("test", test::read_test),
    }
}

fn read_client(span: Range<usize>, table: &DeTable<'_>, problems: &mut Problems) -> SourceClient {
    const KEYS: &[&str] = &[
        "name", "address", "identity", "role", "mac", "station", "comment",
    ];
    let mut keys = Keys::new("client", table, KEYS, problems);
    keys.value("comment", Keys::text);
    SourceClient {
        span,
        name: keys.value("name", Keys::label),
        address: keys.value("address", Keys::blocks),
        identity: keys.value("identity", Keys::text),
        role: keys.value("role", Keys::text),
        mac: keys.value("mac", Keys::macs),
        station: keys.value("station", Keys::station),
    }
}

/// What the values beside a `type` are: registers where there is none, nothing that could be read where
/// it is no type, which has been reported.
fn values_of(number: &Given<NumberType>) -> Option<NumberType> {
    match number {
        Given::Absent => Some(NumberType::Uint16),
        Given::Invalid => None,
        Given::Valid(_, number) => Some(*number),
    }
}

fn read_rule(
    effect: Effect,
    span: Range<usize>,
    table: &DeTable<'_>,
    sets: &Sets<'_>,
    problems: &mut Problems,
) -> SourceRule {
    const KEYS: &[&str] = &[
        "name",
        "client",
        "device",
        "unit",
        "function",
        "address",
        "type",
        "word_order",
        "partial",
        "value",
        "via",
        "comment",
        "reason",
        "time",
        "rate",
        "step",
        "repeat",
        "station",
        "service",
        "ar",
        "record",
        "slot",
    ];
    let place = match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let mut keys = Keys::new(place, table, KEYS, problems).with_sets(sets);
    keys.value("comment", Keys::text);
    let number = keys.value("type", Keys::number_type);
    let values = values_of(&number);
    SourceRule {
        effect,
        span,
        name: keys.value("name", Keys::label),
        client: keys.value("client", Keys::clients),
        device: keys.value("device", Keys::names),
        unit: keys.value("unit", Keys::units),
        function: keys.value("function", Keys::functions),
        address: keys.value("address", Keys::addresses),
        word_order: keys.value("word_order", Keys::word_order),
        partial: keys.value("partial", Keys::permission),
        value: keys.value("value", |keys, key, value| keys.bounds(key, value, values?)),
        via: keys.value("via", Keys::names),
        reason: keys.value("reason", Keys::text),
        time: keys.value("time", Keys::windows),
        rate: keys.value("rate", Keys::rate),
        step: keys.value("step", |keys, key, value| keys.step(key, value, values?)),
        repeat: keys.value("repeat", Keys::permission),
        stations: SourceStations::read(effect, &mut keys),
        number,
    }
}
