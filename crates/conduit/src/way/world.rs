//! The clock, what happens next, and the faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_modbus::mbap;
use fieldlock_policy::{Now, Phase, Policy};
use fieldlock_session::{Event, Violation};

use super::dice::Dice;
use super::edge::{Edge, draw};
use super::head::Head;
use super::ledger::{Conn, Ledger};
use super::plc::{Line, Plc};
use super::tunnel::{End, Pipe, Tunnel};
use crate::meter::Meter;

pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(600);
pub(super) const QUEUE: u16 = 6;
/// Most requests with the device at once.
pub(super) const IN_FLIGHT: u16 = 4;
pub(super) const CREDIT: u16 = QUEUE + IN_FLIGHT;
const CLIENTS: usize = 4;
/// How long clients ask and things go wrong.
const TROUBLE: Duration = Duration::from_secs(6);
/// After that, until everything has an end: liveness, back-off, a time-out, and some.
const REST: Duration = Duration::from_secs(15);

const OPEN: &str = r#"
syntax = 1
[[client]]
name = "pair"
address = ["192.0.2.1/32", "192.0.2.2/32"]
[[client]]
name = "others"
address = ["192.0.2.3/32", "192.0.2.4/32"]
[[allow]]
name = "pair"
client = ["pair"]
device = ["plc"]
function = [3, 6]
address = ["holding 0-999"]
[[allow]]
name = "others"
client = ["others"]
device = ["plc"]
function = [3, 6]
address = ["holding 0-999"]
"#;

/// What differs between runs from the start.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) max_connections: u16,
    pub(super) in_flight: u16,
    pub(super) shared_reads: bool,
    pub(super) idle_close: Option<Duration>,
    pub(super) start: Instant,
}

#[derive(Debug)]
pub(super) enum Happening {
    Ask {
        client: usize,
    },
    ToHead {
        conn: Conn,
        bytes: Vec<u8>,
    },
    ClientLeft {
        conn: Conn,
    },
    ToClient {
        conn: Conn,
        bytes: Vec<u8>,
    },
    Dial {
        start: u8,
    },
    Arrives {
        tunnel: usize,
        to: End,
        channel: usize,
        bytes: Vec<u8>,
    },
    HungUp {
        tunnel: usize,
        at: End,
    },
    Durable {
        start: u8,
        key: u64,
    },
    DiskRepaired,
    PlcConnect {
        line: Line,
    },
    LineOpened {
        line: Line,
        taken: bool,
    },
    ToPlc {
        line: Line,
        bytes: Vec<u8>,
    },
    PlcWorks {
        line: Line,
    },
    FromPlc {
        line: Line,
        bytes: Vec<u8>,
    },
    LineClosed {
        line: Line,
    },
    EdgeLeft {
        line: Line,
    },
    PolicyBack {
        at: End,
    },
    Fault,
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) shape: Shape,
    pub(super) now: Instant,
    pub(super) faults: bool,
    pub(super) head: Head,
    pub(super) edge: Edge,
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) plc: Plc,
    pub(super) ledger: Ledger,
    clients: Vec<Client>,
    next: BTreeMap<(Instant, u64), Happening>,
    happened: u64,
    lines: Line,
    conns: Conn,
    to_plc: BTreeMap<Line, Pipe>,
    policies: [Arc<Policy>; 2],
    traced: bool,
}

/// A client program: one connection at a time.
#[derive(Debug)]
struct Client {
    conn: Option<Conn>,
    transaction: u16,
    pipe: Pipe,
    input: Vec<u8>,
}

pub(super) fn phase(policy: &Policy) -> Phase {
    policy.phase(Now::Unknown)
}

impl World {
    pub(super) fn new(seed: u64, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let start = Instant::now();
        let (max_connections, in_flight) =
            [(1, 1), (1, 1), (1, 3), (2, 1), (2, 2)][dice.roll(5) as usize];
        let shape = Shape {
            max_connections,
            in_flight,
            shared_reads: dice.percent(80),
            idle_close: dice.percent(20).then(|| Duration::from_millis(300)),
            start,
        };
        let forbidding = OPEN.replace("function = [3, 6]", "function = [3]");
        let policies = [OPEN, &forbidding]
            .map(|text| Arc::new(Policy::parse(text, "policy.toml").expect("a policy")));
        let client = || Client {
            conn: None,
            transaction: 0,
            pipe: Pipe::new(start),
            input: Vec::new(),
        };
        Self {
            now: start,
            faults: true,
            head: Head {
                policy: Arc::clone(&policies[0]),
                meter: Meter::default(),
                conns: BTreeMap::new(),
                live: None,
                instance: [0xff; 16],
            },
            edge: Edge::new(Arc::clone(&policies[0]), 0, &shape),
            tunnels: Vec::new(),
            plc: Plc {
                lines: BTreeMap::new(),
                off_until: start,
            },
            ledger: Ledger::new(max_connections == 1),
            clients: std::iter::repeat_with(client).take(CLIENTS).collect(),
            next: BTreeMap::new(),
            happened: 0,
            lines: 0,
            conns: 0,
            to_plc: BTreeMap::new(),
            policies,
            traced,
            dice,
            shape,
        }
    }

