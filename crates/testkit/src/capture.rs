//! The capture files of tests, read whole.

use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use fieldlock_capture::{CaptureError, MODBUS, Piece, PieceKind};
use fieldlock_capture::{Direction, Frames, LinkType, Reader};

use crate::peers::workspace_root;

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
        Self::collect(Reader::open(path, &[MODBUS])?)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, CaptureError> {
        Self::collect(Reader::new(bytes, Path::new("bytes"), &[MODBUS])?)
    }

    fn collect(mut reader: Reader<impl std::io::Read>) -> Result<Self, CaptureError> {
        let mut connections: Vec<(usize, Connection)> = Vec::new();
        while let Some(piece) = reader.next()? {
            let known = connections
                .iter()
                .position(|(number, _)| *number == piece.connection);
            let place = known.unwrap_or_else(|| {
                let fresh = Connection {
                    client: piece.client,
                    server: piece.server,
                    requests: Vec::new(),
                    answers: Vec::new(),
                };
                connections.push((piece.connection, fresh));
                connections.len() - 1
            });
            let connection = &mut connections[place].1;
            match piece.direction {
                Direction::Up => connection.requests.push(piece),
                Direction::Down => connection.answers.push(piece),
            }
        }
        connections.sort_by_key(|(number, _)| *number);
        Ok(Self {
            frames: reader.frames(),
            connections: connections.into_iter().map(|(_, one)| one).collect(),
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

/// The Ethernet frames of a file, of any protocol, each with its number as tshark counts.
pub fn ethernet_frames(path: &Path) -> Result<Vec<(u32, Vec<u8>)>, CaptureError> {
    let wrong = |problem| CaptureError {
        file: path.to_owned(),
        problem,
    };
    let file = fs::File::open(path).map_err(|error| wrong(error.into()))?;
    let mut frames = Frames::new(io::BufReader::new(file)).map_err(wrong)?;
    let mut all = Vec::new();
    while let Some(frame) = frames.next().map_err(wrong)? {
        if frame.link_type == LinkType::Ethernet {
            all.push((frame.number, frame.bytes.to_vec()));
        }
    }
    Ok(all)
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

#[cfg(test)]
mod tests;
