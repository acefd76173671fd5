//! TCP connections: two streams joined, each direction with its delay.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Counters, Direction, Settings, Shared};

/// Connections at a time; more wait in the kernel's backlog.
const CONNECTIONS: usize = 4_096;

/// Bytes of one piece, and pieces under way per direction: 1 MiB at most.
const PIECE: usize = 16 * 1024;
const PIECES: usize = 64;

pub(super) async fn forward(listener: TcpListener, shared: &Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut resets = shared.now().resets;
    loop {
        tokio::select! {
            biased;
            () = until(shared, |settings| settings.resets != resets) => {
                reset_backlog(&listener).await;
                resets = shared.now().resets;
                shared.resets_done.store(resets, Ordering::Release);
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                if let Ok((client, _)) = accepted {
                    Counters::add(&shared.counters(Direction::Up).tcp_connections, 1);
                    connections.spawn(connection(client, resets, Arc::clone(shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Resets what the kernel has accepted and nobody has looked at.
async fn reset_backlog(listener: &TcpListener) {
    const QUIET: Duration = Duration::from_millis(1);
    while let Ok(Ok((client, _))) = timeout(QUIET, listener.accept()).await {
        let _ = client.set_zero_linger();
    }
}

async fn connection(mut client: TcpStream, resets: u64, shared: Arc<Shared>) {
    if serve(&mut client, resets, &shared).await.is_err() {
        // Closing without lingering sends a reset. It fails only for a dead socket.
        let _ = client.set_zero_linger();
    }
}

/// Dials the target and carries both directions until both have ended, or one has failed,
/// or the wire resets its connections.
async fn serve(client: &mut TcpStream, resets: u64, shared: &Shared) -> io::Result<()> {
    let mut reset = pin!(until(shared, |settings| settings.resets != resets));
    let mut server = tokio::select! {
        server = dial(shared) => server?,
        () = &mut reset => return Err(io::ErrorKind::ConnectionReset.into()),
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let carried = tokio::select! {
        carried = join(client, &mut server, shared) => carried,
        () = &mut reset => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if carried.is_err() {
        server.set_zero_linger()?;
    }
    carried
}

async fn dial(shared: &Shared) -> io::Result<TcpStream> {
    until(shared, |settings| settings.tcp_passes(Direction::Up)).await;
    let target = shared.now().target;
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The target may have accepted before this side knows: a reset in between is one, too.
    socket.set_zero_linger()?;
    let stream = socket.connect(target).await?;
    SockRef::from(&stream).set_linger(None)?;
    Ok(stream)
}

async fn join(client: &mut TcpStream, server: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    tokio::try_join!(
        carry(client_read, server_write, Direction::Up, shared),
        carry(server_read, client_write, Direction::Down, shared),
    )?;
    Ok(())
}

async fn carry(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    let (pieces, queue) = mpsc::channel(PIECES);
    tokio::try_join!(
        take_in(from, pieces, direction, shared),
        give_out(queue, to, direction, shared),
    )?;
    Ok(())
}

/// A piece of the stream and when it may go on; an empty one is the end.
type Piece = (Instant, Vec<u8>);

async fn take_in(
    mut from: ReadHalf<'_>,
    pieces: mpsc::Sender<Piece>,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    let mut not_before = Instant::now();
    let mut buffer = vec![0; PIECE];
    loop {
        until(shared, |settings| settings.tcp_passes(direction)).await;
        let length = from.read(&mut buffer).await?;
        let delay = {
            let random = shared.random.lock();
            let mut random = random.unwrap_or_else(PoisonError::into_inner);
            shared.now().shape(direction).piece(&mut random)
        };
        not_before = not_before.max(Instant::now() + delay);
        let piece = (not_before, buffer[..length].to_vec());
        if pieces.send(piece).await.is_err() || length == 0 {
            return Ok(());
        }
    }
}

async fn give_out(
    mut queue: mpsc::Receiver<Piece>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    while let Some((due, piece)) = queue.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        until(shared, |settings| settings.tcp_passes(direction)).await;
        if piece.is_empty() {
            return to.shutdown().await;
        }
        // Counted first: whoever has received the bytes finds them counted.
        Counters::add(&shared.counters(direction).tcp_bytes, piece.len());
        to.write_all(&piece).await?;
    }
    Ok(())
}

/// Waits for a state of the wire. The sender lives as long as the wire's thread.
async fn until(shared: &Shared, condition: impl Fn(&Settings) -> bool) {
    if !condition(&shared.now()) {
        let _ = shared
            .settings
            .clone()
            .wait_for(|settings| condition(settings))
            .await;
    }
}
