//! The connections to one device: as few as do, opened when a request wants one.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::event::ConnId;
use super::settings::{DeviceSettings, Retry};

#[derive(Debug)]
pub(super) struct Pool {
    connections: Vec<Connection>,
    limit: usize,
    connect_timeout: Duration,
    pub(super) retry: Retry,
}

impl Pool {
    pub(super) fn new(settings: &DeviceSettings, seed: u64) -> Self {
        Self {
            connections: Vec::new(),
            limit: settings.connection_limit(),
            connect_timeout: settings.connect_timeout,
            retry: Retry::new(settings.reconnect, seed),
        }
    }

    /// A connection that was not closed since; what is said about any other has no meaning.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections
            .get_mut(id.index())
            .filter(|connection| connection.id() == id && !connection.is_closed())
    }

    pub(super) fn at(&mut self, index: usize) -> Option<&mut Connection> {
        self.connections.get_mut(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter()
    }

    /// Requests that the connections, open or being opened, could take now.
    pub(super) fn room(&self) -> usize {
        self.iter().map(Connection::room).sum()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.iter().map(Connection::in_flight).sum()
    }

    pub(super) fn open(&self) -> usize {
        self.iter().filter(|c| c.is_open()).count()
    }

    /// Whether there are as many connections as may be.
    pub(super) fn is_complete(&self) -> bool {
        self.iter().filter(|c| !c.is_closed()).count() >= self.limit
    }

    /// Whether a connection is open or being opened.
    pub(super) fn is_live(&self) -> bool {
        self.iter().any(|c| !c.is_closed())
    }

    /// The next connection, unless there are as many as may be: its id, and whether its
    /// place was used before.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        settings: &DeviceSettings,
    ) -> Option<(ConnId, bool)> {
        let closed = self.connections.iter().position(Connection::is_closed);
        let index = closed.unwrap_or(self.connections.len());
        if index >= self.limit {
            return None;
        }
        if closed.is_none() {
            let slot = u16::try_from(index).ok()?;
            self.connections.push(Connection::new(slot, settings, now));
        }
        let until = now + self.connect_timeout;
        let connection = self.connections.get_mut(index)?;
        let again = connection.connect(until);
        Some((connection.id(), again))
    }
}
