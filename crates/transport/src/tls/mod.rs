//! TLS 1.3 for both transports, and Modbus over TLS, from what `enroll install` left in the state directory.
//!
//! Mutual authentication, no 0-RTT, no session tickets (a resumed session would outlive
//! revocation), ALPN mandatory, both CRLs loaded: an empty list would mean "don't check".

mod key_exchange;
mod log_signer;
mod mbaps;
pub mod options;
mod refusal;
mod verify;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use fieldlock_audit::Sign;
use fieldlock_enroll::AgentClock;
use fieldlock_pki::{Identity, Installed, Role, StoreError, Summary, TrustList};
use fieldlock_session::{ALPN, CYCLIC_ALPN};
use fieldlock_tls::words;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

pub(crate) use key_exchange::Negotiated;
use key_exchange::{GROUPS, HYBRID, NotedConfig};
use log_signer::LogSigner;
use mbaps::Mbaps;
pub use mbaps::Proof;
use options::{AfterGrace, KeyExchange, Trust as Options};
pub use refusal::{Refusal, Shown, handshake};
pub(crate) use refusal::{alert_of, is_alert};
use verify::{Dates, DiallerVerifier, ListenerVerifier, Parts, grace};

/// Why an agent can't start, or keep, its side of the tunnel.
#[derive(Debug, Error)]
pub enum TrustError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "certificate in {state} is for role `{got}`, this agent needs one for `{expected}`: is `state` right?"
    )]
    Role {
        state: String,
        got: Role,
        expected: Role,
    },
    #[error("{0}")]
    Tls(String),
}

impl TrustError {
    fn tls(error: &dyn fmt::Display) -> Self {
        Self::Tls(error.to_string())
    }
}

/// An agent's own identity and whom it trusts. Immutable: a change makes another.
pub struct Trust {
    pub identity: Identity,
    pub leaf: Summary,
    pub list: TrustList,
    /// This agent's own certificate stands on a CRL: nobody accepts it.
    pub revoked: bool,
    key: Arc<CertifiedKey>,
    options: Options,
    clock: Arc<AgentClock>,
    verifier: Verifier,
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
    mbaps: Mbaps,
    /// Signs the audit log.
    pub signer: Option<Arc<dyn Sign>>,
}

/// What an agent shows of itself, whatever list is in force.
struct Own {
    identity: Identity,
    leaf: Summary,
    key: Arc<CertifiedKey>,
    signer: Option<Arc<dyn Sign>>,
}

enum Verifier {
    Diallers(Arc<DiallerVerifier>),
    Listeners(Arc<ListenerVerifier>),
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("identity", &self.identity.uri())
            .finish_non_exhaustive()
    }
}

