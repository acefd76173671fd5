//! The files that an agent starts from, below its state directory.
//!
//! ```text
//! STATE/identity/key.pem          private key, PKCS#8, mode 0600
//! STATE/identity/chain.pem        the agent's certificate, then the issuing CA
//! STATE/trust/root.pem            the root
//! STATE/trust/issuing.crl.pem     CRL of the issuing CA
//! STATE/trust/root.crl.pem        CRL of the root
//! ```
//!
//! An installation replaces several of them, so it first completes a directory `install.ready`
//! and then moves the files; whoever comes next finishes a move that was cut short. All hold
//! `install.lock`.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PublicKeyData};
use zeroize::Zeroizing;

use crate::bundle::{self, Bundle, BundleError};
use crate::certificate::{self, Summary};
use crate::identity::{Identity, IdentityError};

mod install;
mod request;

use install::Lock;

pub use install::{install, install_crl};
pub use request::Request;

pub const KEY: &str = "identity/key.pem";
/// The key of a request that waits for its certificate.
pub const REQUESTED_KEY: &str = "identity/key.pem.new";
pub const CHAIN: &str = "identity/chain.pem";
pub const ROOT: &str = "trust/root.pem";
pub const ISSUING_CRL: &str = "trust/issuing.crl.pem";
pub const ROOT_CRL: &str = "trust/root.crl.pem";

/// What an agent has installed. The dates are not checked: that is for whoever has a clock.
pub struct Installed {
    /// PKCS#8 DER; wiped from memory when dropped.
    pub key_der: Zeroizing<Vec<u8>>,
    /// The agent's certificate, then the issuing CA.
    pub chain: Vec<Vec<u8>>,
    pub root: Vec<u8>,
    /// Of the issuing CA, then of the root.
    pub crls: Vec<Vec<u8>>,
    pub identity: Identity,
}

impl Installed {
    pub fn load(state: &Path) -> Result<Self, StoreError> {
        let _lock = Lock::shared(state)?;
        let key_der = load_key(state, KEY)?;
        let chain = bundle::certificates_from_pem(&read(state, CHAIN)?)
            .map_err(|error| StoreError::content(state, CHAIN, error))?;
        let [leaf, _issuing] = chain.as_slice() else {
            return Err(StoreError::Blocks {
                path: state.join(CHAIN),
                blocks: chain.len(),
                expected: 2,
            });
        };
        if !key_fits(&key_der, leaf) {
            return Err(StoreError::OtherKey {
                key: state.join(KEY),
                chain: state.join(CHAIN),
            });
        }
        let identity = Identity::from_certificate(leaf).map_err(|error| StoreError::Identity {
            path: state.join(CHAIN),
            error,
        })?;
        let root = bundle::certificates_from_pem(&read(state, ROOT)?)
            .map_err(|error| StoreError::content(state, ROOT, error))
            .and_then(|certificates| only_one(certificates, state, ROOT))?;
        let mut crls = Vec::with_capacity(2);
        for file in [ISSUING_CRL, ROOT_CRL] {
            let found = bundle::crls_from_pem(&read(state, file)?)
                .map_err(|error| StoreError::content(state, file, error))?;
            crls.push(only_one(found, state, file)?);
        }
        Ok(Self {
            key_der,
            chain,
            root,
            crls,
            identity,
        })
    }

