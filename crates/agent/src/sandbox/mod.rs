//! The agent confines itself, before it talks to anybody and before it has a second thread:
//! what was taken over by a peer's bytes has the files and system calls of its work, not those
//! of its user.
//!
//! - `files`: Landlock, <https://docs.kernel.org/userspace-api/landlock.html>.
//! - `calls`: seccomp, <https://docs.kernel.org/userspace-api/seccomp_filter.html>.
//!
//! A kernel that lacks either runs the agent without it, and the log says so.

mod calls;
mod files;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tracing::{info, warn};

pub(crate) use files::Needs;

/// The process as a whole is confined or not, as the kernel sees it.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// How far one kind of confinement goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    /// Not asked for.
    #[default]
    Off,
    /// The kernel has none.
    Missing,
    /// The kernel is older than some of what was asked for.
    Partial,
    Full,
}

/// What confines this process.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Sandbox {
    pub(crate) files: Grade,
    pub(crate) calls: Grade,
}

impl Sandbox {
    /// Confines the calling thread and all that it starts, for good.
    pub(crate) fn enter(needs: &Needs) -> Self {
        let mut sandbox = Self {
            files: Grade::Missing,
            calls: Grade::Missing,
        };
        match files::confine(needs) {
            Ok(grade) => sandbox.files = grade,
            Err(error) => warn!("sandbox: files are not confined: {error}"),
        }
        match calls::confine() {
            Ok(()) => sandbox.calls = Grade::Full,
            Err(error) => warn!("sandbox: system calls are not confined: {error}"),
        }
        CONFINED.store(sandbox.files != Grade::Missing, Ordering::Relaxed);
        info!(files = ?sandbox.files, calls = ?sandbox.calls, "sandbox");
        sandbox
    }
}

/// What to say after an error that the sandbox may be the reason of; mostly nothing.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    match denied && CONFINED.load(Ordering::Relaxed) {
        true => {
            "\nhint: the sandbox lets this agent into the directories that its configuration named \
             at its start: if the file's rights are in order, start it anew, or set \
             `sandbox = false`"
        }
        false => "",
    }
}
