//! What each side states first.
//!
//! `version(2)`, then fields as `tag(1) length(2) value`; a tag that this build does not
//! know is skipped, so that a later minor revision can add one.

use thiserror::Error;

use crate::wire::{Reader, Short, put_short};
use crate::{OLDEST_VERSION, VERSION};

/// Most devices that one edge may offer.
pub const MAX_DEVICES: usize = 256;

/// Longest `answer_within` that may be offered, in milliseconds: nobody polls slower than
/// that and waits.
pub const MAX_ANSWER_WITHIN: u32 = 60_000;

/// Most stations that one edge may offer.
pub const MAX_STATIONS: usize = 256;

/// Longest name of a station, in octets (IEC 61158-6-10).
pub const MAX_STATION_NAME: usize = 240;

/// Octets that the names of all stations of one edge may have together: with
/// [`MAX_DEVICES`] devices the hello still fits its frame.
pub const MAX_STATION_NAMES: usize = 8192;

/// Most credit of one device: it costs the headend about 100 octets each.
pub const MAX_CREDIT: u16 = 4096;

/// A hello of either side. Identity is not in it: that is what the certificate proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Version of the session protocol.
    pub version: u16,
    /// Version of the program, for people.
    pub agent_version: String,
    /// Random per process start: tells a second tunnel of one agent from a second agent.
    pub instance: [u8; 16],
    /// SHA-256 of the policy in force.
    pub policy: [u8; 32],
    /// Hash of the trust list in force. An edge that says it takes another from its headend;
    /// peers that don't say it are not offered any.
    pub trust: Option<[u8; 32]>,
    /// Version of the policy bundle in force, 0 where there is none yet. An edge that says it takes
    /// bundles; others are not offered any. A headend that says it (0) hears of them.
    pub bundle: Option<u64>,
    /// Id of this tunnel in both audit logs; given by the headend, 0 in an edge's hello.
    pub tunnel: u64,
    /// What the edge offers; the n-th is channel n. Empty in a headend's hello.
    pub devices: Vec<DeviceOffer>,
    /// PROFINET stations (IO-devices) that the edge offers, by name; their channels follow those of
    /// the devices. In a headend's hello: the same, where it carries stations; a headend that
    /// knows nothing of them says nothing, and opens no channel for them.
    pub stations: Vec<String>,
    /// By a headend over TLS: what a second connection, for cyclic data, has to show.
    pub cyclic: Option<[u8; 16]>,
}

/// One device behind an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOffer {
    pub name: String,
    /// Requests that may wait or be in flight at once, 1 to [`MAX_CREDIT`].
    pub credit: u16,
    /// Time within which a client is answered, in milliseconds, 1 to [`MAX_ANSWER_WITHIN`].
    pub answer_within: u32,
    /// What the headend has to know of how the device deviates from its protocol, as bits that this
    /// crate does not know. Peers that don't say it have none, and others skip it.
    pub quirks: u16,
}

/// Why a hello is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HelloError {
    #[error(
        "the other side speaks version {theirs} of the tunnel protocol, \
         this side {OLDEST_VERSION} to {VERSION}"
    )]
    Version { theirs: u16 },
    #[error("hello is cut short")]
    Short,
    #[error("field {tag} of the hello is missing or malformed")]
    Field { tag: u8 },
    #[error("hello offers {got} devices, allowed {MAX_DEVICES}")]
    Devices { got: usize },
    #[error("hello offers device {name:?} twice")]
    Twice { name: String },
    #[error("hello offers {got} stations, allowed {MAX_STATIONS}")]
    Stations { got: usize },
    #[error("hello offers station {name:?} twice")]
    StationTwice { name: String },
}

