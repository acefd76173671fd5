//! The wire in front of a UDP port.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use fieldlock_rawsock::Timer;
use fieldlock_testkit::link::{Link, damage};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::carrier::Carrier;
use crate::log::{Log, Stream};
use crate::options::Options;
use crate::shell;

/// Clients that are known at a time; the one that was silent longest makes room.
const CLIENTS: usize = 1_024;

/// The largest UDP payload.
const LONGEST: usize = 65_507;

/// Answers that wait to be decided about; more are lost, as at a full network card.
const WAITING: usize = 4_096;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  The edge dials 127.0.0.1:4433, the headend listens on 127.0.0.1:4434:
    fieldlock-wire udp --listen 127.0.0.1:4433 --to 127.0.0.1:4434 --loss 1% --jitter 20ms
  A line of 2 Mbit/s with 50 ms there and back, logged:
    fieldlock-wire udp --listen 127.0.0.1:4433 --to 127.0.0.1:4434 \\
        --rate 2mbit --delay 25ms --seed 3 --log run.csv")]
pub(crate) struct UdpCommand {
    /// Where clients send to.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where it goes.
    #[arg(long, value_name = "ADDRESS")]
    to: SocketAddr,
    #[command(flatten)]
    pub(crate) options: Options,
}

impl UdpCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        shell::block_on(carry(self))
    }
}

/// A client: a socket and two links of its own.
struct Client {
    number: u64,
    upstream: Arc<UdpSocket>,
    links: [Link; 2],
    last_heard: Instant,
    answers: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// An answer from the target.
struct Answer {
    to: SocketAddr,
    at: Instant,
    datagram: Vec<u8>,
}

async fn carry(command: UdpCommand) -> Result<(), Failure> {
    let UdpCommand {
        listen,
        to,
        options,
    } = command;
    let start = Instant::now();
    let socket = UdpSocket::bind(listen)
        .await
        .map_err(|error| format!("listening on {listen}: {error}"))?;
    let mut log = Log::create(options.log.as_deref(), start)?;
    let mut carrier: Carrier<(SocketAddr, u8)> = Carrier::new();
    let mut timer = Timer::new()?;
    let mut end = std::pin::pin!(shell::end(start, options.duration));
    let (answers, mut answered) = mpsc::channel::<Answer>(WAITING);
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut count = 0;
    let mut buffer = vec![0; LONGEST];
    println!("carrying from {} to {to}", socket.local_addr()?);
    loop {
        timer.set(carrier.poll_timeout())?;
        let (address, direction, now, datagram) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, client)) => (client, 0, Instant::now(), buffer[..length].to_vec()),
                // About a datagram that was sent before (ICMP), not about this socket.
                Err(_) => continue,
            },
            // It lives: `answers` does.
            Some(Answer { to, at, datagram }) = answered.recv() => (to, 1, at, datagram),
            expired = timer.expired() => {
                expired?;
                while let Some((lane, datagram)) = carrier.poll(Instant::now()) {
                    deliver(&socket, &clients, lane, &datagram);
                }
                continue;
            }
            ended = &mut end => {
                ended?;
                break;
            }
        };
        if direction == 0 && !clients.contains_key(&address) {
            make_room(&mut clients);
            let upstream = Arc::new(connect(to).await?);
            let stream = |direction| Stream {
                client: count,
                direction,
            };
            clients.insert(
                address,
                Client {
                    number: count,
                    links: [0, 1].map(|direction| stream(direction).link(&options, start)),
                    last_heard: now,
                    answers: tokio::spawn(listen_to(
                        Arc::clone(&upstream),
                        address,
                        answers.clone(),
                    )),
                    upstream,
                },
            );
            count += 1;
        }
        let Some(client) = clients.get_mut(&address) else {
            continue;
        };
        client.last_heard = now;
        let stream = Stream {
            client: client.number,
            direction,
        };
        let length = datagram.len();
        let link = &mut client.links[usize::from(direction)];
        let fate = carrier.handle(now, link, (address, direction), datagram, damage);
        log.write(now, stream, length, fate)?;
    }
    log.flush()?;
    shell::report(carrier.totals());
    Ok(())
}

/// Errors and full buffers are losses, as in a network.
fn deliver(
    socket: &UdpSocket,
    clients: &HashMap<SocketAddr, Client>,
    (address, direction): (SocketAddr, u8),
    datagram: &[u8],
) {
    if direction == 1 {
        let _ = socket.try_send_to(datagram, address);
    } else if let Some(client) = clients.get(&address) {
        let _ = client.upstream.try_send(datagram);
    }
}

fn make_room(clients: &mut HashMap<SocketAddr, Client>) {
    if clients.len() < CLIENTS {
        return;
    }
    let silent = clients.iter().min_by_key(|(_, client)| client.last_heard);
    if let Some(address) = silent.map(|(address, _)| *address) {
        clients.remove(&address);
    }
}

async fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

async fn listen_to(upstream: Arc<UdpSocket>, to: SocketAddr, answers: mpsc::Sender<Answer>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        // Refused: nobody listens there at the moment.
        let Ok(length) = upstream.recv(&mut buffer).await else {
            continue;
        };
        let answer = Answer {
            to,
            at: Instant::now(),
            datagram: buffer[..length].to_vec(),
        };
        if let Err(mpsc::error::TrySendError::Closed(_)) = answers.try_send(answer) {
            return;
        }
    }
}
