//! What must hold, by one who sees both ends and the network between them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::head::{HEADS, Head, Mood};
use super::net::{End, QUIC_IDLE};
use super::world::World;
use crate::dialler::Ending;
use crate::{Event, Failure, Side, Step, Transport};

/// Within which an edge has a tunnel again when all is well: the old one is dead after 2 s, a hello that
/// was lost is given up after 5 s, who waits for the probe of another does so for 1 s, rounds are 1 s
/// apart, and a handshake takes a moment.
const BACK: Duration = Duration::from_secs(9);
/// The same after the headend said that it is busy, or refused.
const BACK_AFTER_NO: Duration = Duration::from_secs(18);
const SECOND: Duration = Duration::from_secs(1);
/// Rounds of one process to one headend in ten seconds, at most.
const ROUNDS: usize = 40;
/// Connections that one process has at one headend at a time: those that the headend does not know
/// to be dead yet, and the new ones.
const CONNECTIONS: usize = 24;

/// How often one process asks one headend, and how often it may.
#[derive(Debug)]
pub(super) struct Dials {
    addresses: u64,
    rounds: VecDeque<Instant>,
    /// Answers of a kind, one after another.
    busy: u32,
    refused: u32,
    /// The addresses are asked for, or there, of a round that begins with the next attempt.
    asks: bool,
    begins: bool,
    /// Of this round.
    worst: Failure,
    /// No round begins before, and only so many attempts of this one.
    not_before: Option<Instant>,
    spare: u64,
    /// When the headend, or this process, said no.
    no: Option<Instant>,
    only: Option<Transport>,
    /// The headend is expected back until then, by this transport alone.
    expected: Option<(Instant, Transport)>,
    /// Attempts of this round, and how many it is to have: unknown after a word that ended it.
    made: u64,
    planned: Option<u64>,
    /// Attempts by this transport are due at the latest then, beside the tunnel.
    renewal: Option<(Instant, Transport)>,
}

impl Dials {
    pub(super) fn new(addresses: u64, only: Option<Transport>) -> Self {
        Self {
            addresses,
            rounds: VecDeque::new(),
            busy: 0,
            refused: 0,
            asks: false,
            begins: false,
            worst: Failure::Network,
            not_before: None,
            spare: 0,
            no: None,
            only,
            expected: None,
            made: 0,
            planned: None,
            renewal: None,
        }
    }

    /// Asks where the headend is: for a round, if there is no tunnel.
    pub(super) fn asks(&mut self, alone: bool) {
        self.asks = alone;
    }

    pub(super) fn resolved(&mut self, alone: bool) {
        self.begins = self.asks && alone;
    }

    fn round(&mut self, now: Instant) {
        // The answer to another question may begin a round, which is not seen here.
        let whole = self.planned.is_none_or(|planned| planned <= self.made);
        assert!(whole, "the last round was cut short: {self:?}");
        self.expected.take_if(|(until, _)| now >= *until);
        let transports = match (self.only, self.expected) {
            (None, None) => 2,
            _ => 1,
        };
        self.planned = Some(transports * self.addresses);
        self.made = 0;
        let early = self.not_before.is_some_and(|at| now < at);
        assert!(!early, "asked again too early: {self:?}");
        self.worst = Failure::Network;
        self.rounds.push_back(now);
        while self
            .rounds
            .front()
            .is_some_and(|at| *at + 10 * SECOND < now)
        {
            self.rounds.pop_front();
        }
        assert!(self.rounds.len() <= ROUNDS, "dials without rest");
    }

    /// An attempt, of those that are made while there is no tunnel.
    pub(super) fn attempt(&mut self, now: Instant, transport: Transport) {
        if std::mem::take(&mut self.begins) {
            self.round(now);
        }
        self.made += 1;
        let wrong = |(until, by)| now < until && by != transport && self.planned.is_some();
        assert!(
            !self.expected.is_some_and(wrong),
            "not by this way: {self:?}"
        );
        if self.not_before.is_some_and(|at| now < at) {
            assert!(self.spare > 0, "asked again too early: {self:?}");
            self.spare -= 1;
        }
    }

    pub(super) fn failed(&mut self, now: Instant, why: Failure) {
        if why > Failure::Network {
            self.no = Some(now);
        }
        if why > self.worst {
            self.worst = why;
            let (count, most) = match why {
                Failure::Busy => (&mut self.busy, 8),
                _ => (&mut self.refused, 10),
            };
            let delay = SECOND * 2_u32.pow((*count).min(4)).min(most);
            *count += 1;
            self.not_before = self.not_before.max(Some(now + delay / 2));
            self.spare = 2 * self.addresses;
        }
        if why == Failure::Busy {
            self.spare = 0;
            self.planned = None;
        }
    }

