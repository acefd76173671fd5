//! Frames of the tunnel.
//!
//! ```text
//! 0      2        4      5
//! +------+--------+------+----------------
//! | len  | channel| kind | body (len - 1)
//! +------+--------+------+----------------
//! ```
//! `len` counts `kind` and body. Channel 0 is the control channel, channel n the n-th
//! device of the edge's hello, and behind the devices come its stations. On QUIC each channel is a stream of its own and the tag
//! must match it; on TCP the tag is what tells the channels apart.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::wire::{Reader, Short, put_short};

/// Octets before a frame's body.
pub const HEADER_LEN: usize = 5;
/// Largest `len` on the control channel (a hello with many devices).
pub const MAX_CONTROL: usize = 32 * 1024;
/// Largest piece of a trust list or a policy bundle.
pub const MAX_PIECE: usize = 16 * 1024;
/// Largest signature of a checkpoint (ECDSA with P-256 in ASN.1 has at most 72).
pub const MAX_SIGNATURE: usize = 128;
/// Largest `len` on a device channel: a client's names, or a PDU and its head.
pub const MAX_DEVICE: usize = 1024;
/// Largest Ethernet frame of a station: 1,500 octets behind a header with an 802.1Q tag.
pub const MAX_ETHERNET: usize = 1522;
/// Smallest: a header (IEEE 802.3).
pub const MIN_ETHERNET: usize = 14;
/// The control channel.
pub const CONTROL: u16 = 0;
/// Modbus: a PDU has 1 to 253 octets.
pub const MAX_PDU: usize = 253;

/// One frame, borrowed from the bytes it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First frame of each side: [`crate::Hello`], still encoded.
    Hello(&'a [u8]),
    /// The edge has accepted the headend's hello: the tunnel is up on both sides.
    Ready,
    /// Answered with the same token.
    Ping(u64),
    Pong(u64),
    /// The sender closes the tunnel: a code and a sentence for the other side's log.
    Goodbye {
        code: u16,
        text: &'a [u8],
    },
    /// The sender's policy has changed: SHA-256 of the one in force.
    Policy([u8; 32]),
    /// A piece of the headend's trust list (PEM), at most [`MAX_PIECE`] octets.
    Trust {
        last: bool,
        piece: &'a [u8],
    },
    /// The edge has this trust list in force.
    TrustHave([u8; 32]),
    /// A piece of a policy bundle for the edge, at most [`MAX_PIECE`] octets.
    Bundle {
        last: bool,
        piece: &'a [u8],
    },
    /// What the edge did with a policy bundle.
    BundleHave {
        /// Of the bundle in force; 0 for none.
        version: u64,
        fate: Fate,
        /// For people, where it did not take it.
        text: &'a [u8],
    },
    /// The sender's audit log up to its record `seq`, for the other side to keep.
    Checkpoint(Checkpoint),
    /// No new requests after this one; answers in flight still come.
    Drain,
    ClientOpen(ClientOpen<'a>),
    ClientClose {
        client: u32,
    },
    Request {
        /// Id that the headend gave; the answer carries it.
        id: u64,
        client: u32,
        /// Time that remains to answer, in milliseconds.
        within: u32,
        unit: u8,
        pdu: &'a [u8],
    },
    Answer {
        id: u64,
        outcome: Outcome,
        /// What the client is to be told, an exception of the edge included. Empty only
        /// for a broadcast, which has no answer.
        pdu: &'a [u8],
    },
    /// On a station's channel, in both directions: an Ethernet frame, [`MIN_ETHERNET`] to
    /// [`MAX_ETHERNET`] octets without its check sequence. An empty one carries nothing: it makes
    /// a new stream known to the other side.
    Station(&'a [u8]),
}

/// What became of an offered policy bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    InForce = 0,
    /// Taken, and not in force before its time.
    Waits = 1,
    Refused = 2,
}

/// A place in the sender's audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub seq: u64,
    /// SHA-256 of the chain up to there.
    pub hash: [u8; 32],
    /// By the sender's key; at most [`MAX_SIGNATURE`] octets, and empty where it has none.
    pub signature: Vec<u8>,
}

/// A client connection, as the headend states it. The edge lets it narrow what the
/// tunnel's certificate allows, never widen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOpen<'a> {
    pub client: u32,
    pub address: SocketAddr,
    /// Name of the matching `[[client]]` at the headend, or empty.
    pub name: &'a [u8],
    /// Identity and role of an MBAPS client, or empty.
    pub identity: &'a [u8],
    pub role: &'a [u8],
}

