//! How many clients are connected, or about to be: in all, and from one address.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use crate::settings::Clients;

#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Cell<usize>,
    /// Only addresses that have one.
    per_address: RefCell<HashMap<IpAddr, usize>>,
}

/// A place for one client, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Rc<Seats>,
    address: IpAddr,
}

/// Which limit stands against one client more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Everywhere,
    Address,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everywhere => "client.max_connections are connected",
            Self::Address => "client.max_connections_per_address are connected from this address",
        })
    }
}

impl Seats {
    /// A place for a client from `address`.
    pub(super) fn take(self: &Rc<Self>, address: IpAddr, limits: &Clients) -> Result<Seat, Full> {
        let mut per_address = self.per_address.borrow_mut();
        let same = per_address.get(&address).copied().unwrap_or(0);
        if self.taken.get() >= limits.max_connections {
            return Err(Full::Everywhere);
        }
        if same >= limits.max_connections_per_address {
            return Err(Full::Address);
        }
        per_address.insert(address, same + 1);
        self.taken.set(self.taken.get() + 1);
        Ok(Seat {
            seats: self.clone(),
            address,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.set(self.seats.taken.get() - 1);
        let mut per_address = self.seats.per_address.borrow_mut();
        if let Some(count) = per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                per_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_and_gives_way_again() {
        let seats = Rc::new(Seats::default());
        let limits = Clients {
            max_connections: 3,
            max_connections_per_address: 2,
            ..Clients::default()
        };
        let take = |last: u8| seats.take([10, 0, 0, last].into(), &limits);
        let first = take(1).unwrap();
        let _second = take(1).unwrap();
        assert_eq!(take(1).unwrap_err(), Full::Address);
        let third = take(2).unwrap();
        assert_eq!(take(3).unwrap_err(), Full::Everywhere);
        drop(first);
        let _again = take(1).unwrap();
        assert!(take(3).is_err());
        drop(third);
        assert_eq!(seats.per_address.borrow().len(), 1);
        assert!(take(3).is_ok());
    }
}
