//! What crosses the tunnel: a datagram with one frame and some of those before it.
//!
//! | offset | octets | |
//! |---|---|---|
//! | 0 | 1 | version and kind, 0x10 |
//! | 1 | 2 | channel of the station |
//! | 3 | 2 | the AR's tag |
//! | 5 | 2 | FrameID |
//! | 7 | 4 | sequence: the provider's cycle in which the newest frame was sent; wraps |
//! | 11 | 4 | sent: microseconds of the sender's clock; wraps |
//! | 15 | 1 | count of frames, 1 to 8 |
//!
//! then the frames, newest first, each of 6 octets and the IOCR's DataLength:
//!
//! | offset | octets | |
//! |---|---|---|
//! | 0 | 1 | bit 7: the frame has an 802.1Q tag; bits 0 to 6: cycles before the newest, 0 to 127 |
//! | 1 | 2 | the tag's control information; 0 without a tag |
//! | 3 | 2 | CycleCounter |
//! | 5 | 1 | DataStatus |
//! | 6 | DataLength | C_SDU: data, IOPS and IOCS as the provider sent them |
//!
//! All big-endian. Ages strictly increase from 0. Nothing follows the last frame.

use fieldlock_profinet::cyclic::DataStatus;
use fieldlock_profinet::{FrameId, Reader, Short, Tag};
use thiserror::Error;

const KIND: u8 = 0x10;
const HEADER: usize = 16;
/// Of each frame, before its data.
const FRAME: usize = 6;
const TAGGED: u8 = 0x80;
/// How far back a carried frame may lie, in cycles.
pub(super) const MAX_AGE: u32 = 127;
/// How many frames before the newest a datagram carries at most.
pub const MAX_EARLIER: u8 = 7;

/// Whose frames: one direction of an AR in the channel of a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    pub channel: u16,
    /// The tag that the agents gave to the AR.
    pub ar: u16,
    pub frame_id: FrameId,
}

/// The header of a datagram, all that is needed to find its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub stream: Stream,
    /// The provider's cycle of the newest frame; wraps.
    pub sequence: u32,
    /// Microseconds of the sender's clock; wraps.
    pub sent: u32,
    /// 1 to 8.
    pub count: u8,
}

/// A cyclic frame without what the far end knows from its AR (MAC addresses, FrameID, padding).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub tag: Option<Tag>,
    pub cycle_counter: u16,
    /// As the provider sent it.
    pub data_status: DataStatus,
    /// C_SDU of the IOCR's DataLength.
    pub data: &'a [u8],
}

/// A whole datagram, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub header: Header,
    frames: &'a [u8],
    data_length: usize,
}

/// Why octets are no datagram of this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DatagramError {
    #[error("cyclic datagram is cut short")]
    Short,
    #[error("cyclic datagram of version and kind {0:#04x}, expected 0x10")]
    Kind(u8),
    #[error("cyclic datagram with {0} frames, allowed are 1 to 8")]
    Count(u8),
    #[error("cyclic datagram of {got} octets, its frames need {expected}")]
    Length { got: usize, expected: usize },
    #[error("the frames of a cyclic datagram are not in order of age")]
    Order,
    #[error("a frame without a tag has tag control information")]
    Untagged,
}

impl From<Short> for DatagramError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

/// Whether one frame of this DataLength fits a datagram. An AR of which it does not has to be
/// refused when it connects.
pub fn fits(data_length: u16, max_datagram: usize) -> bool {
    earlier_that_fit(data_length, max_datagram).is_some()
}

/// How many earlier frames fit beside the newest, 0 to 7. `None`: not even the newest does.
pub(super) fn earlier_that_fit(data_length: u16, max_datagram: usize) -> Option<u8> {
    let frames = max_datagram.saturating_sub(HEADER) / (FRAME + usize::from(data_length));
    let earlier = frames.checked_sub(1)?;
    Some(u8::try_from(earlier).map_or(MAX_EARLIER, |earlier| earlier.min(MAX_EARLIER)))
}

impl Header {
    /// Of a datagram whose frames are not looked at.
    pub fn peek(datagram: &[u8]) -> Result<Self, DatagramError> {
        Self::read(&mut Reader::new(datagram))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DatagramError> {
        match reader.u8()? {
            KIND => {}
            other => return Err(DatagramError::Kind(other)),
        }
        let stream = Stream {
            channel: reader.u16()?,
            ar: reader.u16()?,
            frame_id: FrameId(reader.u16()?),
        };
        let sequence = reader.u32()?;
        let sent = reader.u32()?;
        let count = reader.u8()?;
        if count == 0 || count > MAX_EARLIER + 1 {
            return Err(DatagramError::Count(count));
        }
        Ok(Self {
            stream,
            sequence,
            sent,
            count,
        })
    }

    /// Begins a datagram.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(KIND);
        out.extend_from_slice(&self.stream.channel.to_be_bytes());
        out.extend_from_slice(&self.stream.ar.to_be_bytes());
        out.extend_from_slice(&self.stream.frame_id.0.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.sent.to_be_bytes());
        out.push(self.count);
    }
}

