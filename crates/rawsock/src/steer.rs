//! Which of two sockets of one address the kernel hands a QUIC datagram to.

use std::io;
use std::os::fd::AsFd;

use libc::sock_filter;

use crate::bpf::{answer, if_bits_skip_else, if_equal_skip, keep_bits, load_octet};
use crate::sys;

/// Header form: set in long headers (RFC 8999, section 5.1).
const LONG: u32 = 0x80;
/// Packet type of a long header (RFC 9000, section 17.2).
const TYPE: u32 = 0x30;
const HANDSHAKE: u32 = 0x20;

/// Of two UDP sockets that were bound to one address with SO_REUSEPORT, the one that was bound first
/// gets the datagrams that may begin a QUIC connection (RFC 9000: their first packet has a long header
/// and is no Handshake packet) and those without an octet; the other gets all else, which is what
/// belongs to connections that are there. So a flood of the one fills no queue of the other.
///
/// Without it, where the kernel refuses, either socket gets any.
pub fn separate_knocks(socket: impl AsFd) -> io::Result<()> {
    sys::attach_reuseport_program(socket.as_fd(), &mut program())
}

/// A datagram that is too short for it ends it with 0. What it answers is the place of the socket in
/// the order in which they were bound.
fn program() -> [sock_filter; 6] {
    [
        load_octet(0),
        keep_bits(LONG | TYPE),
        if_equal_skip(LONG | HANDSHAKE, 2),
        if_bits_skip_else(LONG, 0, 1),
        answer(0),
        answer(1),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn bind(address: SocketAddr) -> UdpSocket {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        let socket = UdpSocket::from(socket);
        let patience = Some(Duration::from_secs(5));
        socket.set_read_timeout(patience).unwrap();
        socket
    }

    #[test]
    fn what_may_begin_a_connection_comes_to_the_first_socket_and_all_else_to_the_second() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            sorts(loopback.parse().unwrap());
        }
    }

    fn sorts(loopback: SocketAddr) {
        let first = bind(loopback);
        let address = first.local_addr().unwrap();
        let second = bind(address);
        separate_knocks(&first).unwrap();
        let knocks: [&[u8]; 5] = [&[], &[0xC3, 0], &[0xD0; 1200], &[0x80], &[0xF0, 1]];
        let others: [&[u8]; 5] = [&[0x40; 1200], &[0xE1, 0], &[0xAF], &[0x00, 9], &[0x7F]];
        for number in 0..20 {
            // Another port each: without the program they would be spread.
            let sender = UdpSocket::bind(loopback).unwrap();
            let (knock, other) = (knocks[number % 5], others[number % 5]);
            sender.send_to(other, address).unwrap();
            sender.send_to(knock, address).unwrap();
            for (socket, expected) in [(&first, knock), (&second, other)] {
                let mut octets = [0; 2048];
                let (length, from) = socket.recv_from(&mut octets).unwrap();
                assert_eq!(from, sender.local_addr().unwrap());
                assert_eq!(&octets[..length], expected);
            }
        }
    }
}
