//! Addresses of coils and registers as people write them.
//!
//! Two spellings, neither of which can be mistaken for the other: the table's name with 0-based
//! PDU addresses (`holding 0-99`), or the engineers' notation with the table's digit and an `x`
//! and 1-based numbers of five digits (`4x00001-4x00100`). A plain `40001` could mean holding
//! register 0 or 40001 and is refused.

use std::fmt;

use fieldlock_modbus::Table;

use crate::model::interval::Interval;

/// Elements of one table, first and last inclusive, 0-based PDU addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub table: Table,
    pub first: u16,
    pub last: u16,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, first, last } = *self;
        write!(f, "{} {first}", table_name(table))?;
        if last != first {
            write!(f, "-{last}")?;
        }
        Ok(())
    }
}

/// A set of addresses; ranges that overlap or touch are joined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Spans([Vec<Interval>; 4]);

impl Spans {
    pub fn insert(&mut self, span: Span) {
        let Span { table, first, last } = span;
        let ranges = &mut self.0[table_index(table)];
        // Those that overlap or touch stand side by side.
        let begin = ranges.partition_point(|r| r.last.saturating_add(1) < first);
        let end = ranges.partition_point(|r| r.first <= last.saturating_add(1));
        let joined = match ranges.get(begin..end) {
            Some([one, .., other]) => Interval {
                first: one.first.min(first),
                last: other.last.max(last),
            },
            Some([one]) => Interval {
                first: one.first.min(first),
                last: one.last.max(last),
            },
            _ => Interval { first, last },
        };
        ranges.splice(begin..end, [joined]);
    }

    pub fn iter(&self) -> impl Iterator<Item = Span> {
        TABLES.into_iter().flat_map(|table| {
            let ranges = self.0[table_index(table)].iter();
            ranges.map(move |range| Span {
                table,
                first: range.first,
                last: range.last,
            })
        })
    }
}

impl fmt::Display for Spans {
    /// `coil 0-15, holding 0-99`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.iter().map(|span| span.to_string()).collect();
        f.write_str(&texts.join(", "))
    }
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{0} is ambiguous; {hint}", hint = plain_hint(*.0))]
    Plain(u64),
    #[error(
        "{0:?} is not an address; write \"holding 0-99\", \"coil 5\", \"discrete 0-15\", \"input 3-7\" (from 0), \"4x00001-4x00100\" (from 1) or \"any\""
    )]
    Form(String),
    #[error("there is no table {got:?}; {}", nearest_table(.nearest))]
    Table {
        got: String,
        nearest: Option<&'static str>,
    },
    #[error("{0:?} is not an address from 0 to 65535")]
    Number(String),
    #[error(
        "{0:?} is not the table's digit, \"x\" and five digits, such as \"4x00001\"; hexadecimal is not accepted"
    )]
    DigitX(String),
    #[error(
        "{0:?}: numbers after the \"x\" run from 00001 to 65536, so that 4x00001 is \"holding 0\""
    )]
    OneBased(String),
    #[error("both ends of {0:?} must be in the same table")]
    Tables(String),
    #[error("the range {0:?} ends before it begins")]
    Reversed(String),
}

/// Reads one address or range. `"any"` is not an address and is handled by the caller.
pub fn parse_address(text: &str) -> Result<Span, AddressError> {
    let text = text.trim();
    if let Ok(plain) = text.parse::<u64>() {
        return Err(AddressError::Plain(plain));
    }
    let span = if text.as_bytes().get(1) == Some(&b'x') {
        digit_x_range(text)?
    } else {
        named_range(text)?
    };
    if span.last < span.first {
        return Err(AddressError::Reversed(text.to_owned()));
    }
    Ok(span)
}

pub(crate) const TABLES: [Table; 4] = [
    Table::Coil,
    Table::DiscreteInput,
    Table::InputRegister,
    Table::HoldingRegister,
];

/// The table's place in arrays of four.
pub(crate) fn table_index(table: Table) -> usize {
    match table {
        Table::Coil => 0,
        Table::DiscreteInput => 1,
        Table::InputRegister => 2,
        Table::HoldingRegister => 3,
    }
}

/// The word for a table in addresses.
pub fn table_name(table: Table) -> &'static str {
    match table {
        Table::Coil => "coil",
        Table::DiscreteInput => "discrete",
        Table::InputRegister => "input",
        Table::HoldingRegister => "holding",
    }
}

fn named_range(text: &str) -> Result<Span, AddressError> {
    let (name, range) = text
        .split_once(char::is_whitespace)
        .ok_or_else(|| AddressError::Form(text.to_owned()))?;
    let table = TABLES
        .into_iter()
        .find(|table| table_name(*table) == name)
        .ok_or_else(|| AddressError::Table {
            got: name.to_owned(),
            nearest: crate::model::spelling::nearest(name, TABLES.into_iter().map(table_name)),
        })?;
    let (first, last) = ends(range);
    Ok(Span {
        table,
        first: zero_based(first)?,
        last: zero_based(last)?,
    })
}

