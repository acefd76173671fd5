//! The reference: what was asked, what the PLC got and did, and so which answers may be given.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::world::UNITS;

/// A client connection at the headend.
pub(super) type Conn = u32;

/// Counts what the PLC does: a read tells the moment of its values.
pub(super) type Moment = u32;

/// Registers of a read: its address, then the moment in two.
pub(super) const REGISTERS: u16 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Read {
        address: u16,
    },
    /// Writes its own number.
    Write,
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) client: usize,
    /// The first that a client's library sent for the same call; itself, most often.
    call: usize,
    /// How often headend and edge had been killed.
    kills: [u32; 2],
    pub(super) conn: Conn,
    unit: u8,
    what: What,
    /// What the PLC had done when it was asked.
    before: Moment,
    /// When the headend began with it.
    begun: Option<Instant>,
    /// The tunnel that it left by.
    pub(super) tunnel: Option<usize>,
    /// How many policies the edge had had when it let it in.
    policy: Option<u64>,
    /// A policy forbade writes at some time meanwhile.
    forbidden: bool,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done(Moment),
    /// By the PLC itself.
    Exception,
    /// Said to have had no effect: no policy, no room, no way.
    NotSent(u8),
    /// 0x0B: nobody knows.
    Unknown,
    /// Its connection ended first.
    Abandoned,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) asked: Vec<Asked>,
    by_transaction: BTreeMap<(Conn, u16), usize>,
    /// By tunnel and the headend's id.
    by_id: BTreeMap<(usize, u64), usize>,
    pub(super) moment: Moment,
    /// Writes that the PLC got, and did.
    received: BTreeMap<u16, u32>,
    done: BTreeMap<u16, Moment>,
    /// Of which unit something was read.
    read: BTreeMap<Moment, u8>,
    /// That the edge has had.
    pub(super) policies: u64,
    /// Requests that the PLC refused.
    refused: u32,
    /// Writes whose intent is on the edge's disk.
    durable: BTreeMap<u16, ()>,
    /// At how many of the two ends writes are forbidden.
    pub(super) forbidding: u32,
    /// Who was told of which moment.
    told: BTreeMap<Moment, Vec<usize>>,
    /// Clients that wait for the same read may get one answer.
    shared_reads: bool,
    /// How often headend and edge were killed.
    pub(super) kills: [u32; 2],
    /// Answers that were kept from clients that had given up waiting for them.
    pub(super) kept: usize,
}

fn at_device(unit: u8) -> u8 {
    let known = UNITS.iter().find(|(clients, _)| *clients == unit);
    known.expect("asked for").1
}

/// Clients with the same rule; the third has its own.
fn group(client: usize) -> usize {
    client / 2
}

impl Ledger {
    pub(super) fn new(shared_reads: bool) -> Self {
        Self {
            shared_reads,
            ..Self::default()
        }
    }

    /// A client asks; the number of the request, and its PDU.
    pub(super) fn ask(
        &mut self,
        (client, conn): (usize, Conn),
        transaction: u16,
        unit: u8,
        what: What,
    ) -> (usize, Vec<u8>) {
        let number = self.asked.len();
        self.by_transaction.insert((conn, transaction), number);
        self.asked.push(Asked {
            client,
            call: number,
            kills: self.kills,
            conn,
            unit,
            what,
            before: self.moment,
            begun: None,
            tunnel: None,
            policy: None,
            forbidden: self.forbidding > 0,
            end: None,
        });
        let pdu = match what {
            What::Read { address } => {
                let [high, low] = address.to_be_bytes();
                vec![3, high, low, 0, REGISTERS as u8]
            }
            What::Write => {
                let [high, low] = (number as u16).to_be_bytes();
                vec![6, 0, 7, high, low]
            }
        };
        (number, pdu)
    }

    /// The library of a client sends a write again; the number that this one has.
    pub(super) fn ask_again(&mut self, before: usize, conn: Conn, transaction: u16) -> usize {
        let Asked {
            client,
            unit,
            call,
            forbidden,
            ..
        } = self.asked[before];
        self.give_up(before);
        let (number, _) = self.ask((client, conn), transaction, unit, What::Write);
        let asked = &mut self.asked[number];
        asked.call = call;
        asked.forbidden |= forbidden;
        number
    }

    /// The client waits for it no longer.
    pub(super) fn give_up(&mut self, number: usize) {
        let end = &mut self.asked[number].end;
        *end = end.or(Some(End::Abandoned));
    }

    /// All that was sent for the same call as this.
    fn attempts(&self, number: usize) -> impl Iterator<Item = &Asked> {
        let call = self.asked[number].call;
        self.asked.iter().filter(move |asked| asked.call == call)
    }