mod tag {
    pub(super) const AGENT_VERSION: u8 = 1;
    pub(super) const INSTANCE: u8 = 2;
    pub(super) const POLICY: u8 = 3;
    pub(super) const TUNNEL: u8 = 4;
    pub(super) const DEVICE: u8 = 5;
    pub(super) const TRUST: u8 = 6;
    pub(super) const BUNDLE: u8 = 7;
    pub(super) const STATION: u8 = 8;
    pub(super) const CYCLIC: u8 = 9;
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.version.to_be_bytes().to_vec();
        field(&mut out, tag::AGENT_VERSION, self.agent_version.as_bytes());
        field(&mut out, tag::INSTANCE, &self.instance);
        field(&mut out, tag::POLICY, &self.policy);
        if let Some(trust) = &self.trust {
            field(&mut out, tag::TRUST, trust);
        }
        if let Some(bundle) = &self.bundle {
            field(&mut out, tag::BUNDLE, &bundle.to_be_bytes());
        }
        field(&mut out, tag::TUNNEL, &self.tunnel.to_be_bytes());
        for device in &self.devices {
            let mut value = Vec::new();
            put_short(&mut value, device.name.as_bytes());
            value.extend_from_slice(&device.credit.to_be_bytes());
            value.extend_from_slice(&device.answer_within.to_be_bytes());
            if device.quirks != 0 {
                value.extend_from_slice(&device.quirks.to_be_bytes());
            }
            field(&mut out, tag::DEVICE, &value);
        }
        for station in &self.stations {
            field(&mut out, tag::STATION, station.as_bytes());
        }
        if let Some(cyclic) = &self.cyclic {
            field(&mut out, tag::CYCLIC, cyclic);
        }
        out
    }

    /// Reads a hello; the version is judged before anything behind it is looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u16()?;
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(HelloError::Version { theirs: version });
        }
        let mut agent_version = None;
        let mut instance = None;
        let mut policy = None;
        let mut trust = None;
        let mut bundle = None;
        let mut tunnel = None;
        let mut devices = Vec::new();
        let mut stations = Vec::new();
        let mut cyclic = None;
        while !reader.is_empty() {
            let tag = reader.u8()?;
            let mut value = Reader::new(reader.long()?);
            let malformed = |_| HelloError::Field { tag };
            match tag {
                tag::AGENT_VERSION => agent_version = Some(printable(value.rest(), tag)?),
                tag::INSTANCE => instance = Some(value.array().map_err(malformed)?),
                tag::POLICY => policy = Some(value.array().map_err(malformed)?),
                tag::TRUST => trust = Some(value.array().map_err(malformed)?),
                tag::BUNDLE => bundle = Some(value.u64().map_err(malformed)?),
                tag::TUNNEL => tunnel = Some(value.u64().map_err(malformed)?),
                tag::DEVICE if devices.len() == MAX_DEVICES => {
                    return Err(HelloError::Devices {
                        got: MAX_DEVICES + 1,
                    });
                }
                tag::DEVICE => {
                    let offer = DeviceOffer::read(&mut value)?;
                    // Each offer costs the headend a channel: an edge can't multiply its devices.
                    if devices
                        .iter()
                        .any(|known: &DeviceOffer| known.name == offer.name)
                    {
                        return Err(HelloError::Twice { name: offer.name });
                    }
                    devices.push(offer);
                }
                tag::STATION if stations.len() == MAX_STATIONS => {
                    return Err(HelloError::Stations {
                        got: MAX_STATIONS + 1,
                    });
                }
                tag::STATION => {
                    let name = printable(value.rest(), tag)?;
                    if name.is_empty() || name.len() > MAX_STATION_NAME {
                        return Err(HelloError::Field { tag });
                    }
                    if stations.contains(&name) {
                        return Err(HelloError::StationTwice { name });
                    }
                    stations.push(name);
                }
                tag::CYCLIC => cyclic = Some(value.array().map_err(malformed)?),
                _ => {}
            }
        }
        let missing = |tag| HelloError::Field { tag };
        Ok(Self {
            version,
            agent_version: agent_version.ok_or(missing(tag::AGENT_VERSION))?,
            instance: instance.ok_or(missing(tag::INSTANCE))?,
            policy: policy.ok_or(missing(tag::POLICY))?,
            trust,
            bundle,
            tunnel: tunnel.ok_or(missing(tag::TUNNEL))?,
            devices,
            stations,
            cyclic,
        })
    }

    /// Channels of what the hello offers: devices first, stations behind them.
    pub fn channels(&self) -> usize {
        self.devices.len() + self.stations.len()
    }
}

