//! Tunnels: two sessions, and between them channels that keep their order, each for itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fieldlock_policy::View;
use fieldlock_session::{Decoder, Hello, Session};

use super::head::Pending;
use crate::client::UnderWay;

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
    /// Of the edge, once it said it.
    pub(super) hello: Option<Hello>,
    pub(super) under_way: UnderWay<Pending>,
    /// Another took its place: it closes when nothing is under way.
    pub(super) draining: bool,
    /// A tunnel of another process with this identity, which waits for the probe of this one.
    pub(super) contender: Option<usize>,
}

#[derive(Debug)]
pub(super) struct EdgeEnd {
    pub(super) session: Session,
    pub(super) decoders: [Decoder; CHANNELS],
    pub(super) clients: BTreeMap<u32, (usize, Arc<View>)>,
}
