//! Network interfaces by name.

use std::ffi::c_short;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use fieldlock_profinet::Mac;
use socket2::{Domain, Socket, Type};
use thiserror::Error;

use crate::sys;

/// Why an interface can't be used.
#[derive(Debug, Error)]
pub enum InterfaceError {
    #[error("`{0}` is no name of an interface: 1 to 15 octets, without `/`, `:` and white space")]
    Name(String),
    #[error("there is no interface `{0}`: `ip link` lists those that there are")]
    Missing(String),
    #[error(
        "`{0}` is no Ethernet interface: name the one with the PROFINET wire, no tunnel and not \
         the loopback"
    )]
    NotEthernet(String),
    #[error("`{0}` is down: `ip link set {0} up`, and let the system do so at its start")]
    Down(String),
    #[error("asking about interface `{name}`")]
    Kernel { name: String, source: io::Error },
}

/// An Ethernet interface that is up.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    name: String,
    pub(crate) index: i32,
    pub(crate) mac: Mac,
}

/// The address of an Ethernet interface, up or down. Needs no privilege.
pub fn interface_mac(name: &str) -> Result<Mac, InterfaceError> {
    hardware(&any_socket(name)?, name)
}

impl Interface {
    pub(crate) fn find(name: &str) -> Result<Self, InterfaceError> {
        let socket = any_socket(name)?;
        let mac = hardware(&socket, name)?;
        let index = sys::interface_index(socket.as_fd(), name).map_err(failed(name))?;
        let flags = sys::interface_flags(socket.as_fd(), name).map_err(failed(name))?;
        if flags & libc::IFF_UP as c_short == 0 {
            return Err(InterfaceError::Down(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            index,
            mac,
        })
    }

    /// Whether it is up and has a carrier. `socket` may be of any kind.
    pub(crate) fn is_running(&self, socket: BorrowedFd<'_>) -> bool {
        let running = (libc::IFF_UP | libc::IFF_RUNNING) as c_short;
        // One that has been removed has no flags.
        let flags = sys::interface_flags(socket, &self.name);
        flags.is_ok_and(|flags| flags & running == running)
    }
}

/// Sets an interface up. Needs CAP_NET_ADMIN.
pub(crate) fn set_up(name: &str) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let flags = sys::interface_flags(socket.as_fd(), name)?;
    sys::set_interface_flags(socket.as_fd(), name, flags | libc::IFF_UP as c_short)
}

/// What the kernel takes as a name (dev_valid_name).
pub(crate) fn is_name(name: &str) -> bool {
    let fits = (1..libc::IFNAMSIZ).contains(&name.len());
    let odd = |octet: u8| octet == b'/' || octet == b':' || octet == 0;
    let plain = |octet: u8| !octet.is_ascii_whitespace() && octet != 0x0b && !odd(octet);
    fits && name != "." && name != ".." && name.bytes().all(plain)
}

/// Interfaces are asked about through a socket of any kind.
fn any_socket(name: &str) -> Result<Socket, InterfaceError> {
    if !is_name(name) {
        return Err(InterfaceError::Name(name.to_owned()));
    }
    Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(failed(name))
}

fn hardware(socket: &Socket, name: &str) -> Result<Mac, InterfaceError> {
    let (kind, mac) = sys::interface_hardware(socket.as_fd(), name).map_err(failed(name))?;
    if kind != libc::ARPHRD_ETHER {
        return Err(InterfaceError::NotEthernet(name.to_owned()));
    }
    Ok(Mac(mac))
}

fn failed(name: &str) -> impl Fn(io::Error) -> InterfaceError {
    move |source| match source.raw_os_error() {
        Some(libc::ENODEV) => InterfaceError::Missing(name.to_owned()),
        _ => InterfaceError::Kernel {
            name: name.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_refuses_are_refused() {
        for name in [
            "",
            "a/b",
            "a b",
            "a:1",
            ".",
            "..",
            "sixteen-octets-x",
            "a\0",
            "a\t",
        ] {
            assert!(
                matches!(interface_mac(name), Err(InterfaceError::Name(_))),
                "{name:?}"
            );
        }
        assert!(is_name("fifteen-octets-"));
    }

    #[test]
    fn a_missing_interface_and_the_loopback_are_told_apart() {
        let missing = interface_mac("no-such-one").unwrap_err();
        assert!(matches!(missing, InterfaceError::Missing(name) if name == "no-such-one"));
        let loopback = interface_mac("lo").unwrap_err();
        assert!(matches!(loopback, InterfaceError::NotEthernet(name) if name == "lo"));
    }
}
