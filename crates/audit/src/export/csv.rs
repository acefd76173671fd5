//! Comma-separated values (RFC 4180), for spreadsheets.

use std::fmt::Display;

use jiff::Timestamp;
use serde::Serialize;

use crate::record::Record;

type Column = (&'static str, fn(&Record) -> Option<String>);

const COLUMNS: [Column; 27] = [
    ("time", |r| at(r.time)),
    ("clock", |r| at(r.clock)),
    ("agent", |r| text(&r.agent)),
    ("seq", |r| Some(r.seq.to_string())),
    ("kind", |r| Some(r.kind.name().to_owned())),
    ("client", |r| text(&r.client.as_ref()?.name)),
    ("address_of_client", |r| text(&r.client.as_ref()?.address)),
    ("port", |r| text(&r.client.as_ref()?.port)),
    ("identity", |r| text(&r.client.as_ref()?.identity)),
    ("serial", |r| text(&r.client.as_ref()?.serial)),
    ("mac", |r| text(&r.client.as_ref()?.mac)),
    ("tunnel", |r| text(&r.tunnel)),
    ("device", |r| text(&r.device)),
    ("unit", |r| text(&r.unit)),
    ("station", |r| text(&r.station)),
    ("service", |r| text(&r.service)),
    ("function", |r| text(&r.function)),
    ("address", |r| {
        let tried = r.tried.as_deref().unwrap_or_default().iter();
        let ranges: Vec<_> = r
            .address
            .iter()
            .chain(tried)
            .map(ToString::to_string)
            .collect();
        (!ranges.is_empty()).then(|| ranges.join("; "))
    }),
    ("quantity", |r| text(&r.quantity)),
    ("values", |r| json(r.values.as_ref()?)),
    ("decision", |r| json(&r.decision?)),
    ("rule", |r| text(&r.rule)),
    ("outcome", |r| json(&r.outcome?)),
    ("exception", |r| text(&r.exception)),
    ("alarm", |r| text(&r.alarm)),
    ("count", |r| text(&r.count)),
    ("reason", |r| text(&r.reason)),
];

/// The names of the columns, without an end of line.
pub fn header() -> String {
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    names.join(",")
}

/// A record, without an end of line.
pub fn format(record: &Record) -> String {
    let fields = COLUMNS.map(|(_, field)| field(record).as_deref().map(quoted));
    let fields = fields.map(Option::unwrap_or_default);
    fields.join(",")
}

fn text(value: &Option<impl Display>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}

fn at(time: Option<std::time::SystemTime>) -> Option<String> {
    Timestamp::try_from(time?)
        .ok()
        .map(|time| format!("{time:.6}"))
}

/// A word without its quotes; a list as JSON.
fn json(value: &impl Serialize) -> Option<String> {
    let value = serde_json::to_value(value).ok()?;
    Some(match value {
        serde_json::Value::String(word) => word,
        other => other.to_string(),
    })
}

/// What a peer said must not become a formula: a spreadsheet takes what begins like one for one.
fn quoted(field: &str) -> String {
    let harmless = match field.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{field}"),
        false => field.to_owned(),
    };
    match harmless.contains([',', '"', '\n', '\r', '\'']) {
        true => format!("\"{}\"", harmless.replace('"', "\"\"")),
        false => harmless,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_row_that_calculates_nothing() {
        let line = concat!(
            r#"{"v":1,"seq":9,"time":"2026-09-21T14:13:20.123456Z","agent":"press-07","#,
            r#""kind":"denied","client":{"name":"hmi-1","address":"10.1.1.20","port":5},"#,
            r#""device":"press-07","unit":1,"function":16,"address":"holding 40-41","#,
            r#""quantity":2,"values":[1300,5],"decision":"deny","rule":"=cmd()","#,
            r#""reason":"value \"1300\", above 1200","outcome":"refused","exception":3,"count":4}"#
        );
        let record: Record = serde_json::from_str(line).unwrap();
        assert_eq!(
            format(&record),
            concat!(
                "2026-09-21T14:13:20.123456Z,,press-07,9,denied,hmi-1,10.1.1.20,5,,,,,press-07,1,,,",
                "16,holding 40-41,2,\"[1300,5]\",deny,\"'=cmd()\",refused,3,,4,",
                "\"value \"\"1300\"\", above 1200\""
            )
        );
        assert_eq!(header().split(',').count(), COLUMNS.len());
    }
}
