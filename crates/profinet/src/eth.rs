//! Ethernet II frames, with at most one IEEE 802.1Q tag.

use thiserror::Error;

use crate::mac::Mac;
use crate::reader::{Reader, Short};

/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
/// PROFINET real-time: cyclic data, alarms, DCP, PTCP.
pub const PROFINET: u16 = 0x8892;
pub const LLDP: u16 = 0x88cc;
/// Media redundancy (ring) frames.
pub const MRP: u16 = 0x88e3;

/// The two octets of an 802.1Q tag behind its EtherType: priority (3 bits), drop eligible (1),
/// VLAN id (12). Id 0 is a *priority tag*: it belongs to no VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub u16);

impl Tag {
    /// A priority tag; `priority` is 0 to 7.
    pub const fn priority_only(priority: u8) -> Self {
        Self(((priority & 7) as u16) << 13)
    }

    /// 0 to 7.
    pub fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }

    /// 0 to 4095.
    pub fn vlan(self) -> u16 {
        self.0 & 0x0fff
    }
}

/// A frame without its check sequence; the payload may end in padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub dst: Mac,
    pub src: Mac,
    pub tag: Option<Tag>,
    pub ethertype: u16,
    pub payload: &'a [u8],
}

/// Why octets are no frame that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EthError {
    #[error("Ethernet frame is cut short")]
    Short,
    #[error("Ethernet frame with two VLAN tags")]
    TwoTags,
    #[error("IEEE 802.3 length {0} in place of an EtherType")]
    Length(u16),
}

impl From<Short> for EthError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl<'a> Frame<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EthError> {
        let mut reader = Reader::new(bytes);
        let dst = Mac(reader.array()?);
        let src = Mac(reader.array()?);
        let mut ethertype = reader.u16()?;
        let mut tag = None;
        if ethertype == VLAN {
            tag = Some(Tag(reader.u16()?));
            ethertype = reader.u16()?;
        }
        match ethertype {
            VLAN => Err(EthError::TwoTags),
            length if length < 0x0600 => Err(EthError::Length(length)),
            ethertype => Ok(Self {
                dst,
                src,
                tag,
                ethertype,
                payload: reader.rest(),
            }),
        }
    }

    /// Appends the header alone: 14 octets, 18 with a tag.
    pub fn put_header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.dst.0);
        out.extend_from_slice(&self.src.0);
        if let Some(Tag(tag)) = self.tag {
            out.extend_from_slice(&VLAN.to_be_bytes());
            out.extend_from_slice(&tag.to_be_bytes());
        }
        out.extend_from_slice(&self.ethertype.to_be_bytes());
    }

    /// Appends the frame, padded with zeros to the minimum of 60 octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.put_header(out);
        out.extend_from_slice(self.payload);
        pad(out, start);
    }
}

/// Pads the frame that begins at `start` of `out` to 60 octets, the minimum without check
/// sequence.
pub fn pad(out: &mut Vec<u8>, start: usize) {
    if out.len() < start + 60 {
        out.resize(start + 60, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DST: Mac = Mac([1, 2, 3, 4, 5, 6]);
    const SRC: Mac = Mac([2, 2, 3, 4, 5, 7]);

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for tag in [None, Some(Tag::priority_only(6))] {
            let frame = Frame {
                dst: DST,
                src: SRC,
                tag,
                ethertype: PROFINET,
                payload: &[7; 50],
            };
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            assert_eq!(Frame::parse(&bytes), Ok(frame));
            assert!((0..bytes.len() - 50).all(|end| Frame::parse(&bytes[..end]).is_err()));
        }
        assert_eq!(Tag::priority_only(6).0, 0xc000);
    }

    #[test]
    fn two_tags_and_802_3_are_refused() {
        let head = [DST.0, SRC.0].concat();
        let twice = [&head[..], &[0x81, 0, 0, 0, 0x81, 0, 0, 0]].concat();
        assert_eq!(Frame::parse(&twice), Err(EthError::TwoTags));
        let length = [&head[..], &[0, 38, 0x42, 0x42, 3]].concat();
        assert_eq!(Frame::parse(&length), Err(EthError::Length(38)));
    }

    #[test]
    fn short_frames_are_padded() {
        let frame = Frame {
            dst: DST,
            src: SRC,
            tag: None,
            ethertype: ARP,
            payload: &[7; 28],
        };
        let mut bytes = vec![9];
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), 61);
    }
}
