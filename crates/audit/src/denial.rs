//! What repeats becomes one record with a count: refusals, and connections of strangers.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::class::Class;
use crate::content::Address;
use crate::record::{Decision, Kind, Party, Record};

/// Repeats within this time are one record; longer where they go on, after so many such records.
const WINDOWS: [(u32, Duration); 3] = [
    (0, Duration::from_secs(1)),
    (10, Duration::from_secs(10)),
    (16, Duration::from_secs(60)),
];

/// After so much time without a repeat the next counts as the first again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// Different things told apart at a time, of each [`Class`]. A record is about 500 bytes, so the
/// memory stays near 2 MiB.
const MAX_KEYS: usize = 1024;

/// Of one party, so that nobody can hide another's by many of his own; beyond it there is one
/// more for each kind of record.
const MAX_KEYS_OF_ONE: usize = 64;

/// Ranges of addresses that one record names.
const MAX_RANGES: usize = 16;

/// Keeps a flood from filling the disk.
///
/// The first of a kind goes to the log at once; its repeats become one record whose `count` says
/// how many they were, a second later and at longer intervals while it goes on. So the counts, an
/// absent one being 1, always add up to what happened. What is joined is alike in kind, party,
/// device, unit, rule, function and answer; of refused handshakes in their reason; of PROFINET in
/// station and service. The ranges that were addressed are kept.
///
/// A party that causes more different refusals than are told apart gets a record for the rest of
/// them; of all beyond [`MAX_KEYS`] there is one record without particulars for each [`Class`].
/// Strangers share no room with others.
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
    /// When each window ends; the number tells those that end at once apart.
    ends: BTreeMap<(Instant, u64), Key>,
    next: u64,
    /// How many keys each party has.
    parties: HashMap<(Class, Who), usize>,
    /// How many each class has.
    classes: HashMap<Class, usize>,
    overflow: BTreeMap<Instant, Overflow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    class: Class,
    who: Who,
    kind: Kind,
    /// None stands for the rest of what this party does.
    what: Option<Box<What>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    /// A certificate, from whatever address.
    Serial(Arc<str>),
    Named {
        name: Arc<str>,
        address: Option<IpAddr>,
    },
    Controller(Arc<str>),
    /// Of IPv6 its /64, which is what one party has.
    Address(IpAddr),
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct What {
    tunnel: Option<Arc<str>>,
    transport: Option<Cow<'static, str>>,
    device: Option<Arc<str>>,
    unit: Option<u8>,
    rule: Option<Arc<str>>,
    function: Option<u8>,
    exception: Option<u8>,
    station: Option<Arc<str>>,
    service: Option<Cow<'static, str>>,
    reason: Option<Cow<'static, str>>,
    repeats: Option<u64>,
}

#[derive(Debug)]
struct Window {
    end: (Instant, u64),
    /// The last repeat, or the first of all.
    last: Instant,
    /// Records that it has led to.
    records: u32,
    repeats: u64,
    /// The first repeat, which stands for all of them.
    record: Option<Box<Record>>,
    tried: Vec<Address>,
}

#[derive(Debug)]
struct Overflow {
    class: Class,
    count: u64,
}

