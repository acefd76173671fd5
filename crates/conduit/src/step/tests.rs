use std::sync::Arc;
use std::time::Duration;

use fieldlock_modbus::Quirks;
use fieldlock_policy::{Client, Now, Origin, Policy, Side, View};
use proptest::prelude::*;

use super::*;
use crate::admit::{Count, admit};
use crate::meter::{Meter, Who};

const POLICY: &str = r#"
syntax = 1
[[allow]]
name = "steps"
device = "any"
unit = [1, 2]
function = ["read", "write"]
address = ["holding 0-2", "coil 0-9"]
step = { max = 50, within = "10s" }
rate = { count = 2, per = "24h" }

[[allow]]
name = "masks"
device = "any"
unit = [1, 2]
function = 22
address = "holding 0-2"
step = { max = 3 }

[[allow]]
name = "plain"
device = "any"
function = ["read", 16]
address = "any"
"#;

const READ: &[u8] = &[3, 0, 0, 0, 3];

/// How long a request is under way at most.
const SPAN: Duration = Duration::from_millis(100);

fn policy() -> Policy {
    Policy::parse(POLICY, "steps.toml").unwrap()
}

fn view(policy: &Policy) -> Arc<View> {
    let origin = Origin {
        side: Side::Edge,
        via: Some("hd-1"),
        client: Client::default(),
    };
    policy.view(&origin, "press-07", &policy.phase(Now::Unknown))
}

fn write(value: u16) -> [u8; 5] {
    let [high, low] = value.to_be_bytes();
    [6, 0, 1, high, low]
}

struct Run {
    view: Arc<View>,
    registers: Registers,
    meter: Meter,
    now: Instant,
}

impl Run {
    fn new() -> Self {
        Self::of(POLICY)
    }

    fn of(text: &str) -> Self {
        let policy = Policy::parse(text, "steps.toml").unwrap();
        let now = Instant::now();
        Self {
            view: view(&policy),
            registers: Registers::new(policy.stepped("press-07"), now),
            meter: Meter::default(),
            now,
        }
    }

    /// Why the request is refused, if it is.
    fn judge(&mut self, pdu: &[u8]) -> Option<String> {
        let who = Who::Headend("hd-1".into());
        let count = Count {
            meter: &mut self.meter,
            who: &who,
            registers: Some(&self.registers),
            now: self.now,
        };
        let refused = match admit(&self.view, 1, pdu, Quirks::NONE, count) {
            Ok(permit) => {
                permit.put_back(&mut self.meter, &who);
                return None;
            }
            Err(refused) => refused,
        };
        Some(format!("{:#04x} {}", refused.exception.code(), refused.why))
    }

    fn submit(&mut self, pdu: &[u8]) -> Mark {
        let request = Request::parse(pdu).unwrap();
        let deadline = self.now + SPAN;
        let mark = self.registers.submitted(self.now, 1, &request, deadline);
        mark.unwrap()
    }

    fn end(&mut self, mark: Mark, answer: &[u8]) {
        self.registers.ended(self.now, mark, End::Answered(answer));
    }

    /// The three registers are read as this.
    fn read(&mut self, value: u16) {
        let mark = self.submit(READ);
        let [high, low] = value.to_be_bytes();
        self.end(mark, &[3, 6, high, low, high, low, high, low]);
    }
}

const UNREAD: &str = "0x03 the value of holding 1 in the last 10s is not known: read it first";

#[test]
fn a_write_may_move_a_register_by_one_step() {
    let mut run = Run::new();
    assert_eq!(run.judge(&write(900)).as_deref(), Some(UNREAD));
    run.read(900);
    for (value, why) in [
        (900, None),
        (950, None),
        (850, None),
        (951, Some("0x03 step from 900 to 951, allowed 50")),
        (849, Some("0x03 step from 900 to 849, allowed 50")),
        (1200, Some("0x03 step from 900 to 1200, allowed 50")),
    ] {
        assert_eq!(run.judge(&write(value)).as_deref(), why);
    }
    let mark = run.submit(&write(950));
    let under_way = "0x03 a write of holding 1 is under way: wait for its answer";
    assert_eq!(run.judge(&write(950)).as_deref(), Some(under_way));
    run.end(mark, &write(950));
    assert_eq!(run.judge(&write(1000)), None);
    let far = "0x03 step from 950 to 899, allowed 50";
    assert_eq!(run.judge(&write(899)).as_deref(), Some(far));
}

