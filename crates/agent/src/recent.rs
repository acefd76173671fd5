//! The last events on record, kept in memory for those who ask over the control socket.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use fieldlock_audit::{Kind, Outcome, Party, Record, Ticket};
use fieldlock_status::{Event, Ring};
use jiff::Timestamp;

const EVENTS: usize = 4096;
const OCTETS: usize = 2 << 20;

/// The last events on record.
pub struct Recent(RefCell<Ring<Seen>>);

/// What is kept of a record: what it shares with others, and no values.
pub(crate) struct Seen {
    time: SystemTime,
    kind: Kind,
    tunnel: Option<Arc<str>>,
    client: Option<Arc<Party>>,
    device: Option<Arc<str>>,
    station: Option<Arc<str>>,
    unit: Option<u8>,
    function: Option<u8>,
    outcome: Option<Outcome>,
    rule: Option<Arc<str>>,
    reason: Option<Cow<'static, str>>,
    alarm: Option<Cow<'static, str>>,
    count: Option<u64>,
    seq: Ticket,
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self(RefCell::new(Ring::new(EVENTS, OCTETS)))
    }
}

impl Recent {
    /// `seq`: of the record that was taken.
    pub(crate) fn note(&self, seen: Seen, seq: Ticket) {
        let octets = seen.octets();
        self.0.borrow_mut().push(Seen { seq, ..seen }, octets);
    }

    /// The latest first. `kind`: those of this kind alone.
    pub fn latest(&self, kind: Option<Kind>, most: usize) -> Vec<Event> {
        let ring = self.0.borrow();
        let wanted = ring
            .latest()
            .filter(|seen| kind.is_none_or(|kind| seen.kind == kind));
        wanted.take(most).map(Seen::event).collect()
    }

    /// How many there were since the start.
    pub fn count(&self) -> u64 {
        self.0.borrow().count()
    }

    /// The last of those after the first `count`, at most so many, in their order; and how many of them
    /// are not among these.
    pub fn since(&self, count: u64, most: usize) -> (Vec<Event>, u64) {
        let ring = self.0.borrow();
        let new = ring.count().saturating_sub(count);
        let most = usize::try_from(new).unwrap_or(usize::MAX).min(most);
        let mut events: Vec<_> = ring.latest().take(most).map(Seen::event).collect();
        events.reverse();
        let left_out = new - events.len() as u64;
        (events, left_out)
    }
}

impl Seen {
    pub(crate) fn of(record: &Record, time: SystemTime) -> Self {
        Self {
            time,
            kind: record.kind,
            tunnel: record.tunnel.clone(),
            client: record.client.clone(),
            device: record.device.clone(),
            station: record.station.clone(),
            unit: record.unit,
            function: record.function,
            outcome: record.outcome,
            rule: record.rule.clone(),
            reason: record.reason.clone(),
            alarm: record.alarm.clone(),
            count: record.count,
            seq: 0,
        }
    }

    /// What it holds in memory, as if nothing of it were shared.
    fn octets(&self) -> usize {
        let texts = [&self.tunnel, &self.device, &self.station, &self.rule];
        let texts = texts.into_iter().flatten().map(|text| text.len());
        let words = [&self.reason, &self.alarm].into_iter().flatten();
        let words = words.map(|word| word.len());
        let party = self.client.as_ref().map_or(0, |client| party(client));
        size_of::<Self>() + texts.chain(words).sum::<usize>() + party
    }

    fn event(&self) -> Event {
        let time = Timestamp::try_from(self.time).unwrap_or_default();
        let shared = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let owned = |text: &Option<Cow<'static, str>>| text.as_deref().map(str::to_owned);
        Event {
            seq: self.seq,
            time: format!("{time:.6}"),
            kind: self.kind.name().into(),
            tunnel: shared(&self.tunnel),
            client: self.client.as_deref().and_then(name),
            device: shared(&self.device),
            station: shared(&self.station),
            unit: self.unit,
            function: self.function,
            outcome: self.outcome.map(|outcome| outcome.name().into()),
            rule: shared(&self.rule),
            reason: owned(&self.reason),
            alarm: owned(&self.alarm),
            count: self.count,
        }
    }
}

fn party(client: &Party) -> usize {
    let Party {
        name,
        identity,
        serial,
        role,
        mac,
        station,
        address: _,
        port: _,
    } = client;
    let texts = [name, identity, serial, role, mac, station];
    let texts = texts.into_iter().flatten().map(|text| text.len());
    size_of::<Party>() + texts.sum::<usize>()
}

/// What is best known of it.
fn name(client: &Party) -> Option<String> {
    let known = [&client.name, &client.identity, &client.station, &client.mac];
    let known = known.into_iter().flatten().next();
    let address = || client.address.map(|address| address.to_string());
    known.map(|name| name.to_string()).or_else(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(recent: &Recent, kind: Kind, reason: &str) {
        let record = Record {
            reason: Some(reason.to_owned().into()),
            ..Record::new(kind)
        };
        let seq = recent.count() + 1;
        recent.note(Seen::of(&record, SystemTime::UNIX_EPOCH), seq);
    }

    #[test]
    fn the_latest_come_first_and_those_since_in_their_order() {
        let recent = Recent::default();
        for number in 1..=10 {
            let kind = match number % 2 {
                0 => Kind::Denied,
                _ => Kind::Lost,
            };
            noted(&recent, kind, &number.to_string());
        }
        let seqs = |events: &[Event]| -> Vec<u64> { events.iter().map(|e| e.seq).collect() };
        assert_eq!(seqs(&recent.latest(None, 3)), [10, 9, 8]);
        let denied = recent.latest(Some(Kind::Denied), 2);
        assert_eq!(seqs(&denied), [10, 8]);
        assert_eq!(denied[0].kind, "denied");
        assert_eq!(denied[0].time, "1970-01-01T00:00:00.000000Z");
        let (events, left_out) = recent.since(4, 3);
        assert_eq!((seqs(&events), left_out), (vec![8, 9, 10], 3));
        assert_eq!(recent.since(10, 3), (Vec::new(), 0));
    }

    #[test]
    fn what_strangers_say_does_not_grow_it() {
        let recent = Recent::default();
        let long = "x".repeat(100_000);
        (0..100).for_each(|_| noted(&recent, Kind::Denied, &long));
        let kept = recent.latest(None, usize::MAX).len();
        assert!((1..=OCTETS / long.len()).contains(&kept), "{kept}");
        let (events, left_out) = recent.since(0, usize::MAX);
        assert_eq!(events.len() as u64 + left_out, 100);
        (0..5000).for_each(|_| noted(&recent, Kind::Denied, ""));
        assert_eq!(recent.latest(None, usize::MAX).len(), EVENTS);
    }
}
