//! Alarms: RTA PDUs of the acknowledged acyclic protocol of an AR.
//!
//! | octets | field |
//! |---|---|
//! | 2, 2 | alarm endpoints: destination, source |
//! | 1 | PDUType: low nibble type, high nibble version (1) |
//! | 1 | AddFlags: low nibble window size, bit 4 TACK |
//! | 2, 2 | SendSeqNum, AckSeqNum |
//! | 2 | VarPartLen |
//! | n | an alarm, its acknowledgement, or a PNIOStatus |
//!
//! Source: IEC 61158-6-10, 4.8 and 5.2.

use thiserror::Error;

use crate::reader::{Reader, Short};

/// Octets before the variable part.
pub const HEADER: usize = 12;

/// An RTA PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rta<'a> {
    /// LocalAlarmReference of the receiver, as the CM told it.
    pub destination: u16,
    pub source: u16,
    /// 1 to 15 PDUs may be under way.
    pub window: u8,
    /// The receiver acknowledges at once.
    pub tack: bool,
    /// Begins at 0xffff.
    pub send_sequence: u16,
    pub ack_sequence: u16,
    pub body: Body<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// [`Notice::parse`] reads it.
    Data(&'a [u8]),
    Nack,
    Ack,
    /// The sender ends the AR.
    Err {
        /// PNIOStatus: ErrorCode, ErrorDecode, ErrorCode1, ErrorCode2.
        status: [u8; 4],
        /// Behind it, of the vendor.
        vendor: &'a [u8],
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AlarmError {
    #[error("alarm PDU is cut short")]
    Short,
    #[error("alarm PDU of type {0:#04x}; known are data, nack, ack and err, of version 1")]
    Type(u8),
    #[error("alarm acknowledgement with {0} octets of data")]
    AckWithData(usize),
    #[error("alarm block of type {0:#06x}")]
    Block(u16),
    #[error("alarm block of version {0}.{1}")]
    Version(u8, u8),
    #[error("alarm block {block:#06x} of {length} octets in {found}")]
    Length {
        block: u16,
        length: u16,
        found: usize,
    },
}

impl From<Short> for AlarmError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl<'a> Rta<'a> {
    /// Reads what stands behind the FrameID; what is behind VarPartLen is padding.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, AlarmError> {
        let mut reader = Reader::new(bytes);
        let (destination, source) = (reader.u16()?, reader.u16()?);
        let (pdu_type, flags) = (reader.u8()?, reader.u8()?);
        let (send_sequence, ack_sequence) = (reader.u16()?, reader.u16()?);
        let length = reader.u16()?;
        let mut part = reader.sub(length.into())?;
        let body = match pdu_type {
            0x11 => Body::Data(part.rest()),
            0x12 | 0x13 if !part.is_empty() => return Err(AlarmError::AckWithData(length.into())),
            0x12 => Body::Nack,
            0x13 => Body::Ack,
            0x14 => Body::Err {
                status: part.array()?,
                vendor: part.rest(),
            },
            other => return Err(AlarmError::Type(other)),
        };
        Ok(Self {
            destination,
            source,
            window: flags & 0x0f,
            tack: flags & 0x10 != 0,
            send_sequence,
            ack_sequence,
            body,
        })
    }
}

/// What a DATA PDU carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    Alarm(Notification<'a>),
    /// The receiver of an alarm is done with it, or not: PNIOStatus.
    Ack(About, [u8; 4]),
}

/// Which alarm of which submodule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// By its block; the FrameID says it too.
    pub high: bool,
    pub alarm_type: u16,
    pub api: u32,
    pub slot: u16,
    pub subslot: u16,
    pub specifier: Specifier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    pub about: About,
    pub module: u32,
    pub submodule: u32,
    /// UserStructureIdentifier and its data, any number of times.
    pub items: &'a [u8],
}

/// AlarmSpecifier: bits 0 to 10 a sequence number, then what kind of diagnosis there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Specifier(pub u16);

impl Specifier {
    /// 0 to 2047.
    pub fn sequence(self) -> u16 {
        self.0 & 0x07ff
    }

    pub fn channel_diagnosis(self) -> bool {
        self.0 & 0x0800 != 0
    }

    pub fn manufacturer_diagnosis(self) -> bool {
        self.0 & 0x1000 != 0
    }

