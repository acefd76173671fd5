//! Modbus/TCP out of capture files, in bounded memory.
//!
//! [`Reader`] walks a pcap or pcapng file frame by frame and puts the TCP streams from and to the
//! Modbus ports together: in the order of their sequence numbers, duplicates dropped, gaps noted.
//! What a stream holds is cut into ADUs by the MBAP length alone; whether those are good Modbus is
//! for the caller to say. [`Frames`] hands out the frames as they are, for whoever looks for another
//! protocol.
//!
//! Bounds: frames of at most 256 KiB, 4,096 connections at a time (beyond that the half that was
//! silent longest counts as ended), and of each direction 32 KiB that wait for a missing segment.

mod file;
mod packet;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use file::{Frame, Frames};
pub use packet::LinkType;

use packet::Segment;
use stream::Stream;

/// The port of Modbus/TCP.
pub const MODBUS: u16 = 502;

/// Connections that are followed at a time.
const MAX_CONNECTIONS: usize = 4_096;

/// Why a file can't be read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}", file = .file.display())]
pub struct CaptureError {
    pub file: PathBuf,
    pub problem: Problem,
}

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("neither pcap nor pcapng: the file starts with {0:02x?}")]
    Magic([u8; 4]),
    #[error("link type {0}; readable are 1 (Ethernet), 101 (raw IP), 113 and 276 (Linux cooked)")]
    LinkType(u32),
    /// Frame 0 is the file's own header.
    #[error("the file ends within frame {frame}")]
    Truncated { frame: u32 },
    #[error(
        "frame {frame} claims {length} octets, more than the {} that a frame may have",
        file::MAX_FRAME
    )]
    FrameLength { frame: u32, length: u32 },
    #[error("the block after frame {frame} is damaged: {what}")]
    Block { frame: u32, what: &'static str },
}

/// A piece of one direction of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which connection of the file, from 0, in the order of their first frames.
    pub connection: usize,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub direction: Direction,
    /// Number of the frame that completed it, from 1, as tshark counts.
    pub frame: u32,
    /// When that frame was captured, if the file says so.
    pub time: Option<SystemTime>,
    pub bytes: Vec<u8>,
    pub kind: PieceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client: requests.
    Up,
    /// From the server: answers.
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// A whole ADU as the MBAP length says.
    Adu,
    /// Rest of a segment whose next MBAP header can't be one: a length outside of 2 to 512
    /// or a protocol id other than 0.
    Unframed,
    /// The stream ends, or has a gap, within an ADU.
    Partial,
}

/// Reads a capture piece by piece.
///
/// Call [`Reader::next`] until it returns `None`. After a [`Problem::Truncated`] it may be called
/// on, for what the frames before still hold.
#[derive(Debug)]
pub struct Reader<R> {
    file: PathBuf,
    frames: Frames<R>,
    ended: bool,
    connections: Connections,
    ready: VecDeque<Piece>,
}

impl Reader<BufReader<File>> {
    /// Opens a file; `ports` are those of the Modbus servers.
    pub fn open(path: &Path, ports: &[u16]) -> Result<Self, CaptureError> {
        let named = |problem| CaptureError {
            file: path.to_owned(),
            problem,
        };
        let file = File::open(path).map_err(|error| named(error.into()))?;
        Self::new(BufReader::new(file), path, ports)
    }
}

impl<R: Read> Reader<R> {
    /// Reads from `input`, which errors call `name`.
    pub fn new(input: R, name: &Path, ports: &[u16]) -> Result<Self, CaptureError> {
        let frames = Frames::new(input).map_err(|problem| CaptureError {
            file: name.to_owned(),
            problem,
        })?;
        Ok(Self {
            file: name.to_owned(),
            frames,
            ended: false,
            connections: Connections {
                ports: ports.to_vec(),
                count: 0,
                open: HashMap::new(),
            },
            ready: VecDeque::new(),
        })
    }

    /// Frames that have been read so far.
    pub fn frames(&self) -> u32 {
        self.frames.count()
    }

