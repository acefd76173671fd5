//! A device at the edge, and the clients that want something of it.

use std::time::{Duration, Instant};

use fieldlock_conduit::admit::Grounds;
use fieldlock_conduit::device::{
    Borne, ClientKey, ConnId, DeviceSettings, DeviceSide, Event, Framing, Key, Loss, Outcome,
    Submit,
};
use fieldlock_modbus::{Expected, Quirk, Request, mbap, rtu};

use crate::input::Input;

const MAX_OPERATIONS: usize = 400;
/// More calls than any state needs at one time.
const MAX_DUE: usize = 32;
const CLIENTS: usize = 4;
/// 0 to 2.
const UNITS: usize = 3;

/// Requests, releases, a device that sends anything, closes, and time, in any order: each
/// request ends exactly once and by its deadline, is sent at most once (a read twice, after its
/// connection was lost) and never while held or after its end, in the order of its client and unit, says truly whether it was sent, and nothing exceeds the settings. Reads
/// that several clients want share an answer only as [`Run::check_shared`] says.
pub fn device_side(data: &[u8]) {
    let mut input = Input::new(data);
    let settings = settings(&mut input);
    let now = Instant::now();
    let mut run = Run {
        side: DeviceSide::new(settings.clone(), 1, now),
        settings,
        now,
        asked: Vec::new(),
        flights: Vec::new(),
        frames: Vec::new(),
        shared: 0,
        policy: 0,
        connecting: Vec::new(),
        open: Vec::new(),
        past: Vec::new(),
        crossing: Vec::new(),
        sealing: Vec::new(),
        last_sent: [[None; UNITS]; CLIENTS],
    };
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        let operation = input.u8();
        run.perform(operation, &mut input);
        if operation & 0x80 == 0 {
            run.drain();
        }
        run.check_bounds();
    }
    run.drain();
    run.pass(Duration::from_secs(60));
    assert!(run.asked.iter().all(|asked| asked.ended));
    let stats = run.side.stats();
    assert_eq!((stats.queued, stats.in_flight), (0, 0));
    let sent = run.asked.iter().filter(|asked| asked.sent).count();
    assert_eq!(stats.sent as usize, run.frames.len());
    assert!(stats.shared as usize >= run.shared);
    let times = (stats.sent + stats.shared) as usize;
    let most = sent + stats.asked_again as usize;
    assert!(
        (sent..=most).contains(&times),
        "one leads each frame: {times}, {sent}, {most}"
    );
    for lane in (0..CLIENTS).flat_map(|client| (0..UNITS as u8).map(move |unit| (client, unit))) {
        let of_lane = run
            .asked
            .iter()
            .filter(|asked| (asked.client, asked.unit) == lane);
        let frames: Vec<usize> = of_lane.filter_map(|asked| asked.frame).collect();
        assert!(frames.is_sorted_by(|a, b| a < b), "out of turn: {frames:?}");
    }
}

fn settings(input: &mut Input<'_>) -> DeviceSettings {
    let (shape, pauses) = (input.u8(), input.u8());
    let bears = u16::from_be_bytes([input.u8(), input.u8()]);
    let millis = |on: u8, millis| {
        if pauses & on == 0 {
            Duration::ZERO
        } else {
            Duration::from_millis(millis)
        }
    };
    DeviceSettings {
        framing: if shape & 0x80 == 0 {
            Framing::Tcp
        } else {
            Framing::Rtu {
                baud: 9600,
                frame_gap: Duration::from_millis(20),
                turnaround: Duration::from_millis(50),
            }
        },
        max_connections: 1 + u16::from(shape & 3),
        in_flight: 1 + u16::from(shape >> 2 & 3),
        queue: 1 + usize::from(shape >> 4 & 7),
        queue_per_client: 1 + usize::from(pauses >> 4 & 3),
        pause_after_connect: millis(1, 15),
        pause_between_requests: millis(2, 5),
        idle_close: Some(millis(4, 70)).filter(|idle| !idle.is_zero()),
        shared_reads: pauses & 8 == 0,
        response_timeout: Duration::from_millis(if pauses & 0x40 == 0 { 500 } else { 60 }),
        max_hold_off: Duration::from_secs(if pauses & 0x80 == 0 { 16 } else { 0 }),
        quirks: Quirk::ALL
            .into_iter()
            .filter(|quirk| bears >> *quirk as u8 & 1 == 1)
            .collect(),
        ..DeviceSettings::default()
    }
}

