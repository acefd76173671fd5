//! What the keys of a rule for stations list: services, kinds of AR, records, slots.

use std::fmt;

use fieldlock_profinet::{ArType, Service};

use crate::model::interval::Interval;

/// A set of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Services(u16);

/// Groups, as the key `service` has them.
const IO: [Service; 6] = [
    Service::Identify,
    Service::Get,
    Service::Hello,
    Service::Connect,
    Service::Cyclic,
    Service::Alarm,
];
const RECORDS: [Service; 2] = [Service::Read, Service::Write];

impl Services {
    pub(crate) fn of(services: impl IntoIterator<Item = Service>) -> Self {
        let mut set = Self::default();
        services.into_iter().for_each(|service| set.insert(service));
        set
    }

    /// `"any"` of an allow: what sets nothing on the station itself.
    pub(crate) fn without_sets() -> Self {
        let all = Service::ALL.into_iter();
        Self::of(all.filter(|service| !service.is_set()))
    }

    /// `"any"` of a deny.
    pub(crate) fn all() -> Self {
        Self::of(Service::ALL)
    }

    /// What a word of the key `service` means, but for `"any"`.
    pub(crate) fn word(word: &str) -> Option<Self> {
        match word {
            "io" => Some(Self::of(IO)),
            "records" => Some(Self::of(RECORDS)),
            _ => Service::from_name(word).map(|service| Self::of([service])),
        }
    }

    fn bit(service: Service) -> u16 {
        let place = Service::ALL.into_iter().position(|known| known == service);
        place.map_or(0, |place| 1 << place)
    }

    pub(crate) fn insert(&mut self, service: Service) {
        self.0 |= Self::bit(service);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn contains(self, service: Service) -> bool {
        self.0 & Self::bit(service) != 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Service> {
        let all = Service::ALL.into_iter();
        all.filter(move |service| self.contains(*service))
    }

    pub(crate) fn has_records(self) -> bool {
        self.contains(Service::Read) || self.contains(Service::Write)
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Service::name).collect();
        f.write_str(&names.join(", "))
    }
}

/// All words that may stand in `service`, but for `"any"`.
pub(crate) fn service_words() -> impl Iterator<Item = &'static str> {
    let names = Service::ALL.into_iter().map(Service::name);
    ["io", "records"].into_iter().chain(names)
}

/// Kinds of AR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArTypes {
    Any,
    Only(Vec<ArType>),
}

/// Those with a name.
const AR_TYPES: [ArType; 4] = [
    ArType::IoController,
    ArType::Supervisor,
    ArType::RtClass3,
    ArType::Redundant,
];

impl ArTypes {
    pub(crate) fn contains(&self, kind: ArType) -> bool {
        match self {
            Self::Any => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }
}

impl fmt::Display for ArTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Only(kinds) => {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// A kind of AR by its name.
pub fn parse_ar(name: &str) -> Option<ArType> {
    AR_TYPES.into_iter().find(|kind| kind.name() == name)
}

pub(crate) fn ar_words() -> impl Iterator<Item = &'static str> {
    AR_TYPES.iter().map(|kind| kind.name())
}

/// Slots, and subslots of each; both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotSpan {
    pub(crate) slots: Interval,
    pub(crate) subslots: Interval,
}

impl SlotSpan {
    pub(crate) fn contains(&self, slot: u16, subslot: u16) -> bool {
        let within = |span: Interval, number| (span.first..=span.last).contains(&number);
        within(self.slots, slot) && within(self.subslots, subslot)
    }

    /// Slot and subslot, where it is one of each.
    pub fn single(&self) -> Option<(u16, u16)> {
        let one = |span: Interval| (span.first == span.last).then_some(span.first);
        Some((one(self.slots)?, one(self.subslots)?))
    }
}

impl fmt::Display for SlotSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Interval { first, last } = self.slots;
        match first == last {
            true => write!(f, "{first}")?,
            false => write!(f, "{first}-{last}")?,
        }
        let Interval { first, last } = self.subslots;
        match (self.subslots == Interval::FULL, first == last) {
            (true, _) => Ok(()),
            (false, true) => write!(f, ".{first:#x}"),
            (false, false) => write!(f, ".{first:#x}-{last:#x}"),
        }
    }
}

/// A number from 0 to 65535, decimal or with `0x` hexadecimal.
fn number(text: &str) -> Option<u16> {
    let digits = |text: &str, radix| {
        // `from_str_radix` takes a sign.
        let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u16::from_str_radix(text, radix).ok())?
    };
    match text.trim().strip_prefix("0x") {
        Some(hexadecimal) => digits(hexadecimal, 16),
        None => digits(text.trim(), 10),
    }
}

fn range(text: &str) -> Option<Interval> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(Interval { first, last })
}

/// The index of one record: `"0x8001"`, `"45040"`.
pub fn parse_index(text: &str) -> Option<u16> {
    number(text)
}

/// Indexes of records: `"0xaff0"`, `"0x8000-0x80ff"`.
pub(crate) fn indexes(text: &str) -> Option<Interval> {
    range(text)
}

/// Slots: `"1"`, `"1-4"`, with a subslot `"1.1"`, `"1.0x8000"`, `"1.0x8000-0x8fff"`.
pub fn parse_slot(text: &str) -> Option<SlotSpan> {
    let (slots, subslots) = match text.split_once('.') {
        Some((slots, subslots)) => (slots, range(subslots)?),
        None => (text, Interval::FULL),
    };
    let slots = range(slots)?;
    Some(SlotSpan { slots, subslots })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_slots_are_written_in_both_bases() {
        let span = |first, last| Interval { first, last };
        assert_eq!(indexes("0x8000-0x80ff"), Some(span(0x8000, 0x80ff)));
        assert_eq!(indexes("45040"), Some(span(0xaff0, 0xaff0)));
        for wrong in ["", "0x", "-1", "+1", "0x10000", "2-1", "1-2-3", "af", "1.1"] {
            assert_eq!(indexes(wrong), None, "{wrong}");
        }
        let slot = |text| parse_slot(text).map(|slot| (slot.slots, slot.subslots));
        assert_eq!(slot("1-4"), Some((span(1, 4), Interval::FULL)));
        assert_eq!(slot("1.0x8000"), Some((span(1, 1), span(0x8000, 0x8000))));
        assert_eq!(slot("0.1-2"), Some((span(0, 0), span(1, 2))));
        for wrong in ["", ".", "1.", ".1", "1.1.1", "4-1", "any"] {
            assert_eq!(slot(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn any_service_leaves_out_what_sets_something() {
        for service in Service::ALL {
            assert_eq!(
                Services::without_sets().contains(service),
                !service.is_set()
            );
            assert!(Services::all().contains(service));
        }
        assert_eq!(Services::word("any"), None);
        assert_eq!(
            Services::word("set-ip"),
            Some(Services::of([Service::SetIp]))
        );
    }
}