    /// Runs to the end; what came of it: answered, shared, unknown.
    pub(super) fn run(mut self) -> (usize, usize, usize) {
        self.dial_if_alone();
        for client in 0..CLIENTS {
            let after = self.dice.millis(100..500);
            self.later(after, Happening::Ask { client });
        }
        let after = self.dice.millis(300..1500);
        self.later(after, Happening::Fault);
        self.pass(TROUBLE);
        self.faults = false;
        self.pass(REST);
        self.rest();
        let summary = self.ledger.summary();
        if self.traced {
            eprintln!("answered, shared, unknown: {summary:?}");
        }
        summary
    }

    /// Nothing is left under way, and a new client is served.
    fn rest(&mut self) {
        self.ledger.close();
        let stats = self.edge.device.stats();
        assert_eq!((stats.queued, stats.in_flight), (0, 0));
        let heads = self
            .tunnels
            .iter()
            .filter_map(|tunnel| tunnel.head.as_ref());
        assert_eq!(heads.map(|head| head.under_way.len()).sum::<usize>(), 0);
        // Who asks first may find out that the PLC has forgotten a connection.
        let mut served = 0;
        for _ in 0..=self.shape.max_connections {
            let before = self.ledger.summary().0;
            (0..CLIENTS).for_each(|client| self.ask(client));
            self.pass(Duration::from_secs(2));
            self.ledger.close();
            served = self.ledger.summary().0 - before;
        }
        assert_eq!(served, CLIENTS, "not served again");
    }

    pub(super) fn at(&mut self, at: Instant, happening: Happening) {
        self.happened += 1;
        self.next.insert((at, self.happened), happening);
    }

    pub(super) fn later(&mut self, after: Duration, happening: Happening) {
        self.at(self.now + after, happening);
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut stood = 0;
        loop {
            let event = self.next.keys().next().map(|(at, _)| *at);
            let timer = self.timer();
            let Some(at) = [event, timer].into_iter().flatten().min() else {
                break;
            };
            if at > until {
                break;
            }
            stood = if at > self.now { 0 } else { stood + 1 };
            assert!(stood < 1000, "time stands still");
            self.now = self.now.max(at);
            if event == Some(at) {
                let (_, happening) = self.next.pop_first().unwrap();
                self.trace(&happening);
                self.happen(happening);
            } else {
                self.timers();
            }
            self.pump();
        }
        self.now = until;
    }

    fn trace(&self, what: &dyn std::fmt::Debug) {
        if self.traced {
            let at = self.now.duration_since(self.shape.start);
            eprintln!("{:9.1} {what:?}", at.as_secs_f64() * 1000.0);
        }
    }

    fn timer(&mut self) -> Option<Instant> {
        let mut next = self.edge.device.poll_timeout();
        for tunnel in 0..self.tunnels.len() {
            let head = self.head_deadline(tunnel);
            let edge = self.tunnels[tunnel].edge.as_ref();
            let edge = edge.and_then(|edge| edge.session.poll_timeout());
            next = [next, head, edge].into_iter().flatten().min();
        }
        next
    }

    fn timers(&mut self) {
        self.edge.device.handle_timeout(self.now);
        for tunnel in 0..self.tunnels.len() {
            for end in [End::Edge, End::Head] {
                let session = self.tunnels[tunnel].session(end);
                let event = session.and_then(|session| session.handle_timeout(self.now));
                self.session_event(tunnel, end, event);
            }
            self.head_timeouts(tunnel);
        }
    }

    fn pump(&mut self) {
        self.edge_pump();
        for tunnel in 0..self.tunnels.len() {
            self.head_timeouts(tunnel);
            self.flush(tunnel, End::Edge);
            self.flush(tunnel, End::Head);
        }
    }

    pub(super) fn new_line(&mut self) -> Line {
        self.lines += 1;
        self.to_plc.insert(self.lines, Pipe::new(self.now));
        self.lines
    }

    pub(super) fn new_tunnel(&mut self) -> usize {
        self.tunnels.push(Tunnel::new(self.now));
        self.tunnels.len() - 1
    }

