//! The files that an agent starts from, below its state directory.
//!
//! ```text
//! STATE/identity/key.pem          private key, PKCS#8, mode 0600
//! STATE/identity/chain.pem        the agent's certificate, then the issuing CA
//! STATE/identity/previous/        the pair before a renewal, until the new one has worked
//! STATE/identity/replaced/        what another identity was put in the place of, for [`undo`]
//! STATE/identity/token            which token this agent joined with: SHA-256 of its secret
//! STATE/trust/list.pem            roots, issuing CAs and the CRL of each
//! STATE/trust/time                a time that has passed, seconds since 1970 UTC
//! ```
//!
//! An installation replaces several of them, so it first completes a directory `install.ready`
//! and then moves the files; whoever comes next finishes a move that was cut short. All hold
//! `install.lock`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PublicKeyData};
use zeroize::Zeroizing;

use crate::bundle::{self, Bundle, BundleError};
use crate::certificate::{self, Summary};
use crate::identity::{Identity, IdentityError};
use crate::private::{self, NotPrivate};
use crate::trust::{TrustList, TrustListError};

mod install;
mod request;

use install::Lock;

pub use install::{
    confirm, install, install_trust, keep_policy, keep_time, keep_token, renew, replace, revert,
    undo,
};
pub use request::Request;

pub const KEY: &str = "identity/key.pem";
/// The key of a request that waits for its certificate.
pub const REQUESTED_KEY: &str = "identity/key.pem.new";
pub const CHAIN: &str = "identity/chain.pem";
pub const TRUST: &str = "trust/list.pem";
/// What the agent starts from when the system's clock is not set.
pub const TIME: &str = "trust/time";
/// The policy bundle in force.
pub const POLICY_BUNDLE: &str = "policy/bundle";
/// The one that waits for its time.
pub const NEXT_POLICY_BUNDLE: &str = "policy/next";
/// Below what version no policy bundle is taken.
pub const POLICY_FLOOR: &str = "policy/floor";
/// There while a renewed pair has not worked yet.
pub const PREVIOUS: &str = "identity/previous";

/// There while another identity can be put back.
pub const REPLACED: &str = "identity/replaced";
/// The token that this agent joined with last.
pub const TOKEN: &str = "identity/token";

/// What an agent has installed. The dates are not checked: that is for whoever has a clock.
pub struct Installed {
    /// PKCS#8 DER; wiped from memory when dropped.
    pub key_der: Zeroizing<Vec<u8>>,
    /// The agent's certificate, then the issuing CA.
    pub chain: Vec<Vec<u8>>,
    pub trust: TrustList,
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
        let trust = TrustList::parse(&read(state, TRUST)?).and_then(|list| {
            list.verify(&identity.site)?;
            Ok(list)
        });
        let trust = trust.map_err(|error| StoreError::Trust {
            path: state.join(TRUST),
            error,
        })?;
        Ok(Self {
            key_der,
            chain,
            trust,
            identity,
        })
    }

    /// The same as a bundle, to be checked as one.
    pub fn bundle(&self) -> Bundle {
        Bundle {
            leaf: self.leaf().to_vec(),
            trust: self.trust.clone(),
        }
    }

    /// The agent's certificate.
    pub fn leaf(&self) -> &[u8] {
        // A loaded chain has exactly two certificates.
        self.chain.first().map_or(&[], Vec::as_slice)
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
    let data = fs::metadata(&path).map_err(|error| StoreError::missing(state, file, error))?;
    private::check(&path, &data)?;
    let text = Zeroizing::new(read(state, file)?);
    let block = pem::parse(text.as_bytes()).map_err(|_| StoreError::Key { path: path.clone() })?;
    if block.tag() != "PRIVATE KEY" {
        return Err(StoreError::Key { path });
    }
    Ok(Zeroizing::new(block.into_contents()))
}

/// The time that was kept last. A file that can't be read says nothing: the dates of what is
/// installed are left.
pub fn kept_time(state: &Path) -> Option<i64> {
    read(state, TIME).ok()?.trim().parse().ok()
}

/// SHA-256 (hexadecimal) of the secret of the token that this agent joined with last.
pub fn kept_token(state: &Path) -> Option<String> {
    Some(read(state, TOKEN).ok()?.trim().to_owned())
}

/// True if the certificate `leaf` (DER) is for the key `key_der` (PKCS#8 DER).
pub fn key_fits(key_der: &[u8], leaf: &[u8]) -> bool {
    let Ok(key) = KeyPair::try_from(key_der) else {
        return false;
    };
    let hash = certificate::key_hash(&key.subject_public_key_info());
    Summary::of(leaf).is_ok_and(|summary| summary.key_hash == hash)
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
    #[error(transparent)]
    Readable(#[from] NotPrivate),
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
    #[error("{path}: {error}: install a bundle or the CA's trust list anew", path = path.display())]
    Trust {
        path: PathBuf,
        error: TrustListError,
    },
    #[error("there is no earlier certificate to go back to in {path}", path = path.display())]
    NoPrevious { path: PathBuf },
    #[error("nothing was replaced here: {path} is missing", path = path.display())]
    NoReplaced { path: PathBuf },
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
