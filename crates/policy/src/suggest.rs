//! An allow-list from what was seen, for a person to review.
//!
//! [`Traffic`] collects requests; [`Traffic::suggest`] writes a policy file that allows each of
//! them and little more. What more, exactly:
//!
//! - Reads: ranges of one client, device, unit and function that overlap or touch are joined, and
//!   those at most `gap` apart. So one read may cross what were several.
//! - Writes: ranges that overlap are joined; those that touch only if their values have the same
//!   bounds. Bounds are the smallest and the largest value seen in the joined range.
//! - Functions 8 and 43 are allowed with the parts that were seen, or with all where it is not known
//!   which were, or one has no number in rules (31 and above).
//! - Function 23 reads and writes in one request, and a rule's addresses hold for both halves. Where
//!   the two were different, a rule would allow writes to what was only read: that is left out, and
//!   named in the file, unless [`Options::joined_halves`] is set.

mod ranges;
mod rules;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use fieldlock_modbus::{FunctionCode, Request};

use crate::model::address::Span;
use crate::model::function::Slot;
use rules::{RuleBody, bodies};

/// Different requests that are kept apart; a scan of a network has more.
const MAX_KINDS: usize = 250_000;

/// Addresses of one identity that are kept.
const MAX_ADDRESSES: usize = 1_000;

/// Who asked: told apart by identity and role, and without an identity by the address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asker {
    /// What the policy called it, if it did.
    pub name: Option<String>,
    pub address: Option<IpAddr>,
    pub identity: Option<String>,
    pub role: Option<String>,
}

/// What matters of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observation {
    /// 1 to 127.
    pub function: u8,
    pub read: Option<Span>,
    pub write: Option<Span>,
    /// Smallest and largest value written; `None` where none is or it is not known.
    pub values: Option<(u16, u16)>,
    /// Of functions 8 and 43 the sub-function or MEI type, where it is known.
    pub part: Option<u16>,
}

impl Observation {
    pub fn of(request: &Request<'_>) -> Self {
        let span = |range: fieldlock_modbus::Range| Span {
            table: range.table,
            first: range.start,
            last: range.last(),
        };
        let values = request.write().and_then(|write| {
            let values = || write.values.iter();
            Some((values().min()?, values().max()?))
        });
        Self {
            function: request.function().0,
            read: request.read().map(span),
            write: request.write().map(|write| span(write.range)),
            values,
            part: request.sub_function(),
        }
    }

    /// Whether it has the addresses and values that its function needs.
    fn is_whole(&self) -> bool {
        let slot = Slot::of(FunctionCode(self.function));
        let read = self.read.map(|span| span.table);
        let write = self.write.map(|span| span.table);
        // The result of a mask write is not known.
        let told = self.values.is_some() || self.function == 22;
        match self.function {
            23 => read == slot.table() && write == slot.table() && told,
            _ if slot.writes() => read.is_none() && write == slot.table() && told,
            _ => write.is_none() && read == slot.table(),
        }
    }
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SuggestError {
    #[error(
        "more than {MAX_KINDS} different requests: a scan, or too much at once; choose a part of it"
    )]
    TooMany,
    #[error("a client without an address or an identity can't be named in a policy")]
    Nobody,
    #[error("the record lacks the addresses or values of its function")]
    Incomplete,
    #[error("the device's name can't stand in a policy")]
    Device,
}

/// How much a suggestion may join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Ranges of reads with at most so many addresses between them become one.
    pub gap: u16,
    /// Bound written values by the smallest and the largest that were seen.
    pub bound_values: bool,
    /// Allow function 23 where its two halves were at different addresses.
    pub joined_halves: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            gap: 0,
            bound_values: true,
            joined_halves: false,
        }
    }
}

/// How often something was seen, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Times {
    count: u64,
    first: Option<SystemTime>,
    last: Option<SystemTime>,
}

impl Times {
    fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        // `None` is less than any time.
        self.first = match (self.first, other.first) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
        self.last = self.last.max(other.last);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Address(IpAddr),
    Proven {
        identity: String,
        role: Option<String>,
    },
}

#[derive(Debug, Default)]
struct WhoSeen {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

/// What was seen so far: at most [`MAX_KINDS`] different requests.
#[derive(Debug, Default)]
pub struct Traffic {
    clients: BTreeMap<Who, WhoSeen>,
    seen: BTreeMap<(Who, String, u8), BTreeMap<Observation, Times>>,
    kinds: usize,
}

impl Traffic {
    /// Adds a request that was seen `count` times, the last time at `time`.
    pub fn add(
        &mut self,
        asker: &Asker,
        device: &str,
        unit: u8,
        what: Observation,
        time: Option<SystemTime>,
        count: u64,
    ) -> Result<(), SuggestError> {
        if !what.is_whole() {
            return Err(SuggestError::Incomplete);
        }
        if !crate::source::is_device_name(device) {
            return Err(SuggestError::Device);
        }
        let who = match (&asker.identity, asker.address) {
            (Some(identity), _) => Who::Proven {
                identity: identity.clone(),
                role: asker.role.clone(),
            },
            (None, Some(address)) => Who::Address(address.to_canonical()),
            (None, None) => return Err(SuggestError::Nobody),
        };
        let of_device = self.seen.entry((who.clone(), device.to_owned(), unit));
        let of_device = of_device.or_default();
        if !of_device.contains_key(&what) {
            if self.kinds >= MAX_KINDS {
                return Err(SuggestError::TooMany);
            }
            self.kinds += 1;
        }
        of_device.entry(what).or_default().add(&Times {
            count,
            first: time,
            last: time,
        });
        let client = self.clients.entry(who).or_default();
        client
            .addresses
            .extend(asker.address.map(|a| a.to_canonical()));
        if client.addresses.len() > MAX_ADDRESSES {
            return Err(SuggestError::TooMany);
        }
        if let Some(name) = &asker.name
            && client.names.len() < 2
        {
            client.names.insert(name.clone());
        }
        Ok(())
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// A policy file.
    pub fn suggest(&self, options: &Options) -> String {
        let mut rules: BTreeMap<(&Who, &str, RuleBody), (BTreeSet<u8>, Times)> = BTreeMap::new();
        let mut left_out = Vec::new();
        for ((who, device, unit), seen) in &self.seen {
            for (body, times) in bodies(seen, options, |what, times| {
                left_out.push((who, device.as_str(), *unit, *what, *times));
            }) {
                let key = (who, device.as_str(), body);
                let (units, all) = rules.entry(key).or_default();
                units.insert(*unit);
                all.add(&times);
            }
        }
        text::write(self, &rules, &left_out)
    }
}