    pub(super) fn write_line(&mut self, line: Line, bytes: Vec<u8>) {
        let after = self.dice.millis(0..3);
        let at = self
            .to_plc
            .get_mut(&line)
            .unwrap()
            .arrival(self.now + after);
        self.at(at, Happening::ToPlc { line, bytes });
    }

    /// What was written before still arrives.
    pub(super) fn edge_left_line(&mut self, line: Line) {
        let at = self.to_plc.get_mut(&line).unwrap().arrival(self.now);
        self.at(at, Happening::EdgeLeft { line });
    }

    /// Over a tunnel; in pieces, perhaps to nowhere.
    pub(super) fn send(&mut self, tunnel: usize, from: End, channel: usize, mut bytes: Vec<u8>) {
        let slow = self.faults && self.dice.percent(3);
        let after = self.dice.millis(if slow { 20..700 } else { 1..15 });
        let cut = self.dice.roll(bytes.len() as u64) as usize;
        let state = &mut self.tunnels[tunnel];
        if let Some(session) = state.session(from) {
            session.sent(self.now);
        }
        let to = from.other();
        let at = state.pipes[usize::from(to == End::Head)][channel].arrival(self.now + after);
        if state.cut {
            return;
        }
        let tail = bytes.split_off(cut);
        for bytes in [bytes, tail] {
            let arrives = Happening::Arrives {
                tunnel,
                to,
                channel,
                bytes,
            };
            self.at(at, arrives);
        }
    }

    pub(super) fn flush(&mut self, tunnel: usize, end: End) {
        let mut bytes = Vec::new();
        let session = self.tunnels[tunnel].session(end);
        if session.is_some_and(|session| session.poll_transmit(&mut bytes)) {
            self.send(tunnel, end, 0, bytes);
        }
    }

    /// One end closes the transport: the other hears of it after what was sent, unless the way is
    /// cut.
    pub(super) fn hang_up(&mut self, tunnel: usize, from: End) {
        let to = from.other();
        let after = self.dice.millis(1..10);
        let state = &mut self.tunnels[tunnel];
        if !state.cut {
            let pipes = &mut state.pipes[usize::from(to == End::Head)];
            let at = pipes
                .iter_mut()
                .map(|pipe| pipe.arrival(self.now + after))
                .max();
            let at = at.unwrap_or(self.now);
            self.at(at, Happening::HungUp { tunnel, at: to });
        }
    }

    fn session_event(&mut self, tunnel: usize, end: End, event: Option<Event>) {
        let Some(event) = event else { return };
        self.trace(&(end, tunnel, &event));
        match end {
            End::Edge => self.edge_event(tunnel, &event),
            End::Head => self.head_event(tunnel, event),
        }
    }

    fn arrives(&mut self, tunnel: usize, to: End, channel: usize, bytes: &[u8]) {
        let Some(decoder) = self.tunnels[tunnel].decoder(to, channel) else {
            return;
        };
        let mut decoder = std::mem::take(decoder);
        if let Some(session) = self.tunnels[tunnel].session(to) {
            session.received(self.now);
        }
        let done = decoder.feed(bytes, |tag, frame| -> Result<(), Violation> {
            assert_eq!(usize::from(tag), channel);
            let Some(session) = self.tunnels[tunnel].session(to) else {
                return Ok(());
            };
            if channel == 0 {
                let event = session.handle(self.now, frame)?;
                self.session_event(tunnel, to, event);
                return Ok(());
            }
            if !session.is_up() {
                return Ok(());
            }
            match to {
                End::Edge => self.edge_frame(tunnel, &frame),
                End::Head => self.head_frame(tunnel, &frame),
            }
        });
        done.unwrap_or_else(|violation| panic!("{to:?} of {tunnel}: {violation}"));
        if let Some(place) = self.tunnels[tunnel].decoder(to, channel) {
            *place = decoder;
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Ask { client } => {
                if self.faults {
                    self.ask(client);
                    let burst = self.dice.percent(40);
                    let after = self.dice.millis(if burst { 0..2 } else { 5..200 });
                    self.later(after, Happening::Ask { client });
                }
            }
            Happening::ToHead { conn, bytes } => self.head_hears_client(conn, &bytes),
            Happening::ClientLeft { conn } => self.head_loses_client(conn),
            Happening::ToClient { conn, bytes } => self.client_hears(conn, &bytes),
            Happening::Dial { start } if start == self.edge.start => self.edge_dials(),
            Happening::Durable { start, key } if start == self.edge.start => self.edge_durable(key),
            Happening::Dial { .. } | Happening::Durable { .. } => {}
            Happening::Arrives {
                tunnel,
                to,
                channel,
                bytes,
            } => self.arrives(tunnel, to, channel, &bytes),
            Happening::HungUp { tunnel, at } => match at {
                End::Edge => self.edge_ends(tunnel),
                End::Head => self.head_ends(tunnel),
            },
            Happening::DiskRepaired => self.edge.broken = false,
            Happening::PlcConnect { line } => self.plc_connect(line),
            Happening::LineOpened { line, taken } => self.line_opened(line, taken),
            Happening::ToPlc { line, bytes } => self.plc_hears(line, &bytes),
            Happening::PlcWorks { line } => self.plc_works(line),
            Happening::FromPlc { line, bytes } => self.edge_hears_plc(line, &bytes),
            Happening::LineClosed { line } => self.line_closed(line),
            Happening::EdgeLeft { line } => {
                self.plc.lines.remove(&line);
            }
            Happening::PolicyBack { at } => {
                self.ledger.forbidding -= 1;
                self.set_policy(at, 0);
            }
            Happening::Fault => self.fault(),
        }
    }

