//! One line of the audit log.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::chain::Hash;
use crate::content::{Address, Decoded, Values};
use crate::profinet::{Ar, Slot};

/// The version that every record carries as `v`. A reader ignores fields that it does not
/// know; a field that changes its meaning raises the version.
pub const SCHEMA_VERSION: u16 = 1;

/// A record's `seq`. Tickets grow by one; 0 is before the first.
pub type Ticket = u64;

/// One audit record; a line of JSON with the fields in this order, absent ones left out.
///
/// Make one with [`Record::new`] and set what is known:
/// `Record { device: Some(name), ..Record::new(Kind::Denied) }`. Names are shared, so that
/// a record costs its writer no formatting and hardly an allocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Schema version, [`SCHEMA_VERSION`]. Filled in by the journal.
    pub v: u16,
    /// Position in this log, from 1, without gaps. Filled in by the journal.
    pub seq: Ticket,
    /// When it happened: RFC 3339 in UTC with microseconds. [`Journal::append`] stamps it
    /// where the caller left it out.
    ///
    /// [`Journal::append`]: crate::Journal::append
    #[serde(with = "time", default)]
    pub time: Option<SystemTime>,
    /// What the system clock said, where it was known to be wrong: `time` is then by the agent's
    /// own reckoning.
    #[serde(with = "time", skip_serializing_if = "Option::is_none", default)]
    pub clock: Option<SystemTime>,
    /// The agent that writes this log (its name from the certificate). Filled in by the journal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<Arc<str>>,
    /// What happened.
    pub kind: Kind,
    /// The other end of the tunnel concerned: the identity that its certificate proves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tunnel: Option<Arc<str>>,
    /// `quic` or `tls`, on tunnel records.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transport: Option<Cow<'static, str>>,
    /// Who asked. At the edge this is what the headend states, not what was proven.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<Arc<Party>>,
    /// The device concerned, as configured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<Arc<str>>,
    /// The unit that the device hears.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit: Option<u8>,
    /// The unit that the client used, where mapping makes it another.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_unit: Option<u8>,
    /// The PROFINET station concerned: its name-of-station.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub station: Option<Arc<str>>,
    /// The PROFINET service, as policies name it: `set-name`, `connect`, `write`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<Cow<'static, str>>,
    /// The application relation concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ar: Option<Arc<Ar>>,
    /// Index of the PROFINET record that is read or written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<u16>,
    /// Where that record is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<Slot>,
    /// What a DCP Set sets: the new name, or address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub set: Option<Box<str>>,
    /// Modbus function code, 1 to 127.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub function: Option<u8>,
    /// What the request addresses; of FC 23 the half that writes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<Address>,
    /// On a record that stands for several requests: all that they addressed, where it is not
    /// the same. Of more than 16 ranges those nearest to each other stand as one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tried: Option<Box<[Address]>>,
    /// Number of elements addressed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quantity: Option<u16>,
    /// What FC 23 reads beside its write.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_address: Option<Address>,
    /// What a write carries.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub values: Option<Values>,
    /// The same as the rule that decided sees it, where it has a type.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decoded: Option<Box<Decoded>>,
    /// What a read was answered with; of a write, what the device took in place of `values`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<Values>,
    /// What the policy said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decision: Option<Decision>,
    /// The rule that decided, where one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<Arc<str>>,
    /// Why, in words for a person.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Cow<'static, str>>,
    /// The client's own transaction id, at the headend.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transaction: Option<u16>,
    /// The request's id, given by the headend and the same at both ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<u64>,
    /// The `request` of the write that this one repeats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repeats: Option<u64>,
    /// On an outcome: the `seq` of its intent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub intent: Option<Ticket>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome>,
    /// The Modbus exception that the client got.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exception: Option<u8>,
    /// In which ways the device's answer deviated from the specification, by the names of its quirks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quirk: Option<Box<str>>,
    /// Name of an alarm, on the records that start and end it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub alarm: Option<Cow<'static, str>>,
    /// A place in a chain of records, of this log or another.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub head: Option<Box<Head>>,
    /// Hash of the policy that decided.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<Arc<str>>,
    /// How many events this record stands for; absent means one. On [`Kind::AuditGap`] the
    /// number of records that could not be kept, on [`Kind::TornTail`] the bytes cut off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// Whether this record must reach the disk at once. Not part of the line.
    #[serde(skip, default)]
    pub durable: bool,
}