struct Run {
    side: DeviceSide,
    settings: DeviceSettings,
    now: Instant,
    /// A request's key is its place.
    asked: Vec<Asked>,
    flights: Vec<Flight>,
    /// All that were sent.
    frames: Vec<Frame>,
    /// Answers to requests that were not sent themselves.
    shared: usize,
    /// Counts the policies.
    policy: usize,
    connecting: Vec<ConnId>,
    open: Vec<ConnId>,
    /// Connections that were closed.
    past: Vec<ConnId>,
    /// Those that ended since the last event was collected: a `Close` may wait for them.
    crossing: Vec<ConnId>,
    /// Connections that we closed, and the device has not yet.
    sealing: Vec<ConnId>,
    /// By client and unit.
    last_sent: [[Option<usize>; UNITS]; CLIENTS],
}

/// A request as it left, and who was answered by what came to it.
#[derive(Default)]
struct Frame {
    /// Those who had asked for it by then, where others may have.
    askers: Vec<usize>,
    answered: Vec<usize>,
    led: bool,
}

struct Asked {
    client: usize,
    unit: u8,
    pdu: Vec<u8>,
    deadline: Instant,
    held: bool,
    grounds: u64,
    policy: usize,
    sent: bool,
    /// How often, if nobody else asks the same.
    times: u8,
    /// Which it was, where that is known.
    frame: Option<usize>,
    /// Answered, or taken back.
    ended: bool,
}

struct Flight {
    conn: ConnId,
    transaction: u16,
    frame: usize,
    unit: u8,
    pdu: Vec<u8>,
    /// Whose it is, unless others may have asked the same.
    key: Option<usize>,
}

impl Run {
    fn perform(&mut self, operation: u8, input: &mut Input<'_>) {
        let now = self.now;
        match operation & 0x0F {
            0..=3 => self.submit(input),
            4 => self.release(input.u8()),
            5 => self.refuse(input.u8()),
            6 => match input.u8() {
                0x80.. => {
                    self.policy += 1;
                    self.side.policy_changed();
                }
                client => {
                    let client = u64::from(client) % CLIENTS as u64;
                    self.side.drop_client(now, ClientKey(client));
                }
            },
            7 => self.connected(input.u8()),
            8 => self.answer(input.u8(), input.u8(), None),
            9 => {
                let (which, cut, pdu) = (input.u8(), input.u8(), input.field());
                self.answer(which, cut, Some(pdu));
            }
            10 => {
                let which = input.u8();
                if let Some(&conn) = pick(&self.open, which) {
                    self.side.handle_bytes(now, conn, input.field());
                }
            }
            11 => self.closed(input.u8()),
            12 => self.disturb(input),
            13 => self.answer(input.u8(), 0, Some(&[])),
            14 => {
                if let Some(&conn) = pick(&self.sealing, input.u8()) {
                    self.sealing.retain(|other| *other != conn);
                    self.side.handle_sealed(now, conn);
                }
            }
            _ => {
                self.drain();
                self.pass(Duration::from_millis(4 * u64::from(input.u8())));
            }
        }
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        let (flags, within) = (input.u8(), input.u8());
        let key = self.asked.len();
        let (pdu, grounds) = match flags & 0x80 {
            0 => (request(key as u16, flags >> 5), 0),
            _ => {
                let which = input.u8();
                (common_read(which), u64::from(which >> 3 & 1))
            }
        };
        let asked = Asked {
            client: usize::from(flags) % CLIENTS,
            unit: [1, 1, 2, 0][usize::from(flags >> 3 & 3)],
            pdu,
            deadline: self.now + Duration::from_millis(1 + 4 * u64::from(within)),
            held: flags & 4 != 0,
            grounds,
            policy: self.policy,
            sent: false,
            times: 0,
            frame: None,
            ended: false,
        };
        let request = Request::parse(&asked.pdu).unwrap();
        let submit = Submit {
            key: Key(key as u64),
            client: ClientKey(asked.client as u64),
            unit: asked.unit,
            request: &request,
            grounds: Grounds(grounds),
            deadline: asked.deadline,
            held: asked.held,
        };
        if self.side.submit(self.now, submit).is_ok() {
            self.asked.push(asked);
        }
    }

    fn release(&mut self, which: u8) {
        let held: Vec<usize> = self.keys(|asked| asked.held && !asked.ended);
        if let Some(&key) = pick(&held, which) {
            self.asked[key].held = false;
            self.side.release(self.now, Key(key as u64));
        }
    }

    fn refuse(&mut self, which: u8) {
        let open: Vec<usize> = self.keys(|asked| !asked.ended);
        if let Some(&key) = pick(&open, which)
            && self.side.refuse(Key(key as u64))
        {
            let asked = &mut self.asked[key];
            assert!(asked.held && !asked.sent);
            asked.ended = true;
        }
    }

