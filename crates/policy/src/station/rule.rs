//! A rule for stations, checked and resolved.

use std::fmt;
use std::sync::Arc;

use fieldlock_profinet::{ArType, Service, StationName};

use super::call::{Call, Controller};
use super::decision::StationReason;
use super::parts::{ArTypes, Services, SlotSpan};
use crate::model::client::ClientEntry;
use crate::model::decision::RuleId;
use crate::model::interval::Interval;
use crate::model::phase::Now;
use crate::model::scope::{Effect, Scope};
use crate::model::window::Window;

#[derive(Debug, Clone)]
pub(crate) struct StationRule {
    pub(crate) id: RuleId,
    pub(crate) name: Arc<str>,
    pub(crate) effect: Effect,
    /// Why a deny denies, for people.
    pub(crate) reason: Option<Arc<str>>,
    /// Places in the policy's clients.
    pub(crate) clients: Scope<u32>,
    pub(crate) via: Scope<String>,
    pub(crate) stations: Scope<StationName>,
    pub(crate) services: Services,
    /// Of a Connect.
    pub(crate) ars: ArTypes,
    /// Of reads and writes: sorted, and apart.
    pub(crate) records: Vec<Interval>,
    /// Of reads and writes; empty: all.
    pub(crate) slots: Vec<SlotSpan>,
    /// It applies while one of them is open; empty: always.
    pub(crate) time: Vec<Window>,
}

impl StationRule {
    pub(crate) fn is_allow(&self) -> bool {
        self.effect == Effect::Allow
    }

    pub(crate) fn is_for(&self, station: &StationName) -> bool {
        match &self.stations {
            Scope::Any => true,
            Scope::Only(listed) => listed.contains(station),
        }
    }

    /// Whether it applies at this time; where that is not known, by the worst that it could be.
    pub(crate) fn counts(&self, now: Now) -> bool {
        match now {
            _ if self.time.is_empty() => true,
            Now::At(now) => self.time.iter().any(|window| window.is_open(now)),
            Now::Unknown => !self.is_allow(),
        }
    }

    /// Whether it takes the call, whoever asks. A call is one point of all that a rule lists, so
    /// that covering it and meeting it are the same.
    pub(crate) fn takes(&self, call: &Call) -> Result<(), StationReason> {
        let service = call.service();
        if !self.services.contains(service) {
            return Err(StationReason::Service { service });
        }
        match *call {
            Call::Service(_) => Ok(()),
            Call::Connect(ar) if self.ars.contains(ar) => Ok(()),
            Call::Connect(ar) => Err(StationReason::Ar { ar }),
            Call::Read {
                index,
                slot,
                subslot,
            }
            | Call::Write {
                index,
                slot,
                subslot,
            } => self.takes_record(index, slot, subslot),
        }
    }

    fn takes_record(&self, index: u16, slot: u16, subslot: u16) -> Result<(), StationReason> {
        let has = |span: &Interval| (span.first..=span.last).contains(&index);
        if !self.records.iter().any(has) {
            return Err(StationReason::Record { index });
        }
        let at = |span: &SlotSpan| span.contains(slot, subslot);
        match self.slots.is_empty() || self.slots.iter().any(at) {
            true => Ok(()),
            false => Err(StationReason::Slot { slot, subslot }),
        }
    }

    pub(crate) fn station_words(&self) -> String {
        match &self.stations {
            Scope::Any => "any".to_owned(),
            Scope::Only(names) => {
                let names: Vec<&str> = names.iter().map(StationName::as_str).collect();
                names.join(", ")
            }
        }
    }

    /// What it lists beside clients and stations, in words.
    pub(crate) fn grant(&self) -> String {
        let mut text = format!("service {}", self.services);
        let connects = self.services.contains(Service::Connect);
        if connects && self.ars != ArTypes::Only(vec![ArType::IoController]) {
            text += &format!(", ar {}", self.ars);
        }
        if self.services.has_records() {
            text += &format!(", record {}", Records(&self.records));
        }
        if !self.slots.is_empty() {
            let slots: Vec<String> = self.slots.iter().map(ToString::to_string).collect();
            text += &format!(", slot {}", slots.join(", "));
        }
        let windows: Vec<String> = self.time.iter().map(ToString::to_string).collect();
        if !windows.is_empty() {
            text += &format!(", only {}", windows.join(" or "));
        }
        text
    }
}

/// Ranges of indexes, for people.
pub(super) struct Records<'r>(pub(super) &'r [Interval]);

impl fmt::Display for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == [Interval::FULL] {
            return f.write_str("any");
        }
        for (place, Interval { first, last }) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            match first == last {
                true => write!(f, "{first:#06x}")?,
                false => write!(f, "{first:#06x}-{last:#06x}")?,
            }
        }
        Ok(())
    }
}

/// The `[[client]]` entries that a controller matches.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    pub(crate) sure: Vec<u32>,
    /// By their addresses; the name is yet to be said.
    pub(crate) unnamed: Vec<u32>,
}

impl Matching {
    pub(crate) fn of(clients: &[ClientEntry], controller: &Controller<'_>) -> Self {
        let mut matching = Self::default();
        for (place, client) in (0..).zip(clients) {
            if !client.macs.contains(&controller.mac) {
                continue;
            }
            match (&client.station, controller.station) {
                (None, _) => matching.sure.push(place),
                (Some(wanted), Some(said)) if wanted == said => matching.sure.push(place),
                (Some(_), None) => matching.unnamed.push(place),
                (Some(_), Some(_)) => {}
            }
        }
        matching
    }

    /// Whether a rule for these clients applies; `Some(false)`: as far as it is for one that has yet
    /// to name itself.
    pub(crate) fn meets(&self, clients: &Scope<u32>) -> Option<bool> {
        let Scope::Only(listed) = clients else {
            return Some(true);
        };
        let meets = |places: &[u32]| listed.iter().any(|client| places.contains(client));
        match (meets(&self.sure), meets(&self.unnamed)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}
