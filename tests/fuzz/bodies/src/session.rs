//! Both ends of a tunnel's control channel, over a link that a third party may write to.

use std::time::{Duration, Instant};

use fieldlock_session::frame::CONTROL;
use fieldlock_session::{
    Checkpoint, Close, DeviceOffer, Event, Frame, Hello, Liveness, Session, VERSION, Violation,
};

use crate::input::Input;

/// What may wait to be sent: a peer's pings up to the limit of a session, a hello, and what
/// the operations of one input add.
const MAX_WAITING: usize = (64 + 32) * 1024;
const MAX_OPERATIONS: usize = 500;
/// Enough for the answers to be more than a session keeps.
const MOST_PINGS: u16 = 8_192;
/// More than any session has to do at one time.
const MAX_DUE: usize = 8;

/// Operations of both ends, and frames and bytes in their names, in any order: no end is up
/// before it has seen the other's hello (and the headend accepted it), none is up again after
/// its end, none stores without bound, and time never stands still.
pub fn session_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let heartbeat = input.bool();
    let now = Instant::now();
    let mut run = Run {
        now,
        edge: End::new(Session::edge(
            &own_hello(1),
            Liveness::default(),
            heartbeat,
            now,
        )),
        headend: End::new(Session::headend(Liveness::default(), heartbeat, now)),
    };
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        run.perform(&mut input);
        run.edge.check(true);
        run.headend.check(false);
    }
    run.pass(Duration::from_secs(10));
    if heartbeat {
        assert!(!run.edge.session.is_up() && !run.headend.session.is_up());
    }
}

fn own_hello(instance: u8) -> Hello {
    Hello {
        version: VERSION,
        agent_version: "0.1.0".into(),
        instance: [instance; 16],
        policy: [2; 32],
        trust: None,
        bundle: None,
        tunnel: 7,
        devices: vec![DeviceOffer {
            name: "press-07".into(),
            credit: 4,
            answer_within: 1000,
            quirks: 0,
        }],
        stations: vec!["drive-1".into()],
        cyclic: Some([9; 16]),
    }
}

struct Run {
    now: Instant,
    edge: End,
    headend: End,
}

struct End {
    session: Session,
    /// Sent by this end, not delivered yet.
    link: Vec<u8>,
    saw_hello: bool,
    saw_ready: bool,
    accepted: bool,
    ended: bool,
}

impl Run {
    fn perform(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        let at_edge = choice & 0x80 == 0;
        let now = self.now;
        let end = if at_edge {
            &mut self.edge
        } else {
            &mut self.headend
        };
        match choice & 0x0F {
            0 => self.deliver(at_edge, input.u16().into()),
            1 => self.deliver(at_edge, usize::MAX),
            2 => end.receive(now, input.field()),
            3 => {
                let mut bytes = Vec::new();
                frame(input, &mut |frame| frame.encode(CONTROL, &mut bytes));
                end.receive(now, &bytes);
            }
            4 => {
                end.accepted |= end.saw_hello && !at_edge;
                end.session.accept(now, &own_hello(2));
            }
            5 => {
                end.session.close(Close::Shutdown, "shutting down");
                end.ended = true;
            }
            6 => end.session.policy_changed([3; 32]),
            7 => end.session.drain(),
            8 => end.session.probe(now),
            9 => end.session.received(now),
            10 => end.session.sent(now),
            11 => end.link.clear(),
            12 => end.flood(now, input.u16() % MOST_PINGS),
            _ => self.pass(Duration::from_millis(input.u16().into())),
        }
    }

    /// Moves up to `count` octets to one end.
    fn deliver(&mut self, to_edge: bool, count: usize) {
        let (from, to) = if to_edge {
            (&mut self.headend, &mut self.edge)
        } else {
            (&mut self.edge, &mut self.headend)
        };
        from.transmit();
        let count = count.min(from.link.len());
        let bytes: Vec<u8> = from.link.drain(..count).collect();
        to.receive(self.now, &bytes);
    }

