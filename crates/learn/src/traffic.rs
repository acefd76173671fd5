//! The requests of a capture, as a headend would have met them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::str::FromStr;
use std::time::SystemTime;

use fieldlock_capture::{CaptureError, Direction, Piece, PieceKind, Problem, Reader};
use fieldlock_modbus::{Answer, Expected, Request, mbap};
use fieldlock_policy::Span;
use serde::Serialize;

/// Requests of one connection that may wait for their answers.
const MAX_PENDING: usize = 1_024;

/// Connections with requests that wait, and servers whose names are kept.
const MAX_KEPT: usize = 16_384;

/// Malformed pieces that are named; beyond that they are counted.
const MAX_NAMED: usize = 20;

/// Which devices and frames of a capture count.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The port of the Modbus servers.
    pub port: u16,
    /// Which server is which device. A server without a name here is called by its address:
    /// 10.1.1.50 is the device 10-1-1-50.
    pub devices: Vec<Mapping>,
    /// Only requests of these frames; all without it.
    pub frames: Option<Frames>,
}

/// A device's name for a server: `press-07=10.1.1.50`, with the port of [`Scope`] unless it has its
/// own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    name: String,
    address: IpAddr,
    port: Option<u16>,
}

/// Why a text is not a [`Mapping`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("write NAME=IP or NAME=IP:PORT, such as press-07=10.1.1.50")]
    Form,
    #[error(
        "{name:?} is not the name of a device: 1 to 63 of a-z, 0-9 and, not at the ends, hyphens"
    )]
    Name { name: String },
}

impl FromStr for Mapping {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let (name, server) = text.split_once('=').ok_or(MappingError::Form)?;
        if !fieldlock_policy::is_device_name(name) {
            return Err(MappingError::Name {
                name: name.to_owned(),
            });
        }
        let (address, port) = match (server.parse(), server.parse::<SocketAddr>()) {
            (Ok(address), _) => (address, None),
            (Err(_), Ok(both)) => (both.ip(), Some(both.port())),
            (Err(_), Err(_)) => return Err(MappingError::Form),
        };
        Ok(Self {
            name: name.to_owned(),
            address,
            port,
        })
    }
}

/// Frames by their numbers, as tshark counts them: `1-5000`, or `5001-` up to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames {
    first: u32,
    last: u32,
}

/// A text is not [`Frames`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write FIRST-LAST, such as 1-5000, or FIRST- for all from there on")]
pub struct FramesError;

impl FromStr for Frames {
    type Err = FramesError;

    fn from_str(text: &str) -> Result<Self, FramesError> {
        let ends = text.split_once('-').and_then(|(first, last)| {
            let last = match last {
                "" => u32::MAX,
                last => last.parse().ok()?,
            };
            Some((first.parse().ok()?, last))
        });
        match ends {
            Some((first, last)) if first <= last => Ok(Self { first, last }),
            _ => Err(FramesError),
        }
    }
}

/// A well-formed request.
#[derive(Debug)]
pub struct Seen<'a> {
    pub frame: u32,
    pub time: Option<SystemTime>,
    pub client: IpAddr,
    pub device: Rc<str>,
    pub unit: u8,
    pub request: Request<'a>,
}

impl Seen<'_> {
    /// The addresses that it reads, and those that it writes.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        let read = self.request.read();
        let written = self.request.write().map(|write| write.range);
        read.into_iter().chain(written).map(|range| Span {
            table: range.table,
            first: range.start,
            last: range.last(),
        })
    }
}

/// What a capture held.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    pub frames: u32,
    /// Of these, from interfaces whose link type is not read.
    pub unreadable_frames: u32,
    pub requests: u64,
    /// Requests that were answered as the specification says, or with an exception.
    pub answered: u64,
    pub exceptions: u64,
    pub unanswered: u64,
    /// Answers whose request is not in the capture.
    pub unasked: u64,
    pub malformed: u64,
    /// The first of them, with their frames.
    pub malformed_frames: Vec<Malformed>,
    /// Servers that no `--device` names, with the names that stand for them.
    pub unnamed: BTreeMap<SocketAddr, Rc<str>>,
    /// Why the file was not read to its end.
    pub cut: Option<String>,
}

