//! The headend: what its shell does around [`ClientSide`], [`Session`] and [`Forwarding`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use fieldlock_modbus::{Exception, Quirks, mbap};
use fieldlock_policy::Policy;
use fieldlock_session::{
    ClientOpen, Close, Event, Frame, Hello, Liveness, Place, Session, Step, VERSION, Violation,
};

use super::ledger::Conn;
use super::tunnel::{End, HeadEnd, Pipe};
use super::world::{ANSWER_WITHIN, CREDIT, Happening, UNITS, World, phase};
use crate::admit::Permit;
use crate::client::{By, ClientSide, Origins, Place as Turn, Routes, Target, Verdict};
use crate::fate::Fate;
use crate::forward::{Ended, Forwarding};
use crate::meter::{Meter, Who};
use crate::repeat::{Asked, Repeats, Ticket};

#[derive(Debug)]
pub(super) struct Head {
    pub(super) policy: Arc<Policy>,
    pub(super) meter: Meter,
    pub(super) conns: BTreeMap<Conn, ClientConn>,
    /// The tunnel that serves the device.
    pub(super) live: Option<usize>,
    pub(super) place: Place,
    pub(super) instance: [u8; 16],
    /// Counts the tunnels that it has accepted.
    pub(super) accepted: u64,
    pub(super) repeats: Repeats,
}

#[derive(Debug)]
pub(super) struct ClientConn {
    client: usize,
    side: ClientSide,
    input: Vec<u8>,
    pipe: Pipe,
    /// Octets that it was sent.
    sent: usize,
    /// Tunnels whose edge was told of it.
    introduced: BTreeSet<usize>,
}

/// Where the answer goes.
#[derive(Debug)]
pub(super) struct Pending {
    conn: Conn,
    turn: Turn,
    who: Who,
    repeat: Option<Ticket>,
}

impl World {
    pub(super) fn head_accepts(&mut self, client: usize, conn: Conn) {
        let origin = Origins {
            address: Some(address(client).ip()),
            ..Origins::default()
        };
        let units = UNITS.map(|(unit, at_device)| {
            let target = Target {
                device: 0,
                unit: at_device,
            };
            (unit, target)
        });
        let routes = Arc::new(Routes::by_unit(units, &["plc".into()].into()));
        let policy = Arc::clone(&self.head.policy);
        let phase = phase(&policy);
        let side = ClientSide::new(origin, routes, policy, phase, 4);
        let conn_state = ClientConn {
            client,
            side,
            input: Vec::new(),
            pipe: Pipe::new(self.now),
            sent: 0,
            introduced: BTreeSet::new(),
        };
        self.head.conns.insert(conn, conn_state);
    }