    /// Lets time pass from deadline to deadline.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut last = (self.now, 0);
        loop {
            let next = [&self.edge, &self.headend]
                .into_iter()
                .filter_map(|end| end.session.poll_timeout())
                .min()
                .filter(|at| *at <= until);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            last = if last.0 == self.now {
                (self.now, last.1 + 1)
            } else {
                (self.now, 0)
            };
            assert!(last.1 < MAX_DUE, "time stands still");
            for end in [&mut self.edge, &mut self.headend] {
                let event = end.session.handle_timeout(self.now);
                end.ended |= matches!(event, Some(Event::Dead | Event::HelloTimeout));
                end.transmit();
            }
        }
        self.now = until;
    }
}

impl End {
    fn new(session: Session) -> Self {
        Self {
            session,
            link: Vec::new(),
            saw_hello: false,
            saw_ready: false,
            accepted: false,
            ended: false,
        }
    }

    fn transmit(&mut self) {
        let mut out = Vec::new();
        self.session.poll_transmit(&mut out);
        assert!(out.len() < MAX_WAITING, "{} octets waited", out.len());
        self.link.append(&mut out);
    }

    /// As a driver does: everything is handled in turn, a violation ends the session, and
    /// what comes after the end is not looked at.
    fn receive(&mut self, now: Instant, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.ended && !rest.is_empty() {
            match Frame::decode(rest) {
                Ok(Some((CONTROL, frame, size))) => {
                    self.session.received(now);
                    self.handle(now, frame);
                    rest = &rest[size..];
                }
                Ok(Some((_, _, size))) => rest = &rest[size..],
                Ok(None) => break,
                Err(error) => self.violated(&error.into()),
            }
        }
    }

    fn handle(&mut self, now: Instant, frame: Frame<'_>) {
        let ready = frame == Frame::Ready;
        match self.session.handle(now, frame) {
            Ok(Some(Event::Hello(_) | Event::Up(Some(_)))) => self.saw_hello = true,
            Ok(Some(Event::Up(None))) => {
                assert!(self.accepted && ready);
                self.saw_ready = true;
            }
            Ok(Some(Event::Goodbye { text, .. })) => {
                assert!(text.len() <= 4 * 256 && !text.chars().any(char::is_control));
                self.ended = true;
            }
            Ok(_) => {}
            Err(violation) => self.violated(&violation),
        }
    }

    fn violated(&mut self, violation: &Violation) {
        assert!(!violation.to_string().is_empty());
        self.session.close(Close::Protocol, &violation.to_string());
        self.ended = true;
    }

    /// Many pings of a peer that reads nothing.
    fn flood(&mut self, now: Instant, count: u16) {
        for token in 0..count {
            if self.ended {
                break;
            }
            self.handle(now, Frame::Ping(token.into()));
        }
        self.transmit();
    }

    fn check(&mut self, is_edge: bool) {
        if self.session.is_up() {
            assert!(!self.ended && self.saw_hello);
            assert!(is_edge || (self.accepted && self.saw_ready));
        }
    }
}

/// A well-formed frame of the fuzzer's choice.
fn frame(input: &mut Input<'_>, send: &mut impl FnMut(Frame<'_>)) {
    match input.below(10) {
        0 => send(Frame::Hello(&own_hello(input.u8()).encode())),
        1 => send(Frame::Hello(input.field())),
        2 => send(Frame::Ready),
        3 => send(Frame::Ping(input.u8().into())),
        4 => send(Frame::Pong(input.u8().into())),
        5 => send(Frame::Goodbye {
            code: input.u16(),
            text: input.field(),
        }),
        6 => send(Frame::Policy([input.u8(); 32])),
        7 => send(Frame::Checkpoint(Checkpoint {
            seq: input.u16().into(),
            hash: [input.u8(); 32],
            signature: input.field().to_vec(),
        })),
        8 => send(Frame::Hello(
            &Hello {
                stations: vec!["drive-1".into(), "drive-2".into()],
                ..own_hello(input.u8())
            }
            .encode(),
        )),
        _ => send(Frame::Drain),
    }
}
