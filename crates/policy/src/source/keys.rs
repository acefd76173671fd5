//! Reading one table key by key, reporting whatever is wrong with each value.

use std::ops::Range;

use fieldlock_modbus::FunctionCode;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::set::Sets;
use super::{Given, MAX_ENTRIES, MAX_NAME, MAX_TEXT};
use crate::error::{ModbusProblem, Problem, Problems};
use crate::model::address::{Span, parse_address};
use crate::model::cidr::Cidr;
use crate::model::function::{self, Functions};
use crate::model::number::{Bounds, Number, NumberType, WordOrder};
use crate::model::scope::{ReadOnly, Scope, Units};
use crate::model::spelling::nearest;

/// The keys of one table. Readers return `None` after they reported what is wrong.
pub(super) struct Keys<'t> {
    pub(super) place: &'static str,
    table: &'t DeTable<'t>,
    /// For rules: what `"set:NAME"` in a list stands for.
    pub(super) sets: Option<&'t Sets<'t>>,
    pub(super) problems: &'t mut Problems,
}

impl<'t> Keys<'t> {
    pub(super) fn new(
        place: &'static str,
        table: &'t DeTable<'t>,
        known: &'static [&'static str],
        problems: &'t mut Problems,
    ) -> Self {
        let mut keys = Self {
            place,
            table,
            sets: None,
            problems,
        };
        keys.refuse_unknown(known);
        keys
    }

    pub(super) fn with_sets(self, sets: &'t Sets<'t>) -> Self {
        Self {
            sets: Some(sets),
            ..self
        }
    }

    pub(super) fn refuse_unknown(&mut self, known: &'static [&'static str]) {
        for (key, _) in self.table {
            let word = key.get_ref().as_ref();
            if known.contains(&word) {
                continue;
            }
            let problem = Problem::UnknownKey {
                nearest: nearest(word, known.iter().copied()).map(str::to_owned),
                known: known.to_vec(),
            };
            self.report(key.span(), word, problem);
        }
    }

    pub(super) fn value<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Self, &str, &'t Spanned<DeValue<'t>>) -> Option<T>,
    ) -> Given<T> {
        let table = self.table;
        let Some((_, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            return Given::Absent;
        };
        match read(self, key, value) {
            Some(read) => Given::Valid(value.span(), read),
            None => Given::Invalid,
        }
    }

    pub(super) fn report(&mut self, span: Range<usize>, key: &str, problem: impl Into<Problem>) {
        let key = match (self.place, key) {
            ("", key) => key.to_owned(),
            (place, "") => place.to_owned(),
            (place, key) => format!("{place}.{key}"),
        };
        self.problems.add(span, key, problem);
    }

    /// Reports that the value has the wrong type.
    pub(super) fn wrong<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &'static str,
    ) -> Option<T> {
        let found = value.get_ref().type_str();
        self.report(value.span(), key, Problem::Type { expected, found });
        None
    }

    pub(super) fn syntax(&mut self) {
        let given = self.value("syntax", |keys, key, value| {
            match integer(value.get_ref()) {
                Some(1) => {}
                Some(got) => keys.report(value.span(), key, Problem::Version { got }),
                None => keys.wrong(key, value, "the number 1")?,
            }
            Some(())
        });
        if given.is_absent() {
            let hint = "begin the file with \"syntax = 1\"";
            self.report(0..0, "syntax", Problem::Missing { hint });
        }
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(Range<usize>, &'t DeTable<'t>, &mut Problems) -> T,
    ) -> Vec<T> {
        let expected = "an array of tables, each under its own [[header]]";
        let given = self.value(key, |keys, key, value| {
            let Some(array) = value.get_ref().as_array() else {
                return keys.wrong(key, value, expected);
            };
            let (got, max) = (array.len(), MAX_ENTRIES);
            if got > max {
                keys.report(value.span(), key, Problem::TooMany { got, max });
                return None;
            }
            let mut tables = Vec::with_capacity(got);
            for item in array.iter() {
                match item.get_ref().as_table() {
                    Some(table) => tables.push(read(item.span(), table, keys.problems)),
                    None => keys.wrong(key, item, expected)?,
                }
            }
            Some(tables)
        });
        given.valid().unwrap_or_default()
    }

    pub(super) fn read_only(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<ReadOnly> {
        match value.get_ref().as_bool() {
            Some(true) => Some(ReadOnly::All),
            Some(false) => Some(ReadOnly::None),
            None if integer(value.get_ref()).is_some() => {
                self.wrong(key, value, "true, false or a list of devices")
            }
            None => Some(match self.names(key, value)? {
                Scope::Any => ReadOnly::All,
                Scope::Only(devices) => ReadOnly::Devices(devices),
            }),
        }
    }

    /// The name of a rule or a client.
    pub(super) fn label(&mut self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Option<String> {
        self.bounded_text(key, value, MAX_NAME)
    }

    pub(super) fn text(&mut self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Option<String> {
        self.bounded_text(key, value, MAX_TEXT)
    }

    pub(super) fn bounded_text(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
        max: usize,
    ) -> Option<String> {
        let text = self.string(key, value)?;
        let length = text.chars().count();
        if length == 0 || length > max || text.chars().any(char::is_control) {
            let got = text.chars().take(max).collect();
            self.report(value.span(), key, Problem::Text { got, max });
            return None;
        }
        Some(text.to_owned())
    }

    pub(super) fn string(&mut self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Option<&'t str> {
        match value.get_ref().as_str() {
            Some(text) => Some(text),
            None => self.wrong(key, value, "a string"),
        }
    }

    /// Reads every item; a value that is no array counts as a list of one.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
        empty: &'static str,
        mut read: impl FnMut(&mut Self, &'t Spanned<DeValue<'t>>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = match value.get_ref().as_array() {
            Some(array) => items(array),
            None => std::slice::from_ref(value),
        };
        if items.is_empty() {
            self.report(value.span(), key, Problem::Empty { hint: empty });
        }
        let any = items.iter().find(|item| is_any(item));
        if let Some(any) = any.filter(|_| items.len() > 1) {
            self.report(any.span(), key, Problem::AnyAmongOthers);
            return None;
        }
        let mut all = Some(Vec::with_capacity(items.len()));
        for item in items {
            let Some(items) = self.expand(key, item) else {
                all = None;
                continue;
            };
            for item in items {
                match (read(self, item), &mut all) {
                    (Some(item), Some(list)) => list.push(item),
                    _ => all = None,
                }
            }
        }
        all.filter(|list| !list.is_empty())
    }

    /// As [`Keys::list`], where `"any"` stands for all.
    pub(super) fn scope<T>(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
        empty: &'static str,
        read: impl FnMut(&mut Self, &'t Spanned<DeValue<'t>>) -> Option<T>,
    ) -> Option<Scope<T>> {
        if says_any(value) {
            if self.place == "set" {
                self.report(value.span(), key, Problem::AnyInSet);
                return None;
            }
            return Some(Scope::Any);
        }
        self.list(key, value, empty, read).map(Scope::Only)
    }

    pub(super) fn clients(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<Scope<Spanned<String>>> {
        self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            let name = keys.string(key, item)?;
            Some(Spanned::new(item.span(), name.to_owned()))
        })
    }

    /// Names of devices or headends.
    pub(super) fn names(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<Scope<String>> {
        self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            keys.name(key, item)
        })
    }

    pub(super) fn name(&mut self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Option<String> {
        let name = self.string(key, value)?;
        if !is_device_name(name) {
            let got = name.chars().take(MAX_NAME).collect();
            self.report(value.span(), key, Problem::Name(got));
            return None;
        }
        Some(name.to_owned())
    }

    pub(super) fn blocks(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<Vec<Cidr>> {
        let empty = "leave the key out, or list addresses";
        self.list(key, value, empty, |keys, item| {
            let parsed = keys.string(key, item)?.parse();
            parsed
                .map_err(|error: crate::model::cidr::CidrError| {
                    keys.report(item.span(), key, error)
                })
                .ok()
        })
    }

    pub(super) fn units(&mut self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Option<Units> {
        let ranges = self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            unit_range(item.get_ref())
                .map_err(|problem| keys.report(item.span(), key, problem))
                .ok()
        })?;
        let Scope::Only(ranges) = ranges else {
            return Some(Units::ANY);
        };
        let mut units = Units::NONE;
        ranges
            .into_iter()
            .flatten()
            .for_each(|unit| units.insert(unit));
        Some(units)
    }

    pub(super) fn functions(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<Functions> {
        let sets = self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            function_set(item.get_ref())
                .map_err(|problem| keys.report(item.span(), key, problem))
                .ok()
        })?;
        let Scope::Only(sets) = sets else {
            return Some(Functions::ANY);
        };
        let mut functions = Functions::default();
        sets.into_iter().for_each(|set| functions.merge(set));
        Some(functions)
    }

    pub(super) fn addresses(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<Scope<Spanned<Span>>> {
        self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            // A bare number gets the same answer as the same digits in a string.
            let text = match item.get_ref() {
                DeValue::Integer(number) => number.to_string(),
                _ => keys.string(key, item)?.to_owned(),
            };
            parse_address(&text)
                .map_err(|error| keys.report(item.span(), key, ModbusProblem::from(error)))
                .ok()
                .map(|span| Spanned::new(item.span(), span))
        })
    }

    pub(super) fn number_type(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<NumberType> {
        let name = self.string(key, value)?;
        let number = NumberType::from_name(name);
        if number.is_none() {
            let problem = ModbusProblem::UnknownType {
                name: name.chars().take(MAX_NAME).collect(),
                nearest: nearest(name, NumberType::names()).map(str::to_owned),
            };
            self.report(value.span(), key, problem);
        }
        number
    }

    pub(super) fn word_order(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<WordOrder> {
        match value.get_ref().as_str().map(str::parse) {
            Some(Ok(order)) => Some(order),
            _ => self.wrong(key, value, "\"big\" (ABCD) or \"little\" (CDAB)"),
        }
    }

    pub(super) fn bounds(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
        number: NumberType,
    ) -> Option<(Number, Number)> {
        const KEYS: [&str; 2] = ["min", "max"];
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong(key, value, "a table such as { min = 0, max = 1200 }");
        };
        let place = match self.place {
            "deny" => "deny.value",
            _ => "allow.value",
        };
        let mut keys = Keys::new(place, table, &KEYS, self.problems);
        let [min, max] =
            KEYS.map(|key| keys.value(key, |keys, key, value| keys.number(key, value, number)));
        if min.is_absent() && max.is_absent() {
            let hint = "give min, max or both";
            self.report(value.span(), key, Problem::Missing { hint });
            return None;
        }
        let Bounds {
            min: least,
            max: most,
        } = number.all();
        let [least, most] = [least, most].map(|rank| Number::of_rank(number, rank));
        let (min, max) = (or_default(min, least)?, or_default(max, most)?);
        if min > max {
            self.report(value.span(), key, ModbusProblem::ValueReversed { min, max });
            return None;
        }
        Some((min, max))
    }

    /// A number of this type, of a float the nearest.
    pub(super) fn number(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
        number: NumberType,
    ) -> Option<Number> {
        let Some(got) = literal(value.get_ref(), number) else {
            return match number {
                NumberType::Uint16 if matches!(value.get_ref(), DeValue::Float(_)) => self.wrong(
                    key,
                    value,
                    "a number from 0 to 65535, or a type such as \"float32\"",
                ),
                NumberType::Uint16 => self.wrong(key, value, "a number from 0 to 65535"),
                _ if number.is_float() => self.wrong(key, value, "a number"),
                _ => self.wrong(key, value, "a whole number"),
            };
        };
        let read = number.parse(&got);
        if read.is_none() {
            self.report(value.span(), key, ModbusProblem::Value { got, number });
        }
        read
    }

    pub(super) fn permission(
        &mut self,
        key: &str,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<bool> {
        match value.get_ref().as_str() {
            Some("refuse") => Some(false),
            Some("allow") => Some(true),
            _ => self.wrong(key, value, "\"refuse\" or \"allow\""),
        }
    }

    pub(super) fn register(&mut self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Option<u16> {
        let Some(got) = integer(value.get_ref()) else {
            return self.wrong(key, value, "a number from 0 to 65535");
        };
        let register = u16::try_from(got).ok();
        if register.is_none() {
            let (got, number) = (got.to_string(), NumberType::Uint16);
            self.report(value.span(), key, ModbusProblem::Value { got, number });
        }
        register
    }
}

pub(super) const EMPTY_MEANS_NONE: &str = "write \"any\" for all";

/// NAME of the identities: a DNS label in lower case.
/// Whether a text is a name as devices and headends have them: 1 to 63 of a-z, 0-9 and, not at the
/// ends, hyphens.
pub fn is_device_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
}

fn unit_range(value: &DeValue<'_>) -> Result<std::ops::RangeInclusive<u8>, Problem> {
    let text = match value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::String(text) => text.to_string(),
        other => {
            return Err(Problem::Type {
                expected: "a unit, a range such as \"1-10\" or \"any\"",
                found: other.type_str(),
            });
        }
    };
    let wrong = || Problem::from(ModbusProblem::Unit(format!("{text:?}")));
    let end = |end: &str| end.trim().parse::<u8>().map_err(|_| wrong());
    match text.split_once('-') {
        None => end(&text).map(|unit| unit..=unit),
        Some((first, last)) => {
            let range = end(first)?..=end(last)?;
            match *range.start() {
                0 => Err(ModbusProblem::UnitRangeWithBroadcast.into()),
                _ if range.is_empty() => Err(wrong()),
                _ => Ok(range),
            }
        }
    }
}

