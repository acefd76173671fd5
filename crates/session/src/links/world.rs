//! The clock, and what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use fieldlock_testkit::seeds::Dice;

use super::edge::{Pair, Process};
use super::gate::{Knock, Member};
use super::head::{HEADS, Head, Mood};
use super::net::{Conn, Site};
use super::reference::Well;
use crate::dialler::Ending;
use crate::{Close, Failure, Side, Transport};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(30);
/// After that, until all is as it should be and on its preferred transport.
const REST: Duration = Duration::from_secs(40);
/// In which nothing changes any more but the transport.
const CALM: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) enum Happening {
    /// A handshake's last packet arrives.
    Handshake(Knock),
    /// Its first packets arrive.
    Knock(Knock),
    /// The headend is busy.
    PutOff {
        pair: Pair,
        id: u32,
    },
    /// The headend gives a handshake up, if it is not through.
    HandshakeOver {
        head: usize,
        start: u8,
        id: u32,
    },
    /// One of a crowd wants in.
    Comes {
        member: u32,
    },
    CrowdIn {
        head: usize,
        start: u8,
        member: u32,
    },
    Forged {
        head: usize,
        left: u32,
    },
    NoAnswer {
        pair: Pair,
        id: u32,
    },
    /// The name server has answered.
    Resolved {
        pair: Pair,
    },
    /// The headend is through with the handshake too.
    Opens {
        conn: usize,
        start: u8,
        id: u32,
    },
    Arrives {
        conn: usize,
        to: Side,
        bytes: Vec<u8>,
    },
    HungUp {
        conn: usize,
        at: Side,
        refused: bool,
    },
    Farewell {
        conn: usize,
        side: Side,
    },
    Drained {
        conn: usize,
    },
    Fault,
    WayOpens {
        site: usize,
        head: usize,
        transport: Transport,
    },
    EdgeStarts {
        site: usize,
    },
    EdgeDies {
        process: usize,
    },
    HeadStops {
        head: usize,
    },
    HeadStarts {
        head: usize,
    },
    MoodPasses {
        head: usize,
    },
}

pub(super) struct World {
    pub(super) dice: Dice,
    start: Instant,
    pub(super) now: Instant,
    pub(super) faults: bool,
    /// Of 100 packets.
    pub(super) slow: u64,
    pub(super) heads: [Head; HEADS],
    /// The edge's, and that of a copy of it.
    pub(super) sites: [Site; 2],
    pub(super) processes: Vec<Process>,
    pub(super) conns: Vec<Conn>,
    /// Those that have an end.
    pub(super) open: BTreeSet<usize>,
    /// Attempts, and others who want in at a headend.
    pub(super) attempts: u32,
    /// Others who are not in yet.
    pub(super) crowd: BTreeMap<u32, Member>,
    pub(super) well: [Well; HEADS],
    pub(super) next: BTreeMap<(Instant, u64), Happening>,
    happened: u64,
    traced: bool,
}

impl World {
    pub(super) fn new(seed: u64, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let now = Instant::now();
        Self {
            start: now,
            now,
            faults: true,
            slow: [0, 1, 3, 10][dice.roll(4) as usize],
            heads: [(); HEADS].map(|()| Head::new(0)),
            sites: Default::default(),
            processes: Vec::new(),
            conns: Vec::new(),
            open: BTreeSet::new(),
            attempts: 0,
            crowd: BTreeMap::new(),
            well: [(); HEADS].map(|()| Well::new(now)),
            next: BTreeMap::new(),
            happened: 0,
            traced,
            dice,
        }
    }

    /// Runs to the end; what came of it: events, attempts, connections.
    pub(super) fn run(mut self) -> (u64, u32, usize) {
        self.edge_starts(0);
        let after = self.dice.millis(100..4000);
        self.later(after, Happening::Fault);
        self.pass(TROUBLE);
        self.settle();
        self.pass(REST);
        let holders = self.holders();
        self.pass(CALM);
        assert_eq!(self.holders(), holders, "the place changes hands for ever");
        self.check_idle();
        (self.happened, self.attempts, self.conns.len())
    }