    pub fn submodule_diagnosis(self) -> bool {
        self.0 & 0x2000 != 0
    }

    pub fn ar_diagnosis(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

impl<'a> Notice<'a> {
    /// Reads [`Body::Data`]: one block that fills it.
    pub fn parse(data: &'a [u8]) -> Result<Self, AlarmError> {
        let mut reader = Reader::new(data);
        let (block, length) = (reader.u16()?, reader.u16()?);
        let high = match block {
            0x0001 | 0x8001 => true,
            0x0002 | 0x8002 => false,
            other => return Err(AlarmError::Block(other)),
        };
        let found = reader.rest().len();
        let wrong = AlarmError::Length {
            block,
            length,
            found,
        };
        if found != usize::from(length) {
            return Err(wrong);
        }
        match (reader.u8()?, reader.u8()?) {
            (1, 0) => {}
            (major, minor) => return Err(AlarmError::Version(major, minor)),
        }
        let mut body = || {
            let (alarm_type, api) = (reader.u16()?, reader.u32()?);
            let (slot, subslot) = (reader.u16()?, reader.u16()?);
            let about = |specifier| About {
                high,
                alarm_type,
                api,
                slot,
                subslot,
                specifier: Specifier(specifier),
            };
            if block & 0x8000 != 0 {
                let about = about(reader.u16()?);
                let status = reader.array()?;
                return match reader.is_empty() {
                    true => Ok(Self::Ack(about, status)),
                    false => Err(Short),
                };
            }
            let (module, submodule) = (reader.u32()?, reader.u32()?);
            Ok(Self::Alarm(Notification {
                about: about(reader.u16()?),
                module,
                submodule,
                items: reader.rest(),
            }))
        };
        body().map_err(|Short| wrong)
    }

    pub fn about(&self) -> &About {
        match self {
            Self::Alarm(notification) => &notification.about,
            Self::Ack(about, _) => about,
        }
    }
}

/// The name of an AlarmType for people.
pub fn type_name(alarm_type: u16) -> &'static str {
    match alarm_type {
        0x0001 => "diagnosis",
        0x0002 => "process",
        0x0003 => "pull",
        0x0004 => "plug",
        0x0005 => "status",
        0x0006 => "update",
        0x0007 => "media redundancy",
        0x0008 => "controlled by supervisor",
        0x0009 => "released",
        0x000a => "plug wrong submodule",
        0x000b => "return of submodule",
        0x000c => "diagnosis disappears",
        0x000d => "multicast communication mismatch",
        0x000e => "port data change",
        0x000f => "sync data change",
        0x0010 => "isochronous mode problem",
        0x0011 => "network component problem",
        0x0012 => "time data change",
        0x0013 => "dynamic frame packing problem",
        0x0014 => "MRPD problem",
        0x0015 => "system redundancy",
        0x0016 => "multiple interface mismatch",
        0x001e => "upload and retrieval",
        0x001f => "pull module",
        0x0020..=0x007f => "manufacturer specific",
        _ => "reserved",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Behind the FrameID: endpoints 1 and 2, window 1.
    fn rta(pdu_type: u8, part: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 1, 0, 2, pdu_type, 0x11, 0xff, 0xff, 0xff, 0xfe];
        out.extend((part.len() as u16).to_be_bytes());
        out.extend(part);
        out
    }

    fn block(block: u16, body: &[u8]) -> Vec<u8> {
        let mut out = block.to_be_bytes().to_vec();
        out.extend((body.len() as u16).to_be_bytes());
        out.extend(body);
        out
    }

    const ALARM: &[u8] = b"\x01\0\0\x01\0\0\0\x01\0\x02\0\x03\0\0\0\x04\0\0\0\x05\xb8\x07";
    const ACK: &[u8] = b"\x01\0\0\x01\0\0\0\x01\0\x02\0\x03\xb8\x07\xda\x81\x3c\x01";

    const ABOUT: About = About {
        high: true,
        alarm_type: 1,
        api: 1,
        slot: 2,
        subslot: 3,
        specifier: Specifier(0xb807),
    };

    #[test]
    fn every_type_has_its_body() {
        let status = [0xcf, 0x81, 0xfd, 5];
        for (bytes, body) in [
            (rta(0x11, &[1, 2]), Body::Data(&[1, 2])),
            (rta(0x12, &[]), Body::Nack),
            (rta(0x13, &[]), Body::Ack),
            (
                rta(0x14, &status),
                Body::Err {
                    status,
                    vendor: &[],
                },
            ),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(Rta::parse(&bytes[..end]), Err(AlarmError::Short));
            }
            let padded = [&bytes[..], &[0; 20]].concat();
            let expected = Rta {
                destination: 1,
                source: 2,
                window: 1,
                tack: true,
                send_sequence: 0xffff,
                ack_sequence: 0xfffe,
                body,
            };
            assert_eq!(Rta::parse(&padded), Ok(expected));
        }
    }

