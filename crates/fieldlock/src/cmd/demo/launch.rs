//! How an agent starts so that it can't outlive the demo, not even one that is killed.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::process::Command;

/// A command that starts this program as an agent, by way of [`become_agent`].
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["demo", "--launch", &std::process::id().to_string(), "--"])
        .kill_on_drop(true);
    command
}

/// Asks the kernel to kill this process when its parent ends, and becomes the agent; that
/// wish outlives the change of program. Returns only when it fails.
pub(super) fn become_agent(parent: i32, arguments: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    if getppid() != Pid::from_raw(parent) {
        return io::Error::other("the demo has ended");
    }
    match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}