#[test]
fn a_value_grows_too_old() {
    let mut run = Run::new();
    run.read(900);
    run.now += Duration::from_secs(10);
    assert_eq!(run.judge(&write(900)), None);
    run.now += Duration::from_millis(1);
    assert_eq!(run.judge(&write(900)).as_deref(), Some(UNREAD));
}

#[test]
fn every_register_is_judged_and_coils_are_not() {
    let mut run = Run::new();
    assert_eq!(run.judge(&[5, 0, 1, 0xFF, 0]), None);
    assert_eq!(run.judge(&[15, 0, 1, 0, 2, 1, 3]), None);
    run.read(10);
    // Function 23: its write half.
    let both = |value| [23, 0, 0, 0, 1, 0, 0, 0, 2, 4, 0, 10, 0, value];
    assert_eq!(run.judge(&both(60)), None);
    let far = "0x03 step from 10 to 61, allowed 50";
    assert_eq!(run.judge(&both(61)).as_deref(), Some(far));
}

#[test]
fn a_mask_is_judged_by_what_it_makes_of_the_last_value_which_is_unknown_then() {
    let mut run = Run::new();
    run.read(0b0100);
    let mask = |and, or| [22, 0, 1, 0xFF, and, 0, or];
    assert_eq!(run.judge(&mask(0b1111_1110, 1)), None);
    let far = "0x03 step from 4 to 0, allowed 3";
    assert_eq!(run.judge(&mask(0b1111_1011, 0)).as_deref(), Some(far));
    let set = mask(0b1111_1110, 1);
    let mark = run.submit(&set);
    run.end(mark, &set);
    assert_eq!(run.judge(&write(4)).as_deref(), Some(UNREAD));
}

const TYPED: &str = r#"
syntax = 1
[[allow]]
name = "pressure"
device = "any"
function = ["read", 6, 16]
address = "holding 0-3"
type = "float32"
word_order = "little"
partial = "allow"
step = { max = 0.1, within = "10s" }
"#;

#[test]
fn a_step_is_of_the_whole_value() {
    let mut run = Run::of(TYPED);
    let words = |value: f32| {
        let bits = value.to_be_bytes();
        [bits[2], bits[3], bits[0], bits[1]]
    };
    let write = |value| [&[16, 0, 2, 0, 2, 4][..], &words(value)].concat();
    let unread = "0x03 the value of holding 2 in the last 10s is not known: read it first";
    assert_eq!(run.judge(&write(20.0)).as_deref(), Some(unread));
    let read = |run: &mut Run, first, octets: &[u8]| {
        let mark = run.submit(&[3, 0, first, 0, octets.len() as u8 / 2]);
        run.end(mark, &[&[3, octets.len() as u8], octets].concat());
    };
    read(&mut run, 2, &words(20.0));
    for (value, why) in [
        (20.1, None),
        (19.9, None),
        (20.2, Some("0x03 step from 20.0 to 20.2, allowed 0.1")),
        (-20.0, Some("0x03 step from 20.0 to -20.0, allowed 0.1")),
    ] {
        assert_eq!(run.judge(&write(value)).as_deref(), why, "{value}");
    }
    // The low word alone makes 20.03125 of it, the high word alone another number.
    assert_eq!(run.judge(&[6, 0, 2, 0x40, 0]), None);
    let far = "0x03 step from 20.0 to 18.0, allowed 0.1";
    assert_eq!(run.judge(&[6, 0, 3, 0x41, 0x90]).as_deref(), Some(far));
    // Its halves come with two answers: together they may be what the device never had.
    run.now += Duration::from_millis(1);
    read(&mut run, 2, &words(20.0)[..2]);
    assert_eq!(run.judge(&write(20.0)).as_deref(), Some(unread));
    read(&mut run, 0, &[words(1.0), words(20.0)].concat());
    assert_eq!(run.judge(&write(20.0)), None);
}

#[test]
fn what_is_too_far_uses_up_no_rate() {
    let mut run = Run::new();
    run.read(900);
    let who = Who::Headend("hd-1".into());
    let mut admit = |value| {
        let count = Count {
            meter: &mut run.meter,
            who: &who,
            registers: Some(&run.registers),
            now: run.now,
        };
        admit(&run.view, 1, &write(value), Quirks::NONE, count)
            .map_err(|refused| refused.exception.code())
            .err()
    };
    for (value, refused) in [
        (1, Some(3)),
        (900, None),
        (1, Some(3)),
        (900, None),
        (1, Some(3)),
        (900, Some(6)),
    ] {
        assert_eq!(admit(value), refused);
    }
}

