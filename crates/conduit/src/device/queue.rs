//! Whose request is next: clients take turns, one request each; the requests of one client
//! keep their order.

use std::collections::{HashMap, VecDeque};

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
        let first = client.requests.front();
        let wanted = first.is_some_and(|place| !slab[place].is_held());
        if wanted && !client.in_line {
            self.ready.push_back(at);
        } else if !wanted && client.in_line {
            self.ready.retain(|&other| other != at);
        }
        client.in_line = wanted;
        if first.is_none() {
            self.by_key.remove(&client.key);
            self.unused.push(at);
        }
    }
}
