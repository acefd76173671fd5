//! Sends the requests of a capture as its clients did, connection by connection.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use fieldlock_testkit::capture::{Capture, Piece, PieceKind};
use fieldlock_testkit::modbus::Client;

/// Requests under way at once: what a client of the headend may have.
const BATCH: usize = 16;
const PATIENCE: Duration = Duration::from_secs(20);

/// One request and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) frame: u32,
    /// As captured, transaction id included.
    pub(crate) request: Vec<u8>,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Adu(Vec<u8>),
    Closed,
}

/// All exchanges in the order of the requests. Requests go out pipelined, up to [`BATCH`] in
/// one write; where the captured transaction ids repeat, a new batch begins.
pub(crate) fn replay(capture: &Capture, server: SocketAddr) -> Vec<Exchange> {
    let mut all = Vec::new();
    for connection in &capture.connections {
        let mut sender = Sender::new(server);
        for piece in &connection.requests {
            sender.add(piece);
        }
        sender.flush();
        all.extend(sender.done);
    }
    all
}

struct Sender {
    server: SocketAddr,
    client: Option<Client>,
    batch: Vec<Piece>,
    done: Vec<Exchange>,
}

impl Sender {
    fn new(server: SocketAddr) -> Self {
        Self {
            server,
            client: None,
            batch: Vec::new(),
            done: Vec::new(),
        }
    }

    fn add(&mut self, piece: &Piece) {
        match piece.kind {
            // Answering it would need bytes that the capture does not have.
            PieceKind::Partial => {}
            PieceKind::Adu if is_framed(&piece.bytes) => {
                let repeats = |other: &Piece| other.bytes[..2] == piece.bytes[..2];
                if self.batch.len() == BATCH || self.batch.iter().any(repeats) {
                    self.flush();
                }
                self.batch.push(piece.clone());
            }
            // Ends the connection, so nothing else may wait for an answer on it.
            PieceKind::Adu | PieceKind::Unframed => {
                self.flush();
                self.batch.push(piece.clone());
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return;
        }
        let mut client = self
            .client
            .take()
            .unwrap_or_else(|| Client::connect(self.server).unwrap());
        let bytes: Vec<u8> = batch.iter().flat_map(|piece| piece.bytes.clone()).collect();
        client.send(&bytes).unwrap();
        let answers = collect(&mut client, batch.len());
        for piece in batch {
            let answer = answers.get(&piece.bytes[..2]);
            self.done.push(Exchange {
                frame: piece.frame,
                answer: answer.cloned().map_or(Answer::Closed, Answer::Adu),
                request: piece.bytes,
            });
        }
        let closed = self.done.last().map(|last| &last.answer) == Some(&Answer::Closed);
        self.client = (!closed).then_some(client);
    }
}

/// Answers by transaction id, until all have come or the server closes.
fn collect(client: &mut Client, count: usize) -> HashMap<Vec<u8>, Vec<u8>> {
    let mut answers = HashMap::new();
    while answers.len() < count {
        match client.read_adu(PATIENCE) {
            Ok(answer) => {
                let double = answers.insert(answer[..2].to_vec(), answer);
                assert_eq!(double, None, "answered twice");
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                break;
            }
            Err(error) => panic!("{} of {count} answers, then {error}", answers.len()),
        }
    }
    answers
}

/// What a strict reader takes: protocol id 0, a unit and a PDU of 1 to 253 bytes.
fn is_framed(adu: &[u8]) -> bool {
    adu[2..4] == [0, 0] && (2..=254).contains(&u16::from_be_bytes([adu[4], adu[5]]))
}
