//! Tunnels: two sessions, and between them channels that keep their order, each for itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fieldlock_policy::View;
use fieldlock_session::{Decoder, Event, Session, Violation};

use super::head::Pending;
use super::world::{Happening, World};
use crate::forward::Forwarding;

/// The control channel and that of the device.
pub(super) const CHANNELS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Edge,
    Head,
}

impl End {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Edge => Self::Head,
            Self::Head => Self::Edge,
        }
    }
}

/// What is in order among itself: when the last of it arrives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pipe {
    last: Instant,
}

impl Pipe {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// When what is sent now arrives, if it were alone at `at`.
    pub(super) fn arrival(&mut self, at: Instant) -> Instant {
        self.last = self.last.max(at);
        self.last
    }
}

#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) head: Option<HeadEnd>,
    pub(super) edge: Option<EdgeEnd>,
    /// Towards the edge, towards the headend.
    pub(super) pipes: [[Pipe; CHANNELS]; 2],
    /// Nothing that is sent from now on arrives.
    pub(super) cut: bool,
}

impl Tunnel {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            head: None,
            edge: None,
            pipes: [[Pipe::new(now); CHANNELS]; 2],
            cut: false,
        }
    }

    pub(super) fn session(&mut self, end: End) -> Option<&mut Session> {
        match end {
            End::Edge => self.edge.as_mut().map(|edge| &mut edge.session),
            End::Head => self.head.as_mut().map(|head| &mut head.session),
        }
    }

    pub(super) fn decoder(&mut self, end: End, channel: usize) -> Option<&mut Decoder> {
        match end {
            End::Edge => self.edge.as_mut().map(|edge| &mut edge.decoders[channel]),
            End::Head => self.head.as_mut().map(|head| &mut head.decoders[channel]),
        }
    }
}

#[derive(Debug)]
pub(super) struct HeadEnd {
    pub(super) session: Session,
    pub(super) decoders: [Decoder; CHANNELS],
    pub(super) channel: Forwarding<Pending>,
    /// Another took its place: it closes when nothing is under way.
    pub(super) draining: bool,
}

/// A client, as the edge knows it over one tunnel.
#[derive(Debug, Clone)]
pub(super) struct Stated {
    pub(super) client: usize,
    pub(super) view: Arc<View>,
    /// It goes on over a newer tunnel.
    pub(super) moved: bool,
}

#[derive(Debug)]
pub(super) struct EdgeEnd {
    pub(super) session: Session,
    pub(super) decoders: [Decoder; CHANNELS],
    pub(super) clients: BTreeMap<u32, Stated>,
    /// By the headend's count.
    pub(super) order: u64,
    /// Tells headend processes apart.
    pub(super) process: u8,
}

impl World {
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

    pub(super) fn session_event(&mut self, tunnel: usize, end: End, event: Option<Event>) {
        let Some(event) = event else { return };
        self.trace(&(end, tunnel, &event));
        match end {
            End::Edge => self.edge_event(tunnel, &event),
            End::Head => self.head_event(tunnel, event),
        }
    }

    pub(super) fn arrives(&mut self, tunnel: usize, to: End, channel: usize, bytes: &[u8]) {
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

    pub(super) fn new_tunnel(&mut self) -> usize {
        self.tunnels.push(Tunnel::new(self.now));
        self.tunnels.len() - 1
    }
}
