//! What the sandbox of an agent lets in, by its configuration.

use std::io;
use std::path::{Path, PathBuf};

use fieldlock_sandbox::confines_files;

use crate::AUDIT;

/// The audit log may be a link to another disk.
pub fn changed(state: &Path) -> Vec<PathBuf> {
    vec![state.to_owned(), state.join(AUDIT)]
}

/// What to say after an error that the sandbox may be the reason of; mostly nothing.
pub fn hint(error: &io::Error) -> &'static str {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    match denied && confines_files() {
        true => {
            "\nhint: the sandbox lets this agent into the directories that its configuration named \
             at its start: if the file's rights are in order, start it anew, or set \
             `sandbox = false`"
        }
        false => "",
    }
}