    /// Both ends that knew of this call were killed.
    fn is_forgotten(&self, number: usize) -> bool {
        let [head, edge] = self.asked[self.asked[number].call].kills;
        self.kills[0] > head && self.kills[1] > edge
    }

    pub(super) fn forbid(&mut self) {
        self.forbidding += 1;
        for asked in self.asked.iter_mut().filter(|asked| asked.end.is_none()) {
            asked.forbidden = true;
        }
    }

    /// A request leaves the headend, by a tunnel and with an id.
    pub(super) fn begun(&mut self, asked: (Conn, u16), now: Instant, sent: (usize, u64)) {
        let number = self.by_transaction[&asked];
        self.by_id.insert(sent, number);
        let asked = &mut self.asked[number];
        assert!(
            asked.begun.is_none() || asked.call != number,
            "begun twice: {asked:?}"
        );
        asked.begun = Some(now);
        asked.tunnel = Some(sent.0);
    }

    /// The edge lets a request in.
    pub(super) fn admitted(&mut self, sent: (usize, u64)) {
        self.asked[self.by_id[&sent]].policy = Some(self.policies);
    }

    /// The headend lets an answer out.
    pub(super) fn leaves(&self, conn: Conn, transaction: u16, now: Instant, within: Duration) {
        let number = self.by_transaction[&(conn, transaction)];
        let asked = &self.asked[number];
        // A client that asks again with the same id takes the first answer for both.
        let open = matches!(asked.end, None | Some(End::Abandoned)) || asked.call != number;
        assert!(open, "an answer too many: {asked:?}");
        let begun = asked.begun.unwrap_or(now);
        assert!(now <= begun + within, "late: {asked:?}");
    }

    pub(super) fn durable(&mut self, number: u16) {
        self.durable.insert(number, ());
    }

    /// A write arrives at the PLC.
    pub(super) fn received(&mut self, number: u16, unit: u8) {
        let times = self.received.entry(number).or_default();
        *times += 1;
        let twice = *times > 1 && !self.is_forgotten(number.into());
        assert!(!twice, "write {number} was sent twice");
        assert!(self.durable.contains_key(&number), "{number}: no intent");
        let asked = &self.asked[usize::from(number)];
        assert_eq!(unit, at_device(asked.unit), "{asked:?}");
        let mut attempts = self.attempts(number.into());
        let unsent = attempts.all(|asked| matches!(asked.end, Some(End::NotSent(_))));
        assert!(!unsent, "sent after it was said not to be: {asked:?}");
    }

    /// The PLC reads something.
    pub(super) fn read(&mut self, unit: u8) -> Moment {
        self.moment += 1;
        self.read.insert(self.moment, unit);
        self.moment
    }

    /// The PLC writes something.
    pub(super) fn wrote(&mut self, number: u16, now: Instant) {
        self.moment += 1;
        let done = self.done.insert(number, self.moment);
        assert!(done.is_none() || self.is_forgotten(number.into()));
        // A write is carried out before each that its client asked later, also one whose answer was
        // lost. What is read after that was told may be older.
        let this = &self.asked[usize::from(number)];
        let later = self.done.keys().filter(|&&later| later > number);
        for later in later.map(|&later| &self.asked[usize::from(later)]) {
            let same = this.conn == later.conn && at_device(this.unit) == at_device(later.unit);
            assert!(!same, "{now:?}: {this:?} after {later:?}");
        }
    }

    pub(super) fn refused(&mut self) {
        self.refused += 1;
    }

    /// A client gets an answer.
    pub(super) fn answered(&mut self, conn: Conn, transaction: u16, unit: u8, pdu: &[u8]) {
        let number = self.by_transaction.get(&(conn, transaction));
        let Some(&number) = number else {
            panic!("an answer to nothing: {conn} {transaction} {pdu:02x?}");
        };
        let asked = &self.asked[number];
        assert_eq!(unit, asked.unit, "{asked:?}");
        assert!(asked.end.is_none(), "answered twice: {asked:?}");
        self.check_turn(number);
        let end = self.judge(number, pdu);
        self.asked[number].end = Some(end);
        if let End::Done(moment) = end {
            self.check_order(number, moment);
        }
    }

