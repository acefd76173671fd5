//! Client programs, which ask.

use std::time::{Duration, Instant};

use fieldlock_modbus::mbap;
use fieldlock_testkit::seeds::Dice;

use super::ledger::{Conn, What};
use super::tunnel::Pipe;
use super::world::{Happening, UNITS, World};

/// A client program: one connection at a time.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) conn: Option<Conn>,
    transaction: u16,
    pipe: Pipe,
    input: Vec<u8>,
}

impl Client {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            conn: None,
            transaction: 0,
            pipe: Pipe::new(now),
            input: Vec::new(),
        }
    }
}

impl World {
    pub(super) fn client_leaves(&mut self, client: usize) {
        let state = &mut self.clients[client];
        if let Some(conn) = state.conn.take() {
            self.ledger.abandoned(conn);
            let at = state.pipe.arrival(self.now + Duration::from_millis(2));
            self.at(at, Happening::ClientLeft { conn });
        }
    }

    pub(super) fn ask(&mut self, client: usize) {
        let conn = match self.clients[client].conn {
            Some(conn) => conn,
            None => {
                self.conns += 1;
                let state = &mut self.clients[client];
                state.conn = Some(self.conns);
                state.pipe = Pipe::new(self.now);
                state.input.clear();
                self.head_accepts(client, self.conns);
                self.conns
            }
        };
        // Mostly within what the headend lets it have.
        if self.ledger.open(conn) >= 5 {
            return;
        }
        let (unit, what) = draw(&mut self.dice);
        let state = &mut self.clients[client];
        state.transaction = state.transaction.wrapping_add(1);
        let transaction = state.transaction;
        let pdu = self.ledger.ask((client, conn), transaction, unit, what);
        let mut bytes = Vec::new();
        mbap::encode(&mut bytes, transaction, unit, &pdu);
        let after = self.dice.millis(0..4);
        let cut = self.dice.roll(bytes.len() as u64) as usize;
        let at = self.clients[client].pipe.arrival(self.now + after);
        let tail = bytes.split_off(cut);
        for bytes in [bytes, tail] {
            self.at(at, Happening::ToHead { conn, bytes });
        }
    }

    pub(super) fn client_hears(&mut self, conn: Conn, bytes: &[u8]) {
        let client = self
            .clients
            .iter_mut()
            .find(|client| client.conn == Some(conn));
        let Some(client) = client else { return };
        client.input.extend_from_slice(bytes);
        while let Some((adu, used)) = mbap::decode(&client.input).expect("Modbus") {
            self.ledger
                .answered(conn, adu.transaction, adu.unit, adu.pdu);
            client.input.drain(..used);
        }
    }
}

/// What clients ask, and of which unit: often the same, so that reads are shared.
fn draw(dice: &mut Dice) -> (u8, What) {
    let unit = UNITS[dice.roll(8).saturating_sub(5) as usize].0;
    let what = match dice.roll(10) {
        0..=3 => What::Write,
        4..=8 => What::Read { address: 100 },
        _ => What::Read { address: 101 },
    };
    (unit, what)
}
