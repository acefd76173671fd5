//! The devices that a headend knows, whether or not their edges are connected.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use fieldlock_conduit::client::Known;
use fieldlock_modbus::Quirks;
use fieldlock_transport::counter::{Counter, Histogram};

use super::channel::Channel;

/// A device as the headend knows it, whether or not its edge is connected.
pub(crate) struct Device {
    pub(crate) name: Arc<str>,
    /// In the list of all.
    pub(crate) place: usize,
    /// The channel of the tunnel that owns it.
    pub(crate) live: RefCell<Option<Rc<Channel>>>,
    pub(crate) counters: DeviceCounters,
}

/// What became of the requests for one device.
#[derive(Debug, Default)]
pub(crate) struct DeviceCounters {
    pub(crate) forwarded: Counter,
    pub(crate) answered: Counter,
    pub(crate) refused: Counter,
    pub(crate) refused_by_edge: Counter,
    pub(crate) repeats_refused: Counter,
    pub(crate) busy: Counter,
    pub(crate) not_sent: Counter,
    pub(crate) lost: Counter,
    pub(crate) late: Counter,
    /// Of those that were answered.
    pub(crate) latency: Histogram,
}

/// All of them. Never shrinks, so that a device's place stays its number.
#[derive(Default)]
pub(crate) struct Devices {
    list: Vec<Rc<Device>>,
    places: HashMap<Arc<str>, usize>,
    /// What their edges say of how they deviate.
    known: Known,
}

impl Devices {
    pub(crate) fn add(&mut self, name: &str) {
        if self.places.contains_key(name) {
            return;
        }
        let name: Arc<str> = name.into();
        self.places.insert(name.clone(), self.list.len());
        self.list.push(Rc::new(Device {
            name,
            place: self.list.len(),
            live: RefCell::default(),
            counters: DeviceCounters::default(),
        }));
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Rc<Device>> {
        self.list.get(place)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Rc<Device>> {
        self.get(*self.places.get(name)?)
    }

    /// For clients; what changes later changes for them.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// An edge says how the device deviates.
    pub(crate) fn deviates(&self, name: &str, quirks: Quirks) {
        if let Some(place) = self.places.get(name) {
            self.known.set(*place, quirks);
        }
    }

    /// By place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Device>> {
        self.list.iter()
    }

    /// By place.
    pub(crate) fn names(&self) -> Arc<[Arc<str>]> {
        self.list.iter().map(|device| device.name.clone()).collect()
    }
}
