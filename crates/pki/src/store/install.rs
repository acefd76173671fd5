//! Putting files into a state directory, so that an agent never sees half of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{CHAIN, KEY, PREVIOUS, REPLACED, StoreError, TIME, TOKEN, TRUST, request};
use crate::bundle::{self, Bundle};
use crate::trust::TrustList;

/// Installs a verified bundle with its key as one step: after a crash an agent finds either all
/// old files or all new ones.
pub fn install(state: &Path, key_pem: &str, bundle: &Bundle) -> Result<(), StoreError> {
    make_directories(state)?;
    let _lock = Lock::exclusive(state)?;
    // Who installs by hand has chosen: there is no way back to an earlier pair.
    remove_directory(&state.join(PREVIOUS))?;
    let issuing = bundle.trust.issuer_of(&bundle.leaf).unwrap_or_default();
    let chain = bundle::certificate_pem(&bundle.leaf) + &bundle::certificate_pem(issuing);
    commit(
        state,
        &[
            (KEY, key_pem),
            (CHAIN, &chain),
            (TRUST, &bundle.trust.to_pem()),
        ],
    )
}

/// The same in the place of an identity that is installed and is kept for [`undo`].
pub fn replace(state: &Path, key_pem: &str, bundle: &Bundle) -> Result<(), StoreError> {
    {
        let _lock = Lock::exclusive(state)?;
        let kept = keep_installed(state)?;
        put_aside(state, &kept)?;
    }
    install(state, key_pem, bundle)
}

/// Puts the identity back that was replaced last; what is there now is kept in its place, so that
/// doing it twice changes nothing. The trust list stays where it vouches for the identity: an older
/// one would forget revocations.
pub fn undo(state: &Path) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    let replaced = state.join(REPLACED);
    if !replaced.exists() {
        return Err(StoreError::NoReplaced { path: replaced });
    }
    let read = |file: &str| super::read(&replaced, base(file)).map(Zeroizing::new);
    let (key, chain, trust) = (read(KEY)?, read(CHAIN)?, read(TRUST)?);
    let leaf = bundle::certificates_from_pem(&chain)
        .map_err(|error| StoreError::content(&replaced, base(CHAIN), error))?;
    let leaf = leaf.first().map_or(&[][..], Vec::as_slice);
    let present = super::read(state, TRUST).ok();
    let vouches = present.and_then(|pem| TrustList::parse(&pem).ok());
    let vouches = vouches.is_some_and(|list| {
        let root = list.issuer_of(leaf).and_then(|ca| list.root_of(ca));
        root.is_some()
    });
    let aside = keep_installed(state)?;
    let mut files = vec![(KEY, key.as_str()), (CHAIN, chain.as_str())];
    if !vouches {
        files.push((TRUST, trust.as_str()));
    }
    commit(state, &files)?;
    put_aside(state, &aside)?;
    remove_directory(&state.join(PREVIOUS))
}

/// Copies what is installed into a directory of its own.
fn keep_installed(state: &Path) -> Result<PathBuf, StoreError> {
    let aside = state.join(format!("{REPLACED}.new"));
    remove_directory(&aside)?;
    make_private_directory(&aside)?;
    for file in [KEY, CHAIN, TRUST] {
        let content = Zeroizing::new(super::read(state, file)?);
        write_new(&aside, base(file), content.as_bytes())?;
    }
    sync_directory(&aside)?;
    Ok(aside)
}

fn put_aside(state: &Path, kept: &Path) -> Result<(), StoreError> {
    let replaced = state.join(REPLACED);
    remove_directory(&replaced)?;
    rename(kept, &replaced)?;
    sync_directory(&state.join(DIRECTORIES[0]))
}

/// Keeps which token this agent joined with: SHA-256 of its secret, hexadecimal.
pub fn keep_token(state: &Path, hash: &str) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    replace_file(state, TOKEN, format!("{hash}\n").as_bytes())
}

/// Installs a renewed key and certificate; the old pair is kept until [`confirm`]. `issuing` is
/// the CA that signed `leaf`; both DER.
pub fn renew(state: &Path, key_pem: &str, leaf: &[u8], issuing: &[u8]) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    let previous = state.join(PREVIOUS);
    // Of two renewals in a row the pair that worked last is the one to keep.
    if !previous.exists() {
        let staging = state.join(STAGING);
        remove_directory(&staging)?;
        make_private_directory(&staging)?;
        for file in [KEY, CHAIN] {
            let content = Zeroizing::new(super::read(state, file)?);
            write_new(&staging, base(file), content.as_bytes())?;
        }
        sync_directory(&staging)?;
        rename(&staging, &previous)?;
    }
    let chain = bundle::certificate_pem(leaf) + &bundle::certificate_pem(issuing);
    commit(state, &[(KEY, key_pem), (CHAIN, &chain)])
}

/// The renewed pair has worked: the earlier one is not needed any more.
pub fn confirm(state: &Path) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    remove_directory(&state.join(PREVIOUS))
}

/// Puts the pair before the renewal back into force.
pub fn revert(state: &Path) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    let previous = state.join(PREVIOUS);
    if !previous.exists() {
        return Err(StoreError::NoPrevious { path: previous });
    }
    let read = |file: &str| super::read(&previous, base(file)).map(Zeroizing::new);
    let (key, chain) = (read(KEY)?, read(CHAIN)?);
    commit(state, &[(KEY, &key), (CHAIN, &chain)])?;
    remove_directory(&previous)
}

/// Replaces the trust list.
pub fn install_trust(state: &Path, list: &TrustList) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    replace_file(state, TRUST, list.to_pem().as_bytes())
}

/// Keeps a time that has passed (seconds since 1970-01-01 UTC) for the next start.
pub fn keep_time(state: &Path, time: i64) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    replace_file(state, TIME, format!("{time}\n").as_bytes())
}

/// Replaces one of the files of policy bundles, or removes it.
pub fn keep_policy(state: &Path, file: &str, content: Option<&[u8]>) -> Result<(), StoreError> {
    let _lock = Lock::exclusive(state)?;
    let path = state.join(file);
    let Some(content) = content else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io(path, error))
            }
            _ => Ok(()),
        };
    };
    let folder = path.parent().unwrap_or(state);
    if !folder.exists() {
        make_private_directory(folder)?;
        sync_directory(state)?;
    }
    replace_file(state, file, content)
}

/// Puts files into place as one step.
fn commit(state: &Path, files: &[(&str, &str)]) -> Result<(), StoreError> {
    let staging = state.join(STAGING);
    remove_directory(&staging)?;
    make_private_directory(&staging)?;
    for (file, content) in files {
        write_new(&staging, base(file), content.as_bytes())?;
    }
    sync_directory(&staging)?;
    rename(&staging, &state.join(READY))?;
    sync_directory(state)?;
    finish(state)
}

/// The last part of a path of the store.
fn base(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

/// Moves the files of a completed installation into place. Doing it twice is harmless.
fn finish(state: &Path) -> Result<(), StoreError> {
    let ready = state.join(READY);
    for file in [KEY, CHAIN, TRUST] {
        let from = ready.join(base(file));
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

pub(super) fn replace_file(state: &Path, file: &str, content: &[u8]) -> Result<(), StoreError> {
    let path = state.join(file);
    let parent = path.parent().unwrap_or(state);
    let temporary = format!(".{}.tmp", base(file));
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
