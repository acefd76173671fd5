//! One live tunnel, over either transport.
//!
//! [`quic`] and [`tcp`] drive it: they move bytes, feed the session core and hand frames
//! to a [`Handler`]. Everything of a tunnel lives on one thread, so the handles are `Rc`.

mod floor;
pub mod lane;
mod outbox;
pub mod quic;
mod station;
pub mod tcp;
pub mod udp;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fieldlock_audit::Head;
use fieldlock_session::frame::MAX_PIECE;
use fieldlock_session::state::frame_name;
use fieldlock_session::{
    Checkpoint, Close, Event, Fate, Frame, Hello, Liveness, Session, Side, Violation,
};
use tokio::sync::Notify;
use tokio::time::sleep;

use lane::Lane;
pub use outbox::Outbox;
pub use station::{NotSent, StationCounters};

use crate::peer::Peer;

/// Acts on what a tunnel carries. Called from the tunnel's own task, never across an await.
pub trait Handler {
    /// The session has something to decide or tell; never an event that ends it.
    fn event(&self, link: &Rc<Link>, event: Event);
    /// A frame of a device channel arrived; only while the session is up.
    fn frame(&self, link: &Rc<Link>, channel: u16, frame: Frame<'_>) -> Result<(), Violation>;
    /// An Ethernet frame of a station arrived, reliably and in order: of the n-th that the edge's
    /// hello offers, from 0. Only while the session is up, and only where both ends know stations.
    fn station(&self, link: &Rc<Link>, station: u16, frame: &[u8]);
    /// A datagram arrived; others may be lost, doubled or out of order. When it may is as for
    /// [`Handler::station`].
    fn datagram(&self, link: &Rc<Link>, datagram: &[u8]);
    /// All that arrived together has been handed over: write what it caused.
    fn flush(&self);
}

/// Between two looks whether a piece of a bundle has left.
const PACE: Duration = Duration::from_millis(10);

/// How a tunnel ended.
#[derive(Debug, Clone)]
pub enum End {
    /// The other side said why.
    Goodbye {
        code: u16,
        text: String,
    },
    /// We said why.
    Closed {
        reason: Close,
        text: String,
    },
    /// Nothing was heard any more.
    Dead,
    HelloTimeout,
    /// The other side broke the protocol.
    Violation(Violation),
    /// The other side refused our certificate, or the handshake as such.
    Rejected(String),
    /// We refused the other side's certificate, or the handshake as such.
    Refused(String),
    /// The transport failed: reset, I/O error.
    Transport(String),
}

impl End {
    /// Whether one side ended it on purpose, with nothing wrong.
    pub fn is_orderly(&self) -> bool {
        let orderly = |close| {
            matches!(
                close,
                Close::Shutdown | Close::Replaced | Close::Reconfigured
            )
        };
        match self {
            Self::Goodbye { code, .. } => Close::from_code(*code).is_some_and(orderly),
            Self::Closed { reason, .. } => orderly(*reason),
            _ => false,
        }
    }

    /// The other side said `reason`.
    pub fn is_goodbye(&self, reason: Close) -> bool {
        matches!(self, Self::Goodbye { code, .. } if Close::from_code(*code) == Some(reason))
    }

    /// Whether the other side, or we, refused the peer as such: dialling again at once
    /// would change nothing.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Goodbye { code, .. } => {
                Close::from_code(*code).is_some_and(|close| close.is_refusal())
            }
            Self::Closed { reason, .. } => reason.is_refusal(),
            Self::Violation(_) | Self::Rejected(_) | Self::Refused(_) => true,
            Self::Dead | Self::HelloTimeout | Self::Transport(_) => false,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goodbye { code, text } => {
                let name = Close::from_code(*code).map_or("unknown reason", Close::name);
                write!(f, "closed by the other side: {name}")?;
                if !text.is_empty() {
                    write!(f, " ({text})")?;
                }
                Ok(())
            }
            Self::Closed { reason, text } if text.is_empty() => write!(f, "closed here: {reason}"),
            Self::Closed { reason, text } => write!(f, "closed here: {reason} ({text})"),
            Self::Dead => f.write_str("nothing heard from the other side"),
            Self::HelloTimeout => f.write_str("no hello in time"),
            Self::Violation(violation) => write!(f, "protocol violation: {violation}"),
            Self::Rejected(error) => write!(f, "refused by the other side: {error}"),
            Self::Refused(error) => write!(f, "refused here: {error}"),
            Self::Transport(error) => f.write_str(error),
        }
    }
}

/// The handle of a live tunnel.
pub struct Link {
    pub peer: Peer,
    pub since: Instant,
    /// Tells apart the tunnels of one process.
    pub number: u32,
    side: Side,
    path: Path,
    session: RefCell<Session>,
    control: Rc<Outbox>,
    /// Of the devices, then of the stations.
    channels: RefCell<Vec<Rc<Outbox>>>,
    devices: Cell<u16>,
    /// Carried by both ends; 0 until that is known.
    stations: Cell<u16>,
    /// Over TLS: the second connection, for datagrams.
    pub lane: Lane,
    pub counters: StationCounters,
    closing: RefCell<Option<(Close, String)>>,
    was_up: Cell<bool>,
    /// Wakes the driver: new channels, a new deadline, or a wish to close.
    attention: Notify,
}

