//! Keys of a CA that are made and stay on a PKCS#11 token: an HSM, a smart card.
//!
//! - [`uri`] says where such a key is. It stands in the key's file, in place of the key.
//! - `key` signs with it; `token` loads the module, finds the token and logs in.
//!
//! The PIN is given where a passphrase is. A wrong one is tried once in the life of the process,
//! since tokens lock themselves after a few.

pub mod uri;

#[cfg(feature = "pkcs11")]
mod key;
#[cfg(feature = "pkcs11")]
mod token;

#[cfg(feature = "pkcs11")]
pub(crate) use key::{check, generate, open};
#[cfg(not(feature = "pkcs11"))]
pub(crate) use not_built::{check, generate, open};
pub use uri::{Uri, UriError};

use std::path::PathBuf;

/// Why a key on a token can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error(
        "the key is on a PKCS#11 token, and this program was built without PKCS#11: use a build with the feature `pkcs11`"
    )]
    NotBuilt,
    #[error(
        "the PKCS#11 module {path} can't be used: {reason}. Is the token's software installed and set up, and `module-path` right?",
        path = path.display()
    )]
    Module { path: PathBuf, reason: String },
    #[error(
        "the PKCS#11 module {path} can be written by others (mode {mode:03o}), who could read the PIN: run `chmod go-w {path}` if it is still what was installed",
        path = path.display()
    )]
    Writable { path: PathBuf, mode: u32 },
    #[error(
        "no token {token} is to be found (there is: {present}): connect it, or correct the URI"
    )]
    NoToken { token: String, present: String },
    #[error(
        "{token} fits more than one token (serial numbers {serials}): add `serial=` to the URI"
    )]
    ManyTokens { token: String, serials: String },
    #[error(
        "the token {token} refuses this PIN, which was tried once{left}. A token locks itself after a few: make sure of the PIN before you try again, and give it by `--pin-file` if the passphrase of keys in files is another"
    )]
    Pin { token: String, left: &'static str },
    #[error(
        "the token {token} let nobody log in before, and is not asked again before the next start: a token locks itself after a few wrong PINs"
    )]
    PinBefore { token: String },
    #[error(
        "the PIN of the token {token} is locked: have it unlocked with the security officer's PIN"
    )]
    Locked { token: String },
    #[error(
        "the token {token} has no user PIN yet, or it has to be changed first: use the token's own program"
    )]
    NoPin { token: String },
    #[error(
        "the token {token} lets nobody log in, and is not asked again before the next start: {reason}"
    )]
    Login { token: String, reason: String },
    #[error(
        "the token {token} has no private key {object}: it was removed, or the URI means another. Restore it by the token's means"
    )]
    NoKey { token: String, object: String },
    #[error(
        "the token {token} has {count} private keys {object}: add `id=` to the URI, or remove the wrong one"
    )]
    ManyKeys {
        token: String,
        object: String,
        count: usize,
    },
    #[error(
        "the token {token} lacks the public key of {object}: put it beside the private one, with the same CKA_ID"
    )]
    NoPublic { token: String, object: String },
    #[error("the key {object} on the token {token} is not on the curve P-256: use another")]
    Kind { token: String, object: String },
    #[error(
        "the token {token} has a key {object} already, and nothing is overwritten: give another `object=`"
    )]
    Exists { token: String, object: String },
    #[error(
        "what the token {token} signed is not by the key {object} of before: another was put in its place, or the token is faulty"
    )]
    Signature { token: String, object: String },
    #[error("the system gave no random numbers")]
    Random,
    #[error("the token {token} can't {what}: {reason}")]
    Failed {
        token: String,
        what: &'static str,
        reason: String,
    },
}

impl HsmError {
    /// True if the same would fail in the same way, and with a wrong PIN bring the token nearer to
    /// its lock.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            HsmError::Uri(_)
                | HsmError::NotBuilt
                | HsmError::Pin { .. }
                | HsmError::PinBefore { .. }
                | HsmError::Locked { .. }
                | HsmError::NoPin { .. }
                | HsmError::Login { .. }
        )
    }
}

#[cfg(not(feature = "pkcs11"))]
mod not_built {
    use fieldlock_pki::issue::CaKey;

    use super::{HsmError, Uri};
    use crate::passphrase::Passphrase;

    pub(crate) fn check(_: &Uri, _: &Passphrase) -> Result<(), HsmError> {
        Err(HsmError::NotBuilt)
    }

    pub(crate) fn open(_: &Uri, _: &Passphrase) -> Result<Box<dyn CaKey>, HsmError> {
        Err(HsmError::NotBuilt)
    }

    pub(crate) fn generate(
        _: &Uri,
        _: &str,
        _: &Passphrase,
    ) -> Result<(Box<dyn CaKey>, Uri), HsmError> {
        Err(HsmError::NotBuilt)
    }
}