    fn set_policy(&mut self, at: End, which: usize) {
        let policy = Arc::clone(&self.policies[which]);
        match at {
            End::Edge => self.edge_policy(&policy),
            End::Head => self.head_policy(&policy),
        }
    }

    fn fault(&mut self) {
        if !self.faults {
            return;
        }
        let after = self.dice.millis(50..1500);
        self.later(after, Happening::Fault);
        let tunnel = self.tunnels.len().saturating_sub(1);
        let kind = self.dice.roll(12);
        self.trace(&("fault", kind));
        match kind {
            0 | 1 if !self.tunnels.is_empty() => self.tunnels[tunnel].cut = true,
            2 if !self.tunnels.is_empty() => {
                // What is on its way is lost too, and both ends hear of it.
                self.next.retain(
                    |_, h| !matches!(h, Happening::Arrives { tunnel: t, .. } if *t == tunnel),
                );
                self.hang_up(tunnel, End::Edge);
                self.hang_up(tunnel, End::Head);
            }
            3 if !self.tunnels.is_empty() => self.edge_hangs_up(tunnel),
            4 => self.edge_dials(),
            5 => self.edge_dies(),
            6 => self.head_dies(),
            7 => self.power_cycle(),
            8 | 9 => {
                let at = [End::Edge, End::Head][self.dice.roll(2) as usize];
                let open = match at {
                    End::Edge => &self.edge.policy,
                    End::Head => &self.head.policy,
                };
                if Arc::ptr_eq(open, &self.policies[0]) {
                    self.ledger.forbid();
                    self.set_policy(at, 1);
                    let after = self.dice.millis(20..600);
                    self.later(after, Happening::PolicyBack { at });
                }
            }
            10 => {
                self.edge.broken = true;
                let after = self.dice.millis(10..400);
                self.later(after, Happening::DiskRepaired);
            }
            _ => {
                let client = self.dice.roll(CLIENTS as u64) as usize;
                self.client_leaves(client);
            }
        }
    }

    /// kill -9, and a start: its clients and tunnels are cut off.
    fn head_dies(&mut self) {
        for tunnel in 0..self.tunnels.len() {
            if self.tunnels[tunnel].head.take().is_some() && self.dice.percent(70) {
                self.hang_up(tunnel, End::Head);
            }
        }
        self.head.live = None;
        self.head.instance[0] = self.head.instance[0].wrapping_add(1);
        self.head.conns.clear();
        for client in 0..CLIENTS {
            if let Some(conn) = self.clients[client].conn.take() {
                self.ledger.abandoned(conn);
            }
        }
    }

    fn client_leaves(&mut self, client: usize) {
        let state = &mut self.clients[client];
        if let Some(conn) = state.conn.take() {
            self.ledger.abandoned(conn);
            let at = state.pipe.arrival(self.now + Duration::from_millis(2));
            self.at(at, Happening::ClientLeft { conn });
        }
    }

    fn ask(&mut self, client: usize) {
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
        let what = draw(&mut self.dice);
        let state = &mut self.clients[client];
        state.transaction = state.transaction.wrapping_add(1);
        let transaction = state.transaction;
        let pdu = self.ledger.ask(client, conn, transaction, what);
        let mut bytes = Vec::new();
        mbap::encode(&mut bytes, transaction, 1, &pdu);
        let after = self.dice.millis(0..4);
        let cut = self.dice.roll(bytes.len() as u64) as usize;
        let at = self.clients[client].pipe.arrival(self.now + after);
        let tail = bytes.split_off(cut);
        for bytes in [bytes, tail] {
            self.at(at, Happening::ToHead { conn, bytes });
        }
    }

    fn client_hears(&mut self, conn: Conn, bytes: &[u8]) {
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
