//! A network of one hop between real sockets on loopback, in user space: what `netem` and a
//! pulled cable do, without root.
//!
//! A [`Wire`] listens on one port number for UDP and TCP and forwards to the same port
//! number of its target, as a router with NAT would: each UDP client gets a socket of its
//! own. It runs on a thread with its own runtime; a test calls it as ordinary functions.
//!
//! Where it differs from a real network:
//! - The kernel completes TCP handshakes and acknowledges bytes on the wire's behalf. A cut
//!   therefore looks like silence after a handshake, never like a connect that hangs.
//! - TCP does not lose bytes here. A loss is the stall that a retransmission would be
//!   ([`RETRANSMISSION`]); duplicates, reordering and corruption apply to UDP only.

mod shape;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::random::Random;
use crate::wait::wait_until;
pub use shape::{RETRANSMISSION, Shape};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who dialled to the target.
    Up,
    /// From the target to who dialled.
    Down,
}

/// The wire's state at one moment. Changes take effect at once, for what is under way too.
#[derive(Debug, Clone, Copy)]
struct Settings {
    target: SocketAddr,
    shapes: [Shape; 2],
    udp_blocked: bool,
    tcp_blocked: bool,
    /// Counts calls of [`Wire::reset_tcp`]: a connection of an older count goes.
    resets: u64,
}

impl Settings {
    fn shape(&self, direction: Direction) -> &Shape {
        &self.shapes[direction as usize]
    }

    fn udp_passes(&self, direction: Direction) -> bool {
        !self.udp_blocked && !self.shape(direction).cut
    }

    fn tcp_passes(&self, direction: Direction) -> bool {
        !self.tcp_blocked && !self.shape(direction).cut
    }
}

/// What one direction has carried and dropped since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    pub udp_packets: u64,
    pub udp_bytes: u64,
    /// Lost, cut off, blocked, or over the bound of the delay queue.
    pub udp_dropped: u64,
    pub tcp_bytes: u64,
    /// TCP connections accepted (counted upwards only).
    pub tcp_connections: u64,
}

#[derive(Debug, Default)]
struct Counters {
    udp_packets: AtomicU64,
    udp_bytes: AtomicU64,
    udp_dropped: AtomicU64,
    tcp_bytes: AtomicU64,
    tcp_connections: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Carried {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Carried {
            udp_packets: load(&self.udp_packets),
            udp_bytes: load(&self.udp_bytes),
            udp_dropped: load(&self.udp_dropped),
            tcp_bytes: load(&self.tcp_bytes),
            tcp_connections: load(&self.tcp_connections),
        }
    }
}

/// What the tasks on the wire's thread share.
#[derive(Debug)]
struct Shared {
    settings: watch::Receiver<Settings>,
    counters: [Counters; 2],
    /// The last of [`Settings::resets`] that new connections are safe from.
    resets_done: AtomicU64,
    random: Mutex<Random>,
}

impl Shared {
    fn now(&self) -> Settings {
        *self.settings.borrow()
    }

    fn counters(&self, direction: Direction) -> &Counters {
        &self.counters[direction as usize]
    }
}

/// A running wire. It ends, and closes everything, when dropped.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    settings: watch::Sender<Settings>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// A perfect wire to `target`, with an address of the same family on loopback.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_seeded(target, 1)
    }

    /// As [`start`](Self::start), with the seed of everything random.
    pub fn start_seeded(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let (udp, tcp) = bind_both(target)?;
        let address = tcp.local_addr()?;
        let (settings, receiver) = watch::channel(Settings {
            target,
            shapes: [Shape::default(); 2],
            udp_blocked: false,
            tcp_blocked: false,
            resets: 0,
        });
        let shared = Arc::new(Shared {
            settings: receiver,
            counters: Default::default(),
            resets_done: AtomicU64::new(0),
            random: Mutex::new(Random::seeded(seed)),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tasks = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("wire".to_owned())
            .spawn(move || {
                runtime.block_on(run(udp, tcp, tasks, stopped));
            })?;
        Ok(Self {
            address,
            settings,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where to dial, for UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops everything, silently. TCP connections stay open and stand still; new ones are
    /// accepted and stand still too.
    pub fn cut(&self) {
        self.change(|settings| {
            settings
                .shapes
                .iter_mut()
                .for_each(|shape| shape.cut = true)
        });
    }

    /// Ends a [`cut`](Self::cut): TCP goes on where it stood, as after retransmission.
    pub fn restore(&self) {
        self.change(|settings| {
            settings
                .shapes
                .iter_mut()
                .for_each(|shape| shape.cut = false)
        });
    }

    /// A firewall that drops UDP only.
    pub fn block_udp(&self, blocked: bool) {
        self.change(|settings| settings.udp_blocked = blocked);
    }

    /// A firewall that drops TCP only: connections stand still.
    pub fn block_tcp(&self, blocked: bool) {
        self.change(|settings| settings.tcp_blocked = blocked);
    }

    /// Resets every TCP connection that exists, at both ends. One that is opened after the
    /// return lives.
    pub fn reset_tcp(&self) {
        self.change(|settings| settings.resets += 1);
        let wanted = self.shared.now().resets;
        let done = || self.shared.resets_done.load(Ordering::Acquire) >= wanted;
        // In vain only when the wire's thread is dead; its panic has been printed then.
        let _ = wait_until("the reset", Duration::from_secs(5), done);
    }

    /// Loses this share (0.0 to 1.0) of what goes in either direction.
    pub fn loss(&self, share: f64) {
        self.shape_both(|shape| shape.loss = share);
    }

    /// Delays both directions, so that a round trip takes `2 * delay` longer (and up to
    /// `2 * jitter` more).
    pub fn delay(&self, delay: Duration, jitter: Duration) {
        self.shape_both(|shape| (shape.delay, shape.jitter) = (delay, jitter));
    }

    /// Changes one direction.
    pub fn shape(&self, direction: Direction, change: impl FnOnce(&mut Shape)) {
        self.change(|settings| change(&mut settings.shapes[direction as usize]));
    }

    /// Changes both directions alike.
    pub fn shape_both(&self, change: impl Fn(&mut Shape)) {
        self.change(|settings| settings.shapes.iter_mut().for_each(&change));
    }

    /// New UDP clients and TCP connections go to another target (of the same family);
    /// those that exist stay where they are.
    pub fn redirect(&self, target: SocketAddr) {
        self.change(|settings| settings.target = target);
    }

    pub fn carried(&self, direction: Direction) -> Carried {
        self.shared.counters(direction).read()
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        self.settings.send_modify(change);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can only fail by a panic, which has been printed by then.
            let _ = thread.join();
        }
    }
}

async fn run(
    udp: UdpSocket,
    tcp: TcpListener,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    let listeners = (
        tokio::net::UdpSocket::from_std(udp),
        tokio::net::TcpListener::from_std(tcp),
    );
    if let (Ok(udp), Ok(tcp)) = listeners {
        tokio::select! {
            () = udp::forward(udp, &shared) => {}
            () = tcp::forward(tcp, &shared) => {}
            _ = stopped => {}
        }
    }
}

/// One port number for both protocols: TCP's is chosen by the kernel, and UDP's may be
/// taken, hence several tries.
fn bind_both(target: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let local = match target.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let tcp = TcpListener::bind((local, 0))?;
        match UdpSocket::bind(tcp.local_addr()?) {
            Ok(udp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp));
            }
            Err(error) if tries >= 64 => return Err(error),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
