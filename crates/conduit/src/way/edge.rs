//! The edge: what its shell does around [`Serving`], [`Session`] and the journal.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_modbus::Exception;
use fieldlock_policy::{Client, Origin, Policy, Side, View};
use fieldlock_session::{
    Close, DeviceOffer, Event, Frame, Hello, Liveness, Outcome, Session, VERSION, Violation,
};

use super::head::address;
use super::plc::Line;
use super::tunnel::{EdgeEnd, End, Stated};
use super::world::{ANSWER_WITHIN, CREDIT, HOLD, Happening, IN_FLIGHT, QUEUE, World, phase};
use crate::device::{ClientKey, ConnId, DeviceSettings};
use crate::fate::Fate;
use crate::meter::{Meter, Who};
use crate::repeat::Repeats;
use crate::serve::{Asked, Event as Said, Serving, Taken};

#[derive(Debug)]
pub(super) struct Edge {
    pub(super) policy: Arc<Policy>,
    meter: Meter,
    /// Each request with where its answer goes: the tunnel and the headend's id.
    pub(super) serving: Serving<(usize, u64)>,
    lines: BTreeMap<Line, ConnId>,
    /// Closed by us, and not by the PLC yet.
    sealing: BTreeMap<Line, ConnId>,
    /// Its log has a write whose outcome is unknown.
    has_unknown: bool,
    /// What the writes write whose intent is in the log, by the number of the record.
    intents: BTreeMap<u64, u16>,
    next_record: u64,
    /// The disk takes nothing.
    pub(super) broken: bool,
    /// Process starts; what happens to an earlier one means nothing.
    pub(super) start: u8,
    pub(super) dialling: bool,
}

impl Edge {
    pub(super) fn new(
        policy: Arc<Policy>,
        start: u8,
        world: &super::world::Shape,
        now: Instant,
    ) -> Self {
        let settings = DeviceSettings {
            max_connections: world.max_connections,
            in_flight: world.in_flight,
            queue: usize::from(QUEUE),
            queue_per_client: 4,
            shared_reads: world.shared_reads,
            idle_close: world.idle_close,
            ..DeviceSettings::default()
        };
        Self {
            policy,
            meter: Meter::default(),
            serving: Serving::new(settings, start.into(), Repeats::at_edge(HOLD), now),
            lines: BTreeMap::new(),
            sealing: BTreeMap::new(),
            has_unknown: false,
            intents: BTreeMap::new(),
            next_record: 0,
            broken: false,
            start,
            dialling: false,
        }
    }
}

impl World {
    /// Dials; there may be a tunnel already, which this one is to replace.
    pub(super) fn edge_dials(&mut self) {
        self.edge.dialling = false;
        let tunnel = self.new_tunnel();
        let hello = Hello {
            version: VERSION,
            agent_version: String::new(),
            instance: [self.edge.start; 16],
            policy: [0; 32],
            trust: None,
            bundle: None,
            tunnel: 0,
            devices: vec![DeviceOffer {
                name: "plc".into(),
                credit: CREDIT,
                answer_within: ANSWER_WITHIN.as_millis() as u32,
                quirks: 0,
            }],
            stations: Vec::new(),
            cyclic: None,
        };
        self.tunnels[tunnel].edge = Some(EdgeEnd {
            session: Session::edge(&hello, Liveness::default(), true, self.now),
            decoders: Default::default(),
            clients: BTreeMap::new(),
            order: 0,
            process: 0,
        });
        self.head_opens(tunnel);
    }

    pub(super) fn edge_event(&mut self, tunnel: usize, event: &Event) {
        match event {
            Event::Up(Some(hello)) => {
                if let Some(end) = &mut self.tunnels[tunnel].edge {
                    end.order = hello.tunnel;
                    end.process = hello.instance[0];
                }
            }
            Event::Goodbye { .. } | Event::HelloTimeout | Event::Dead => self.edge_ends(tunnel),
            _ => {}
        }
    }

    /// A tunnel is over: what it asked and was not sent is dropped.
    pub(super) fn edge_ends(&mut self, tunnel: usize) {
        let Some(end) = self.tunnels[tunnel].edge.take() else {
            return;
        };
        for (client, _) in end.clients.iter().filter(|(_, stated)| !stated.moved) {
            let key = client_key(end.process, *client);
            self.edge.serving.device_mut().drop_client(self.now, key);
        }
        self.hang_up(tunnel, End::Edge);
        self.dial_if_alone();
    }

    pub(super) fn dial_if_alone(&mut self) {
        let connected = self.tunnels.iter().any(|tunnel| tunnel.edge.is_some());
        if !connected && !self.edge.dialling {
            self.edge.dialling = true;
            let after = self.dice.millis(10..400);
            let start = self.edge.start;
            self.later(after, Happening::Dial { start });
        }
    }