    /// An attempt of any kind.
    pub(super) fn tried(&mut self, transport: Transport) {
        self.renewal.take_if(|(_, by)| *by == transport);
    }

    /// A newer tunnel is as good as the renewal of the older.
    pub(super) fn connected(&mut self) {
        self.renewal = None;
    }

    /// There is no tunnel any more.
    pub(super) fn alone(&mut self) {
        self.renewal = None;
    }

    /// A tunnel that had been up has ended.
    pub(super) fn won(&mut self, now: Instant, transport: Transport, why: Ending) {
        self.worst = Failure::Network;
        self.planned = None;
        if let Some((_, by)) = &mut self.expected {
            *by = transport;
        }
        if self.rounds.back().is_none_or(|at| *at + SECOND <= now) {
            (self.busy, self.refused) = (0, 0);
            self.not_before = None;
            if why == Ending::Stopped {
                self.expected = Some((now + SECOND, transport));
            }
        }
    }

    /// With another certificate: at once, or beside the tunnel over `over`, once its name is resolved.
    pub(super) fn begin_again(&mut self, now: Instant, over: Option<Transport>) {
        if let Some(over) = over {
            self.renewal = Some((now + 2 * SECOND, over));
            return;
        }
        self.refused = 0;
        self.worst = Failure::Network;
        self.not_before = None;
    }

    /// How long it may wait before it dials.
    fn patience(&self) -> Duration {
        match (self.busy, self.refused) {
            (0, 0) => SECOND,
            _ => 10 * SECOND,
        }
    }
}

/// From when on nothing has been in the way of the edge to a headend.
#[derive(Debug)]
pub(super) struct Well {
    circumstances: Option<Circumstances>,
    since: Instant,
}

/// Of an edge that could have a tunnel: any change of them may cost it the one it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Circumstances {
    process: usize,
    open: [bool; 2],
    moved: u32,
    start: u8,
    crowds: u32,
    closed: u32,
}

impl Well {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            circumstances: None,
            since: now,
        }
    }
}

impl World {
    fn circumstances(&self, head: usize) -> Option<Circumstances> {
        let process = self.living(0)?;
        let line = &self.processes[process].lines[head];
        let open = [Transport::Quic, Transport::Tls]
            .map(|t| self.sites[0].is_open(head, t) && line.uses(t));
        let Head {
            alive,
            mood,
            start,
            crowds,
            closed,
            ..
        } = &self.heads[head];
        let crowd = self.crowd.values().any(|member| member.is_at(head));
        let well = !crowd && *alive && *mood == Mood::Well && open != [false; 2];
        (well && self.living(1).is_none()).then_some(Circumstances {
            process,
            open,
            moved: self.sites[0].moved,
            start: *start,
            crowds: *crowds,
            closed: *closed,
        })
    }

    /// After everything that happens.
    pub(super) fn check(&mut self) {
        for head in 0..HEADS {
            let circumstances = self.circumstances(head);
            if self.well[head].circumstances != circumstances {
                self.well[head] = Well {
                    circumstances,
                    since: self.now,
                };
            }
            self.check_connected(head);
        }
        self.check_dialling();
        self.check_gates();
        self.check_silence();
    }

    /// A way that has been open for long enough is used.
    fn check_connected(&self, head: usize) {
        let well = &self.well[head];
        let Some(Circumstances { process, .. }) = well.circumstances else {
            return;
        };
        let no = self.processes[process].lines[head].dials.no;
        let recently = no.is_some_and(|no| no + 10 * SECOND >= well.since);
        let bound = if recently { BACK_AFTER_NO } else { BACK };
        if self.now > well.since + bound {
            assert_eq!(self.holder(head), Some(process), "no tunnel for {bound:?}");
        }
    }

    /// Whose tunnel serves at a headend, by the word of both ends.
    fn holder(&self, head: usize) -> Option<usize> {
        let conn = &self.conns[self.heads[head].live?];
        let up = |end: &Option<End>| end.as_ref().is_some_and(|end| end.was_up && !end.closing);
        (up(&conn.edge) && up(&conn.headend)).then_some(conn.process)
    }

