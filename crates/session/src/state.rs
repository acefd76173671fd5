//! The rules of one session: hello, liveness, end.
//!
//! ```text
//! edge                             headend
//!   Hello  ─────────────────────────►  judge: version, devices bound to this identity
//!   up     ◄─────────────────────  Hello
//!   Ready  ─────────────────────────►  up
//! ```
//! A client whose certificate was refused still sees its connect succeed (TLS 1.3), so
//! nothing may cross before both hellos are acknowledged.

use std::fmt;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::frame::{CONTROL, Checkpoint, Fate, Frame, FrameError, MAX_PIECE};
use crate::hello::{Hello, HelloError};

/// Which end of the tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Edge,
    Headend,
}

/// Time-outs of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// From the first byte to "up".
    pub hello: Duration,
    /// Silence of the other side after which it is dead.
    pub idle: Duration,
    /// Own silence after which a ping goes out.
    pub keep_alive: Duration,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(5),
            idle: Duration::from_secs(2),
            keep_alive: Duration::from_millis(700),
        }
    }
}

/// How long a probed tunnel has to answer before another may take its place.
const PROBE: Duration = Duration::from_secs(1);

/// Control frames waiting to be sent, at most: a peer that pings and never reads.
const MAX_OUT: usize = 64 * 1024;

/// Longest trust list that crosses a tunnel, in octets of PEM: some 2,000 revocations. Who has
/// more gets it from the CA.
pub const MAX_TRUST: usize = 128 * 1024;

/// Longest policy bundle that crosses a tunnel, in octets.
pub const MAX_BUNDLE: usize = 1 << 20;

/// Why a side ends a session; travels in a goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Close {
    Shutdown = 1,
    DuplicateIdentity = 2,
    DeviceNotBound = 3,
    Version = 4,
    Replaced = 5,
    NotTrusted = 6,
    Protocol = 7,
    Reconfigured = 8,
}

impl Close {
    pub fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Shutdown,
            2 => Self::DuplicateIdentity,
            3 => Self::DeviceNotBound,
            4 => Self::Version,
            5 => Self::Replaced,
            6 => Self::NotTrusted,
            7 => Self::Protocol,
            8 => Self::Reconfigured,
            _ => return None,
        })
    }

    /// Whether dialling again at once is pointless until somebody changes something.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::DuplicateIdentity | Self::DeviceNotBound | Self::Version | Self::NotTrusted
        )
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::DuplicateIdentity => "duplicate-identity",
            Self::DeviceNotBound => "device-not-bound",
            Self::Version => "version",
            Self::Replaced => "replaced",
            Self::NotTrusted => "not-trusted",
            Self::Protocol => "protocol",
            Self::Reconfigured => "reconfigured",
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the driver of a session has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// At the headend: judge this hello, then [`Session::accept`] or [`Session::close`].
    Hello(Hello),
    /// Both hellos are acknowledged; at the edge with the headend's.
    Up(Option<Hello>),
    /// The other side's policy changed.
    Policy([u8; 32]),
    /// At the edge: the headend's trust list (PEM), to be merged. Before `Up` too, so that a
    /// revocation is known before anything crosses.
    Trust(Vec<u8>),
    /// At the headend: the trust list that the edge has in force.
    TrustHave([u8; 32]),
    /// At the edge: a policy bundle, to be judged.
    Bundle(Vec<u8>),
    /// At the headend: what the edge did with a bundle; the version that it has in force, and why
    /// it did not take it.
    BundleHave {
        version: u64,
        fate: Fate,
        text: String,
    },
    /// A place in the other side's audit log, to be kept here.
    Checkpoint(Checkpoint),
    /// The other side takes no new requests on this tunnel.
    Drain,
    /// The probe was answered, or not.
    Probed { alive: bool },
    /// The other side said goodbye.
    Goodbye { code: u16, text: String },
    /// No hello in time.
    HelloTimeout,
    /// Nothing was heard for too long.
    Dead,
}

