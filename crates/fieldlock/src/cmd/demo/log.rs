//! The agents' audit logs, read as they grow.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldlock_audit::{Decision, Kind, Record};
use fieldlock_modbus::FunctionCode;

use super::trouble::{Trouble, wait_for};
use crate::cmd::audit;

/// A refusal may be held back for a second, to be counted with its repeats.
const PATIENCE: Duration = Duration::from_secs(5);

/// An audit log, and how much of it was looked at.
#[derive(Debug)]
pub(super) struct AuditLog {
    path: PathBuf,
    seen: u64,
}

impl AuditLog {
    pub(super) fn of(state: &Path) -> Self {
        Self {
            path: audit::log_in(state),
            seen: 0,
        }
    }

    /// The last record that was looked at.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// The next record of this kind; those before it count as seen.
    pub(super) async fn next(&mut self, kind: Kind) -> Result<Record, Trouble> {
        let what = format!("a record `{}` in {}", kind.name(), self.path.display());
        let record = wait_for(&what, PATIENCE, async || {
            let text = fs::read_to_string(&self.path).unwrap_or_default();
            let records = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let mut fresh = records.filter(|record: &Record| record.seq > self.seen);
            Ok(fresh.find(|record| record.kind == kind))
        });
        let record = record.await?;
        self.seen = record.seq;
        Ok(record)
    }
}

/// What was asked, and what came of it: two short lines for one record.
pub(super) fn describe(record: &Record) -> [String; 2] {
    let asked = match record.intent {
        Some(intent) => format!("#{} {} of #{intent}", record.seq, record.kind.name()),
        None => format!("#{} {}{}", record.seq, record.kind.name(), request(record)),
    };
    [asked, result(record)]
}

fn request(record: &Record) -> String {
    let client = record
        .client
        .as_ref()
        .and_then(|client| client.name.as_ref());
    let function = record.function.and_then(|code| FunctionCode(code).name());
    let values = record.values.as_ref();
    let values = values.and_then(|values| serde_json::to_string(values).ok());
    let parts = [
        client.map(|name| format!(" {name}")),
        record.device.as_ref().map(|name| format!(" {name}")),
        function.map(|name| format!(" {name}")),
        record.address.map(|address| format!(" {address}")),
        values.map(|values| format!(" = {values}")),
    ];
    parts.into_iter().flatten().collect()
}

fn result(record: &Record) -> String {
    let outcome = record
        .outcome
        .and_then(|outcome| serde_json::to_value(outcome).ok());
    let outcome = outcome.as_ref().and_then(|outcome| outcome.as_str());
    let parts = [
        record.decision.map(|decision| match decision {
            Decision::Allow => "allowed".to_owned(),
            Decision::Deny => "denied".to_owned(),
        }),
        record.rule.as_ref().map(|rule| format!("rule {rule:?}")),
        record.reason.as_ref().map(|reason| reason.to_string()),
        outcome.map(str::to_owned),
        record
            .exception
            .map(|code| format!("exception {code:#04x}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