    /// At rest: whose tunnel serves. There is no other, and it has the transport that is preferred.
    pub(super) fn holders(&self) -> [usize; HEADS] {
        let holders = [0, 1].map(|head| self.holder(head).expect("no tunnel at rest"));
        for (head, process) in holders.into_iter().enumerate() {
            let live = self.heads[head].live.expect("it holds");
            for &number in self.open.iter().filter(|&&n| self.conns[n].head == head) {
                let conn = &self.conns[number];
                let other = [&conn.edge, &conn.headend].into_iter().flatten();
                let up = other.filter(|end| end.was_up && !end.closing).count();
                assert!(number == live || up == 0, "{number} is up beside {live}");
            }
            assert!(self.processes[process].died.is_none(), "the dead hold it");
            let line = &self.processes[process].lines[head];
            let over = self.conns[live].transport;
            assert!(
                over == Transport::Quic || !line.uses(Transport::Quic),
                "{process} stays on TLS to {head}: {line:?}"
            );
        }
        holders
    }

    /// Whoever has no tunnel dials again before long.
    fn check_dialling(&self) {
        for (process, head) in self.pairs() {
            let line = &self.processes[process].lines[head];
            // Four seconds of attempts, in rounds that begin 0.7 s after each other at the earliest.
            assert!(line.attempts.len() as u64 <= 7 * 2 * 2, "attempts pile up");
            let late = |(latest, _)| self.now > latest;
            let lost = line.dials.renewal.is_some_and(late);
            assert!(!lost, "a renewal is lost: {line:?}");
            if line.tunnels.is_empty() && !line.resolving {
                let at = line.dialler.poll_timeout();
                let latest = self.now + line.dials.patience();
                let soon = at.is_some_and(|at| at <= latest);
                assert!(soon, "{process} stops dialling {head}: {line:?}");
            }
            let own = |n: &&usize| {
                let conn = &self.conns[**n];
                (conn.process, conn.head) == (process, head) && conn.headend.is_some()
            };
            assert!(self.open.iter().filter(own).count() <= CONNECTIONS);
        }
    }

    /// Nobody believes in a silent peer for longer than is said.
    fn check_silence(&self) {
        for &number in &self.open {
            let conn = &self.conns[number];
            for (side, end) in [(Side::Edge, &conn.edge), (Side::Headend, &conn.headend)] {
                let Some(end) = end.as_ref().filter(|end| !end.closing) else {
                    continue;
                };
                let heartbeat = end.was_up || conn.transport == Transport::Quic;
                let deadline = match heartbeat {
                    true => end.heard + QUIC_IDLE,
                    false => end.since + 5 * SECOND,
                };
                assert!(
                    self.now <= deadline,
                    "{side:?} believes in {number}: {end:?}"
                );
            }
        }
    }

    /// One end gives the other up: it has heard nothing, and something was wrong.
    pub(super) fn check_end(&self, number: usize, side: Side, event: &Event) {
        let conn = &self.conns[number];
        let end = match side {
            Side::Edge => &conn.edge,
            Side::Headend => &conn.headend,
        };
        let end = end.as_ref().expect("it speaks");
        if *event == Event::Dead {
            assert!(self.now >= end.heard + QUIC_IDLE, "dead, and was heard");
        }
        assert!(
            !self.is_well(number),
            "{side:?} gives up {number}, which is well"
        );
    }

    /// Both ends are there, and hear each other.
    fn is_well(&self, number: usize) -> bool {
        let conn = &self.conns[number];
        let there = |end: &Option<End>| end.as_ref().is_some_and(|end| !end.closing);
        there(&conn.edge) && there(&conn.headend) && conn.is_well(self.now)
    }

    /// A tunnel comes up: it may take the place of the one that serves.
    pub(super) fn check_up(&self, number: usize) {
        let conn = &self.conns[number];
        let Some(live) = self.heads[conn.head].live else {
            return;
        };
        let older = &self.conns[live];
        if older.process == conn.process {
            assert!(conn.hello > older.hello, "{number} is older than {live}");
        } else {
            assert!(
                !self.is_well(live),
                "{number} takes the place of {live}, which is well"
            );
        }
    }

    /// The headend has decided about a tunnel.
    pub(super) fn check_step(&self, step: Step) {
        match step {
            Step::Close(number) => {
                let conn = &self.conns[number as usize];
                let serves = self.heads[conn.head].live == Some(number as usize);
                assert!(
                    !serves || !self.is_well(number as usize),
                    "{step:?} is well"
                );
            }
            Step::Refuse { refused, .. } => {
                let conn = &self.conns[refused as usize];
                let others = self.processes.iter().enumerate();
                let mut others = others.filter(|(n, _)| *n != conn.process);
                // A sign of life is waited for for a second.
                let any =
                    others.any(|(_, other)| other.died.is_none_or(|at| self.now <= at + SECOND));
                assert!(any, "{step:?}, and there is no other");
            }
            _ => {}
        }
    }
}