    /// The same as a bundle, to be checked as one.
    pub fn bundle(&self) -> Bundle {
        let der = |list: &[Vec<u8>], index: usize| list.get(index).cloned().unwrap_or_default();
        Bundle {
            leaf: der(&self.chain, 0),
            issuing: der(&self.chain, 1),
            root: self.root.clone(),
            crls: [der(&self.crls, 0), der(&self.crls, 1)],
        }
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installed")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Reads a PKCS#8 key (DER) that nobody else may read.
pub fn load_key(state: &Path, file: &str) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let path = state.join(file);
    let mode = fs::metadata(&path)
        .map_err(|error| StoreError::missing(state, file, error))?
        .mode();
    if mode & 0o077 != 0 {
        return Err(StoreError::Readable {
            path,
            mode: mode & 0o777,
        });
    }
    let text = Zeroizing::new(read(state, file)?);
    let block = pem::parse(text.as_bytes()).map_err(|_| StoreError::Key { path: path.clone() })?;
    if block.tag() != "PRIVATE KEY" {
        return Err(StoreError::Key { path });
    }
    Ok(Zeroizing::new(block.into_contents()))
}

/// True if the certificate `leaf` (DER) is for the key `key_der` (PKCS#8 DER).
pub fn key_fits(key_der: &[u8], leaf: &[u8]) -> bool {
    let Ok(key) = KeyPair::try_from(key_der) else {
        return false;
    };
    let hash = certificate::key_hash(&key.subject_public_key_info());
    Summary::of(leaf).is_ok_and(|summary| summary.key_hash == hash)
}

fn only_one(list: Vec<Vec<u8>>, state: &Path, file: &str) -> Result<Vec<u8>, StoreError> {
    match <[Vec<u8>; 1]>::try_from(list) {
        Ok([der]) => Ok(der),
        Err(list) => Err(StoreError::Blocks {
            path: state.join(file),
            blocks: list.len(),
            expected: 1,
        }),
    }
}

fn read(state: &Path, file: &str) -> Result<String, StoreError> {
    let path = state.join(file);
    let length = fs::metadata(&path)
        .map_err(|error| StoreError::missing(state, file, error))?
        .len();
    if length > Bundle::MAX_PEM as u64 {
        let octets = usize::try_from(length).unwrap_or(usize::MAX);
        return Err(StoreError::content(
            state,
            file,
            BundleError::TooLong { octets },
        ));
    }
    fs::read_to_string(&path).map_err(|error| StoreError::io(path, error))
}

/// Why the files of an agent can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{path} is missing: run `fieldlock enroll request --role ROLE --name NAME --state {state}`, have the CA sign the request, then run `fieldlock enroll install BUNDLE --state {state}`",
        path = path.display(), state = state.display()
    )]
    NotEnrolled { path: PathBuf, state: PathBuf },
    #[error(
        "{path} is missing, but a request is waiting: have the CA sign it (`fieldlock ca sign`), then run `fieldlock enroll install BUNDLE --state {state}`",
        path = path.display(), state = state.display()
    )]
    RequestWaiting { path: PathBuf, state: PathBuf },
    #[error(
        "{path} can be read by others (mode {mode:03o}): run `chmod 600 {path}`, and enrol anew if it may have been copied",
        path = path.display()
    )]
    Readable { path: PathBuf, mode: u32 },
    #[error("{path} is not an unencrypted PKCS#8 private key in PEM", path = path.display())]
    Key { path: PathBuf },
    #[error(
        "the key {key} does not belong to the certificate in {chain}: enrol anew",
        key = key.display(), chain = chain.display()
    )]
    OtherKey { key: PathBuf, chain: PathBuf },
    #[error(
        "{path} does not say who asked: remove it and run `fieldlock enroll request` anew",
        path = path.display()
    )]
    Request { path: PathBuf },
    #[error("{path}: {error}", path = path.display())]
    Content { path: PathBuf, error: BundleError },
    #[error(
        "{path} has {blocks} PEM blocks, expected {expected}: enrol anew",
        path = path.display()
    )]
    Blocks {
        path: PathBuf,
        blocks: usize,
        expected: usize,
    },
    #[error("{path}: {error}", path = path.display())]
    Identity { path: PathBuf, error: IdentityError },
    #[error("{path}: {error}", path = path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl StoreError {
    fn io(path: PathBuf, error: io::Error) -> Self {
        Self::Io { path, error }
    }

    fn content(state: &Path, file: &str, error: BundleError) -> Self {
        Self::Content {
            path: state.join(file),
            error,
        }
    }

    fn missing(state: &Path, file: &str, error: io::Error) -> Self {
        let path = state.join(file);
        let state = state.to_owned();
        if error.kind() != io::ErrorKind::NotFound {
            return Self::io(path, error);
        }
        if file != REQUESTED_KEY && state.join(REQUESTED_KEY).exists() {
            return Self::RequestWaiting { path, state };
        }
        Self::NotEnrolled { path, state }
    }
}
