//! The Connect: who wants what of whom, and what the device makes of it.

use std::time::Duration;

use super::{CmError, RawBlock, uuid};
use crate::frame_id::FrameId;
use crate::mac::Mac;
use crate::name::StationName;
use crate::reader::{Reader, Short};
use crate::rpc::Uuid;
use crate::service::ArType;
use crate::status::PnioStatus;

const AR_REQ: u16 = 0x0101;
const IOCR_REQ: u16 = 0x0102;
const ALARM_CR_REQ: u16 = 0x0103;
const AR_RES: u16 = 0x8101;
const IOCR_RES: u16 = 0x8102;
const ALARM_CR_RES: u16 = 0x8103;

/// One tick of the cycle counter: 31.25 us.
const TICK: Duration = Duration::from_nanos(31_250);

/// A Connect request whose blocks have been read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    blocks: &'a [u8],
    ar: ArBlock<'a>,
    alarm_cr: Option<AlarmCr>,
}

impl<'a> ConnectRequest<'a> {
    pub(super) fn parse(blocks: &'a [u8]) -> Result<Self, CmError> {
        let mut ar = None;
        let mut alarm_cr = None;
        for block in Blocks::new(blocks) {
            let RawBlock { kind, content } = block?;
            let twice = match kind {
                AR_REQ => ar.replace(ArBlock::read(content)?).is_some(),
                ALARM_CR_REQ => alarm_cr.replace(AlarmCr::read(content)?).is_some(),
                IOCR_REQ => {
                    Iocr::read(content)?.check()?;
                    false
                }
                _ => false,
            };
            if twice {
                return Err(CmError::Twice(kind));
            }
        }
        Ok(Self {
            blocks,
            ar: ar.ok_or(CmError::Block {
                got: 0,
                wanted: AR_REQ,
            })?,
            alarm_cr,
        })
    }

    pub fn ar(&self) -> ArBlock<'a> {
        self.ar
    }

    pub fn alarm_cr(&self) -> Option<AlarmCr> {
        self.alarm_cr
    }

    pub fn iocrs(&self) -> impl Iterator<Item = Iocr<'a>> + use<'a> {
        // Each was read before.
        let blocks = Blocks::new(self.blocks).flatten();
        let blocks = blocks.filter(|block| block.kind == IOCR_REQ);
        blocks.filter_map(|block| Iocr::read(block.content).ok())
    }
}

/// The blocks of a message; padding with zeros between them is left out.
struct Blocks<'a>(Reader<'a>);

impl<'a> Blocks<'a> {
    fn new(blocks: &'a [u8]) -> Self {
        Self(Reader::new(blocks))
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Result<RawBlock<'a>, CmError>;

    fn next(&mut self) -> Option<Self::Item> {
        // No block of a Connect has a type below 0x0100.
        while self.0.rest().first() == Some(&0) {
            let _ = self.0.u8();
        }
        if self.0.is_empty() {
            return None;
        }
        let block = RawBlock::read(&mut self.0);
        if block.is_err() {
            self.0 = Reader::new(&[]);
        }
        Some(block)
    }
}

/// ARBlockReq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArBlock<'a> {
    pub ar_type: ArType,
    pub ar_uuid: Uuid,
    pub session_key: u16,
    /// CMInitiatorMACAdd: the controller's address.
    pub mac: Mac,
    pub object: Uuid,
    pub properties: ArProperties,
    /// In units of 100 ms.
    pub activity_timeout_100ms: u16,
    pub udp_rt_port: u16,
    /// CMInitiatorStationName, as it stands there.
    pub station_name: &'a [u8],
}

/// ARProperties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArProperties(pub u32);

impl ArProperties {
    /// Bit 8: records only, no data.
    pub fn device_access(self) -> bool {
        self.0 & 0x100 != 0
    }
}

impl<'a> ArBlock<'a> {
    fn read(mut content: Reader<'a>) -> Result<Self, Short> {
        Ok(Self {
            ar_type: ArType::from_code(content.u16()?),
            ar_uuid: uuid(&mut content)?,
            session_key: content.u16()?,
            mac: Mac(content.array()?),
            object: uuid(&mut content)?,
            properties: ArProperties(content.u32()?),
            activity_timeout_100ms: content.u16()?,
            udp_rt_port: content.u16()?,
            station_name: {
                let length = content.u16()?;
                content.take(length.into())?
            },
        })
    }

    /// The controller's name-of-station, where it is one.
    pub fn name(&self) -> Option<StationName> {
        std::str::from_utf8(self.station_name).ok()?.parse().ok()
    }
}

/// IOCRType.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IocrKind {
    Input,
    Output,
    MulticastProvider,
    MulticastConsumer,
    Other(u16),
}

impl IocrKind {
    fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Input,
            2 => Self::Output,
            3 => Self::MulticastProvider,
            4 => Self::MulticastConsumer,
            other => Self::Other(other),
        }
    }
}