impl DenialFilter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a refusal, or a stranger's connection; the record that comes back belongs into the
    /// log right away.
    pub fn handle_denial(&mut self, now: Instant, record: Record) -> Option<Record> {
        let mut key = Key::of(&record);
        if self.windows.contains_key(&key) {
            self.repeat(now, key, record);
            return None;
        }
        let of_class = self.classes.get(&key.class).copied().unwrap_or(0);
        if of_class >= MAX_KEYS {
            self.overflow(now, key.class);
            return None;
        }
        let party = (key.class, key.who.clone());
        let of_party = self.parties.get(&party).copied().unwrap_or(0);
        if of_party >= MAX_KEYS_OF_ONE {
            key.what = None;
            if self.windows.contains_key(&key) {
                self.repeat(now, key, record);
                return None;
            }
        }
        *self.classes.entry(key.class).or_default() += 1;
        *self.parties.entry(party).or_default() += 1;
        let window = Window {
            end: self.plan(now + window_after(0), &key),
            last: now,
            records: 0,
            repeats: 0,
            record: None,
            tried: Vec::new(),
        };
        self.windows.insert(key, window);
        Some(record)
    }

    fn repeat(&mut self, now: Instant, key: Key, record: Record) {
        let Some(window) = self.windows.get_mut(&key) else {
            return;
        };
        window.last = now;
        window.repeats += 1;
        if let Some(address) = record.address {
            keep_range(&mut window.tried, address);
        }
        if let Some(kept) = &mut window.record {
            keep_common(kept, &record);
            return;
        }
        window.record = Some(Box::new(record));
        // A quiet window ends when it is forgotten; this one when its record is due.
        let (end, due) = (window.end, now + window_after(window.records));
        if end.0 > due {
            self.ends.remove(&end);
            let planned = self.plan(due, &key);
            if let Some(window) = self.windows.get_mut(&key) {
                window.end = planned;
            }
        }
    }

    fn plan(&mut self, end: Instant, key: &Key) -> (Instant, u64) {
        let end = (end, self.next);
        self.next += 1;
        self.ends.insert(end, key.clone());
        end
    }

    fn overflow(&mut self, now: Instant, class: Class) {
        if let Some(open) = self.overflow.values_mut().find(|open| open.class == class) {
            open.count += 1;
            return;
        }
        let mut end = now + window_after(0);
        while self.overflow.contains_key(&end) {
            end += Duration::from_nanos(1);
        }
        self.overflow.insert(end, Overflow { class, count: 1 });
    }

    /// A record whose time is over at `now`. Each call removes one; what goes on repeating keeps
    /// its place.
    pub fn poll_record(&mut self, now: Instant) -> Option<Record> {
        while let Some(entry) = self.ends.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            let Some(window) = self.windows.get_mut(&key) else {
                continue;
            };
            let joined = window.take();
            let forgotten = window.last + FORGOTTEN_AFTER;
            let next = match joined {
                Some(_) => now + window_after(window.records),
                None if forgotten > now => forgotten,
                None => {
                    self.forget(&key);
                    continue;
                }
            };
            let end = self.plan(next, &key);
            if let Some(window) = self.windows.get_mut(&key) {
                window.end = end;
            }
            if joined.is_some() {
                return joined;
            }
        }
        let due = self.overflow.first_entry()?;
        (*due.key() <= now).then(|| due.remove().into_record())
    }

    fn forget(&mut self, key: &Key) {
        self.windows.remove(key);
        let party = (key.class, key.who.clone());
        take_one(&mut self.parties, &party);
        take_one(&mut self.classes, &key.class);
    }

    /// When [`poll_record`](Self::poll_record) has something to do, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let window = self.ends.first_key_value().map(|((end, _), _)| *end);
        let overflow = self.overflow.first_key_value().map(|(end, _)| *end);
        window.into_iter().chain(overflow).min()
    }

    /// Everything still counted, for the end of the agent.
    pub fn drain(&mut self) -> impl Iterator<Item = Record> {
        let this = std::mem::take(self);
        let joined = this.windows.into_values().filter_map(|mut w| w.take());
        let rest = this.overflow.into_values().map(Overflow::into_record);
        joined.chain(rest)
    }
}

fn take_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn window_after(records: u32) -> Duration {
    let fits = WINDOWS.iter().rev().find(|(from, _)| records >= *from);
    fits.map_or(WINDOWS[0].1, |(_, window)| *window)
}

impl Window {
    /// The record for its repeats, if there were any.
    ///
    /// The last of them happened within the time that ends as the record is written, so the
    /// journal stamps it anew.
    fn take(&mut self) -> Option<Record> {
        let mut record = *self.record.take()?;
        self.records += 1;
        let count = std::mem::take(&mut self.repeats);
        let tried = std::mem::take(&mut self.tried);
        record.time = None;
        record.count = (count > 1).then_some(count);
        if tried.len() > 1 || tried.first().copied() != record.address {
            record.tried = Some(tried.into());
            record.address = None;
        }
        Some(record)
    }
}

