//! Control blocks: parameters end, the application is ready, the AR is released.

use super::{CmError, RawBlock, uuid};
use crate::reader::{Reader, Short};
use crate::rpc::Uuid;
use crate::status::PnioStatus;

const PRM_END: u16 = 0x0110;
const RELEASE: u16 = 0x0114;
/// Every other one of the same form, up to PrmBegin.
const LAST: u16 = 0x0118;
/// What makes the type of an answer out of that of a request.
const ANSWER: u16 = 0x8000;

/// A control block: PrmEnd, ApplicationReady, Release, and others of the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// 0x0110 PrmEnd, 0x0112 ApplicationReady, 0x0114 Release, 0x0116 ReadyForCompanion, 0x0117
    /// ReadyForRT_CLASS_3, 0x0118 PrmBegin; 0x0111 and 0x0113 after a plug. Of an answer 0x8000
    /// is added.
    pub block: u16,
    pub ar_uuid: Uuid,
    pub session_key: u16,
    /// A bit for each command; bit 3 in an answer: done.
    pub command: u16,
    pub properties: u16,
}

impl Control {
    pub(super) fn of_release(blocks: &[u8]) -> Result<Self, CmError> {
        match RawBlock::read(&mut Reader::new(blocks))? {
            block if block.kind == RELEASE => Ok(Self::read(block)?),
            block => Err(wrong(block.kind, RELEASE)),
        }
    }

    /// Blocks that follow (ModuleDiffBlock) have no meaning here.
    pub(super) fn of_control(blocks: &[u8]) -> Result<Self, CmError> {
        match RawBlock::read(&mut Reader::new(blocks))? {
            block if (PRM_END..=LAST).contains(&block.kind) && block.kind != RELEASE => {
                Ok(Self::read(block)?)
            }
            block => Err(wrong(block.kind, PRM_END)),
        }
    }

    fn read(RawBlock { kind, mut content }: RawBlock<'_>) -> Result<Self, Short> {
        content.u16()?;
        let ar_uuid = uuid(&mut content)?;
        let session_key = content.u16()?;
        content.u16()?;
        Ok(Self {
            block: kind,
            ar_uuid,
            session_key,
            command: content.u16()?,
            properties: content.u16()?,
        })
    }
}

fn wrong(got: u16, wanted: u16) -> CmError {
    CmError::Block { got, wanted }
}

/// The answer to a control block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlResponse {
    pub status: PnioStatus,
    /// Of one that refuses there may be none.
    pub control: Option<Control>,
}

impl ControlResponse {
    pub(super) fn parse(status: PnioStatus, blocks: &[u8]) -> Result<Self, CmError> {
        let mut reader = Reader::new(blocks);
        let control = match blocks.is_empty() {
            true => None,
            false => match RawBlock::read(&mut reader)? {
                block if (ANSWER | PRM_END..=ANSWER | LAST).contains(&block.kind) => {
                    Some(Control::read(block)?)
                }
                block => return Err(wrong(block.kind, ANSWER | PRM_END)),
            },
        };
        Ok(Self { status, control })
    }
}