/// What happened; kebab-case in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The agent started; `reason` carries its version.
    Start,
    /// The agent stops on purpose.
    Stop,
    TunnelUp,
    TunnelDown,
    /// A peer was turned away: certificate, role, name, revocation, version, hello.
    TunnelRefused,
    ClientOpen,
    ClientClose,
    ClientRefused,
    /// A connection was passed on to the CA.
    EnrollOpen,
    /// It ended; `reason` has octets and time.
    EnrollClose,
    /// A write was allowed and is about to leave for the device: durable before it does.
    WriteIntent,
    /// What came of a [`Kind::WriteIntent`].
    WriteOutcome,
    /// A read that was answered, where reads are recorded.
    Read,
    /// A request was refused.
    Denied,
    /// A request without an answer from the device: `outcome` says whether it was sent.
    Lost,
    /// A device sent what no request asked for, or what does not fit its request; the connection
    /// to it was closed.
    DeviceFault,
    /// Cyclic data of an application relation may flow.
    ArUp,
    /// It ended; `reason` says by whom and why.
    ArDown,
    /// A DCP Set, or the writing of a record, was let through to a station: durable before it.
    StationSet,
    /// Configuration, policy, certificate or CRL was replaced.
    Reload,
    /// A replacement was turned down; what was in force stays in force.
    ReloadRefused,
    /// An identity was cut off because its certificate is revoked.
    Revoked,
    AlarmStart,
    AlarmEnd,
    /// Connections and refusals of people outside the policy that were left out, since their
    /// share of the log was used up; `count` says how many.
    LeftOut,
    /// Records could not be kept (queue full, or the log could not be written); `count` says
    /// how many.
    AuditGap,
    /// The log ended in the middle of a record, as after a power cut; `count` bytes were cut.
    TornTail,
    /// The chain up to the record before this one, signed with the agent's key.
    Checkpoint,
    /// The checkpoint of the log at the other end of the tunnel: the end of that log can't be
    /// cut without this one knowing better.
    PeerCheckpoint,
    /// A closed file of the log is about to be deleted, as the limits say; `head` is its last
    /// record.
    SegmentDropped,
    /// At the start the log was not as its chain says; `reason` says where.
    ChainBroken,
    /// A kind of a later version; read, never written.
    #[serde(other)]
    Other,
}

impl Kind {
    /// The name as it stands in the log.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Stop => "stop",
            Kind::TunnelUp => "tunnel-up",
            Kind::TunnelDown => "tunnel-down",
            Kind::TunnelRefused => "tunnel-refused",
            Kind::ClientOpen => "client-open",
            Kind::ClientClose => "client-close",
            Kind::ClientRefused => "client-refused",
            Kind::EnrollOpen => "enroll-open",
            Kind::EnrollClose => "enroll-close",
            Kind::WriteIntent => "write-intent",
            Kind::WriteOutcome => "write-outcome",
            Kind::Read => "read",
            Kind::Denied => "denied",
            Kind::Lost => "lost",
            Kind::DeviceFault => "device-fault",
            Kind::ArUp => "ar-up",
            Kind::ArDown => "ar-down",
            Kind::StationSet => "station-set",
            Kind::Reload => "reload",
            Kind::ReloadRefused => "reload-refused",
            Kind::Revoked => "revoked",
            Kind::AlarmStart => "alarm-start",
            Kind::AlarmEnd => "alarm-end",
            Kind::LeftOut => "left-out",
            Kind::AuditGap => "audit-gap",
            Kind::TornTail => "torn-tail",
            Kind::Checkpoint => "checkpoint",
            Kind::PeerCheckpoint => "peer-checkpoint",
            Kind::SegmentDropped => "segment-dropped",
            Kind::ChainBroken => "chain-broken",
            Kind::Other => "other",
        }
    }
}

/// A record's place in a chain, and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The agent whose log it is, on a record about another's log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<Box<str>>,
    /// The closed file that ends with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<Box<str>>,
    pub seq: Ticket,
    pub hash: Hash,
    /// Over [`signed_text`](crate::signed_text), base64 of ASN.1 (ECDSA, P-256, SHA-256).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signature: Option<Box<str>>,
    /// The certificate (DER, base64) of the key that signs, once in each file and after each
    /// change.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<Box<str>>,
}

