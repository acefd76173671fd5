//! What a frame with EtherType 0x8892 is, by the FrameID in its first two octets.

use std::fmt;

/// A FrameID (IEC 61158-6-10, table of FrameID ranges).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(pub u16);

/// What a FrameID announces. The range does not tell the real-time class of an AR: that is in its
/// IOCR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Clock synchronisation; of meaning on one link only.
    Ptcp,
    /// Isochronous real-time, scheduled by synchronised hardware.
    Irt,
    /// Cyclic data to one consumer.
    Cyclic,
    /// Cyclic data to a multicast group.
    CyclicMulticast,
    AlarmHigh,
    AlarmLow,
    /// Remote service interface: connection management over layer 2.
    Rsi,
    DcpHello,
    DcpGetSet,
    DcpIdentify,
    DcpIdentifyResponse,
    /// Pieces of a longer frame.
    Fragment,
    Reserved,
}

impl FrameId {
    pub const ALARM_HIGH: Self = Self(0xfc01);
    pub const ALARM_LOW: Self = Self(0xfe01);
    pub const RSI: Self = Self(0xfe02);
    pub const DCP_HELLO: Self = Self(0xfefc);
    pub const DCP_GET_SET: Self = Self(0xfefd);
    pub const DCP_IDENTIFY: Self = Self(0xfefe);
    pub const DCP_IDENTIFY_RESPONSE: Self = Self(0xfeff);

    pub fn kind(self) -> Kind {
        match self.0 {
            0x0020..=0x00ff | 0xff00..=0xff43 => Kind::Ptcp,
            0x0100..=0x7fff => Kind::Irt,
            0x8000..=0xbbff | 0xc000..=0xf7ff => Kind::Cyclic,
            0xbc00..=0xbfff | 0xf800..=0xfbff => Kind::CyclicMulticast,
            0xfc01 => Kind::AlarmHigh,
            0xfe01 => Kind::AlarmLow,
            0xfe02 => Kind::Rsi,
            0xfefc => Kind::DcpHello,
            0xfefd => Kind::DcpGetSet,
            0xfefe => Kind::DcpIdentify,
            0xfeff => Kind::DcpIdentifyResponse,
            0xff80..=0xff8f => Kind::Fragment,
            _ => Kind::Reserved,
        }
    }
}

impl fmt::Display for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_the_standard_says() {
        let kinds = [
            (0x001f, Kind::Reserved),
            (0x0020, Kind::Ptcp),
            (0x00ff, Kind::Ptcp),
            (0x0100, Kind::Irt),
            (0x7fff, Kind::Irt),
            (0x8000, Kind::Cyclic),
            (0xbbff, Kind::Cyclic),
            (0xbc00, Kind::CyclicMulticast),
            (0xbfff, Kind::CyclicMulticast),
            (0xc000, Kind::Cyclic),
            (0xf7ff, Kind::Cyclic),
            (0xf800, Kind::CyclicMulticast),
            (0xfbff, Kind::CyclicMulticast),
            (0xfc00, Kind::Reserved),
            (0xfc01, Kind::AlarmHigh),
            (0xfe01, Kind::AlarmLow),
            (0xfe02, Kind::Rsi),
            (0xfefb, Kind::Reserved),
            (0xff43, Kind::Ptcp),
            (0xff44, Kind::Reserved),
            (0xff80, Kind::Fragment),
            (0xff90, Kind::Reserved),
        ];
        for (id, kind) in kinds {
            assert_eq!(FrameId(id).kind(), kind, "{id:#06x}");
        }
    }
}