#[derive(Debug)]
pub enum Path {
    Quic(quinn::Connection),
    Tls,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("number", &self.number)
            .field("peer", &self.peer.identity.uri())
            .finish_non_exhaustive()
    }
}

impl Link {
    /// The edge's end: the hello goes out first.
    pub fn edge(peer: Peer, path: Path, number: u32, hello: &Hello) -> Rc<Self> {
        let now = Instant::now();
        let heartbeat = matches!(path, Path::Tls);
        let session = Session::edge(hello, Liveness::default(), heartbeat, now);
        let link = Self::new(peer, path, number, Side::Edge, session, now);
        link.add_channels(hello.devices.len(), hello.stations.len());
        link.flush_control();
        link
    }

    /// The headend's end: it waits for the edge's hello.
    pub fn headend(peer: Peer, path: Path, number: u32) -> Rc<Self> {
        let now = Instant::now();
        let heartbeat = matches!(path, Path::Tls);
        let session = Session::headend(Liveness::default(), heartbeat, now);
        Self::new(peer, path, number, Side::Headend, session, now)
    }

    fn new(
        peer: Peer,
        path: Path,
        number: u32,
        side: Side,
        session: Session,
        now: Instant,
    ) -> Rc<Self> {
        Rc::new(Self {
            peer,
            since: now,
            number,
            side,
            path,
            session: RefCell::new(session),
            control: Rc::default(),
            channels: RefCell::default(),
            devices: Cell::new(0),
            stations: Cell::new(0),
            lane: Lane::new(),
            counters: StationCounters::default(),
            closing: RefCell::default(),
            was_up: Cell::new(false),
            attention: Notify::new(),
        })
    }

    /// The other side's certificate has expired.
    pub fn has_expired(&self, now: i64) -> bool {
        now > self.peer.valid.1
    }

    /// It is in the last sixth of its life.
    pub fn expires_soon(&self, now: i64) -> bool {
        let (from, to) = self.peer.valid;
        to.saturating_sub(now) < to.saturating_sub(from) / 6
    }

    /// Both hellos have been acknowledged, now or before.
    pub fn was_up(&self) -> bool {
        self.was_up.get()
    }

    pub fn is_up(&self) -> bool {
        self.session.borrow().is_up()
    }

    /// Where frames for `channel` (1 and up) go.
    pub fn channel(&self, channel: u16) -> Option<Rc<Outbox>> {
        let index = usize::from(channel).checked_sub(1)?;
        self.channels.borrow().get(index).cloned()
    }

    /// Over QUIC: where the other side's packets come from now.
    pub fn quic_address(&self) -> Option<SocketAddr> {
        match &self.path {
            Path::Quic(connection) => Some(connection.remote_address()),
            Path::Tls => None,
        }
    }

    pub fn round_trip(&self) -> Option<Duration> {
        match &self.path {
            Path::Quic(connection) => Some(connection.rtt()),
            Path::Tls => self.session.borrow().round_trip(),
        }
    }

    /// Answers the edge's hello, `offered`; from here on what it offers has channels.
    pub fn accept(&self, hello: &Hello, offered: &Hello) {
        self.session.borrow_mut().accept(Instant::now(), hello);
        self.add_channels(offered.devices.len(), hello.stations.len());
        self.stations.set(count(hello.stations.len()));
        self.lane.expect(hello.cyclic);
        self.flush_control();
        self.attention.notify_one();
    }

    /// Has the round trip measured, where the transport does not do so itself: without it a tunnel
    /// pings only when it is idle.
    pub fn measure(&self) {
        if matches!(self.path, Path::Tls) {
            self.session.borrow_mut().measure(Instant::now());
            self.flush_control();
        }
    }

    pub fn probe(&self) {
        self.session.borrow_mut().probe(Instant::now());
        self.flush_control();
        self.attention.notify_one();
    }

    pub fn policy_changed(&self, hash: [u8; 32]) {
        self.session.borrow_mut().policy_changed(hash);
        self.flush_control();
    }

    /// Tells the other end of a checkpoint of this agent's audit log.
    pub fn tell_checkpoint(&self, head: &Head) {
        self.session.borrow_mut().tell_checkpoint(wire_form(head));
        self.flush_control();
    }

    /// At the headend: offers its trust list (PEM).
    pub fn offer_trust(&self, pem: &str) {
        self.session.borrow_mut().offer_trust(pem.as_bytes());
        self.flush_control();
    }

    /// At the edge: says which trust list is in force.
    pub fn have_trust(&self, hash: [u8; 32]) {
        self.session.borrow_mut().have_trust(hash);
        self.flush_control();
    }

    /// At the headend: sends a policy bundle, at a pace that lets all else pass between its pieces.
    pub async fn offer_bundle(&self, text: &[u8]) {
        let mut pieces = text.chunks(MAX_PIECE).peekable();
        while let Some(piece) = pieces.next() {
            while self.is_up() && self.control.has_waiting() {
                sleep(PACE).await;
            }
            let last = pieces.peek().is_none();
            self.session.borrow_mut().offer_bundle(last, piece);
            self.flush_control();
        }
    }

