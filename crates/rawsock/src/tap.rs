//! An Ethernet interface whose wire is this program.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::interface;
use crate::ready::Ready;
use crate::sys;

/// A TAP interface: what the system sends on it is received here, and the other way round.
/// It ends when dropped.
#[derive(Debug)]
pub struct Tap {
    ready: Ready,
    name: String,
}

impl Tap {
    /// Makes an interface in the calling thread's network namespace and sets it up. Without a
    /// name the kernel takes the first of tap0, tap1 and so on that is free. Needs
    /// CAP_NET_ADMIN, and no runtime.
    pub fn create(name: Option<&str>) -> io::Result<Self> {
        if let Some(name) = name.filter(|name| !interface::is_name(name)) {
            let message = format!("`{name}` is no name of an interface");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd: OwnedFd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let name = sys::make_tap(fd.as_fd(), name.unwrap_or_default())?;
        interface::set_up(&name)?;
        Ok(Self {
            ready: Ready::new(fd),
            name,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for a frame that the system sends, tag included, and puts it into `buffer`; its
    /// length. A frame that is longer than the buffer is cut.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self
            .ready
            .read(|fd| Ok(rustix::io::read(fd, &mut *buffer)?));
        read.await
    }

    /// Hands a whole frame, tag included, to the system, as if it came from a wire.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(self.ready.as_fd(), frame)?;
        Ok(())
    }
}
