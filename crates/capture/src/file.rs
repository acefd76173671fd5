//! The two file formats: from bytes to frames with their link type and time.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use crate::Problem;
use crate::packet::LinkType;

/// The largest frame that capture programs write.
pub(crate) const MAX_FRAME: u32 = 256 * 1024;

/// Interfaces of one section of a pcapng file.
const MAX_INTERFACES: usize = 4_096;

/// Walks the frames of a file, pcap or pcapng, of any protocol.
#[derive(Debug)]
pub struct Frames<R> {
    input: R,
    format: Format,
    big_endian: bool,
    count: u32,
    unreadable: u32,
    buffer: Vec<u8>,
}

/// A frame as it was captured.
#[derive(Debug)]
pub struct Frame<'a> {
    /// From 1, as tshark counts.
    pub number: u32,
    /// If the file says it.
    pub time: Option<SystemTime>,
    /// What `bytes` begin with.
    pub link_type: LinkType,
    pub bytes: &'a [u8],
}

#[derive(Debug)]
enum Format {
    /// <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>
    Pcap(Interface),
    /// <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html>, with the interfaces of
    /// the section.
    PcapNg(Vec<Interface>),
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    /// `None`: of a kind that is not read.
    link_type: Option<LinkType>,
    /// Units of a second that timestamps count.
    resolution: u64,
}

/// Block types of pcapng.
mod block {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    /// Of old capture programs; today's write enhanced ones.
    pub(super) const PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const ENHANCED_PACKET: u32 = 6;
}

const MICROSECONDS: u64 = 1_000_000;
const NANOSECONDS: u64 = 1_000_000_000;

impl<R: Read> Frames<R> {
    pub fn new(input: R) -> Result<Self, Problem> {
        let mut frames = Self {
            input,
            format: Format::PcapNg(Vec::new()),
            big_endian: false,
            count: 0,
            unreadable: 0,
            buffer: Vec::new(),
        };
        let magic = frames.octets::<4>()?;
        let (big_endian, resolution) = match u32::from_be_bytes(magic) {
            block::SECTION => {
                frames.section()?;
                return Ok(frames);
            }
            0xa1b2_c3d4 => (true, MICROSECONDS),
            0xa1b2_3c4d => (true, NANOSECONDS),
            0xd4c3_b2a1 => (false, MICROSECONDS),
            0x4d3c_b2a1 => (false, NANOSECONDS),
            _ => return Err(Problem::Magic(magic)),
        };
        frames.big_endian = big_endian;
        let header = frames.octets::<20>()?;
        let number = frames.word(&header, 16) & 0x0fff_ffff;
        let link_type = LinkType::from_number(number).ok_or(Problem::LinkType(number))?;
        frames.format = Format::Pcap(Interface {
            link_type: Some(link_type),
            resolution,
        });
        Ok(frames)
    }

    /// Frames so far that were passed over, since their interface has a link type that is not read.
    pub fn unreadable(&self) -> u32 {
        self.unreadable
    }