/// What the other side did wrong. Each ends the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("{frame} frame while {state}")]
    Unexpected {
        frame: &'static str,
        state: &'static str,
    },
    #[error("frame on channel {channel}, not announced in the hello")]
    Channel { channel: u16 },
    #[error("frame on channel {channel} before the tunnel is up")]
    Early { channel: u16 },
    #[error("{frame} frame on channel {channel}, which belongs to a {channel_of}")]
    Misplaced {
        frame: &'static str,
        channel: u16,
        channel_of: &'static str,
    },
    #[error("the headend's hello names other stations than this edge offers")]
    Stations,
    #[error(
        "more than {MAX_OUT} octets of answers to pings are waiting: the other side does not read"
    )]
    Flood,
    #[error("a trust list of more than {MAX_TRUST} octets")]
    TrustLength,
    #[error("a policy bundle of more than {MAX_BUNDLE} octets")]
    BundleLength,
    #[error("{0}")]
    Credit(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitHello,
    Judging,
    AwaitReady,
    Up,
    Closed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::AwaitHello => "waiting for a hello",
            Self::Judging => "judging a hello",
            Self::AwaitReady => "waiting for the edge to be ready",
            Self::Up => "up",
            Self::Closed => "closed",
        }
    }
}

/// The control channel of one tunnel.
///
/// Input: [`Session::handle`] for each control frame, [`Session::received`] and
/// [`Session::sent`] for any traffic, [`Session::handle_timeout`]. Output: bytes for the
/// control channel from [`Session::poll_transmit`], the next deadline from
/// [`Session::poll_timeout`]. `now` never decreases.
#[derive(Debug)]
pub struct Session {
    side: Side,
    state: State,
    liveness: Liveness,
    /// Own heartbeat; QUIC brings its own.
    heartbeat: bool,
    started: Instant,
    last_received: Instant,
    last_sent: Instant,
    ping: Option<(u64, Instant)>,
    pings: u64,
    probe: Option<Instant>,
    round_trip: Option<Duration>,
    /// At the edge: what its hello offers.
    stations: Vec<String>,
    /// Pieces of a trust list so far, and of a policy bundle.
    trust: Vec<u8>,
    bundle: Vec<u8>,
    out: Vec<u8>,
}

impl Session {
    /// The edge's end: its hello is the first thing to be sent.
    pub fn edge(hello: &Hello, liveness: Liveness, heartbeat: bool, now: Instant) -> Self {
        let mut session = Self::new(Side::Edge, liveness, heartbeat, now);
        session.send(Frame::Hello(&hello.encode()));
        session.stations = hello.stations.clone();
        session
    }

    /// The headend's end: it waits for a hello.
    pub fn headend(liveness: Liveness, heartbeat: bool, now: Instant) -> Self {
        Self::new(Side::Headend, liveness, heartbeat, now)
    }

