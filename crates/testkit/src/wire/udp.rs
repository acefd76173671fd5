//! Datagrams: one upstream socket per client, a delay queue per flow and direction.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, PoisonError};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::{Counters, Direction, Shared};

/// Clients that are known at a time; the one that was silent longest makes room.
const FLOWS: usize = 1_024;

/// Datagrams that one flow may have under way in one direction (64 KiB at most each).
const QUEUE: usize = 1_024;

/// The largest UDP payload.
const DATAGRAM: usize = 65_535;

/// One client: what goes up is put into `up`, what comes down is read by a task.
struct Flow {
    up: mpsc::Sender<Vec<u8>>,
    last_heard: Instant,
    task: JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn forward(socket: UdpSocket, shared: &Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An error here is about an earlier datagram (ICMP), not about this socket.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if !flows.contains_key(&client) {
            make_room(&mut flows);
            if let Ok(flow) = open(&socket, client, shared).await {
                flows.insert(client, flow);
            }
        }
        if let Some(flow) = flows.get_mut(&client) {
            flow.last_heard = Instant::now();
            if flow.up.try_send(buffer[..length].to_vec()).is_err() {
                Counters::add(&shared.counters(Direction::Up).udp_dropped, 1);
            }
        }
    }
}

fn make_room(flows: &mut HashMap<SocketAddr, Flow>) {
    if flows.len() < FLOWS {
        return;
    }
    let silent = flows.iter().min_by_key(|(_, flow)| flow.last_heard);
    if let Some(client) = silent.map(|(client, _)| *client) {
        flows.remove(&client);
    }
}

async fn open(
    socket: &Arc<UdpSocket>,
    client: SocketAddr,
    shared: &Arc<Shared>,
) -> io::Result<Flow> {
    let target = shared.now().target;
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    };
    let upstream = UdpSocket::bind(any).await?;
    upstream.connect(target).await?;
    let (up, queue) = mpsc::channel(QUEUE);
    let socket = Arc::clone(socket);
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        tokio::join!(
            carry_up(queue, &upstream, &shared),
            carry_down(&upstream, &socket, client, &shared),
        );
    });
    Ok(Flow {
        up,
        last_heard: Instant::now(),
        task,
    })
}

async fn carry_up(mut queue: mpsc::Receiver<Vec<u8>>, upstream: &UdpSocket, shared: &Shared) {
    let mut lane = Lane::new(Direction::Up, shared);
    loop {
        tokio::select! {
            datagram = queue.recv() => match datagram {
                Some(datagram) => lane.put(datagram),
                None => return,
            },
            () = lane.due() => {}
        }
        while let Some(datagram) = lane.take() {
            // Refused: nobody listens there at the moment. A network would not care.
            let _ = upstream.send(&datagram).await;
        }
    }
}

async fn carry_down(upstream: &UdpSocket, socket: &UdpSocket, client: SocketAddr, shared: &Shared) {
    let mut lane = Lane::new(Direction::Down, shared);
    let mut buffer = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            received = upstream.recv(&mut buffer) => if let Ok(length) = received {
                lane.put(buffer[..length].to_vec());
            },
            () = lane.due() => {}
        }
        while let Some(datagram) = lane.take() {
            let _ = socket.send_to(&datagram, client).await;
        }
    }
}

/// One direction of one flow: decides a datagram's fate and holds it until it is due.
struct Lane<'a> {
    direction: Direction,
    shared: &'a Shared,
    held: BinaryHeap<Held>,
    sequence: u64,
    /// Later datagrams that keep their order are not due before this.
    not_before: Instant,
}

impl<'a> Lane<'a> {
    fn new(direction: Direction, shared: &'a Shared) -> Self {
        Self {
            direction,
            shared,
            held: BinaryHeap::new(),
            sequence: 0,
            not_before: Instant::now(),
        }
    }

    fn put(&mut self, mut datagram: Vec<u8>) {
        let settings = self.shared.now();
        let fate = {
            let random = self.shared.random.lock();
            let mut random = random.unwrap_or_else(PoisonError::into_inner);
            settings.shape(self.direction).datagram(&mut random)
        };
        if fate.copies == 0 || self.held.len() >= QUEUE || !settings.udp_passes(self.direction) {
            return self.drop_one();
        }
        if let (Some(place), false) = (fate.corrupt_at, datagram.is_empty()) {
            let place = place % datagram.len();
            datagram[place] ^= 0x55;
        }
        let mut due = Instant::now() + fate.delay;
        if !fate.overtaken {
            due = due.max(self.not_before);
            self.not_before = due;
        }
        for _ in 1..fate.copies {
            self.hold(due, datagram.clone());
        }
        self.hold(due, datagram);
    }

    fn hold(&mut self, due: Instant, datagram: Vec<u8>) {
        self.sequence += 1;
        self.held.push(Held {
            due,
            sequence: self.sequence,
            datagram,
        });
    }

    /// Completes when the first datagram is due; never while there is none.
    async fn due(&self) {
        match self.held.peek() {
            Some(first) => pin!(sleep_until(first.due)).await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.held.peek()?.due > Instant::now() {
                return None;
            }
            let datagram = self.held.pop()?.datagram;
            // A cut takes what was under way, too.
            if self.shared.now().udp_passes(self.direction) {
                let counters = self.shared.counters(self.direction);
                Counters::add(&counters.udp_packets, 1);
                Counters::add(&counters.udp_bytes, datagram.len());
                return Some(datagram);
            }
            self.drop_one();
        }
    }

    fn drop_one(&self) {
        Counters::add(&self.shared.counters(self.direction).udp_dropped, 1);
    }
}

struct Held {
    due: Instant,
    sequence: u64,
    datagram: Vec<u8>,
}

/// The heap's greatest is the one that is due first.
impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Held {}
