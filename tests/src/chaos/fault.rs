//! What goes wrong.

use std::time::Duration;

use fieldlock_testkit::link::derive;
use rustix::process::Resource;

use super::field::{Field, Setup};
use crate::Transport::{self, Auto, Quic, Tls};

/// Something that goes wrong for a while.
#[derive(Debug, Clone)]
pub struct Fault {
    pub name: String,
    pub transports: &'static [Transport],
    pub lasting: Duration,
    /// Options of the wire while it lasts.
    pub wire: String,
    /// It is so from before the agents start.
    pub at_the_start: bool,
    pub two_headends: bool,
    pub clocks: bool,
    pub disks: bool,
    /// Only when asked for by name.
    pub by_hand: bool,
    /// May be one of two that come together.
    pub mixes: bool,
    pub deeds: Vec<Deed>,
}

/// What is done when it begins, and when it ends.
#[derive(Debug, Clone, Copy)]
pub struct Deed {
    pub begin: fn(&mut Field),
    pub end: fn(&mut Field),
}

const BOTH: &[Transport] = &[Quic, Tls];
const AUTO: &[Transport] = &[Auto];

fn fault(name: &str, seconds: u64) -> Fault {
    Fault {
        name: name.to_owned(),
        transports: BOTH,
        lasting: Duration::from_secs(seconds),
        wire: String::new(),
        at_the_start: false,
        two_headends: false,
        clocks: false,
        disks: false,
        by_hand: false,
        mixes: false,
        deeds: Vec::new(),
    }
}

fn on_wire(name: &str, seconds: u64, wire: &str) -> Fault {
    Fault {
        wire: wire.to_owned(),
        mixes: true,
        ..fault(name, seconds)
    }
}

fn deed(name: &str, seconds: u64, begin: fn(&mut Field), end: fn(&mut Field)) -> Fault {
    Fault {
        mixes: true,
        deeds: vec![Deed { begin, end }],
        ..fault(name, seconds)
    }
}

impl Fault {
    fn on(self, transports: &'static [Transport]) -> Self {
        Self {
            transports,
            mixes: false,
            ..self
        }
    }

    fn at_the_start(self) -> Self {
        Self {
            at_the_start: true,
            mixes: false,
            ..self
        }
    }

    fn by_hand(self) -> Self {
        Self {
            by_hand: true,
            mixes: false,
            ..self
        }
    }

    pub fn setup(&self, transport: Transport, seed: u64) -> Setup {
        Setup {
            headends: 1 + usize::from(self.two_headends),
            wire: match self.at_the_start {
                true => self.wire.clone(),
                false => String::new(),
            },
            seed,
            clocks: self.clocks,
            disks: self.disks,
            ..Setup::new(transport)
        }
    }

    /// Both at once.
    fn and(&self, other: &Self) -> Self {
        Self {
            name: format!("{} + {}", self.name, other.name),
            lasting: self.lasting.max(other.lasting),
            wire: format!("{} {}", self.wire, other.wire),
            two_headends: self.two_headends || other.two_headends,
            clocks: self.clocks || other.clocks,
            disks: self.disks || other.disks,
            deeds: [&self.deeds[..], &other.deeds[..]].concat(),
            ..self.clone()
        }
    }
}

/// All that there are, and `pairs` of two at once, by the seed.
pub fn all(pairs: usize, seed: u64) -> Vec<Fault> {
    let mut all = network();
    all.extend(processes());
    let mixing: Vec<Fault> = all.iter().filter(|it| it.mixes).cloned().collect();
    for number in 0..pairs as u64 {
        let pick = |from: u64, of: usize| (derive(seed, 2 * number + from) % of as u64) as usize;
        let first = pick(0, mixing.len());
        let second = (first + 1 + pick(1, mixing.len() - 1)) % mixing.len();
        let (first, second) = (&mixing[first], &mixing[second]);
        // The wire takes an option once.
        let option = |it: &Fault| it.wire.split(' ').next().unwrap_or_default().to_owned();
        if option(first).is_empty() || option(first) != option(second) {
            all.push(first.and(second));
        }
    }
    all
}