    /// Frames so far that were passed over, since their interface has a link type that is not read.
    pub fn unreadable(&self) -> u32 {
        self.frames.unreadable()
    }

    /// The next piece, in the order in which frames complete them.
    #[expect(
        clippy::should_implement_trait,
        reason = "fails, and goes on after that"
    )]
    pub fn next(&mut self) -> Result<Option<Piece>, CaptureError> {
        while self.ready.is_empty() && !self.ended {
            let frame = self.frames.next().map_err(|problem| {
                self.ended = true;
                self.connections.finish(&mut self.ready);
                CaptureError {
                    file: self.file.clone(),
                    problem,
                }
            })?;
            let Some(frame) = frame else {
                self.ended = true;
                self.connections.finish(&mut self.ready);
                break;
            };
            let at = At {
                frame: frame.number,
                time: frame.time,
            };
            if let Some(segment) = packet::tcp_segment(frame.link_type, frame.bytes) {
                self.connections.handle(at, &segment, &mut self.ready);
            }
        }
        Ok(self.ready.pop_front())
    }
}

/// Which frame, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct At {
    frame: u32,
    time: Option<SystemTime>,
}

/// The connections under way, by client and server address.
#[derive(Debug)]
struct Connections {
    ports: Vec<u16>,
    count: usize,
    open: HashMap<Ends, Open>,
}

/// Client and server.
type Ends = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Open {
    number: usize,
    last: u32,
    up: Stream,
    down: Stream,
}

impl Connections {
    fn handle(&mut self, at: At, segment: &Segment<'_>, ready: &mut VecDeque<Piece>) {
        let (ends, direction) = if self.ports.contains(&segment.to.port()) {
            ((segment.from, segment.to), Direction::Up)
        } else if self.ports.contains(&segment.from.port()) {
            ((segment.to, segment.from), Direction::Down)
        } else {
            return;
        };
        // A client's SYN with another sequence number is the same port used again.
        let reused = |open: &Open| {
            let upwards = direction == Direction::Up;
            upwards && segment.syn && !open.up.began_with(segment.sequence)
        };
        if let Some(ended) = self.open.get(&ends)
            && reused(ended)
            && let Some(ended) = self.open.remove(&ends)
        {
            ended.finish(ends, ready);
        }
        if self.open.len() >= MAX_CONNECTIONS && !self.open.contains_key(&ends) {
            self.end_silent_half(ready);
        }
        let count = &mut self.count;
        let open = self.open.entry(ends).or_insert_with(|| {
            *count += 1;
            Open {
                number: *count - 1,
                last: at.frame,
                up: Stream::default(),
                down: Stream::default(),
            }
        });
        open.last = at.frame;
        let stream = match direction {
            Direction::Up => &mut open.up,
            Direction::Down => &mut open.down,
        };
        stream.handle(at, segment);
        let number = open.number;
        ready.extend(stream.cut().map(|cut| cut.piece(number, ends, direction)));
    }

    fn end_silent_half(&mut self, ready: &mut VecDeque<Piece>) {
        let mut by_age: Vec<(u32, Ends)> = self.open.iter().map(|(e, o)| (o.last, *e)).collect();
        by_age.sort_unstable();
        for (_, ends) in by_age.into_iter().take(MAX_CONNECTIONS / 2) {
            if let Some(open) = self.open.remove(&ends) {
                open.finish(ends, ready);
            }
        }
    }

    fn finish(&mut self, ready: &mut VecDeque<Piece>) {
        let mut rest: Vec<(Ends, Open)> = self.open.drain().collect();
        rest.sort_unstable_by_key(|(_, open)| open.number);
        for (ends, open) in rest {
            open.finish(ends, ready);
        }
    }
}

impl Open {
    fn finish(mut self, ends: Ends, ready: &mut VecDeque<Piece>) {
        for (stream, direction) in [
            (&mut self.up, Direction::Up),
            (&mut self.down, Direction::Down),
        ] {
            stream.finish();
            let cuts = stream.cut();
            ready.extend(cuts.map(|cut| cut.piece(self.number, ends, direction)));
        }
    }
}
