//! Whose request is next: clients take turns, one request each; the requests of one client
//! keep their order.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::event::{ClientKey, QueueFull};
use super::settings::DeviceSettings;
use super::slab::{List, Place, Slab, State};

/// Requests that wait. A client is known only while one of its requests does.
///
/// A client stands in the line `ready` exactly while its first request is not held; a held
/// one stops its own client and nobody else.
#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    limit_per_client: usize,
    waiting: usize,
    clients: Vec<Client>,
    unused: Vec<usize>,
    by_key: HashMap<ClientKey, usize>,
    ready: VecDeque<usize>,
}

#[derive(Debug)]
struct Client {
    key: ClientKey,
    requests: List,
    in_line: bool,
}

impl Client {
    /// Whether its first request may be sent.
    fn may_go(&self, slab: &Slab) -> bool {
        let first = self.requests.front();
        first.is_some_and(|place| !slab[place].is_held())
    }
}

impl Queue {
    pub(super) fn new(settings: &DeviceSettings) -> Self {
        Self {
            limit: settings.queue,
            limit_per_client: settings.queue_per_client,
            waiting: 0,
            clients: Vec::new(),
            unused: Vec::new(),
            by_key: HashMap::new(),
            ready: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether [`Queue::pop`] has a request.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn admit(&self, client: ClientKey) -> Result<(), QueueFull> {
        if self.waiting >= self.limit {
            return Err(QueueFull::Device { limit: self.limit });
        }
        let limit = self.limit_per_client;
        match self.by_key.get(&client) {
            Some(&at) if self.clients[at].requests.len() >= limit => {
                Err(QueueFull::Client { limit })
            }
            None if limit == 0 => Err(QueueFull::Client { limit }),
            _ => Ok(()),
        }
    }

    pub(super) fn push(&mut self, slab: &mut Slab, place: Place) {
        let at = self.client(slab[place].client);
        self.clients[at].requests.push_back(slab, place);
        self.waiting += 1;
        self.line_up(slab, at);
    }

    /// Takes the next request in turn.
    pub(super) fn pop(&mut self, slab: &mut Slab) -> Option<Place> {
        let at = self.ready.pop_front()?;
        let client = &mut self.clients[at];
        client.in_line = false;
        let place = client.requests.pop_front(slab)?;
        self.waiting -= 1;
        self.line_up(slab, at);
        Some(place)
    }

    /// Takes out what other clients wait for next and the read at `place`, which is about to be
    /// sent, answers too. So who shares a read asked before it was sent, and no client's request
    /// overtakes another of its own. None of them loses its place in the line.
    pub(super) fn pop_alike(&mut self, slab: &mut Slab, place: Place, now: Instant) -> List {
        let mut alike = List::default();
        if slab[place].share.is_none() {
            return alike;
        }
        let Self {
            ready,
            clients,
            waiting,
            by_key,
            unused,
            ..
        } = self;
        ready.retain(|&at| {
            let client = &mut clients[at];
            let first = client.requests.front();
            let Some(first) = first.filter(|&p| slab[p].shares(&slab[place], now)) else {
                return true;
            };
            client.requests.pop_front(slab);
            *waiting -= 1;
            slab[first].shared = true;
            alike.push_back(slab, first);
            client.in_line = client.may_go(slab);
            if client.requests.front().is_none() {
                by_key.remove(&client.key);
                unused.push(at);
            }
            client.in_line
        });
        alike
    }

    /// A request was released: it no longer is held.
    pub(super) fn released(&mut self, slab: &mut Slab, place: Place) {
        slab[place].state = State::Waiting { held: false };
        if let Some(&at) = self.by_key.get(&slab[place].client) {
            self.line_up(slab, at);
        }
    }

    /// Takes out a request that waits, wherever it stands.
    pub(super) fn remove(&mut self, slab: &mut Slab, place: Place) {
        if let Some(&at) = self.by_key.get(&slab[place].client) {
            self.clients[at].requests.remove(slab, place);
            self.waiting -= 1;
            self.line_up(slab, at);
        }
    }

    /// The first request of this client.
    pub(super) fn first_of(&self, client: ClientKey) -> Option<Place> {
        let at = *self.by_key.get(&client)?;
        self.clients[at].requests.front()
    }

    /// The client's place in the table, newly made if it has no request yet.
    fn client(&mut self, key: ClientKey) -> usize {
        if let Some(&at) = self.by_key.get(&key) {
            return at;
        }
        let at = self.unused.pop().unwrap_or_else(|| {
            self.clients.push(Client {
                key,
                requests: List::default(),
                in_line: false,
            });
            self.clients.len() - 1
        });
        self.clients[at].key = key;
        self.by_key.insert(key, at);
        at
    }

    /// Puts a client into the line or takes it out, as its first request says now.
    fn line_up(&mut self, slab: &Slab, at: usize) {
        let client = &mut self.clients[at];
        let wanted = client.may_go(slab);
        if wanted && !client.in_line {
            self.ready.push_back(at);
        } else if !wanted && client.in_line {
            self.ready.retain(|&other| other != at);
        }
        client.in_line = wanted;
        if client.requests.front().is_none() {
            self.by_key.remove(&client.key);
            self.unused.push(at);
        }
    }
}
