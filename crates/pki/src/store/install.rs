//! Putting files into a state directory, so that an agent never sees half of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{CHAIN, ISSUING_CRL, KEY, ROOT, ROOT_CRL, StoreError, request};
use crate::bundle::{self, Bundle};

/// Installs a verified bundle with its key as one step: after a crash an agent finds either all
/// old files or all new ones.
pub fn install(state: &Path, key_pem: &str, bundle: &Bundle) -> Result<(), StoreError> {
    make_directories(state)?;
    let _lock = Lock::exclusive(state)?;
    let staging = state.join(STAGING);
    remove_directory(&staging)?;
    make_private_directory(&staging)?;
    let chain = [&bundle.leaf, &bundle.issuing].map(|der| bundle::certificate_pem(der));
    let [issuing_crl, root_crl] = &bundle.crls;
    write_new(&staging, "key.pem", key_pem.as_bytes())?;
    write_new(&staging, "chain.pem", chain.concat().as_bytes())?;
    write_new(
        &staging,
        "root.pem",
        bundle::certificate_pem(&bundle.root).as_bytes(),
    )?;
    write_new(
        &staging,
        "issuing.crl.pem",
        bundle::crl_pem(issuing_crl).as_bytes(),
    )?;
    write_new(
        &staging,
        "root.crl.pem",
        bundle::crl_pem(root_crl).as_bytes(),
    )?;
    sync_directory(&staging)?;
    rename(&staging, &state.join(READY))?;
    sync_directory(state)?;
    finish(state)
}

/// Replaces one CRL file (`ISSUING_CRL` or `ROOT_CRL`).
pub fn install_crl(state: &Path, file: &str, der: &[u8]) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    replace(state, file, bundle::crl_pem(der).as_bytes())
}

/// Moves the files of a completed installation into place. Doing it twice is harmless.
fn finish(state: &Path) -> Result<(), StoreError> {
    let ready = state.join(READY);
    for file in [KEY, CHAIN, ROOT, ISSUING_CRL, ROOT_CRL] {
        let name = file.rsplit('/').next().unwrap_or(file);
        let from = ready.join(name);
        if from.exists() {
            rename(&from, &state.join(file))?;
        }
    }
    for directory in DIRECTORIES {
        sync_directory(&state.join(directory))?;
    }
    request::drop_answered(state)?;
    remove_directory(&ready)
}

pub(super) fn replace(state: &Path, file: &str, content: &[u8]) -> Result<(), StoreError> {
    let path = state.join(file);
    let parent = path.parent().unwrap_or(state);
    let temporary = format!(".{}.tmp", file.rsplit('/').next().unwrap_or(file));
    match fs::remove_file(parent.join(&temporary)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io(path, error));
        }
        _ => {}
    }
    write_new(parent, &temporary, content)?;
    rename(&parent.join(&temporary), &path)?;
    sync_directory(parent)
}

fn write_new(directory: &Path, name: &str, content: &[u8]) -> Result<(), StoreError> {
    let path = directory.join(name);
    let write = || -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        io::Write::write_all(&mut file, content)?;
        file.sync_all()
    };
    write().map_err(|error| StoreError::io(path, error))
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| StoreError::io(to.to_owned(), error))
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| StoreError::io(path.to_owned(), error))
}

pub(super) fn make_directories(state: &Path) -> Result<(), StoreError> {
    make_private_directory(state)?;
    for directory in DIRECTORIES {
        make_private_directory(&state.join(directory))?;
    }
    Ok(())
}

fn make_private_directory(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StoreError::io(path.to_owned(), error))
}

fn remove_directory(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io(path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

/// Keeps a loading agent from seeing half of an installation, and finishes one that was cut
/// short. Released when dropped.
pub(super) struct Lock {
    _file: Option<File>,
}

impl Lock {
    pub(super) fn shared(state: &Path) -> Result<Self, StoreError> {
        if state.join(READY).exists() {
            drop(Self::exclusive(state)?);
        }
        // Without the file nothing was ever installed here by this program: nothing to wait for.
        let Ok(file) = File::open(state.join(LOCK)) else {
            return Ok(Self { _file: None });
        };
        file.lock_shared()
            .map_err(|error| StoreError::io(state.join(LOCK), error))?;
        Ok(Self { _file: Some(file) })
    }

    pub(super) fn exclusive(state: &Path) -> Result<Self, StoreError> {
        let path = state.join(LOCK);
        let open = || -> io::Result<File> {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let file = open().map_err(|error| StoreError::io(path.clone(), error))?;
        if state.join(READY).exists() {
            finish(state)?;
        }
        Ok(Self { _file: Some(file) })
    }
}

const LOCK: &str = "install.lock";
const STAGING: &str = "install.new";
const READY: &str = "install.ready";
const DIRECTORIES: [&str; 2] = ["identity", "trust"];