/// Leaves in `kept` what it has in common with another record that it stands for as well.
fn keep_common(kept: &mut Record, other: &Record) {
    if kept.address != other.address {
        kept.address = None;
    }
    if kept.quantity != other.quantity {
        kept.quantity = None;
    }
    if kept.read_address != other.read_address {
        kept.read_address = None;
    }
    if kept.values != other.values {
        kept.values = None;
    }
    if kept.reason != other.reason
        && let Some(reason) = kept.reason.take()
    {
        kept.reason = Some(match reason.ends_with(AND_OTHERS) {
            true => reason,
            false => Cow::Owned(format!("{reason}{AND_OTHERS}")),
        });
    }
    if kept.device != other.device {
        kept.device = None;
    }
    if kept.unit != other.unit {
        kept.unit = None;
    }
    if kept.function != other.function {
        kept.function = None;
    }
    if kept.rule != other.rule {
        kept.rule = None;
    }
    if (kept.record, kept.slot) != (other.record, other.slot) {
        (kept.record, kept.slot) = (None, None);
    }
    (kept.transaction, kept.request) = (None, None);
    if kept.repeats != other.repeats {
        kept.repeats = None;
    }
    if kept.client != other.client
        && let (Some(client), Some(other)) = (&kept.client, &other.client)
    {
        let same = |one: Option<IpAddr>| one.filter(|_| client.address == other.address);
        kept.client = Some(Arc::new(Party {
            address: same(client.address),
            port: None,
            ..Party::clone(client)
        }));
    }
}

const AND_OTHERS: &str = ", and other reasons";

/// Adds `new` to ranges that are sorted and apart.
fn keep_range(tried: &mut Vec<Address>, new: Address) {
    let order = |one: &Address| (one.table as u8, one.first, one.last);
    let at = tried.partition_point(|one| order(one) < order(&new));
    tried.insert(at, new);
    let mut index = at.saturating_sub(1);
    while index + 1 < tried.len() && index <= at + 1 {
        let (one, next) = (tried[index], tried[index + 1]);
        if one.table == next.table && u32::from(next.first) <= u32::from(one.last) + 1 {
            tried[index].last = one.last.max(next.last);
            tried.remove(index + 1);
        } else {
            index += 1;
        }
    }
    if tried.len() > MAX_RANGES {
        let gap = |at: &usize| {
            let (one, next) = (tried[*at], tried[at + 1]);
            match one.table == next.table {
                true => u32::from(next.first) - u32::from(one.last),
                false => u32::MAX,
            }
        };
        if let Some(at) = (0..tried.len() - 1).min_by_key(gap) {
            tried[at].last = tried[at + 1].last;
            tried.remove(at + 1);
        }
    }
}

impl Overflow {
    fn into_record(self) -> Record {
        Record {
            decision: Some(Decision::Deny),
            reason: Some(
                match self.class {
                    Class::Plant => "more different refusals in a second than are told apart",
                    Class::Identified => {
                        "more different refusals of known identities in a second than are told apart"
                    }
                    Class::Stranger => {
                        "more strangers, or more that they did, in a second than are told apart"
                    }
                }
                .into(),
            ),
            count: Some(self.count),
            ..Record::new(Kind::Denied)
        }
    }
}

impl Key {
    fn of(record: &Record) -> Self {
        let is_handshake = matches!(record.kind, Kind::TunnelRefused | Kind::ClientRefused);
        let is_framing =
            record.kind == Kind::Denied && record.function.is_none() && record.station.is_none();
        // What a reason says of one request (a value, an address) would tell each from the next.
        let is_told_by_reason = is_handshake || is_framing;
        let what = What {
            tunnel: record.tunnel.clone(),
            transport: record.transport.clone(),
            device: record.device.clone(),
            unit: record.unit.or(record.client_unit),
            rule: record.rule.clone(),
            function: record.function,
            exception: record.exception,
            station: record.station.clone(),
            service: record.service.clone(),
            reason: record.reason.clone().filter(|_| is_told_by_reason),
            repeats: record.repeats,
        };
        Self {
            class: Class::of(record),
            who: record.client.as_deref().map_or(Who::Unknown, Who::of),
            kind: record.kind,
            what: Some(Box::new(what)),
        }
    }
}

