//! The fixture of the tests that run the real `fieldlock` binary.
//!
//! - [`binary`]: where the binary is, and running its commands.
//! - [`Site`]: a CA and the identities it issued, made once per test process.
//! - [`Agent`]: an edge or a headend as a child process with a state directory of its own.
//! - [`Pair`]: PLC, edge, headend and, where wanted, a wire between the two.
//! - [`rig`]: two PROFINET wires, with a namespace for each station and for the agents.
//! - [`plant`]: the agents there, between simulated stations; [`live`] ones a test looks at.
//! - [`sniffer`]: tshark on such a wire.
//! - [`rogue`]: a tunnel peer that says what a test wants.
//! - [`Hosted`]: a server of the simulation with its own runtime.
//! - [`machine`]: a device that says in which order it carried out what.
//! - [`chaos`]: agents, PLC and clients apart, a wire that can be anything, and ledgers of writes.
//! - [`clock`], [`tmpfs`]: wrong clocks, full disks.
//! - [`trial`]: tests by name, skipped by name where a foreign program is missing.
//!
//! Everything here panics when it fails: a test needs no other way out, and the logs of the
//! processes are printed while the panic unwinds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
pub mod answers;
pub mod binary;
pub mod chaos;
pub mod clock;
mod host;
pub mod live;
pub mod machine;
mod pair;
pub mod plant;
pub mod rig;
pub mod rogue;
mod site;
pub mod sniffer;
pub mod tmpfs;
pub mod trial;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use agent::{Agent, Role, audit_of};
pub use host::Hosted;
pub use pair::{DEVICE, EDGE, HEADEND, OPEN_POLICY, Pair, READ_ONLY_POLICY, Setup, Transport};
pub use site::{CaServer, Site};

/// For what should be there at once, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(15);

/// Waits for a condition and panics with its name when it does not come true in [`SOON`].
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(SOON, what, condition);
}

/// Waits for a condition and panics with its name when it does not come true in `time`.
#[track_caller]
pub fn within(time: Duration, what: &str, condition: impl FnMut() -> bool) {
    if let Err(error) = fieldlock_testkit::wait::wait_until(what, time, condition) {
        panic!("{error}");
    }
}

/// Resident memory of a process, in octets.
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.expect("/proc/PID/status with VmRSS") * 1024
}

/// Raises the bound on open files, of this process and those it starts; whether there may
/// be that many.
pub fn open_files(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit
            .maximum
            .or(Some(u64::MAX))
            .map(|most| most.min(65_536)),
        maximum: limit.maximum,
    };
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let current = getrlimit(Resource::Nofile).current;
    current.is_none_or(|current| current >= wanted)
}