    fn new(side: Side, liveness: Liveness, heartbeat: bool, now: Instant) -> Self {
        Self {
            side,
            state: State::AwaitHello,
            liveness,
            heartbeat,
            started: now,
            last_received: now,
            last_sent: now,
            ping: None,
            pings: 0,
            probe: None,
            round_trip: None,
            stations: Vec::new(),
            trust: Vec::new(),
            bundle: Vec::new(),
            out: Vec::new(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Last measured round trip of a ping.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Handles a frame of the control channel.
    pub fn handle(&mut self, now: Instant, frame: Frame<'_>) -> Result<Option<Event>, Violation> {
        match (frame, self.side, self.state) {
            (Frame::Goodbye { code, text }, ..) => {
                self.state = State::Closed;
                let text = printable(text);
                Ok(Some(Event::Goodbye { code, text }))
            }
            (Frame::Hello(body), Side::Edge, State::AwaitHello) => {
                let hello = Hello::decode(body)?;
                // All or none: the places in the list are the channels.
                if !hello.stations.is_empty() && hello.stations != self.stations {
                    return Err(Violation::Stations);
                }
                self.round_trip = Some(now - self.started);
                self.send(Frame::Ready);
                self.state = State::Up;
                Ok(Some(Event::Up(Some(hello))))
            }
            (Frame::Hello(body), Side::Headend, State::AwaitHello) => {
                let hello = Hello::decode(body)?;
                self.state = State::Judging;
                Ok(Some(Event::Hello(hello)))
            }
            (Frame::Ready, Side::Headend, State::AwaitReady) => {
                self.round_trip = Some(now - self.started);
                self.state = State::Up;
                Ok(Some(Event::Up(None)))
            }
            (Frame::Ping(token), _, State::Up | State::AwaitReady) => {
                self.send(Frame::Pong(token));
                if self.out.len() > MAX_OUT {
                    return Err(Violation::Flood);
                }
                Ok(None)
            }
            (Frame::Pong(token), ..) => Ok(self.pong(now, token)),
            (Frame::Policy(hash), _, State::Up) => Ok(Some(Event::Policy(hash))),
            (Frame::Trust { last, piece }, Side::Edge, State::AwaitHello | State::Up) => {
                if self.trust.len() + piece.len() > MAX_TRUST {
                    return Err(Violation::TrustLength);
                }
                self.trust.extend_from_slice(piece);
                Ok(last.then(|| Event::Trust(std::mem::take(&mut self.trust))))
            }
            (Frame::TrustHave(hash), Side::Headend, State::AwaitReady | State::Up) => {
                Ok(Some(Event::TrustHave(hash)))
            }
            (Frame::Bundle { last, piece }, Side::Edge, State::Up) => {
                if self.bundle.len() + piece.len() > MAX_BUNDLE {
                    return Err(Violation::BundleLength);
                }
                self.bundle.extend_from_slice(piece);
                Ok(last.then(|| Event::Bundle(std::mem::take(&mut self.bundle))))
            }
            (
                Frame::BundleHave {
                    version,
                    fate,
                    text,
                },
                Side::Headend,
                State::Up,
            ) => Ok(Some(Event::BundleHave {
                version,
                fate,
                text: printable(text),
            })),
            (Frame::Checkpoint(checkpoint), _, State::Up) => {
                Ok(Some(Event::Checkpoint(checkpoint)))
            }
            (Frame::Drain, _, State::Up) => Ok(Some(Event::Drain)),
            (_, _, State::Closed) => Ok(None),
            (frame, _, state) => Err(Violation::Unexpected {
                frame: frame_name(&frame),
                state: state.name(),
            }),
        }
    }

    fn pong(&mut self, now: Instant, token: u64) -> Option<Event> {
        let (sent, at) = self.ping?;
        if sent != token {
            return None;
        }
        self.ping = None;
        self.round_trip = Some(now - at);
        self.probe.take().map(|_| Event::Probed { alive: true })
    }

    /// At the headend: the hello was found good; this is the answer to it.
    pub fn accept(&mut self, now: Instant, hello: &Hello) {
        if self.state == State::Judging {
            self.send(Frame::Hello(&hello.encode()));
            self.started = now;
            self.state = State::AwaitReady;
        }
    }

    /// Ends the session with a word to the other side.
    pub fn close(&mut self, reason: Close, text: &str) {
        if self.state != State::Closed {
            self.send(Frame::Goodbye {
                code: reason as u16,
                text: text.as_bytes(),
            });
            self.state = State::Closed;
        }
    }

    /// Tells the other side which policy is in force.
    pub fn policy_changed(&mut self, hash: [u8; 32]) {
        if self.state == State::Up {
            self.send(Frame::Policy(hash));
        }
    }

    /// Tells the other side of a place in this side's audit log.
    pub fn tell_checkpoint(&mut self, checkpoint: Checkpoint) {
        if self.state == State::Up {
            self.send(Frame::Checkpoint(checkpoint));
        }
    }

    /// At the headend: offers a trust list, before the hello is accepted or later. A longer one
    /// than [`MAX_TRUST`] is not sent.
    pub fn offer_trust(&mut self, pem: &[u8]) {
        let open = matches!(self.state, State::Judging | State::AwaitReady | State::Up);
        if !open || pem.len() > MAX_TRUST {
            return;
        }
        let mut pieces = pem.chunks(MAX_PIECE).peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            self.send(Frame::Trust { last, piece });
        }
    }

    /// At the edge: tells which trust list is in force.
    pub fn have_trust(&mut self, hash: [u8; 32]) {
        if matches!(self.state, State::AwaitHello | State::Up) {
            self.send(Frame::TrustHave(hash));
        }
    }

    /// At the headend: sends the next piece, of at most [`MAX_PIECE`] octets, of a policy bundle.
    /// The caller lets other traffic pass between them, and sends one bundle at a time.
    pub fn offer_bundle(&mut self, last: bool, piece: &[u8]) {
        if self.state == State::Up {
            self.send(Frame::Bundle { last, piece });
        }
    }

    /// At the edge: tells which bundle is in force (0 for none), what became of the one that was
    /// offered, and why.
    pub fn have_bundle(&mut self, version: u64, fate: Fate, text: &str) {
        if self.state == State::Up {
            self.send(Frame::BundleHave {
                version,
                fate,
                text: text.as_bytes(),
            });
        }
    }

    /// Asks the other side to send no new requests.
    pub fn drain(&mut self) {
        if self.state == State::Up {
            self.send(Frame::Drain);
        }
    }

    /// Finds out within a second whether the other side still lives: [`Event::Probed`].
    pub fn probe(&mut self, now: Instant) {
        if self.probe.is_none() {
            self.probe = Some(now + PROBE);
            self.send_ping(now);
        }
    }

    /// Measures the round trip, unless a ping is on its way already.
    pub fn measure(&mut self, now: Instant) {
        if self.state == State::Up && self.ping.is_none() {
            self.send_ping(now);
        }
    }

    /// Something arrived, on whatever channel.
    pub fn received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// Something was sent, on whatever channel.
    pub fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        if self.state == State::Closed {
            return None;
        }
        if self.probe.is_some_and(|deadline| now >= deadline) {
            self.probe = None;
            return Some(Event::Probed { alive: false });
        }
        if self.state != State::Up {
            if now >= self.started + self.liveness.hello {
                self.state = State::Closed;
                return Some(Event::HelloTimeout);
            }
            return None;
        }
        if self.heartbeat {
            if now >= self.last_received + self.liveness.idle {
                self.state = State::Closed;
                return Some(Event::Dead);
            }
            if now >= self.last_sent + self.liveness.keep_alive {
                self.send_ping(now);
                self.last_sent = now;
            }
        }
        None
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = match self.state {
            State::Closed => return None,
            State::Up if self.heartbeat => {
                let idle = self.last_received + self.liveness.idle;
                Some(idle.min(self.last_sent + self.liveness.keep_alive))
            }
            State::Up => None,
            _ => Some(self.started + self.liveness.hello),
        };
        [next, self.probe].into_iter().flatten().min()
    }

    /// Moves what is to be sent on the control channel to `out`; false if there is nothing.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let any = !self.out.is_empty();
        out.append(&mut self.out);
        any
    }

