//! Which records of a log are asked for.

use std::time::SystemTime;

use crate::record::{Decision, Kind, Party, Record};

/// All that is given has to match; an empty list or `None` asks for nothing.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub kinds: Vec<Kind>,
    pub device: Option<String>,
    pub station: Option<String>,
    pub services: Vec<&'static str>,
    /// Its name, address or identity, or a controller's Ethernet address or name-of-station.
    pub client: Option<String>,
    pub decision: Option<Decision>,
    /// From this time on.
    pub since: Option<SystemTime>,
    /// Before this time.
    pub until: Option<SystemTime>,
    /// As the device hears it.
    pub unit: Option<u8>,
    pub functions: Vec<u8>,
}

impl Filter {
    pub fn matches(&self, record: &Record) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.contains(&record.kind);
        let device = self.device.is_none() || self.device.as_deref() == record.device.as_deref();
        let station =
            self.station.is_none() || self.station.as_deref() == record.station.as_deref();
        let named = |service: &&str| record.service.as_deref() == Some(*service);
        let service = self.services.is_empty() || self.services.iter().any(named);
        let client = self.client.as_deref().is_none_or(|wanted| {
            let client = record.client.as_deref();
            client.is_some_and(|client| is_called(client, wanted))
        });
        let decision = self.decision.is_none() || self.decision == record.decision;
        let since = self.since.is_none() || record.time >= self.since;
        let until = self.until.is_none() || record.time < self.until;
        let unit = self.unit.is_none() || self.unit == record.unit;
        let function = self.functions.is_empty()
            || record
                .function
                .is_some_and(|code| self.functions.contains(&code));
        let place = device && station && unit;
        kind && place && service && client && decision && since && until && function
    }
}

fn is_called(client: &Party, wanted: &str) -> bool {
    client.name.as_deref() == Some(wanted)
        || client.identity.as_deref() == Some(wanted)
        || client.mac.as_deref() == Some(wanted)
        || client.station.as_deref() == Some(wanted)
        || client
            .address
            .is_some_and(|address| address.to_string() == wanted)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DENIED: &str = concat!(
        r#"{"v":1,"seq":9,"time":"2026-09-21T14:13:20Z","kind":"denied","#,
        r#""client":{"name":"hmi-1","address":"10.1.1.20","identity":"fieldlock://plant1/client/hmi-1"},"#,
        r#""device":"press-07","unit":1,"function":6,"decision":"deny"}"#
    );
    const SET: &str = concat!(
        r#"{"v":1,"seq":1,"kind":"station-set","station":"drive-1","service":"set-ip","#,
        r#""client":{"mac":"00:1b:1b:01:02:03","station":"plc-1"}}"#
    );

    fn record(line: &str) -> Record {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_filter_that_asks_for_nothing_matches_all() {
        for line in [DENIED, SET] {
            assert!(Filter::default().matches(&record(line)), "{line}");
        }
    }

    #[test]
    fn one_that_does_not_match_is_enough() {
        let record = record(DENIED);
        let matching = Filter {
            kinds: vec![Kind::Start, Kind::Denied],
            device: Some("press-07".to_owned()),
            client: Some("10.1.1.20".to_owned()),
            decision: Some(Decision::Deny),
            unit: Some(1),
            functions: vec![3, 6],
            ..Filter::default()
        };
        assert!(matching.matches(&record));
        type Change = fn(&mut Filter);
        let changes: [Change; 7] = [
            |filter| filter.kinds = vec![Kind::Start],
            |filter| filter.device = Some("press-08".to_owned()),
            |filter| filter.client = Some("10.1.1.2".to_owned()),
            |filter| filter.decision = Some(Decision::Allow),
            |filter| filter.unit = Some(2),
            |filter| filter.functions = vec![16],
            |filter| filter.services = vec!["write"],
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut filter = matching.clone();
            change(&mut filter);
            assert!(!filter.matches(&record), "change {index}");
        }
    }

    #[test]
    fn since_is_inclusive_and_until_is_not() {
        let record = record(DENIED);
        let time = record.time.unwrap();
        let second = Duration::from_secs(1);
        for (since, until, matches) in [
            (Some(time), None, true),
            (Some(time + second), None, false),
            (None, Some(time), false),
            (None, Some(time + second), true),
        ] {
            let filter = Filter {
                since,
                until,
                ..Filter::default()
            };
            assert_eq!(filter.matches(&record), matches, "{filter:?}");
        }
    }

    #[test]
    fn a_client_is_found_by_whatever_it_is_called() {
        for (line, names) in [
            (
                DENIED,
                ["hmi-1", "10.1.1.20", "fieldlock://plant1/client/hmi-1"].as_slice(),
            ),
            (SET, &["00:1b:1b:01:02:03", "plc-1"]),
        ] {
            for name in names {
                let filter = Filter {
                    client: Some((*name).to_owned()),
                    ..Filter::default()
                };
                assert!(filter.matches(&record(line)), "{name}");
            }
        }
    }

    #[test]
    fn a_station_is_no_device() {
        let record = record(SET);
        for (device, station, matches) in [
            (Some("drive-1"), None, false),
            (None, Some("drive-1"), true),
            (None, Some("drive-2"), false),
        ] {
            let filter = Filter {
                device: device.map(str::to_owned),
                station: station.map(str::to_owned),
                services: vec!["write", "set-ip"],
                ..Filter::default()
            };
            assert_eq!(filter.matches(&record), matches, "{filter:?}");
        }
    }
}