/// IOCRBlockReq: one direction of cyclic data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iocr<'a> {
    pub kind: IocrKind,
    pub reference: u16,
    /// EtherType of the data: 0x8892, or 0x0800 for RT_CLASS_UDP.
    pub lt: u16,
    pub properties: u32,
    /// Octets of C_SDU.
    pub data_length: u16,
    pub frame_id: FrameId,
    /// In ticks of 31.25 us.
    pub send_clock: u16,
    /// Every how many send clocks.
    pub reduction_ratio: u16,
    pub phase: u16,
    pub watchdog_factor: u16,
    pub data_hold_factor: u16,
    pub tag_header: u16,
    apis: Reader<'a>,
    api_count: u16,
}

impl<'a> Iocr<'a> {
    fn read(mut content: Reader<'a>) -> Result<Self, Short> {
        let kind = IocrKind::from_code(content.u16()?);
        let reference = content.u16()?;
        let lt = content.u16()?;
        let properties = content.u32()?;
        let data_length = content.u16()?;
        let frame_id = FrameId(content.u16()?);
        let send_clock = content.u16()?;
        let reduction_ratio = content.u16()?;
        let phase = content.u16()?;
        content.u16()?;
        content.u32()?;
        let watchdog_factor = content.u16()?;
        let data_hold_factor = content.u16()?;
        let tag_header = content.u16()?;
        content.take(6)?;
        let api_count = content.u16()?;
        Ok(Self {
            kind,
            reference,
            lt,
            properties,
            data_length,
            frame_id,
            send_clock,
            reduction_ratio,
            phase,
            watchdog_factor,
            data_hold_factor,
            tag_header,
            apis: content,
            api_count,
        })
    }

    /// Low nibble of IOCRProperties: 1 and 2 unsynchronised, 3 isochronous, 4 over UDP.
    pub fn rt_class(&self) -> u8 {
        (self.properties & 0x0f) as u8
    }

    /// Time from frame to frame.
    pub fn cycle(&self) -> Duration {
        TICK * u32::from(self.send_clock) * u32::from(self.reduction_ratio)
    }

    pub fn watchdog(&self) -> Duration {
        self.cycle().saturating_mul(self.watchdog_factor.into())
    }

    pub fn data_hold(&self) -> Duration {
        self.cycle().saturating_mul(self.data_hold_factor.into())
    }

    /// The lists of objects end where the block ends, and lie within the data.
    fn check(&self) -> Result<(), CmError> {
        let mut content = self.apis;
        for _ in 0..self.api_count {
            content.u32()?;
            for _ in 0..2 {
                let count = content.u16()?;
                for _ in 0..count {
                    content.u32()?;
                    content.u16()?;
                }
            }
        }
        Ok(())
    }
}

/// AlarmCRBlockReq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmCr {
    pub kind: u16,
    pub lt: u16,
    pub properties: u32,
    /// RTATimeoutFactor, in units of 100 ms.
    pub timeout_factor: u16,
    pub retries: u16,
    pub local_reference: u16,
    pub max_data: u16,
}

impl AlarmCr {
    fn read(mut content: Reader<'_>) -> Result<Self, Short> {
        Ok(Self {
            kind: content.u16()?,
            lt: content.u16()?,
            properties: content.u32()?,
            timeout_factor: content.u16()?,
            retries: content.u16()?,
            local_reference: content.u16()?,
            max_data: content.u16()?,
        })
    }
}

/// The device's answer to a Connect; of one that refuses, the status alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectResponse<'a> {
    pub status: PnioStatus,
    blocks: &'a [u8],
    ar: Option<ArAnswer>,
    alarm_cr: Option<u16>,
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
            let RawBlock { kind, mut content } = block?;
            match kind {
                AR_RES => {
                    ar = Some(ArAnswer {
                        ar_type: ArType::from_code(content.u16()?),
                        ar_uuid: uuid(&mut content)?,
                        session_key: content.u16()?,
                        mac: Mac(content.array()?),
                        udp_rt_port: content.u16()?,
                    });
                }
                ALARM_CR_RES => {
                    content.u16()?;
                    alarm_cr = Some(content.u16()?);
                }
                IOCR_RES => {
                    IocrAnswer::read(content)?;
                }
                _ => {}
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
        self.alarm_cr
    }

    pub fn iocrs(&self) -> impl Iterator<Item = IocrAnswer> + use<'a> {
        let blocks = Blocks::new(self.blocks).flatten();
        let blocks = blocks.filter(|block| block.kind == IOCR_RES);
        blocks.filter_map(|block| IocrAnswer::read(block.content).ok())
    }
}

impl IocrAnswer {
    fn read(mut content: Reader<'_>) -> Result<Self, Short> {
        Ok(Self {
            kind: IocrKind::from_code(content.u16()?),
            reference: content.u16()?,
            frame_id: FrameId(content.u16()?),
        })
    }
}
