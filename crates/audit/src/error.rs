//! Why a log is not opened, or not closed in good order.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("audit log {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "audit log {path} is being written by another agent: give each agent its own state directory",
        path = path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "audit log {path}: the {bytes} bytes from {at} on are not audit records; \
         move the file aside to keep it as evidence, and start again",
        path = path.display()
    )]
    Damaged { path: PathBuf, at: u64, bytes: u64 },
    #[error("the audit log was closed with {records} records not on the disk")]
    Unwritten { records: u64 },
}
