//! Records: what is read and written, where.

use super::{CmError, RawBlock, uuid};
use crate::reader::Reader;
use crate::rpc::Uuid;
use crate::status::PnioStatus;

const WRITE_REQ: u16 = 0x0008;
const READ_REQ: u16 = 0x0009;
const READ_RES: u16 = 0x8009;

/// Index of a write that holds several.
const MULTIPLE: u16 = 0xe040;

/// Which record: IODReadReqHeader, IODWriteReqHeader.
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
}

impl RecordAccess {
    pub(super) fn read_request(blocks: &[u8]) -> Result<Self, CmError> {
        Self::read(RawBlock::of(&mut Reader::new(blocks), READ_REQ)?)
    }

    fn read(mut content: Reader<'_>) -> Result<Self, CmError> {
        let sequence = content.u16()?;
        let ar_uuid = uuid(&mut content)?;
        let api = content.u32()?;
        let slot = content.u16()?;
        let subslot = content.u16()?;
        content.u16()?;
        Ok(Self {
            sequence,
            ar_uuid,
            api,
            slot,
            subslot,
            index: content.u16()?,
            length: content.u32()?,
        })
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
        let outer = RecordAccess::read(RawBlock::of(&mut reader, WRITE_REQ)?)?;
        let length = usize::try_from(outer.length).map_err(|_| CmError::Short)?;
        let data = reader.take(length)?;
        if reader.rest().len() > 3 {
            return Err(CmError::Trailing);
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
        let access = RecordAccess::read(RawBlock::of(&mut self.rest, WRITE_REQ)?)?;
        if access.index == MULTIPLE {
            return Err(CmError::Twice(WRITE_REQ));
        }
        let length = usize::try_from(access.length).map_err(|_| CmError::Short)?;
        let data = self.rest.take(length)?;
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
        let access = RecordAccess::read(RawBlock::of(&mut reader, READ_RES)?)?;
        let length = usize::try_from(access.length).map_err(|_| CmError::Short)?;
        Ok(Self {
            status,
            access: Some(access),
            data: reader.take(length)?,
        })
    }
}
