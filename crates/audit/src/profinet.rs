//! What an application relation and a slot are in the log.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An application relation (AR) between a controller and a station.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ar {
    /// ARUUID, as its Connect gives it: `8-4-4-4-12` hexadecimal digits.
    pub uuid: Box<str>,
    /// `io-controller`, `supervisor`, ...
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<Box<str>>,
    /// Cycle of its slowest direction, in microseconds; absent where it has no cyclic data.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cycle_us: Option<u32>,
    /// Its watchdog, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub watchdog_us: Option<u32>,
    /// Hold and watchdog together, in microseconds, where data is held.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fail_safe_us: Option<u32>,
    /// How long it lasted, in milliseconds, on [`Kind::ArDown`](crate::Kind::ArDown).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lasted_ms: Option<u64>,
}

/// Slot and subslot of a record; in JSON `"1.0x8000"`: the slot decimal, the subslot hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    pub slot: u16,
    pub subslot: u16,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:#x}", self.slot, self.subslot)
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let parsed = text.split_once(".0x").and_then(|(slot, subslot)| {
            let subslot = u16::from_str_radix(subslot, 16).ok()?;
            Some(Self {
                slot: slot.parse().ok()?,
                subslot,
            })
        });
        parsed.ok_or_else(|| D::Error::custom("a slot is written as in \"1.0x8000\""))
    }
}