/// What became of a request at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The device answered; `pdu` is its answer.
    Answered = 0,
    /// The edge refused it; it never reached the device.
    Refused = 1,
    /// Certainly never sent to the device.
    NotSent = 2,
    /// Sent, and the answer was lost, late or did not match.
    Unknown = 3,
}

/// Why bytes are not a frame of this protocol. Each closes the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("frame of {got} octets on channel {channel}, allowed 1 to {limit}")]
    Length {
        channel: u16,
        got: usize,
        limit: usize,
    },
    #[error("unknown frame kind {kind:#04x} on channel {channel}")]
    Kind { channel: u16, kind: u8 },
    #[error("frame of kind {kind:#04x} is cut short or has octets left over")]
    Shape { kind: u8 },
    #[error("PDU of {got} octets, allowed 1 to 253")]
    Pdu { got: usize },
    #[error("Ethernet frame of {got} octets, allowed {MIN_ETHERNET} to {MAX_ETHERNET}")]
    Ethernet { got: usize },
    #[error("unknown outcome {got}")]
    Outcome { got: u8 },
}

mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const READY: u8 = 0x02;
    pub(super) const PING: u8 = 0x03;
    pub(super) const PONG: u8 = 0x04;
    pub(super) const GOODBYE: u8 = 0x05;
    pub(super) const POLICY: u8 = 0x06;
    pub(super) const DRAIN: u8 = 0x07;
    pub(super) const TRUST: u8 = 0x08;
    pub(super) const TRUST_HAVE: u8 = 0x09;
    pub(super) const CHECKPOINT: u8 = 0x0a;
    pub(super) const BUNDLE: u8 = 0x0b;
    pub(super) const BUNDLE_HAVE: u8 = 0x0c;
    pub(super) const CLIENT_OPEN: u8 = 0x10;
    pub(super) const CLIENT_CLOSE: u8 = 0x11;
    pub(super) const REQUEST: u8 = 0x12;
    pub(super) const ANSWER: u8 = 0x13;
    pub(super) const STATION: u8 = 0x20;
}

impl<'a> Frame<'a> {
    /// Decodes the first frame of `input`: its channel, the frame and how many octets it
    /// took, or `None` while it is incomplete.
    pub fn decode(input: &'a [u8]) -> Result<Option<(u16, Self, usize)>, FrameError> {
        let Some(head) = input.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
        let channel = u16::from_be_bytes([head[2], head[3]]);
        let limit = match (channel, head[4]) {
            (CONTROL, _) => MAX_CONTROL,
            (_, kind::STATION) => 1 + MAX_ETHERNET,
            _ => MAX_DEVICE,
        };
        if length == 0 || length > limit {
            return Err(FrameError::Length {
                channel,
                got: length,
                limit,
            });
        }
        let end = HEADER_LEN - 1 + length;
        let Some(body) = input.get(HEADER_LEN..end) else {
            return Ok(None);
        };
        let frame = Self::body(channel, head[4], body)?;
        Ok(Some((channel, frame, end)))
    }

    fn body(channel: u16, kind: u8, body: &'a [u8]) -> Result<Self, FrameError> {
        let frame = match (channel, kind) {
            (CONTROL, kind::HELLO..=kind::BUNDLE_HAVE) => Self::control(kind, body)?,
            (1.., kind::CLIENT_OPEN..=kind::ANSWER) => Self::device(kind, body)?,
            (1.., kind::STATION) => Self::Station(body),
            _ => return Err(FrameError::Kind { channel, kind }),
        };
        match frame {
            Self::Request { pdu, .. } if pdu.is_empty() || pdu.len() > MAX_PDU => {
                Err(FrameError::Pdu { got: pdu.len() })
            }
            Self::Answer { pdu, .. } if pdu.len() > MAX_PDU => {
                Err(FrameError::Pdu { got: pdu.len() })
            }
            // More than MAX_ETHERNET was refused by its length.
            Self::Station(frame) if (1..MIN_ETHERNET).contains(&frame.len()) => {
                Err(FrameError::Ethernet { got: frame.len() })
            }
            frame => Ok(frame),
        }
    }