    fn judge(&mut self, number: usize, pdu: &[u8]) -> End {
        let asked = &self.asked[number];
        let call = asked.call as u16;
        let reached = self.received.contains_key(&call) && asked.what == What::Write;
        match (asked.what, pdu) {
            (What::Read { address }, [3, 6, a1, a0, m3, m2, m1, m0]) => {
                assert_eq!(u16::from_be_bytes([*a1, *a0]), address, "{asked:?}");
                let moment = Moment::from_be_bytes([*m3, *m2, *m1, *m0]);
                assert!(moment > asked.before, "older than its request: {asked:?}");
                assert_eq!(self.read[&moment], at_device(asked.unit), "{asked:?}");
                let told = self.told.entry(moment).or_default();
                assert!(self.shared_reads || told.is_empty(), "shared: {asked:?}");
                for &other in told.iter() {
                    let other = &self.asked[other];
                    // Over another tunnel the edge takes it for another client.
                    let same = (other.conn, other.tunnel) == (asked.conn, asked.tunnel);
                    assert!(!same, "shared with itself: {asked:?}");
                    assert_eq!(group(other.client), group(asked.client), "{asked:?}");
                    assert_eq!(other.policy, asked.policy, "{asked:?}");
                }
                told.push(number);
                End::Done(moment)
            }
            (What::Write, [6, 0, 7, high, low]) => {
                assert_eq!(u16::from_be_bytes([*high, *low]), call);
                match self.done.get(&call) {
                    Some(&moment) => End::Done(moment),
                    None => panic!("told as done, and is not: {asked:?}"),
                }
            }
            (_, [0x83 | 0x86, code]) => match code {
                4 => {
                    assert!(self.refused > 0 && (asked.what != What::Write || reached));
                    End::Exception
                }
                1 | 6 | 10 => {
                    // What is said of a repeat is said of it alone, where nobody knows of the first, or does not
                    // ask: a policy, a limit.
                    let again = asked.call != number;
                    let known = *code == 10 && self.kills[0] == self.asked[asked.call].kills[0];
                    let told = !reached || again && !known;
                    assert!(told, "told as not sent ({code}), and was: {asked:?}");
                    assert!(*code != 1 || asked.forbidden, "refused: {asked:?}");
                    assert!(*code != 1 || asked.what == What::Write);
                    End::NotSent(*code)
                }
                11 => End::Unknown,
                _ => panic!("exception {code}: {asked:?}"),
            },
            _ => panic!("{pdu:02x?} for {asked:?}"),
        }
    }

    /// Answers of one unit reach a client in the order in which it asked.
    fn check_turn(&self, number: usize) {
        let this = &self.asked[number];
        let same = |asked: &&Asked| {
            asked.conn == this.conn && at_device(asked.unit) == at_device(this.unit)
        };
        for later in self.asked[number + 1..].iter().filter(same) {
            assert!(later.end.is_none(), "{later:?} overtook {this:?}");
        }
    }

    /// What one client asked of one unit happened in that order.
    fn check_order(&self, number: usize, moment: Moment) {
        let this = &self.asked[number];
        let unit = at_device(this.unit);
        for (other, asked) in self.asked.iter().enumerate() {
            let same = asked.conn == this.conn && at_device(asked.unit) == unit;
            if let (true, Some(End::Done(at))) = (same, asked.end) {
                assert_eq!(
                    other.cmp(&number),
                    at.cmp(&moment),
                    "{asked:?} and {this:?}"
                );
            }
        }
    }

    /// A client's connection ended: no answer comes any more.
    pub(super) fn abandoned(&mut self, conn: Conn) {
        for asked in self.asked.iter_mut().filter(|asked| asked.conn == conn) {
            asked.end = asked.end.or(Some(End::Abandoned));
        }
    }

    pub(super) fn open(&self, conn: Conn) -> usize {
        let open = self.asked.iter().rev().take(200);
        open.filter(|asked| asked.conn == conn && asked.end.is_none())
            .count()
    }

    /// Everything has an end, and none that the PLC belies.
    pub(super) fn close(&self) {
        let open = self.asked.iter().filter(|asked| asked.end.is_none());
        let open: Vec<_> = open.collect();
        assert!(open.len() <= self.kept, "no answer: {open:?}");
        for (number, asked) in self.asked.iter().enumerate() {
            let reached = self.received.contains_key(&(number as u16));
            let alone = self.attempts(number).count() == 1;
            if alone && asked.what == What::Write && matches!(asked.end, Some(End::NotSent(_))) {
                assert!(!reached, "told as not sent, and was: {asked:?}");
            }
        }
    }

    /// Of how many requests with an answer of the PLC, how many shared it, how many have no answer.
    pub(super) fn summary(&self) -> (usize, usize, usize) {
        let ends = |wanted: fn(&End) -> bool| {
            let ends = self.asked.iter().filter_map(|asked| asked.end.as_ref());
            ends.filter(|end| wanted(end)).count()
        };
        let shared = self.told.values().map(|told| told.len() - 1).sum();
        let done = ends(|end| matches!(end, End::Done(_)));
        (done, shared, ends(|end| *end == End::Unknown))
    }
}
