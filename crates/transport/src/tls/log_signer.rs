//! The agent's key in its other use: it signs the checkpoints of the audit log.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fieldlock_audit::Sign;
use fieldlock_pki::Installed;
use fieldlock_signed::Signer;

/// An agent's key, as its journal uses it.
pub(super) struct LogSigner {
    signer: Signer,
    certificate: Box<str>,
}

impl LogSigner {
    /// `None` for a key that does not sign: only P-256 does.
    pub(super) fn of(installed: &Installed) -> Option<Self> {
        Some(Self {
            signer: Signer::new(&installed.key_der)?,
            certificate: BASE64_STANDARD.encode(installed.leaf()).into(),
        })
    }
}

impl Sign for LogSigner {
    fn certificate(&self) -> Box<str> {
        self.certificate.clone()
    }

    fn sign(&self, text: &str) -> Option<Box<str>> {
        let signature = self.signer.sign(text.as_bytes())?;
        Some(BASE64_STANDARD.encode(signature).into())
    }
}
