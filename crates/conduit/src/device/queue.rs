//! Whose request is next: clients take turns, one request each, and so do the units that one client
//! asks. The requests of one client for one unit are a *lane*: they keep their order, and
//! while one of them is in flight the next goes on the same connection or waits, so that a device
//! carries them out in the order in which they came.

use std::collections::VecDeque;
use std::time::Instant;

use foldhash::{HashMap, HashMapExt};

use super::event::{ClientKey, ConnId, QueueFull};
use super::settings::DeviceSettings;
use super::slab::{Entry, List, Place, Slab, State};

/// Requests that wait, and the lanes of those in flight. A client and a lane are known only while a
/// request of theirs waits or is in flight.
///
/// A lane is ready exactly while its first request is not held, and a client stands in the line
/// exactly while one of its lanes is ready. Whether a connection may take a lane's request is asked
/// when it is taken.
#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    limit_per_client: usize,
    waiting: usize,
    clients: Vec<Client>,
    unused_clients: Vec<usize>,
    by_key: HashMap<ClientKey, usize>,
    lanes: Vec<Lane>,
    unused_lanes: Vec<usize>,
    /// Clients with a lane that is ready, in turn.
    line: VecDeque<usize>,
    kinds: Kinds,
}

/// How many reads wait that may be shared, by what they ask; some of different kinds may be counted
/// together. So a read that nobody else waits for is sent without a look at all that wait.
#[derive(Debug)]
struct Kinds(Box<[u32; 1 << Kinds::BITS]>);

impl Kinds {
    const BITS: u32 = 10;

    fn at(&mut self, entry: &Entry) -> Option<&mut u32> {
        entry.share?;
        let mut octets = [0; 8];
        // Function, address and quantity, and the unit.
        let (first, rest) = (entry.pdu.get(..5)?, &mut octets[1..6]);
        rest.copy_from_slice(first);
        octets[0] = entry.unit;
        // Multiplicative hashing: the high bits depend on all of the low ones.
        let mixed = u64::from_le_bytes(octets).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0.get_mut((mixed >> (64 - Self::BITS)) as usize)
    }

    fn add(&mut self, entry: &Entry) {
        if let Some(count) = self.at(entry) {
            *count += 1;
        }
    }

    fn remove(&mut self, entry: &Entry) {
        if let Some(count) = self.at(entry) {
            *count -= 1;
        }
    }

    fn waits(&mut self, entry: &Entry) -> bool {
        self.at(entry).is_some_and(|count| *count > 0)
    }
}

#[derive(Debug)]
struct Client {
    key: ClientKey,
    lanes: Vec<usize>,
    /// Of these, the ready ones, in turn.
    ready: VecDeque<usize>,
    waiting: usize,
}

#[derive(Debug)]
struct Lane {
    client: usize,
    unit: u8,
    requests: List,
    ready: bool,
    in_flight: usize,
    /// Counts what was sent.
    sent: u64,
    /// The connection that its requests in flight are on.
    on: Option<ConnId>,
}

/// Where to look for the next request: in which place of the line, and of that client's ready lanes.
type Turn = (usize, usize);

