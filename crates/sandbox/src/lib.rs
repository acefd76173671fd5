//! A program confines itself, before it talks to anybody and before it has a second thread: what
//! was taken over by a peer's bytes has the files and system calls of its work, not those of its
//! user.
//!
//! - `files`: Landlock, <https://docs.kernel.org/userspace-api/landlock.html>.
//! - `calls`: seccomp, <https://docs.kernel.org/userspace-api/seccomp_filter.html>.
//!
//! A kernel that lacks either runs the program without it, and the log says so.

mod calls;
mod files;

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

pub use files::Needs;

/// The process as a whole is confined or not, as the kernel sees it.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// How far one kind of confinement goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Grade {
    /// Not asked for.
    #[default]
    Off,
    /// The kernel has none.
    Missing,
    /// The kernel is older than some of what was asked for.
    Partial,
    Full,
}

impl Grade {
    /// As `status` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Missing => "missing",
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }
}

/// What confines this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sandbox {
    pub files: Grade,
    pub calls: Grade,
}

impl Sandbox {
    /// Confines the calling thread and all that it starts, for good; says in the log how far.
    pub fn enter(needs: &Needs) -> Self {
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

/// Whether files of this process are confined.
pub fn confines_files() -> bool {
    CONFINED.load(Ordering::Relaxed)
}