impl DeviceOffer {
    fn read(value: &mut Reader<'_>) -> Result<Self, HelloError> {
        let malformed = |_| HelloError::Field { tag: tag::DEVICE };
        let name = printable(value.short().map_err(malformed)?, tag::DEVICE)?;
        let credit = value.u16().map_err(malformed)?;
        let answer_within = value.u32().map_err(malformed)?;
        let quirks = match value.is_empty() {
            true => 0,
            false => value.u16().map_err(malformed)?,
        };
        let credit_right = (1..=MAX_CREDIT).contains(&credit);
        let within_right = (1..=MAX_ANSWER_WITHIN).contains(&answer_within);
        if name.is_empty() || !credit_right || !within_right {
            return Err(HelloError::Field { tag: tag::DEVICE });
        }
        Ok(Self {
            name,
            credit,
            answer_within,
            quirks,
        })
    }
}

impl From<Short> for HelloError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    // Values are a few dozen octets; a longer one would be a bug and is cut.
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&value[..length.into()]);
}

/// Text from the other side ends up in logs and terminals: printable ASCII only.
fn printable(bytes: &[u8], tag: u8) -> Result<String, HelloError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HelloError::Field { tag })?;
    if text.len() <= 255 && text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        Ok(text.to_owned())
    } else {
        Err(HelloError::Field { tag })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            version: VERSION,
            agent_version: "0.1.0".into(),
            instance: [1; 16],
            policy: [2; 32],
            trust: Some([4; 32]),
            bundle: Some(7),
            tunnel: 3,
            devices: vec![DeviceOffer {
                name: "press-07".into(),
                credit: 64,
                answer_within: 1000,
                quirks: 0x0102,
            }],
            stations: vec!["drive-1.line-4".into(), "drive-2".into()],
            cyclic: Some([5; 16]),
        }
    }

    #[test]
    fn survives_the_wire() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }

    /// The first version of the protocol, as it was sent: later builds must still read it.
    #[test]
    fn recorded_version_1_is_understood() {
        let recorded = [
            &[0, 1][..],
            &[1, 0, 5],
            b"0.1.0",
            &[2, 0, 16],
            &[1; 16],
            &[3, 0, 32],
            &[2; 32],
            &[4, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3],
            &[5, 0, 15, 8],
            b"press-07",
            &[0, 64, 0, 0, 3, 232],
        ]
        .concat();
        // It says nothing of a trust list, a bundle or stations.
        let expected = Hello {
            trust: None,
            bundle: None,
            stations: Vec::new(),
            cyclic: None,
            devices: vec![DeviceOffer {
                quirks: 0,
                ..hello().devices[0].clone()
            }],
            ..hello()
        };
        assert_eq!(Hello::decode(&recorded), Ok(expected));
    }

    /// A device without quirks is offered as ever, and what a later version adds to an offer is skipped.
    #[test]
    fn an_offer_grows_at_its_end() {
        let mut plain = hello();
        plain.devices[0].quirks = 0;
        let (short, long) = (plain.encode(), hello().encode());
        assert_eq!(long.len(), short.len() + 2);
        let offer = [
            &[5, 0, 17, 8][..],
            b"press-07",
            &[0, 64, 0, 0, 3, 232, 1, 2],
        ]
        .concat();
        let at = long.windows(offer.len()).position(|w| w == offer).unwrap();
        let longer = [&[5, 0, 18][..], &offer[3..], &[9]].concat();
        let grown = [&long[..at], &longer, &long[at + offer.len()..]].concat();
        assert_eq!(Hello::decode(&grown), Ok(hello()));
    }

    #[test]
    fn an_offer_without_measure_is_refused() {
        for (credit, answer_within) in [(0, 1), (MAX_CREDIT + 1, 1), (1, 0), (1, u32::MAX)] {
            let mut hello = hello();
            hello.devices[0].credit = credit;
            hello.devices[0].answer_within = answer_within;
            let error = Hello::decode(&hello.encode()).unwrap_err();
            assert_eq!(error, HelloError::Field { tag: 5 });
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = hello().encode();
        bytes[1] = 9;
        let error = Hello::decode(&bytes).unwrap_err();
        assert_eq!(error, HelloError::Version { theirs: 9 });
        assert!(error.to_string().contains("version 9"), "{error}");
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let mut bytes = hello().encode();
        bytes.extend_from_slice(&[200, 0, 2, 1, 2]);
        assert_eq!(Hello::decode(&bytes), Ok(hello()));
    }

    #[test]
    fn control_characters_in_a_name_are_refused() {
        let mut hello = hello();
        hello.devices[0].name = "press\u{1b}[2J".into();
        assert_eq!(
            Hello::decode(&hello.encode()),
            Err(HelloError::Field { tag: 5 })
        );
    }

    #[test]
    fn the_number_of_devices_is_bounded() {
        let mut hello = hello();
        let device = hello.devices[0].clone();
        let named = |number| DeviceOffer {
            name: format!("press-{number}"),
            ..device.clone()
        };
        hello.devices = (0..=MAX_DEVICES).map(named).collect();
        assert!(matches!(
            Hello::decode(&hello.encode()),
            Err(HelloError::Devices { .. })
        ));
        hello.devices.pop();
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn a_device_is_offered_once() {
        let mut hello = hello();
        hello.devices.push(hello.devices[0].clone());
        assert_eq!(
            Hello::decode(&hello.encode()),
            Err(HelloError::Twice {
                name: "press-07".into()
            })
        );
    }

    #[test]
    fn stations_are_bounded_named_and_offered_once() {
        let with = |stations: Vec<String>| Hello {
            stations,
            ..hello()
        };
        let decode = |stations| Hello::decode(&with(stations).encode());
        let many = |count| (0..count).map(|n| format!("drive-{n}")).collect();
        assert_eq!(decode(many(MAX_STATIONS)), Ok(with(many(MAX_STATIONS))));
        assert_eq!(
            decode(many(MAX_STATIONS + 1)),
            Err(HelloError::Stations {
                got: MAX_STATIONS + 1
            })
        );
        assert_eq!(
            decode(vec!["drive-1".into(), "drive-1".into()]),
            Err(HelloError::StationTwice {
                name: "drive-1".into()
            })
        );
        for name in ["", "drive\n", &"a".repeat(MAX_STATION_NAME + 1)] {
            assert_eq!(decode(vec![name.into()]), Err(HelloError::Field { tag: 8 }));
        }
    }

    /// What settings allow at most.
    #[test]
    fn the_longest_hello_fits_its_frame() {
        let mut hello = hello();
        let device = DeviceOffer {
            name: "d".repeat(63),
            ..hello.devices[0].clone()
        };
        hello.devices = vec![device; MAX_DEVICES];
        hello.stations = vec!["s".repeat(MAX_STATION_NAMES / MAX_STATIONS); MAX_STATIONS];
        assert!(hello.encode().len() < crate::frame::MAX_CONTROL);
    }

    proptest! {
        #[test]
        fn stations_survive_the_wire(
            stations in proptest::collection::hash_set("[a-z0-9.-]{1,240}", 0..20),
            cyclic in proptest::option::of(any::<[u8; 16]>()),
        ) {
            let hello = Hello { stations: stations.into_iter().collect(), cyclic, ..hello() };
            prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }

        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300)) {
            let _ = Hello::decode(&bytes);
        }

        #[test]
        fn no_bytes_behind_a_version_panic(bytes in vec(any::<u8>(), 0..300)) {
            let _ = Hello::decode(&[&VERSION.to_be_bytes()[..], &bytes].concat());
        }
    }
}
