//! What a Connect may ask for, so that the relation can be carried over a tunnel at all.
//!
//! A gateway that can't keep what an AR needs has to say so when it is opened, not by its loss.

use std::time::Duration;

use thiserror::Error;

use crate::cm::{ArBlock, ConnectRequest, Iocr, IocrKind};
use crate::eth;
use crate::frame_id::{FrameId, Kind};
use crate::mac::Mac;
use crate::service::ArType;
use crate::status::PnioStatus;

/// IOCRs of one AR, at most: two per direction are common, more are rare.
pub const MAX_CRS: usize = 8;

/// Longest C_SDU of real-time class 1, in octets.
pub const MAX_DATA: u16 = 1440;

/// Longest watchdog: the consumer's counter window covers 61,440 ticks of 31.25 us.
pub const MAX_WATCHDOG: Duration = Duration::from_micros(1_920_000);

/// FrameID of an output IOCR that the device is to assign.
pub const ASSIGNED_BY_DEVICE: FrameId = FrameId(0xffff);

/// Why an AR can't be carried. The texts are for the engineer who planned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unfit {
    #[error(
        "IOCR {reference} asks for RT_CLASS_3 (IRT, isochronous): its schedule of microseconds \
         holds on one synchronised network only and can't cross a tunnel; plan the device with \
         real-time class RT"
    )]
    Irt { reference: u16 },
    #[error(
        "IOCR {reference} asks for RT_CLASS_UDP, which is not carried; plan the device with \
         real-time class RT"
    )]
    RtOverUdp { reference: u16 },
    #[error("IOCR {reference} asks for real-time class {class}, which does not exist")]
    RtClass { reference: u16, class: u8 },
    #[error(
        "IOCR {reference} is a multicast relation (device-to-device data), which is not carried"
    )]
    Multicast { reference: u16 },
    #[error("IOCR {reference} has FrameID {frame_id}, which is not one of cyclic unicast data")]
    FrameId { reference: u16, frame_id: FrameId },
    #[error("IOCR {reference} has {length} octets of data, at most {MAX_DATA} are possible")]
    DataLength { reference: u16, length: u16 },
    #[error(
        "IOCR {reference} has a watchdog of {watchdog:?}, possible are 1 tick to {MAX_WATCHDOG:?}"
    )]
    Watchdog { reference: u16, watchdog: Duration },
    #[error("more than {MAX_CRS} IOCRs in one AR")]
    TooManyIocrs,
    #[error(
        "two IOCRs with the same reference in one AR, or with the same FrameID in one direction"
    )]
    SameIocr,
    #[error(
        "IOCR {reference} has FrameID {frame_id}, under which another AR of the two stations has \
         data in the same direction"
    )]
    TakenFrameId { reference: u16, frame_id: FrameId },
    #[error("AR type {} ({code:#06x}) is not carried", ArType::from_code(*code).name())]
    ArType { code: u16 },
    #[error("the answer to the Connect is about another AR, or about none")]
    OtherAr,
    #[error("the Connect names {named} as the controller, but comes from {from}")]
    InitiatorMac { named: Mac, from: Mac },
}

impl Unfit {
    /// What the controller is told: an IODConnectRes error (0xDB, PNIO 0x81) that names the block
    /// and its field at fault.
    pub fn status(&self) -> PnioStatus {
        // ErrorCode1: 1 ARBlockReq, 2 IOCRBlockReq, 50 ARBlockRes, 0x40 CMRPC. ErrorCode2: the field, counted from
        // BlockType as 0; of CMRPC 4 is "out of AR resources".
        let (code1, code2) = match self {
            Self::ArType { .. } => (1, 4),
            Self::InitiatorMac { .. } => (1, 7),
            Self::Multicast { .. } => (2, 4),
            Self::SameIocr => (2, 5),
            Self::RtOverUdp { .. } => (2, 6),
            Self::Irt { .. } | Self::RtClass { .. } => (2, 7),
            Self::DataLength { .. } => (2, 8),
            Self::FrameId { .. } | Self::TakenFrameId { .. } => (2, 9),
            Self::Watchdog { .. } => (2, 15),
            Self::OtherAr => (50, 5),
            Self::TooManyIocrs => (0x40, 4),
        };
        PnioStatus {
            code: 0xdb,
            decode: 0x81,
            code1,
            code2,
        }
    }
}

