//! The tunnels of edges, from the end of their handshakes on, and which of an edge's is kept.
//!
//! Nothing is borrowed here while anybody else is called: what is asked for is given out by value.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use fieldlock_session::{Hello, Place, Step};
use fieldlock_transport::tunnel::Link;

use super::tunnel::EdgeTunnel;

#[derive(Default)]
pub(crate) struct Registry {
    links: RefCell<HashMap<u32, Rc<Link>>>,
    /// Hellos of links that are not up yet.
    hellos: RefCell<HashMap<u32, Hello>>,
    /// Those that are up, by edge.
    tunnels: RefCell<BTreeMap<String, Rc<EdgeTunnel>>>,
    /// Of edges that have any link.
    places: RefCell<HashMap<String, Place>>,
    /// When a second agent with the key of this edge was refused last.
    duplicates: RefCell<HashMap<String, Instant>>,
}

impl Registry {
    pub(crate) fn add(&self, link: &Rc<Link>) {
        self.links.borrow_mut().insert(link.number, link.clone());
    }

    pub(crate) fn remove(&self, link: &Link) {
        self.links.borrow_mut().remove(&link.number);
        self.hellos.borrow_mut().remove(&link.number);
    }

    pub(crate) fn link(&self, number: u32) -> Option<Rc<Link>> {
        self.links.borrow().get(&number).cloned()
    }

    pub(crate) fn links(&self) -> Vec<Rc<Link>> {
        self.links.borrow().values().cloned().collect()
    }

    /// How many links there are, up or not.
    pub(crate) fn len(&self) -> usize {
        self.links.borrow().len()
    }

    /// Other tunnels of the same edge that come from the socket address of this one, over QUIC.
    pub(crate) fn at_address_of(&self, link: &Link) -> Vec<u32> {
        let address = link.quic_address();
        let links = self.links.borrow();
        let same = links.values().filter(|other| {
            address.is_some()
                && other.quic_address() == address
                && other.peer.identity == link.peer.identity
                && other.number != link.number
        });
        same.map(|other| other.number).collect()
    }

    pub(crate) fn put_hello(&self, link: &Link, hello: Hello) {
        self.hellos.borrow_mut().insert(link.number, hello);
    }

    pub(crate) fn hello(&self, number: u32) -> Option<Hello> {
        self.hellos.borrow().get(&number).cloned()
    }

    pub(crate) fn take_hello(&self, link: &Link) -> Option<Hello> {
        self.hellos.borrow_mut().remove(&link.number)
    }

    /// An edge that is not up yet has another trust list in force than its hello said.
    pub(crate) fn note_trust(&self, link: &Link, hash: [u8; 32]) {
        if let Some(hello) = self.hellos.borrow_mut().get_mut(&link.number) {
            hello.trust = Some(hash);
        }
    }

    pub(crate) fn tunnel(&self, edge: &str) -> Option<Rc<EdgeTunnel>> {
        self.tunnels.borrow().get(edge).cloned()
    }

    /// The tunnel of this link, where it is the one that serves its edge.
    pub(crate) fn tunnel_of(&self, link: &Link) -> Option<Rc<EdgeTunnel>> {
        let tunnel = self.tunnel(link.peer.identity.name.as_str());
        tunnel.filter(|tunnel| tunnel.link.number == link.number)
    }

    /// By name of their edges.
    pub(crate) fn tunnels(&self) -> Vec<Rc<EdgeTunnel>> {
        self.tunnels.borrow().values().cloned().collect()
    }

    /// How many are up.
    pub(crate) fn up(&self) -> usize {
        self.tunnels.borrow().len()
    }

    pub(crate) fn put_tunnel(&self, tunnel: &Rc<EdgeTunnel>) {
        let edge = tunnel.link.peer.identity.name.to_string();
        self.tunnels.borrow_mut().insert(edge, tunnel.clone());
    }

    pub(crate) fn remove_tunnel(&self, tunnel: &EdgeTunnel) {
        if self.tunnel_of(&tunnel.link).is_some() {
            let edge = tunnel.link.peer.identity.name.as_str();
            self.tunnels.borrow_mut().remove(edge);
        }
    }

    /// Something happened to a tunnel of `edge`; says what follows from it, in order.
    pub(crate) fn decide(&self, edge: &str, happened: impl FnOnce(&mut Place)) -> Vec<Step> {
        let mut places = self.places.borrow_mut();
        let place = places.entry(edge.to_owned()).or_default();
        happened(place);
        let steps = std::iter::from_fn(|| place.poll_step()).collect();
        if place.is_empty() {
            places.remove(edge);
        }
        steps
    }

    /// A second agent with the key of this edge was refused; whether that is new.
    pub(crate) fn note_duplicate(&self, edge: &str, now: Instant) -> bool {
        let before = self.duplicates.borrow_mut().insert(edge.to_owned(), now);
        before.is_none()
    }

    pub(crate) fn last_duplicate(&self, edge: &str) -> Option<Instant> {
        self.duplicates.borrow().get(edge).copied()
    }

    pub(crate) fn forget_duplicate(&self, edge: &str) {
        self.duplicates.borrow_mut().remove(edge);
    }
}