    fn send_ping(&mut self, now: Instant) {
        self.pings += 1;
        self.ping = Some((self.pings, now));
        self.send(Frame::Ping(self.pings));
    }

    fn send(&mut self, frame: Frame<'_>) {
        frame.encode(CONTROL, &mut self.out);
    }
}

/// Text of the other side that goes into logs.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .filter(|c| !c.is_control())
        .take(256)
        .collect()
}

/// What a frame is called in a [`Violation`].
pub fn frame_name(frame: &Frame<'_>) -> &'static str {
    match frame {
        Frame::Hello(_) => "hello",
        Frame::Ready => "ready",
        Frame::Ping(_) => "ping",
        Frame::Pong(_) => "pong",
        Frame::Goodbye { .. } => "goodbye",
        Frame::Policy(_) => "policy",
        Frame::Checkpoint(_) => "checkpoint",
        Frame::Trust { .. } => "trust",
        Frame::TrustHave(_) => "trust-have",
        Frame::Bundle { .. } => "bundle",
        Frame::BundleHave { .. } => "bundle-have",
        Frame::Drain => "drain",
        Frame::ClientOpen(_) => "client-open",
        Frame::ClientClose { .. } => "client-close",
        Frame::Request { .. } => "request",
        Frame::Answer { .. } => "answer",
        Frame::Station(_) => "station",
    }
}

#[cfg(test)]
mod tests;
