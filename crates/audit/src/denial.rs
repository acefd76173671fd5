//! Repeats of one refusal become one record with a count.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::record::{Decision, Kind, Record};

/// Repeats within this time of a refusal are one record.
const WINDOW: Duration = Duration::from_secs(1);

/// Different refusals told apart at a time. A record is about 500 bytes, so the memory stays
/// near 1 MiB, and the disk takes at most this many records and one more each second.
const MAX_KEYS: usize = 1024;

/// Keeps a flood of refusals from filling the disk.
///
/// The first refusal goes to the log at once; its repeats (same kind, client, device, rule and
/// function; of PROFINET station and service) become one record a second whose `count` says how many they were. So the counts,
/// an absent one being 1, always add up to what was refused. Beyond [`MAX_KEYS`] different
/// refusals within a second the rest is one record without particulars.
///
/// Input: [`handle_denial`]. Output: the record it returns; [`poll_record`] until it gives
/// nothing, whenever [`poll_timeout`] is due. `now` never decreases.
///
/// [`handle_denial`]: DenialFilter::handle_denial
/// [`poll_record`]: DenialFilter::poll_record
/// [`poll_timeout`]: DenialFilter::poll_timeout
#[derive(Debug, Default)]
pub struct DenialFilter {
    windows: HashMap<Key, Window>,
    /// Each key once, by the end of its window; all windows are equally long.
    ends: VecDeque<(Instant, Key)>,
    overflow: Overflow,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    client: Option<Arc<str>>,
    address: Option<IpAddr>,
    device: Option<Arc<str>>,
    rule: Option<Arc<str>>,
    function: Option<u8>,
    mac: Option<Arc<str>>,
    station: Option<Arc<str>>,
    service: Option<Cow<'static, str>>,
}

#[derive(Debug, Default)]
struct Window {
    repeats: u64,
    /// The first repeat, which stands for all of them.
    record: Option<Box<Record>>,
}

#[derive(Debug, Default)]
struct Overflow {
    count: u64,
    end: Option<Instant>,
}

impl DenialFilter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a refusal; the record that comes back belongs into the log right away.
    pub fn handle_denial(&mut self, now: Instant, record: Record) -> Option<Record> {
        let key = Key::of(&record);
        if let Some(window) = self.windows.get_mut(&key) {
            window.repeats += 1;
            window.record.get_or_insert_with(|| Box::new(record));
            return None;
        }
        if self.windows.len() >= MAX_KEYS {
            self.overflow.count += 1;
            self.overflow.end.get_or_insert(now + WINDOW);
            return None;
        }
        self.windows.insert(key.clone(), Window::default());
        self.ends.push_back((now + WINDOW, key));
        Some(record)
    }

    /// A record whose second is over at `now`. Each call removes one; a key that goes on
    /// repeating keeps its place.
    pub fn poll_record(&mut self, now: Instant) -> Option<Record> {
        while let Some((end, key)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            let Some(window) = self.windows.get_mut(&key) else {
                continue;
            };
            let Some(record) = window.record.take() else {
                self.windows.remove(&key);
                continue;
            };
            let count = std::mem::take(&mut window.repeats);
            self.ends.push_back((end.max(now) + WINDOW, key));
            return Some(counted(*record, count));
        }
        if self.overflow.end? > now {
            return None;
        }
        std::mem::take(&mut self.overflow).record()
    }

    /// When [`poll_record`](Self::poll_record) has something to do, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = self.ends.front().map(|(end, _)| *end);
        first.into_iter().chain(self.overflow.end).min()
    }

    /// Everything still counted, for the end of the agent.
    pub fn drain(&mut self) -> impl Iterator<Item = Record> {
        self.ends.clear();
        let rest = std::mem::take(&mut self.overflow).record();
        self.windows
            .drain()
            .filter_map(|(_, window)| Some(counted(*window.record?, window.repeats)))
            .chain(rest)
    }
}

impl Overflow {
    fn record(self) -> Option<Record> {
        (self.count > 0).then(|| Record {
            decision: Some(Decision::Deny),
            reason: Some("more different refusals in a second than are told apart".into()),
            count: Some(self.count),
            ..Record::new(Kind::Denied)
        })
    }
}

impl Key {
    fn of(record: &Record) -> Self {
        let client = record.client.as_deref();
        Self {
            kind: record.kind,
            client: client
                .and_then(|client| client.identity.clone().or_else(|| client.name.clone())),
            address: client.and_then(|client| client.address),
            device: record.device.clone(),
            rule: record.rule.clone(),
            function: record.function,
            mac: client.and_then(|client| client.mac.clone()),
            station: record.station.clone(),
            service: record.service.clone(),
        }
    }
}

