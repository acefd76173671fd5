//! Which records `fieldlock audit query` shows.

use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use fieldlock_audit::{Decision, Filter, Kind};
use fieldlock_modbus::FunctionCode;
use fieldlock_profinet::Service;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct FilterArgs {
    /// Only this kind (denied, write-intent, tunnel-up, ...); may be repeated.
    #[arg(long, value_parser = parse_kind)]
    kind: Vec<Kind>,
    /// Only this device.
    #[arg(long)]
    device: Option<String>,
    /// Only this PROFINET station: its name-of-station.
    #[arg(long)]
    station: Option<String>,
    /// Only this PROFINET service (write, set-name, connect, ...); may be repeated.
    #[arg(long, value_parser = parse_service)]
    service: Vec<Service>,
    /// Only this client: its name, address or identity, or a controller's Ethernet address.
    #[arg(long)]
    client: Option<String>,
    /// Only what was decided so.
    #[arg(long)]
    decision: Option<DecisionArg>,
    /// Only from this time on: 2026-09-21, 2026-09-21T14:00, both in UTC, 2026-09-21T14:00:00+02:00,
    /// or an age such as 90s, 10m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<SystemTime>,
    /// Only before this time; a date is its first moment.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    until: Option<SystemTime>,
    /// Only this unit, as the device hears it.
    #[arg(long)]
    unit: Option<u8>,
    /// Only this function: its number or name (6, write-single-register); may be repeated.
    #[arg(long, value_parser = parse_function)]
    function: Vec<FunctionCode>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DecisionArg {
    Allow,
    Deny,
}

impl FilterArgs {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            kinds: self.kind.clone(),
            device: self.device.clone(),
            station: self.station.clone(),
            services: self.service.iter().map(|service| service.name()).collect(),
            client: self.client.clone(),
            decision: self.decision.map(|decision| match decision {
                DecisionArg::Allow => Decision::Allow,
                DecisionArg::Deny => Decision::Deny,
            }),
            since: self.since,
            until: self.until,
            unit: self.unit,
            functions: self.function.iter().map(|function| function.0).collect(),
        }
    }
}

fn parse_function(text: &str) -> Result<FunctionCode, FilterError> {
    fieldlock_policy::parse_function(text).ok_or(FilterError::Function)
}

fn parse_service(text: &str) -> Result<Service, FilterError> {
    Service::from_name(text).ok_or(FilterError::Service)
}

fn parse_kind(text: &str) -> Result<Kind, FilterError> {
    match serde_json::from_value(text.into()) {
        Ok(Kind::Other) | Err(_) => Err(FilterError::Kind),
        Ok(kind) => Ok(kind),
    }
}

fn parse_since(text: &str) -> Result<SystemTime, FilterError> {
    // The log is in UTC, and so is what names no zone.
    let civil = |text: &str| {
        let time = text.parse::<DateTime>().ok()?;
        TimeZone::UTC.to_timestamp(time).ok()
    };
    let time = text.parse::<Timestamp>().ok().or_else(|| civil(text));
    if let Some(time) = time {
        return SystemTime::try_from(time).map_err(|_| FilterError::Time);
    }
    parse_age(text)
        .ok()
        .and_then(|age| SystemTime::now().checked_sub(age))
        .ok_or(FilterError::Time)
}

pub(super) fn parse_age(text: &str) -> Result<Duration, FilterError> {
    // A day is a day here; the log knows no summer time.
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<i64>().ok());
    let days = days.and_then(|days| days.checked_mul(24));
    let age = match days {
        Some(hours) => SignedDuration::try_from_hours(hours),
        None => text.parse::<SignedDuration>().ok(),
    };
    age.and_then(|age| Duration::try_from(age).ok())
        .ok_or(FilterError::Age)
}

/// Why an argument says nothing about records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("neither a number from 1 to 127 nor the name of a function")]
    Function,
    #[error("no such service; there are {}", Service::ALL.map(Service::name).join(", "))]
    Service,
    #[error(
        "no such kind; among them are denied, write-intent, write-outcome, tunnel-up, \
         tunnel-down, client-open, ar-up, ar-down, station-set, reload, start"
    )]
    Kind,
    #[error("neither a date (2026-09-21), a time (2026-09-21T14:00) nor an age (10m, 7d)")]
    Time,
    #[error("not a length of time like 90s, 10m or 2h")]
    Age,
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use fieldlock_audit::Record;

    use crate::cmd::audit::tests::DENIED;
    use crate::cmd::audit::{Args, Command};

    #[test]
    fn every_filter_has_to_match() {
        let record: Record = serde_json::from_str(DENIED).unwrap();
        for (arguments, matches) in [
            (&[][..], true),
            (&["--kind", "denied", "--kind", "start"], true),
            (&["--kind", "start"], false),
            (&["--device", "press-07", "--client", "10.1.1.20"], true),
            (&["--device", "press-07", "--client", "hmi-2"], false),
            (&["--decision", "deny"], true),
            (&["--decision", "allow"], false),
            (&["--since", "2026-09-21T14:13:20Z"], true),
            (&["--since", "2026-09-21T14:13:21Z"], false),
            (&["--since", "2026-09-21"], true),
            (&["--since", "2026-09-22"], false),
            (&["--since", "2026-09-21T14:13"], true),
            (&["--since", "2026-09-21 14:14"], false),
            (&["--since", "2026-09-21T16:14:00+02:00"], false),
            (&["--until", "2026-09-22"], true),
            (&["--since", "30000d"], true),
            (&["--until", "2026-09-21T14:13:21Z"], true),
            (&["--until", "2026-09-21T14:13:20Z"], false),
            (&["--function", "3", "--function", "6"], true),
            (
                &["--function", "write-single-register", "--unit", "1"],
                true,
            ),
            (&["--function", "3"], false),
            (&["--unit", "2"], false),
        ] {
            let line = ["audit", "query"].iter().chain(arguments);
            let Command::Query { filter, .. } = Args::try_parse_from(line).unwrap().command else {
                panic!("{arguments:?}");
            };
            assert_eq!(filter.filter().matches(&record), matches, "{arguments:?}");
        }
        let line = r#"{"v":1,"seq":1,"time":"2026-09-21T14:13:20Z","kind":"denied","station":"drive-1","service":"set-ip","client":{"mac":"00:1b:1b:01:02:03"}}"#;
        let record: Record = serde_json::from_str(line).unwrap();
        for (arguments, matches) in [
            (["--station", "drive-1"], true),
            (["--station", "drive-2"], false),
            (["--device", "drive-1"], false),
            (["--service", "set-ip"], true),
            (["--service", "write"], false),
            (["--client", "00:1b:1b:01:02:03"], true),
        ] {
            let line = ["audit", "query"].iter().chain(&arguments);
            let Command::Query { filter, .. } = Args::try_parse_from(line).unwrap().command else {
                panic!("{arguments:?}");
            };
            assert_eq!(filter.filter().matches(&record), matches, "{arguments:?}");
        }
        for wrong in [
            ["--service", "blink"],
            ["--kind", "nonsense"],
            ["--since", "yesterday"],
            ["--function", "128"],
        ] {
            let line = ["audit", "query"].iter().chain(&wrong);
            assert!(Args::try_parse_from(line).is_err(), "{wrong:?}");
        }
    }
}