    pub(super) fn edge_frame(&mut self, tunnel: usize, frame: &Frame<'_>) -> Result<(), Violation> {
        let Some(end) = &mut self.tunnels[tunnel].edge else {
            return Ok(());
        };
        match frame {
            Frame::ClientOpen(open) => {
                let client = usize::from(match open.address.ip() {
                    std::net::IpAddr::V4(v4) => v4.octets()[3] - 1,
                    std::net::IpAddr::V6(_) => panic!("{open:?}"),
                });
                let (view, order) = (view(&self.edge.policy, client), (end.process, end.order));
                let stated = Stated {
                    client,
                    view,
                    moved: self.edge_takes_over(order, open.client),
                };
                if let Some(end) = &mut self.tunnels[tunnel].edge {
                    end.clients.insert(open.client, stated);
                }
            }
            Frame::ClientClose { client } => {
                if end
                    .clients
                    .remove(client)
                    .is_some_and(|stated| !stated.moved)
                {
                    let key = client_key(end.process, *client);
                    self.edge.serving.device_mut().drop_client(self.now, key);
                }
            }
            Frame::Request {
                id,
                client,
                within,
                unit,
                pdu,
            } => {
                let Stated {
                    view,
                    moved,
                    client: program,
                } = end.clients.get(client).expect("introduced").clone();
                let key = client_key(end.process, *client);
                if moved {
                    let unsent = Exception::GatewayPathUnavailable.pdu(pdu[0]);
                    self.edge_answers(tunnel, *id, Outcome::NotSent, &unsent);
                    return Ok(());
                }
                let within = Duration::from_millis((*within).into()).min(ANSWER_WITHIN);
                let who = Who::Address(address(program).ip());
                self.edge_request(tunnel, (*id, key, within), (who, &view), *unit, pdu);
            }
            other => panic!("a headend only asks: {other:?}"),
        }
        Ok(())
    }

    /// A client goes on over a tunnel: what it asked over an older one is late. True: this is the older
    /// one.
    fn edge_takes_over(&mut self, (process, order): (u8, u64), client: u32) -> bool {
        let mut is_older = false;
        let ends = self
            .tunnels
            .iter_mut()
            .filter_map(|tunnel| tunnel.edge.as_mut());
        for end in ends {
            let Some(stated) = end.clients.get_mut(&client) else {
                continue;
            };
            if end.process != process {
                continue;
            }
            if end.order > order {
                is_older = true;
            } else if !stated.moved {
                stated.moved = true;
                let key = client_key(process, client);
                self.edge.serving.device_mut().drop_client(self.now, key);
            }
        }
        is_older
    }

    fn edge_request(
        &mut self,
        tunnel: usize,
        (id, client, within): (u64, ClientKey, Duration),
        (stated, view): (Who, &View),
        unit: u8,
        pdu: &[u8],
    ) {
        let headend = Who::Headend("hd-1".into());
        let asked = Asked {
            client,
            whose: &stated,
            has_written: &Cell::new(true),
            id,
            deadline: self.now + within,
        };
        let edge = &mut self.edge;
        let meter = (&mut edge.meter, &headend);
        let taken = edge
            .serving
            .request(self.now, (tunnel, id), asked, view, (unit, pdu), meter);
        match taken {
            Err((_, shed)) => self.edge_answers(tunnel, id, shed.fate().told(), &shed.pdu()),
            Ok(Taken::Write { permit, key }) if self.edge.broken => {
                self.edge.serving.take_back(self.now, key);
                permit.put_back(&mut self.edge.meter, &headend);
                let busy = Exception::ServerDeviceBusy.pdu(pdu[0]);
                self.edge_answers(tunnel, id, Outcome::Refused, &busy);
            }
            Ok(Taken::Read { .. }) => self.ledger.admitted((tunnel, id)),
            Ok(Taken::Write { key, .. }) => {
                self.ledger.admitted((tunnel, id));
                self.edge.next_record += 1;
                let record = self.edge.next_record;
                let number = u16::from_be_bytes([pdu[3], pdu[4]]);
                self.edge.intents.insert(record, number);
                self.edge.serving.hold(key, record);
                let slow = self.faults && self.dice.percent(5);
                let after = self.dice.millis(if slow { 100..900 } else { 0..5 });
                let start = self.edge.start;
                self.later(after, Happening::Durable { start, record });
            }
        }
    }

    fn edge_answers(&mut self, tunnel: usize, id: u64, outcome: Outcome, pdu: &[u8]) {
        if self.tunnels[tunnel].edge.is_some() {
            let mut bytes = Vec::new();
            Frame::Answer { id, outcome, pdu }.encode(1, &mut bytes);
            self.send(tunnel, End::Edge, 1, bytes);
        }
    }

    /// The log is on the disk up to this record, or never will be.
    pub(super) fn edge_durable(&mut self, record: u64) {
        let writable = !self.edge.broken;
        let later = self.edge.intents.split_off(&(record + 1));
        for number in std::mem::replace(&mut self.edge.intents, later).into_values() {
            if writable {
                self.ledger.durable(number);
            }
        }
        let durable = if writable { record } else { 0 };
        self.edge
            .serving
            .handle_durable(self.now, durable, writable);
    }

    pub(super) fn line_opened(&mut self, line: Line, taken: bool) {
        let Some(&conn) = self.edge.lines.get(&line) else {
            return;
        };
        if taken {
            self.edge
                .serving
                .device_mut()
                .handle_connected(self.now, conn);
        } else {
            self.edge.lines.remove(&line);
            self.edge
                .serving
                .device_mut()
                .handle_closed(self.now, conn, true);
        }
    }