fn function_set(value: &DeValue<'_>) -> Result<Functions, Problem> {
    match value.as_str() {
        Some(text) if text.contains('/') => function::parse_functions(text).ok_or_else(|| {
            let got = text.chars().take(MAX_NAME).collect();
            ModbusProblem::SubFunction { got }.into()
        }),
        Some(text) => match function::group(text) {
            Some(group) => Ok(group),
            None => function_code(value).map(Functions::one),
        },
        None => function_code(value).map(Functions::one),
    }
}

/// One function by its name or number.
pub(super) fn function_code(value: &DeValue<'_>) -> Result<FunctionCode, Problem> {
    if let Some(number) = integer(value) {
        return match u8::try_from(number) {
            Ok(code @ 1..=127) => Ok(FunctionCode(code)),
            _ => Err(ModbusProblem::FunctionCode { got: number }.into()),
        };
    }
    let Some(word) = value.as_str() else {
        return Err(Problem::Type {
            expected: "a function's name, group or number",
            found: value.type_str(),
        });
    };
    let unknown = || ModbusProblem::UnknownFunction {
        name: word.chars().take(MAX_NAME).collect(),
        nearest: nearest(word, function::words()).map(str::to_owned),
    };
    function::parse_function(word).ok_or_else(|| unknown().into())
}

pub(super) fn or_default<T>(given: Given<T>, default: T) -> Option<T> {
    match given {
        Given::Absent => Some(default),
        Given::Invalid => None,
        Given::Valid(_, value) => Some(value),
    }
}

/// An integer; one beyond 64 bits counts as the largest.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    Some(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX))
}

/// A number as it is written, in decimal; `None` where it is of another kind than the type.
pub(super) fn literal(value: &DeValue<'_>, number: NumberType) -> Option<String> {
    match value {
        DeValue::Float(float) if number.is_float() => Some(float.as_str().to_owned()),
        DeValue::Integer(whole) if whole.radix() == 10 => Some(whole.as_str().to_owned()),
        _ => integer(value).map(|whole| whole.to_string()),
    }
}

fn says_any(value: &Spanned<DeValue<'_>>) -> bool {
    match value.get_ref().as_array() {
        Some(array) => matches!(items(array), [item] if is_any(item)),
        None => is_any(value),
    }
}

fn is_any(value: &Spanned<DeValue<'_>>) -> bool {
    value.get_ref().as_str() == Some("any")
}

pub(super) fn items<'a, 'i>(array: &'a DeArray<'i>) -> &'a [Spanned<DeValue<'i>>] {
    array
}
