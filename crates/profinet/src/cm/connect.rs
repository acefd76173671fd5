//! The Connect request: who wants what of whom.

use super::expected::{ExpectedSubmodule, ExpectedSubmodules};
use super::iocr::{IOCR_REQ, Iocr};
use super::{CmError, RawBlock, finished, uuid};
use crate::mac::Mac;
use crate::name::StationName;
use crate::reader::Reader;
use crate::rpc::Uuid;
use crate::service::ArType;

const AR_REQ: u16 = 0x0101;
const ALARM_CR_REQ: u16 = 0x0103;
const EXPECTED_SUBMODULE: u16 = 0x0104;

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
                EXPECTED_SUBMODULE => {
                    ExpectedSubmodules::new(content).check()?;
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
            ar: ar.ok_or(CmError::Missing(AR_REQ))?,
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
        // Each was read before, as were the blocks of the iterators below.
        let blocks = self.blocks().filter(|block| block.kind == IOCR_REQ);
        blocks.filter_map(|block| Iocr::read(block.content).ok())
    }

    /// The modules and submodules that the controller expects to find.
    pub fn expected(&self) -> impl Iterator<Item = ExpectedSubmodule> + use<'a> {
        let blocks = self.blocks();
        let blocks = blocks.filter(|block| block.kind == EXPECTED_SUBMODULE);
        blocks.flat_map(|block| ExpectedSubmodules::new(block.content).flatten())
    }

    /// Type and length of the blocks that have no meaning here (PrmServer, MCR, ARRPC, IRInfo,
    /// ARVendor, ARFSU ...); the length is that of the content behind the version.
    pub fn others(&self) -> impl Iterator<Item = (u16, usize)> + use<'a> {
        let known = [AR_REQ, IOCR_REQ, ALARM_CR_REQ, EXPECTED_SUBMODULE];
        let blocks = self.blocks();
        let blocks = blocks.filter(move |block| !known.contains(&block.kind));
        blocks.map(|block| (block.kind, block.content.rest().len()))
    }

    fn blocks(&self) -> impl Iterator<Item = RawBlock<'a>> + use<'a> {
        Blocks::new(self.blocks).flatten()
    }
}

/// The blocks of a message; padding with zeros between them is left out.
pub(super) struct Blocks<'a>(Reader<'a>);

impl<'a> Blocks<'a> {
    pub(super) fn new(blocks: &'a [u8]) -> Self {
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
    /// Bits 0 to 2: 1 is active, anything else reserved.
    pub fn state(self) -> u8 {
        (self.0 & 0x7) as u8
    }

    /// Bit 3: a supervisor may take the AR's submodules over.
    pub fn supervisor_takeover_allowed(self) -> bool {
        self.0 & 0x8 != 0
    }

    /// Bit 4: the controller itself writes the parameters, no other server.
    pub fn initiator_sets_parameters(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Bit 8: records only, no data.
    pub fn device_access(self) -> bool {
        self.0 & 0x100 != 0
    }

    /// Bits 9 and 10: 0 a single AR, 1 the first of a pair, 2 its companion.
    pub fn companion(self) -> u8 {
        (self.0 >> 9 & 0x3) as u8
    }

    /// Bit 30: the advanced start-up.
    pub fn advanced_startup(self) -> bool {
        self.0 & 1 << 30 != 0
    }
}

impl<'a> ArBlock<'a> {
    fn read(mut content: Reader<'a>) -> Result<Self, CmError> {
        let ar = Self {
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
        };
        finished(AR_REQ, content)?;
        Ok(ar)
    }

    /// The controller's name-of-station, where it is one.
    pub fn name(&self) -> Option<StationName> {
        std::str::from_utf8(self.station_name).ok()?.parse().ok()
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
    /// 802.1Q tags of alarms of high and low priority.
    pub tag_high: u16,
    pub tag_low: u16,
}

impl AlarmCr {
    fn read(mut content: Reader<'_>) -> Result<Self, CmError> {
        let alarm = Self {
            kind: content.u16()?,
            lt: content.u16()?,
            properties: content.u32()?,
            timeout_factor: content.u16()?,
            retries: content.u16()?,
            local_reference: content.u16()?,
            max_data: content.u16()?,
            tag_high: content.u16()?,
            tag_low: content.u16()?,
        };
        finished(ALARM_CR_REQ, content)?;
        Ok(alarm)
    }
}