impl Trust {
    /// Loads key, chain, root and CRLs from `state` for an agent of `role`.
    pub fn load(
        state: &Path,
        role: Role,
        options: Options,
        clock: &Arc<AgentClock>,
    ) -> Result<Self, TrustError> {
        let installed = Installed::load(state)?;
        if installed.identity.role != role {
            return Err(TrustError::Role {
                state: state.display().to_string(),
                got: installed.identity.role,
                expected: role,
            });
        }
        let chain = installed.chain.iter().cloned().map(CertificateDer::from);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(installed.key_der.to_vec()));
        let key = CertifiedKey::from_der(chain.collect(), key, &provider(&GROUPS))
            .map_err(|error| TrustError::tls(&error))?;
        let leaf = Summary::of(installed.leaf()).map_err(|error| TrustError::tls(&error))?;
        let signer = LogSigner::of(&installed).map(|signer| Arc::new(signer) as Arc<dyn Sign>);
        let own = Own {
            identity: installed.identity,
            leaf,
            key: Arc::new(key),
            signer,
        };
        Self::build(own, installed.trust, options, clock)
    }

    /// The same agent under another list.
    ///
    /// # Errors
    /// The list has something that TLS can't use.
    pub fn with_list(&self, list: TrustList) -> Result<Self, TrustError> {
        let own = Own {
            identity: self.identity.clone(),
            leaf: self.leaf.clone(),
            key: self.key.clone(),
            signer: self.signer.clone(),
        };
        Self::build(own, list, self.options, &self.clock)
    }

    fn build(
        own: Own,
        list: TrustList,
        options: Options,
        clock: &Arc<AgentClock>,
    ) -> Result<Self, TrustError> {
        let Own {
            identity,
            leaf,
            key,
            signer,
        } = own;
        let groups = match options.key_exchange {
            KeyExchange::Any => &GROUPS[..],
            KeyExchange::PostQuantum => &GROUPS[..HYBRID],
        };
        let tunnels = Arc::new(provider(groups));
        let mut roots = RootCertStore::empty();
        for root in &list.roots {
            let added = roots.add(CertificateDer::from(root.clone()));
            added.map_err(|error| TrustError::tls(&error))?;
        }
        let site = identity.site.clone();
        let parts = Parts {
            provider: Arc::new(provider(&GROUPS)),
            roots: Arc::new(roots),
            crls: list.crls.iter().cloned().map(Into::into).collect(),
        };
        let dates = || Dates::new(&list, options, clock.clone());
        let mbaps = Mbaps::new(identity.role, &parts, &key, &site, dates())?;
        let (mut server, mut client) = (None, None);
        let verifier = if identity.role == Role::Headend {
            let verifier = DiallerVerifier::new(&parts, &[Role::Edge], site, dates());
            let verifier = Arc::new(verifier.map_err(TrustError::Tls)?);
            server = Some(server_config(tunnels, verifier.clone(), &key)?);
            Verifier::Diallers(verifier)
        } else {
            let verifier = ListenerVerifier::new(&parts, &[Role::Headend], site, dates());
            let verifier = Arc::new(verifier.map_err(TrustError::Tls)?);
            client = Some(client_config(tunnels, verifier.clone(), &key)?);
            Verifier::Listeners(verifier)
        };
        let revoked = key.end_entity_cert().is_ok_and(|leaf| list.revokes(leaf));
        Ok(Self {
            identity,
            leaf,
            list,
            revoked,
            key,
            options,
            clock: clock.clone(),
            verifier,
            server,
            client,
            mbaps,
            signer,
        })
    }

    /// The headend's side of TLS over TCP.
    pub fn tls_server(&self) -> Option<Arc<ServerConfig>> {
        self.server.clone()
    }

    /// The edge's side of TLS over TCP.
    pub fn tls_client(&self) -> Option<Arc<ClientConfig>> {
        self.client.clone()
    }

    /// The headend's side of the second connection, for cyclic data.
    pub fn cyclic_server(&self) -> Option<Arc<ServerConfig>> {
        let mut config = ServerConfig::clone(self.server.as_ref()?);
        config.alpn_protocols = vec![CYCLIC_ALPN.to_vec()];
        Some(Arc::new(config))
    }

    /// The edge's side of it.
    pub fn cyclic_client(&self) -> Option<Arc<ClientConfig>> {
        let mut config = ClientConfig::clone(self.client.as_ref()?);
        config.alpn_protocols = vec![CYCLIC_ALPN.to_vec()];
        Some(Arc::new(config))
    }

    /// The headend's side of QUIC; `transport` is set by the caller.
    pub fn quic_server(&self) -> Result<Option<quinn::ServerConfig>, TrustError> {
        let Some(config) = self.server.clone() else {
            return Ok(None);
        };
        let crypto = QuicServerConfig::try_from(config)
            .map_err(|error| TrustError::Tls(error.to_string()))?;
        let crypto = Arc::new(NotedConfig(Arc::new(crypto)));
        Ok(Some(quinn::ServerConfig::with_crypto(crypto)))
    }

    /// The edge's side of QUIC; `transport` is set by the caller.
    pub fn quic_client(&self) -> Result<Option<quinn::ClientConfig>, TrustError> {
        let Some(config) = self.client.clone() else {
            return Ok(None);
        };
        let crypto = QuicClientConfig::try_from(config)
            .map_err(|error| TrustError::Tls(error.to_string()))?;
        let crypto = Arc::new(NotedConfig(Arc::new(crypto)));
        Ok(Some(quinn::ClientConfig::new(crypto)))
    }

    /// Judges the certificate chain of a live tunnel again, under this trust.
    pub fn still_trusts(
        &self,
        peer: &[CertificateDer<'static>],
        identity: &Identity,
    ) -> Result<(), String> {
        self.judge_again(&self.verifier, peer, identity)
    }

    fn judge_again(
        &self,
        verifier: &Verifier,
        peer: &[CertificateDer<'static>],
        identity: &Identity,
    ) -> Result<(), String> {
        let Some((leaf, intermediates)) = peer.split_first() else {
            return Err("the peer showed no certificate".into());
        };
        // A jump of the clock that nothing has proven ends no tunnel.
        let now = self.clock.steady();
        let verdict = match verifier {
            Verifier::Diallers(verifier) => verifier.judge(leaf, intermediates, now),
            Verifier::Listeners(verifier) => {
                let name = ServerName::try_from(identity.dns()).map_err(|e| e.to_string())?;
                verifier.judge(leaf, intermediates, &name, now)
            }
        };
        let verdict = verdict.map_err(|error| words::tls_error(&error).into_owned());
        if self.options.after_grace == AfterGrace::Cut {
            let dates = Dates::new(&self.list, self.options, self.clock.clone());
            dates
                .check_fresh(leaf, now)
                .map_err(|stale| stale.to_string())?;
        }
        verdict
    }

    /// Seconds that a CRL is good for after its date.
    pub fn grace(&self) -> i64 {
        grace(self.options)
    }
}

/// The one place that chooses cryptography.
fn provider(groups: &[&'static dyn SupportedKxGroup]) -> CryptoProvider {
    CryptoProvider {
        kx_groups: groups.to_vec(),
        ..aws_lc_rs::default_provider()
    }
}

fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    key: &Arc<CertifiedKey>,
) -> Result<Arc<ServerConfig>, TrustError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TrustError::tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn client_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    key: &Arc<CertifiedKey>,
) -> Result<Arc<ClientConfig>, TrustError> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TrustError::tls(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Name of a TLS group as IANA writes it.
pub(crate) fn group_name(group: rustls::NamedGroup) -> String {
    match group {
        rustls::NamedGroup::secp256r1 => "P-256".into(),
        group => format!("{group:?}"),
    }
}