/// A piece of a capture that is no Modbus, or does not fit its request.
#[derive(Debug, Serialize)]
pub struct Malformed {
    pub frame: u32,
    pub what: String,
}

/// Hands every request to `each`, in the order of the frames. A capture that is cut off counts up to
/// there ([`Tally::cut`]).
///
/// # Errors
/// The file can't be read, or is no capture.
pub fn read(
    file: &Path,
    scope: &Scope,
    mut each: impl FnMut(&Seen<'_>),
) -> Result<Tally, CaptureError> {
    let mut ports: Vec<u16> = scope.devices.iter().filter_map(|m| m.port).collect();
    ports.push(scope.port);
    let mut reader = Reader::open(file, &ports)?;
    let mut walk = Walk {
        scope,
        names: HashMap::new(),
        pending: BTreeMap::new(),
        tally: Tally::default(),
    };
    loop {
        match reader.next() {
            Ok(Some(piece)) => walk.handle(&piece, &mut each),
            Ok(None) => break,
            Err(CaptureError {
                problem: problem @ Problem::Truncated { .. },
                ..
            }) => walk.tally.cut = Some(problem.to_string()),
            Err(error) => return Err(error),
        }
    }
    let open = walk.pending.values().map(VecDeque::len).sum::<usize>();
    walk.tally.unanswered += open as u64;
    walk.tally.frames = reader.frames();
    walk.tally.unreadable_frames = reader.unreadable();
    Ok(walk.tally)
}

struct Walk<'s> {
    scope: &'s Scope,
    names: HashMap<SocketAddr, Rc<str>>,
    /// By connection; a connection that has ended keeps what was never answered.
    pending: BTreeMap<usize, VecDeque<Pending>>,
    tally: Tally,
}

struct Pending {
    transaction: u16,
    unit: u8,
    expected: Expected,
}

