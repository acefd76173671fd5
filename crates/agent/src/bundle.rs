//! Whose policy bundles count: those of the signers that are pinned, whatever a CA says.

use fieldlock_pki::PublicKey;
use fieldlock_policy::Bundle;
use thiserror::Error;

/// Checks the signature of a bundle: by one of `signers`, or, where there are none, by the key that
/// it names itself, which proves no more than that it is whole.
pub fn verify(bundle: &Bundle, signers: &[PublicKey]) -> Result<(), Distrust> {
    let signer = &bundle.header.signer;
    let key: PublicKey = signer.parse().map_err(|_| Distrust::NotAKey)?;
    if !signers.is_empty() && !signers.contains(&key) {
        return Err(Distrust::Signer {
            signer: signer.clone(),
        });
    }
    match key.has_signed(bundle.signed_text().as_bytes(), &bundle.signature) {
        true => Ok(()),
        false => Err(Distrust::Signature),
    }
}

/// Why a bundle is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Distrust {
    #[error("its signer is not a public key on P-256")]
    NotAKey,
    #[error("its signer {signer} is not one of those that are pinned")]
    Signer { signer: String },
    #[error("its signature does not fit: it is not what its signer signed")]
    Signature,
}
