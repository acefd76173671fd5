//! A shell for tests: virtual time, sockets that are lists, and a device that answers when
//! told to.

use std::time::{Duration, Instant};

use fieldlock_modbus::{Request, mbap, rtu};

use crate::admit::Grounds;
use crate::device::{
    Borne, ClientKey, CloseReason, ConnId, DeviceSettings, DeviceSide, Event, Fault, Framing, Key,
    Outcome, QueueFull, Submit,
};

#[derive(Debug)]
pub(super) struct Bench {
    pub(super) device: DeviceSide,
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) connecting: Vec<ConnId>,
    pub(super) open: Vec<ConnId>,
    pub(super) closed: Vec<(ConnId, CloseReason)>,
    /// Of these, those that the device has not closed yet.
    pub(super) sealing: Vec<ConnId>,
    pub(super) sent: Vec<Sent>,
    pub(super) answers: Vec<(u64, Outcome, Vec<u8>)>,
    /// The keys of those answers that were to the read of another.
    pub(super) shared: Vec<u64>,
    /// How answers deviated, by key.
    pub(super) borne: Vec<(u64, Borne)>,
    pub(super) refused: Vec<Fault>,
    frames: u16,
    framing: Framing,
}

/// A request as the device saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    /// In the order of sending.
    pub(super) number: u16,
    pub(super) conn: ConnId,
    pub(super) at: Instant,
    pub(super) transaction: u16,
    pub(super) unit: u8,
    pub(super) pdu: Vec<u8>,
}

impl Sent {
    /// The tests put the key into the address, except of reads to be shared.
    pub(super) fn key(&self) -> u64 {
        u64::from(u16::from_be_bytes([self.pdu[1], self.pdu[2]]))
    }

    /// What a well-behaved device answers: the values of a moment.
    pub(super) fn right(&self) -> Vec<u8> {
        let [high, low] = self.number.to_be_bytes();
        match self.pdu[0] {
            3 => vec![3, 2, high, low],
            _ => self.pdu.clone(),
        }
    }
}

/// How the tests ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) key: u64,
    pub(super) client: u64,
    pub(super) unit: u8,
    pub(super) within: Duration,
    pub(super) held: bool,
    /// The key, if not set.
    pub(super) address: Option<u16>,
    pub(super) grounds: u64,
}

impl Ask {
    pub(super) fn read(key: u64, client: u64) -> Self {
        Self {
            key,
            client,
            unit: 1,
            within: Duration::from_millis(1000),
            held: false,
            address: None,
            grounds: 0,
        }
    }

    pub(super) fn held(key: u64, client: u64) -> Self {
        let held = true;
        Self {
            held,
            ..Self::read(key, client)
        }
    }

    pub(super) fn within(self, millis: u64) -> Self {
        let within = Duration::from_millis(millis);
        Self { within, ..self }
    }

    pub(super) fn of(self, address: u16) -> Self {
        let address = Some(address);
        Self { address, ..self }
    }

    pub(super) fn on(self, grounds: u64) -> Self {
        Self { grounds, ..self }
    }

    pub(super) fn unit(self, unit: u8) -> Self {
        Self { unit, ..self }
    }
}

impl Bench {
    pub(super) fn new(settings: DeviceSettings) -> Self {
        let now = Instant::now();
        Self {
            framing: settings.framing,
            device: DeviceSide::new(settings, 1, now),
            start: now,
            now,
            connecting: Vec::new(),
            open: Vec::new(),
            closed: Vec::new(),
            sealing: Vec::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            shared: Vec::new(),
            borne: Vec::new(),
            refused: Vec::new(),
            frames: 0,
        }
    }

    /// A bench whose first connection stands, brought up by a request that was answered.
    pub(super) fn connected(settings: DeviceSettings) -> Self {
        let mut bench = Self::new(settings);
        bench.ask(Ask::read(999, 999));
        bench.connect();
        while bench.sent.is_empty() {
            bench.pass(1);
        }
        bench.answer(999);
        bench.pass(10);
        assert_eq!(bench.outcomes(), [(999, Outcome::Answered)]);
        bench.sent.clear();
        bench.start = bench.now;
        bench
    }

    pub(super) fn try_ask(&mut self, ask: Ask) -> Result<(), QueueFull> {
        let [high, low] = ask.address.unwrap_or(ask.key as u16).to_be_bytes();
        let pdu = match ask.held {
            false => [3, high, low, 0, 1],
            true => [6, high, low, 0, 7],
        };
        let request = Request::parse(&pdu).unwrap();
        let result = self.device.submit(
            self.now,
            Submit {
                key: Key(ask.key),
                client: ClientKey(ask.client),
                unit: ask.unit,
                request: &request,
                grounds: Grounds(ask.grounds),
                deadline: self.now + ask.within,
                held: ask.held,
            },
        );
        self.drain();
        result
    }

    pub(super) fn is_serial(&self) -> bool {
        self.framing != Framing::Tcp
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        self.try_ask(ask).unwrap();
    }

    pub(super) fn release(&mut self, key: u64) {
        self.device.release(self.now, Key(key));
        self.drain();
    }

    pub(super) fn connect_ahead(&mut self) {
        self.device.connect_ahead(self.now);
        self.drain();
    }

    pub(super) fn drop_client(&mut self, client: u64) {
        self.device.drop_client(self.now, ClientKey(client));
        self.drain();
    }

