//! The system calls that no safe crate offers, each behind a safe function.
#![allow(
    unsafe_code,
    reason = "system calls on plain data that lives as long as the call"
)]

use std::ffi::{c_int, c_short};
use std::io;
use std::mem::{self, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

// <linux/if_packet.h>
pub(crate) const PACKET_ADD_MEMBERSHIP: c_int = 1;
pub(crate) const PACKET_DROP_MEMBERSHIP: c_int = 2;
pub(crate) const PACKET_STATISTICS: c_int = 6;
pub(crate) const PACKET_AUXDATA: c_int = 8;
pub(crate) const PACKET_IGNORE_OUTGOING: c_int = 23;
pub(crate) const PACKET_MR_MULTICAST: u16 = 0;
pub(crate) const PACKET_MR_UNICAST: u16 = 3;
pub(crate) const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;
pub(crate) const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
pub(crate) const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// `struct tpacket_auxdata`: what the kernel knows of a frame beside its octets.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct AuxData {
    pub(crate) status: u32,
    pub(crate) len: u32,
    pub(crate) snaplen: u32,
    pub(crate) mac: u16,
    pub(crate) net: u16,
    pub(crate) vlan_tci: u16,
    pub(crate) vlan_tpid: u16,
}

/// `struct packet_mreq`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Membership {
    pub(crate) interface: c_int,
    pub(crate) kind: u16,
    pub(crate) length: u16,
    pub(crate) address: [u8; 8],
}

/// `struct tpacket_stats`: since it was read last.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Statistics {
    /// Frames that passed the filter, those dropped included.
    pub(crate) packets: u32,
    pub(crate) drops: u32,
}

/// Structures of integers alone, without padding that the kernel would read.
pub(crate) trait Plain: Copy {}
impl Plain for c_int {}
impl Plain for Membership {}
impl Plain for Statistics {}

/// Sets an option of SOL_PACKET.
pub(crate) fn set_packet_option<T: Plain>(
    socket: BorrowedFd<'_>,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel
    // only reads it.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    done_or_error(done).map(drop)
}

/// Says which socket of the group that is bound to one address gets a datagram.
pub(crate) fn attach_reuseport_program(
    socket: BorrowedFd<'_>,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let value = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the pointer and the length describe `value`, and those in it `program`; both outlive
    // the call. The kernel only reads them, and copies the program.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    done_or_error(done).map(drop)
}

/// Octets of a TCP connection that were written and that the peer has not acknowledged (SIOCOUTQ).
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: the kernel writes one int, to which the pointer points and which outlives the call.
    // SIOCOUTQ has the number of TIOCOUTQ.
    let done = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::TIOCOUTQ,
            std::ptr::from_mut(&mut count),
        )
    };
    done_or_error(done).map(|_| usize::try_from(count).unwrap_or(0))
}

/// Reads [`PACKET_STATISTICS`], which sets them to zero.
pub(crate) fn statistics(socket: BorrowedFd<'_>) -> io::Result<Statistics> {
    let mut value = Statistics::default();
    let mut length = size_of::<Statistics>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets to `value`, for which any bits are valid.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_STATISTICS,
            std::ptr::from_mut(&mut value).cast(),
            &mut length,
        )
    };
    done_or_error(done).map(|_| value)
}

/// Binds a packet socket to an interface, from when on it gets frames of all EtherTypes.
pub(crate) fn bind_packet(socket: BorrowedFd<'_>, interface: c_int) -> io::Result<()> {
    // SAFETY: all zero is a valid `sockaddr_ll`, a structure of integers.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface;
    // SAFETY: the pointer and the length describe `address`, which the kernel only reads.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    done_or_error(done).map(drop)
}

/// The interface that a packet socket is bound to; -1 when it has been removed.
pub(crate) fn bound_interface(socket: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: all zero is a valid `sockaddr_ll`, a structure of integers.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets to `address`, for which any bits are
    // valid.
    let done = unsafe {
        libc::getsockname(
            socket.as_raw_fd(),
            std::ptr::from_mut(&mut address).cast(),
            &mut length,
        )
    };
    done_or_error(done).map(|_| address.sll_ifindex)
}

/// An `ifreq` of one interface, for the calls below. `name` is shorter than IFNAMSIZ.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: all zero is a valid `ifreq`: integers, and a union of integers and a pointer.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let last = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..last].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ask(fd: BorrowedFd<'_>, call: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every call of this file that gets here reads and writes an `ifreq`.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), call, std::ptr::from_mut(request)) };
    done_or_error(done).map(drop)
}

pub(crate) fn interface_index(socket: BorrowedFd<'_>, name: &str) -> io::Result<c_int> {
    let mut request = request(name);
    ask(socket, libc::SIOCGIFINDEX as libc::Ioctl, &mut request)?;
    // SAFETY: SIOCGIFINDEX has filled this field; any bits are an integer.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

pub(crate) fn interface_flags(socket: BorrowedFd<'_>, name: &str) -> io::Result<c_short> {
    let mut request = request(name);
    ask(socket, libc::SIOCGIFFLAGS as libc::Ioctl, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has filled this field; any bits are an integer.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

pub(crate) fn set_interface_flags(
    socket: BorrowedFd<'_>,
    name: &str,
    flags: c_short,
) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags;
    ask(socket, libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)
}

/// The kind of hardware (`ARPHRD_*`) and the first six octets of its address.
pub(crate) fn interface_hardware(socket: BorrowedFd<'_>, name: &str) -> io::Result<(u16, [u8; 6])> {
    let mut request = request(name);
    ask(socket, libc::SIOCGIFHWADDR as libc::Ioctl, &mut request)?;
    // SAFETY: SIOCGIFHWADDR has filled this field; any bits are integers.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut octets = [0; 6];
    for (to, from) in octets.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok((address.sa_family, octets))
}

/// Makes `tun`, opened from /dev/net/tun, a TAP interface; its name, which the kernel chooses
/// where `name` is empty or ends in `%d`.
pub(crate) fn make_tap(tun: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as c_short;
    ask(tun, libc::TUNSETIFF, &mut request)?;
    let name = request.ifr_name.iter().map(|octet| *octet as u8);
    Ok(name
        .take_while(|octet| *octet != 0)
        .map(char::from)
        .collect())
}

/// Moves the calling thread to a network namespace of its own.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: only UnshareFlags::FILES would make descriptors of other threads dangle.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .map_err(io::Error::from)
}

fn done_or_error(returned: c_int) -> io::Result<c_int> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned)
}