fn network() -> Vec<Fault> {
    vec![
        fault("none", 10),
        on_wire("loss 1 %", 10, "--loss 1%"),
        on_wire("loss 5 %", 10, "--loss 5%"),
        on_wire("loss 10 %", 10, "--loss 10%"),
        on_wire("loss 20 %", 15, "--loss 20%"),
        on_wire("jitter to 100 ms", 10, "--delay 10ms --jitter 100ms"),
        on_wire(
            "reordering 20 % by 30 ms",
            10,
            "--delay 5ms --reorder 20%,30ms",
        ),
        on_wire("duplicates 30 %", 10, "--duplicate 30%"),
        on_wire("damage 5 %", 10, "--corrupt 5%"),
        on_wire("damage 5 %, checksums fit", 10, "--corrupt 5% --repair"),
        on_wire("cut 1 s", 1, "--cut 0s-1h"),
        on_wire("cut 5 s", 5, "--cut 0s-1h"),
        on_wire("cut 60 s", 60, "--cut 0s-1h").on(BOTH),
        on_wire("cut 10 min", 600, "--cut 0s-1h").by_hand(),
        on_wire("UDP blocked from the start", 10, "--block udp")
            .at_the_start()
            .on(AUTO),
        on_wire("UDP blocked under way", 10, "--block udp").on(AUTO),
        on_wire("TCP blocked from the start", 10, "--block tcp")
            .at_the_start()
            .on(AUTO),
        deed("MTU 1280", 10, |it| it.mtu(1280), |it| it.mtu(1500)),
        on_wire("black hole over 1280", 10, "--largest 1280").at_the_start(),
        on_wire("black hole over 1200", 10, "--largest 1200")
            .at_the_start()
            .on(AUTO),
        on_wire("black hole over 1280 under way", 10, "--largest 1280"),
        on_wire("black hole over 1200 under way", 15, "--largest 1200").on(AUTO),
        on_wire("NAT forgets (other port)", 8, "--shift-ports 1000"),
        deed(
            "edge gets another address",
            8,
            |it| it.move_edge(true),
            |it| it.move_edge(false),
        ),
        deed(
            "headend moves, its name follows",
            8,
            |it| it.move_headend(true),
            |it| it.move_headend(false),
        )
        .on(BOTH),
    ]
}

fn processes() -> Vec<Fault> {
    vec![
        deed("headend stopped for 3 s", 3, stop_headend, Field::revive),
        deed(
            "headend killed, started at once",
            0,
            |it| it.headends[0].kill(),
            Field::revive,
        ),
        deed(
            "edge killed, started at once",
            0,
            |it| it.edge.kill(),
            Field::revive,
        ),
        Fault {
            two_headends: true,
            ..deed(
                "one of two headends killed",
                8,
                |it| it.headends[0].kill(),
                Field::revive,
            )
        },
        Fault {
            clocks: true,
            ..deed(
                "clocks jump by 700 days",
                12,
                |it| jump(it, "+700d"),
                |it| jump(it, "+0"),
            )
        },
        Fault {
            clocks: true,
            ..deed(
                "clocks fall back 700 days",
                12,
                |it| jump(it, "-700d"),
                |it| jump(it, "+0"),
            )
        },
        Fault {
            disks: true,
            ..deed("both disks full", 6, fill, |it| {
                it.disks.iter().for_each(|it| it.free())
            })
        },
        deed("headend out of descriptors", 6, headend_descriptors, enough),
        deed("edge out of descriptors", 6, edge_descriptors, enough),
        deed("memory of both bounded", 6, memory, enough),
        deed("PLC off for 3 s", 3, plc_off, plc_on),
    ]
}

fn stop_headend(field: &mut Field) {
    let status = field.headends[0].terminate();
    assert_eq!(status.code(), Some(0), "{status}");
}

fn jump(field: &mut Field, time: &str) {
    field.clocks.iter().for_each(|clock| clock.set(time));
}

fn fill(field: &mut Field) {
    field.disks.iter().for_each(|disk| disk.fill());
}

/// As many as it has, and a crowd that wants more.
fn headend_descriptors(field: &mut Field) {
    let headend = field.headends[0].process().id();
    let open = open_files(headend);
    field.limit(headend, Resource::Nofile, open + 2);
    field.crowd(20);
}

/// Names can't be resolved, nor a connection opened: the tunnel and the device's connections end.
fn edge_descriptors(field: &mut Field) {
    let edge = field.edge.process().id();
    // One below which all are taken: the kernel hands out the lowest that is free.
    field.limit(edge, Resource::Nofile, 3);
    field.plc.switch_off();
    field.plc.switch_on();
    field.change_wire("--cut 0s-1h");
    std::thread::sleep(Duration::from_secs(4));
    field.change_wire("");
}

fn memory(field: &mut Field) {
    for process in [field.headends[0].process().id(), field.edge.process().id()] {
        let size = virtual_size(process);
        field.limit(process, Resource::As, size + (256 << 10));
    }
    field.crowd(200);
}

fn enough(field: &mut Field) {
    field.unlimit();
    field.idle.clear();
    field.revive();
}

fn plc_off(field: &mut Field) {
    // Nobody hears how its connections end.
    field.plug_plc(false);
    field.plc.switch_off();
}

fn plc_on(field: &mut Field) {
    field.plug_plc(true);
    field.plc.switch_on();
}

/// Descriptors that a process has open.
pub fn open_files(process: u32) -> u64 {
    let listed = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    listed.count() as u64
}

fn virtual_size(process: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}
