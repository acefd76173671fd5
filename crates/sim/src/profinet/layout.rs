//! Modules of a station and where their data lies in a cyclic frame.

/// What sits in a slot behind the interface module (slot 0): one submodule (subslot 1) of so many
/// octets in each direction. Without both it has no process data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Device to controller.
    pub input: u16,
    /// Controller to device.
    pub output: u16,
}

impl Module {
    pub const fn input(octets: u16) -> Self {
        Self {
            input: octets,
            output: 0,
        }
    }

    pub const fn output(octets: u16) -> Self {
        Self {
            input: 0,
            output: octets,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Submodule {
    pub(super) slot: u16,
    pub(super) subslot: u16,
    pub(super) module_ident: u32,
    pub(super) ident: u32,
    pub(super) input: u16,
    pub(super) output: u16,
}

/// All submodules, in order of slot and subslot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slots(Vec<Submodule>);

/// Where a data object or a status lies in a C_SDU; `length` is that of the data, 0 for a status
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) slot: u16,
    pub(super) subslot: u16,
    pub(super) offset: u16,
    pub(super) length: u16,
}

/// The C_SDU of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Data, each followed by its IOPS.
    pub(super) objects: Vec<Placed>,
    /// IOCS for data of the other direction.
    pub(super) statuses: Vec<Placed>,
    /// Octets, at least 40.
    pub(super) data_length: u32,
}

impl Layout {
    /// The data and the status behind it lie within the data length.
    pub(super) fn holds(&self, place: &Placed) -> bool {
        u32::from(place.offset) + u32::from(place.length) < self.data_length
    }
}

/// Least octets of a C_SDU: what fills a frame of 60 octets.
pub(super) const MIN_C_SDU: u32 = 40;
/// Most octets of a C_SDU.
pub(super) const MAX_C_SDU: u32 = 1440;

impl Slots {
    /// The interface module with its interface and port, then `modules` from slot 1 on.
    pub(super) fn new(modules: &[Module]) -> Self {
        let bare = |subslot, ident| Submodule {
            slot: 0,
            subslot,
            module_ident: 1,
            ident,
            input: 0,
            output: 0,
        };
        let mut all = vec![bare(0x0001, 1), bare(0x8000, 2), bare(0x8001, 3)];
        all.extend(modules.iter().zip(1..).map(|(module, slot)| Submodule {
            slot,
            subslot: 1,
            module_ident: 0x10 + u32::from(module.input > 0) + 2 * u32::from(module.output > 0),
            ident: u32::from(module.input) << 16 | u32::from(module.output),
            input: module.input,
            output: module.output,
        }));
        Self(all)
    }

    pub(super) fn by_slot(&self) -> impl Iterator<Item = (u16, &[Submodule])> {
        self.0
            .chunk_by(|a, b| a.slot == b.slot)
            .map(|chunk| (chunk[0].slot, chunk))
    }

    pub(super) fn find(&self, slot: u16, subslot: u16) -> Option<&Submodule> {
        self.0
            .iter()
            .find(|submodule| (submodule.slot, submodule.subslot) == (slot, subslot))
    }

    /// Data of inputs, statuses for outputs. What has no data is an input of none.
    pub(super) fn input(&self) -> Layout {
        self.layout(
            |s| (s.input > 0 || s.output == 0).then_some(s.input),
            |s| s.output > 0,
        )
    }

    pub(super) fn output(&self) -> Layout {
        self.layout(
            |s| (s.output > 0).then_some(s.output),
            |s| s.input > 0 || s.output == 0,
        )
    }

    fn layout(
        &self,
        data: impl Fn(&Submodule) -> Option<u16>,
        status: impl Fn(&Submodule) -> bool,
    ) -> Layout {
        let mut end = 0_u32;
        let mut place = |submodule: &Submodule, length: u16| {
            let offset = end as u16;
            end += u32::from(length) + 1;
            Placed {
                slot: submodule.slot,
                subslot: submodule.subslot,
                offset,
                length,
            }
        };
        let objects = self
            .0
            .iter()
            .filter_map(|submodule| Some(place(submodule, data(submodule)?)))
            .collect();
        let statuses = self
            .0
            .iter()
            .filter(|submodule| status(submodule))
            .map(|submodule| place(submodule, 0))
            .collect();
        Layout {
            objects,
            statuses,
            data_length: end.max(MIN_C_SDU),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_octet_of_a_frame_has_one_meaning() {
        let slots = Slots::new(&[
            Module::input(30),
            Module::output(7),
            Module {
                input: 3,
                output: 4,
            },
        ]);
        for (layout, octets) in [(slots.input(), 33), (slots.output(), 11)] {
            let mut taken = vec![false; layout.data_length as usize];
            for place in layout.objects.iter().chain(&layout.statuses) {
                for octet in place.offset..=place.offset + place.length {
                    assert!(!std::mem::replace(&mut taken[usize::from(octet)], true));
                }
            }
            let data: u16 = layout.objects.iter().map(|place| place.length).sum();
            assert_eq!(data, octets);
        }
        assert_eq!(slots.output().data_length, MIN_C_SDU);
        assert_eq!(slots.input().data_length, 33 + 5 + 2);
    }
}
