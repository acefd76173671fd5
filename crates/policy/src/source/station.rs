//! Reading what a rule says of stations.

use std::ops::Range;

use fieldlock_profinet::{ArType, Mac, NameError, StationName};
use toml::Spanned;
use toml::de::DeValue;

use super::keys::{EMPTY_MEANS_NONE, Keys, integer};
use super::{Given, MAX_NAME};
use crate::error::ProfinetProblem;
use crate::model::interval::{Interval, merge};
use crate::model::scope::{Effect, Scope};
use crate::model::spelling::nearest;
use crate::station::{
    ArTypes, Services, SlotSpan, ar_words, indexes, parse_ar, parse_slot, service_words,
};

type Value<'t> = Spanned<DeValue<'t>>;

/// The keys that only rules for stations have.
#[derive(Debug)]
pub(crate) struct SourceStations {
    pub(crate) station: Given<Scope<StationName>>,
    pub(crate) service: Given<Services>,
    pub(crate) ar: Given<ArTypes>,
    pub(crate) record: Given<Vec<Interval>>,
    /// Empty: any.
    pub(crate) slot: Given<Vec<SlotSpan>>,
}

impl SourceStations {
    pub(super) fn read(effect: Effect, keys: &mut Keys<'_>) -> Self {
        Self {
            station: keys.value("station", Keys::stations),
            service: keys.value("service", |keys, key, value| {
                keys.services(effect, key, value)
            }),
            ar: keys.value("ar", Keys::ar_types),
            record: keys.value("record", Keys::records),
            slot: keys.value("slot", Keys::slots),
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.station.is_absent()
            && self.service.is_absent()
            && self.ar.is_absent()
            && self.record.is_absent()
            && self.slot.is_absent()
    }

    /// The keys that are there and valid, with where.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        [
            ("station", self.station.span()),
            ("service", self.service.span()),
            ("ar", self.ar.span()),
            ("record", self.record.span()),
            ("slot", self.slot.span()),
        ]
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)))
    }
}

impl<'t> Keys<'t> {
    pub(super) fn macs(&mut self, key: &str, value: &'t Value<'t>) -> Option<Vec<Mac>> {
        let empty = "leave the key out, or list addresses";
        self.list(key, value, empty, |keys, item| keys.mac(key, item))
    }

    pub(super) fn mac(&mut self, key: &str, value: &'t Value<'t>) -> Option<Mac> {
        let mac: Mac = self
            .string(key, value)?
            .parse()
            .map_err(|_| {
                let got = shortened(value.get_ref().as_str().unwrap_or_default());
                self.report(value.span(), key, ProfinetProblem::Mac(got));
            })
            .ok()?;
        if !mac.is_station() {
            self.report(
                value.span(),
                key,
                ProfinetProblem::MacOfGroup(mac.to_string()),
            );
            return None;
        }
        Some(mac)
    }

    pub(super) fn station(&mut self, key: &str, value: &'t Value<'t>) -> Option<StationName> {
        let text = self.string(key, value)?;
        text.parse()
            .map_err(|why: NameError| {
                let name = shortened(text);
                self.report(value.span(), key, ProfinetProblem::Station { name, why });
            })
            .ok()
    }

    pub(super) fn stations(
        &mut self,
        key: &str,
        value: &'t Value<'t>,
    ) -> Option<Scope<StationName>> {
        self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            keys.station(key, item)
        })
    }

    fn services(&mut self, effect: Effect, key: &str, value: &'t Value<'t>) -> Option<Services> {
        let listed = self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            keys.service(key, item)
        })?;
        let Scope::Only(listed) = listed else {
            return Some(match effect {
                Effect::Allow => Services::without_sets(),
                Effect::Deny => Services::all(),
            });
        };
        let mut services = Services::default();
        listed.into_iter().for_each(|some| services.extend(some));
        Some(services)
    }

    pub(super) fn service(&mut self, key: &str, value: &'t Value<'t>) -> Option<Services> {
        let word = self.string(key, value)?;
        let services = Services::word(word);
        if services.is_none() {
            let problem = ProfinetProblem::UnknownService {
                name: shortened(word),
                nearest: nearest(word, service_words()).map(str::to_owned),
            };
            self.report(value.span(), key, problem);
        }
        services
    }

    pub(super) fn ar_types(&mut self, key: &str, value: &'t Value<'t>) -> Option<ArTypes> {
        let kinds = self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            keys.ar_type(key, item)
        })?;
        Some(match kinds {
            Scope::Any => ArTypes::Any,
            Scope::Only(kinds) => ArTypes::Only(kinds),
        })
    }

    pub(super) fn ar_type(&mut self, key: &str, value: &'t Value<'t>) -> Option<ArType> {
        let word = self.string(key, value)?;
        let kind = parse_ar(word);
        if kind.is_none() {
            let problem = ProfinetProblem::UnknownAr {
                name: shortened(word),
                nearest: nearest(word, ar_words()).map(str::to_owned),
                known: ar_words().collect(),
            };
            self.report(value.span(), key, problem);
        }
        kind
    }

    pub(super) fn records(&mut self, key: &str, value: &'t Value<'t>) -> Option<Vec<Interval>> {
        let listed = self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            keys.numbers(key, item, indexes, ProfinetProblem::Record)
        })?;
        Some(match listed {
            Scope::Any => vec![Interval::FULL],
            Scope::Only(ranges) => merge(ranges),
        })
    }

    pub(super) fn slots(&mut self, key: &str, value: &'t Value<'t>) -> Option<Vec<SlotSpan>> {
        let listed = self.scope(key, value, EMPTY_MEANS_NONE, |keys, item| {
            keys.numbers(key, item, parse_slot, ProfinetProblem::Slot)
        })?;
        Some(match listed {
            Scope::Any => Vec::new(),
            Scope::Only(slots) => slots,
        })
    }

    /// What may be a number as well as a text.
    pub(super) fn numbers<T>(
        &mut self,
        key: &str,
        item: &'t Value<'t>,
        parse: impl FnOnce(&str) -> Option<T>,
        problem: fn(String) -> ProfinetProblem,
    ) -> Option<T> {
        let text = match integer(item.get_ref()) {
            Some(number) => number.to_string(),
            None => self.string(key, item)?.to_owned(),
        };
        let parsed = parse(&text);
        if parsed.is_none() {
            self.report(item.span(), key, problem(shortened(&text)));
        }
        parsed
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}
