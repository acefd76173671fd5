//! A record as a line that steers nothing: no terminal, no reader of lines.

use std::io::{self, Write};

use serde::Serialize as _;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::record::Record;

/// Characters that a terminal, an editor or a reader of lines acts on instead of showing them:
/// controls (C0, DEL, C1), line and paragraph separators, and those that turn the direction of
/// writing.
pub fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends `record` as JSON, with those characters as `\uXXXX`.
pub(crate) fn write(record: &Record, out: &mut Vec<u8>) -> serde_json::Result<()> {
    record.serialize(&mut Serializer::with_formatter(out, Plain))
}

/// How many bytes [`write`] appends.
pub(crate) fn length(record: &Record) -> u64 {
    let mut out = Vec::with_capacity(512);
    // Nothing in a record can fail to serialize.
    let _ = write(record, &mut out);
    out.len() as u64
}

struct Plain;

impl Formatter for Plain {
    /// What JSON itself has to escape (quotes, backslashes, C0) is not in a fragment.
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(steers) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                // All of them are below U+10000.
                write!(writer, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Kind;

    #[test]
    fn what_steers_is_escaped_and_comes_back_the_same() {
        let reason = "a\u{1b}[2J\u{7f}\u{85}\u{9b}31m\u{202e}\u{2028}\"\\ä€😀\r\n";
        let record = Record {
            reason: Some(reason.into()),
            ..Record::new(Kind::Denied)
        };
        let mut line = Vec::new();
        write(&record, &mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(!line.contains(steers), "{line:?}");
        assert!(line.contains("ä€😀"), "{line}");
        let read: Record = serde_json::from_str(&line).unwrap();
        assert_eq!(read.reason.as_deref(), Some(reason));
    }
}
