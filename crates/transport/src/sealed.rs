//! A connection with TLS on it, after its handshake. Without a task or a queue of its own: it
//! turns octets into others where the plain connection would pass them on.

use std::cell::RefCell;
use std::io::{self, BufRead, Write};

use rustls::Connection;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Sealed octets read at once.
const READ: usize = 4096;

/// Both directions of one connection.
#[derive(Debug)]
pub struct Sealed(RefCell<Connection>);

impl Sealed {
    pub fn new(connection: Connection) -> Self {
        Self(RefCell::new(connection))
    }

    /// Octets wait for the socket to take them.
    pub(crate) fn has_backlog(&self) -> bool {
        self.0.borrow().wants_write()
    }

    /// Seals `plain` and writes as far as the socket takes it. What stays in `plain` is not sealed
    /// yet: rustls holds at most 64 KiB.
    pub(crate) fn write(&self, plain: &mut Vec<u8>, half: &OwnedWriteHalf) -> io::Result<()> {
        let tls = &mut *self.0.borrow_mut();
        loop {
            if !plain.is_empty() {
                let taken = tls.writer().write(plain)?;
                plain.drain(..taken);
            }
            if !tls.wants_write() {
                return match plain.is_empty() {
                    true => Ok(()),
                    false => Err(io::ErrorKind::WriteZero.into()),
                };
            }
            match tls.write_tls(&mut Try(half)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that nothing more comes, if the socket takes it at once.
    pub(crate) fn farewell(&self, half: &OwnedWriteHalf) {
        self.0.borrow_mut().send_close_notify();
        let _ = self.write(&mut Vec::new(), half);
    }

    /// Opens all of `sealed`; the plain octets go to `plain`. False once the peer has closed.
    fn open(&self, mut sealed: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
        let tls = &mut *self.0.borrow_mut();
        loop {
            // Emptied after each step: rustls takes no more while it holds plain octets.
            if !take_plain(tls, plain)? {
                return Ok(false);
            }
            if sealed.is_empty() {
                return Ok(true);
            }
            tls.read_tls(&mut sealed)?;
            tls.process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

/// False once the peer has said that nothing more comes.
fn take_plain(tls: &mut Connection, plain: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let mut reader = tls.reader();
        match reader.fill_buf() {
            Ok([]) => return Ok(false),
            Ok(piece) => {
                plain.extend_from_slice(piece);
                let size = piece.len();
                reader.consume(size);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Reads plain octets behind `plain`; 0 at the end. Nothing is lost when it is dropped while it
/// waits.
pub(crate) async fn read(
    sealed: &Sealed,
    half: &mut OwnedReadHalf,
    raw: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> io::Result<usize> {
    let before = plain.len();
    loop {
        // At first what came with the end of the handshake.
        let open = sealed.open(raw, plain);
        raw.clear();
        let is_open = open?;
        let count = plain.len() - before;
        if count > 0 || !is_open {
            return Ok(count);
        }
        raw.reserve(READ);
        if half.read_buf(raw).await? == 0 {
            return Ok(0);
        }
    }
}

/// A socket that is written to without waiting.
struct Try<'a>(&'a OwnedWriteHalf);

impl Write for Try<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