    fn keys(&self, wanted: impl Fn(&Asked) -> bool) -> Vec<usize> {
        (0..self.asked.len())
            .filter(|&key| wanted(&self.asked[key]))
            .collect()
    }

    fn connected(&mut self, which: u8) {
        let Some(&conn) = pick(&self.connecting, which) else {
            return;
        };
        self.connecting.retain(|other| *other != conn);
        if which & 0xC0 == 0xC0 {
            self.past.push(conn);
            self.crossing.push(conn);
            self.side.handle_closed(self.now, conn, true);
        } else {
            self.open.push(conn);
            self.side.handle_connected(self.now, conn);
        }
    }

    fn closed(&mut self, which: u8) {
        if let Some(&conn) = pick(&self.open, which) {
            self.open.retain(|other| *other != conn);
            self.flights.retain(|flight| flight.conn != conn);
            self.past.push(conn);
            self.crossing.push(conn);
            self.side.handle_closed(self.now, conn, false);
        }
    }

    /// Answers a request in flight: rightly, with `other`, or (empty) with an exception; in
    /// two pieces.
    fn answer(&mut self, which: u8, cut: u8, other: Option<&[u8]>) {
        let Some(flight) = pick(&self.flights, which) else {
            return;
        };
        let pdu = match other {
            None => right_answer(&flight.pdu, flight.frame),
            Some([]) => vec![flight.pdu[0] | 0x80, 4],
            Some(pdu) if frame_of(pdu).is_some() => return,
            Some(pdu) => pdu[..pdu.len().min(mbap::MAX_PDU)].to_vec(),
        };
        let mut bytes = Vec::new();
        match self.settings.framing {
            Framing::Tcp => mbap::encode(&mut bytes, flight.transaction, flight.unit, &pdu),
            Framing::Rtu { .. } => rtu::encode(&mut bytes, flight.unit, &pdu),
        }
        let conn = flight.conn;
        let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
        for piece in [head, tail] {
            self.side.handle_bytes(self.now, conn, piece);
        }
        // What was given up is answered once, too late.
        let frame = flight.frame;
        let is_over = match flight.key {
            Some(key) => self.asked[key].ended,
            None => self.frames[frame]
                .askers
                .iter()
                .all(|&key| self.asked[key].ended),
        };
        if is_over {
            self.flights.retain(|flight| flight.frame != frame);
        }
    }

    /// What is said about a connection of the past has no effect.
    fn disturb(&mut self, input: &mut Input<'_>) {
        let Some(&conn) = pick(&self.past, input.u8()) else {
            return;
        };
        let before = self.side.stats();
        match input.below(3) {
            0 => self.side.handle_connected(self.now, conn),
            1 => self.side.handle_closed(self.now, conn, input.bool()),
            _ => self.side.handle_bytes(self.now, conn, input.field()),
        }
        assert_eq!(self.side.stats(), before);
        let mut out = Vec::new();
        assert!(!self.side.poll_transmit(conn, &mut out) && out.is_empty());
    }

    /// Writes what may be written and collects what is said, until there is no more.
    fn drain(&mut self) {
        for round in 0.. {
            assert!(round < MAX_DUE, "no end of events");
            let mut any = false;
            for conn in self.open.clone() {
                let mut out = Vec::new();
                any |= self.side.poll_transmit(conn, &mut out);
                self.sent(conn, &out);
            }
            while let Some(event) = self.side.poll_event() {
                any = true;
                self.handle(event);
            }
            self.crossing.clear();
            if !any {
                break;
            }
        }
    }

