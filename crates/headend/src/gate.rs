//! How many connections may be spliced to the CA: in all, from one address, and how fast.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Limits of a [`Gate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) open: usize,
    pub(super) open_per_address: usize,
    /// New ones from one address within a minute.
    pub(super) per_minute: usize,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Full {
    #[error("ca.max_connections are open")]
    Open,
    #[error("ca.max_connections_per_address are open from this address")]
    Address,
    #[error("more than ca.new_per_minute from this address")]
    Rate,
}

/// Knows who has what open. Addresses without a connection are forgotten after a minute.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: usize,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    open: usize,
    minute: Instant,
    new: usize,
}

const MINUTE: Duration = Duration::from_secs(60);
/// Addresses remembered at a time.
const MAX_ADDRESSES: usize = 4096;

impl Gate {
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Lets one more in; [`Gate::leave`] when it ends.
    pub(super) fn enter(
        &mut self,
        from: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Full> {
        if self.open >= limits.open {
            return Err(Full::Open);
        }
        if self.addresses.len() >= MAX_ADDRESSES {
            self.addresses
                .retain(|_, known| known.open > 0 || now < known.minute + MINUTE);
        }
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&from) {
            return Err(Full::Open);
        }
        let known = self.addresses.entry(from).or_insert(Address {
            open: 0,
            minute: now,
            new: 0,
        });
        if now >= known.minute + MINUTE {
            known.minute = now;
            known.new = 0;
        }
        if known.open >= limits.open_per_address {
            return Err(Full::Address);
        }
        if known.new >= limits.per_minute {
            return Err(Full::Rate);
        }
        known.new += 1;
        known.open += 1;
        self.open += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self, from: IpAddr) {
        if let Some(known) = self.addresses.get_mut(&from) {
            known.open -= 1;
            self.open -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        open: 3,
        open_per_address: 2,
        per_minute: 4,
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn each_limit_holds_and_gives_way_again() {
        let mut gate = Gate::default();
        let now = Instant::now();
        let enter = |gate: &mut Gate, last, now| gate.enter(address(last), &LIMITS, now);
        assert_eq!(enter(&mut gate, 1, now), Ok(()));
        assert_eq!(enter(&mut gate, 1, now), Ok(()));
        assert_eq!(enter(&mut gate, 1, now), Err(Full::Address));
        assert_eq!(enter(&mut gate, 2, now), Ok(()));
        assert_eq!(enter(&mut gate, 3, now), Err(Full::Open));
        gate.leave(address(1));
        assert_eq!(enter(&mut gate, 1, now), Ok(()));
        gate.leave(address(1));
        assert_eq!(enter(&mut gate, 1, now), Ok(()));
        gate.leave(address(1));
        assert_eq!(enter(&mut gate, 1, now), Err(Full::Rate));
        assert_eq!(enter(&mut gate, 1, now + MINUTE), Ok(()));
        assert_eq!(gate.open(), 3);
    }

    #[test]
    fn addresses_that_come_and_go_are_not_remembered_for_ever() {
        let mut gate = Gate::default();
        let now = Instant::now();
        let from = |n: usize| IpAddr::from((n as u128).to_be_bytes());
        for n in 0..MAX_ADDRESSES {
            gate.enter(from(n), &LIMITS, now).unwrap();
            gate.leave(from(n));
        }
        assert_eq!(gate.enter(from(9999), &LIMITS, now), Err(Full::Open));
        gate.enter(from(9999), &LIMITS, now + MINUTE).unwrap();
        assert_eq!(gate.addresses.len(), 1);
    }
}