impl Who {
    fn of(client: &Party) -> Self {
        if let Some(serial) = &client.serial {
            return Self::Serial(serial.clone());
        }
        if let Some(mac) = &client.mac {
            return Self::Controller(mac.clone());
        }
        match (
            client.identity.as_ref().or(client.name.as_ref()),
            client.address,
        ) {
            (Some(name), address) => Self::Named {
                name: name.clone(),
                address,
            },
            (None, Some(IpAddr::V6(address))) => {
                let network = u128::from(address) >> 64 << 64;
                Self::Address(Ipv6Addr::from(network).into())
            }
            (None, Some(address)) => Self::Address(address),
            (None, None) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Table;

    const SECOND: Duration = Duration::from_secs(1);

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
        assert_eq!(end, start + SECOND);
        assert!(filter.poll_record(end - Duration::from_nanos(1)).is_none());
        let record = filter.poll_record(end).unwrap();
        assert_eq!((record.function, record.count), (Some(6), Some(99)));
        assert!(filter.poll_record(end).is_none());
    }

    #[test]
    fn a_lasting_flood_is_a_record_a_minute_and_then_forgotten() {
        let mut filter = DenialFilter::new();
        let start = Instant::now();
        let (mut written, mut refused, mut records) = (0, 0, 0);
        let mut keep = |record: Option<Record>| {
            let Some(record) = record else { return false };
            written += record.count.unwrap_or(1);
            records += 1;
            true
        };
        for step in 0..36_000 {
            let now = start + step * Duration::from_millis(100);
            while keep(filter.poll_record(now)) {}
            refused += 1;
            keep(filter.handle_denial(now, denied("hmi", 6)));
        }
        let late = start + Duration::from_secs(3_700);
        while keep(filter.poll_record(late)) {}
        assert_eq!(written, refused);
        assert!(records <= 80, "{records} in an hour");

        assert!(filter.poll_record(late + 60 * SECOND).is_none());
        assert_eq!(filter.poll_timeout(), None);
        assert!(filter.windows.is_empty() && filter.parties.is_empty());
        assert!(filter.classes.is_empty());
    }

    #[test]
    fn a_slow_poller_that_is_refused_is_joined_as_well() {
        let mut filter = DenialFilter::new();
        let start = Instant::now();
        let mut records = 0;
        for second in 0..3_600 {
            let now = start + second * SECOND;
            records += std::iter::from_fn(|| filter.poll_record(now)).count();
            records += usize::from(filter.handle_denial(now, denied("hmi", 6)).is_some());
        }
        assert!(records < 100, "{records}");
    }

    #[test]
    fn a_joined_record_names_the_ranges_that_were_tried() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        let holding = |first, last| Address {
            table: Table::Holding,
            first,
            last,
        };
        let write = |at: u16| Record {
            address: Some(holding(at, at)),
            quantity: Some(1),
            values: Some(crate::Values::Register(at)),
            ..denied("hmi", 6)
        };
        filter.handle_denial(now, write(100));
        for n in 0..600 {
            filter.handle_denial(now, write(if n % 100 == 7 { 9000 } else { 100 + n % 50 }));
        }
        let record = filter.poll_record(now + SECOND).unwrap();
        assert_eq!(record.count, Some(600));
        let tried = record.tried.unwrap();
        assert_eq!(*tried, [holding(100, 149), holding(9000, 9000)]);
        assert_eq!((record.address, record.values), (None, None));
        assert_eq!(record.quantity, Some(1));

        // All over the table: bounded, and nothing that was tried is outside.
        for n in 0..1000_u16 {
            filter.handle_denial(now + SECOND, write(n * 64));
        }
        let tried = filter.poll_record(now + 3 * SECOND).unwrap().tried.unwrap();
        assert!(tried.len() <= MAX_RANGES, "{tried:?}");
        for n in 0..1000_u16 {
            let inside = |range: &Address| (range.first..=range.last).contains(&(n * 64));
            assert!(tried.iter().any(inside), "{n}: {tried:?}");
        }
    }