    fn sent(&mut self, conn: ConnId, out: &[u8]) {
        let mut rest = out;
        while !rest.is_empty() {
            let (transaction, unit, pdu) = match self.settings.framing {
                Framing::Tcp => {
                    let (adu, size) = mbap::decode(rest).unwrap().unwrap();
                    rest = &rest[size..];
                    (adu.transaction, adu.unit, adu.pdu)
                }
                Framing::Rtu { .. } => {
                    let (frame, crc) = rest.split_at(rest.len() - 2);
                    assert_eq!(rtu::crc(frame).to_le_bytes(), crc);
                    rest = &[];
                    (0, frame[0], &frame[1..])
                }
            };
            let frame = self.frames.len();
            let mut sent = Frame::default();
            let key = match is_common(pdu) {
                true => {
                    sent.askers = self.keys(|asked| {
                        let waits = !asked.held && !asked.ended && asked.deadline > self.now;
                        waits && asked.unit == unit && asked.pdu == pdu
                    });
                    assert!(!sent.askers.is_empty(), "nobody asks for it");
                    None
                }
                false => {
                    let key = key_of(pdu);
                    let asked = &mut self.asked[key];
                    assert!(!asked.held && !asked.ended);
                    asked.times += 1;
                    let again = asked.times > 1;
                    assert!(!again || pdu[0] == 3 && asked.times == 2, "sent too often");
                    assert_eq!((asked.unit, asked.pdu.as_slice()), (unit, pdu));
                    assert!(asked.deadline > self.now);
                    asked.sent = true;
                    asked.frame = Some(frame);
                    let last = &mut self.last_sent[asked.client][usize::from(unit)];
                    assert!(again || *last < Some(key), "out of turn");
                    *last = Some(key);
                    Some(key)
                }
            };
            self.frames.push(sent);
            // A serial line has no ids, and the end of its last request may wait to be told.
            let twice = |other: &Flight| other.conn == conn && other.transaction == transaction;
            if self.is_serial() {
                self.flights.retain(|flight| flight.key.is_some());
            }
            assert!(self.is_serial() || !self.flights.iter().any(twice));
            self.flights.push(Flight {
                conn,
                transaction,
                frame,
                unit,
                pdu: pdu.to_vec(),
                key,
            });
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connect(conn) => {
                let known = [&self.connecting, &self.open, &self.past];
                assert!(!known.iter().any(|list| list.contains(&conn)));
                self.connecting.push(conn);
                let limit = usize::from(self.settings.max_connections);
                assert!(self.connecting.len() + self.open.len() <= limit);
            }
            Event::Close(conn, reason) | Event::Seal(conn, reason) => {
                if matches!(event, Event::Seal(..)) {
                    self.sealing.push(conn);
                }
                assert!(!reason.to_string().is_empty());
                let known = [&self.connecting, &self.open, &self.crossing];
                assert!(known.iter().any(|list| list.contains(&conn)));
                self.past.push(conn);
                for list in [&mut self.connecting, &mut self.open, &mut self.crossing] {
                    list.retain(|other| *other != conn);
                }
                self.flights.retain(|flight| flight.conn != conn);
            }
            Event::Refused(fault) => assert!(self.is_serial() && !fault.to_string().is_empty()),
            Event::Answer {
                key,
                client,
                outcome,
                shared,
                borne,
                pdu,
            } => {
                let key = key.0 as usize;
                // The answer to what was given up may still come.
                let given_up = outcome == Outcome::Unknown(Loss::Timeout) && !self.is_serial();
                (self.flights).retain(|flight| given_up || flight.key != Some(key));
                if is_common(&self.asked[key].pdu) {
                    self.check_shared(key, outcome, shared, &pdu);
                } else {
                    assert!(!shared, "no two ask the same");
                }
                let serial = self.is_serial();
                let asked = &mut self.asked[key];
                assert!(!asked.ended, "answered twice");
                asked.ended = true;
                assert_eq!(asked.client as u64, client.0);
                assert!(self.now <= asked.deadline, "answered late");
                assert!((borne.quirks.iter()).all(|quirk| self.settings.quirks.bear(quirk)));
                check_outcome(asked, serial, outcome, borne, &pdu);
            }
        }
    }

    /// A request that others may have asked too has ended: it was sent, or another of the same
    /// octets was, later than it was asked, of another client, on the same grounds and under the
    /// same policy; and one of those whom an answer goes to was sent itself.
    fn check_shared(&mut self, key: usize, outcome: Outcome, shared: bool, pdu: &[u8]) {
        let asked = &mut self.asked[key];
        asked.sent = outcome.was_sent();
        self.shared += usize::from(shared);
        assert!(!shared || asked.sent && self.settings.shared_reads);
        let sent_with = |frame: &Frame| frame.askers.contains(&key);
        assert!(!asked.sent || self.frames.iter().any(sent_with));
        let Some(number) = frame_of(pdu).filter(|_| outcome == Outcome::Answered) else {
            return;
        };
        asked.frame = Some(number);
        let frame = &mut self.frames[number];
        assert!(sent_with(frame), "answered by what was sent before");
        assert!(shared || !frame.led, "sent itself, as another was");
        frame.led |= !shared;
        frame.answered.push(key);
        let asked = &self.asked[key];
        for other in frame.answered.iter().filter(|other| **other != key) {
            let other = &self.asked[*other];
            assert_ne!(other.client, asked.client);
            assert_eq!(other.grounds, asked.grounds);
            assert_eq!(other.policy, asked.policy);
        }
        self.flights.retain(|flight| flight.frame != number);
    }

