//! A raw Modbus/TCP client on blocking sockets.
//!
//! It shares no code with the product, so that a misunderstanding in our codec can't hide
//! in the test that should find it.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

const HEADER: usize = 7;

/// Time for connecting and, unless told otherwise, for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection. Transaction ids count up from 1.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    transaction: u16,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    /// Connects from a local address of choice, 127.0.0.2 for example, so that policies can
    /// tell clients on loopback apart.
    pub fn connect_from(local: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(local, 0).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Self::over(socket.into())
    }

    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            transaction: 0,
        })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are, whole ADUs or not.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one request and returns its transaction id.
    pub fn send_request(&mut self, unit: u8, pdu: &[u8]) -> io::Result<u16> {
        self.transaction = self.transaction.wrapping_add(1);
        self.send(&adu(self.transaction, unit, pdu))?;
        Ok(self.transaction)
    }

    /// One request, one answer: its PDU. An answer with another transaction or unit id is an
    /// error.
    pub fn request(&mut self, unit: u8, pdu: &[u8]) -> io::Result<Vec<u8>> {
        let transaction = self.send_request(unit, pdu)?;
        let answer = self.read_adu(PATIENCE)?;
        if transaction_of(&answer) != transaction || answer[6] != unit {
            return Err(invalid(format!(
                "asked unit {unit} as {transaction}, got {answer:02x?}"
            )));
        }
        Ok(answer[HEADER..].to_vec())
    }

    /// Sends all requests in one write, then collects the answers, which may come in any
    /// order: PDUs in the order of the requests.
    pub fn pipeline(&mut self, unit: u8, pdus: &[&[u8]]) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        let mut waiting = HashMap::new();
        for (place, pdu) in pdus.iter().enumerate() {
            self.transaction = self.transaction.wrapping_add(1);
            bytes.extend(adu(self.transaction, unit, pdu));
            waiting.insert(self.transaction, place);
        }
        self.send(&bytes)?;
        let mut answers = vec![Vec::new(); pdus.len()];
        while !waiting.is_empty() {
            let answer = self.read_adu(PATIENCE)?;
            let place = waiting.remove(&transaction_of(&answer));
            let place = place.ok_or_else(|| invalid(format!("not asked for: {answer:02x?}")))?;
            answers[place] = answer[HEADER..].to_vec();
        }
        Ok(answers)
    }

    /// The next whole ADU. `TimedOut` when it does not come, `UnexpectedEof` when the other
    /// side closed; what arrived so far is kept for the next call.
    pub fn read_adu(&mut self, within: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(length) = adu_length(&self.received)? {
                return Ok(self.received.drain(..length).collect());
            }
            self.read_some(deadline)?;
        }
    }

    /// Waits until the other side closes (or resets) and returns what it sent before.
    pub fn read_to_close(&mut self, within: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + within;
        loop {
            match self.read_some(deadline) {
                Ok(()) => {}
                Err(error) if is_close(&error) => return Ok(std::mem::take(&mut self.received)),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_some(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        // A time-out of zero would mean none.
        self.stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// An ADU as bytes.
pub fn adu(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let length = pdu.len() as u16 + 1;
    let mut bytes = Vec::with_capacity(HEADER + pdu.len());
    bytes.extend(transaction.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.push(unit);
    bytes.extend_from_slice(pdu);
    bytes
}

/// The PDU of a read (function codes 1 to 4).
pub fn read(function: u8, start: u16, count: u16) -> [u8; 5] {
    let [s1, s0] = start.to_be_bytes();
    let [c1, c0] = count.to_be_bytes();
    [function, s1, s0, c1, c0]
}

/// The PDU of a write of one register (function code 6).
pub fn write_register(address: u16, value: u16) -> [u8; 5] {
    read(6, address, value)
}

/// The PDU of a write of registers (function code 16).
pub fn write_registers(start: u16, values: &[u16]) -> Vec<u8> {
    let mut pdu = read(16, start, values.len() as u16).to_vec();
    pdu.push(values.len() as u8 * 2);
    pdu.extend(values.iter().flat_map(|value| value.to_be_bytes()));
    pdu
}

/// The registers in the answer to a read of registers; `None` for anything else.
pub fn registers(answer: &[u8]) -> Option<Vec<u16>> {
    match answer {
        [3 | 4, count, values @ ..] if values.len() == usize::from(*count) => {
            let pairs = values.chunks_exact(2);
            Some(
                pairs
                    .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                    .collect(),
            )
        }
        _ => None,
    }
}

/// Whole length of the first ADU in `bytes`; `None` while it is not complete.
fn adu_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    if bytes.len() < HEADER {
        return Ok(None);
    }
    let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    if !(2..=254).contains(&length) {
        return Err(invalid(format!("MBAP length {length}: {bytes:02x?}")));
    }
    Ok(Some(length + 6).filter(|whole| *whole <= bytes.len()))
}

fn transaction_of(adu: &[u8]) -> u16 {
    u16::from_be_bytes([adu[0], adu[1]])
}

fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers each ADU through `answer`, one connection, in chunks of three bytes.
    fn server(answer: impl Fn(Vec<Vec<u8>>) -> Vec<u8> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut peer = Client::over(stream).unwrap();
            let mut adus = vec![peer.read_adu(PATIENCE).unwrap()];
            while let Ok(adu) = peer.read_adu(Duration::from_millis(50)) {
                adus.push(adu);
            }
            for chunk in answer(adus).chunks(3) {
                peer.send(chunk).unwrap();
            }
        });
        address
    }

    #[test]
    fn one_request_one_answer() {
        let address = server(|adus| adu(1, 7, &[3, 2, 0, adus[0][6]]));
        let mut client = Client::connect(address).unwrap();
        let answer = client.request(7, &read(3, 0, 1)).unwrap();
        assert_eq!(registers(&answer), Some(vec![7]));
    }

    #[test]
    fn answers_out_of_order_are_put_in_order() {
        let address = server(|adus| {
            let echo = |one: &Vec<u8>| adu(transaction_of(one), one[6], &one[7..]);
            adus.iter().rev().flat_map(echo).collect()
        });
        let mut client = Client::connect(address).unwrap();
        let requests = [write_register(1, 10), write_register(2, 20)];
        let answers = client.pipeline(1, &[&requests[0], &requests[1]]).unwrap();
        assert_eq!(answers, requests);
    }

    #[test]
    fn a_wrong_id_is_an_error_and_silence_a_time_out() {
        let address = server(|_| adu(9, 1, &[0x83, 2]));
        let mut client = Client::connect(address).unwrap();
        let early = client.read_adu(Duration::from_millis(20)).unwrap_err();
        assert_eq!(early.kind(), ErrorKind::TimedOut);
        let wrong = client.request(1, &read(3, 0, 1)).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::InvalidData);
        assert!(client.read_to_close(PATIENCE).unwrap().is_empty());
    }

    #[test]
    fn a_client_can_choose_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = IpAddr::from([127, 0, 0, 2]);
        let _client = Client::connect_from(local, listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), local);
    }

    #[test]
    fn pdus_are_as_the_specification_shows_them() {
        assert_eq!(read(3, 107, 3), [3, 0, 0x6b, 0, 3]);
        assert_eq!(
            write_registers(1, &[10, 258]),
            [16, 0, 1, 0, 2, 4, 0, 10, 1, 2]
        );
    }
}
