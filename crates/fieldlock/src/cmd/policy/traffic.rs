//! The requests of a capture, as a headend would have met them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::str::FromStr;
use std::time::SystemTime;

use fieldlock_capture::{CaptureError, Direction, MODBUS, Piece, PieceKind, Problem, Reader};
use fieldlock_modbus::{Answer, Expected, Request, mbap};
use serde::Serialize;

/// Requests of one connection that may wait for their answers.
const MAX_PENDING: usize = 1_024;

/// Connections with requests that wait, and servers whose names are kept.
const MAX_KEPT: usize = 16_384;

/// Malformed pieces that are named; beyond that they are counted.
const MAX_NAMED: usize = 20;

/// Which devices and frames of a capture count.
#[derive(Debug, clap::Args)]
pub(super) struct Scope {
    /// The port of the Modbus servers.
    #[arg(long, value_name = "PORT", default_value_t = MODBUS)]
    port: u16,
    /// Which server is which device; may be repeated. A server without a name here is called by its
    /// address: 10.1.1.50 is the device 10-1-1-50.
    #[arg(long = "device", value_name = "NAME=IP[:PORT]")]
    devices: Vec<Mapping>,
    /// Only requests of these frames, as tshark counts them: "1-5000", or "5001-" up to the end.
    #[arg(long, value_name = "FIRST-LAST")]
    frames: Option<Frames>,
}

impl Scope {
    /// Whether it says anything: it means nothing without a capture.
    pub(super) fn is_given(&self) -> bool {
        self.port != MODBUS || !self.devices.is_empty() || self.frames.is_some()
    }
}

#[derive(Debug, Clone)]
struct Mapping {
    name: String,
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write NAME=IP or NAME=IP:PORT, such as press-07=10.1.1.50".to_owned();
        let (name, server) = text.split_once('=').ok_or_else(wrong)?;
        if !fieldlock_policy::is_device_name(name) {
            return Err(format!(
                "{name:?} is not the name of a device: 1 to 63 of a-z, 0-9 and, not at the ends, hyphens"
            ));
        }
        let (address, port) = match (server.parse(), server.parse::<SocketAddr>()) {
            (Ok(address), _) => (address, None),
            (Err(_), Ok(both)) => (both.ip(), Some(both.port())),
            (Err(_), Err(_)) => return Err(wrong()),
        };
        Ok(Self {
            name: name.to_owned(),
            address,
            port,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Frames {
    first: u32,
    last: u32,
}

impl FromStr for Frames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.split_once('-').and_then(|(first, last)| {
            let last = match last {
                "" => u32::MAX,
                last => last.parse().ok()?,
            };
            Some((first.parse().ok()?, last))
        });
        match ends {
            Some((first, last)) if first <= last => Ok(Self { first, last }),
            _ => {
                Err("write FIRST-LAST, such as 1-5000, or FIRST- for all from there on".to_owned())
            }
        }
    }
}

/// A well-formed request.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) frame: u32,
    pub(super) time: Option<SystemTime>,
    pub(super) client: IpAddr,
    pub(super) device: Rc<str>,
    pub(super) unit: u8,
    pub(super) request: Request<'a>,
}

/// What a capture held.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    pub(super) frames: u32,
    /// Of these, from interfaces whose link type is not read.
    pub(super) unreadable_frames: u32,
    pub(super) requests: u64,
    /// Requests that were answered as the specification says, or with an exception.
    pub(super) answered: u64,
    pub(super) exceptions: u64,
    pub(super) unanswered: u64,
    /// Answers whose request is not in the capture.
    pub(super) unasked: u64,
    pub(super) malformed: u64,
    /// The first of them, with their frames.
    pub(super) malformed_frames: Vec<Malformed>,
    /// Servers that no `--device` names, with the names that stand for them.
    pub(super) unnamed: BTreeMap<SocketAddr, Rc<str>>,
    /// Why the file was not read to its end.
    pub(super) cut: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Malformed {
    pub(super) frame: u32,
    pub(super) what: String,
}

/// Hands every request to `each`, in the order of the frames.
pub(super) fn read(
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

/// What a person should know about how the capture was read.
pub(super) fn notes(tally: &Tally, file: &Path) {
    let file = file.display();
    for (server, name) in tally.unnamed.iter().take(MAX_NAMED) {
        eprintln!("note: no --device names {server}: it is called {name}");
    }
    if let Some(more) = tally
        .unnamed
        .len()
        .checked_sub(MAX_NAMED)
        .filter(|n| *n > 0)
    {
        eprintln!("note: and {more} more servers are called by their addresses");
    }
    if tally.unreadable_frames > 0 {
        eprintln!(
            "warning: {file}: {} frames were passed over: they are from interfaces whose link type is \
             neither Ethernet, raw IP nor Linux cooked",
            tally.unreadable_frames
        );
    }
    if let Some(cut) = &tally.cut {
        eprintln!("warning: {file}: {cut}; what is before it counts");
    }
    for Malformed { frame, what } in &tally.malformed_frames {
        eprintln!("warning: {file}: frame {frame}: {what}");
    }
    let unnamed = tally.malformed - tally.malformed_frames.len() as u64;
    if unnamed > 0 {
        eprintln!("warning: {file}: and {unnamed} more malformed");
    }
}