    #[test]
    fn other_types_and_lengths_are_refused() {
        for pdu_type in (0..=255).filter(|code| !(0x11..=0x14).contains(code)) {
            let bytes = rta(pdu_type, &[]);
            assert_eq!(Rta::parse(&bytes), Err(AlarmError::Type(pdu_type)));
        }
        assert_eq!(
            Rta::parse(&rta(0x13, &[0])),
            Err(AlarmError::AckWithData(1))
        );
        assert_eq!(
            Rta::parse(&rta(0x12, &[0; 4])),
            Err(AlarmError::AckWithData(4))
        );
        assert_eq!(Rta::parse(&rta(0x14, &[0; 3])), Err(AlarmError::Short));
    }

    #[test]
    fn alarms_and_acknowledgements_say_what_they_are_about() {
        let with_item = [ALARM, b"\x80\0\x01"].concat();
        let alarm = block(1, &with_item);
        let notice = Notice::parse(&alarm).unwrap();
        let expected = Notification {
            about: ABOUT,
            module: 4,
            submodule: 5,
            items: b"\x80\0\x01",
        };
        assert_eq!(notice, Notice::Alarm(expected));
        let ack = block(0x8001, ACK);
        let notice = Notice::parse(&ack).unwrap();
        assert_eq!(notice, Notice::Ack(ABOUT, [0xda, 0x81, 0x3c, 1]));
        for (code, body) in [(2, ALARM), (0x8002, ACK)] {
            assert!(!Notice::parse(&block(code, body)).unwrap().about().high);
        }
        let specifier = ABOUT.specifier;
        assert_eq!(specifier.sequence(), 7);
        assert!(specifier.channel_diagnosis() && specifier.manufacturer_diagnosis());
        assert!(specifier.submodule_diagnosis() && specifier.ar_diagnosis());
    }

    #[test]
    fn blocks_are_as_long_as_they_say_and_as_their_kind_is() {
        for (code, body) in [(1, ALARM), (0x8001, ACK)] {
            let whole = block(code, body);
            for end in 0..whole.len() {
                assert!(Notice::parse(&whole[..end]).is_err());
            }
            assert!(Notice::parse(&[&whole[..], &[0]].concat()).is_err());
            let short = block(code, &body[..body.len() - 1]);
            let length = body.len() - 1;
            let error = AlarmError::Length {
                block: code,
                length: length as u16,
                found: length,
            };
            assert_eq!(Notice::parse(&short), Err(error));
        }
        let long = block(0x8001, &[ACK, &[0]].concat());
        assert!(matches!(
            Notice::parse(&long),
            Err(AlarmError::Length { .. })
        ));
        assert_eq!(Notice::parse(&block(3, ALARM)), Err(AlarmError::Block(3)));
        let version = [&[1, 1][..], &ALARM[2..]].concat();
        let error = Err(AlarmError::Version(1, 1));
        assert_eq!(Notice::parse(&block(1, &version)), error);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            pdu_type in prop_oneof![0x11u8..=0x14, any::<u8>()],
            code in prop_oneof![Just(1u16), Just(2), Just(0x8001), Just(0x8002), any::<u16>()],
            body in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let bytes = rta(pdu_type, &block(code, &body));
            if let Ok(Rta { body: Body::Data(data), .. }) = Rta::parse(&bytes) {
                prop_assert_eq!(data.len(), 4 + body.len());
                let _ = Notice::parse(data);
            }
            let _ = Rta::parse(&body);
            let _ = Notice::parse(&body);
        }
    }
}
