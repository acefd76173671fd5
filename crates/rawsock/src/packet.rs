//! Frames from and to one interface.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use fieldlock_profinet::Mac;
use socket2::{Domain, Socket, Type};
use thiserror::Error;

use crate::batch::{self, BATCH, HEADROOM, LONGEST_FRAME, Received, Slot};
use crate::checksum;
use crate::filter::{Filter, MOST_STATIONS, Vlans};
use crate::interface::{Interface, InterfaceError};
use crate::ready::Ready;
use crate::sys;

/// Octets that may wait in the kernel; it gives less where `net.core.rmem_max` says so. A short
/// frame takes about 1 KiB of them.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A socket for the frames of one Ethernet interface (packet(7)), with their 802.1Q tags.
///
/// The interface is not made promiscuous: beside its own address and the broadcast address,
/// frames are heard to those that were [joined](Self::join) alone.
///
/// An interface that goes down and comes up again is heard again; one that was removed is not.
/// After [`open`](Self::open), nothing needs a privilege.
#[derive(Debug)]
pub struct PacketSocket {
    ready: Ready,
    interface: Interface,
    filter: Filter,
    joined: Vec<Mac>,
    slots: Box<[Slot; BATCH]>,
    received: [Received; BATCH],
    counters: Counters,
}

/// Since the socket was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed to the caller.
    pub received: u64,
    /// Frames that passed the filter and found no room in the kernel's buffer.
    pub dropped_by_kernel: u64,
    /// Frames longer than [`LONGEST_FRAME`], which no wire has carried: put together by offload.
    pub too_long: u64,
    /// Frames that the kernel took.
    pub sent: u64,
    /// Frames that the kernel refused, too long ones for example.
    pub send_errors: u64,
}

/// Why there is no packet socket.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error("VLAN {0} does not exist: 1 to 4094, or none for priority tags alone")]
    Vlan(u16),
    #[error(
        "raw Ethernet on `{0}` is not permitted: the agent has to start with CAP_NET_RAW. In its \
         systemd unit: AmbientCapabilities=CAP_NET_RAW and CapabilityBoundingSet=CAP_NET_RAW; \
         without systemd: setcap cap_net_raw+ep on the program. It gives it up once it runs"
    )]
    NotPermitted(String),
    #[error("raw Ethernet on `{name}`: {step}")]
    Kernel {
        name: String,
        step: &'static str,
        source: io::Error,
    },
}

/// Why an address is not listened to.
#[derive(Debug, Error)]
pub enum JoinError {
    #[error("{0} is one address more than the {MOST_STATIONS} that one interface listens to")]
    TooMany(Mac),
    #[error("listening to {mac}")]
    Kernel { mac: Mac, source: io::Error },
}

/// Why frames neither come nor go.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The interface is down. The socket stays good for when it comes up.
    #[error("the interface is down")]
    Down,
    /// The interface was removed; the socket is of no more use.
    #[error("the interface was removed")]
    Removed,
    #[error("raw Ethernet")]
    Kernel(#[source] io::Error),
}

