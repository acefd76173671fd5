//! Who has signed a text.

use thiserror::Error;

use crate::key::PublicKey;
use crate::text::{Kind, Signature, Signed};

impl<K: Kind> Signed<K> {
    /// Checks that those who signed are all among `pinned`, and that their signatures fit. How many
    /// there have to be is for the caller to say: no two are by one signer.
    ///
    /// # Errors
    /// Nobody has signed, or somebody else has, or this is not what they signed.
    pub fn verify_by(&self, pinned: &[PublicKey]) -> Result<(), Distrust> {
        self.verify(|signer, key| match pinned.contains(key) {
            true => Ok(()),
            false => Err(Distrust::Signer {
                signer: signer.to_owned(),
            }),
        })
    }

    /// Checks the signatures against the keys that the text itself names, which proves no more than
    /// that it is whole.
    ///
    /// # Errors
    /// Nobody has signed, or this is not what they signed.
    pub fn verify_whole(&self) -> Result<(), Distrust> {
        self.verify(|_, _| Ok(()))
    }

    fn verify(
        &self,
        counts: impl Fn(&str, &PublicKey) -> Result<(), Distrust>,
    ) -> Result<(), Distrust> {
        if self.signatures().is_empty() {
            return Err(Distrust::Unsigned);
        }
        for Signature { signer, octets } in self.signatures() {
            let key: PublicKey = signer.parse().map_err(|_| Distrust::NotAKey)?;
            counts(signer, &key)?;
            if !key.has_signed(self.signed_text(signer).as_bytes(), octets) {
                return Err(Distrust::Signature);
            }
        }
        Ok(())
    }
}

/// Why a signed text is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Distrust {
    #[error("nobody has signed it")]
    Unsigned,
    #[error("its signer is not a public key on P-256")]
    NotAKey,
    #[error("its signer {signer} is not one of those that are pinned")]
    Signer { signer: String },
    #[error("its signature does not fit: it is not what its signer signed")]
    Signature,
}
