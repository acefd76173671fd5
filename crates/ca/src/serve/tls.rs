//! TLS of the enrolment server: TLS 1.3 (1.2 too where the settings say so), HTTP/1.1 only, a
//! certificate of its own CA, and clients that may show one.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use fieldlock_pki::bundle::Bundle;
use fieldlock_pki::{Identity, Summary, TrustList};
use fieldlock_tls::verify_signatures;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DistinguishedName, Error, PeerIncompatible, ServerConfig};
use zeroize::Zeroizing;

/// What the server shows and whom it takes for one of its own; both change while it runs.
pub(super) struct Keys {
    own: RwLock<Option<Arc<CertifiedKey>>>,
    trust: RwLock<Arc<TrustList>>,
    provider: Arc<CryptoProvider>,
    tls12: bool,
}

/// Judges the certificate of one client, and keeps what can be told of one that is refused.
pub(super) struct Judge {
    keys: Arc<Keys>,
    refused: OnceLock<String>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    pub(super) fn new(trust: Arc<TrustList>, tls12: bool) -> Arc<Self> {
        Arc::new(Self {
            tls12,
            own: RwLock::default(),
            trust: RwLock::new(trust),
            provider: Arc::new(aws_lc_rs::default_provider()),
        })
    }

    /// Puts a certificate of the server and its key (PKCS#8 DER) in force. The whole chain is
    /// shown: who joins knows the root's fingerprint and nothing else, and who was off while the
    /// root turned over follows by the links.
    pub(super) fn set_own(&self, bundle: &Bundle, key: &Zeroizing<Vec<u8>>) -> Result<(), Error> {
        let proof = bundle
            .verify()
            .map_err(|error| Error::General(error.to_string()))?;
        let mut chain = vec![bundle.leaf.clone(), proof.issuing, proof.root];
        chain.extend(bundle.trust.links.iter().cloned());
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
        let key = self.provider.key_provider.load_private_key(key)?;
        let own = CertifiedKey::new(chain, key);
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(own));
        Ok(())
    }

    pub(super) fn set_trust(&self, trust: Arc<TrustList>) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
    }

    /// For one connection, and who judges there.
    pub(super) fn config(self: &Arc<Self>) -> Result<(Arc<ServerConfig>, Arc<Judge>), Error> {
        let judge = Arc::new(Judge {
            keys: self.clone(),
            refused: OnceLock::new(),
        });
        let versions: &[_] = match self.tls12 {
            true => &[&rustls::version::TLS13, &rustls::version::TLS12],
            false => &[&rustls::version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(judge.clone())
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok((Arc::new(config), judge))
    }

    /// Signature and names are judged here; expiry and revocation by the CA's records, which know
    /// the window for renewals and put a refusal on record.
    fn judge(&self, leaf: &[u8], now: UnixTime) -> Result<(), CertificateError> {
        let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner);
        let issuing = trust.issuer_of(leaf);
        if issuing.and_then(|issuing| trust.root_of(issuing)).is_none() {
            return Err(CertificateError::UnknownIssuer);
        }
        let malformed = |_| CertificateError::BadEncoding;
        Identity::from_certificate(leaf).map_err(malformed)?;
        let summary = Summary::of(leaf).map_err(|_| CertificateError::BadEncoding)?;
        match u64::try_from(summary.not_before) {
            Ok(from) if from <= now.as_secs() => Ok(()),
            _ => Err(CertificateError::NotValidYet),
        }
    }
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        own.clone()
    }
}

impl Judge {
    /// Why the handshake failed, in words for the log and the records.
    pub(super) fn reason(&self, error: &Error) -> String {
        if let Some(refused) = self.refused.get() {
            return refused.clone();
        }
        match error {
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic,
            ) if !self.keys.tls12 => {
                "it can't do TLS 1.3; `tls12 = true` under [serve] in ca.toml lets it in".to_owned()
            }
            Error::InvalidMessage(_) => format!("it does not speak TLS ({error})"),
            Error::AlertReceived(alert) => {
                format!("it does not take this server's certificate, or gave up ({alert:?})")
            }
            error => error.to_string(),
        }
    }
}

impl ClientCertVerifier for Judge {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.keys.judge(leaf, now).map_err(|error| {
            let why = match error {
                CertificateError::UnknownIssuer => "it is of another CA",
                CertificateError::NotValidYet => "it is not valid yet",
                _ => "it can't be read",
            };
            let _ = self.refused.set(match Summary::of(leaf) {
                Ok(shown) => format!(
                    "its certificate ({:.200}, serial {:.40}, by {:.200}): {why}",
                    format!("{:?}", shown.subject),
                    shown.serial.to_string(),
                    format!("{:?}", shown.issuer)
                ),
                Err(_) => format!("its certificate: {why}"),
            });
            error
        })?;
        Ok(ClientCertVerified::assertion())
    }

    verify_signatures!(|judge| judge.keys.provider.signature_verification_algorithms);
}
