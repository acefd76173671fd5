//! Which device a client means.

use std::sync::Arc;

/// A device, by its place in the headend's configuration, and the unit it is to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub device: usize,
    pub unit: u8,
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
