//! Records: what is read and written, where.

use super::{CmError, RawBlock, finished, uuid};
use crate::reader::Reader;
use crate::rpc::Uuid;
use crate::status::PnioStatus;

const WRITE_REQ: u16 = 0x0008;
const READ_REQ: u16 = 0x0009;
const WRITE_RES: u16 = 0x8008;
const READ_RES: u16 = 0x8009;
/// BlockLength of each of them.
const HEADER_LENGTH: u16 = 60;

/// Index of a write that holds several.
const MULTIPLE: u16 = 0xe040;

/// Which record: IODReadReqHeader, IODWriteReqHeader.
///
/// ```text
/// sequence(2) AR(16) API(4) slot(2) subslot(2) 0(2) index(2) length(4), in 24 octets:
///   read request:   target-AR(16) 0(8)
///   read response:  additional-values(4) 0(20)
///   write response: additional-values(4) PNIOStatus(4) 0(16)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordAccess {
    pub sequence: u16,
    /// All zero for an implicit read.
    pub ar_uuid: Uuid,
    pub api: u32,
    pub slot: u16,
    pub subslot: u16,
    pub index: u16,
    /// Octets that are written, or may be read.
    pub length: u32,
    /// Of an implicit read: whose record, where it is one of an AR. All zero otherwise.
    pub target_ar: Uuid,
}

impl RecordAccess {
    /// A query that may follow the header (RecordDataReadQuery) has no meaning here.
    pub(super) fn read_request(blocks: &[u8]) -> Result<Self, CmError> {
        let (mut access, mut rest) = Self::read(&mut Reader::new(blocks), READ_REQ)?;
        access.target_ar = uuid(&mut rest)?;
        Ok(access)
    }

    /// A header of the type `wanted`, and what is in it behind the length. Its own length is
    /// fixed: the record behind it begins at the same octet for whoever reads it.
    fn read<'a>(reader: &mut Reader<'a>, wanted: u16) -> Result<(Self, Reader<'a>), CmError> {
        let mut content = RawBlock::of(reader, wanted)?;
        let length = content.rest().len() + 2;
        if length != usize::from(HEADER_LENGTH) {
            return Err(CmError::Length {
                kind: wanted,
                // Read from 16 bits.
                length: length as u16,
            });
        }
        let sequence = content.u16()?;
        let ar_uuid = uuid(&mut content)?;
        let api = content.u32()?;
        let slot = content.u16()?;
        let subslot = content.u16()?;
        content.u16()?;
        let access = Self {
            sequence,
            ar_uuid,
            api,
            slot,
            subslot,
            index: content.u16()?,
            length: content.u32()?,
            target_ar: Uuid([0; 16]),
        };
        Ok((access, content))
    }

    /// The record's octets, from behind its header.
    fn data<'a>(&self, reader: &mut Reader<'a>) -> Result<&'a [u8], CmError> {
        let length = usize::try_from(self.length).map_err(|_| CmError::Short)?;
        Ok(reader.take(length)?)
    }
}

/// A Write request: one record, or several in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteRequest<'a> {
    pub outer: RecordAccess,
    data: &'a [u8],
}

/// One record that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteItem<'a> {
    pub access: RecordAccess,
    pub data: &'a [u8],
}

impl<'a> WriteRequest<'a> {
    pub(super) fn parse(blocks: &'a [u8]) -> Result<Self, CmError> {
        let mut reader = Reader::new(blocks);
        let (outer, _) = RecordAccess::read(&mut reader, WRITE_REQ)?;
        let data = outer.data(&mut reader)?;
        finished(WRITE_REQ, reader)?;
        // One that holds nothing would pass as a write of which nothing is judged.
        if outer.index == MULTIPLE && data.is_empty() {
            return Err(CmError::Missing(WRITE_REQ));
        }
        Ok(Self { outer, data })
    }

    /// Each record; the last item is an error where the list does not end cleanly.
    pub fn items(&self) -> WriteItems<'a> {
        WriteItems {
            single: (self.outer.index != MULTIPLE).then_some(WriteItem {
                access: self.outer,
                data: self.data,
            }),
            rest: match self.outer.index {
                MULTIPLE => Reader::new(self.data),
                _ => Reader::new(&[]),
            },
            start: self.data.len(),
        }
    }
}

/// The records of a write.
#[derive(Debug, Clone, Copy)]
pub struct WriteItems<'a> {
    single: Option<WriteItem<'a>>,
    rest: Reader<'a>,
    /// Octets of the whole list: what is padded is padded from its start.
    start: usize,
}

impl<'a> Iterator for WriteItems<'a> {
    type Item = Result<WriteItem<'a>, CmError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(single) = self.single.take() {
            return Some(Ok(single));
        }
        if self.rest.is_empty() {
            return None;
        }
        let item = self.nested();
        if item.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(item)
    }
}

impl<'a> WriteItems<'a> {
    fn nested(&mut self) -> Result<WriteItem<'a>, CmError> {
        let (access, _) = RecordAccess::read(&mut self.rest, WRITE_REQ)?;
        if access.index == MULTIPLE {
            return Err(CmError::Twice(WRITE_REQ));
        }
        let data = access.data(&mut self.rest)?;
        // The next one begins at a multiple of 4.
        let read = self.start - self.rest.rest().len();
        let padding = read.next_multiple_of(4) - read;
        self.rest.take(padding.min(self.rest.rest().len()))?;
        Ok(WriteItem { access, data })
    }
}

/// The answer to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadResponse<'a> {
    pub status: PnioStatus,
    /// Of one that refuses there may be none.
    pub access: Option<RecordAccess>,
    pub data: &'a [u8],
}

impl<'a> ReadResponse<'a> {
    pub(super) fn parse(status: PnioStatus, blocks: &'a [u8]) -> Result<Self, CmError> {
        if blocks.is_empty() {
            return Ok(Self {
                status,
                access: None,
                data: blocks,
            });
        }
        let mut reader = Reader::new(blocks);
        let (access, _) = RecordAccess::read(&mut reader, READ_RES)?;
        let data = access.data(&mut reader)?;
        finished(READ_RES, reader)?;
        Ok(Self {
            status,
            access: Some(access),
            data,
        })
    }
}

/// The answer to a write: of several records, what became of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteResponse<'a> {
    pub status: PnioStatus,
    headers: Reader<'a>,
}

/// What became of one record; that with index 0xE040 speaks of all that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub access: RecordAccess,
    pub status: PnioStatus,
}

impl<'a> WriteResponse<'a> {
    pub(super) fn parse(status: PnioStatus, blocks: &'a [u8]) -> Result<Self, CmError> {
        let headers = Reader::new(blocks);
        let mut reader = headers;
        while finished(WRITE_RES, reader).is_err() {
            Written::read(&mut reader)?;
        }
        Ok(Self { status, headers })
    }

    pub fn items(&self) -> impl Iterator<Item = Written> + use<'a> {
        let mut reader = self.headers;
        // All were read before.
        std::iter::from_fn(move || Written::read(&mut reader).ok())
    }
}

impl Written {
    fn read(reader: &mut Reader<'_>) -> Result<Self, CmError> {
        let (access, mut rest) = RecordAccess::read(reader, WRITE_RES)?;
        rest.u32()?;
        let status = PnioStatus::from_octets(rest.array()?);
        Ok(Self { access, status })
    }
}