#[test]
fn a_view_with_steps_refuses_without_registers() {
    let run = Run::new();
    let count = Count {
        meter: &mut Meter::default(),
        who: &Who::Headend("hd-1".into()),
        registers: None,
        now: run.now,
    };
    let pdu = write(1);
    let refused = admit(&run.view, 1, &pdu, Quirks::NONE, count).unwrap_err();
    assert!(matches!(refused.why, Why::Unread { address: 1, .. }));
}

#[test]
fn only_so_many_registers_are_kept() {
    let text = POLICY.replace("holding 0-2", "holding 0-9999");
    let policy = Policy::parse(&text, "many.toml").unwrap();
    let now = Instant::now();
    let mut registers = Registers::new(policy.stepped("press-07"), now);
    for start in (0..9_000u16).step_by(100) {
        let [high, low] = start.to_be_bytes();
        let pdu = [3, high, low, 0, 100];
        let request = Request::parse(&pdu).unwrap();
        let mark = registers.submitted(now, 1, &request, now).unwrap();
        let mut answer = vec![3, 200];
        answer.resize(202, 0);
        registers.ended(now, mark, End::Answered(&answer));
    }
    assert_eq!(registers.known.len(), MAX_REGISTERS);
    assert!(registers.known.contains_key(&(1, 4_095)));
}

/// What may happen between an edge and its device.
#[derive(Debug, Clone)]
enum Happens {
    Submitted(u8, Vec<u8>),
    /// The device acts on one of those under way.
    Executed(usize),
    Answered(usize),
    /// Before the device acts on it, or with the answer.
    Lost(usize),
    /// The device refuses it, or never gets it.
    Refused(usize),
    Passes(u64),
    /// Another policy with the same rules.
    BegunAnew,
}

fn happens() -> impl Strategy<Value = Happens> {
    let value = || 0u8..4;
    let at = || 0u8..4;
    let pdu = prop_oneof![
        4 => at().prop_map(|first| vec![3, 0, first, 0, 2]),
        4 => (at(), value()).prop_map(|(at, value)| vec![6, 0, at, 0, value]),
        2 => (at(), value()).prop_map(|(at, v)| vec![16, 0, at, 0, 2, 4, 0, v, 0, v + 1]),
        1 => (at(), value()).prop_map(|(at, v)| vec![22, 0, at, 0, 1, 0, v]),
        2 => (at(), at(), value()).prop_map(|(r, w, v)| vec![23, 0, r, 0, 2, 0, w, 0, 1, 2, 0, v]),
        1 => value().prop_map(|value| vec![90, value]),
        1 => Just(vec![5, 0, 1, 0xFF, 0]),
    ];
    prop_oneof![
        6 => (prop_oneof![6 => Just(1u8), 2 => Just(2), 1 => Just(0)], pdu)
            .prop_map(|(unit, pdu)| Happens::Submitted(unit, pdu)),
        6 => any::<usize>().prop_map(Happens::Executed),
        6 => any::<usize>().prop_map(Happens::Answered),
        1 => any::<usize>().prop_map(Happens::Lost),
        1 => any::<usize>().prop_map(Happens::Refused),
        2 => (0u64..150).prop_map(Happens::Passes),
        1 => Just(Happens::BegunAnew),
    ]
}

/// The device as it is, and what is under way to it, in any order.
struct Plant {
    run: Run,
    values: [[u16; 6]; 3],
    under_way: Vec<UnderWay>,
}

struct UnderWay {
    unit: u8,
    pdu: Vec<u8>,
    mark: Option<Mark>,
    deadline: Instant,
    answer: Option<Vec<u8>>,
    lost: bool,
}

impl Plant {
    fn new() -> Self {
        Self {
            run: Run::new(),
            values: [[7; 6]; 3],
            under_way: Vec::new(),
        }
    }