impl Frame<'_> {
    /// Adds a frame to a datagram; `age` is 0 to [`MAX_AGE`].
    pub(super) fn write(&self, age: u8, out: &mut Vec<u8>) {
        let tagged = if self.tag.is_some() { TAGGED } else { 0 };
        out.push(age | tagged);
        out.extend_from_slice(&self.tag.map_or(0, |tag| tag.0).to_be_bytes());
        out.extend_from_slice(&self.cycle_counter.to_be_bytes());
        out.push(self.data_status.0);
        out.extend_from_slice(self.data);
    }
}

impl<'a> Datagram<'a> {
    /// `data_length` is the IOCR's DataLength. What this accepts has frames of just that length
    /// and nothing else.
    pub fn parse(bytes: &'a [u8], data_length: u16) -> Result<Self, DatagramError> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader)?;
        let data_length = usize::from(data_length);
        let expected = HEADER + usize::from(header.count) * (FRAME + data_length);
        if bytes.len() != expected {
            return Err(DatagramError::Length {
                got: bytes.len(),
                expected,
            });
        }
        let datagram = Self {
            header,
            frames: reader.rest(),
            data_length,
        };
        let mut least = 0;
        for (number, octets) in datagram.octets().enumerate() {
            let (age, frame) = read(octets)?;
            if age < least || (number == 0 && age != 0) {
                return Err(DatagramError::Order);
            }
            least = age + 1;
            if frame.tag.is_none() && octets.get(1..3) != Some(&[0, 0]) {
                return Err(DatagramError::Untagged);
            }
        }
        Ok(datagram)
    }

    /// Each frame with its age in cycles, 0 to 127, newest first.
    pub fn frames(&self) -> impl Iterator<Item = (u8, Frame<'a>)> + use<'a> {
        self.octets().filter_map(|octets| read(octets).ok())
    }

    fn octets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.frames.chunks_exact(FRAME + self.data_length)
    }
}

fn read(octets: &[u8]) -> Result<(u8, Frame<'_>), Short> {
    let mut reader = Reader::new(octets);
    let first = reader.u8()?;
    let tag = Tag(reader.u16()?);
    let frame = Frame {
        tag: (first & TAGGED != 0).then_some(tag),
        cycle_counter: reader.u16()?,
        data_status: DataStatus(reader.u8()?),
        data: reader.rest(),
    };
    Ok((first & !TAGGED, frame))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_shrinks_with_the_datagram() {
        for (data_length, max_datagram, expected) in [
            (40, 1_150, Some(7)),
            (40, HEADER + 46, Some(0)),
            (40, HEADER + 45, None),
            (40, HEADER + 2 * 46, Some(1)),
            (1_440, 1_150, None),
            (u16::MAX, usize::MAX, Some(7)),
            (0, 0, None),
        ] {
            assert_eq!(earlier_that_fit(data_length, max_datagram), expected);
        }
    }

    fn bytes() -> Vec<u8> {
        let stream = Stream {
            channel: 3,
            ar: 9,
            frame_id: FrameId(0xc001),
        };
        let mut out = Vec::new();
        let header = Header {
            stream,
            sequence: u32::MAX,
            sent: 7,
            count: 2,
        };
        header.write(&mut out);
        for (age, tag) in [(0, None), (2, Some(Tag(0xc000)))] {
            let frame = Frame {
                tag,
                cycle_counter: 512,
                data_status: DataStatus::GOOD,
                data: &[age; 3],
            };
            frame.write(age, &mut out);
        }
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = bytes();
        let datagram = Datagram::parse(&bytes, 3).unwrap();
        assert_eq!(Header::peek(&bytes).unwrap(), datagram.header);
        assert_eq!(datagram.header.sequence, u32::MAX);
        let frames: Vec<_> = datagram.frames().collect();
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].1.tag, None);
        assert_eq!(
            frames[1],
            (
                2,
                Frame {
                    tag: Some(Tag(0xc000)),
                    cycle_counter: 512,
                    data_status: DataStatus::GOOD,
                    data: &[2; 3],
                }
            )
        );
    }

    #[test]
    fn each_defect_is_named() {
        let with = |at: usize, value: u8| {
            let mut bytes = bytes();
            bytes[at] = value;
            Datagram::parse(&bytes, 3).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, 0x11), DatagramError::Kind(0x11));
        assert_eq!(with(15, 0), DatagramError::Count(0));
        assert_eq!(with(15, 9), DatagramError::Count(9));
        let length = |expected| DatagramError::Length { got: 34, expected };
        assert_eq!(with(15, 1), length(25));
        assert_eq!(with(15, 3), length(43));
        assert_eq!(with(16, 1), DatagramError::Order);
        assert_eq!(with(25, 0x80), DatagramError::Order);
        assert_eq!(with(18, 1), DatagramError::Untagged);
        for end in 0..16 {
            assert_eq!(Header::peek(&bytes()[..end]), Err(DatagramError::Short));
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_what_is_accepted_says_the_same_again(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            count in 1_u8..4,
            data_length in 0_u16..8,
            shaped: bool,
        ) {
            let mut bytes = bytes;
            if shaped {
                bytes.resize(HEADER + usize::from(count) * (FRAME + usize::from(data_length)), 0);
                bytes[0] = KIND;
                bytes[15] = count;
            }
            if let Ok(datagram) = Datagram::parse(&bytes, data_length) {
                let mut again = Vec::new();
                datagram.header.write(&mut again);
                for (age, frame) in datagram.frames() {
                    frame.write(age, &mut again);
                }
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
