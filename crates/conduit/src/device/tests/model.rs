//! Long random sequences of all that can happen, against the reference.

use std::collections::HashSet;
use std::time::Duration;

use fieldlock_modbus::mbap;
use proptest::prelude::*;

use super::bench::{Ask, Bench, Sent};
use super::reference::{End, Reference, Request};
use crate::device::{ConnId, DeviceSettings, Framing, Key, Outcome};

const QUEUE: usize = 10;
const QUEUE_PER_CLIENT: usize = 4;
/// Longer than any request has: none is given up for another.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
enum Operation {
    Submit {
        client: u64,
        unit: u8,
        what: What,
        within_millis: u64,
    },
    ChangePolicy,
    Release(prop::sample::Index),
    Refuse(prop::sample::Index),
    DropClient(u64),
    Connect,
    RefuseConnect,
    /// Right answers to everything in flight on one connection, cut into pieces.
    Answer {
        conn: prop::sample::Index,
        how_many: usize,
        newest_first: bool,
        piece: usize,
    },
    /// An answer that is wrong in one of several ways.
    Wrong {
        which: prop::sample::Index,
        way: u8,
    },
    /// The right answer to something that was sent at any time before.
    Late(prop::sample::Index),
    Close(prop::sample::Index),
    /// The device closes what it was asked to close.
    Seal,
    Pass(u64),
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// A read that nobody else asks.
    Read,
    /// One that others may ask too.
    Common {
        address: u16,
        grounds: u64,
    },
    Write,
}

/// Above all keys.
const COMMON: u16 = 10_000;

fn what() -> impl Strategy<Value = What> {
    let common = (0..2_u16, 0..8_u64).prop_map(|(place, grounds)| What::Common {
        address: COMMON + place,
        grounds: grounds / 7,
    });
    prop_oneof![2 => Just(What::Read), 4 => common, 4 => Just(What::Write)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        12 => (0..4_u64, 1..3_u8, what(), 1..400_u64).prop_map(
            |(client, unit, what, within_millis)| Operation::Submit {
                client, unit, what, within_millis
            }
        ),
        1 => Just(Operation::ChangePolicy),
        6 => index().prop_map(Operation::Release),
        1 => index().prop_map(Operation::Refuse),
        1 => (0..4_u64).prop_map(Operation::DropClient),
        6 => Just(Operation::Connect),
        1 => Just(Operation::RefuseConnect),
        8 => (index(), 1..4_usize, any::<bool>(), 1..30_usize).prop_map(
            |(conn, how_many, newest_first, piece)| Operation::Answer {
                conn, how_many, newest_first, piece
            }
        ),
        1 => (index(), 0..5_u8).prop_map(|(which, way)| Operation::Wrong { which, way }),
        2 => index().prop_map(Operation::Late),
        1 => index().prop_map(Operation::Close),
        2 => Just(Operation::Seal),
        6 => (1..200_u64).prop_map(Operation::Pass),
    ]
}

fn tcp(max_connections: u16, in_flight: u16) -> DeviceSettings {
    DeviceSettings {
        max_connections,
        in_flight,
        queue: QUEUE,
        queue_per_client: QUEUE_PER_CLIENT,
        // What silence costs has tests of its own.
        response_timeout: RESPONSE_TIMEOUT,
        max_hold_off: Duration::ZERO,
        ..DeviceSettings::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_pool_does_what_the_reference_says(
        max_connections in 1..4_u16,
        in_flight in 1..4_u16,
        operations in prop::collection::vec(operation(), 1..150),
    ) {
        let mut run = Run::new(tcp(max_connections, in_flight));
        operations.iter().for_each(|operation| run.perform(operation));
        run.finish();
    }

    /// Pauses and serial lines: when things are sent is up to the core, what holds is not.
    #[test]
    fn what_holds_holds_with_pauses_and_on_serial_lines(
        serial in any::<bool>(),
        operations in prop::collection::vec(operation(), 1..150),
    ) {
        let mut settings = tcp(2, 3);
        settings.idle_close = Some(Duration::from_millis(70));
        settings.pause_after_connect = Duration::from_millis(15);
        settings.pause_between_requests = Duration::from_millis(5);
        if serial {
            settings.framing = Framing::Rtu {
                baud: 9600,
                frame_gap: Duration::from_millis(20),
                turnaround: Duration::from_millis(50),
            };
        }
        let mut run = Run::new(settings);
        run.follow = true;
        operations.iter().for_each(|operation| run.perform(operation));
        run.finish();
    }

    #[test]
    fn no_bytes_of_a_device_do_harm(
        serial in any::<bool>(),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..20),
    ) {
        let mut settings = tcp(1, 2);
        if serial {
            settings.framing = Framing::Rtu {
                baud: 9600,
                frame_gap: Duration::from_millis(20),
                turnaround: Duration::from_millis(50),
            };
        }
        let mut bench = Bench::connected(settings);
        for (key, piece) in (0..).zip(&pieces) {
            bench.ask(Ask::read(key, key));
            bench.connect();
            if let Some(&conn) = bench.open.first() {
                bench.bytes(conn, piece);
            }
            bench.pass(1100);
            prop_assert!(bench.outcome(key).is_some());
        }
    }
}

