//! A Modbus/TCP server that breaks the protocol on purpose, request by request.
//!
//! It holds 65,536 registers that read as their own address; a write is echoed and stored
//! nowhere but in [`Faulty::received`]. Its framing is its own, so that a misunderstanding in
//! ours can't hide here.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const HEADER: usize = 7;

/// Requests remembered. Beyond it the server goes on and remembers no more.
const MAX_RECEIVED: usize = 100_000;

/// What to do with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answer as one should.
    None,
    /// No answer; the connection stays.
    Silent,
    /// The right answer, this much too late. What follows on the connection waits behind it.
    Late(Duration),
    /// An answer with the transaction id plus one.
    WrongTransaction,
    /// An answer with the unit id plus one.
    WrongUnit,
    /// The answer of another function.
    WrongFunction,
    /// A byte count that says one register fewer than was asked, or an echo of another address.
    WrongContent,
    /// The same answer twice.
    Twice,
    /// Half of the answer, then the connection closes.
    Torn,
    /// The connection closes without an answer.
    Close,
    /// Bytes that are not Modbus; the connection stays.
    Garbage,
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Counted from 0 in the order of acceptance.
    pub connection: u64,
    pub transaction: u16,
    pub unit: u8,
    pub pdu: Vec<u8>,
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Faulty {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    _task: JoinSet<()>,
}

impl Faulty {
    /// `script` says what to do with the nth request, counted from 0 over all connections.
    pub async fn start(
        address: SocketAddr,
        script: impl Fn(u64) -> Fault + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let log = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(accept(listener, Arc::new(script), Arc::clone(&log)));
        Ok(Self {
            address,
            log,
            _task: task,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far, in the order in which they were read.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.log).received.clone()
    }
}

#[derive(Debug, Default)]
struct Log {
    received: Vec<Received>,
    count: u64,
}

impl Log {
    /// Returns the request's number.
    fn remember(&mut self, request: &Received) -> u64 {
        if self.received.len() < MAX_RECEIVED {
            self.received.push(request.clone());
        }
        self.count += 1;
        self.count - 1
    }
}

type Script = Arc<dyn Fn(u64) -> Fault + Send + Sync>;

async fn accept(listener: TcpListener, script: Script, log: Arc<Mutex<Log>>) {
    let mut connections = JoinSet::new();
    for connection in 0.. {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let (script, log) = (Arc::clone(&script), Arc::clone(&log));
        connections.spawn(async move {
            // The peer closed, or the script did: either way the connection is over.
            let _ = serve(stream, connection, &script, &log).await;
        });
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: u64,
    script: &Script,
    log: &Mutex<Log>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let request = read_request(&mut stream, connection).await?;
        let number = lock(log).remember(&request);
        let fault = script(number);
        if let Fault::Late(delay) = fault {
            tokio::time::sleep(delay).await;
        }
        let (bytes, close) = answer(&request, fault);
        stream.write_all(&bytes).await?;
        if close {
            return Ok(());
        }
    }
}

async fn read_request(stream: &mut TcpStream, connection: u64) -> io::Result<Received> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let length = u16::from_be_bytes([header[4], header[5]]);
    let mut pdu = vec![0; usize::from(length).saturating_sub(1)];
    stream.read_exact(&mut pdu).await?;
    Ok(Received {
        connection,
        transaction: u16::from_be_bytes([header[0], header[1]]),
        unit: header[6],
        pdu,
    })
}

/// What goes on the wire, and whether the connection closes after it.
fn answer(request: &Received, fault: Fault) -> (Vec<u8>, bool) {
    let Received {
        transaction, unit, ..
    } = *request;
    let right = || frame(transaction, unit, &answer_pdu(&request.pdu));
    match fault {
        Fault::None | Fault::Late(_) => (right(), false),
        Fault::Silent => (Vec::new(), false),
        Fault::Close => (Vec::new(), true),
        Fault::Garbage => (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), false),
        Fault::Twice => (right().repeat(2), false),
        Fault::Torn => {
            let whole = right();
            (whole[..whole.len() / 2].to_vec(), true)
        }
        Fault::WrongTransaction => {
            let pdu = answer_pdu(&request.pdu);
            (frame(transaction.wrapping_add(1), unit, &pdu), false)
        }
        Fault::WrongUnit => {
            let pdu = answer_pdu(&request.pdu);
            (frame(transaction, unit.wrapping_add(1), &pdu), false)
        }
        Fault::WrongFunction => {
            let mut pdu = answer_pdu(&request.pdu);
            pdu[0] = if pdu[0] == 3 { 4 } else { 3 };
            (frame(transaction, unit, &pdu), false)
        }
        Fault::WrongContent => {
            let pdu = spoiled(answer_pdu(&request.pdu));
            (frame(transaction, unit, &pdu), false)
        }
    }
}

