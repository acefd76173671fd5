//! A Modbus client at the headend.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use fieldlock_conduit::client::{By, ClientSide, Origins, Place, Routes, Step, Target, Verdict};
use fieldlock_conduit::meter::Meter;
use fieldlock_modbus::{Request, mbap};
use fieldlock_policy::{Client, Decision, Now, Origin, Policy, Side};

use crate::input::Input;

const DEVICES: [&str; 2] = ["press-07", "meter-02"];
const ADDRESS: [u8; 4] = [192, 0, 2, 1];
/// Where the units of the shared listener lead: unit, device, unit of the device.
const UNITS: [(u8, usize, u8); 3] = [(7, 0, 1), (8, 1, 1), (9, 0, 0)];

/// Small policies, each with what its rules mean in bytes.
struct Sample {
    policy: Arc<Policy>,
    /// May this PDU pass to this unit of the first device? Written without the parser.
    permits: fn(unit: u8, pdu: &[u8]) -> Option<bool>,
}

/// An arbitrary client over one of a few policies and routes: nothing is forwarded that the
/// policy refuses, that its meaning in bytes excludes, or that goes elsewhere than the routes
/// say; and every refusal has its reason.
pub fn client_side(data: &[u8]) {
    let mut input = Input::new(data);
    let sample = &SAMPLES[input.below(SAMPLES.len())];
    let shared = input.bool();
    let limit = 1 + input.below(3);
    let mut run = Run {
        side: ClientSide::new(
            origin(),
            routes(shared),
            Arc::clone(&sample.policy),
            sample.policy.phase(Now::Unknown),
            limit,
        ),
        sample,
        shared,
        limit,
        buffer: Vec::new(),
        meter: Meter::default(),
        now: Instant::now(),
        open: Vec::new(),
    };
    while !input.is_empty() {
        match input.below(8) {
            0..=4 => {
                if run.receive(input.field()).is_err() {
                    return;
                }
            }
            5 => run.answer(input.below(2 * limit)),
            6 => run.set_policy(&SAMPLES[input.below(SAMPLES.len())]),
            _ => run.now += Duration::from_millis(100),
        }
    }
}

fn origin() -> Origins {
    Origins {
        address: Some(ADDRESS.into()),
        ..Origins::default()
    }
}

fn routes(shared: bool) -> Arc<Routes> {
    let names = DEVICES.map(Arc::from).into();
    Arc::new(if shared {
        let target = |(unit, device, to)| (unit, Target { device, unit: to });
        Routes::by_unit(UNITS.map(target), &names)
    } else {
        Routes::all_units(0, &names)
    })
}

struct Run {
    side: ClientSide,
    sample: &'static Sample,
    shared: bool,
    limit: usize,
    buffer: Vec<u8>,
    meter: Meter,
    now: Instant,
    /// Without an answer, by place: unit of a device, transaction id, unit, whether it is answered.
    open: Vec<Open>,
}

struct Open {
    place: Place,
    lane: (Option<(usize, u8)>, u8),
    id: (u16, u8),
    answered: bool,
}

struct Lost;

impl Run {
    fn set_policy(&mut self, sample: &'static Sample) {
        self.sample = sample;
        let phase = sample.policy.phase(Now::Unknown);
        self.side.set_policy(Arc::clone(&sample.policy), phase);
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut used = 0;
        while let Some((step, size)) = self
            .side
            .next(&buffer[used..], &mut self.meter, self.now)
            .map_err(|_| Lost)?
        {
            let adu = &buffer[used..used + size];
            self.check(&step, adu);
            if let Verdict::Forward { place, .. } | Verdict::Refuse { place, .. } = step.verdict {
                self.open.push(Open {
                    place,
                    lane: self.lane(&step),
                    id: (step.transaction, step.unit),
                    answered: false,
                });
            }
            used += size;
        }
        assert!(self.open.len() <= 2 * self.limit);
        assert_eq!(self.open.len(), self.side.in_flight());
        self.buffer = buffer[used..].to_vec();
        let longest = mbap::HEADER_LEN + mbap::MAX_UMAS_PDU;
        assert!(self.side.is_full() || self.buffer.len() < longest);
        Ok(())
    }

    /// Where the order of answers counts: behind who has the id already, or of its unit.
    fn lane(&self, step: &Step<'_>) -> (Option<(usize, u8)>, u8) {
        let same = self
            .open
            .iter()
            .rev()
            .find(|open| open.id.0 == step.transaction);
        same.map_or_else(
            || match self.target(step.unit) {
                Some(target) => (Some(target), 0),
                None => (None, step.unit),
            },
            |open| open.lane,
        )
    }