impl Head {
    pub fn new(seq: Ticket, hash: Hash) -> Self {
        Self {
            agent: None,
            file: None,
            seq,
            hash,
            signature: None,
            certificate: None,
        }
    }
}

/// Somebody at the other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The name that the policy gives, if it knows this party.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// What a certificate proves (a SPIFFE URI).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<Arc<str>>,
    /// The serial number of a certificate of the site's CA, where it is what was refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<Arc<str>>,
    /// The Modbus role in that certificate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<Arc<str>>,
    /// Of a PROFINET controller: the address that it speaks from, `00:1b:1b:01:02:03`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<Arc<str>>,
    /// What its Connect calls it (CMInitiatorStationName).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub station: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    Allow,
    Deny,
}

/// What came of a request; kebab-case in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The device did it.
    Answered,
    /// The device's answer to the same read of another client, sent after this one was asked.
    Shared,
    /// The device answered with an exception.
    Exception,
    /// A broadcast left for the line; nobody answers those.
    Sent,
    /// Refused by policy or limits; never sent.
    Refused,
    /// A write that the client sent again without knowing what became of the first; never sent.
    RepeatRefused,
    /// Never written to the device's socket or line.
    NotSent,
    /// It left for the device and no answer came: it may have happened.
    Unknown,
    /// A read without an answer.
    Lost,
}

impl Outcome {
    /// The name as it stands in the log.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Shared => "shared",
            Outcome::Exception => "exception",
            Outcome::Sent => "sent",
            Outcome::Refused => "refused",
            Outcome::RepeatRefused => "repeat-refused",
            Outcome::NotSent => "not-sent",
            Outcome::Unknown => "unknown",
            Outcome::Lost => "lost",
        }
    }
}

impl Record {
    /// A record of `kind` with nothing else set. Only [`Kind::WriteIntent`] and
    /// [`Kind::StationSet`] start durable.
    pub fn new(kind: Kind) -> Self {
        Self {
            v: SCHEMA_VERSION,
            seq: 0,
            time: None,
            clock: None,
            agent: None,
            kind,
            tunnel: None,
            transport: None,
            client: None,
            device: None,
            unit: None,
            client_unit: None,
            station: None,
            service: None,
            ar: None,
            record: None,
            slot: None,
            set: None,
            function: None,
            address: None,
            tried: None,
            quantity: None,
            read_address: None,
            values: None,
            decoded: None,
            answer: None,
            decision: None,
            rule: None,
            reason: None,
            transaction: None,
            request: None,
            repeats: None,
            intent: None,
            outcome: None,
            exception: None,
            quirk: None,
            alarm: None,
            head: None,
            policy: None,
            count: None,
            durable: matches!(kind, Kind::WriteIntent | Kind::StationSet),
        }
    }

    /// The outcome of the write whose intent got the ticket `intent`. Without that ticket the
    /// intent would count as unfinished at the next start.
    pub fn write_outcome(intent: Ticket, outcome: Outcome) -> Self {
        Self {
            intent: Some(intent),
            outcome: Some(outcome),
            ..Self::new(Kind::WriteOutcome)
        }
    }

    /// The outcome "unknown" for this intent, found without one after a crash.
    pub fn unknown_outcome(&self) -> Self {
        Self {
            tunnel: self.tunnel.clone(),
            client: self.client.clone(),
            device: self.device.clone(),
            unit: self.unit,
            client_unit: self.client_unit,
            function: self.function,
            address: self.address,
            quantity: self.quantity,
            transaction: self.transaction,
            request: self.request,
            reason: Some("the agent ended before the outcome was recorded".into()),
            ..Self::write_outcome(self.seq, Outcome::Unknown)
        }
    }
}

mod time {
    use super::*;

    static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let stamp = time
            .and_then(|time| Timestamp::try_from(time).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH);
        serializer.serialize_str(&PRINTER.timestamp_to_string(&stamp))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let stamp: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(SystemTime::try_from(stamp).ok())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::content::Table;

