//! A configuration file as somebody wrote it: all that is wrong with it at once, each with its place.
//!
//! `serde` stops at the first error. What it complains of is put right then, in the parsed table alone,
//! and it is asked again, until it has nothing left to say.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::words::{in_words, nearest_in};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line and column, from 1; `None` where it is of the file as a whole.
    pub place: Option<(usize, usize)>,
    pub message: String,
}

/// More are not told at once.
const MOST: usize = 50;
/// Values that stand in for one that is missing, so that the rest can be read: the first that its type takes.
const STAND_INS: [&str; 8] = [
    "\"x\"",
    "\"127.0.0.1:1\"",
    "\"1s\"",
    "\"02:00:00:00:00:01\"",
    "[]",
    "1",
    "{}",
    "true",
];

/// Reads `text`, or says what is wrong with it.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Vec<Finding>> {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Of what can't be parsed nothing else is certain.
        let finding = |error: &Error| Finding {
            place: error.span().map(|span| place(text, span.start)),
            message: error.message().to_owned(),
        };
        return Err(errors.iter().take(MOST).map(finding).collect());
    }
    let mut findings: Vec<Finding> = Vec::new();
    let mut stand_ins = StandIns {
        next: text.len() + 1,
        left: Vec::new(),
    };
    // Keys that were taken out: that they are missing then is no error of their own.
    let mut taken: Vec<(Range<usize>, String)> = Vec::new();
    while findings.len() < MOST {
        let error = match T::deserialize(Deserializer::from(table.clone())) {
            Ok(settings) if findings.is_empty() => return Ok(settings),
            Ok(_) => break,
            Err(error) => error,
        };
        let Some(span) = error.span() else {
            findings.push(Finding {
                place: None,
                message: in_words(error.message(), ""),
            });
            break;
        };
        if stand_ins.replace(&mut table, &span) {
            continue;
        }
        if let Some(key) = missing(error.message()) {
            let whole = table.span();
            let Some((within, path)) = table_at(table.get_mut(), &whole, &span, "") else {
                break;
            };
            let path = join(&path, key);
            if !taken.contains(&(span.clone(), key.to_owned())) {
                findings.push(Finding {
                    // The file as a whole has no place.
                    place: (span != whole).then(|| place(text, span.start)),
                    message: in_words(error.message(), &path),
                });
            }
            let (key, value) = stand_ins.make(key);
            within.insert(key, value);
            continue;
        }
        let whole = table.span();
        let Some(removed) = remove(table.get_mut(), &whole, &span, "") else {
            findings.push(Finding {
                place: Some(place(text, span.start)),
                message: in_words(error.message(), ""),
            });
            break;
        };
        let message = in_words(error.message(), &removed.path);
        if let Some(meant) = nearest_in(&message) {
            taken.push((removed.of.clone(), meant.to_owned()));
        }
        findings.push(Finding {
            place: Some(place(text, span.start)),
            message,
        });
        taken.push((removed.of, removed.key));
    }
    // As one reads the file.
    findings.sort_by_key(|finding| finding.place);
    Err(findings)
}

/// Line and column of an octet, from 1.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Where the entry `number` (from 0) of `list` stands in `text`, or the first of `keys` that it has; a list that
/// is no list of tables has one.
pub(super) fn place_in(
    text: &str,
    list: &str,
    number: usize,
    keys: &[&str],
) -> Option<(usize, usize)> {
    let (table, _) = DeTable::parse_recoverable(text);
    let entry = match list {
        "" => None,
        _ => match table.get_ref().get(list)?.get_ref() {
            DeValue::Array(entries) => Some(entries.get(number)?),
            _ => table.get_ref().get(list),
        },
    };
    let within = match entry {
        Some(entry) => entry.get_ref().as_table()?,
        None => table.get_ref(),
    };
    let key = keys.iter().find_map(|key| find(within, key));
    let at = key.or_else(|| entry.map(|entry| entry.span().start))?;
    Some(place(text, at))
}

/// Where a key of `table`, or of one within it, stands.
fn find(table: &DeTable<'_>, wanted: &str) -> Option<usize> {
    let own = table.iter().find(|(key, _)| key.get_ref() == wanted);
    own.map(|(key, _)| key.span().start).or_else(|| {
        let tables = table
            .values()
            .filter_map(|value| value.get_ref().as_table());
        tables.into_iter().find_map(|table| find(table, wanted))
    })
}

fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// The table with this place, and its path.
fn table_at<'t, 'i>(
    table: &'t mut DeTable<'i>,
    own: &Range<usize>,
    wanted: &Range<usize>,
    path: &str,
) -> Option<(&'t mut DeTable<'i>, String)> {
    if own == wanted {
        return Some((table, path.to_owned()));
    }
    table.iter_mut().find_map(|(key, value)| {
        let path = join(path, key.get_ref());
        table_in(value, wanted, &path)
    })
}

fn table_in<'t, 'i>(
    value: &'t mut Spanned<DeValue<'i>>,
    wanted: &Range<usize>,
    path: &str,
) -> Option<(&'t mut DeTable<'i>, String)> {
    let own = value.span();
    match value.get_mut() {
        DeValue::Table(table) => table_at(table, &own, wanted, path),
        DeValue::Array(entries) => entries
            .iter_mut()
            .find_map(|entry| table_in(entry, wanted, path)),
        _ => None,
    }
}

struct Removed {
    path: String,
    /// The table that it was in.
    of: Range<usize>,
    key: String,
}

/// Takes the key or value with this place out of the table.
fn remove(
    table: &mut DeTable<'_>,
    own: &Range<usize>,
    wanted: &Range<usize>,
    path: &str,
) -> Option<Removed> {
    let entry = table
        .iter()
        .find(|(key, value)| key.span() == *wanted || value.span() == *wanted);
    if let Some(key) = entry.map(|(key, _)| key.get_ref().to_string()) {
        table.remove(key.as_str());
        return Some(Removed {
            path: join(path, &key),
            of: own.clone(),
            key,
        });
    }
    table.iter_mut().find_map(|(key, value)| {
        let path = join(path, key.get_ref());
        remove_in(value, wanted, &path)
    })
}

fn remove_in(
    value: &mut Spanned<DeValue<'_>>,
    wanted: &Range<usize>,
    path: &str,
) -> Option<Removed> {
    let own = value.span();
    match value.get_mut() {
        DeValue::Table(table) => remove(table, &own, wanted, path),
        DeValue::Array(entries) => {
            if entries.iter().any(|entry| entry.span() == *wanted) {
                let others = entries.iter().filter(|entry| entry.span() != *wanted);
                *entries = others.cloned().collect();
                return Some(Removed {
                    path: path.to_owned(),
                    of: own,
                    key: String::new(),
                });
            }
            entries
                .iter_mut()
                .find_map(|entry| remove_in(entry, wanted, path))
        }
        _ => None,
    }
}

/// Values in place of missing ones. Each has a place behind the end of the text, by which it is known.
struct StandIns {
    next: usize,
    /// With what is left to try.
    left: Vec<(Range<usize>, usize)>,
}

impl StandIns {
    fn make(
        &mut self,
        key: &str,
    ) -> (
        Spanned<toml::de::DeString<'static>>,
        Spanned<DeValue<'static>>,
    ) {
        let span = self.next..self.next + 1;
        self.next += 1;
        self.left.push((span.clone(), 1));
        let key = Spanned::new(span.clone(), key.to_owned().into());
        (key, Spanned::new(span, stand_in(0)))
    }

    /// If the error is that of a stand-in: the next one is put there, or none is left and it goes.
    fn replace(&mut self, table: &mut Spanned<DeTable<'_>>, span: &Range<usize>) -> bool {
        let Some((_, left)) = self.left.iter_mut().find(|(own, _)| own == span) else {
            return false;
        };
        let next = *left;
        *left += 1;
        next < STAND_INS.len() && put(table.get_mut(), span, next)
    }
}

fn put(table: &mut DeTable<'_>, span: &Range<usize>, number: usize) -> bool {
    table
        .iter_mut()
        .any(|(_, value)| put_in(value, span, number))
}

fn put_in(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>, number: usize) -> bool {
    if value.span() == *span {
        *value.get_mut() = stand_in(number);
        return true;
    }
    match value.get_mut() {
        DeValue::Table(table) => put(table, span, number),
        DeValue::Array(entries) => entries.iter_mut().any(|entry| put_in(entry, span, number)),
        _ => false,
    }
}

fn stand_in(number: usize) -> DeValue<'static> {
    let text = STAND_INS.get(number).copied().unwrap_or("true");
    match DeValue::parse(text) {
        Ok(value) => value.into_inner(),
        Err(_) => DeValue::Boolean(true),
    }
}
