//! Network namespaces: several machines' worth of interfaces on one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// A network of its own. It ends, with its interfaces, when nobody has a part of it any more:
/// neither this value, nor a process in it, nor a name in /run/netns.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// A nameless one with a loopback interface, which is down. Needs CAP_SYS_ADMIN.
    pub fn create() -> io::Result<Self> {
        let made = || {
            sys::unshare_network()?;
            File::open("/proc/thread-self/ns/net")
        };
        let fd = on_a_thread(made)??.into();
        Ok(Self { fd })
    }

    /// One that `ip netns add NAME` has made.
    pub fn named(name: &str) -> io::Result<Self> {
        let fd = File::open(PathBuf::from("/run/netns").join(name))?.into();
        Ok(Self { fd })
    }

    /// Runs `call` on a thread in this namespace: sockets that it opens and processes that it
    /// starts belong to it. Needs CAP_SYS_ADMIN.
    pub fn run<R: Send>(&self, call: impl FnOnce() -> R + Send) -> io::Result<R> {
        on_a_thread(|| {
            move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(call())
        })?
    }

    /// A path by which other processes (`ip link ... netns PATH`) find it while this lives.
    pub fn path(&self) -> PathBuf {
        let process = std::process::id();
        format!("/proc/{process}/fd/{}", self.fd.as_raw_fd()).into()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A thread that ends takes its namespace along; the caller's stays as it is.
fn on_a_thread<R: Send>(call: impl FnOnce() -> R + Send) -> io::Result<R> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, call)?;
        thread
            .join()
            .map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    })
}