/// A bench and the reference beside it.
struct Run {
    bench: Bench,
    reference: Reference,
    limit: usize,
    /// Everything that was accepted: in the order of submission.
    requests: Vec<Request>,
    /// How many had been sent when it was submitted.
    sent_before: Vec<usize>,
    policy: u64,
    /// The numbers of what was sent and the device answered.
    answered: HashSet<u16>,
    released: HashSet<u64>,
    taken_back: HashSet<u64>,
    /// Only what always holds is checked, not the reference.
    follow: bool,
}

impl Run {
    fn new(settings: DeviceSettings) -> Self {
        let serial = settings.framing != Framing::Tcp;
        let in_flight = if serial {
            1
        } else {
            usize::from(settings.in_flight)
        };
        let bench = Bench::new(settings.clone());
        Self {
            limit: QUEUE + in_flight * usize::from(settings.max_connections),
            reference: Reference::new(in_flight, RESPONSE_TIMEOUT, bench.now),
            bench,
            requests: Vec::new(),
            sent_before: Vec::new(),
            policy: 0,
            answered: HashSet::new(),
            released: HashSet::new(),
            taken_back: HashSet::new(),
            follow: false,
        }
    }

    fn perform(&mut self, operation: &Operation) {
        let answers_before = self.bench.answers.len();
        match operation {
            Operation::Submit {
                client,
                unit,
                what,
                within_millis,
            } => self.submit((*client, *unit), *what, *within_millis),
            Operation::ChangePolicy => {
                self.policy += 1;
                self.bench.device.policy_changed();
            }
            Operation::Release(index) => self.release(index),
            Operation::Refuse(index) => self.refuse(index),
            Operation::DropClient(client) => self.drop_client(*client),
            Operation::Connect => {
                for conn in self.bench.connecting.clone() {
                    self.reference.connected(conn);
                }
                self.bench.connect();
            }
            Operation::RefuseConnect => self.bench.refuse_connect(),
            Operation::Answer {
                conn,
                how_many,
                newest_first,
                piece,
            } => self.answer(conn, *how_many, *newest_first, *piece),
            Operation::Wrong { which, way } => self.wrong(which, *way),
            Operation::Late(index) => self.late(index),
            Operation::Close(index) => {
                if !self.bench.open.is_empty() {
                    let conn = *index.get(&self.bench.open);
                    self.reference.close(conn, None, true);
                    self.reference.sealed(conn);
                    self.bench.close(conn);
                }
            }
            Operation::Seal => {
                for conn in self.bench.sealing.clone() {
                    self.reference.sealed(conn);
                }
                self.bench.seal();
            }
            Operation::Pass(millis) => {
                self.bench.pass(*millis);
                self.reference.pass(self.bench.now);
            }
        }
        self.told_early(answers_before);
        self.reference.send();
        self.check();
    }