    fn control(kind: u8, body: &'a [u8]) -> Result<Self, FrameError> {
        let shape = |_: Short| FrameError::Shape { kind };
        let mut reader = Reader::new(body);
        let frame = match kind {
            kind::HELLO => return Ok(Self::Hello(body)),
            kind::READY => Self::Ready,
            kind::PING => Self::Ping(reader.u64().map_err(shape)?),
            kind::PONG => Self::Pong(reader.u64().map_err(shape)?),
            kind::GOODBYE => {
                let code = reader.u16().map_err(shape)?;
                let text = reader.rest();
                return Ok(Self::Goodbye { code, text });
            }
            kind::POLICY => Self::Policy(reader.array().map_err(shape)?),
            kind::TRUST | kind::BUNDLE => {
                let last = match reader.u8().map_err(shape)? {
                    0 => false,
                    1 => true,
                    _ => return Err(FrameError::Shape { kind }),
                };
                let piece = reader.rest();
                return Ok(match kind {
                    kind::TRUST => Self::Trust { last, piece },
                    _ => Self::Bundle { last, piece },
                });
            }
            kind::BUNDLE_HAVE => {
                let version = reader.u64().map_err(shape)?;
                let fate = match reader.u8().map_err(shape)? {
                    0 => Fate::InForce,
                    1 => Fate::Waits,
                    2 => Fate::Refused,
                    _ => return Err(FrameError::Shape { kind }),
                };
                let text = reader.rest();
                return Ok(Self::BundleHave {
                    version,
                    fate,
                    text,
                });
            }
            kind::TRUST_HAVE => Self::TrustHave(reader.array().map_err(shape)?),
            kind::CHECKPOINT => {
                let (seq, hash) = (reader.u64(), reader.array());
                let signature = reader.rest();
                if signature.len() > MAX_SIGNATURE {
                    return Err(FrameError::Shape { kind });
                }
                return Ok(Self::Checkpoint(Checkpoint {
                    seq: seq.map_err(shape)?,
                    hash: hash.map_err(shape)?,
                    signature: signature.to_vec(),
                }));
            }
            _ => Self::Drain,
        };
        complete(reader, kind, frame)
    }

    fn device(kind: u8, body: &'a [u8]) -> Result<Self, FrameError> {
        let shape = |_: Short| FrameError::Shape { kind };
        let mut reader = Reader::new(body);
        match kind {
            kind::CLIENT_OPEN => {
                let open = ClientOpen::read(&mut reader).map_err(shape)?;
                complete(reader, kind, Self::ClientOpen(open))
            }
            kind::CLIENT_CLOSE => {
                let client = reader.u32().map_err(shape)?;
                complete(reader, kind, Self::ClientClose { client })
            }
            kind::REQUEST => Ok(Self::Request {
                id: reader.u64().map_err(shape)?,
                client: reader.u32().map_err(shape)?,
                within: reader.u32().map_err(shape)?,
                unit: reader.u8().map_err(shape)?,
                pdu: reader.rest(),
            }),
            _ => Ok(Self::Answer {
                id: reader.u64().map_err(shape)?,
                outcome: Outcome::from_code(reader.u8().map_err(shape)?)?,
                pdu: reader.rest(),
            }),
        }
    }

