//! A record as a sentence.

use std::fmt::{self, Display};
use std::io;

use fieldlock_audit::export::csv;
use fieldlock_audit::{Decision, Outcome, Party, Record, steers};
use fieldlock_modbus::FunctionCode;
use jiff::Timestamp;

/// How a record is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Sentence,
    Json,
    Csv,
}

pub(super) fn print(
    out: &mut impl io::Write,
    line: &str,
    record: &Record,
    form: Form,
) -> io::Result<()> {
    match form {
        Form::Json => return writeln!(out, "{line}"),
        // RFC 4180 ends lines so.
        Form::Csv => return write!(out, "{}\r\n", csv::format(record)),
        Form::Sentence => {}
    }
    // Names and reasons may stem from a peer: they must not steer the terminal.
    let text = Readable(record).to_string().replace(steers, "\u{fffd}");
    writeln!(out, "{}", text.trim_end())
}

/// A record on one line: when, what, who, which device, what it asked, what came of it.
struct Readable<'a>(&'a Record);

impl Display for Readable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let time = record.time.and_then(|time| Timestamp::try_from(time).ok());
        write!(
            f,
            "{:.3}  {:<14}",
            time.unwrap_or_default(),
            record.kind.name()
        )?;
        if let Some(clock) = record.clock.and_then(|time| Timestamp::try_from(time).ok()) {
            write!(f, " (the system clock said {clock:.0})")?;
        }
        if let Some(client) = &record.client {
            write_client(f, client)?;
        }
        self.write_request(f)?;
        self.write_end(f)
    }
}

impl Readable<'_> {
    fn write_request(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        field(f, "", &record.device)?;
        self.write_station(f)?;
        field(f, "unit ", &record.unit)?;
        field(f, "(asked as unit ", &record.client_unit)?;
        if record.client_unit.is_some() {
            f.write_str(")")?;
        }
        field(f, "function ", &record.function.map(FunctionCode))?;
        field(f, "", &record.address)?;
        for (index, range) in record
            .tried
            .as_deref()
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let label = if index == 0 { " tried" } else { "," };
            write!(f, "{label} {range}")?;
        }
        field(f, "reading ", &record.read_address)?;
        let values = record.values.as_ref();
        field(
            f,
            "= ",
            &values.and_then(|values| serde_json::to_string(values).ok()),
        )
    }

    fn write_station(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        field(f, "station ", &record.station)?;
        field(f, "", &record.service)?;
        let index = record.record.map(|index| format!("{index:#06x}"));
        field(f, "record ", &index)?;
        field(f, "slot ", &record.slot)?;
        field(f, "= ", &record.set)?;
        let Some(ar) = record.ar.as_deref() else {
            return Ok(());
        };
        field(f, "as ", &ar.kind)?;
        field(f, "cycle ", &ar.cycle_us.map(milliseconds))?;
        field(f, "watchdog ", &ar.watchdog_us.map(milliseconds))?;
        field(f, "fail-safe within ", &ar.fail_safe_us.map(milliseconds))?;
        let lasted = ar.lasted_ms.map(|ms| format!("{}s", ms / 1000));
        field(f, "after ", &lasted)?;
        write!(f, " AR {}", ar.uuid)
    }

    fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        field(f, "", &record.alarm)?;
        field(f, "", &record.decision.map(decision_name))?;
        field(
            f,
            "by rule ",
            &record.rule.as_ref().map(|rule| format!("{rule:?}")),
        )?;
        field(f, "-> ", &record.outcome.map(outcome_name))?;
        let answer = record.answer.as_ref();
        field(
            f,
            "",
            &answer.and_then(|answer| serde_json::to_string(answer).ok()),
        )?;
        field(
            f,
            "exception ",
            &record.exception.map(|code| format!("{code:#04x}")),
        )?;
        field(f, "quirk ", &record.quirk)?;
        if let Some(reason) = &record.reason {
            write!(f, ": {reason}")?;
        }
        field(f, "x", &record.count)?;
        field(f, "via ", &record.tunnel)?;
        field(f, "over ", &record.transport)
    }
}

fn field(f: &mut fmt::Formatter<'_>, label: &str, value: &Option<impl Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {label}{value}"),
        None => Ok(()),
    }
}

fn write_client(f: &mut fmt::Formatter<'_>, client: &Party) -> fmt::Result {
    field(f, "", &client.name)?;
    field(f, "", &client.address)?;
    if let Some(port) = client.port {
        write!(f, " port {port}")?;
    }
    field(f, "", &client.identity)?;
    field(f, "certificate ", &client.serial)?;
    field(f, "role ", &client.role)?;
    field(f, "", &client.mac)?;
    field(f, "called ", &client.station)
}

/// Microseconds, as cycles are told: `32ms`, `31.25ms`.
fn milliseconds(us: u32) -> String {
    format!("{}ms", f64::from(us) / 1000.0)
}

fn decision_name(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allowed",
        Decision::Deny => "denied",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::Shared => "answered by a shared read",
        Outcome::Exception => "refused by the device",
        Outcome::Sent => "sent",
        Outcome::Refused => "refused",
        Outcome::RepeatRefused => "repeat refused",
        Outcome::NotSent => "not sent",
        Outcome::Unknown => "unknown",
        Outcome::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::audit::tests::DENIED;

    #[test]
    fn a_denial_reads_as_a_sentence() {
        let record: Record = serde_json::from_str(DENIED).unwrap();
        assert_eq!(
            Readable(&record).to_string(),
            "2026-09-21T14:13:20.123Z  denied         hmi-1 10.1.1.20 press-07 unit 1 \
             function 6 (0x06) write-single-register holding 40 = [1300] denied \
             by rule \"setpoint\" -> refused exception 0x03: value 1300 above 1200 x4"
        );
    }

    #[test]
    fn records_of_stations_read_as_sentences() {
        let client = r#""client":{"name":"plc-1","mac":"00:1b:1b:01:02:03"},"station":"drive-1""#;
        let ar = r#""ar":{"uuid":"6b29fc40-ca47-1067-b31d-00dd010662da","type":"io-controller""#;
        for (kind, rest, expected) in [
            (
                "station-set",
                r#""service":"write","record":32769,"slot":"1.0x1","decision":"allow","rule":"parameters""#,
                "station-set    plc-1 00:1b:1b:01:02:03 station drive-1 write record 0x8001 \
                 slot 1.0x1 allowed by rule \"parameters\"",
            ),
            (
                "station-set",
                r#""service":"set-name","set":"drive-9""#,
                "station-set    plc-1 00:1b:1b:01:02:03 station drive-1 set-name = drive-9",
            ),
            (
                "ar-down",
                &format!(
                    r#"{ar},"cycle_us":31250,"watchdog_us":96000,"lasted_ms":61500}},"reason":"released by the controller""#
                ),
                "ar-down        plc-1 00:1b:1b:01:02:03 station drive-1 as io-controller \
                 cycle 31.25ms watchdog 96ms after 61s AR 6b29fc40-ca47-1067-b31d-00dd010662da: \
                 released by the controller",
            ),
        ] {
            let line = format!(
                r#"{{"v":1,"seq":1,"time":"2026-09-21T14:13:20Z","kind":"{kind}",{client},{rest}}}"#
            );
            let record: Record = serde_json::from_str(&line).unwrap();
            let expected = format!("2026-09-21T14:13:20.000Z  {expected}");
            assert_eq!(Readable(&record).to_string(), expected);
        }
    }
}