/// A repeat happened within the second that ends as the record is written, so the journal
/// stamps it anew.
fn counted(record: Record, count: u64) -> Record {
    Record {
        time: None,
        count: (count > 1).then_some(count),
        ..record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_passes_and_its_repeats_are_one_record() {
        let mut filter = DenialFilter::new();
        let start = Instant::now();
        assert!(filter.handle_denial(start, denied("hmi", 6)).is_some());
        for step in 1..100 {
            let now = start + Duration::from_millis(step);
            assert!(filter.handle_denial(now, denied("hmi", 6)).is_none());
        }
        assert!(
            filter
                .handle_denial(start, denied("historian", 6))
                .is_some()
        );
        assert!(filter.handle_denial(start, denied("hmi", 5)).is_some());

        let end = filter.poll_timeout().unwrap();
        assert_eq!(end, start + WINDOW);
        assert!(filter.poll_record(end - Duration::from_nanos(1)).is_none());
        let record = filter.poll_record(end).unwrap();
        assert_eq!((record.function, record.count), (Some(6), Some(99)));
        assert!(filter.poll_record(end).is_none());
    }

    #[test]
    fn a_lasting_flood_is_one_record_a_second_and_then_ends() {
        let mut filter = DenialFilter::new();
        let start = Instant::now();
        let (mut written, mut refused) = (0, 0);
        let mut records = 0;
        let mut keep = |record: Option<Record>| {
            let Some(record) = record else { return false };
            written += record.count.unwrap_or(1);
            records += 1;
            true
        };
        for step in 0..5000 {
            let now = start + Duration::from_millis(step);
            while keep(filter.poll_record(now)) {}
            refused += 1;
            keep(filter.handle_denial(now, denied("hmi", 6)));
        }
        let late = start + Duration::from_secs(7);
        while keep(filter.poll_record(late)) {}
        assert_eq!(written, refused);
        assert!(records <= 6, "{records}");

        assert!(filter.poll_record(late + WINDOW).is_none());
        assert_eq!(filter.poll_timeout(), None);
        assert!(filter.windows.is_empty());
    }

    #[test]
    fn many_different_refusals_stay_bounded_and_counted() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        let passed = (0..5000)
            .filter(|n| {
                filter
                    .handle_denial(now, denied(&format!("client-{n}"), 3))
                    .is_some()
            })
            .count();
        assert_eq!(passed, MAX_KEYS);
        assert_eq!(filter.windows.len(), MAX_KEYS);
        let rest = filter.poll_record(now + WINDOW).unwrap();
        assert_eq!(rest.count, Some(5000 - MAX_KEYS as u64));
        assert_eq!(rest.client, None);
        assert!(filter.windows.is_empty());
    }

    #[test]
    fn refusals_of_controllers_are_told_apart_by_address_station_and_service() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        let refused = |mac: &str, station: &str, service: &'static str| Record {
            client: Some(Arc::new(crate::Party {
                mac: Some(mac.into()),
                ..crate::Party::default()
            })),
            station: Some(station.into()),
            service: Some(service.into()),
            ..Record::new(Kind::Denied)
        };
        let one = || refused("00:1b:1b:01:02:03", "drive-1", "set-ip");
        assert!(filter.handle_denial(now, one()).is_some());
        assert!(filter.handle_denial(now, one()).is_none());
        for other in [
            refused("00:1b:1b:01:02:04", "drive-1", "set-ip"),
            refused("00:1b:1b:01:02:03", "drive-2", "set-ip"),
            refused("00:1b:1b:01:02:03", "drive-1", "set-name"),
        ] {
            assert!(filter.handle_denial(now, other).is_some());
        }
    }

    #[test]
    fn draining_returns_what_was_counted() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        for _ in 0..10 {
            filter.handle_denial(now, denied("hmi", 6));
        }
        let counts: Vec<_> = filter.drain().map(|record| record.count).collect();
        assert_eq!(counts, [Some(9)]);
        assert_eq!(filter.poll_timeout(), None);
    }

    fn denied(client: &str, function: u8) -> Record {
        Record {
            client: Some(Arc::new(crate::Party {
                name: Some(client.into()),
                ..crate::Party::default()
            })),
            device: Some("press-07".into()),
            function: Some(function),
            decision: Some(Decision::Deny),
            ..Record::new(Kind::Denied)
        }
    }
}