    #[test]
    fn a_full_record_reads_as_the_schema_says() {
        let record = Record {
            seq: 7,
            time: Some(SystemTime::UNIX_EPOCH + Duration::from_micros(1_790_000_000_123_456)),
            agent: Some("press-07".into()),
            tunnel: Some("spiffe://plant1.example/headend/hd-1".into()),
            client: Some(Arc::new(Party {
                name: Some("hmi-1".into()),
                address: Some([10, 1, 1, 20].into()),
                port: Some(50412),
                ..Party::default()
            })),
            device: Some("press-07".into()),
            unit: Some(1),
            client_unit: Some(7),
            function: Some(16),
            address: Some(Address {
                table: Table::Holding,
                first: 40,
                last: 41,
            }),
            quantity: Some(2),
            values: Some(Values::Registers([4, 176, 0, 5].into())),
            decision: Some(Decision::Allow),
            rule: Some("setpoint".into()),
            request: Some(99),
            policy: Some("3f2a".into()),
            ..Record::new(Kind::WriteIntent)
        };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"v":1,"seq":7,"time":"2026-09-21T14:13:20.123456Z","agent":"press-07","#,
                r#""kind":"write-intent","tunnel":"spiffe://plant1.example/headend/hd-1","#,
                r#""client":{"name":"hmi-1","address":"10.1.1.20","port":50412},"#,
                r#""device":"press-07","unit":1,"client_unit":7,"function":16,"#,
                r#""address":"holding 40-41","quantity":2,"values":[1200,5],"#,
                r#""decision":"allow","rule":"setpoint","request":99,"policy":"3f2a"}"#
            )
        );
        let read: Record = serde_json::from_str(&json).unwrap();
        assert_eq!(
            Record {
                durable: true,
                ..read
            },
            record
        );
    }

    #[test]
    fn a_record_of_profinet_reads_as_the_schema_says() {
        let ar = Ar {
            uuid: "6b29fc40-ca47-1067-b31d-00dd010662da".into(),
            kind: Some("io-controller".into()),
            cycle_us: Some(32_000),
            watchdog_us: Some(96_000),
            ..Ar::default()
        };
        let record = Record {
            seq: 3,
            time: Some(SystemTime::UNIX_EPOCH),
            client: Some(Arc::new(Party {
                name: Some("plc-1".into()),
                mac: Some("00:1b:1b:01:02:03".into()),
                station: Some("plc-1.line-1".into()),
                ..Party::default()
            })),
            station: Some("drive-1.line-1".into()),
            service: Some("write".into()),
            ar: Some(Arc::new(ar)),
            record: Some(0x8001),
            slot: Some(Slot {
                slot: 1,
                subslot: 0x8000,
            }),
            ..Record::new(Kind::StationSet)
        };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"v":1,"seq":3,"time":"1970-01-01T00:00:00.000000Z","kind":"station-set","#,
                r#""client":{"name":"plc-1","mac":"00:1b:1b:01:02:03","station":"plc-1.line-1"},"#,
                r#""station":"drive-1.line-1","service":"write","#,
                r#""ar":{"uuid":"6b29fc40-ca47-1067-b31d-00dd010662da","type":"io-controller","#,
                r#""cycle_us":32000,"watchdog_us":96000},"record":32769,"slot":"1.0x8000"}"#
            )
        );
        let read: Record = serde_json::from_str(&json).unwrap();
        assert!(record.durable);
        assert_eq!(
            Record {
                durable: true,
                ..read
            },
            record
        );
        for wrong in ["1", "1.8000", "1.0x", "1.0x10000", "65536.0x1", ""] {
            let slot: Result<Slot, _> = serde_json::from_value(wrong.into());
            assert!(slot.is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_are_named_alike_in_log_and_code() {
        for kind in [
            Kind::Start,
            Kind::TunnelRefused,
            Kind::WriteOutcome,
            Kind::ArUp,
            Kind::ArDown,
            Kind::StationSet,
            Kind::AlarmEnd,
            Kind::LeftOut,
            Kind::AuditGap,
            Kind::TornTail,
        ] {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json.as_str(), Some(kind.name()));
        }
        for outcome in [
            Outcome::Answered,
            Outcome::Shared,
            Outcome::Exception,
            Outcome::Sent,
            Outcome::Refused,
            Outcome::RepeatRefused,
            Outcome::NotSent,
            Outcome::Unknown,
            Outcome::Lost,
        ] {
            let json = serde_json::to_value(outcome).unwrap();
            assert_eq!(json.as_str(), Some(outcome.name()));
        }
        let later: Kind = serde_json::from_str("\"quantum-leap\"").unwrap();
        assert_eq!(later, Kind::Other);
    }

    #[test]
    fn a_record_stays_cheap_to_move() {
        assert!(size_of::<Record>() <= 512, "{}", size_of::<Record>());
    }
}
