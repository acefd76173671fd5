//! Giving up the right to raw sockets once they are open.
//!
//! Linux keeps capabilities per thread (capabilities(7)), and threads that are started later
//! inherit them: call this before a runtime, or anything else, starts threads.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
    clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use thiserror::Error;

const RAW: CapabilitySet = CapabilitySet::NET_RAW.union(CapabilitySet::NET_ADMIN);

/// Why privileges could not be given up for good.
#[derive(Debug, Error)]
pub enum DropError {
    #[error("the process has {0} threads, and only the calling one would give up its privileges")]
    Threads(usize),
    #[error("giving up CAP_NET_RAW: {step}")]
    Kernel {
        step: &'static str,
        source: io::Error,
    },
}

/// What the calling thread may still do, by any of its sets of capabilities but the bounding
/// one, which gives nothing by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// CAP_NET_RAW: packet sockets.
    pub net_raw: bool,
    /// CAP_NET_ADMIN: interfaces, promiscuous mode.
    pub net_admin: bool,
    /// Whether no program that is started may gain anything (PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
}

/// Takes CAP_NET_RAW and CAP_NET_ADMIN out of every set of the process and forbids to gain
/// privileges by starting programs. What is open stays open.
///
/// Refuses when the process has more than one thread. A process without CAP_SETPCAP keeps them
/// in its bounding set, from where nothing can be had without new privileges.
pub fn drop_raw() -> Result<(), DropError> {
    let threads = fs::read_dir("/proc/self/task")
        .map_err(failed("counting threads in /proc/self/task"))?
        .count();
    if threads != 1 {
        return Err(DropError::Threads(threads));
    }
    drop_raw_of_thread()
}

/// See [`Held`].
pub fn effective() -> io::Result<Held> {
    let sets = capabilities(None)?;
    let all = sets.effective | sets.permitted | sets.inheritable;
    let held = |one: CapabilitySet| {
        io::Result::Ok(all.contains(one) || capability_is_in_ambient_set(one)?)
    };
    Ok(Held {
        net_raw: held(CapabilitySet::NET_RAW)?,
        net_admin: held(CapabilitySet::NET_ADMIN)?,
        no_new_privileges: no_new_privs()?,
    })
}

fn drop_raw_of_thread() -> Result<(), DropError> {
    clear_ambient_capability_set().map_err(failed("ambient set"))?;
    for capability in RAW.iter() {
        match remove_capability_from_bounding_set(capability) {
            // Without CAP_SETPCAP.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(failed("bounding set")(error)),
        }
    }
    let now = capabilities(None).map_err(failed("reading the sets"))?;
    let less = CapabilitySets {
        effective: now.effective - RAW,
        permitted: now.permitted - RAW,
        inheritable: now.inheritable - RAW,
    };
    set_capabilities(None, less).map_err(failed("effective, permitted and inheritable sets"))?;
    set_no_new_privs(true).map_err(failed("no new privileges"))
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> DropError {
    move |source| DropError::Kernel {
        step,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn after_dropping_packet_sockets_are_refused_for_good() {
        let raw = || Socket::new(Domain::PACKET, Type::RAW, None);
        let on_a_thread = move || {
            if raw().is_err() {
                eprintln!("skipped: needs root");
                return;
            }
            drop_raw_of_thread().unwrap();
            let held = Held {
                net_raw: false,
                net_admin: false,
                no_new_privileges: true,
            };
            assert_eq!(effective().unwrap(), held);
            assert_eq!(raw().unwrap_err().raw_os_error(), Some(libc::EPERM));
            // Nor do they come back by starting a program as root.
            let child = std::process::Command::new("cat")
                .arg("/proc/self/status")
                .output()
                .unwrap();
            let status = String::from_utf8(child.stdout).unwrap();
            let sets = status.lines().filter_map(|line| line.strip_prefix("Cap"));
            let bits = RAW.bits();
            for set in sets {
                let (_, digits) = set.split_once(":\t").unwrap();
                assert_eq!(u64::from_str_radix(digits, 16).unwrap() & bits, 0, "{set}");
            }
        };
        // The test's own thread keeps its privileges.
        thread::spawn(on_a_thread).join().unwrap();
    }

    #[test]
    fn other_threads_are_noticed() {
        // The harness runs each test on a thread of its own.
        assert!(matches!(drop_raw(), Err(DropError::Threads(2..))));
    }
}
