//! The clients that are connected, and what outlives their connections.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use fieldlock_conduit::repeat::Repeats;

use super::client::ClientConn;
use super::seats::Seats;

pub(crate) struct Clients {
    connected: RefCell<HashMap<u32, Rc<ClientConn>>>,
    next: Cell<u32>,
    pub(super) seats: Rc<Seats>,
    /// Writes whose outcome their clients may not know.
    pub(super) repeats: Rc<RefCell<Repeats>>,
}

impl Clients {
    pub(super) fn new(repeats: Repeats) -> Self {
        Self {
            connected: RefCell::default(),
            next: Cell::new(0),
            seats: Rc::default(),
            repeats: Rc::new(RefCell::new(repeats)),
        }
    }

    /// The number of a new connection.
    pub(super) fn next_number(&self) -> u32 {
        // After 2^32 connections a number comes back; its first owner is long gone.
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        number
    }

    pub(super) fn add(&self, client: &Rc<ClientConn>) {
        let mut connected = self.connected.borrow_mut();
        connected.insert(client.number, client.clone());
    }

    pub(super) fn remove(&self, client: &ClientConn) {
        self.connected.borrow_mut().remove(&client.number);
    }

    pub(super) fn get(&self, number: u32) -> Option<Rc<ClientConn>> {
        self.connected.borrow().get(&number).cloned()
    }

    pub(super) fn all(&self) -> Vec<Rc<ClientConn>> {
        self.connected.borrow().values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.connected.borrow().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connected.borrow().is_empty()
    }
}