    /// The faults end. A copy of the edge may stay.
    fn settle(&mut self) {
        self.faults = false;
        self.next.retain(|_, happening| {
            !matches!(
                happening,
                Happening::Fault
                    | Happening::Forged { .. }
                    | Happening::WayOpens { .. }
                    | Happening::EdgeStarts { .. }
                    | Happening::EdgeDies { .. }
                    | Happening::HeadStops { .. }
                    | Happening::HeadStarts { .. }
                    | Happening::MoodPasses { .. }
            )
        });
        for site in &mut self.sites {
            site.closed = Default::default();
        }
        self.send_again();
        for head in 0..HEADS {
            if !self.heads[head].alive {
                self.head_starts(head);
            }
            self.heads[head].mood = Mood::Well;
        }
        if self.living(0).is_none() {
            self.edge_starts(0);
        }
        if self.dice.percent(50)
            && let Some(copy) = self.living(1)
        {
            self.edge_dies(copy);
        }
    }

    pub(super) fn next_id(&mut self) -> u32 {
        self.attempts += 1;
        self.attempts
    }

    /// The process at a site.
    pub(super) fn living(&self, site: usize) -> Option<usize> {
        let lives = |process: &Process| process.site == site && process.died.is_none();
        self.processes.iter().position(lives)
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
        self.pump();
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
                let (_, happening) = self.next.pop_first().expect("it is there");
                self.trace(&happening);
                self.happen(happening);
            } else {
                self.timers();
            }
            self.pump();
            self.check();
        }
        self.now = until;
    }

    pub(super) fn trace(&self, what: &dyn Debug) {
        if self.traced {
            let at = self.now.duration_since(self.start);
            eprintln!("{:9.1} {what:?}", at.as_secs_f64() * 1000.0);
        }
    }

    pub(super) fn pairs(&self) -> Vec<Pair> {
        let living = |process: &usize| self.processes[*process].died.is_none();
        let living = (0..self.processes.len()).filter(living);
        living
            .flat_map(|p| (0..HEADS).map(move |head| (p, head)))
            .collect()
    }

    fn timer(&self) -> Option<Instant> {
        let conns = self.open.iter().filter_map(|&n| self.conn_deadline(n));
        let pairs = self.pairs();
        let dials = pairs
            .into_iter()
            .filter_map(|pair| self.dial_deadline(pair));
        conns.chain(dials).min()
    }

    fn timers(&mut self) {
        for number in self.open.clone() {
            self.conn_timers(number, Side::Edge);
            self.conn_timers(number, Side::Headend);
        }
    }

    fn pump(&mut self) {
        for pair in self.pairs() {
            if self.dial_deadline(pair).is_some_and(|at| at <= self.now) {
                self.dial(pair);
            }
        }
        for number in self.open.clone() {
            self.flush(number, Side::Edge);
            self.flush(number, Side::Headend);
            let conn = &self.conns[number];
            if conn.edge.is_none() && conn.headend.is_none() {
                self.open.remove(&number);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Handshake(knock) => self.handshake(knock),
            Happening::Knock(knock) => self.knock(knock),
            Happening::PutOff { pair, id } => self.put_off(pair, id),
            Happening::HandshakeOver { head, start, id } => self.handshake_over(head, start, id),
            Happening::Comes { member } => self.comes(member),
            Happening::CrowdIn {
                head,
                start,
                member,
            } => self.crowd_in(head, start, member),
            Happening::Forged { head, left } => self.forged(head, left),
            Happening::NoAnswer { pair, id } => self.failed(pair, id, Failure::Network),
            Happening::Resolved { pair } => self.resolved(pair),
            Happening::Opens { conn, start, id } => {
                self.handshake_over(self.conns[conn].head, start, id);
                self.head_opens(conn, start);
            }
            Happening::Arrives { conn, to, bytes } => self.arrives(conn, to, &bytes),
            Happening::HungUp { conn, at, refused } => match at {
                Side::Edge => {
                    let why = if refused {
                        Ending::Refused
                    } else {
                        Ending::Lost
                    };
                    self.edge_ends(conn, why);
                }
                Side::Headend => self.head_ends(conn),
            },
            Happening::Farewell { conn, side } => match side {
                Side::Edge => self.edge_ends(conn, Ending::Lost),
                Side::Headend => self.head_ends(conn),
            },
            Happening::Drained { conn } => self.closes(conn, Side::Headend, Close::Replaced),
            Happening::Fault => self.fault(),
            Happening::WayOpens {
                site,
                head,
                transport,
            } => {
                self.sites[site].closed[head][transport as usize] -= 1;
                self.send_again();
            }
            Happening::EdgeStarts { site } => self.edge_starts(site),
            Happening::EdgeDies { process } => self.edge_dies(process),
            Happening::HeadStops { head } => self.head_stopped(head),
            Happening::HeadStarts { head } => self.head_starts(head),
            Happening::MoodPasses { head } => self.heads[head].mood = Mood::Well,
        }
    }
}