impl Walk<'_> {
    fn handle(&mut self, piece: &Piece, each: &mut impl FnMut(&Seen<'_>)) {
        let counts = |frames: &Frames| (frames.first..=frames.last).contains(&piece.frame);
        if !self.scope.frames.as_ref().is_none_or(counts) {
            return;
        }
        let side = match piece.direction {
            Direction::Up => "request",
            Direction::Down => "answer",
        };
        let decoded = match piece.kind {
            PieceKind::Adu => mbap::decode(&piece.bytes).map_err(|error| error.to_string()),
            PieceKind::Unframed => Err("no MBAP header".to_owned()),
            PieceKind::Partial => Err("cut off".to_owned()),
        };
        let adu = match decoded {
            Ok(Some((adu, _))) => adu,
            Ok(None) => return self.malformed(piece, format!("{side}: cut off")),
            Err(what) => return self.malformed(piece, format!("{side}: {what}")),
        };
        match piece.direction {
            Direction::Up => self.request(piece, &adu, each),
            Direction::Down => self.answer(piece, &adu),
        }
    }

    fn request(&mut self, piece: &Piece, adu: &mbap::Adu<'_>, each: &mut impl FnMut(&Seen<'_>)) {
        let request = match Request::parse(adu.pdu) {
            Ok(request) => request,
            Err(malformed) => return self.malformed(piece, format!("request: {malformed}")),
        };
        self.tally.requests += 1;
        let pending = self.pending.entry(piece.connection).or_default();
        if pending.len() >= MAX_PENDING {
            pending.pop_front();
            self.tally.unanswered += 1;
        }
        pending.push_back(Pending {
            transaction: adu.transaction,
            unit: adu.unit,
            expected: Expected::of(&request),
        });
        while self.pending.len() > MAX_KEPT {
            let oldest = self.pending.pop_first();
            self.tally.unanswered += oldest.map_or(0, |(_, waiting)| waiting.len() as u64);
        }
        each(&Seen {
            frame: piece.frame,
            time: piece.time,
            client: piece.client.ip().to_canonical(),
            device: self.device(piece.server),
            unit: adu.unit,
            request,
        });
    }

    fn answer(&mut self, piece: &Piece, adu: &mbap::Adu<'_>) {
        let matching = |one: &Pending| one.transaction == adu.transaction && one.unit == adu.unit;
        let asked = self.pending.get_mut(&piece.connection).and_then(|pending| {
            let place = pending.iter().position(matching)?;
            pending.remove(place)
        });
        let Some(asked) = asked else {
            self.tally.unasked += 1;
            return;
        };
        match asked.expected.check(adu.pdu) {
            Ok(Answer::Normal) => self.tally.answered += 1,
            Ok(Answer::Exception(_)) => {
                self.tally.answered += 1;
                self.tally.exceptions += 1;
            }
            Err(mismatch) => {
                self.tally.unanswered += 1;
                self.malformed(piece, mismatch.to_string());
            }
        }
    }

    fn malformed(&mut self, piece: &Piece, what: String) {
        self.tally.malformed += 1;
        if self.tally.malformed_frames.len() < MAX_NAMED {
            let frame = piece.frame;
            self.tally.malformed_frames.push(Malformed { frame, what });
        }
    }

    fn device(&mut self, server: SocketAddr) -> Rc<str> {
        if let Some(name) = self.names.get(&server) {
            return Rc::clone(name);
        }
        let address = server.ip().to_canonical();
        let is = |mapping: &&Mapping| {
            mapping.address.to_canonical() == address
                && mapping.port.unwrap_or(self.scope.port) == server.port()
        };
        let name = match self.scope.devices.iter().find(is) {
            Some(mapping) => mapping.name.as_str().into(),
            None => {
                let name: Rc<str> = self.named_by_address(server).into();
                if self.tally.unnamed.len() < MAX_KEPT {
                    self.tally.unnamed.insert(server, Rc::clone(&name));
                }
                name
            }
        };
        if self.names.len() < MAX_KEPT {
            self.names.insert(server, Rc::clone(&name));
        }
        name
    }

    fn named_by_address(&self, server: SocketAddr) -> String {
        let address = match server.ip().to_canonical() {
            IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
            // In full, since "::" would leave hyphens at an end.
            IpAddr::V6(v6) => v6.segments().map(|part| format!("{part:x}")).join("-"),
        };
        match server.port() == self.scope.port {
            true => address,
            false => format!("{address}-{}", server.port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;
    use crate::recording::{HMI, PRESS, Recording};

    const READ: &[u8] = &[3, 0, 0, 0, 2];
    const READ_ANSWER: &[u8] = &[3, 4, 0, 1, 0, 2];
    const EXCEPTION: &[u8] = &[0x83, 2];

    fn scope() -> Scope {
        Scope {
            port: 502,
            devices: Vec::new(),
            frames: None,
        }
    }

    /// The tally, and each request as `frame device spans`.
    fn read_all(recording: &Recording, scope: &Scope) -> (Tally, Vec<String>) {
        let (_folder, path) = recording.stored();
        let mut requests = Vec::new();
        let tally = read(&path, scope, |seen| {
            let spans: Vec<String> = seen.spans().map(|span| span.to_string()).collect();
            requests.push(format!(
                "{} {} {}",
                seen.frame,
                seen.device,
                spans.join(", ")
            ));
        });
        (tally.unwrap(), requests)
    }

    #[test]
    fn requests_are_counted_by_what_answered_them() {
        let recording = Recording::new()
            .request(HMI, PRESS, 1, READ)
            .answer(HMI, PRESS, 1, READ_ANSWER)
            .request(HMI, PRESS, 2, READ)
            .answer(HMI, PRESS, 2, EXCEPTION)
            .request(HMI, PRESS, 3, READ)
            // Two registers were asked for.
            .answer(HMI, PRESS, 3, &[3, 2, 0, 1])
            .answer(HMI, PRESS, 9, READ_ANSWER)
            .request(HMI, PRESS, 4, READ)
            // 126 registers are more than a request may ask for.
            .request(HMI, PRESS, 5, &[3, 0, 0, 0, 126]);
        let (tally, requests) = read_all(&recording, &scope());
        assert_eq!(requests.len(), 4);
        assert_eq!(requests[0], "1 10-1-1-50 holding 0-1");
        assert_eq!((tally.frames, tally.requests), (9, 4));
        assert_eq!((tally.answered, tally.exceptions), (2, 1));
        assert_eq!((tally.unanswered, tally.unasked), (2, 1));
        assert_eq!(tally.malformed, 2);
        let frames: Vec<u32> = tally.malformed_frames.iter().map(|m| m.frame).collect();
        assert_eq!(frames, [6, 9]);
    }

    #[test]
    fn a_function_that_reads_and_writes_has_the_addresses_of_both() {
        let pdu = [23, 0, 0, 0, 2, 0, 40, 0, 1, 2, 0, 7];
        let recording = Recording::new().request(HMI, PRESS, 1, &pdu);
        let (_, requests) = read_all(&recording, &scope());
        assert_eq!(requests, ["1 10-1-1-50 holding 0-1, holding 40"]);
    }

    #[test]
    fn servers_have_the_names_they_are_given_or_their_addresses() {
        let other = SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 51), 1502);
        let recording = Recording::new()
            .request(HMI, PRESS, 1, READ)
            .request(HMI, other, 1, READ);
        let mut scope = scope();
        scope.devices = vec!["press-07=10.1.1.50".parse().unwrap()];
        let (tally, requests) = read_all(&recording, &scope);
        assert_eq!(requests, ["1 press-07 holding 0-1"]);
        assert!(tally.unnamed.is_empty());

        scope.devices = vec!["press-08=10.1.1.51:1502".parse().unwrap()];
        let (tally, requests) = read_all(&recording, &scope);
        assert_eq!(
            requests,
            ["1 10-1-1-50 holding 0-1", "2 press-08 holding 0-1"]
        );
        let unnamed: Vec<&str> = tally.unnamed.values().map(|name| &**name).collect();
        assert_eq!(unnamed, ["10-1-1-50"]);
    }

    #[test]
    fn only_the_frames_of_the_scope_count() {
        let recording = (1..=4).fold(Recording::new(), |recording, id| {
            recording.request(HMI, PRESS, id, READ)
        });
        for (frames, counted) in [("1-2", 2), ("3-", 2), ("4-4", 1), ("5-", 0)] {
            let scope = Scope {
                frames: Some(frames.parse().unwrap()),
                ..scope()
            };
            let (tally, requests) = read_all(&recording, &scope);
            assert_eq!(requests.len(), counted, "{frames}");
            assert_eq!(tally.frames, 4);
        }
    }

    #[test]
    fn a_capture_that_is_cut_off_counts_up_to_there() {
        let recording = Recording::new()
            .request(HMI, PRESS, 1, READ)
            .request(HMI, PRESS, 2, READ)
            .cut(5);
        let (tally, requests) = read_all(&recording, &scope());
        assert_eq!(requests.len(), 1);
        assert!(tally.cut.is_some());
    }

    #[test]
    fn what_is_no_capture_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plant.pcap");
        assert!(read(&path, &scope(), |_| {}).is_err());
        std::fs::write(&path, "no capture at all, but long enough for a header").unwrap();
        assert!(read(&path, &scope(), |_| {}).is_err());
    }

    #[test]
    fn one_of_a_flood_of_requests_without_answers_is_forgotten_not_kept() {
        let ids = (0..=MAX_PENDING).map(|id| (id % 256) as u8);
        let recording = ids.fold(Recording::new(), |recording, id| {
            recording.request(HMI, PRESS, id, READ)
        });
        let (tally, requests) = read_all(&recording, &scope());
        assert_eq!(requests.len(), MAX_PENDING + 1);
        assert_eq!(tally.unanswered, MAX_PENDING as u64 + 1);
    }

    #[test]
    fn malformed_pieces_are_named_up_to_a_limit() {
        let recording = (0..30).fold(Recording::new(), |recording, id| {
            recording.request(HMI, PRESS, id, &[3, 0])
        });
        let (tally, _) = read_all(&recording, &scope());
        assert_eq!(tally.malformed, 30);
        assert_eq!(tally.malformed_frames.len(), MAX_NAMED);
    }

    #[test]
    fn texts_that_name_no_device_or_frames_say_what_to_write() {
        for (text, wrong) in [
            ("press-07", MappingError::Form),
            ("press-07=10.1.1", MappingError::Form),
            (
                "Press=10.1.1.50",
                MappingError::Name {
                    name: "Press".to_owned(),
                },
            ),
        ] {
            assert_eq!(text.parse::<Mapping>(), Err(wrong), "{text}");
        }
        for text in ["", "1", "5-4", "-4", "a-b", "1-4294967296"] {
            assert_eq!(text.parse::<Frames>(), Err(FramesError), "{text}");
        }
    }
}
