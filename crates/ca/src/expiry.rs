//! What runs out next: leaves, CAs and their CRLs.

use std::collections::BTreeMap;

use fieldlock_pki::Summary;
use serde::Serialize;

use crate::authority::{Ca, State};
use crate::clock::Time;
use crate::error::CaError;
use crate::event::Entry;

/// Something with an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expiring {
    pub kind: Kind,
    /// An identity, or the subject of a CA.
    pub name: String,
    pub ends: Time,
    pub days_left: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Certificate,
    IssuingCa,
    Root,
    Crl,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Certificate => "certificate",
            Kind::IssuingCa => "issuing CA",
            Kind::Root => "root",
            Kind::Crl => "CRL",
        }
    }
}

impl Ca {
    /// The soonest first. Of each identity the newest certificate counts, if it is not revoked;
    /// one that has ended is there until a newer one is.
    pub fn expiring(&self, now: Time) -> Result<Vec<Expiring>, CaError> {
        let item = |kind, name: String, ends: Time| Expiring {
            kind,
            name,
            ends,
            days_left: ends.days_from(now),
        };
        let mut newest: BTreeMap<String, Entry> = BTreeMap::new();
        for entry in self.records().certificates()? {
            if matches!(self.state(&entry, now)?, State::Revoked { .. }) {
                continue;
            }
            let identity = entry.identity(&self.settings().site).to_string();
            let known = newest.get(&identity);
            if known.is_none_or(|known| entry.not_after >= known.not_after) {
                newest.insert(identity, entry);
            }
        }
        let mut all: Vec<Expiring> = newest
            .into_iter()
            .map(|(name, entry)| item(Kind::Certificate, name, entry.not_after))
            .collect();
        let list = self.trust()?;
        for (kind, ders) in [(Kind::Root, &list.roots), (Kind::IssuingCa, &list.issuing)] {
            for der in ders {
                let summary = Summary::of(der).map_err(|_| CaError::Unreadable)?;
                all.push(item(kind, summary.subject, Time(summary.not_after)));
            }
        }
        for crl in list.crl_dates() {
            all.push(item(Kind::Crl, crl.authority, Time(crl.next_update)));
        }
        all.sort_by_key(|item| item.ends);
        Ok(all)
    }
}