    pub(super) fn head_hears_client(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(mut state) = self.head.conns.remove(&conn) else {
            return;
        };
        state.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut state.input);
        let mut used = 0;
        loop {
            let live = self.head.live.map(|tunnel| tunnel as u32);
            if state.side.is_held_back(|_| live) {
                break;
            }
            let step = state
                .side
                .next(&input[used..], &mut self.head.meter, self.now)
                .expect("clients speak Modbus");
            let Some((step, size)) = step else { break };
            used += size;
            let (turn, pdu) = match step.verdict {
                Verdict::Repeated => continue,
                Verdict::Refuse { place, refused, .. } => {
                    (place, refused.exception.pdu(refused.function))
                }
                Verdict::Forward { place, permit, .. } => {
                    let asked = (step.transaction, place);
                    match self.forward(conn, &mut state, asked, &permit) {
                        Ok(()) => continue,
                        Err(exception) => {
                            state.side.put_back(&permit, &mut self.head.meter);
                            (place, exception.pdu(permit.request().function().0))
                        }
                    }
                }
            };
            self.answer_client(conn, &mut state, turn, &pdu, By::Agent);
        }
        state.input = input[used..].to_vec();
        self.head.conns.insert(conn, state);
    }

    fn forward(
        &mut self,
        conn: Conn,
        state: &mut ClientConn,
        (transaction, turn): (u16, Turn),
        permit: &Permit<'_>,
    ) -> Result<(), Exception> {
        let asked = Asked {
            who: state.side.who(),
            connection: conn.into(),
            transaction,
            device: 0,
            unit: permit.unit(),
            request: permit.request(),
        };
        let has_all = |conn, state: &ClientConn| {
            self.heard.get(&conn).copied().unwrap_or_default() == state.sent
        };
        let is_delivered =
            |other| match other == asked.connection {
                true => has_all(conn, state),
                false => self.head.conns.get(&(other as Conn)).is_some_and(|state| {
                    state.side.in_flight() == 0 && has_all(other as Conn, state)
                }),
            };
        let repeats = &self.head.repeats;
        if permit.is_once() && repeats.first(self.now, &asked, is_delivered).is_some() {
            return Err(Exception::GatewayTargetFailedToRespond);
        }
        self.head.repeats.goes_on(asked.who, asked.connection);
        let live = self.head.live.ok_or(Exception::GatewayPathUnavailable)?;
        let head = self.tunnels[live].head.as_mut().unwrap();
        let channel = &mut head.channel;
        let id = channel.reserve().ok_or(Exception::ServerDeviceBusy)?;
        let repeats = &mut self.head.repeats;
        let repeat = permit
            .is_once()
            .then(|| repeats.begin(self.now, &asked, id).expect("room"));
        let pending = Pending {
            conn,
            turn,
            who: asked.who.clone(),
            repeat,
        };
        let session = &head.session;
        let within = channel.begin(self.now, id, permit, pending, || session.round_trip());
        assert!(channel.len() <= usize::from(CREDIT));
        let mut bytes = Vec::new();
        if state.introduced.insert(live) {
            let open = ClientOpen {
                client: conn,
                address: address(state.client),
                name: b"",
                identity: b"",
                role: b"",
            };
            Frame::ClientOpen(open).encode(1, &mut bytes);
        }
        let request = Frame::Request {
            id,
            client: conn,
            within,
            unit: permit.unit(),
            pdu: permit.request().pdu(),
        };
        request.encode(1, &mut bytes);
        state.side.sent(turn, live as u32);
        self.ledger.begun((conn, transaction), self.now, (live, id));
        self.send(live, End::Head, 1, bytes);
        Ok(())
    }

    /// An answer, and those that waited for it.
    fn answer_client(
        &mut self,
        conn: Conn,
        state: &mut ClientConn,
        turn: Turn,
        pdu: &[u8],
        by: By,
    ) {
        let mut bytes = Vec::new();
        self.ledger.kept += state.side.answer(turn, pdu, by, &mut bytes);
        let mut rest = &bytes[..];
        while let Some((adu, used)) = mbap::decode(rest).expect("Modbus") {
            self.ledger
                .leaves(conn, adu.transaction, self.now, ANSWER_WITHIN);
            rest = &rest[used..];
        }
        state.sent += bytes.len();
        let at = state.pipe.arrival(self.now + self.dice.millis(0..4));
        self.at(at, Happening::ToClient { conn, bytes });
    }

    /// The client has gone.
    pub(super) fn head_loses_client(&mut self, conn: Conn) {
        let Some(state) = self.head.conns.remove(&conn) else {
            return;
        };
        let heard = self.heard.get(&conn).copied().unwrap_or_default();
        if state.side.in_flight() == 0 && state.sent == heard {
            self.head.repeats.goes_on(state.side.who(), conn.into());
        }
        for tunnel in state.introduced {
            let mut bytes = Vec::new();
            Frame::ClientClose { client: conn }.encode(1, &mut bytes);
            self.send(tunnel, End::Head, 1, bytes);
        }
    }

    /// An edge dials.
    pub(super) fn head_opens(&mut self, tunnel: usize) {
        self.tunnels[tunnel].head = Some(HeadEnd {
            session: Session::headend(Liveness::default(), true, self.now),
            decoders: Default::default(),
            channel: Forwarding::new(CREDIT.into(), ANSWER_WITHIN, Quirks::NONE),
            draining: false,
        });
    }

    pub(super) fn head_event(&mut self, tunnel: usize, event: Event) {
        match event {
            Event::Hello(hello) => {
                self.head.place.handle_hello(tunnel as u32, hello.instance);
                self.head_follows();
            }
            Event::Up(_) => {
                self.head.live = Some(tunnel);
                self.head.place.handle_up(tunnel as u32);
                self.head_follows();
            }
            Event::Probed { alive } => {
                self.head.place.handle_probed(tunnel as u32, alive);
                self.head_follows();
            }
            Event::Goodbye { .. } | Event::HelloTimeout | Event::Dead => self.head_ends(tunnel),
            _ => {}
        }
    }

    fn head_follows(&mut self) {
        while let Some(step) = self.head.place.poll_step() {
            match step {
                Step::Accept(tunnel) => self.head_takes(tunnel as usize),
                Step::Probe(tunnel) => {
                    let head = self.tunnels[tunnel as usize].head.as_mut();
                    head.unwrap().session.probe(self.now);
                }
                Step::Refuse { refused, .. } => {
                    self.head_closes(refused as usize, Close::DuplicateIdentity);
                }
                Step::Drain(tunnel) => {
                    let head = self.tunnels[tunnel as usize].head.as_mut().unwrap();
                    head.session.drain();
                    head.draining = true;
                }
                Step::Close(tunnel) => self.head_closes(tunnel as usize, Close::Replaced),
            }
        }
    }

    fn head_takes(&mut self, tunnel: usize) {
        self.head.accepted += 1;
        let hello = Hello {
            version: VERSION,
            agent_version: String::new(),
            instance: self.head.instance,
            policy: [0; 32],
            trust: None,
            bundle: None,
            tunnel: self.head.accepted,
            devices: Vec::new(),
            stations: Vec::new(),
            cyclic: None,
        };
        if let Some(head) = &mut self.tunnels[tunnel].head {
            head.session.accept(self.now, &hello);
        }
    }

    fn head_closes(&mut self, tunnel: usize, why: Close) {
        if let Some(head) = &mut self.tunnels[tunnel].head {
            head.session.close(why, "");
            self.flush(tunnel, End::Head);
            self.head_ends(tunnel);
        }
    }

    /// A tunnel is over: what left by it may have happened.
    pub(super) fn head_ends(&mut self, tunnel: usize) {
        let Some(mut head) = self.tunnels[tunnel].head.take() else {
            return;
        };
        if self.head.live == Some(tunnel) {
            self.head.live = None;
        }
        for ended in head.channel.close() {
            self.finish(&ended, &[]);
        }
        self.head.place.handle_ended(tunnel as u32);
        self.head_follows();
        self.hang_up(tunnel, End::Head);
    }

    pub(super) fn head_frame(&mut self, tunnel: usize, frame: &Frame<'_>) -> Result<(), Violation> {
        let Frame::Answer { id, outcome, pdu } = *frame else {
            panic!("an edge only answers: {frame:?}");
        };
        let Some(head) = &mut self.tunnels[tunnel].head else {
            return Ok(());
        };
        if let Some(ended) = head.channel.handle_answer(id, outcome, pdu) {
            assert!(!ended.reason.contains("match"), "{ended:?}");
            self.finish(&ended, pdu);
        }
        Ok(())
    }

    pub(super) fn head_timeouts(&mut self, tunnel: usize) {
        while let Some(head) = &mut self.tunnels[tunnel].head {
            let Some(ended) = head.channel.handle_timeout(self.now) else {
                break;
            };
            self.finish(&ended, &[]);
        }
        let over = |head: &HeadEnd| head.draining && head.channel.is_empty();
        if self.tunnels[tunnel].head.as_ref().is_some_and(over) {
            self.head_closes(tunnel, Close::Replaced);
        }
    }

    fn finish(&mut self, ended: &Ended<Pending>, from_edge: &[u8]) {
        let (pending, pdu) = (&ended.asker, ended.pdu(from_edge));
        let (who, repeats) = (&pending.who, &mut self.head.repeats);
        match (pending.repeat, &ended.read, ended.fate) {
            (Some(ticket), ..) => repeats.ended(self.now, who, ticket, ended.fate.known(pdu)),
            (None, Some(range), Fate::Answered) => {
                repeats.read(who, 0, ended.unit, range, ended.since);
            }
            _ => {}
        }
        if let Some(mut state) = self.head.conns.remove(&pending.conn) {
            let by = ended.fate.by();
            self.answer_client(pending.conn, &mut state, pending.turn, pdu, by);
            self.head.conns.insert(pending.conn, state);
            // What waited for that.
            self.head_hears_client(pending.conn, &[]);
        }
    }

    pub(super) fn head_policy(&mut self, policy: &Arc<Policy>) {
        self.head.policy = Arc::clone(policy);
        for state in self.head.conns.values_mut() {
            state.side.set_policy(Arc::clone(policy), phase(policy));
        }
    }

    pub(super) fn head_deadline(&mut self, tunnel: usize) -> Option<Instant> {
        let head = self.tunnels[tunnel].head.as_mut()?;
        let session = head.session.poll_timeout();
        [session, head.channel.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

pub(super) fn address(client: usize) -> SocketAddr {
    ([192, 0, 2, 1 + client as u8], 40_000).into()
}