    /// Lets time pass from deadline to deadline.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut stood = 0;
        while let Some(next) = self.side.poll_timeout().filter(|at| *at <= until) {
            stood = if next > self.now { 0 } else { stood + 1 };
            assert!(stood < MAX_DUE, "time stands still");
            self.now = self.now.max(next);
            self.side.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
        let late = self.keys(|asked| !asked.ended && asked.deadline <= until);
        assert!(late.is_empty(), "no answer to {late:?} in time");
    }

    fn is_serial(&self) -> bool {
        self.settings.framing != Framing::Tcp
    }

    fn check_bounds(&self) {
        let stats = self.side.stats();
        let (connections, in_flight) = match self.settings.framing {
            Framing::Tcp => (self.settings.max_connections, self.settings.in_flight),
            Framing::Rtu { .. } => (1, 1),
        };
        let (connections, in_flight) = (usize::from(connections), usize::from(in_flight));
        assert!(stats.connections <= connections);
        assert!(stats.in_flight <= connections * in_flight);
        // Reads that are asked once more wait again.
        assert!(stats.queued <= self.settings.queue + connections * in_flight);
        let outstanding = self.asked.iter().filter(|asked| !asked.ended).count();
        assert!(outstanding <= self.settings.queue + connections * in_flight);
    }
}

fn check_outcome(asked: &Asked, serial: bool, outcome: Outcome, borne: Borne, pdu: &[u8]) {
    let unanswered = [asked.pdu[0] | 0x80, 0x0B];
    match outcome {
        Outcome::Answered => {
            assert!(asked.sent);
            let request = Request::parse(&asked.pdu).unwrap();
            let fits = Expected::of(&request).check(pdu).is_ok();
            let four = borne.quirks.contains(Quirk::FourByteRegisters);
            assert_eq!(fits, !four, "{borne:?} {pdu:02x?}");
        }
        Outcome::Broadcast => {
            assert!(asked.sent && serial && asked.unit == 0);
            assert!(pdu.is_empty());
        }
        Outcome::NotSent => {
            assert!(!asked.sent);
            assert!(
                [0x06, 0x0A]
                    .map(|code| [asked.pdu[0] | 0x80, code])
                    .iter()
                    .any(|p| pdu == p)
            );
        }
        Outcome::HeldOff | Outcome::Unreachable => {
            assert!(!asked.sent);
            assert_eq!(pdu, unanswered);
        }
        Outcome::Unknown(_) => {
            assert!(asked.sent);
            assert_eq!(pdu, unanswered);
        }
    }
}

fn pick<T>(list: &[T], which: u8) -> Option<&T> {
    list.get(usize::from(which & 0x3F) % list.len().max(1))
}

/// A request that carries its key.
fn request(key: u16, kind: u8) -> Vec<u8> {
    let [high, low] = key.to_be_bytes();
    match kind & 3 {
        0 => vec![3, high, low, 0, 1 + low % 4],
        1 => vec![6, high, low, high, low],
        2 => vec![8, 0, 0, high, low],
        _ => vec![65, high, low],
    }
}

fn key_of(pdu: &[u8]) -> usize {
    let at = if pdu[0] == 8 { 3 } else { 1 };
    usize::from(u16::from_be_bytes([pdu[at], pdu[at + 1]]))
}

/// A read of what all clients want, at one of two addresses: eight octets.
fn common_read(which: u8) -> Vec<u8> {
    let function = 1 + (which & 3);
    let quantity = if function < 3 { 64 } else { 4 };
    vec![function, 0xFF, which >> 2 & 1, 0, quantity]
}

fn is_common(pdu: &[u8]) -> bool {
    matches!(pdu, [1..=4, 0xFF, ..])
}

/// To a common read it says which frame it answers.
const MARK: [u8; 4] = *b"cmmn";

fn frame_of(pdu: &[u8]) -> Option<usize> {
    let number = pdu.get(2..)?.strip_prefix(&MARK)?;
    Some(u32::from_be_bytes(number.try_into().ok()?) as usize)
}

fn right_answer(pdu: &[u8], frame: usize) -> Vec<u8> {
    match pdu[0] {
        function if is_common(pdu) => {
            let number = (frame as u32).to_be_bytes();
            [&[function, 8][..], &MARK, &number].concat()
        }
        3 => {
            let bytes = 2 * pdu[4];
            let mut answer = vec![3, bytes];
            answer.resize(2 + usize::from(bytes), 0x11);
            answer
        }
        _ => pdu.to_vec(),
    }
}
