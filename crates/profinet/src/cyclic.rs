//! Cyclic data of real-time class 1.
//!
//! | octets | field |
//! |---|---|
//! | DataLength of the IOCR | C_SDU: data with their IOPS and IOCS |
//! | 2 | CycleCounter, in units of 31.25 us |
//! | 1 | DataStatus |
//! | 1 | TransferStatus: 0, or the frame is discarded |
//!
//! Source: IEC 61158-6-10, 4.7.

use crate::reader::{Reader, Short};

/// Octets behind the C_SDU. Their offsets count from its end, which is not the frame's end: that
/// may be padding.
pub const TRAILER: usize = 4;
pub const CYCLE_COUNTER: usize = 0;
pub const DATA_STATUS: usize = 2;
pub const TRANSFER_STATUS: usize = 3;

/// A counter that is ahead by no more than this is newer; the 4096 values beyond it are old.
pub const NEWER_WINDOW: u16 = 61440;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cyclic<'a> {
    pub data: &'a [u8],
    pub cycle_counter: u16,
    pub data_status: DataStatus,
    pub transfer_status: u8,
}

impl<'a> Cyclic<'a> {
    /// Reads what stands behind the FrameID. `data_length` is that of the IOCR; what is behind the
    /// trailer is padding.
    pub fn parse(bytes: &'a [u8], data_length: u16) -> Result<Self, Short> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            data: reader.take(data_length.into())?,
            cycle_counter: reader.u16()?,
            data_status: DataStatus(reader.u8()?),
            transfer_status: reader.u8()?,
        })
    }
}

/// What a provider says of all its data at once. Bits 3 and 6 are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataStatus(pub u8);

impl DataStatus {
    /// Primary, valid, running, no problem.
    pub const GOOD: Self = Self(0x35);

    /// State: of the primary AR; else of its backup.
    pub fn primary(self) -> bool {
        self.bit(0)
    }

    pub fn redundancy(self) -> bool {
        self.bit(1)
    }

    pub fn valid(self) -> bool {
        self.bit(2)
    }

    /// ProviderState: RUN; else STOP.
    pub fn run(self) -> bool {
        self.bit(4)
    }

    /// The station has no problem to tell of.
    pub fn no_problem(self) -> bool {
        self.bit(5)
    }

    /// The status is not to be evaluated.
    pub fn ignore(self) -> bool {
        self.bit(7)
    }

    fn bit(self, bit: u8) -> bool {
        self.0 & 1 << bit != 0
    }
}

/// Whether a consumer that accepted `last` accepts `new`.
pub fn is_newer(last: u16, new: u16) -> bool {
    (1..=NEWER_WINDOW).contains(&new.wrapping_sub(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_window_of_newer_counters_has_its_edges() {
        for last in [0, 1, 4096, 61440, 65535] {
            for (ahead, newer) in [
                (0, false),
                (1, true),
                (61440, true),
                (61441, false),
                (65535, false),
            ] {
                let new = u16::wrapping_add(last, ahead);
                assert_eq!(is_newer(last, new), newer, "{last} {ahead}");
            }
        }
    }

    #[test]
    fn the_trailer_is_found_by_the_length_and_not_by_the_end() {
        let mut bytes = vec![9; 40];
        bytes[3..7].copy_from_slice(&[0x12, 0x34, 0x35, 0]);
        let cyclic = Cyclic::parse(&bytes, 3).unwrap();
        assert_eq!(cyclic.data, [9; 3]);
        assert_eq!(cyclic.cycle_counter, 0x1234);
        assert_eq!(cyclic.data_status, DataStatus::GOOD);
        assert_eq!(cyclic.transfer_status, 0);
        assert_eq!(bytes[3 + DATA_STATUS], 0x35);
        assert!(Cyclic::parse(&bytes, 36).is_ok());
        assert_eq!(Cyclic::parse(&bytes, 37), Err(Short));
    }

    #[test]
    fn bits_of_the_status_have_their_names() {
        let names = |status: DataStatus| {
            [
                status.primary(),
                status.redundancy(),
                status.valid(),
                status.run(),
                status.no_problem(),
                status.ignore(),
            ]
        };
        for (place, bit) in [0, 1, 2, 4, 5, 7].into_iter().enumerate() {
            let mut expected = [false; 6];
            expected[place] = true;
            assert_eq!(names(DataStatus(1 << bit)), expected);
            assert_eq!(names(DataStatus(!(1 << bit))), expected.map(|set| !set));
        }
        let good = [true, false, true, true, true, false];
        assert_eq!(names(DataStatus::GOOD), good);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), length: u16) {
            if let Ok(cyclic) = Cyclic::parse(&bytes, length) {
                prop_assert_eq!(cyclic.data.len(), usize::from(length));
            }
        }
    }
}
