//! RFC 5424, with the record or its CEF form as the message; framed as RFC 5425 for TLS.

use std::io::Write as _;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::Weight;
use crate::record::Record;

/// "Log audit" (RFC 5424, table 1).
const FACILITY: u8 = 13;

/// RFC 5424 has at most six digits of a second.
static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// The message for `record`, whose content is `message`: agent as HOSTNAME, kind as MSGID.
pub fn format(record: &Record, message: &str) -> Vec<u8> {
    let severity = match Weight::of(record) {
        Weight::Warning => 4,
        Weight::Notice => 5,
        Weight::Routine => 6,
    };
    let mut out = Vec::with_capacity(message.len() + 160);
    let time = record.time.and_then(|time| Timestamp::try_from(time).ok());
    let time = time.map(|time| PRINTER.timestamp_to_string(&time));
    // Writing to memory can't fail.
    let _ = write!(
        out,
        "<{}>1 {} {} fieldlock - {} [origin software=\"fieldlock\" swVersion=\"{}\"]",
        FACILITY * 8 + severity,
        time.as_deref().unwrap_or("-"),
        word(record.agent.as_deref().unwrap_or_default()),
        record.kind.name(),
        env!("CARGO_PKG_VERSION"),
    );
    // It begins anew after 2147483647 (RFC 5424, section 7.3.1); the record has the whole number.
    let sequence = (record.seq.saturating_sub(1)) % 0x7fff_ffff + 1;
    let _ = write!(out, "[meta sequenceId=\"{sequence}\"] {message}");
    out
}

/// A header field: printable ASCII without spaces, `-` for nothing.
fn word(text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(255)
        .collect();
    match plain.is_empty() {
        true => "-".to_owned(),
        false => plain,
    }
}

/// Appends `message` to `out` with its length before it (RFC 5425, section 4.3).
pub fn frame(message: &[u8], out: &mut Vec<u8>) {
    let _ = write!(out, "{} ", message.len());
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::record::Kind;

    #[test]
    fn a_record_is_a_message_of_rfc_5424() {
        let record = Record {
            seq: 7,
            time: Some(SystemTime::UNIX_EPOCH + Duration::from_micros(1_790_000_000_123_456)),
            agent: Some("press-07".into()),
            ..Record::new(Kind::Denied)
        };
        let message = format(&record, "{\"v\":1}");
        let expected = format!(
            "<108>1 2026-09-21T14:13:20.123456Z press-07 fieldlock - denied \
             [origin software=\"fieldlock\" swVersion=\"{}\"][meta sequenceId=\"7\"] {{\"v\":1}}",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(String::from_utf8(message).unwrap(), expected);
        let mut framed = Vec::new();
        frame(b"<108>1", &mut framed);
        assert_eq!(framed, b"6 <108>1");
    }

    #[test]
    fn a_strange_name_breaks_no_header() {
        let record = Record {
            seq: u64::from(u32::MAX),
            agent: Some("a b\n<1>1\u{1b}".into()),
            ..Record::new(Kind::Start)
        };
        let message = String::from_utf8(format(&record, "x")).unwrap();
        assert!(
            message.starts_with("<109>1 - ab<1>1 fieldlock - start "),
            "{message}"
        );
        assert!(message.contains("sequenceId=\"1\""), "{message}");
    }
}
