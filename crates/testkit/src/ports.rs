//! Ports on loopback that nobody uses.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Below Linux's ephemeral range (32768 to 60999), so that no outgoing connection of a
/// test that runs at the same time takes a port between the choice and its use.
const FIRST: u16 = 11_000;
const LAST: u16 = 31_999;

static GIVEN_OUT: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port that is free for TCP and UDP on 127.0.0.1 (and ::1 where the machine has it) and
/// was not given out before by this process. Several test processes start their search at
/// different places.
pub fn free_port() -> io::Result<u16> {
    let mut given_out = GIVEN_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let span = u32::from(LAST - FIRST) + 1;
    let start = std::process::id().wrapping_mul(7_919) % span;
    let candidates = (0..span).map(|step| FIRST + ((start + step) % span) as u16);
    for port in candidates {
        if !given_out.contains(&port) && is_free(port) {
            given_out.insert(port);
            return Ok(port);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("no port free between {FIRST} and {LAST}"),
    ))
}

/// `127.0.0.1` with a [`free_port`].
pub fn free_address() -> io::Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

fn is_free(port: u16) -> bool {
    let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let bindable = |address| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
    bindable(four) && (bindable(six) || !has_ipv6())
}

fn has_ipv6() -> bool {
    UdpSocket::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let first = free_port().unwrap();
        let second = free_port().unwrap();
        assert_ne!(first, second);
        let _tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        let _udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
    }

    #[test]
    fn a_taken_port_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
    }
}