/// Judges a Connect that came from `from`, beside any policy.
pub fn check(request: &ConnectRequest<'_>, from: Mac) -> Result<(), Unfit> {
    let ar = request.ar();
    check_ar(&ar, from)?;
    let mut seen: [Option<Iocr<'_>>; MAX_CRS] = [None; MAX_CRS];
    for (index, iocr) in request.iocrs().enumerate() {
        check_iocr(&iocr)?;
        // A FrameID belongs to its consumer: the two directions may have the same.
        let same = |other: &Iocr<'_>| {
            let open = iocr.frame_id == ASSIGNED_BY_DEVICE;
            let data = other.kind == iocr.kind && other.frame_id == iocr.frame_id && !open;
            other.reference == iocr.reference || data
        };
        if seen.iter().flatten().any(same) {
            return Err(Unfit::SameIocr);
        }
        *seen.get_mut(index).ok_or(Unfit::TooManyIocrs)? = Some(iocr);
    }
    Ok(())
}

fn check_ar(ar: &ArBlock<'_>, from: Mac) -> Result<(), Unfit> {
    let code = match ar.ar_type {
        ArType::IoController | ArType::Supervisor => None,
        ArType::RtClass3 => Some(0x0010),
        ArType::Redundant => Some(0x0020),
        ArType::Other(code) => Some(code),
    };
    if let Some(code) = code {
        return Err(Unfit::ArType { code });
    }
    if ar.mac != from {
        return Err(Unfit::InitiatorMac {
            named: ar.mac,
            from,
        });
    }
    Ok(())
}

fn check_iocr(iocr: &Iocr<'_>) -> Result<(), Unfit> {
    let reference = iocr.reference;
    match iocr.kind {
        IocrKind::Input | IocrKind::Output => {}
        IocrKind::MulticastProvider | IocrKind::MulticastConsumer | IocrKind::Other(_) => {
            return Err(Unfit::Multicast { reference });
        }
    }
    // Classes 1 and 2 differ in their FrameIDs only, where nothing is synchronised.
    match iocr.rt_class() {
        1 | 2 => {}
        3 => return Err(Unfit::Irt { reference }),
        4 => return Err(Unfit::RtOverUdp { reference }),
        class => return Err(Unfit::RtClass { reference, class }),
    }
    if iocr.lt != eth::PROFINET {
        return Err(Unfit::RtOverUdp { reference });
    }
    if iocr.data_length > MAX_DATA {
        let length = iocr.data_length;
        return Err(Unfit::DataLength { reference, length });
    }
    let watchdog = iocr.watchdog();
    if watchdog.is_zero() || watchdog > MAX_WATCHDOG {
        return Err(Unfit::Watchdog {
            reference,
            watchdog,
        });
    }
    check_frame_id(iocr.kind, reference, iocr.frame_id)
}

/// The controller names the FrameIDs that it consumes; those that the device consumes it may leave
/// to the device.
fn check_frame_id(kind: IocrKind, reference: u16, frame_id: FrameId) -> Result<(), Unfit> {
    let open = kind == IocrKind::Output && frame_id == ASSIGNED_BY_DEVICE;
    match frame_id.kind() {
        Kind::Cyclic => Ok(()),
        _ if open => Ok(()),
        Kind::Irt => Err(Unfit::Irt { reference }),
        _ => Err(Unfit::FrameId {
            reference,
            frame_id,
        }),
    }
}
