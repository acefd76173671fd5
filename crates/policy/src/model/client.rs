//! Who asks, as far as an agent knows it.

use std::net::IpAddr;

use fieldlock_profinet::{Mac, StationName};

use crate::model::cidr::Cidr;

/// Which agent decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// `via` is not judged: the headend is the one through which everything goes.
    Headend,
    /// `via` is the headend's name as its certificate proves it.
    Edge,
}

/// A client: at the headend as seen or proven, at the edge as the headend states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Client<'a> {
    pub address: Option<IpAddr>,
    pub identity: Option<&'a str>,
    pub role: Option<&'a str>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    pub side: Side,
    /// Name of the headend; edge only.
    pub via: Option<&'a str>,
    pub client: Client<'a>,
}

/// A `[[client]]` of the policy: all given keys must match.
#[derive(Debug, Clone)]
pub(crate) struct ClientEntry {
    pub(crate) name: String,
    /// Empty: the address is not judged.
    pub(crate) address: Vec<Cidr>,
    pub(crate) identity: Option<String>,
    pub(crate) role: Option<String>,
    /// Of a controller of PROFINET; empty: a client of Modbus, told by what is above.
    pub(crate) macs: Vec<Mac>,
    /// What its Connect must call it.
    pub(crate) station: Option<StationName>,
}

impl ClientEntry {
    pub(crate) fn is_controller(&self) -> bool {
        !self.macs.is_empty()
    }

    pub(crate) fn matches(&self, client: &Client<'_>) -> bool {
        !self.is_controller()
            && self.matches_address(client.address)
            && matches_text(self.identity.as_deref(), client.identity)
            && matches_text(self.role.as_deref(), client.role)
    }

    fn matches_address(&self, address: Option<IpAddr>) -> bool {
        self.address.is_empty()
            || address.is_some_and(|address| self.address.iter().any(|b| b.contains(address)))
    }
}

fn matches_text(wanted: Option<&str>, stated: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| stated == Some(wanted))
}