    #[test]
    fn each_reason_of_a_refused_handshake_is_on_record() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        let mut refused = |serial: Option<&str>, reason: &'static str| {
            let client = Party {
                address: Some([10, 9, 8, 7].into()),
                serial: serial.map(Into::into),
                ..Party::default()
            };
            let record = Record {
                client: Some(Arc::new(client)),
                reason: Some(reason.into()),
                ..Record::new(Kind::TunnelRefused)
            };
            filter.handle_denial(now, record).is_some()
        };
        assert!(refused(None, "shows no certificate"));
        assert!(refused(Some("4f"), "its certificate is revoked"));
        assert!(refused(Some("50"), "its certificate is revoked"));
        for _ in 0..1000 {
            assert!(!refused(None, "shows no certificate"));
            assert!(!refused(Some("4f"), "its certificate is revoked"));
        }
    }

    #[test]
    fn strangers_from_many_addresses_stay_bounded_and_hide_nobody_else() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        let open = |n: u32| Record {
            client: Some(Arc::new(Party {
                address: Some(std::net::Ipv4Addr::from(0x0a00_0000 + n).into()),
                ..Party::default()
            })),
            ..Record::new(Kind::ClientOpen)
        };
        let mut passed = 0;
        for n in 0..5_000 {
            passed += usize::from(filter.handle_denial(now, open(n)).is_some());
        }
        assert_eq!((passed, filter.windows.len()), (MAX_KEYS, MAX_KEYS));
        assert!(filter.handle_denial(now, denied("hmi", 6)).is_some());
        let rest = filter.poll_record(now + SECOND).unwrap();
        assert_eq!(rest.count, Some(5_000 - MAX_KEYS as u64));
        assert_eq!(rest.client, None);
        assert!(filter.poll_record(now + 2 * FORGOTTEN_AFTER).is_none());
        assert!(filter.windows.is_empty());
    }

    #[test]
    fn one_party_with_many_different_refusals_gets_a_record_for_the_rest() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        let to_unit = |unit: u8| Record {
            unit: Some(unit),
            ..denied("hmi", 6)
        };
        let mut passed = 0;
        for unit in 0..=255 {
            passed += usize::from(filter.handle_denial(now, to_unit(unit)).is_some());
        }
        assert_eq!(passed, MAX_KEYS_OF_ONE + 1);
        assert!(filter.handle_denial(now, denied("historian", 6)).is_some());
        let rest = filter.poll_record(now + SECOND).unwrap();
        assert_eq!(rest.count, Some(255 - MAX_KEYS_OF_ONE as u64));
        let client = rest.client.as_deref().unwrap();
        assert_eq!((client.name.as_deref(), rest.unit), (Some("hmi"), None));
    }

    #[test]
    fn addresses_of_one_network_are_one_party() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        let passed = (1..1000_u16).filter(|n| {
            let client = Party {
                address: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, *n).into()),
                ..Party::default()
            };
            let record = Record {
                client: Some(Arc::new(client)),
                ..Record::new(Kind::ClientOpen)
            };
            filter.handle_denial(now, record).is_some()
        });
        assert_eq!(passed.count(), 1);
    }

    #[test]
    fn refusals_of_controllers_are_told_apart_by_address_station_and_service() {
        let mut filter = DenialFilter::new();
        let now = Instant::now();
        let refused = |mac: &str, station: &str, service: &'static str| Record {
            client: Some(Arc::new(Party {
                mac: Some(mac.into()),
                ..Party::default()
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
            client: Some(Arc::new(Party {
                name: Some(client.into()),
                ..Party::default()
            })),
            device: Some("press-07".into()),
            function: Some(function),
            decision: Some(Decision::Deny),
            ..Record::new(Kind::Denied)
        }
    }
}
