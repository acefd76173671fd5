//! What the kernel knows of a TCP connection.

use std::io;
use std::os::fd::AsFd;

use crate::sys;

/// Octets of a TCP connection that were written and that the peer's kernel has not acknowledged; of a
/// connection that the peer has reset, 0.
///
/// # Errors
///
/// Of `ioctl(SIOCOUTQ)`: `socket` is no TCP connection.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    sys::unacknowledged(socket.as_fd())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_the_peer_has_is_acknowledged_and_what_it_has_no_room_for_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peers, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(&ours).unwrap(), 0);

        ours.write_all(b"0123456789").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while unacknowledged(&ours).unwrap() > 0 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        peers.read_exact(&mut [0; 10]).unwrap();

        // More than both kernels have room for.
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[0; 65_536]).is_ok() {}
        assert!(unacknowledged(&ours).unwrap() > 0);
    }
}