    fn submit(&mut self, (client, unit): (u64, u8), what: What, within_millis: u64) {
        let key = self.requests.len() as u64;
        let (ask, share) = match what {
            What::Read => (Ask::read(key, client), None),
            What::Write => (Ask::held(key, client), None),
            What::Common { address, grounds } => (
                Ask::read(key, client).of(address).on(grounds),
                Some((address, grounds, self.policy)),
            ),
        };
        let within = Duration::from_millis(within_millis) + Duration::from_micros(key);
        let ask = Ask { within, ..ask }.unit(unit);
        let sent_before = self.bench.sent.len();
        let waiting = &self.reference.waiting;
        let full = waiting.len() >= QUEUE
            || waiting.len() + self.reference.in_flight() >= self.limit
            || waiting.iter().filter(|r| r.client == client).count() >= QUEUE_PER_CLIENT;
        let result = self.bench.try_ask(ask);
        if !self.follow {
            assert_eq!(result.is_err(), full);
        }
        if result.is_ok() {
            let request = Request {
                key,
                client,
                unit,
                deadline: self.bench.now + ask.within,
                half_time: self.bench.now + ask.within / 2,
                is_write: ask.held,
                held: ask.held,
                asked_again: false,
                share,
            };
            self.sent_before.push(sent_before);
            self.requests.push(request.clone());
            self.reference.waiting.push(request);
            self.reference.line_up();
        }
    }

    /// Any request that was ever held.
    fn held(&self, index: &prop::sample::Index) -> Option<u64> {
        let held: Vec<u64> = self
            .requests
            .iter()
            .filter(|r| r.held && !self.released.contains(&r.key))
            .map(|r| r.key)
            .collect();
        (!held.is_empty()).then(|| *index.get(&held))
    }

    fn release(&mut self, index: &prop::sample::Index) {
        if let Some(key) = self.held(index) {
            self.released.insert(key);
            for request in &mut self.reference.waiting {
                request.held &= request.key != key;
            }
            self.reference.line_up();
            self.bench.release(key);
        }
    }

    fn refuse(&mut self, index: &prop::sample::Index) {
        if let Some(key) = self.held(index) {
            let waits = self.reference.waiting.iter().any(|r| r.key == key);
            let taken_back = self.bench.device.refuse(Key(key));
            if !self.follow {
                assert_eq!(taken_back, waits);
            }
            if taken_back {
                assert!(self.taken_back.insert(key));
                self.reference.unsent(key, End::TakenBack);
            }
            self.bench.drain();
        }
    }

    fn drop_client(&mut self, client: u64) {
        while let Some(key) = self.reference.first_of(client).map(|r| r.key) {
            self.reference.unsent(key, End::NotSent);
        }
        self.bench.drop_client(client);
    }

    /// Who may wait for the answer to what was sent: submitted before it, and without an end.
    fn askers<'a>(&'a self, sent: &'a Sent) -> impl Iterator<Item = &'a Request> {
        let at = usize::from(sent.number) - 1;
        let address = sent.key();
        let asked = self.requests.iter().zip(&self.sent_before);
        let is_it =
            move |request: &Request| address_of(request) == address && request.unit == sent.unit;
        asked
            .filter(move |(request, before)| is_it(request) && **before <= at)
            .map(|(request, _)| request)
    }

    /// In flight, as the device sees it.
    fn outstanding(&self) -> Vec<Sent> {
        let last = self.bench.sent.last().map(|sent| sent.number);
        let waits = |sent: &&Sent| {
            let mut askers = self.askers(sent);
            let is_current = !self.bench.is_serial() || last == Some(sent.number);
            // One that was given up may look like it: others ask the same.
            let in_flight = self.follow || self.reference.is_in_flight(place(sent));
            is_current
                && in_flight
                && askers.any(|request| self.bench.outcome(request.key).is_none())
        };
        let open = self.bench.sent.iter();
        open.filter(|sent| self.bench.open.contains(&sent.conn))
            .filter(|sent| !self.answered.contains(&sent.number))
            .filter(waits)
            .cloned()
            .collect()
    }

