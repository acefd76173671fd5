//! Modbus/TCP requests out of capture files.
//!
//! [`Capture::read`] parses a pcap or pcapng file and puts TCP streams to port 502 together:
//! in the order of their sequence numbers, duplicates dropped, gaps noted. What a stream
//! holds is cut into ADUs by the MBAP length alone; whether those are good Modbus is for
//! the reader to say.

mod file;
mod packet;
mod stream;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::peers::workspace_root;
use file::Frames;
use packet::Segment;
use stream::Stream;

/// The server port that makes a TCP connection a Modbus one.
pub const MODBUS: u16 = 502;

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("neither pcap nor pcapng: the file starts with {0:02x?}")]
    Magic([u8; 4]),
    #[error("link type {0}, readable are 1 (Ethernet), 101 (raw IP), 113 and 276 (Linux cooked)")]
    LinkType(u32),
    #[error("the file ends within frame {frame}")]
    Truncated { frame: u32 },
}

/// The Modbus connections of one file, in the order of their first frames.
#[derive(Debug)]
pub struct Capture {
    pub frames: u32,
    pub connections: Vec<Connection>,
}

/// One TCP connection to port 502.
#[derive(Debug)]
pub struct Connection {
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub requests: Vec<Piece>,
    pub answers: Vec<Piece>,
}

/// A piece of one direction's byte stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Number of the frame that completed it, from 1, as tshark counts.
    pub frame: u32,
    pub bytes: Vec<u8>,
    pub kind: PieceKind,
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

impl Connection {
    /// The requests that are whole ADUs, with their frame numbers.
    pub fn request_adus(&self) -> impl Iterator<Item = (u32, &[u8])> {
        adus(&self.requests)
    }

    /// The answers that are whole ADUs, with their frame numbers.
    pub fn answer_adus(&self) -> impl Iterator<Item = (u32, &[u8])> {
        adus(&self.answers)
    }
}

impl Capture {
    pub fn read(path: &Path) -> Result<Self, CaptureError> {
        let bytes = fs::read(path).map_err(|error| CaptureError::File(path.to_owned(), error))?;
        Self::parse(&bytes)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, CaptureError> {
        let mut frames = Frames::new(bytes)?;
        let mut table = Table::default();
        while let Some((link_type, frame)) = frames.next()? {
            if let Some(segment) = packet::tcp_segment(link_type, frame) {
                table.handle(frames.count(), &segment);
            }
        }
        Ok(Self {
            frames: frames.count(),
            connections: table.finish(),
        })
    }
}

/// The folder of the captures: `FIELDLOCK_DATA`, or `shared/data` beside the workspace;
/// `None` when it does not exist.
pub fn data_folder() -> Option<PathBuf> {
    let default = || workspace_root().join("../shared/data");
    let folder = env::var_os("FIELDLOCK_DATA").map_or_else(default, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// The Modbus captures in the [`data_folder`], sorted by name.
pub fn modbus_captures() -> Vec<PathBuf> {
    let folder = data_folder().map(|folder| folder.join("modbus"));
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok());
    let paths = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut captures: Vec<PathBuf> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "pcap")
        })
        .collect();
    captures.sort();
    captures
}

fn adus(pieces: &[Piece]) -> impl Iterator<Item = (u32, &[u8])> {
    let whole = pieces.iter().filter(|piece| piece.kind == PieceKind::Adu);
    whole.map(|piece| (piece.frame, piece.bytes.as_slice()))
}

/// The connections under way, by client and server address.
#[derive(Default)]
struct Table {
    all: Vec<Open>,
    newest: HashMap<(SocketAddr, SocketAddr), usize>,
}

struct Open {
    client: SocketAddr,
    server: SocketAddr,
    up: Stream,
    down: Stream,
}

impl Table {
    fn handle(&mut self, frame: u32, segment: &Segment<'_>) {
        let upwards = segment.to.port() == MODBUS;
        if !upwards && segment.from.port() != MODBUS {
            return;
        }
        let (client, server) = if upwards {
            (segment.from, segment.to)
        } else {
            (segment.to, segment.from)
        };
        let known = self.newest.get(&(client, server)).copied();
        // A client's SYN with another sequence number is the same port used again.
        let reused = |place: usize| {
            upwards && segment.syn && !self.all[place].up.began_with(segment.sequence)
        };
        let place = match known {
            Some(place) if !reused(place) => place,
            _ => {
                self.all.push(Open {
                    client,
                    server,
                    up: Stream::default(),
                    down: Stream::default(),
                });
                self.newest.insert((client, server), self.all.len() - 1);
                self.all.len() - 1
            }
        };
        let open = &mut self.all[place];
        let stream = if upwards {
            &mut open.up
        } else {
            &mut open.down
        };
        stream.handle(frame, segment);
    }

    fn finish(self) -> Vec<Connection> {
        let finish = |open: Open| Connection {
            client: open.client,
            server: open.server,
            requests: open.up.finish(),
            answers: open.down.finish(),
        };
        self.all.into_iter().map(finish).collect()
    }
}

#[cfg(test)]
mod tests;