    /// Answers one of what is open: it leaves once all before it of its lane have left.
    fn answer(&mut self, at: usize) {
        let Some(open) = self.open.get_mut(at).filter(|open| !open.answered) else {
            return;
        };
        open.answered = true;
        let (place, lane) = (open.place, open.lane);
        let mut out = Vec::new();
        self.side.answer(place, &[0x83, 4], By::Device, &mut out);
        let mut waits = false;
        let mut expected = Vec::new();
        self.open.retain(|open| {
            waits |= open.lane == lane && !open.answered;
            let leaves = open.lane == lane && open.answered && !waits;
            if leaves {
                expected.push(open.id);
            }
            !leaves
        });
        let mut rest = &out[..];
        for id in expected {
            let (adu, used) = mbap::decode(rest).unwrap().unwrap();
            assert_eq!((adu.transaction, adu.unit), id);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
        assert_eq!(self.open.len(), self.side.in_flight());
    }

    fn check(&self, step: &Step<'_>, adu: &[u8]) {
        let pdu = &adu[mbap::HEADER_LEN..];
        assert_eq!(step.transaction.to_be_bytes(), adu[..2]);
        assert_eq!(step.unit, adu[6]);
        let target = self.target(step.unit);
        let decision = target.and_then(|(device, unit)| self.decide(device, unit, pdu));
        match &step.verdict {
            Verdict::Repeated => {
                let id = (step.transaction, step.unit);
                assert!(self.open.iter().any(|open| open.id == id));
            }
            Verdict::Forward { device, permit, .. } => {
                assert_eq!(target, Some((*device, permit.unit())));
                assert_eq!(permit.request().pdu(), pdu);
                assert!(self.open.len() < self.limit);
                let rule = permit.rule();
                let decided =
                    matches!(decision, Some(Decision::Allow { rule: r, .. }) if r == rule);
                assert!(decided, "{decision:?}");
                if *device == 0 {
                    assert_ne!((self.sample.permits)(permit.unit(), pdu), Some(false));
                }
            }
            Verdict::Refuse {
                target: stated,
                refused,
                ..
            } => {
                assert_eq!(stated.map(|to| (to.device, to.unit)), target);
                assert_eq!(refused.function, pdu[0]);
                assert!(!refused.why.to_string().is_empty());
                let has_id = |open: &Open| open.id.0 == step.transaction;
                if self.open.iter().any(has_id) {
                    assert_eq!(refused.exception.code(), 0x06);
                    return;
                }
                let expected = match decision {
                    _ if target.is_none() => 0x0A,
                    None => Request::parse(pdu).unwrap_err().exception.code(),
                    Some(Decision::Refuse(refusal)) => refusal.exception.code(),
                    Some(Decision::Allow { .. }) => {
                        assert!(self.open.len() >= self.limit);
                        0x06
                    }
                };
                assert_eq!(refused.exception.code(), expected);
                if let (Some((0, unit)), 1..=3) = (target, expected) {
                    assert_ne!((self.sample.permits)(unit, pdu), Some(true));
                }
            }
        }
    }

    fn target(&self, unit: u8) -> Option<(usize, u8)> {
        if !self.shared {
            return Some((0, unit));
        }
        let mapped = UNITS.iter().find(|(from, _, _)| *from == unit);
        mapped.map(|&(_, device, to)| (device, to))
    }

    /// What the policy says to a request; `None` if it is none.
    fn decide(&self, device: usize, unit: u8, pdu: &[u8]) -> Option<Decision> {
        let request = Request::parse(pdu).ok()?;
        let origin = Origin {
            side: Side::Headend,
            via: None,
            client: Client {
                address: Some(ADDRESS.into()),
                ..Client::default()
            },
        };
        let policy = &self.sample.policy;
        let view = policy.view(&origin, DEVICES[device], &policy.phase(Now::Unknown));
        Some(view.decide(unit, &request))
    }
}

static SAMPLES: LazyLock<[Sample; 5]> = LazyLock::new(|| {
    let sample = |source, permits| Sample {
        policy: Arc::new(Policy::parse(source, "policy.toml").unwrap()),
        permits,
    };
    [
        sample(NARROW, narrow),
        sample(WIDE, wide),
        sample(READ_ONLY, read_only),
        sample("syntax = 1", |_, _| Some(false)),
        sample(HALVES, halves),
    ]
});

const NARROW: &str = r#"
syntax = 1
[[client]]
name = "hmi-1"
address = ["192.0.2.0/24"]
[[client]]
name = "hmi-2"
address = ["198.51.100.1/32"]
[[allow]]
name = "reads"
client = ["hmi-1"]
device = ["press-07"]
unit = [1]
function = [1, 3]
address = ["holding 0-99", "coil 0-15"]
[[allow]]
name = "setpoint"
client = ["hmi-1"]
device = ["press-07"]
unit = [1]
function = [6, 16]
address = ["holding 40-41"]
value = { min = 0, max = 1200 }
[[allow]]
name = "not for this client"
client = ["hmi-2"]
device = "any"
function = "any"
address = "any"
[[deny]]
name = "safety"
device = "any"
function = ["read", "write"]
address = ["holding 50-59"]
"#;

/// The whole of what [`NARROW`] permits.
fn narrow(unit: u8, pdu: &[u8]) -> Option<bool> {
    let permitted = match *pdu {
        [1, a, b, c, d] => {
            let (start, count) = (word(a, b), word(c, d));
            count > 0 && within(start, count, 0, 16)
        }
        [3, a, b, c, d] => {
            let (start, count) = (word(a, b), word(c, d));
            count > 0 && (within(start, count, 0, 50) || within(start, count, 60, 100))
        }
        [6, a, b, c, d] => within(word(a, b), 1, 40, 42) && word(c, d) <= 1200,
        [16, a, b, c, d, bytes, ref values @ ..] => {
            let (start, count) = (word(a, b), word(c, d));
            count > 0
                && within(start, count, 40, 42)
                && u16::from(bytes) == 2 * count
                && values.len() == usize::from(bytes)
                && values
                    .chunks(2)
                    .all(|value| word(value[0], value[1]) <= 1200)
        }
        _ => false,
    };
    Some(unit == 1 && permitted)
}

const WIDE: &str = r#"
syntax = 1
[[allow]]
name = "all"
device = "any"
function = "any"
address = "any"
[[deny]]
name = "safety"
device = "any"
function = ["read", "write"]
address = ["holding 9000-9099"]
"#;

/// What [`WIDE`] denies, and broadcasts, which no rule of it names.
fn wide(unit: u8, pdu: &[u8]) -> Option<bool> {
    let meets = |start: u16, count: u16| {
        start < 9100 && u32::from(start) + u32::from(count) > 9000 && count > 0
    };
    let denied = match *pdu {
        [3 | 16, a, b, c, d, ..] => meets(word(a, b), word(c, d)),
        [6 | 22, a, b, ..] => meets(word(a, b), 1),
        [23, a, b, c, d, e, f, g, h, ..] => {
            meets(word(a, b), word(c, d)) || meets(word(e, f), word(g, h))
        }
        _ => false,
    };
    (unit == 0 || denied).then_some(false)
}

const READ_ONLY: &str = r#"
syntax = 1
read_only = ["press-07"]
[[allow]]
name = "all"
device = "any"
unit = [0, "1-255"]
function = "any"
address = "any"
"#;

/// Nothing that writes, and no code of unknown meaning.
fn read_only(_: u8, pdu: &[u8]) -> Option<bool> {
    match pdu {
        [1..=4 | 7 | 11 | 12 | 17 | 20 | 24, ..] => None,
        [8, 0, 0 | 2 | 11..=18, ..] | [43, 14, ..] => None,
        _ => Some(false),
    }
}

const HALVES: &str = r#"
syntax = 1
[[allow]]
name = "reads"
device = "any"
function = ["read"]
address = ["holding 0-99"]
[[allow]]
name = "writes"
device = "any"
function = ["write"]
address = ["holding 40-41"]
"#;

/// What [`HALVES`] permits of the functions that read or write registers.
fn halves(unit: u8, pdu: &[u8]) -> Option<bool> {
    let permitted = match *pdu {
        [3, a, b, c, d] => {
            (1..=100).contains(&word(c, d)) && within(word(a, b), word(c, d), 0, 100)
        }
        [6, a, b, _, _] | [22, a, b, _, _, _, _] => within(word(a, b), 1, 40, 42),
        [23, a, b, c, d, e, f, g, h, bytes, ref values @ ..] => {
            let (read, written) = (word(c, d), word(g, h));
            (1..=100).contains(&read)
                && within(word(a, b), read, 0, 100)
                && (1..=2).contains(&written)
                && within(word(e, f), written, 40, 42)
                && u16::from(bytes) == 2 * written
                && values.len() == usize::from(bytes)
        }
        [16, a, b, c, d, ..] if !within(word(a, b), word(c, d), 40, 42) => false,
        [16, ..] => return None,
        _ => false,
    };
    Some(unit != 0 && permitted)
}

fn within(start: u16, count: u16, first: u16, end: u16) -> bool {
    start >= first && start.saturating_add(count) <= end
}

fn word(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}