fn digit_x_range(text: &str) -> Result<Span, AddressError> {
    let (first, last) = ends(text);
    let (table, first) = digit_x(first)?;
    let (last_table, last) = digit_x(last)?;
    if table != last_table {
        return Err(AddressError::Tables(text.to_owned()));
    }
    Ok(Span { table, first, last })
}

fn digit_x(text: &str) -> Result<(Table, u16), AddressError> {
    let wrong = || AddressError::DigitX(text.to_owned());
    let (digit, number) = text.split_once('x').ok_or_else(wrong)?;
    let table = match digit {
        "0" => Table::Coil,
        "1" => Table::DiscreteInput,
        "3" => Table::InputRegister,
        "4" => Table::HoldingRegister,
        _ => return Err(wrong()),
    };
    // Exactly five: "0x0064" would otherwise be read as hexadecimal by one person and as coil 63
    // by another.
    if number.len() != 5 || !all_digits(number) {
        return Err(wrong());
    }
    number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_sub(1))
        .and_then(|address| u16::try_from(address).ok())
        .map(|address| (table, address))
        .ok_or_else(|| AddressError::OneBased(text.to_owned()))
}

fn zero_based(text: &str) -> Result<u16, AddressError> {
    text.parse()
        .ok()
        .filter(|_| all_digits(text))
        .ok_or_else(|| AddressError::Number(text.to_owned()))
}

fn ends(range: &str) -> (&str, &str) {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    (first.trim(), last.trim())
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a plain number could have meant, in spellings that mean one thing.
fn plain_hint(number: u64) -> String {
    let engineers = match number {
        1..=9_999 => Some(("0x", "coil", number)),
        10_001..=19_999 => Some(("1x", "discrete", number - 10_000)),
        30_001..=39_999 => Some(("3x", "input", number - 30_000)),
        40_001..=49_999 => Some(("4x", "holding", number - 40_000)),
        100_001..=165_536 => Some(("1x", "discrete", number - 100_000)),
        300_001..=365_536 => Some(("3x", "input", number - 300_000)),
        400_001..=465_536 => Some(("4x", "holding", number - 400_000)),
        _ => None,
    };
    match engineers {
        Some((digit, table, one_based)) if (10_000..=65_535).contains(&number) => format!(
            "write \"{digit}{one_based:05}\" (the same as \"{table} {}\") for the engineers' number, or \"holding {number}\" for the PDU address {number}",
            one_based - 1
        ),
        Some((digit, table, one_based)) if number >= 10_000 => format!(
            "write \"{digit}{one_based:05}\" or, the same, \"{table} {}\"",
            one_based - 1
        ),
        _ if number < 10_000 => format!(
            "write the table: \"holding {number}\" for the PDU address, or \"4x{:05}\", the same counted from 1",
            number + 1
        ),
        _ => "write \"holding 0-99\" (from 0) or \"4x00001-4x00100\" (from 1)".to_owned(),
    }
}

fn nearest_table(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(table) => format!("did you mean {table:?}?"),
        None => "there are coil, discrete, input and holding".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_give_the_same_addresses() {
        for (text, table, first, last) in [
            ("holding 0-99", Table::HoldingRegister, 0, 99),
            ("coil 5", Table::Coil, 5, 5),
            ("discrete 0-15", Table::DiscreteInput, 0, 15),
            ("input 3 - 7", Table::InputRegister, 3, 7),
            ("holding 65535", Table::HoldingRegister, 65_535, 65_535),
            ("4x00001-4x00100", Table::HoldingRegister, 0, 99),
            ("4x65536", Table::HoldingRegister, 65_535, 65_535),
            ("3x00001", Table::InputRegister, 0, 0),
            ("1x00016", Table::DiscreteInput, 15, 15),
            ("0x00001", Table::Coil, 0, 0),
        ] {
            let expected = Span { table, first, last };
            assert_eq!(parse_address(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_could_be_misread_is_refused_with_a_way_out() {
        for (text, expected) in [
            (
                "40001",
                "write \"4x00001\" (the same as \"holding 0\") for the engineers' number, or \"holding 40001\"",
            ),
            ("400001", "write \"4x00001\" or, the same, \"holding 0\""),
            (
                "5",
                "\"holding 5\" for the PDU address, or \"4x00006\", the same counted from 1",
            ),
            ("0x0064", "hexadecimal is not accepted"),
            ("4x1", "five digits"),
            ("4x00000", "4x00001 is \"holding 0\""),
            ("4x65537", "00001 to 65536"),
            ("2x00001", "table's digit"),
            ("4x00001-3x00002", "the same table"),
            ("4x00001-100", "five digits"),
            ("holding 9-0", "ends before it begins"),
            ("holding 65536", "0 to 65535"),
            ("holding +1", "0 to 65535"),
            ("holding", "is not an address; write"),
            ("holdng 1", "did you mean \"holding\"?"),
            ("", "is not an address"),
        ] {
            let error = parse_address(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn no_text_panics_and_display_reads_back() {
        use proptest::prelude::*;
        proptest!(|(text in ".{0,20}", digits in "[0-9x -]{0,14}")| {
            for text in [text, digits] {
                if let Ok(span) = parse_address(&text) {
                    prop_assert_eq!(parse_address(&span.to_string()), Ok(span));
                }
            }
        });
    }
}
