//! What the sandbox of an agent lets in, by its configuration.

use std::io;
use std::path::{Path, PathBuf};

use fieldlock_sandbox::{Needs, confines_files};

use crate::AUDIT;
use crate::settings::{edge, headend};

pub fn needs_of_edge(file: &Path, settings: &edge::File) -> Needs {
    let read = [settings.policy.as_ref(), settings.bundle.file.as_ref()];
    let read = read.into_iter().flatten().cloned();
    let serial = settings.device.iter().filter_map(|d| d.modbus_rtu.as_ref());
    Needs {
        change: changed(&settings.state),
        read: read.chain([file.to_owned()]).collect(),
        serial: serial.map(|rtu| rtu.path.clone()).collect(),
        // An edge listens for nobody but, on its own machine, who monitors it.
        ports: Some(settings.monitor.iter().map(|m| m.listen.port()).collect()),
    }
}

pub fn needs_of_headend(file: &Path, settings: &headend::File) -> Needs {
    let bundles = settings.bundle.files.iter().cloned();
    Needs {
        change: changed(&settings.state),
        read: bundles
            .chain([file.to_owned(), settings.policy.clone()])
            .collect(),
        ..Needs::default()
    }
}

/// The audit log may be a link to another disk.
fn changed(state: &Path) -> Vec<PathBuf> {
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