    /// Appends this frame, tagged with `channel`.
    pub fn encode(&self, channel: u16, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&channel.to_be_bytes());
        self.encode_body(out);
        // A body is at most a hello of MAX_CONTROL octets.
        let length = u16::try_from(out.len() - start - 4).unwrap_or(u16::MAX);
        out[start..start + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(body) => {
                out.push(kind::HELLO);
                out.extend_from_slice(body);
            }
            Self::Ready => out.push(kind::READY),
            Self::Ping(token) => {
                out.push(kind::PING);
                out.extend_from_slice(&token.to_be_bytes());
            }
            Self::Pong(token) => {
                out.push(kind::PONG);
                out.extend_from_slice(&token.to_be_bytes());
            }
            Self::Goodbye { code, text } => {
                out.push(kind::GOODBYE);
                out.extend_from_slice(&code.to_be_bytes());
                out.extend_from_slice(&text[..text.len().min(512)]);
            }
            Self::Policy(hash) => {
                out.push(kind::POLICY);
                out.extend_from_slice(hash);
            }
            Self::Trust { last, piece } => {
                out.push(kind::TRUST);
                out.push(u8::from(*last));
                out.extend_from_slice(piece);
            }
            Self::TrustHave(hash) => {
                out.push(kind::TRUST_HAVE);
                out.extend_from_slice(hash);
            }
            Self::Bundle { last, piece } => {
                out.push(kind::BUNDLE);
                out.push(u8::from(*last));
                out.extend_from_slice(piece);
            }
            Self::BundleHave {
                version,
                fate,
                text,
            } => {
                out.push(kind::BUNDLE_HAVE);
                out.extend_from_slice(&version.to_be_bytes());
                out.push(*fate as u8);
                out.extend_from_slice(&text[..text.len().min(512)]);
            }
            Self::Checkpoint(checkpoint) => {
                out.push(kind::CHECKPOINT);
                out.extend_from_slice(&checkpoint.seq.to_be_bytes());
                out.extend_from_slice(&checkpoint.hash);
                out.extend_from_slice(&checkpoint.signature);
            }
            Self::Drain => out.push(kind::DRAIN),
            Self::ClientOpen(open) => {
                out.push(kind::CLIENT_OPEN);
                open.write(out);
            }
            Self::ClientClose { client } => {
                out.push(kind::CLIENT_CLOSE);
                out.extend_from_slice(&client.to_be_bytes());
            }
            Self::Request {
                id,
                client,
                within,
                unit,
                pdu,
            } => {
                out.push(kind::REQUEST);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&client.to_be_bytes());
                out.extend_from_slice(&within.to_be_bytes());
                out.push(*unit);
                out.extend_from_slice(pdu);
            }
            Self::Answer { id, outcome, pdu } => {
                out.push(kind::ANSWER);
                out.extend_from_slice(&id.to_be_bytes());
                out.push(*outcome as u8);
                out.extend_from_slice(pdu);
            }
            Self::Station(frame) => {
                out.push(kind::STATION);
                out.extend_from_slice(frame);
            }
        }
    }
}

impl<'a> ClientOpen<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Short> {
        let client = reader.u32()?;
        let ip = Ipv6Addr::from(reader.array::<16>()?);
        let port = reader.u16()?;
        Ok(Self {
            client,
            address: SocketAddr::new(IpAddr::V6(ip).to_canonical(), port),
            name: reader.short()?,
            identity: reader.short()?,
            role: reader.short()?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        out.extend_from_slice(&self.client.to_be_bytes());
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&self.address.port().to_be_bytes());
        put_short(out, self.name);
        put_short(out, self.identity);
        put_short(out, self.role);
    }
}

impl Outcome {
    fn from_code(code: u8) -> Result<Self, FrameError> {
        Ok(match code {
            0 => Self::Answered,
            1 => Self::Refused,
            2 => Self::NotSent,
            3 => Self::Unknown,
            got => return Err(FrameError::Outcome { got }),
        })
    }
}

fn complete<'a>(reader: Reader<'_>, kind: u8, frame: Frame<'a>) -> Result<Frame<'a>, FrameError> {
    if reader.is_empty() {
        Ok(frame)
    } else {
        Err(FrameError::Shape { kind })
    }
}

/// Cuts a byte stream into frames; keeps at most one incomplete frame between chunks.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    /// Hands each complete frame of `chunk` to `frame`, in order, and keeps the rest.
    /// The first error, of a frame or of `frame` itself, ends the stream for good.
    pub fn feed<E: From<FrameError>>(
        &mut self,
        chunk: &[u8],
        mut frame: impl FnMut(u16, Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.partial.is_empty() {
            let used = decode_all(chunk, &mut frame)?;
            self.partial.extend_from_slice(&chunk[used..]);
        } else {
            self.partial.extend_from_slice(chunk);
            let used = decode_all(&self.partial, &mut frame)?;
            self.partial.drain(..used);
        }
        Ok(())
    }
}

