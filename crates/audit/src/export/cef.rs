//! ArcSight's Common Event Format, version 0.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::Weight;
use crate::line::steers;
use crate::record::{Decision, Record};

/// One line, without a newline.
pub fn format(record: &Record) -> String {
    let mut out = String::with_capacity(512);
    let severity = match Weight::of(record) {
        Weight::Warning => 7,
        Weight::Notice => 4,
        Weight::Routine => 1,
    };
    // Writing to a String can't fail.
    let _ = write!(
        out,
        "CEF:0|Fieldlock|fieldlock|{}|{kind}|{kind}|{severity}|",
        env!("CARGO_PKG_VERSION"),
        kind = record.kind.name()
    );
    let start = out.len();
    let mut add = |key: &str, value: &str| {
        if out.len() > start {
            out.push(' ');
        }
        let _ = write!(out, "{key}=");
        escape(value, &mut out);
    };
    let time = record.time.and_then(|time| Timestamp::try_from(time).ok());
    if let Some(time) = time {
        add("rt", &time.as_millisecond().to_string());
    }
    if let Some(agent) = &record.agent {
        add("dvchost", agent);
    }
    add("externalId", &record.seq.to_string());
    if let Some(client) = record.client.as_deref() {
        if let Some(address) = client.address {
            let key = if address.is_ipv4() { "src" } else { "c6a2" };
            add(key, &address.to_string());
        }
        if let Some(port) = client.port {
            add("spt", &port.to_string());
        }
        if let Some(mac) = &client.mac {
            add("smac", mac);
        }
        let name = client.identity.as_ref().or(client.name.as_ref());
        if let Some(name) = name.or(client.station.as_ref()) {
            add("suser", name);
        }
        if let Some(role) = &client.role {
            add("spriv", role);
        }
    }
    if let Some(device) = &record.device {
        add("dhost", device);
        add("app", "Modbus");
    }
    if let Some(station) = &record.station {
        add("dhost", station);
        add("app", "PROFINET");
    }
    let ar = record.ar.as_ref().map(|ar| ar.uuid.to_string());
    // Collectors know six texts of one's own; those of PROFINET take the places of Modbus'.
    let of_protocol = match record.station {
        Some(_) => [
            ("cs2", "record", place(record)),
            (
                "cs3",
                "service",
                record.service.as_deref().map(str::to_owned),
            ),
            ("cs4", "ar", ar),
        ],
        None => [
            ("cs2", "address", addresses(record)),
            ("cs3", "values", json(record.values.as_ref())),
            ("cs4", "answer", json(record.answer.as_ref())),
        ],
    };
    let rule = ("cs1", "rule", record.rule.as_deref().map(str::to_owned));
    let texts = [
        ("cs5", "tunnel", record.tunnel.as_deref().map(str::to_owned)),
        ("cs6", "alarm", record.alarm.as_deref().map(str::to_owned)),
    ];
    for (key, label, value) in std::iter::once(rule).chain(of_protocol).chain(texts) {
        if let Some(value) = value {
            add(&format!("{key}Label"), label);
            add(key, &value);
        }
    }
    let numbers = [
        ("cn1", "unit", record.unit.map(u64::from)),
        ("cn2", "function", record.function.map(u64::from)),
        ("cn3", "exception", record.exception.map(u64::from)),
    ];
    for (key, label, value) in numbers {
        if let Some(value) = value {
            add(&format!("{key}Label"), label);
            add(key, &value.to_string());
        }
    }
    if let Some(decision) = record.decision {
        let act = match decision {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
        };
        add("act", act);
    }
    if let Some(outcome) = json(record.outcome.as_ref()) {
        add("outcome", outcome.trim_matches('"'));
    }
    if let Some(reason) = &record.reason {
        add("reason", reason);
    }
    if let Some(set) = &record.set {
        add("flexString2Label", "set");
        add("flexString2", set);
    }
    if let Some(request) = record.request {
        add("flexString1Label", "request");
        add("flexString1", &request.to_string());
    }
    if let Some(count) = record.count {
        add("cnt", &count.to_string());
    }
    out
}

/// Index and place of a PROFINET record.
fn place(record: &Record) -> Option<String> {
    let index = format!("{:#06x}", record.record?);
    Some(match record.slot {
        Some(slot) => format!("{index} of slot {slot}"),
        None => index,
    })
}

fn json(value: Option<&impl serde::Serialize>) -> Option<String> {
    serde_json::to_string(value?).ok()
}

/// In an extension `\` and `=` are escaped and a line break is `\n`; other control characters
/// have no place in a line.
fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '=' => out.push_str("\\="),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            control if steers(control) => out.push('\u{fffd}'),
            plain => out.push(plain),
        }
    }
}

/// All that a record is about.
fn addresses(record: &Record) -> Option<String> {
    let tried = record.tried.as_deref().unwrap_or_default().iter();
    let all: Vec<_> = record
        .address
        .iter()
        .chain(tried)
        .map(ToString::to_string)
        .collect();
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::content::{Address, Table, Values};
    use crate::record::{Kind, Outcome, Party};

    #[test]
    fn a_denial_is_a_line_of_cef() {
        let record = Record {
            seq: 9,
            time: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123)),
            agent: Some("press-07".into()),
            client: Some(Arc::new(Party {
                name: Some("hmi-1".into()),
                address: Some([10, 1, 1, 20].into()),
                port: Some(50412),
                ..Party::default()
            })),
            device: Some("press-07".into()),
            unit: Some(1),
            function: Some(6),
            address: Some(Address {
                table: Table::Holding,
                first: 40,
                last: 40,
            }),
            values: Some(Values::Register(1300)),
            decision: Some(Decision::Deny),
            rule: Some("a=b|c".into()),
            reason: Some("line\nbreak\u{1b}[31m".into()),
            outcome: Some(Outcome::Refused),
            exception: Some(3),
            count: Some(4),
            ..Record::new(Kind::Denied)
        };
        let expected = format!(
            "CEF:0|Fieldlock|fieldlock|{}|denied|denied|7|rt=1790000000123 dvchost=press-07 \
             externalId=9 src=10.1.1.20 spt=50412 suser=hmi-1 dhost=press-07 app=Modbus \
             cs1Label=rule cs1=a\\=b|c cs2Label=address cs2=holding 40 cs3Label=values \
             cs3=[1300] cn1Label=unit cn1=1 cn2Label=function cn2=6 cn3Label=exception cn3=3 \
             act=deny outcome=refused reason=line\\nbreak\u{fffd}[31m cnt=4",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(format(&record), expected);
    }

    #[test]
    fn a_write_to_a_station_is_a_line_of_cef() {
        let record = Record {
            seq: 9,
            client: Some(Arc::new(Party {
                mac: Some("00:1b:1b:01:02:03".into()),
                station: Some("plc-1".into()),
                ..Party::default()
            })),
            station: Some("drive-1".into()),
            service: Some("write".into()),
            record: Some(0x8001),
            slot: Some(crate::Slot {
                slot: 1,
                subslot: 1,
            }),
            decision: Some(Decision::Allow),
            rule: Some("parameters".into()),
            ..Record::new(Kind::StationSet)
        };
        let expected = format!(
            "CEF:0|Fieldlock|fieldlock|{}|station-set|station-set|4|externalId=9 \
             smac=00:1b:1b:01:02:03 suser=plc-1 dhost=drive-1 app=PROFINET cs1Label=rule \
             cs1=parameters cs2Label=record cs2=0x8001 of slot 1.0x1 cs3Label=service cs3=write \
             act=allow",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(format(&record), expected);
    }
}
