//! The load: closed-loop clients as tasks of one current_thread runtime in this process.
//!
//! Per request it costs one write, one or two reads and its share of an `epoll_wait`; no
//! timer, no allocation. The same load drives every contender, so what it costs is in
//! `direct` too.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::server::{ANSWER, READ_HOLDING, REGISTERS, REQUEST, value_at};
use crate::shape::Shape;
use fieldlock_testkit::usage::{Snapshot, Usage};

pub(crate) const UNIT: u8 = 1;

/// Start addresses that are asked for, in turn.
const ADDRESSES: u16 = 90;

/// Requests of each client before the clock starts.
const WARM_UP: u16 = 5;

/// New connections in one measurement: each leaves a port in TIME_WAIT behind, and there
/// are 28,000.
const NEW_CONNECTIONS: u64 = 2_000;

/// After the end of a measurement, until outstanding answers are given up.
const GRACE: Duration = Duration::from_secs(5);

/// What one measurement gave.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Of good answers, ascending.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) errors: Vec<String>,
    pub(crate) elapsed: Duration,
    pub(crate) usage: Usage,
}

/// Measures one shape through `address`, with the usage of `processes` meanwhile.
pub(crate) async fn measure(
    address: SocketAddr,
    shape: Shape,
    seconds: Duration,
    processes: &[u32],
) -> Window {
    let start = Arc::new(Barrier::new(shape.clients() + 1));
    let mut clients = JoinSet::new();
    for seed in 0..shape.clients() {
        let client = Client::new(address, shape, seed as u16);
        clients.spawn(client.run(Arc::clone(&start), seconds));
    }
    let mut window = Window::default();
    if timeout(GRACE, start.wait()).await.is_err() {
        window
            .errors
            .push("could not start: no connection or no answer".to_owned());
        return window;
    }
    let before = Snapshot::take(processes);
    let started = Instant::now();
    let collected = timeout(seconds + GRACE, async {
        while let Some(tally) = clients.join_next().await {
            match tally {
                Ok(tally) => window.add(tally),
                Err(error) => window.errors.push(error.to_string()),
            }
        }
    });
    if collected.await.is_err() {
        let lost = clients.len();
        window
            .errors
            .push(format!("{lost} clients without an answer for {GRACE:?}"));
    }
    window.elapsed = started.elapsed();
    window.usage = Snapshot::take(processes).since(&before);
    window.latencies.sort_unstable();
    window
}

impl Window {
    fn add(&mut self, tally: Tally) {
        self.latencies.extend(tally.latencies);
        self.errors
            .extend(tally.error.map(|error| error.to_string()));
    }
}

/// One client's part. The first error ends it.
#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    error: Option<io::Error>,
}

struct Client {
    address: SocketAddr,
    shape: Shape,
    transaction: u16,
    connection: Option<TcpStream>,
}

impl Client {
    fn new(address: SocketAddr, shape: Shape, seed: u16) -> Self {
        Self {
            address,
            shape,
            // Clients ask for different addresses at a time and share transaction ids.
            transaction: seed,
            connection: None,
        }
    }

    async fn run(mut self, start: Arc<Barrier>, seconds: Duration) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..WARM_UP {
            if let Err(error) = self.request().await {
                tally.error = Some(error);
                break;
            }
        }
        start.wait().await;
        let end = Instant::now() + seconds;
        if self.shape.in_flight() > 1 {
            if let Err(error) = self.pipeline(end, &mut tally.latencies).await {
                tally.error = Some(error);
            }
            return tally;
        }
        let mut left = match self.shape {
            Shape::New => NEW_CONNECTIONS,
            _ => u64::MAX,
        };
        while tally.error.is_none() && left > 0 && Instant::now() < end {
            let begun = Instant::now();
            match self.request().await {
                Ok(()) => tally.latencies.push(begun.elapsed()),
                Err(error) => tally.error = Some(error),
            }
            left -= 1;
            if let Some(pause) = self.shape.pause() {
                sleep(pause).await;
            }
        }
        tally
    }

    /// Keeps as many requests in flight as the shape says; answers come in the order of the
    /// requests, or it is an error.
    async fn pipeline(&mut self, end: Instant, latencies: &mut Vec<Duration>) -> io::Result<()> {
        let Some(mut stream) = self.connection.take() else {
            return Ok(());
        };
        let mut sent = VecDeque::with_capacity(self.shape.in_flight());
        let (mut output, mut input) = (Vec::new(), Vec::new());
        loop {
            let now = Instant::now();
            while sent.len() < self.shape.in_flight() && now < end {
                self.transaction = self.transaction.wrapping_add(1);
                let address = self.transaction % ADDRESSES;
                output.extend(request(self.transaction, address));
                sent.push_back((self.transaction, address, now));
            }
            if sent.is_empty() {
                return Ok(());
            }
            stream.write_all(&output).await?;
            output.clear();
            if stream.read_buf(&mut input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (answers, rest) = input.as_chunks::<ANSWER>();
            for answer in answers {
                let (transaction, address, begun) =
                    sent.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                check(answer, transaction, address)?;
                latencies.push(begun.elapsed());
            }
            let rest = input.len() - rest.len();
            input.drain(..rest);
        }
    }

    async fn request(&mut self) -> io::Result<()> {
        let mut stream = match self.connection.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        self.transaction = self.transaction.wrapping_add(1);
        let address = match self.shape.asks_the_same() {
            true => 0,
            false => self.transaction % ADDRESSES,
        };
        stream
            .write_all(&request(self.transaction, address))
            .await?;
        let mut answer = [0; ANSWER];
        stream.read_exact(&mut answer).await?;
        check(&answer, self.transaction, address)?;
        if !self.shape.connects_anew() {
            self.connection = Some(stream);
        }
        Ok(())
    }
}

fn request(transaction: u16, address: u16) -> [u8; REQUEST] {
    let [t1, t0] = transaction.to_be_bytes();
    let [a1, a0] = address.to_be_bytes();
    let [c1, c0] = REGISTERS.to_be_bytes();
    [t1, t0, 0, 0, 0, 6, UNIT, READ_HOLDING, a1, a0, c1, c0]
}

fn check(answer: &[u8; ANSWER], transaction: u16, address: u16) -> io::Result<()> {
    let [t1, t0] = transaction.to_be_bytes();
    let bytes = 2 * REGISTERS as u8;
    let header = [t1, t0, 0, 0, 0, bytes + 3, UNIT, READ_HOLDING, bytes];
    let (head, values) = answer.split_at(header.len());
    let values = values
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    if head == header && values.eq((address..address + REGISTERS).map(value_at)) {
        return Ok(());
    }
    let text = format!("wrong answer to transaction {transaction}: {answer:02x?}");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_request_is_noticed() {
        let mut answer = [0; ANSWER];
        answer[..9].copy_from_slice(&[0, 9, 0, 0, 0, 23, UNIT, 3, 20]);
        for (step, pair) in answer[9..].chunks_exact_mut(2).enumerate() {
            pair.copy_from_slice(&value_at(40 + step as u16).to_be_bytes());
        }
        assert!(check(&answer, 9, 40).is_ok());
        assert!(check(&answer, 9, 41).is_err());
        assert!(check(&answer, 8, 40).is_err());
    }
}