    fn happens(&mut self, what: &Happens) {
        let pick = |at: usize, of: usize| (of > 0).then(|| at % of);
        match what {
            Happens::Submitted(unit, pdu) => {
                let request = Request::parse(pdu).unwrap();
                let (now, deadline) = (self.run.now, self.run.now + SPAN);
                let mark = self.run.registers.submitted(now, *unit, &request, deadline);
                self.under_way.push(UnderWay {
                    unit: *unit,
                    pdu: pdu.clone(),
                    mark,
                    deadline,
                    answer: None,
                    lost: false,
                });
            }
            Happens::Executed(at) => {
                if let Some(at) = pick(*at, self.under_way.len()) {
                    self.execute(at);
                }
            }
            Happens::Answered(at) => {
                if let Some(at) = pick(*at, self.under_way.len())
                    && !self.under_way[at].lost
                    && let Some(answer) = self.under_way[at].answer.clone()
                {
                    self.end(at, End::Answered(&answer));
                    self.under_way.swap_remove(at);
                }
            }
            Happens::Lost(at) => {
                if let Some(at) = pick(*at, self.under_way.len()) {
                    self.end(at, End::Lost);
                }
            }
            Happens::Refused(at) => {
                if let Some(at) = pick(*at, self.under_way.len())
                    && self.under_way[at].answer.is_none()
                    && !self.under_way[at].lost
                {
                    self.end(at, End::Refused);
                    self.under_way.swap_remove(at);
                }
            }
            Happens::Passes(milliseconds) => {
                self.run.now += Duration::from_millis(*milliseconds);
                for at in (0..self.under_way.len()).rev() {
                    if self.under_way[at].deadline <= self.run.now {
                        self.end(at, End::Lost);
                        self.under_way.swap_remove(at);
                    }
                }
            }
            Happens::BegunAnew => {
                self.under_way.iter_mut().for_each(|r| r.mark = None);
                let quiet_at = self.run.now + SPAN;
                self.run.registers = Registers::new(policy().stepped("press-07"), quiet_at);
            }
        }
    }

    /// What is lost may still be acted on until its deadline.
    fn end(&mut self, at: usize, end: End<'_>) {
        let request = &mut self.under_way[at];
        request.lost = true;
        if let Some(mark) = request.mark.take() {
            self.run.registers.ended(self.run.now, mark, end);
        }
    }

    fn execute(&mut self, at: usize) {
        let UnderWay {
            unit, pdu, answer, ..
        } = &mut self.under_way[at];
        if answer.is_some() {
            return;
        }
        let request = Request::parse(pdu).unwrap();
        if pdu[0] == 90 {
            self.values = [[pdu[1].into(); 6]; 3];
        }
        for (number, values) in (0..).zip(&mut self.values) {
            if number != *unit && *unit != 0 {
                continue;
            }
            let write = request.write();
            if let Some(write) = write.filter(|write| write.range.table == Table::HoldingRegister) {
                for address in write.range.start..=write.range.last() {
                    let value = &mut values[usize::from(address)];
                    *value = match write.values {
                        Values::Mask { and, or } => (*value & and) | (or & !and),
                        _ => written(&write, address).unwrap(),
                    };
                }
            }
        }
        let mut told = vec![pdu[0], 0];
        if let Some(range) = request.read() {
            let values = self.values[usize::from(*unit)];
            let read = &values[usize::from(range.start)..=usize::from(range.last())];
            told.extend(read.iter().flat_map(|value| value.to_be_bytes()));
        }
        *answer = Some(told);
    }

    fn known(&self) -> impl Iterator<Item = (u8, u16, u16)> + '_ {
        let known = self.run.registers.known.iter();
        known
            .filter(|(_, register)| register.under_way == 0 && register.known_at.is_some())
            .map(|((unit, address), register)| (*unit, *address, register.value))
    }
}

proptest! {
    #[test]
    fn what_it_knows_is_what_the_device_has(
        story in proptest::collection::vec(happens(), 1..120),
    ) {
        let mut plant = Plant::new();
        for what in &story {
            plant.happens(what);
            for (unit, address, value) in plant.known() {
                let real = plant.values[usize::from(unit)][usize::from(address)];
                prop_assert_eq!(value, real, "unit {}, holding {} after {:?}", unit, address, what);
                prop_assert!(address <= 2 && unit != 0);
            }
        }
        // Once all is over, a read is enough.
        plant.happens(&Happens::Passes(100));
        prop_assert!(plant.under_way.is_empty());
        plant.happens(&Happens::Submitted(1, READ.to_vec()));
        plant.happens(&Happens::Executed(0));
        plant.happens(&Happens::Answered(0));
        prop_assert_eq!(plant.known().filter(|(unit, ..)| *unit == 1).count(), 3);
    }
}
