//! Keys that the CA makes for others: for tests, the demo, and an agent on the same machine.

use std::fmt;
use std::path::Path;

use fieldlock_pki::bundle::Bundle;
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::{Identity, Installed, StoreError, TrustList, store};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::error::CaError;
use crate::file;

/// A new private key, not yet anywhere.
pub struct Key(KeyPair);

impl Key {
    pub fn generate() -> Result<Self, CaError> {
        let key = KeyPair::generate().map_err(|error| CaError::Issue(error.into()))?;
        Ok(Self(key))
    }

    pub fn public(&self) -> Result<PublicKey, CaError> {
        Ok(PublicKey::of(&self.0)?)
    }

    /// Writes `key.pem`, unencrypted since an agent must restart unattended, and `bundle.pem`.
    pub fn write(&self, directory: &Path, bundle: &Bundle) -> Result<(), CaError> {
        file::make_directory(directory)?;
        let pem = Zeroizing::new(self.0.serialize_pem());
        file::create(&directory.join(KEY), pem.as_bytes())?;
        file::create(&directory.join(BUNDLE), bundle.to_pem().as_bytes())?;
        Ok(())
    }

    /// Installs key and bundle into an agent's state directory. Another identity there is kept.
    pub fn install(&self, state: &Path, bundle: &Bundle) -> Result<(), CaError> {
        let pem = Zeroizing::new(self.0.serialize_pem());
        let identity = Identity::from_certificate(&bundle.leaf).map_err(|_| CaError::Unreadable)?;
        match other_identity(state, &identity, &bundle.trust)? {
            Some(_) => Ok(store::replace(state, &pem, bundle)?),
            None => Ok(store::install(state, &pem, bundle)?),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Whom installing `identity` into an agent's state directory would replace: another identity, or one
/// of another CA than those of `trust`.
pub fn other_identity(
    state: &Path,
    identity: &Identity,
    trust: &TrustList,
) -> Result<Option<Identity>, CaError> {
    let installed = match Installed::load(state) {
        Ok(installed) => installed,
        Err(StoreError::NotEnrolled { .. } | StoreError::RequestWaiting { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let same = installed.identity == *identity && trust.issuer_of(installed.leaf()).is_some();
    Ok((!same).then_some(installed.identity))
}

/// Refuses a directory where [`Key::write`] would find its files, before anything is signed.
pub fn check_free(directory: &Path) -> Result<(), CaError> {
    match [KEY, BUNDLE]
        .map(|name| directory.join(name))
        .into_iter()
        .find(|path| path.exists())
    {
        Some(path) => Err(CaError::Exists { path }),
        None => Ok(()),
    }
}

const KEY: &str = "key.pem";
const BUNDLE: &str = "bundle.pem";