fn frame(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let [transaction_high, transaction_low] = transaction.to_be_bytes();
    let [length_high, length_low] = (pdu.len() as u16 + 1).to_be_bytes();
    let mut bytes = vec![transaction_high, transaction_low, 0, 0];
    bytes.extend_from_slice(&[length_high, length_low, unit]);
    bytes.extend_from_slice(pdu);
    bytes
}

/// Never empty. Reads of registers give addresses, writes an echo, the rest exception 0x01.
fn answer_pdu(request: &[u8]) -> Vec<u8> {
    match *request {
        [function @ (3 | 4), a, b, 0, count @ 1..=125] => {
            let first = u16::from_be_bytes([a, b]);
            let registers = (0..u16::from(count)).flat_map(|n| first.wrapping_add(n).to_be_bytes());
            [function, 2 * count].into_iter().chain(registers).collect()
        }
        [5 | 6 | 22, ..] => request.to_vec(),
        [15 | 16, _, _, _, _, ..] => request[..5].to_vec(),
        [function, ..] => vec![function | 0x80, 1],
        [] => vec![0x80, 1],
    }
}

fn spoiled(mut pdu: Vec<u8>) -> Vec<u8> {
    match pdu[..] {
        [3 | 4, count, ..] => {
            pdu.truncate(pdu.len() - 2);
            pdu[1] = count - 2;
        }
        [_, _, _, ..] => pdu[2] ^= 1,
        _ => pdu.push(0),
    }
    pdu
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: [u8; 5] = [3, 0, 40, 0, 2];

    #[tokio::test]
    async fn the_script_is_followed_request_by_request() {
        let script = [
            (Fault::None, "0001 0000 0007 01 0304 0028 0029"),
            (Fault::WrongTransaction, "0002 0000 0007 01 0304 0028 0029"),
            (Fault::WrongUnit, "0001 0000 0007 02 0304 0028 0029"),
            (Fault::WrongFunction, "0001 0000 0007 01 0404 0028 0029"),
            (Fault::WrongContent, "0001 0000 0005 01 0302 0028"),
            (Fault::Torn, "0001 0000 0007"),
        ];
        let faults = script.map(|(fault, _)| fault);
        let server = start(move |n| faults[n as usize]).await;
        let mut client = TcpStream::connect(server.address()).await.unwrap();
        for (fault, wanted) in script {
            client.write_all(&frame(1, 1, &READ)).await.unwrap();
            let wanted = unhex(wanted);
            let mut got = vec![0; wanted.len()];
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(got, wanted, "{fault:?}");
        }
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert_eq!(server.received().len(), script.len());
    }

    #[tokio::test]
    async fn silence_keeps_the_connection_and_writes_are_counted() {
        let server = start(|n| if n == 0 { Fault::Silent } else { Fault::None }).await;
        let mut client = TcpStream::connect(server.address()).await.unwrap();
        let write = [6, 0, 40, 3, 0xE8];
        client.write_all(&frame(7, 1, &write)).await.unwrap();
        client.write_all(&frame(8, 1, &write)).await.unwrap();
        let mut got = [0; 12];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got[..], frame(8, 1, &write)[..]);
        let transactions: Vec<_> = server.received().iter().map(|r| r.transaction).collect();
        assert_eq!(transactions, [7, 8]);
    }

    #[tokio::test]
    async fn dropping_it_closes_its_connections() {
        let server = start(|_| Fault::None).await;
        let mut client = TcpStream::connect(server.address()).await.unwrap();
        client.write_all(&frame(1, 1, &READ)).await.unwrap();
        client.read_exact(&mut [0; 13]).await.unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }

    async fn start(script: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Faulty {
        Faulty::start(([127, 0, 0, 1], 0).into(), script)
            .await
            .unwrap()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect()
    }
}