fn decode_all<E: From<FrameError>>(
    bytes: &[u8],
    frame: &mut impl FnMut(u16, Frame<'_>) -> Result<(), E>,
) -> Result<usize, E> {
    let mut used = 0;
    while let Some((channel, decoded, size)) = Frame::decode(&bytes[used..])? {
        frame(channel, decoded)?;
        used += size;
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn round_trip(channel: u16, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(channel, &mut bytes);
        assert_eq!(
            Frame::decode(&bytes),
            Ok(Some((channel, frame.clone(), bytes.len())))
        );
        for cut in 0..bytes.len() {
            assert_eq!(Frame::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn every_kind_survives_the_wire() {
        for frame in [
            Frame::Hello(b"abc"),
            Frame::Ready,
            Frame::Ping(7),
            Frame::Pong(u64::MAX),
            Frame::Goodbye {
                code: 4,
                text: b"why",
            },
            Frame::Policy([9; 32]),
            Frame::Checkpoint(Checkpoint {
                seq: u64::MAX,
                hash: [7; 32],
                signature: vec![1; MAX_SIGNATURE],
            }),
            Frame::Bundle {
                last: true,
                piece: b"fieldlock-policy-bundle: 1",
            },
            Frame::BundleHave {
                version: 7,
                fate: Fate::Refused,
                text: b"why",
            },
            Frame::Drain,
        ] {
            round_trip(CONTROL, &frame);
        }
        for address in ["192.0.2.1:502", "[2001:db8::1]:40000"] {
            round_trip(
                3,
                &Frame::ClientOpen(ClientOpen {
                    client: 1,
                    address: address.parse().unwrap(),
                    name: b"hmi-1",
                    identity: b"",
                    role: b"Operator",
                }),
            );
        }
        round_trip(1, &Frame::ClientClose { client: 77 });
        round_trip(
            u16::MAX,
            &Frame::Request {
                id: 1,
                client: 2,
                within: 1000,
                unit: 3,
                pdu: &[3, 0, 0, 0, 1],
            },
        );
        round_trip(
            1,
            &Frame::Answer {
                id: 1,
                outcome: Outcome::Unknown,
                pdu: &[0x83, 0x0b],
            },
        );
    }

    #[test]
    fn an_ethernet_frame_has_a_least_and_a_most() {
        for length in [0, MIN_ETHERNET, MAX_DEVICE + 1, MAX_ETHERNET] {
            round_trip(2, &Frame::Station(&vec![7; length]));
        }
        let decode = |length: usize| {
            let mut bytes = Vec::new();
            Frame::Station(&vec![7; length]).encode(2, &mut bytes);
            Frame::decode(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(decode(1), FrameError::Ethernet { got: 1 });
        assert_eq!(decode(13), FrameError::Ethernet { got: 13 });
        let (channel, limit) = (2, 1 + MAX_ETHERNET);
        let got = limit + 1;
        let length = FrameError::Length {
            channel,
            got,
            limit,
        };
        assert_eq!(decode(MAX_ETHERNET + 1), length);
        let mut bytes = Vec::new();
        Frame::Station(&[7; 60]).encode(0, &mut bytes);
        let kind = FrameError::Kind {
            channel: 0,
            kind: 0x20,
        };
        assert_eq!(Frame::decode(&bytes), Err(kind));
    }

    #[test]
    fn a_device_frame_on_the_control_channel_is_refused() {
        let mut bytes = Vec::new();
        Frame::ClientClose { client: 1 }.encode(1, &mut bytes);
        bytes[3] = 0;
        assert_eq!(
            Frame::decode(&bytes),
            Err(FrameError::Kind {
                channel: 0,
                kind: 0x11
            })
        );
    }

    #[test]
    fn lengths_are_judged_before_the_body_arrives() {
        assert!(matches!(
            Frame::decode(&[0, 0, 0, 0, 1]),
            Err(FrameError::Length { got: 0, .. })
        ));
        assert!(matches!(
            Frame::decode(&[0x04, 0x01, 0, 1, 0x12]),
            Err(FrameError::Length { got: 1025, .. })
        ));
        assert!(matches!(
            Frame::decode(&[0x80, 0x01, 0, 0, 1]),
            Err(FrameError::Length { got: 32769, .. })
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..400)) {
            if let Ok(Some((_, _, size))) = Frame::decode(&bytes) {
                prop_assert!(size <= bytes.len());
            }
        }

        #[test]
        fn chunks_don_t_matter(
            pdus in vec(vec(any::<u8>(), 1..=MAX_PDU), 1..8),
            cuts in vec(1usize..64, 1..64),
        ) {
            let mut bytes = Vec::new();
            for (id, pdu) in (0u64..).zip(&pdus) {
                Frame::Request { id, client: 0, within: 1, unit: 1, pdu }.encode(1, &mut bytes);
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            let mut rest = bytes.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let cut = (*cuts.next().unwrap()).min(rest.len());
                let (head, tail) = rest.split_at(cut);
                decoder.feed::<FrameError>(head, |_, frame| {
                    if let Frame::Request { pdu, .. } = frame {
                        seen.push(pdu.to_vec());
                    }
                    Ok(())
                }).unwrap();
                rest = tail;
            }
            prop_assert_eq!(seen, pdus);
            prop_assert!(decoder.partial.is_empty());
        }
    }
}
