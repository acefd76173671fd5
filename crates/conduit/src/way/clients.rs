//! Client programs, which ask.

use std::time::{Duration, Instant};

use fieldlock_modbus::mbap;
use fieldlock_testkit::seeds::Dice;

use super::ledger::{Conn, What};
use super::tunnel::Pipe;
use super::world::{Happening, UNITS, World};

/// How the library of a client sends a write again by itself when it gets no answer in time. Such a one waits for each
/// answer before it asks the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// On the same connection as it was.
    SameId,
    /// On the same connection with the next transaction id; also after 0x06.
    NewId,
    /// On a new connection as it was.
    NewConnection,
}

/// What a client with such a habit waits for.
#[derive(Debug)]
struct Call {
    /// As the ledger knows what was sent last for it.
    number: usize,
    transaction: u16,
    unit: u8,
    pdu: Vec<u8>,
    tries: u8,
    /// Counts what the client's clock was set for.
    timer: u32,
}

/// A client program: one connection at a time.
#[derive(Debug)]
pub(super) struct Client {
    habit: Option<Habit>,
    call: Option<Call>,
    timers: u32,
    /// How long it waits.
    patience: Duration,
    pub(super) conn: Option<Conn>,
    transaction: u16,
    pipe: Pipe,
    input: Vec<u8>,
}

impl Client {
    pub(super) fn new(now: Instant, dice: &mut Dice) -> Self {
        let habits = [
            None,
            None,
            None,
            Some(Habit::SameId),
            Some(Habit::NewId),
            Some(Habit::NewConnection),
        ];
        Self {
            habit: habits[dice.roll(6) as usize],
            call: None,
            timers: 0,
            patience: dice.millis(500..1200),
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
            state.call = None;
            self.ledger.abandoned(conn);
            let at = state.pipe.arrival(self.now + Duration::from_millis(2));
            self.at(at, Happening::ClientLeft { conn });
        }
    }

    /// The connection of a client; a new one where there is none.
    fn connect(&mut self, client: usize) -> Conn {
        if let Some(conn) = self.clients[client].conn {
            return conn;
        }
        self.conns += 1;
        let state = &mut self.clients[client];
        state.conn = Some(self.conns);
        state.pipe = Pipe::new(self.now);
        state.input.clear();
        self.head_accepts(client, self.conns);
        self.conns
    }

    pub(super) fn ask(&mut self, client: usize) {
        if self.clients[client].call.is_some() {
            return;
        }
        let conn = self.connect(client);
        // Mostly within what the headend lets it have.
        if self.ledger.open(conn) >= 5 {
            return;
        }
        let (unit, what) = draw(&mut self.dice);
        let state = &mut self.clients[client];
        state.transaction = state.transaction.wrapping_add(1);
        let transaction = state.transaction;
        let has_habit = state.habit.is_some();
        let (number, pdu) = self.ledger.ask((client, conn), transaction, unit, what);
        self.say(client, conn, (transaction, unit, &pdu));
        if has_habit {
            self.clients[client].call = Some(Call {
                number,
                transaction,
                unit,
                pdu,
                tries: if what == What::Write { 3 } else { 0 },
                timer: 0,
            });
            self.set_timer(client, self.clients[client].patience);
        }
    }

    fn set_timer(&mut self, client: usize, after: Duration) {
        let state = &mut self.clients[client];
        state.timers += 1;
        let timer = state.timers;
        if let Some(call) = &mut state.call {
            call.timer = timer;
            self.later(after, Happening::ClientWaited { client, timer });
        }
    }

    /// A client has waited long enough.
    pub(super) fn client_waited(&mut self, client: usize, timer: u32) {
        let state = &mut self.clients[client];
        let Some(mut call) = state.call.take_if(|call| call.timer == timer) else {
            return;
        };
        if call.tries == 0 {
            self.ledger.give_up(call.number);
            return;
        }
        call.tries -= 1;
        match state.habit {
            Some(Habit::NewConnection) => self.client_leaves(client),
            Some(Habit::NewId) => {
                state.transaction = state.transaction.wrapping_add(1);
                call.transaction = state.transaction;
            }
            Some(Habit::SameId) | None => {}
        }
        let conn = self.connect(client);
        call.number = self.ledger.ask_again(call.number, conn, call.transaction);
        self.say(client, conn, (call.transaction, call.unit, &call.pdu));
        self.clients[client].call = Some(call);
        self.set_timer(client, self.clients[client].patience);
    }

    fn say(&mut self, client: usize, conn: Conn, (transaction, unit, pdu): (u16, u8, &[u8])) {
        let mut bytes = Vec::new();
        mbap::encode(&mut bytes, transaction, unit, pdu);
        let after = self.dice.millis(0..4);
        let cut = self.dice.roll(bytes.len() as u64) as usize;
        let at = self.clients[client].pipe.arrival(self.now + after);
        let tail = bytes.split_off(cut);
        for bytes in [bytes, tail] {
            self.at(at, Happening::ToHead { conn, bytes });
        }
    }

    pub(super) fn client_hears(&mut self, conn: Conn, bytes: &[u8]) {
        let mut clients = self.clients.iter_mut().enumerate();
        let Some((number, client)) = clients.find(|(_, client)| client.conn == Some(conn)) else {
            return;
        };
        *self.heard.entry(conn).or_default() += bytes.len();
        client.input.extend_from_slice(bytes);
        let mut is_busy = false;
        while let Some((adu, used)) = mbap::decode(&client.input).expect("Modbus") {
            let waits = |call: &mut Call| call.transaction == adu.transaction;
            let taken = match client.habit {
                None => true,
                Some(Habit::NewId) if *adu.pdu == [0x86, 6] => {
                    is_busy = client.call.as_mut().is_some_and(waits);
                    is_busy
                }
                Some(_) => client.call.take_if(waits).is_some(),
            };
            if taken {
                self.ledger
                    .answered(conn, adu.transaction, adu.unit, adu.pdu);
            }
            client.input.drain(..used);
        }
        if is_busy {
            self.set_timer(number, Duration::from_millis(40));
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