    /// All connections being opened now stand.
    pub(super) fn connect(&mut self) {
        for conn in std::mem::take(&mut self.connecting) {
            self.device.handle_connected(self.now, conn);
            self.open.push(conn);
        }
        self.drain();
    }

    pub(super) fn refuse_connect(&mut self) {
        for conn in std::mem::take(&mut self.connecting) {
            self.device.handle_closed(self.now, conn, true);
        }
        self.drain();
    }

    /// The device closes.
    pub(super) fn close(&mut self, conn: ConnId) {
        self.open.retain(|other| *other != conn);
        self.device.handle_closed(self.now, conn, false);
        self.drain();
    }

    /// The device closes its side of all connections that it was asked to close.
    pub(super) fn seal(&mut self) {
        for conn in std::mem::take(&mut self.sealing) {
            self.device.handle_sealed(self.now, conn);
        }
        self.drain();
    }

    pub(super) fn bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.device.handle_bytes(self.now, conn, bytes);
        self.drain();
    }

    /// The device answers the request that was sent last with this key, as it should.
    pub(super) fn answer(&mut self, key: u64) {
        let sent = self.sent_as(key);
        let right = sent.right();
        self.answer_with(key, sent.unit, &right);
    }

    pub(super) fn answer_with(&mut self, key: u64, unit: u8, pdu: &[u8]) {
        let sent = self.sent_as(key);
        let frame = self.frame(sent.transaction, unit, pdu);
        self.bytes(sent.conn, &frame);
    }

    pub(super) fn frame(&self, transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.framing {
            Framing::Tcp => mbap::encode(&mut frame, transaction, unit, pdu),
            Framing::Rtu { .. } => rtu::encode(&mut frame, unit, pdu),
        }
        frame
    }

    pub(super) fn sent_as(&self, key: u64) -> Sent {
        self.sent
            .iter()
            .rev()
            .find(|sent| sent.key() == key)
            .unwrap()
            .clone()
    }

    pub(super) fn sent_keys(&self) -> Vec<u64> {
        self.sent.iter().map(Sent::key).collect()
    }

    pub(super) fn outcome(&self, key: u64) -> Option<Outcome> {
        let mut matching = self.answers.iter().filter(|(other, ..)| *other == key);
        let outcome = matching.next().map(|(_, outcome, _)| *outcome);
        assert!(matching.next().is_none(), "{key} was answered twice");
        outcome
    }

    pub(super) fn pdu(&self, key: u64) -> Vec<u8> {
        let found = self.answers.iter().find(|(other, ..)| *other == key);
        found.unwrap().2.clone()
    }

    /// Takes the answers that came since the last call.
    pub(super) fn outcomes(&mut self) -> Vec<(u64, Outcome)> {
        let answers = std::mem::take(&mut self.answers);
        answers.into_iter().map(|(key, o, _)| (key, o)).collect()
    }

    /// Lets milliseconds pass, with a call for each timer that is due on the way.
    pub(super) fn pass(&mut self, millis: u64) {
        self.pass_time(Duration::from_millis(millis));
    }

    pub(super) fn pass_time(&mut self, time: Duration) {
        let until = self.now + time;
        let mut calls = 0;
        while let Some(due) = self.device.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.device.handle_timeout(self.now);
            self.drain();
            calls += 1;
            assert!(calls < 10_000, "the timer does not advance");
        }
        self.now = until;
        self.device.handle_timeout(self.now);
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        for conn in self.open.clone() {
            let mut out = Vec::new();
            let any = self.device.poll_transmit(conn, &mut out);
            assert_eq!(any, !out.is_empty());
            self.note_sent(conn, &out);
        }
        while let Some(event) = self.device.poll_event() {
            match event {
                Event::Connect(conn) => self.connecting.push(conn),
                Event::Close(conn, reason) | Event::Seal(conn, reason) => {
                    if matches!(event, Event::Seal(..)) {
                        self.sealing.push(conn);
                    }
                    self.open.retain(|other| *other != conn);
                    self.connecting.retain(|other| *other != conn);
                    self.closed.push((conn, reason));
                }
                Event::Refused(fault) => self.refused.push(fault),
                Event::Answer {
                    key,
                    outcome,
                    shared,
                    borne,
                    pdu,
                    ..
                } => {
                    self.borne.push((key.0, borne));
                    self.answers.push((key.0, outcome, pdu.to_vec()));
                    self.shared.extend(shared.then_some(key.0));
                }
            }
        }
    }

    fn note_sent(&mut self, conn: ConnId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (transaction, unit, pdu, used) = match self.framing {
                Framing::Tcp => {
                    let (adu, used) = mbap::decode(bytes).unwrap().unwrap();
                    (adu.transaction, adu.unit, adu.pdu.to_vec(), used)
                }
                Framing::Rtu { .. } => {
                    assert_eq!(rtu::crc(bytes), 0, "one whole frame");
                    (0, bytes[0], bytes[1..bytes.len() - 2].to_vec(), bytes.len())
                }
            };
            bytes = &bytes[used..];
            self.frames = self.frames.wrapping_add(1);
            self.sent.push(Sent {
                number: self.frames,
                conn,
                at: self.now,
                transaction,
                unit,
                pdu,
            });
        }
    }
}
