//! The Connect response: what the device makes of what it was asked for.

use super::connect::Blocks;
use super::iocr::IocrKind;
use super::{CmError, RawBlock, finished, uuid};
use crate::frame_id::FrameId;
use crate::mac::Mac;
use crate::reader::Reader;
use crate::rpc::Uuid;
use crate::service::ArType;
use crate::status::PnioStatus;

const AR_RES: u16 = 0x8101;
const IOCR_RES: u16 = 0x8102;
const ALARM_CR_RES: u16 = 0x8103;
const MODULE_DIFF: u16 = 0x8104;

/// The device's answer to a Connect; of one that refuses, the status alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectResponse<'a> {
    pub status: PnioStatus,
    blocks: &'a [u8],
    ar: Option<ArAnswer>,
    alarm_cr: Option<AlarmCrAnswer>,
}

/// ARBlockRes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArAnswer {
    pub ar_type: ArType,
    pub ar_uuid: Uuid,
    pub session_key: u16,
    /// CMResponderMACAdd: the device's address.
    pub mac: Mac,
    pub udp_rt_port: u16,
}

/// IOCRBlockRes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IocrAnswer {
    pub kind: IocrKind,
    pub reference: u16,
    pub frame_id: FrameId,
}

impl<'a> ConnectResponse<'a> {
    pub(super) fn parse(status: PnioStatus, blocks: &'a [u8]) -> Result<Self, CmError> {
        let mut ar = None;
        let mut alarm_cr = None;
        for block in Blocks::new(blocks) {
            let RawBlock { kind, content } = block?;
            let twice = match kind {
                AR_RES => ar.replace(ArAnswer::read(content)?).is_some(),
                ALARM_CR_RES => alarm_cr.replace(AlarmCrAnswer::read(content)?).is_some(),
                IOCR_RES => {
                    IocrAnswer::read(content)?;
                    false
                }
                _ => false,
            };
            if twice {
                return Err(CmError::Twice(kind));
            }
        }
        Ok(Self {
            status,
            blocks,
            ar,
            alarm_cr,
        })
    }

    pub fn ar(&self) -> Option<ArAnswer> {
        self.ar
    }

    /// LocalAlarmReference of the device.
    pub fn alarm_reference(&self) -> Option<u16> {
        self.alarm_cr.map(|alarm| alarm.local_reference)
    }

    pub fn alarm_cr(&self) -> Option<AlarmCrAnswer> {
        self.alarm_cr
    }

    /// The device found other modules than were expected (ModuleDiffBlock).
    pub fn modules_differ(&self) -> bool {
        let mut blocks = Blocks::new(self.blocks).flatten();
        blocks.any(|block| block.kind == MODULE_DIFF)
    }

    pub fn iocrs(&self) -> impl Iterator<Item = IocrAnswer> + use<'a> {
        let blocks = Blocks::new(self.blocks).flatten();
        let blocks = blocks.filter(|block| block.kind == IOCR_RES);
        blocks.filter_map(|block| IocrAnswer::read(block.content).ok())
    }
}

impl ArAnswer {
    fn read(mut content: Reader<'_>) -> Result<Self, CmError> {
        let ar = Self {
            ar_type: ArType::from_code(content.u16()?),
            ar_uuid: uuid(&mut content)?,
            session_key: content.u16()?,
            mac: Mac(content.array()?),
            udp_rt_port: content.u16()?,
        };
        finished(AR_RES, content)?;
        Ok(ar)
    }
}

impl IocrAnswer {
    fn read(mut content: Reader<'_>) -> Result<Self, CmError> {
        let iocr = Self {
            kind: IocrKind::from_code(content.u16()?),
            reference: content.u16()?,
            frame_id: FrameId(content.u16()?),
        };
        finished(IOCR_RES, content)?;
        Ok(iocr)
    }
}

/// AlarmCRBlockRes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmCrAnswer {
    pub kind: u16,
    pub local_reference: u16,
    /// MaxAlarmDataLength, in octets.
    pub max_data: u16,
}

impl AlarmCrAnswer {
    fn read(mut content: Reader<'_>) -> Result<Self, CmError> {
        let alarm = Self {
            kind: content.u16()?,
            local_reference: content.u16()?,
            max_data: content.u16()?,
        };
        finished(ALARM_CR_RES, content)?;
        Ok(alarm)
    }
}