    /// Frames that were returned so far: the number of the last.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The next frame; `None` behind the last. Not to be called again after an error.
    #[expect(clippy::should_implement_trait, reason = "fails, and lends its buffer")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Problem> {
        match self.format {
            Format::Pcap(interface) => self.next_record(interface),
            Format::PcapNg(_) => self.next_packet_block(),
        }
    }

    fn next_record(&mut self, interface: Interface) -> Result<Option<Frame<'_>>, Problem> {
        self.count += 1;
        let Some(first) = self.word_or_end()? else {
            self.count -= 1;
            return Ok(None);
        };
        let rest = self.octets::<12>()?;
        let seconds = u64::from(self.integer(first));
        let (part, length) = (self.word(&rest, 0), self.word(&rest, 4));
        self.fill(length)?;
        let ticks = seconds * interface.resolution + u64::from(part);
        Ok(interface.link_type.map(|link_type| Frame {
            number: self.count,
            time: time(ticks, interface.resolution),
            link_type,
            bytes: &self.buffer,
        }))
    }

    fn next_packet_block(&mut self) -> Result<Option<Frame<'_>>, Problem> {
        loop {
            let Some(kind) = self.word_or_end()? else {
                return Ok(None);
            };
            if u32::from_be_bytes(kind) == block::SECTION {
                self.section()?;
                continue;
            }
            let kind = self.integer(kind);
            let length = self.octets::<4>()?;
            let length = self.body_length(self.integer(length))?;
            match kind {
                block::INTERFACE => {
                    self.block_body(length)?;
                    self.add_interface()?;
                }
                block::ENHANCED_PACKET | block::PACKET | block::SIMPLE_PACKET => {
                    self.count += 1;
                    self.block_body(length)?;
                    let interface = self.interface_of(kind)?;
                    match interface.link_type {
                        Some(link_type) => {
                            return self.packet(kind, interface, link_type).map(Some);
                        }
                        None => self.unreadable += 1,
                    }
                }
                // The length stands again at the end.
                _ => self.skip(u64::from(length) + 4)?,
            }
        }
    }

    /// What follows the type of a section header.
    fn section(&mut self) -> Result<(), Problem> {
        let header = self.octets::<8>()?;
        // A section says in which order its numbers are.
        self.big_endian = match header[4..] {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(self.damaged("a section without its byte-order magic")),
        };
        let length = self.body_length(self.word(&header, 0))?;
        self.format = Format::PcapNg(Vec::new());
        match length.checked_sub(4) {
            Some(rest) => self.skip(u64::from(rest) + 4),
            None => Err(self.damaged("a section that is too short")),
        }
    }

    /// The body of a block: without type, length, and the length again.
    fn body_length(&self, length: u32) -> Result<u32, Problem> {
        match length.checked_sub(12) {
            Some(body) if length.is_multiple_of(4) => Ok(body),
            _ => Err(self.damaged("its length is no multiple of 4 from 12")),
        }
    }

    fn block_body(&mut self, length: u32) -> Result<(), Problem> {
        self.fill(length)?;
        self.skip(4)
    }

    fn add_interface(&mut self) -> Result<(), Problem> {
        let short = self.damaged("an interface that is too short");
        let half = self.half(0).ok_or(short)?;
        let added = Interface {
            link_type: LinkType::from_number(u32::from(half)),
            resolution: self.resolution(),
        };
        let too_many = self.damaged("too many interfaces");
        match &mut self.format {
            Format::PcapNg(interfaces) if interfaces.len() < MAX_INTERFACES => {
                interfaces.push(added);
                Ok(())
            }
            _ => Err(too_many),
        }
    }

    /// The option `if_tsresol`: a power of ten, or of two where the top bit is set.
    fn resolution(&self) -> u64 {
        const IF_TSRESOL: u16 = 9;
        let mut at = 8;
        while let (Some(code), Some(length)) = (self.half(at), self.half(at + 2)) {
            if code == 0 {
                break;
            }
            if let (IF_TSRESOL, Some(value)) = (code, self.buffer.get(at + 4)) {
                let exponent = u32::from(value & 0x7f);
                let base: u64 = if value & 0x80 == 0 { 10 } else { 2 };
                return base.checked_pow(exponent).unwrap_or(0);
            }
            at += 4 + usize::from(length).next_multiple_of(4);
        }
        MICROSECONDS
    }

    /// Where the packet of the block in the buffer was captured.
    fn interface_of(&self, kind: u32) -> Result<Interface, Problem> {
        let number = match kind {
            block::ENHANCED_PACKET => self.buffer_word(0),
            // Before how many were dropped.
            block::PACKET => self.half(0).map(u32::from),
            _ => Some(0),
        };
        let number = number.ok_or_else(|| self.damaged("a packet that is too short"))?;
        let interface = match &self.format {
            Format::PcapNg(interfaces) => interfaces.get(number as usize).copied(),
            Format::Pcap(interface) => Some(*interface),
        };
        interface.ok_or_else(|| self.damaged("it names no interface"))
    }

    /// The packet of the block in the buffer.
    fn packet(
        &self,
        kind: u32,
        interface: Interface,
        link_type: LinkType,
    ) -> Result<Frame<'_>, Problem> {
        let short = || self.damaged("a packet that is too short");
        let word = |at: usize| self.buffer_word(at).ok_or_else(short);
        let (time, length, begin) = match kind {
            block::SIMPLE_PACKET => (None, word(0)?, 4),
            _ => {
                let ticks = u64::from(word(4)?) << 32 | u64::from(word(8)?);
                (time(ticks, interface.resolution), word(12)?, 20)
            }
        };
        let bytes = self.buffer.get(begin..).ok_or_else(short)?;
        Ok(Frame {
            number: self.count,
            time,
            link_type,
            bytes: &bytes[..bytes.len().min(length as usize)],
        })
    }

    fn fill(&mut self, length: u32) -> Result<(), Problem> {
        if length > MAX_FRAME {
            let frame = self.count;
            return Err(Problem::FrameLength { frame, length });
        }
        self.buffer.resize(length as usize, 0);
        match self.input.read_exact(&mut self.buffer) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.ended(error)),
        }
    }

    fn skip(&mut self, length: u64) -> Result<(), Problem> {
        let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
        match skipped == length {
            true => Ok(()),
            false => Err(Problem::Truncated { frame: self.count }),
        }
    }

    fn octets<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut octets = [0; N];
        match self.input.read_exact(&mut octets) {
            Ok(()) => Ok(octets),
            Err(error) => Err(self.ended(error)),
        }
    }

    /// Four octets, or `None` where the file ends before them.
    fn word_or_end(&mut self) -> Result<Option<[u8; 4]>, Problem> {
        let mut octets = Vec::with_capacity(4);
        (&mut self.input).take(4).read_to_end(&mut octets)?;
        match (octets.as_slice().try_into(), octets.is_empty()) {
            (Ok(word), _) => Ok(Some(word)),
            (Err(_), true) => Ok(None),
            (Err(_), false) => Err(Problem::Truncated { frame: self.count }),
        }
    }

    fn ended(&self, error: io::Error) -> Problem {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Problem::Truncated { frame: self.count },
            _ => Problem::Io(error),
        }
    }

    fn damaged(&self, what: &'static str) -> Problem {
        let frame = self.count;
        Problem::Block { frame, what }
    }

    fn half(&self, at: usize) -> Option<u16> {
        let pair: [u8; 2] = self.buffer.get(at..at + 2)?.try_into().ok()?;
        Some(match self.big_endian {
            true => u16::from_be_bytes(pair),
            false => u16::from_le_bytes(pair),
        })
    }

    fn buffer_word(&self, at: usize) -> Option<u32> {
        let octets: [u8; 4] = self.buffer.get(at..at + 4)?.try_into().ok()?;
        Some(self.integer(octets))
    }

    /// `at` is within `bytes` by at least four.
    fn word(&self, bytes: &[u8], at: usize) -> u32 {
        self.integer([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    fn integer(&self, octets: [u8; 4]) -> u32 {
        match self.big_endian {
            true => u32::from_be_bytes(octets),
            false => u32::from_le_bytes(octets),
        }
    }
}

/// `None` where it can't be told.
fn time(ticks: u64, resolution: u64) -> Option<SystemTime> {
    let seconds = ticks.checked_div(resolution)?;
    let part = u128::from(ticks % resolution) * u128::from(NANOSECONDS) / u128::from(resolution);
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, part as u32))
}