    fn answer(
        &mut self,
        conn: &prop::sample::Index,
        how_many: usize,
        newest_first: bool,
        piece: usize,
    ) {
        let mut outstanding = self.outstanding();
        if outstanding.is_empty() {
            return;
        }
        let conn = conn.get(&outstanding).conn;
        outstanding.retain(|sent| sent.conn == conn);
        if newest_first {
            outstanding.reverse();
        }
        outstanding.truncate(how_many);
        let bytes: Vec<u8> = outstanding
            .iter()
            .flat_map(|sent| self.bench.frame(sent.transaction, sent.unit, &sent.right()))
            .collect();
        // All bytes first: what the answers make room for is sent afterwards.
        let now = self.bench.now;
        bytes
            .chunks(piece)
            .for_each(|piece| self.bench.device.handle_bytes(now, conn, piece));
        self.bench.drain();
        for sent in &outstanding {
            self.answered.insert(sent.number);
            self.reference.answered(place(sent));
        }
    }

    fn wrong(&mut self, which: &prop::sample::Index, way: u8) {
        let outstanding = self.outstanding();
        if outstanding.is_empty() {
            return;
        }
        let sent = which.get(&outstanding);
        let right = sent.right();
        let bytes = match way {
            0 => self.bench.frame(sent.transaction, 9, &right),
            1 => self
                .bench
                .frame(sent.transaction, sent.unit, &[right[0] ^ 1, 0]),
            2 => self
                .bench
                .frame(sent.transaction, sent.unit, &[&right[..], &[0]].concat()),
            3 => self
                .bench
                .frame(sent.transaction.wrapping_add(99), sent.unit, &right),
            _ => b"SSH-2.0-OpenSSH".to_vec(),
        };
        let blamed = (way < 3).then(|| place(sent));
        self.reference.close(sent.conn, blamed, blamed.is_some());
        self.reference.closing(sent.conn);
        self.bench.bytes(sent.conn, &bytes);
    }

    fn late(&mut self, index: &prop::sample::Index) {
        if self.follow || self.bench.sent.is_empty() {
            return;
        }
        let sent = index.get(&self.bench.sent).clone();
        let mut bytes = Vec::new();
        mbap::encode(&mut bytes, sent.transaction, sent.unit, &sent.right());
        if self.reference.expects(place(&sent)) {
            self.answered.insert(sent.number);
            self.reference.answered(place(&sent));
        } else {
            self.reference.close(sent.conn, None, false);
            self.reference.closing(sent.conn);
        }
        self.bench.bytes(sent.conn, &bytes);
    }

    /// Without any connection a request may be told before its deadline that none will come.
    fn told_early(&mut self, answers_before: usize) {
        let live = !self.bench.open.is_empty() || !self.bench.connecting.is_empty();
        for (key, outcome, _) in &self.bench.answers[answers_before..] {
            let waits = self.reference.waiting.iter().find(|r| r.key == *key);
            let Some(request) = waits else { continue };
            let early = match outcome {
                Outcome::Unreachable => true,
                Outcome::Unknown(_) => request.asked_again && !live,
                _ => false,
            };
            if early {
                assert!(!live, "{key} was told too early");
                self.reference.unsent(*key, End::NotSent);
            }
        }
    }

    fn check(&self) {
        self.check_what_holds();
        if self.follow {
            return;
        }
        let sent: Vec<(ConnId, u64)> = self.bench.sent.iter().map(|s| (s.conn, s.key())).collect();
        let address = |keys: &Vec<u64>| address_of(&self.requests[keys[0] as usize]);
        let due = self.reference.sent.iter();
        let due: Vec<(ConnId, u64)> = due.map(|(conn, keys)| (*conn, address(keys))).collect();
        assert_eq!(sent, due);
        let followers = &self.reference.followers;
        let shared = self.bench.answers.iter().map(|(key, ..)| key);
        let shared: Vec<u64> = shared
            .filter(|key| followers.contains(key))
            .copied()
            .collect();
        assert_eq!(shared, self.bench.shared);
        let mut ended: Vec<(u64, End)> = self
            .bench
            .answers
            .iter()
            .map(|(key, outcome, _)| (*key, end(*outcome)))
            .chain(self.taken_back.iter().map(|key| (*key, End::TakenBack)))
            .collect();
        let mut expected = self.reference.ended.clone();
        ended.sort_by_key(|(key, _)| *key);
        expected.sort_by_key(|(key, _)| *key);
        assert_eq!(ended, expected);
        let stats = self.bench.device.stats();
        assert_eq!(stats.queued, self.reference.waiting.len());
    }

