//! Which device a client means.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use fieldlock_modbus::Quirks;

/// A device, by its place in the headend's configuration, and the unit it is to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub device: usize,
    pub unit: u8,
}

/// How devices deviate from the specification, by their places, as far as their edges have said.
/// Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub struct Known(Rc<RefCell<Vec<Quirks>>>);

impl Known {
    pub fn set(&self, device: usize, quirks: Quirks) {
        let mut known = self.0.borrow_mut();
        if known.len() <= device {
            known.resize(device + 1, Quirks::NONE);
        }
        known[device] = quirks;
    }

    pub(super) fn quirks(&self, device: usize) -> Quirks {
        self.0.borrow().get(device).copied().unwrap_or_default()
    }
}

/// Where the units of one listener lead.
#[derive(Debug)]
pub struct Routes {
    names: Arc<[Arc<str>]>,
    map: Map,
}

#[derive(Debug)]
enum Map {
    /// A listener of one device: every unit is passed on as it is.
    Device(usize),
    /// A shared listener: only mapped units lead anywhere.
    Units(Box<[Option<Target>; 256]>),
}

impl Routes {
    /// All units lead to one of `names`.
    pub fn all_units(device: usize, names: &Arc<[Arc<str>]>) -> Self {
        Self {
            names: names.clone(),
            map: Map::Device(device),
        }
    }

    /// Each unit leads where `units` says.
    pub fn by_unit(units: impl IntoIterator<Item = (u8, Target)>, names: &Arc<[Arc<str>]>) -> Self {
        let mut map = Box::new([None; 256]);
        for (unit, target) in units {
            map[usize::from(unit)] = Some(target);
        }
        Self {
            names: names.clone(),
            map: Map::Units(map),
        }
    }

    pub(super) fn target(&self, unit: u8) -> Option<Target> {
        match &self.map {
            Map::Device(device) => Some(Target {
                device: *device,
                unit,
            }),
            Map::Units(map) => map[usize::from(unit)],
        }
    }

    pub(super) fn name(&self, device: usize) -> &str {
        self.names.get(device).map_or("", |name| name)
    }
}