    pub(super) fn line_closed(&mut self, line: Line) {
        if let Some(conn) = self.edge.lines.remove(&line) {
            self.edge
                .serving
                .device_mut()
                .handle_closed(self.now, conn, false);
        } else if let Some(conn) = self.edge.sealing.remove(&line) {
            self.edge.serving.device_mut().handle_sealed(self.now, conn);
        }
    }

    pub(super) fn edge_hears_plc(&mut self, line: Line, bytes: &[u8]) {
        if let Some(&conn) = self.edge.lines.get(&line) {
            self.edge
                .serving
                .device_mut()
                .handle_bytes(self.now, conn, bytes);
        }
    }

    /// Moves bytes and answers on.
    pub(super) fn edge_pump(&mut self) {
        loop {
            let mut any = false;
            for (line, conn) in self.edge.lines.clone() {
                let mut bytes = Vec::new();
                if self
                    .edge
                    .serving
                    .device_mut()
                    .poll_transmit(conn, &mut bytes)
                {
                    any = true;
                    self.write_line(line, bytes);
                }
            }
            while let Some(said) = self.edge.serving.poll_event(self.now) {
                any = true;
                self.edge_said(said);
            }
            if !any {
                break;
            }
        }
        let stats = self.edge.serving.device().stats();
        let (connections, in_flight) = (self.shape.max_connections, self.shape.in_flight);
        assert!(stats.connections <= usize::from(connections));
        assert!(stats.in_flight <= usize::from(connections * in_flight));
        // Reads that are asked once more wait again.
        assert!(stats.queued <= usize::from(QUEUE + IN_FLIGHT));
        assert!(self.edge.serving.len() <= usize::from(QUEUE + IN_FLIGHT));
    }

    fn edge_said(&mut self, said: Said<(usize, u64)>) {
        match said {
            Said::Connect(conn) => {
                let line = self.new_line();
                self.edge.lines.insert(line, conn);
                let after = self.dice.millis(0..5);
                self.later(after, Happening::PlcConnect { line });
            }
            Said::Close(conn, _) | Said::Seal(conn, _) => {
                let line = self.edge.lines.iter().find(|(_, other)| **other == conn);
                if let Some((&line, _)) = line {
                    self.edge.lines.remove(&line);
                    self.edge_left_line(line);
                    if matches!(said, Said::Seal(..)) {
                        self.edge.sealing.insert(line, conn);
                    }
                }
            }
            // Of serial lines.
            Said::Refused(_) => {}
            Said::Ended(ended) => {
                self.edge.has_unknown |= ended.fate == Fate::Unknown;
                let (tunnel, id) = ended.asker;
                self.edge_answers(tunnel, id, ended.fate.told(), &ended.pdu);
            }
        }
    }

    pub(super) fn edge_policy(&mut self, policy: &Arc<Policy>) {
        self.edge.policy = Arc::clone(policy);
        self.edge
            .serving
            .follow_policy(policy.stepped("plc"), self.now);
        self.ledger.policies += 1;
        let ends = self.tunnels.iter_mut().filter_map(|t| t.edge.as_mut());
        for stated in ends.flat_map(|end| end.clients.values_mut()) {
            stated.view = view(policy, stated.client);
        }
    }

    /// kill -9, and a start.
    pub(super) fn edge_dies(&mut self) {
        self.ledger.kills[1] += 1;
        let policy = Arc::clone(&self.edge.policy);
        let lines = std::mem::take(&mut self.edge.lines);
        let unfinished = self.edge.has_unknown || !self.edge.serving.is_empty();
        self.edge = Edge::new(policy, self.edge.start + 1, &self.shape, self.now);
        if unfinished {
            // The audit log says so, and so it will to the next process.
            self.edge.has_unknown = true;
            self.edge.serving.device_mut().wait_for_earlier_writes();
        }
        for line in lines.into_keys() {
            self.edge_left_line(line);
        }
        for tunnel in 0..self.tunnels.len() {
            if self.tunnels[tunnel].edge.take().is_some() && self.dice.percent(70) {
                self.hang_up(tunnel, End::Edge);
            }
        }
        self.dial_if_alone();
    }

    /// The tunnel of the edge is closed by itself.
    pub(super) fn edge_hangs_up(&mut self, tunnel: usize) {
        if let Some(end) = &mut self.tunnels[tunnel].edge {
            end.session.close(Close::Reconfigured, "");
            self.flush(tunnel, End::Edge);
            self.edge_ends(tunnel);
        }
    }
}

fn view(policy: &Policy, client: usize) -> Arc<View> {
    let origin = Origin {
        side: Side::Edge,
        via: Some("hd-1"),
        client: Client {
            address: Some(address(client).ip()),
            identity: None,
            role: None,
        },
    };
    policy.view(&origin, "plc", &phase(policy))
}

fn client_key(process: u8, client: u32) -> ClientKey {
    ClientKey(u64::from(process) << 32 | u64::from(client))
}