impl PacketSocket {
    /// Opens the interface. Needs CAP_NET_RAW, and no runtime.
    pub fn open(interface: &str, filter: Filter) -> Result<Self, OpenError> {
        if let Vlans::One(vlan) = filter.vlans
            && !(1..=4094).contains(&vlan)
        {
            return Err(OpenError::Vlan(vlan));
        }
        let found = Interface::find(interface)?;
        let failed = |step| {
            move |source: io::Error| match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted(interface.to_owned()),
                _ => OpenError::Kernel {
                    name: interface.to_owned(),
                    step,
                    source,
                },
            }
        };
        // Without a protocol the socket hears nothing until it is bound, and by then the filter
        // is there: no frame of another interface or kind is ever in its queue.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed("socket"))?;
        socket.set_nonblocking(true).map_err(failed("O_NONBLOCK"))?;
        // Less room than asked for is no error, and counted when it matters.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        sys::set_packet_option(socket.as_fd(), sys::PACKET_AUXDATA, &1)
            .map_err(failed("PACKET_AUXDATA"))?;
        // Spares a copy of each frame that is sent. Before Linux 4.20 the filter alone cuts them.
        let _ = sys::set_packet_option(socket.as_fd(), sys::PACKET_IGNORE_OUTGOING, &1);
        socket
            .attach_filter(&filter.program(&[]))
            .map_err(failed("SO_ATTACH_FILTER"))?;
        sys::bind_packet(socket.as_fd(), found.index).map_err(failed("bind"))?;
        Ok(Self {
            ready: Ready::new(OwnedFd::from(socket)),
            interface: found,
            filter,
            joined: Vec::new(),
            slots: Box::new([[0; HEADROOM + LONGEST_FRAME]; BATCH]),
            received: [Received::default(); BATCH],
            counters: Counters::default(),
        })
    }

    /// The interface's own address when it was opened.
    pub fn mac(&self) -> Mac {
        self.interface.mac
    }

    /// Listens to frames for this station or group too. Again is no error.
    pub fn join(&mut self, mac: Mac) -> Result<(), JoinError> {
        if self.joined.contains(&mac) {
            return Ok(());
        }
        if self.joined.len() >= MOST_STATIONS {
            return Err(JoinError::TooMany(mac));
        }
        self.joined.push(mac);
        let membership = self.membership(mac);
        let done = self.attach().and_then(|()| {
            sys::set_packet_option(self.ready.as_fd(), sys::PACKET_ADD_MEMBERSHIP, &membership)
        });
        done.map_err(|source| {
            self.joined.pop();
            // The filter that was in force before, which the kernel has taken already.
            let _ = self.attach();
            JoinError::Kernel { mac, source }
        })
    }

    /// Ends [`join`](Self::join). What was not joined is no error.
    pub fn leave(&mut self, mac: Mac) -> Result<(), JoinError> {
        let Some(place) = self.joined.iter().position(|joined| *joined == mac) else {
            return Ok(());
        };
        let failed = |source| JoinError::Kernel { mac, source };
        self.joined.swap_remove(place);
        self.attach().map_err(failed)?;
        let membership = self.membership(mac);
        sys::set_packet_option(self.ready.as_fd(), sys::PACKET_DROP_MEMBERSHIP, &membership)
            .map_err(failed)
    }

    /// Replaces the filter while running: each frame meets the old one or the new one.
    pub fn set_filter(&mut self, filter: Filter) -> io::Result<()> {
        self.filter = filter;
        self.attach()
    }

    /// Waits for frames and hands each to `each`, tag included: at most [`BATCH`] of them,
    /// in order. Returns how many, 0 when all were too long. Dropping the future loses no frame.
    pub async fn recv(&mut self, each: impl FnMut(&[u8])) -> Result<usize, LinkError> {
        let (slots, received) = (&mut *self.slots, &mut self.received);
        let reading = self.ready.read(|fd| batch::receive(fd, slots, received));
        match reading.await {
            Ok(count) => Ok(self.hand_over(count, each)),
            Err(error) => Err(self.link_error(error)),
        }
    }

    /// The same for what is there already; 0 when nothing is.
    pub fn try_recv(&mut self, each: impl FnMut(&[u8])) -> Result<usize, LinkError> {
        match batch::receive(self.ready.as_fd(), &mut self.slots, &mut self.received) {
            Ok(count) => Ok(self.hand_over(count, each)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(self.link_error(error)),
        }
    }

    /// Waits until there is room to send, and sends at most one batch; as
    /// [`try_send`](Self::try_send) otherwise.
    pub async fn send(&mut self, frames: &[&[u8]]) -> Result<usize, LinkError> {
        let done = self.ready.write(|fd| batch::send(fd, frames)).await;
        self.sent(done)
    }

    /// Sends whole frames, tags included, without waiting. Returns how many of them, from the
    /// first on, are done with: sent, or refused by the kernel and counted. Fewer than all: the
    /// interface's queue is full.
    pub fn try_send(&mut self, frames: &[&[u8]]) -> Result<usize, LinkError> {
        let mut done = 0;
        while let Some(rest) = frames.get(done..).filter(|rest| !rest.is_empty()) {
            let mut sent = batch::send(self.ready.as_fd(), rest);
            if matches!(&sent, Err(error) if error.raw_os_error() == Some(libc::ENETDOWN)) {
                // The kernel keeps the news of an interface that went down for the next call,
                // when it may be up again.
                sent = batch::send(self.ready.as_fd(), rest);
            }
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                sent => done += self.sent(sent)?,
            }
        }
        Ok(done)
    }

    /// Counts what a call that did not block has done: how many frames are done with.
    fn sent(&mut self, result: io::Result<usize>) -> Result<usize, LinkError> {
        match result.map_err(|error| self.link_error(error)) {
            Ok(sent) => {
                self.counters.sent += sent as u64;
                Ok(sent)
            }
            // About the first frame alone.
            Err(LinkError::Kernel(_)) => {
                self.counters.send_errors += 1;
                Ok(1)
            }
            Err(link) => Err(link),
        }
    }

    /// Whether the interface is up and a cable is plugged in. A packet socket is not told when the
    /// carrier goes, and what it sends then is gone without an error.
    pub fn is_plugged(&self) -> bool {
        !self.is_removed() && self.interface.is_running(self.ready.as_fd())
    }

    pub fn counters(&mut self) -> Counters {
        // Only a bad descriptor or pointer makes this fail.
        if let Ok(statistics) = sys::statistics(self.ready.as_fd()) {
            self.counters.dropped_by_kernel += u64::from(statistics.drops);
        }
        self.counters
    }

    fn hand_over(&mut self, count: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut handed = 0;
        let frames = self.slots.iter_mut().zip(&self.received).take(count);
        for (slot, received) in frames {
            match whole_frame(slot, received) {
                Some(frame) => {
                    handed += 1;
                    each(frame);
                }
                None => self.counters.too_long += 1,
            }
        }
        self.counters.received += handed as u64;
        handed
    }

    fn membership(&self, mac: Mac) -> sys::Membership {
        let [a, b, c, d, e, f] = mac.0;
        sys::Membership {
            interface: self.interface.index,
            kind: if a & 1 == 1 {
                sys::PACKET_MR_MULTICAST
            } else {
                sys::PACKET_MR_UNICAST
            },
            length: 6,
            address: [a, b, c, d, e, f, 0, 0],
        }
    }

    fn attach(&self) -> io::Result<()> {
        let socket = socket2::SockRef::from(&self.ready);
        socket.attach_filter(&self.filter.program(&self.joined))
    }

    fn link_error(&self, error: io::Error) -> LinkError {
        match error.raw_os_error() {
            Some(libc::ENETDOWN) if !self.is_removed() => LinkError::Down,
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => LinkError::Removed,
            _ => LinkError::Kernel(error),
        }
    }

    fn is_removed(&self) -> bool {
        sys::bound_interface(self.ready.as_fd()).is_ok_and(|index| index < 0)
    }
}

/// The frame in a slot, its tag put back and its checksum completed; `None` when it is longer
/// than any frame.
fn whole_frame<'a>(slot: &'a mut Slot, received: &Received) -> Option<&'a [u8]> {
    let tag_octets = if received.tag.is_some() { 4 } else { 0 };
    if received.length + tag_octets > LONGEST_FRAME {
        return None;
    }
    let end = HEADROOM + received.length;
    if received.checksum_partial {
        checksum::complete_udp(slot.get_mut(HEADROOM..end)?);
    }
    let Some((ethertype, content)) = received.tag else {
        return slot.get(HEADROOM..end);
    };
    // The addresses move to the front, and the tag takes the place that they leave.
    slot.copy_within(HEADROOM..HEADROOM + 12, 0);
    let [a, b] = ethertype.to_be_bytes();
    let [c, d] = content.to_be_bytes();
    slot.get_mut(12..16)?.copy_from_slice(&[a, b, c, d]);
    slot.get(..end)
}
