//! Many frames in one system call.
#![allow(
    unsafe_code,
    reason = "recvmmsg and sendmmsg take arrays of pointers to buffers"
)]

use std::array;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::sys::{
    AuxData, PACKET_AUXDATA, TP_STATUS_CSUMNOTREADY, TP_STATUS_VLAN_TPID_VALID,
    TP_STATUS_VLAN_VALID,
};

/// Frames that one system call takes at most.
pub const BATCH: usize = 32;

/// Octets of the longest frame: header (14), 802.1Q tag (4) and 1,500, without check sequence.
pub const LONGEST_FRAME: usize = 1518;

/// Octets before a received frame in which room is made for its tag.
pub(crate) const HEADROOM: usize = 4;

/// Where one frame is received.
pub(crate) type Slot = [u8; HEADROOM + LONGEST_FRAME];

/// What is known of a received frame beside its octets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    /// Of the frame without the tag that the kernel took off; may be more than was kept.
    pub(crate) length: usize,
    /// EtherType and content of the 802.1Q tag that the kernel took off.
    pub(crate) tag: Option<(u16, u16)>,
    /// The sender left the rest of the UDP checksum to its network card, which there was none.
    pub(crate) checksum_partial: bool,
}

/// Room for one control message of [`AuxData`], aligned as its header must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; 64]);

const _: () = {
    // SAFETY: CMSG_SPACE only computes.
    let needed = unsafe { libc::CMSG_SPACE(size_of::<AuxData>() as u32) };
    assert!(needed as usize <= size_of::<Control>());
};

/// Receives what is there, at most one batch, without waiting. Frame `n` is in `slots[n]` from
/// [`HEADROOM`] on and described by `received[n]`.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    slots: &mut [Slot; BATCH],
    received: &mut [Received; BATCH],
) -> io::Result<usize> {
    let mut controls = [Control([MaybeUninit::uninit(); 64]); BATCH];
    let mut vectors: [libc::iovec; BATCH] = array::from_fn(|n| libc::iovec {
        iov_base: slots[n][HEADROOM..].as_mut_ptr().cast(),
        iov_len: LONGEST_FRAME,
    });
    let mut headers: [libc::mmsghdr; BATCH] = array::from_fn(|n| {
        let mut header = empty_header();
        header.msg_hdr.msg_iov = &raw mut vectors[n];
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = (&raw mut controls[n]).cast();
        header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        header
    });
    // SAFETY: `headers` holds BATCH headers, whose pointers lead to `vectors`, `controls` and,
    // through the vectors, to `slots`, each with its length. All outlive the call, and none is
    // read or written by another name while it lasts.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            BATCH as u32,
            (libc::MSG_DONTWAIT | libc::MSG_TRUNC) as _,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    for (header, received) in headers.iter().zip(received.iter_mut()).take(count) {
        *received = describe(header);
    }
    Ok(count.min(BATCH))
}

fn describe(header: &libc::mmsghdr) -> Received {
    let mut received = Received {
        length: header.msg_len as usize,
        ..Received::default()
    };
    // SAFETY: the kernel has filled the control buffer of `header` up to `msg_controllen`, and
    // these walk no further. It is alive: `receive` holds it.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&header.msg_hdr) };
    while !message.is_null() {
        // SAFETY: not null, so it leads to a whole header in that buffer, aligned for it.
        let (level, kind, length) = unsafe {
            (
                (*message).cmsg_level,
                (*message).cmsg_type,
                (*message).cmsg_len,
            )
        };
        // SAFETY: CMSG_LEN only computes.
        let whole = unsafe { libc::CMSG_LEN(size_of::<AuxData>() as u32) } as _;
        if level == libc::SOL_PACKET && kind == PACKET_AUXDATA && length >= whole {
            // SAFETY: the message holds an AuxData, integers alone, perhaps not aligned for it.
            let data = unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast::<AuxData>()) };
            received.tag = tag_of(&data);
            received.checksum_partial = data.status & TP_STATUS_CSUMNOTREADY != 0;
        }
        // SAFETY: as of CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(&header.msg_hdr, message) };
    }
    received
}

fn tag_of(data: &AuxData) -> Option<(u16, u16)> {
    if data.status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let ethertype = if data.status & TP_STATUS_VLAN_TPID_VALID != 0 {
        data.vlan_tpid
    } else {
        libc::ETH_P_8021Q as u16
    };
    Some((ethertype, data.vlan_tci))
}

/// Sends at most one batch without waiting; how many frames the kernel took, from the first on.
/// An error is about the first frame.
pub(crate) fn send(socket: BorrowedFd<'_>, frames: &[&[u8]]) -> io::Result<usize> {
    let count = frames.len().min(BATCH);
    let mut vectors: [libc::iovec; BATCH] = array::from_fn(|n| {
        let frame: &[u8] = frames.get(n).copied().unwrap_or_default();
        libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        }
    });
    let mut headers: [libc::mmsghdr; BATCH] = array::from_fn(|n| {
        let mut header = empty_header();
        header.msg_hdr.msg_iov = &raw mut vectors[n];
        header.msg_hdr.msg_iovlen = 1;
        header
    });
    // SAFETY: the first `count` headers lead through `vectors` to `frames`, which outlive the
    // call and are only read by it.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as u32,
            libc::MSG_DONTWAIT as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: all zero is a valid header: null pointers with lengths of nothing.
    unsafe { mem::zeroed() }
}
