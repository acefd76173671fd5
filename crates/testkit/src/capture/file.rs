//! The two file formats: from bytes to frames with their link type.

use super::CaptureError;
use super::packet::LinkType;

/// Walks the frames of a file.
pub(super) struct Frames<'a> {
    rest: &'a [u8],
    format: Format,
    big_endian: bool,
    count: u32,
}

enum Format {
    /// <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>
    Pcap(LinkType),
    /// <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html>, with the link
    /// types of the section's interfaces.
    PcapNg(Vec<LinkType>),
}

/// Block types of pcapng.
mod block {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const ENHANCED_PACKET: u32 = 6;
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, CaptureError> {
        let truncated = CaptureError::Truncated { frame: 0 };
        let Some(magic) = bytes.first_chunk::<4>() else {
            return Err(truncated);
        };
        let mut frames = Self {
            rest: bytes,
            format: Format::PcapNg(Vec::new()),
            big_endian: false,
            count: 0,
        };
        // Microseconds or nanoseconds, written by either kind of machine.
        frames.big_endian = match u32::from_be_bytes(*magic) {
            block::SECTION => return Ok(frames),
            0xa1b2_c3d4 | 0xa1b2_3c4d => true,
            0xd4c3_b2a1 | 0x4d3c_b2a1 => false,
            _ => return Err(CaptureError::Magic(*magic)),
        };
        let (header, rest) = bytes.split_at_checked(24).ok_or(truncated)?;
        frames.rest = rest;
        frames.format = Format::Pcap(link_type(frames.word(header, 20) & 0x0fff_ffff)?);
        Ok(frames)
    }

    /// Frames that were returned so far: the number of the last.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn next(&mut self) -> Result<Option<(LinkType, &'a [u8])>, CaptureError> {
        match self.format {
            Format::Pcap(link_type) => self.next_record(link_type),
            Format::PcapNg(_) => self.next_packet_block(),
        }
    }

    fn next_record(
        &mut self,
        link_type: LinkType,
    ) -> Result<Option<(LinkType, &'a [u8])>, CaptureError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.count += 1;
        let header = self.take(16)?;
        let frame = self.take(self.word(header, 8) as usize)?;
        Ok(Some((link_type, frame)))
    }

    fn next_packet_block(&mut self) -> Result<Option<(LinkType, &'a [u8])>, CaptureError> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let (kind, body) = self.next_block()?;
            match kind {
                block::SECTION => self.format = Format::PcapNg(Vec::new()),
                block::INTERFACE => self.add_interface(body)?,
                block::ENHANCED_PACKET => {
                    self.count += 1;
                    let (interface, length) =
                        (self.checked_word(body, 0)?, self.checked_word(body, 12)?);
                    return self.packet(interface, body.get(20..), length).map(Some);
                }
                block::SIMPLE_PACKET => {
                    self.count += 1;
                    let length = self.checked_word(body, 0)?;
                    return self.packet(0, body.get(4..), length).map(Some);
                }
                _ => {}
            }
        }
    }

    fn next_block(&mut self) -> Result<(u32, &'a [u8]), CaptureError> {
        const FRAME: usize = 12; // type, length, and the length again at the end
        let section = self.rest.starts_with(&block::SECTION.to_be_bytes());
        if section {
            // A section says in which order its numbers are.
            self.big_endian = self.rest.get(8..12) == Some(&[0x1a, 0x2b, 0x3c, 0x4d]);
        }
        let truncated = self.truncated();
        let kind = self.checked_word(self.rest, 0)?;
        let length = self.checked_word(self.rest, 4)? as usize;
        if length < FRAME {
            return Err(truncated);
        }
        let whole = self.take(length)?;
        Ok((kind, &whole[8..length - 4]))
    }

    fn add_interface(&mut self, body: &[u8]) -> Result<(), CaptureError> {
        let word = self.checked_word(body, 0)?;
        let number = if self.big_endian {
            word >> 16
        } else {
            word & 0xffff
        };
        let added = link_type(number)?;
        if let Format::PcapNg(interfaces) = &mut self.format {
            interfaces.push(added);
        }
        Ok(())
    }

    fn packet(
        &self,
        interface: u32,
        data: Option<&'a [u8]>,
        length: u32,
    ) -> Result<(LinkType, &'a [u8]), CaptureError> {
        let data = data.ok_or(self.truncated())?;
        let link_type = match &self.format {
            Format::PcapNg(interfaces) => interfaces.get(interface as usize).copied(),
            Format::Pcap(link_type) => Some(*link_type),
        };
        let link_type = link_type.ok_or(self.truncated())?;
        Ok((link_type, &data[..data.len().min(length as usize)]))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CaptureError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(self.truncated())?;
        self.rest = rest;
        Ok(taken)
    }

    fn checked_word(&self, bytes: &[u8], at: usize) -> Result<u32, CaptureError> {
        if bytes.len() < at + 4 {
            return Err(self.truncated());
        }
        Ok(self.word(bytes, at))
    }

    fn word(&self, bytes: &[u8], at: usize) -> u32 {
        let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if self.big_endian {
            u32::from_be_bytes(word)
        } else {
            u32::from_le_bytes(word)
        }
    }

    fn truncated(&self) -> CaptureError {
        CaptureError::Truncated { frame: self.count }
    }
}

fn link_type(number: u32) -> Result<LinkType, CaptureError> {
    LinkType::from_number(number).ok_or(CaptureError::LinkType(number))
}