    fn check_what_holds(&self) {
        let mut ended: HashSet<u64> = self.taken_back.clone();
        for (key, outcome, pdu) in &self.bench.answers {
            assert!(ended.insert(*key), "{key} ended twice");
            let request = &self.requests[*key as usize];
            let mut sent = self.bench.sent.iter();
            let was_sent = sent.any(|sent| self.askers(sent).any(|asker| asker.key == *key));
            assert!(was_sent || !outcome.was_sent(), "{key}: {outcome}");
            assert!(!was_sent || outcome.was_sent() || request.share.is_some());
            assert!(!pdu.is_empty());
        }
        let (mut sent, mut again) = (HashSet::new(), HashSet::new());
        for frame in &self.bench.sent {
            let mut askers = self.askers(frame);
            let in_time = |asked: &Request| frame.at < asked.deadline;
            let released = |asked: &Request| !asked.held || self.released.contains(&asked.key);
            assert!(askers.any(|asked| in_time(asked) && released(asked)));
            let alone = frame.key() < u64::from(COMMON);
            let is_write = frame.pdu[0] == 6;
            let once =
                sent.insert((frame.key(), frame.unit)) || (!is_write && again.insert(frame.key()));
            assert!(!alone || once, "sent too often: {frame:?}");
        }
        for request in &self.requests {
            let over = request.deadline <= self.bench.now;
            assert!(!over || ended.contains(&request.key), "{request:?} is late");
        }
        for lane in (0..4).flat_map(|client| [(client, 1), (client, 2)]) {
            let requests = self.requests.iter();
            let requests = requests.filter(|r| (r.client, r.unit) == lane);
            let frames: Vec<u16> = requests.filter_map(|r| self.frame_of(r)).collect();
            // Twice the same would be an answer that a client shared with itself.
            let in_order = frames.is_sorted_by(|one, next| one < next);
            assert!(in_order, "order of {lane:?}: {frames:?}");
        }
        let in_flight = self.bench.device.stats().in_flight;
        assert!(in_flight <= self.limit - QUEUE);
    }

    /// The number of what was sent for this request; of a read, where its answer says so.
    fn frame_of(&self, request: &Request) -> Option<u16> {
        if request.is_write {
            let mut sent = self.bench.sent.iter();
            return Some(sent.find(|sent| sent.key() == request.key)?.number);
        }
        let mut answers = self.bench.answers.iter();
        let (.., pdu) = answers.find(|(key, ..)| *key == request.key)?;
        let &[3, 2, high, low] = pdu.as_slice() else {
            return None;
        };
        let number = u16::from_be_bytes([high, low]);
        let sent = &self.bench.sent[usize::from(number) - 1];
        assert_eq!(sent.key(), address_of(request), "the answer to another");
        let before = self.sent_before[request.key as usize];
        assert!(before < usize::from(number), "{request:?}: an older answer");
        Some(number)
    }

    /// Whatever state it is in, a while later all is answered and nothing left.
    fn finish(mut self) {
        self.perform(&Operation::Pass(5000));
        let stats = self.bench.device.stats();
        assert_eq!((stats.queued, stats.in_flight), (0, 0));
        assert_eq!(stats.sent, self.bench.sent.len() as u64);
        let ended = self.bench.answers.len() + self.taken_back.len();
        assert_eq!(ended, self.requests.len());
        self.perform(&Operation::Connect);
        let more = Operation::Submit {
            client: 0,
            unit: 1,
            what: What::Read,
            within_millis: 500,
        };
        self.perform(&more);
        assert_eq!(
            self.bench.device.stats().queued + self.outstanding().len(),
            1
        );
    }
}

fn address_of(request: &Request) -> u64 {
    request
        .share
        .map_or(request.key, |(address, ..)| address.into())
}

fn end(outcome: Outcome) -> End {
    match outcome {
        Outcome::Answered => End::Answered,
        Outcome::Unknown(_) => End::Unknown,
        Outcome::Broadcast | Outcome::NotSent | Outcome::HeldOff | Outcome::Unreachable => {
            End::NotSent
        }
    }
}

/// Its place in what the reference has sent.
fn place(sent: &Sent) -> usize {
    usize::from(sent.number) - 1
}