impl Queue {
    pub(super) fn new(settings: &DeviceSettings) -> Self {
        Self {
            limit: settings.queue,
            limit_per_client: settings.queue_per_client,
            waiting: 0,
            clients: Vec::new(),
            unused_clients: Vec::new(),
            by_key: HashMap::new(),
            lanes: Vec::new(),
            unused_lanes: Vec::new(),
            line: VecDeque::new(),
            kinds: Kinds(Box::new([0; 1 << Kinds::BITS])),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether a request waits that is not held.
    pub(super) fn has_ready(&self) -> bool {
        !self.line.is_empty()
    }

    /// Whether a request is ready that any connection could take.
    pub(super) fn wants_connection(&self) -> bool {
        self.ready_lanes().any(|lane| lane.on.is_none())
    }

    /// Whether a request is ready of a unit of which `is_meant` says so.
    pub(super) fn any_ready_unit(&self, is_meant: impl Fn(u8) -> bool) -> bool {
        self.ready_lanes().any(|lane| is_meant(lane.unit))
    }

    fn ready_lanes(&self) -> impl Iterator<Item = &Lane> {
        let clients = self.line.iter().map(|&at| &self.clients[at]);
        clients.flat_map(|client| client.ready.iter().map(|&at| &self.lanes[at]))
    }

    pub(super) fn admit(&self, client: ClientKey) -> Result<(), QueueFull> {
        if self.waiting >= self.limit {
            return Err(QueueFull::Device { limit: self.limit });
        }
        let limit = self.limit_per_client;
        let known = self.by_key.get(&client).map(|&at| self.clients[at].waiting);
        if known.unwrap_or(0) >= limit {
            return Err(QueueFull::Client { limit });
        }
        Ok(())
    }

    pub(super) fn push(&mut self, slab: &mut Slab, place: Place) {
        let at = self.lane(slab[place].client, slab[place].unit);
        slab[place].lane = at;
        self.kinds.add(&slab[place]);
        let lane = &mut self.lanes[at];
        lane.requests.push_back(slab, place);
        self.clients[lane.client].waiting += 1;
        self.waiting += 1;
        self.line_up(slab, at);
    }

    /// Whether nothing of its lane was sent behind a request that is in flight.
    pub(super) fn is_last_sent(&self, slab: &Slab, place: Place) -> bool {
        let entry = &slab[place];
        entry.turn == self.lanes[entry.lane].sent
    }

    /// Puts the request of a lane that was sent last back to the head of the lane, to be sent once more.
    pub(super) fn push_front(&mut self, slab: &mut Slab, place: Place) {
        let at = slab[place].lane;
        slab[place].state = State::Waiting { held: false };
        self.kinds.add(&slab[place]);
        let lane = &mut self.lanes[at];
        lane.requests.push_front(slab, place);
        lane.in_flight -= 1;
        lane.sent -= 1;
        if lane.in_flight == 0 {
            lane.on = None;
        }
        self.clients[lane.client].waiting += 1;
        self.waiting += 1;
        self.line_up(slab, at);
    }

    /// Takes the next request in turn that may go on `conn`: its lane is not on another connection,
    /// and `may_go` says yes to it. What `gives_way`, by its unit, is taken only if nothing else can be.
    pub(super) fn pop(
        &mut self,
        slab: &mut Slab,
        conn: ConnId,
        may_go: impl Fn(&Slab, Place) -> bool,
        gives_way: impl Fn(u8) -> bool,
    ) -> Option<Place> {
        let mut last = None;
        let turn = self.line.iter().enumerate().find_map(|(at, &client)| {
            let lanes = self.clients[client].ready.iter().enumerate();
            let mut lanes = lanes.filter(|(_, lane)| {
                let lane = &self.lanes[**lane];
                let first = lane.requests.front();
                lane.on.is_none_or(|on| on == conn) && first.is_some_and(|p| may_go(slab, p))
            });
            let turn = lanes.find(|(_, lane)| {
                let waits = gives_way(self.lanes[**lane].unit);
                if waits && last.is_none() {
                    last = Some(**lane);
                }
                !waits
            });
            turn.map(|(lane, _)| (at, lane))
        });
        let turn = turn.or_else(|| self.turn_of(last?))?;
        self.take(slab, turn, conn)
    }

    fn turn_of(&self, lane: usize) -> Option<Turn> {
        let client = self.lanes[lane].client;
        let at = self.line.iter().position(|&other| other == client)?;
        let ready = &self.clients[client].ready;
        Some((at, ready.iter().position(|&other| other == lane)?))
    }

    /// Takes the first request of the lane whose turn it is; the client and the lane go to the end of their
    /// lines.
    fn take(&mut self, slab: &mut Slab, turn: Turn, conn: ConnId) -> Option<Place> {
        let client = self.line.remove(turn.0)?;
        let lane = self.clients[client].ready.remove(turn.1)?;
        let place = self.send(slab, lane, conn)?;
        if self.lanes[lane].may_go(slab) {
            self.clients[client].ready.push_back(lane);
        } else {
            self.lanes[lane].ready = false;
        }
        if !self.clients[client].ready.is_empty() {
            self.line.push_back(client);
        }
        Some(place)
    }

    /// Moves the first request of a lane from the waiting ones to those in flight.
    fn send(&mut self, slab: &mut Slab, lane: usize, conn: ConnId) -> Option<Place> {
        let lane = &mut self.lanes[lane];
        let place = lane.requests.pop_front(slab)?;
        lane.in_flight += 1;
        lane.sent += 1;
        lane.on = Some(conn);
        slab[place].turn = lane.sent;
        self.kinds.remove(&slab[place]);
        self.clients[lane.client].waiting -= 1;
        self.waiting -= 1;
        Some(place)
    }

    /// Takes out what other clients have next for the same unit and the read at `place`, which is
    /// about to be sent on `conn`, answers too. So who shares a read asked before it was sent, and no
    /// request overtakes another of its lane. None of them loses its place in the line.
    pub(super) fn pop_alike(
        &mut self,
        slab: &mut Slab,
        place: Place,
        conn: ConnId,
        now: Instant,
    ) -> List {
        let mut alike = List::default();
        let unit = slab[place].unit;
        let mut at = 0;
        while self.kinds.waits(&slab[place])
            && let Some(&client) = self.line.get(at)
        {
            let mut ready = self.clients[client].ready.iter();
            let lane = ready.position(|&lane| {
                let lane = &self.lanes[lane];
                let first = lane.requests.front();
                lane.unit == unit
                    && lane.on.is_none_or(|on| on == conn)
                    && first.is_some_and(|p| slab[p].shares(&slab[place], now))
            });
            if let Some(turn) = lane {
                let lane = self.clients[client].ready[turn];
                if let Some(first) = self.send(slab, lane, conn) {
                    slab[first].shared = true;
                    alike.push_back(slab, first);
                }
                if !self.lanes[lane].may_go(slab) {
                    self.lanes[lane].ready = false;
                    self.clients[client].ready.remove(turn);
                }
                if self.clients[client].ready.is_empty() {
                    self.line.remove(at);
                    continue;
                }
            }
            at += 1;
        }
        alike
    }

    /// A request was released: it no longer is held.
    pub(super) fn released(&mut self, slab: &mut Slab, place: Place) {
        slab[place].state = State::Waiting { held: false };
        self.line_up(slab, slab[place].lane);
    }

    /// Takes out a request that waits, wherever it stands.
    pub(super) fn remove(&mut self, slab: &mut Slab, place: Place) {
        let at = slab[place].lane;
        let lane = &mut self.lanes[at];
        lane.requests.remove(slab, place);
        self.kinds.remove(&slab[place]);
        self.clients[lane.client].waiting -= 1;
        self.waiting -= 1;
        self.line_up(slab, at);
        self.forget_idle(at);
    }

    /// What was popped last is not sent after all, and ends.
    pub(super) fn not_sent(&mut self, slab: &Slab, place: Place) {
        self.lanes[slab[place].lane].sent -= 1;
        self.ended(slab, place);
    }

    /// A request in flight has ended.
    pub(super) fn ended(&mut self, slab: &Slab, place: Place) {
        let at = slab[place].lane;
        let lane = &mut self.lanes[at];
        lane.in_flight -= 1;
        if lane.in_flight == 0 {
            lane.on = None;
            self.forget_idle(at);
        }
    }

    /// A request of this client that waits, of a lane the first.
    pub(super) fn first_of(&self, client: ClientKey) -> Option<Place> {
        let client = &self.clients[*self.by_key.get(&client)?];
        let mut lanes = client.lanes.iter();
        lanes.find_map(|&lane| self.lanes[lane].requests.front())
    }

    /// The lane of this client and unit, newly made if it has no request yet.
    fn lane(&mut self, key: ClientKey, unit: u8) -> usize {
        let client = self.client(key);
        let mut lanes = self.clients[client].lanes.iter();
        if let Some(&lane) = lanes.find(|&&lane| self.lanes[lane].unit == unit) {
            return lane;
        }
        let lane = Lane {
            client,
            unit,
            requests: List::default(),
            ready: false,
            in_flight: 0,
            sent: 0,
            on: None,
        };
        let at = match self.unused_lanes.pop() {
            Some(at) => {
                self.lanes[at] = lane;
                at
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        };
        self.clients[client].lanes.push(at);
        at
    }

    fn client(&mut self, key: ClientKey) -> usize {
        if let Some(&at) = self.by_key.get(&key) {
            return at;
        }
        let at = match self.unused_clients.pop() {
            Some(at) => at,
            None => {
                self.clients.push(Client {
                    key,
                    lanes: Vec::new(),
                    ready: VecDeque::new(),
                    waiting: 0,
                });
                self.clients.len() - 1
            }
        };
        self.clients[at].key = key;
        self.by_key.insert(key, at);
        at
    }

    /// Puts a lane into the line or takes it out, as its first request says now.
    fn line_up(&mut self, slab: &Slab, at: usize) {
        let lane = &mut self.lanes[at];
        let wanted = lane.may_go(slab);
        if wanted == lane.ready {
            return;
        }
        lane.ready = wanted;
        let client = lane.client;
        let ready = &mut self.clients[client].ready;
        if wanted {
            ready.push_back(at);
            if ready.len() == 1 {
                self.line.push_back(client);
            }
        } else {
            ready.retain(|&other| other != at);
            if ready.is_empty() {
                self.line.retain(|&other| other != client);
            }
        }
    }

    /// Forgets a lane without a request, and a client without a lane.
    fn forget_idle(&mut self, at: usize) {
        let lane = &self.lanes[at];
        if lane.in_flight > 0 || lane.requests.front().is_some() {
            return;
        }
        let client = lane.client;
        self.unused_lanes.push(at);
        let lanes = &mut self.clients[client].lanes;
        lanes.retain(|&other| other != at);
        if lanes.is_empty() {
            self.by_key.remove(&self.clients[client].key);
            self.unused_clients.push(client);
        }
    }
}

impl Lane {
    /// Whether its first request is not held.
    fn may_go(&self, slab: &Slab) -> bool {
        let first = self.requests.front();
        first.is_some_and(|place| !slab[place].is_held())
    }
}
