//! A record as a sentence.

use std::fmt::{self, Display};
use std::io;

use fieldlock_audit::{Decision, Outcome, Party, Record, steers};
use fieldlock_modbus::FunctionCode;
use jiff::Timestamp;

pub(super) fn print(
    out: &mut impl io::Write,
    line: &str,
    record: &Record,
    json: bool,
) -> io::Result<()> {
    if json {
        return writeln!(out, "{line}");
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
        field(f, "unit ", &record.unit)?;
        field(f, "(asked as unit ", &record.client_unit)?;
        if record.client_unit.is_some() {
            f.write_str(")")?;
        }
        field(f, "function ", &record.function.map(FunctionCode))?;
        field(f, "", &record.address)?;
        field(f, "reading ", &record.read_address)?;
        let values = record.values.as_ref();
        field(
            f,
            "= ",
            &values.and_then(|values| serde_json::to_string(values).ok()),
        )
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
    field(f, "role ", &client.role)
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
        Outcome::Exception => "refused by the device",
        Outcome::Sent => "sent",
        Outcome::Refused => "refused",
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
}
