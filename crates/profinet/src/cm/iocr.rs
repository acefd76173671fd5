//! What an AR's cyclic data is like (IOCRBlockReq).

use std::time::Duration;

use super::{CmError, finished};
use crate::frame_id::FrameId;
use crate::mac::Mac;
use crate::reader::{Reader, Short};

pub(super) const IOCR_REQ: u16 = 0x0102;

/// One tick of the cycle counter: 31.25 us.
const TICK: Duration = Duration::from_nanos(31_250);

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
    pub(super) fn from_code(code: u16) -> Self {
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
    pub sequence: u16,
    /// In nanoseconds from the start of the phase; all ones: as soon as possible.
    pub frame_send_offset: u32,
    pub watchdog_factor: u16,
    pub data_hold_factor: u16,
    pub tag_header: u16,
    /// Of multicast relations; zero otherwise.
    pub multicast: Mac,
    apis: Reader<'a>,
    api_count: u16,
}

impl<'a> Iocr<'a> {
    pub(super) fn read(mut content: Reader<'a>) -> Result<Self, Short> {
        let kind = IocrKind::from_code(content.u16()?);
        let reference = content.u16()?;
        let lt = content.u16()?;
        let properties = content.u32()?;
        let data_length = content.u16()?;
        let frame_id = FrameId(content.u16()?);
        let send_clock = content.u16()?;
        let reduction_ratio = content.u16()?;
        let phase = content.u16()?;
        let sequence = content.u16()?;
        let frame_send_offset = content.u32()?;
        let watchdog_factor = content.u16()?;
        let data_hold_factor = content.u16()?;
        let tag_header = content.u16()?;
        let multicast = Mac(content.array()?);
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
            sequence,
            frame_send_offset,
            watchdog_factor,
            data_hold_factor,
            tag_header,
            multicast,
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

    /// What lies where in the data, per application process.
    pub fn apis(&self) -> impl Iterator<Item = IocrApi<'a>> + use<'a> {
        let mut content = self.apis;
        (0..self.api_count).map_while(move |_| IocrApi::read(&mut content).ok())
    }

    /// The lists end where the block ends, and what they name lies within the data.
    pub(super) fn check(&self) -> Result<(), CmError> {
        let mut content = self.apis;
        let data_length = self.data_length;
        for _ in 0..self.api_count {
            let IocrApi { data, status, .. } = IocrApi::read(&mut content)?;
            let outside = data.chain(status).find(|at| at.offset >= data_length);
            if let Some(IoPlace { offset, .. }) = outside {
                return Err(CmError::Offset {
                    offset,
                    data_length,
                });
            }
        }
        finished(IOCR_REQ, content)
    }
}

/// The part of an IOCR's data that belongs to one application process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IocrApi<'a> {
    pub api: u32,
    /// IODataObjects: data, each with the status of its provider (IOPS) behind it.
    pub data: IoPlaces<'a>,
    /// IOCS: the consumer's status of what the other direction brings.
    pub status: IoPlaces<'a>,
}

impl<'a> IocrApi<'a> {
    fn read(content: &mut Reader<'a>) -> Result<Self, Short> {
        Ok(Self {
            api: content.u32()?,
            data: IoPlaces::read(content)?,
            status: IoPlaces::read(content)?,
        })
    }
}

/// Where something of a submodule lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPlace {
    pub slot: u16,
    pub subslot: u16,
    /// In octets from the start of C_SDU.
    pub offset: u16,
}

/// A list of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPlaces<'a>(Reader<'a>);

impl<'a> IoPlaces<'a> {
    fn read(content: &mut Reader<'a>) -> Result<Self, Short> {
        let count = content.u16()?;
        Ok(Self(content.sub(usize::from(count) * 6)?))
    }
}

impl Iterator for IoPlaces<'_> {
    type Item = IoPlace;

    fn next(&mut self) -> Option<IoPlace> {
        Some(IoPlace {
            slot: self.0.u16().ok()?,
            subslot: self.0.u16().ok()?,
            offset: self.0.u16().ok()?,
        })
    }
}
