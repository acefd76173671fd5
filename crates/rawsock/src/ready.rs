//! A descriptor that waits with tokio, and exists without.
#![allow(
    unsafe_code,
    reason = "registering a descriptor that this file keeps open"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor that registers with the runtime when it is first waited for.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Before `fd`, so that it is taken from the runtime before it is closed.
    registered: OnceLock<AsyncFd<RawFd>>,
    fd: OwnedFd,
}

impl Ready {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            registered: OnceLock::new(),
            fd,
        }
    }

    /// Tries `call` each time the descriptor becomes readable, until it does not say
    /// [`io::ErrorKind::WouldBlock`]. Dropping the future loses nothing.
    pub(crate) async fn read<R>(
        &self,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        let fd = self.registered()?;
        // An interface that goes down is an error with nothing to read.
        let interest = Interest::READABLE | Interest::ERROR;
        fd.async_io(interest, |_| call(self.fd.as_fd())).await
    }

    /// The same for a descriptor that becomes writable.
    pub(crate) async fn write<R>(
        &self,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        let fd = self.registered()?;
        fd.async_io(Interest::WRITABLE, |_| call(self.fd.as_fd()))
            .await
    }

    fn registered(&self) -> io::Result<&AsyncFd<RawFd>> {
        if let Some(fd) = self.registered.get() {
            return Ok(fd);
        }
        // SAFETY: the descriptor is open as long as `self.fd`, which is never replaced and is
        // dropped after `registered`.
        let fd = unsafe { AsyncFd::register(self.fd.as_raw_fd())? };
        Ok(self.registered.get_or_init(|| fd))
    }
}

impl AsFd for Ready {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
