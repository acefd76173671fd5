//! Whether the server is the CA: by the root's fingerprint where nothing else is known yet, by
//! the installed trust list afterwards.

use std::sync::Arc;

use fieldlock_pki::bundle::{BundleError, certificate_pem};
use fieldlock_pki::{Identity, Role, TrustList, certificate};
use fieldlock_tls::verify_signatures;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use thiserror::Error as ThisError;

use crate::clock::AgentClock;

/// What is known of the CA.
#[derive(Debug)]
pub(crate) enum Known {
    /// SHA-256 of its root's certificate.
    Root([u8; 32]),
    List(TrustList, Identity),
}

/// Why a server is not the CA.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub(crate) enum NotTheCa {
    #[error(
        "the server at this address does not show the root that the token names: it is another CA, or somebody is in between"
    )]
    Root,
    #[error("the server's certificate: {0}")]
    Chain(#[from] BundleError),
    #[error("server identity is {got}, expected the CA")]
    Role { got: Identity },
    #[error("server identity is {got}, expected {expected}: see `name` under [ca]")]
    Name { got: Identity, expected: Identity },
}

impl From<NotTheCa> for Error {
    fn from(error: NotTheCa) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

#[derive(Debug)]
pub(crate) struct CaVerifier {
    pub(crate) known: Known,
    pub(crate) clock: Arc<AgentClock>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl CaVerifier {
    fn judge(&self, leaf: &[u8], rest: &[CertificateDer<'_>]) -> Result<(), NotTheCa> {
        let identity = match &self.known {
            Known::Root(pin) => {
                let list = shown_under(rest, pin)?;
                list.judge(leaf, self.clock.now_for(leaf, &list))?
            }
            Known::List(list, expected) => {
                // The CA may have turned over since this agent heard of it last.
                let list = list
                    .with_vouched(&shown(rest)?)
                    .map_err(BundleError::from)?;
                let identity = list.judge(leaf, self.clock.now_for(leaf, &list))?;
                if identity.role == Role::Ca && identity != *expected {
                    return Err(NotTheCa::Name {
                        got: identity,
                        expected: expected.clone(),
                    });
                }
                identity
            }
        };
        match identity.role {
            Role::Ca => Ok(()),
            _ => Err(NotTheCa::Role { got: identity }),
        }
    }
}

/// The CAs that the server shows, if the root is the expected one.
fn shown_under(rest: &[CertificateDer<'_>], pin: &[u8; 32]) -> Result<TrustList, NotTheCa> {
    let is_root = |der: &&CertificateDer<'_>| certificate::hash(der) == *pin;
    if rest.iter().filter(is_root).count() != 1 {
        return Err(NotTheCa::Root);
    }
    let mut list = shown(rest)?;
    list.roots.retain(|der| certificate::hash(der) == *pin);
    Ok(list)
}

/// What the server shows beside its own certificate; nothing of it is proven.
fn shown(rest: &[CertificateDer<'_>]) -> Result<TrustList, NotTheCa> {
    let rest = rest.get(..MAX_SHOWN.min(rest.len())).unwrap_or_default();
    let pem: String = rest.iter().map(|der| certificate_pem(der)).collect();
    Ok(TrustList::parse(&pem).map_err(BundleError::from)?)
}

/// An issuing CA, its root, and links to it from older roots.
const MAX_SHOWN: usize = 2 + TrustList::MAX_ROOTS;

impl ServerCertVerifier for CaVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!(|verifier| verifier.provider.signature_verification_algorithms);
}
