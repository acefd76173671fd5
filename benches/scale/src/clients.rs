//! Modbus clients that poll devices through the headend, on a thread of their own.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fieldlock_modbus::mbap;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// Reads ten holding registers.
const READ: [u8; 5] = [3, 0, 0, 0, 10];

/// What polls came to.
#[derive(Debug)]
pub(crate) struct Polls {
    /// Microseconds of those that were answered with data.
    pub(crate) latency: Histogram<u64>,
    /// Exceptions by code; 0 for those that are still without an answer after [`LOST`].
    pub(crate) exceptions: HashMap<u8, usize>,
}

const LOST: Duration = Duration::from_secs(5);

impl Default for Polls {
    fn default() -> Self {
        Self {
            // Cannot fail: three digits are within 0 to 5.
            latency: Histogram::new(3).unwrap_or_else(|_| unreachable!()),
            exceptions: HashMap::new(),
        }
    }
}

impl Polls {
    pub(crate) fn failed(&self) -> usize {
        self.exceptions.values().sum()
    }

    /// Milliseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Clients that poll until this is dropped.
pub(crate) struct Clients {
    polls: Arc<Mutex<Polls>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Clients {
    /// Polls each of `devices` (address and unit) once `every`; devices of one address share a
    /// connection.
    pub(crate) fn start(devices: &[(SocketAddr, u8)], every: Duration) -> Self {
        let polls = Arc::<Mutex<Polls>>::default();
        let stop = Arc::<AtomicBool>::default();
        let mut connections: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        for &(address, unit) in devices {
            match connections.last_mut() {
                Some((last, units)) if *last == address => units.push(unit),
                _ => connections.push((address, vec![unit])),
            }
        }
        let thread = {
            let (polls, stop) = (polls.clone(), stop.clone());
            std::thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let mut clients = JoinSet::new();
                    let count = connections.len() as u32;
                    for (number, (address, units)) in (0..).zip(connections) {
                        let phase = every * number / count.max(1);
                        let (polls, stop) = (polls.clone(), stop.clone());
                        clients.spawn(client(address, units, every, phase, polls, stop));
                    }
                    while let Some(client) = clients.join_next().await {
                        client??;
                    }
                    Ok(())
                })
            })
        };
        Self {
            polls,
            stop,
            thread: Some(thread),
        }
    }

    /// What polls came to since the last look.
    pub(crate) fn take(&self) -> Polls {
        std::mem::take(&mut *self.polls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connects until it is let in; a headend that restarts loses its clients.
async fn client(
    address: SocketAddr,
    units: Vec<u8>,
    every: Duration,
    phase: Duration,
    polls: Arc<Mutex<Polls>>,
    stop: Arc<AtomicBool>,
) -> io::Result<()> {
    tokio::time::sleep(phase).await;
    while !stop.load(Relaxed) {
        let asked = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            poll(stream, &units, every, &polls, &stop).await
        };
        if asked.await.is_err() {
            tokio::time::sleep(every).await;
        }
    }
    Ok(())
}

async fn poll(
    mut stream: TcpStream,
    units: &[u8],
    every: Duration,
    polls: &Mutex<Polls>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let step = every / u32::try_from(units.len()).unwrap_or(1).max(1);
    let mut asked: HashMap<u16, Instant> = HashMap::new();
    let mut input = Vec::new();
    let mut output = Vec::new();
    let (mut transaction, mut turn) = (0u16, units.iter().cycle());
    let mut next = Instant::now();
    while !stop.load(Relaxed) {
        tokio::select! {
            count = stream.read_buf(&mut input) => {
                if count? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                take_answers(&mut input, &mut asked, polls);
            }
            () = sleep_until(next.into()) => {
                let now = Instant::now();
                while next <= now {
                    next += step;
                    transaction = transaction.wrapping_add(1);
                    asked.insert(transaction, now);
                    let unit = turn.next().copied().unwrap_or(1);
                    mbap::encode(&mut output, transaction, unit, &READ);
                }
                stream.write_all(&output).await?;
                output.clear();
                let before = asked.len();
                asked.retain(|_, at| now.duration_since(*at) < LOST);
                let lost = before - asked.len();
                if lost > 0 {
                    let mut polls = polls.lock().unwrap_or_else(PoisonError::into_inner);
                    *polls.exceptions.entry(0).or_default() += lost;
                }
            }
        }
    }
    Ok(())
}

fn take_answers(input: &mut Vec<u8>, asked: &mut HashMap<u16, Instant>, polls: &Mutex<Polls>) {
    let mut polls = polls.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut used = 0;
    // Transaction, protocol, length, unit, function, and the first octet of what it says.
    while let [t1, t0, _, _, l1, l0, _, function, said, ..] = input[used..] {
        let whole = 6 + usize::from(u16::from_be_bytes([l1, l0]));
        if input.len() - used < whole {
            break;
        }
        used += whole;
        let Some(at) = asked.remove(&u16::from_be_bytes([t1, t0])) else {
            continue;
        };
        if function & 0x80 == 0 {
            let micros = now.duration_since(at).as_micros();
            // It grows to whatever comes.
            let _ = polls
                .latency
                .record(u64::try_from(micros).unwrap_or(u64::MAX));
        } else {
            *polls.exceptions.entry(said).or_default() += 1;
        }
    }
    input.drain(..used);
}
