//! A headend: what its shell does around [`Session`] and [`Place`].

use super::gate::Gate;
use super::net::{End, heartbeat};
use super::world::{Happening, World};
use crate::{Close, Event, Hello, Liveness, Place, Session, Side, Step, VERSION};

pub(super) const HEADS: usize = 2;

/// What becomes of those who dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Takes no more handshakes.
    Busy,
    /// Does not trust the edge.
    Refuses,
    /// Closes each tunnel as soon as it is up.
    Closes,
}

#[derive(Debug)]
pub(super) struct Head {
    /// Process starts: an earlier one's connections are gone.
    pub(super) start: u8,
    pub(super) alive: bool,
    pub(super) mood: Mood,
    pub(super) gate: Gate,
    /// Crowds that have come, of all its processes.
    pub(super) crowds: u32,
    place: Place,
    /// The tunnel that serves.
    pub(super) live: Option<usize>,
    hellos: u64,
    /// Its tunnel has been closed on purpose so often.
    pub(super) closed: u32,
}

impl Head {
    pub(super) fn new(start: u8) -> Self {
        Self {
            start,
            alive: true,
            mood: Mood::Well,
            gate: Gate::default(),
            crowds: 0,
            place: Place::default(),
            live: None,
            hellos: 0,
            closed: 0,
        }
    }
}

pub(super) fn hello(instance: [u8; 16]) -> Hello {
    Hello {
        version: VERSION,
        agent_version: String::new(),
        instance,
        policy: [0; 32],
        trust: None,
        bundle: None,
        tunnel: 0,
        devices: Vec::new(),
        stations: Vec::new(),
        cyclic: None,
    }
}

impl World {
    /// A handshake is through: the hello follows.
    pub(super) fn head_opens(&mut self, number: usize, start: u8) {
        let conn = &mut self.conns[number];
        let head = &self.heads[conn.head];
        if head.alive && head.start == start {
            if !self.heads[conn.head].gate.welcomes("edge", self.now) {
                return self.hang_up(number, Side::Headend, false);
            }
            let session =
                Session::headend(Liveness::default(), heartbeat(conn.transport), self.now);
            conn.headend = Some(End::new(session, self.now));
            self.open.insert(number);
        }
    }

    pub(super) fn head_event(&mut self, number: usize, event: Event) {
        let at = self.conns[number].head;
        let head = &mut self.heads[at];
        match event {
            Event::Hello(hello) => {
                head.hellos += 1;
                self.conns[number].hello = Some(head.hellos);
                head.place.handle_hello(number as u32, hello.instance);
                self.head_follows(at);
            }
            Event::Up(_) => {
                self.check_up(number);
                let head = &mut self.heads[at];
                head.live = Some(number);
                head.place.handle_up(number as u32);
                if let Some(end) = &mut self.conns[number].headend {
                    end.was_up = true;
                }
                self.head_follows(at);
                if self.heads[at].mood == Mood::Closes {
                    self.closes(number, Side::Headend, Close::Shutdown);
                }
            }
            Event::Probed { alive } => {
                head.place.handle_probed(number as u32, alive);
                self.head_follows(at);
            }
            Event::Goodbye { .. } | Event::HelloTimeout | Event::Dead => {
                self.head_ends(number);
            }
            _ => {}
        }
    }

    fn head_follows(&mut self, at: usize) {
        while let Some(step) = self.heads[at].place.poll_step() {
            self.trace(&step);
            self.check_step(step);
            match step {
                Step::Accept(number) => {
                    let start = self.heads[at].start;
                    if let Some(end) = &mut self.conns[number as usize].headend {
                        end.session.accept(self.now, &hello([0x80 | start; 16]));
                        end.since = self.now;
                    }
                }
                Step::Probe(number) => {
                    let end = self.conns[number as usize].headend.as_mut();
                    end.expect("asked, and has ended").session.probe(self.now);
                }
                Step::Refuse { refused, .. } => {
                    let why = Close::DuplicateIdentity;
                    self.closes(refused as usize, Side::Headend, why);
                }
                Step::Drain(number) => {
                    let after = self.dice.millis(0..300);
                    let conn = number as usize;
                    self.later(after, Happening::Drained { conn });
                }
                Step::Close(number) => {
                    self.closes(number as usize, Side::Headend, Close::Replaced);
                }
            }
        }
    }

    pub(super) fn head_ends(&mut self, number: usize) {
        if self.conns[number].headend.take().is_none() {
            return;
        }
        let at = self.conns[number].head;
        let head = &mut self.heads[at];
        head.live.take_if(|live| *live == number);
        head.place.handle_ended(number as u32);
        self.hang_up(number, Side::Headend, false);
        self.head_follows(at);
    }

    /// It is stopped as it should be, and is gone and back soon.
    pub(super) fn head_stops(&mut self, at: usize) {
        self.heads[at].closed += 1;
        if let Some(live) = self.heads[at].live {
            self.closes(live, Side::Headend, Close::Shutdown);
        }
        let after = self.dice.millis(10..600);
        self.later(after, Happening::HeadStops { head: at });
    }

    pub(super) fn head_stopped(&mut self, at: usize) {
        if self.heads[at].alive {
            self.head_dies(at);
            let after = self.dice.millis(20..3000);
            self.later(after, Happening::HeadStarts { head: at });
        }
    }

    /// kill -9, or its machine loses power.
    pub(super) fn head_dies(&mut self, at: usize) {
        let head = &mut self.heads[at];
        *head = Head {
            crowds: head.crowds,
            ..Head::new(head.start)
        };
        head.alive = false;
        for number in self.open.clone() {
            let here = self.conns[number].head == at;
            if here && self.conns[number].headend.take().is_some() && self.dice.percent(70) {
                self.hang_up(number, Side::Headend, false);
            }
        }
    }

    pub(super) fn head_starts(&mut self, at: usize) {
        let start = self.heads[at].start + 1;
        self.heads[at] = Head {
            crowds: self.heads[at].crowds,
            ..Head::new(start)
        };
    }
}