    /// At the edge: says which bundle is in force, and what became of the one that was offered.
    pub fn have_bundle(&self, version: u64, fate: Fate, text: &str) {
        self.session.borrow_mut().have_bundle(version, fate, text);
        self.flush_control();
    }

    /// Asks the other side to send no new requests.
    pub fn drain(&self) {
        self.session.borrow_mut().drain();
        self.flush_control();
    }

    /// Ends the tunnel: the driver sends what waits, then the reason, then closes.
    pub fn close(&self, reason: Close, text: impl Into<String>) {
        let mut closing = self.closing.borrow_mut();
        if closing.is_none() {
            let text = text.into();
            self.session.borrow_mut().close(reason, &text);
            *closing = Some((reason, text));
            drop(closing);
            self.flush_control();
            self.attention.notify_one();
        }
    }

    /// [`Link::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.closing.borrow().is_some()
    }

    fn closing(&self) -> Option<End> {
        let closing = self.closing.borrow().clone();
        closing.map(|(reason, text)| End::Closed { reason, text })
    }

    fn add_channels(&self, devices: usize, stations: usize) {
        self.devices.set(count(devices));
        let outbox = || match self.path {
            Path::Quic(_) => Rc::default(),
            // One TLS connection carries all channels: their frames share one buffer.
            Path::Tls => self.control.clone(),
        };
        self.channels
            .borrow_mut()
            .extend(std::iter::repeat_with(outbox).take(devices + stations));
    }

    fn flush_control(&self) {
        let mut session = self.session.borrow_mut();
        self.control.push(|out| {
            session.poll_transmit(out);
        });
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.session.borrow().poll_timeout()
    }

    fn handle_timeout(self: &Rc<Self>, handler: &dyn Handler, now: Instant) -> Result<(), End> {
        let event = self.session.borrow_mut().handle_timeout(now);
        self.act(handler, event)
    }

    /// Hands one frame to the session core or to the handler.
    fn deliver(
        self: &Rc<Self>,
        handler: &dyn Handler,
        now: Instant,
        channel: u16,
        frame: Frame<'_>,
    ) -> Result<(), End> {
        if channel == fieldlock_session::frame::CONTROL {
            // Who pings and does not read would have us keep the answers.
            if matches!(frame, Frame::Ping(_)) && self.control.is_flooded() {
                return Err(End::Violation(Violation::Flood));
            }
            let event = self.session.borrow_mut().handle(now, frame);
            return self.act(handler, event.map_err(End::Violation)?);
        }
        // A headend sends on a device channel only after the edge's ready, an edge answers
        // only what it was asked: neither can be early.
        if !self.is_up() {
            return Err(End::Violation(Violation::Early { channel }));
        }
        let misplaced = |channel_of| {
            let frame = frame_name(&frame);
            End::Violation(Violation::Misplaced {
                frame,
                channel,
                channel_of,
            })
        };
        let Some(station) = channel.checked_sub(self.devices.get() + 1) else {
            if matches!(frame, Frame::Station(_)) {
                return Err(misplaced("device"));
            }
            return handler.frame(self, channel, frame).map_err(End::Violation);
        };
        if station >= self.stations.get() {
            return Err(End::Violation(Violation::Channel { channel }));
        }
        let Frame::Station(ethernet) = frame else {
            return Err(misplaced("station"));
        };
        if !ethernet.is_empty() {
            self.counters.frames_received.add();
            handler.station(self, station, ethernet);
        }
        Ok(())
    }

    fn act(self: &Rc<Self>, handler: &dyn Handler, event: Option<Event>) -> Result<(), End> {
        match event {
            Some(Event::Goodbye { code, text }) => return Err(End::Goodbye { code, text }),
            Some(Event::Dead) => return Err(End::Dead),
            Some(Event::HelloTimeout) => return Err(End::HelloTimeout),
            Some(event) => {
                if let Event::Up(theirs) = &event {
                    self.was_up.set(true);
                    self.attention.notify_one();
                    if let Some(theirs) = theirs {
                        self.stations.set(count(theirs.stations.len()));
                        self.lane.expect(theirs.cyclic);
                    }
                }
                handler.event(self, event);
            }
            None => {}
        }
        self.flush_control();
        Ok(())
    }
}

/// Devices or stations of a hello, which are at most 256.
fn count(of: usize) -> u16 {
    u16::try_from(of).unwrap_or(u16::MAX)
}

/// A checkpoint of this agent's log as the tunnel carries it.
fn wire_form(head: &Head) -> Checkpoint {
    let signature = head.signature.as_deref().unwrap_or_default();
    Checkpoint {
        seq: head.seq,
        hash: head.hash.octets(),
        signature: BASE64_STANDARD.decode(signature).unwrap_or_default(),
    }
}

impl From<fieldlock_session::FrameError> for End {
    fn from(error: fieldlock_session::FrameError) -> Self {
        Self::Violation(error.into())
    }
}

#[cfg(test)]
mod tests;
