//! The clock, what happens next, and the faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_policy::{Now, Phase, Policy};
use fieldlock_session::Place;
use fieldlock_testkit::seeds::Dice;

use super::clients::Client;
use super::edge::Edge;
use super::head::Head;
use super::ledger::{Conn, Ledger};
use super::plc::{Line, Plc};
use super::tunnel::{End, Pipe, Tunnel};
use crate::meter::Meter;
use crate::repeat::Repeats;

pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(600);
pub(super) const QUEUE: u16 = 6;
/// Most requests with the device at once.
pub(super) const IN_FLIGHT: u16 = 4;
pub(super) const CREDIT: u16 = QUEUE + IN_FLIGHT;
pub(super) const CLIENTS: usize = 4;
/// Units of the clients, and what the device calls them.
pub(super) const UNITS: [(u8, u8); 3] = [(1, 1), (7, 1), (2, 2)];
/// For how long repeats are recognised: longer than a run.
pub(super) const HOLD: Duration = Duration::from_secs(60);
/// How long clients ask and things go wrong.
const TROUBLE: Duration = Duration::from_secs(6);
/// After that, until everything has an end: liveness, back-off, a time-out, the hold-off of a unit.
const REST: Duration = Duration::from_secs(20);

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
    ClientWaited {
        client: usize,
        timer: u32,
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
        record: u64,
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
    pub(super) clients: Vec<Client>,
    /// Octets that the client of a connection got.
    pub(super) heard: BTreeMap<Conn, usize>,
    pub(super) next: BTreeMap<(Instant, u64), Happening>,
    happened: u64,
    pub(super) lines: Line,
    pub(super) conns: Conn,
    pub(super) to_plc: BTreeMap<Line, Pipe>,
    pub(super) policies: [Arc<Policy>; 2],
    traced: bool,
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
        let clients = (0..CLIENTS).map(|_| Client::new(start, &mut dice));
        let clients = clients.collect();
        Self {
            now: start,
            faults: true,
            head: Head {
                policy: Arc::clone(&policies[0]),
                meter: Meter::default(),
                conns: BTreeMap::new(),
                live: None,
                place: Place::default(),
                instance: [0xff; 16],
                accepted: 0,
                repeats: Repeats::at_headend(HOLD),
            },
            edge: Edge::new(Arc::clone(&policies[0]), 0, &shape, start),
            tunnels: Vec::new(),
            plc: Plc {
                lines: BTreeMap::new(),
                off_until: start,
            },
            ledger: Ledger::new(shape.shared_reads),
            clients,
            heard: BTreeMap::new(),
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
        let stats = self.edge.serving.device().stats();
        assert_eq!((stats.queued, stats.in_flight), (0, 0));
        let heads = self
            .tunnels
            .iter()
            .filter_map(|tunnel| tunnel.head.as_ref());
        assert_eq!(heads.map(|head| head.channel.len()).sum::<usize>(), 0);
        // Who asks first may find out that the PLC has forgotten a connection; then the unit rests.
        let mut served = 0;
        for _ in 0..self.shape.max_connections + 2 {
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

    pub(super) fn trace(&self, what: &dyn std::fmt::Debug) {
        if self.traced {
            let at = self.now.duration_since(self.shape.start);
            eprintln!("{:9.1} {what:?}", at.as_secs_f64() * 1000.0);
        }
    }

    fn timer(&mut self) -> Option<Instant> {
        let mut next = self.edge.serving.device().poll_timeout();
        for tunnel in 0..self.tunnels.len() {
            let head = self.head_deadline(tunnel);
            let edge = self.tunnels[tunnel].edge.as_ref();
            let edge = edge.and_then(|edge| edge.session.poll_timeout());
            next = [next, head, edge].into_iter().flatten().min();
        }
        next
    }

    fn timers(&mut self) {
        self.edge.serving.device_mut().handle_timeout(self.now);
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
            Happening::ClientWaited { client, timer } => self.client_waited(client, timer),
            Happening::ToClient { conn, bytes } => self.client_hears(conn, &bytes),
            Happening::Dial { start } if start == self.edge.start => self.edge_dials(),
            Happening::Durable { start, record } if start == self.edge.start => {
                self.edge_durable(record);
            }
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
            Happening::EdgeLeft { line } => self.edge_has_left(line),
            Happening::PolicyBack { at } => {
                self.ledger.forbidding -= 1;
                self.set_policy(at, 0);
            }
            Happening::Fault => self.fault(),
        }
    }
}
