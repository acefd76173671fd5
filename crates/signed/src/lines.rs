//! Reads a text line by line, and says which line is not as it has to be.

use jiff::Timestamp;
use thiserror::Error;

use crate::edges::Edges;

/// Versions go from 1 to this: 15 digits, so that a date and time fits in.
pub const MAX_VERSION: u64 = 999_999_999_999_999;

/// The lines of a text of one kind that are not read yet.
#[derive(Debug)]
pub struct Lines<'t> {
    /// What the kind is called.
    called: &'static str,
    rest: &'t str,
    /// Of the line that was read last, from 1.
    number: usize,
}

impl<'t> Lines<'t> {
    pub(crate) fn new(called: &'static str, text: &'t str) -> Self {
        Self {
            called,
            rest: text,
            number: 0,
        }
    }

    /// What follows the lines that were read.
    pub(crate) fn rest(&self) -> &'t str {
        self.rest
    }

    /// Reads the line `key: value`. `form` says what a value is, for whoever wrote another.
    ///
    /// # Errors
    /// The line has another key, or `read` makes nothing of its value.
    pub fn field<T>(
        &mut self,
        key: &'static str,
        form: &'static str,
        read: impl FnOnce(&'t str) -> Option<T>,
    ) -> Result<T, Malformed> {
        let value = |line: &'t str| line.strip_prefix(key)?.strip_prefix(": ").and_then(read);
        self.line(value, || format!("is `{key}: ` and {form}"))
    }

    /// Reads `version: N`.
    ///
    /// # Errors
    /// It is not that, or N is not 1 to [`MAX_VERSION`].
    pub fn version(&mut self) -> Result<u64, Malformed> {
        let form = "a number from 1 to 999999999999999";
        self.field("version", form, |text| {
            let version = text.parse().ok()?;
            let one_spelling = text.len() <= 15 && !text.starts_with(['0', '+']);
            ((1..=MAX_VERSION).contains(&version) && one_spelling).then_some(version)
        })
    }

    /// Reads `key: TIME`, or `key: none`. Seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// It is not that, or not written as [`time_or_none`] does.
    pub fn time(&mut self, key: &'static str) -> Result<Option<i64>, Malformed> {
        let form = "`none` or a time such as 2026-11-25T00:00:00Z";
        self.field(key, form, |text| {
            if text == NONE {
                return Some(None);
            }
            let time = text.parse::<Timestamp>().ok()?.as_second();
            (time >= 0 && time_text(time) == text).then_some(Some(time))
        })
    }

    /// Reads `edges: any`, or names.
    ///
    /// # Errors
    /// It is neither, or the names are not in the one order in which [`Edges`] writes them.
    pub fn edges(&mut self) -> Result<Edges, Malformed> {
        let form = "`any`, or names of edges in ascending order, each once, with `, ` between them";
        self.field("edges", form, Edges::parse)
    }

    /// Makes sure that nothing is left, and returns that.
    pub(crate) fn end(&self) -> Result<&'t str, Malformed> {
        match self.rest {
            "" => Ok(""),
            _ => Err(Malformed {
                line: self.number + 1,
                problem: Problem::End {
                    called: self.called,
                },
            }),
        }
    }

    /// Reads a line of which `form` says what it is.
    pub(crate) fn line<T>(
        &mut self,
        read: impl FnOnce(&'t str) -> Option<T>,
        form: impl FnOnce() -> String,
    ) -> Result<T, Malformed> {
        self.number += 1;
        let value = self.rest.split_once('\n').and_then(|(line, rest)| {
            self.rest = rest;
            read(line)
        });
        value.ok_or_else(|| Malformed {
            line: self.number,
            problem: Problem::Line {
                called: self.called,
                form: form(),
            },
        })
    }
}

/// A time as texts have it; empty for one that no calendar has.
pub fn time_text(time: i64) -> String {
    Timestamp::from_second(time).map_or_else(|_| String::new(), |time| time.to_string())
}

/// The same, or `none`.
pub fn time_or_none(time: Option<i64>) -> String {
    time.map_or_else(|| NONE.to_owned(), time_text)
}

const NONE: &str = "none";

/// Why octets are not a text of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct Malformed {
    /// From 1.
    pub line: usize,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("a {called} has at most {max} octets")]
    Length { called: &'static str, max: usize },
    #[error("not UTF-8")]
    NotText,
    #[error("in a {called} this line {form}")]
    Line { called: &'static str, form: String },
    #[error("nothing comes after the signatures of a {called}")]
    End { called: &'static str },
}
