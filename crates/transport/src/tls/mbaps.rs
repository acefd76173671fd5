//! TLS for Modbus/TCP Security (MBAPS): clients at the headend, devices at the edge.
//!
//! As in a tunnel: mutual authentication, both CRLs, no tickets, no resumption, no early data.
//! Otherwise than there, no ALPN, since its clients send none, and TLS 1.2 where it is allowed.

use std::fmt;
use std::sync::Arc;

use fieldlock_pki::{Identity, ModbusRole, Name, Role, Site, Summary};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::options::MinimumTls;
use super::verify::{Dates, DiallerVerifier, ListenerVerifier, Parts};
use super::{Trust, TrustError, Verifier};

/// Who may be a client: a program, or a person with a tool of theirs.
const CLIENTS: &[Role] = &[Role::Client, Role::Operator];
const DEVICES: &[Role] = &[Role::Device];

/// This agent's side of Modbus/TCP Security.
pub(super) struct Mbaps {
    verifier: Verifier,
    server: Option<ByMinimum<ServerConfig>>,
    client: Option<ByMinimum<ClientConfig>>,
}

type Versions = &'static [&'static SupportedProtocolVersion];

static FROM_13: Versions = &[&TLS13];
static FROM_12: Versions = &[&TLS13, &TLS12];

/// One configuration for each least version.
struct ByMinimum<C> {
    tls13: Arc<C>,
    tls12: Arc<C>,
}

/// What the handshake proved about a client or device.
#[derive(Debug)]
pub struct Proof {
    pub identity: Identity,
    pub modbus_role: Option<ModbusRole>,
    /// Seconds since 1970.
    pub not_after: i64,
    chain: Vec<CertificateDer<'static>>,
}

impl Mbaps {
    pub(super) fn new(
        role: Role,
        parts: &Parts,
        key: &Arc<CertifiedKey>,
        site: &Site,
        dates: Dates,
    ) -> Result<Self, TrustError> {
        let (provider, site) = (&parts.provider, site.clone());
        if role == Role::Headend {
            let verifier = DiallerVerifier::new(parts, CLIENTS, site, dates);
            let verifier = Arc::new(verifier.map_err(TrustError::Tls)?);
            let config =
                |versions: Versions| server_config(provider, verifier.clone(), key, versions);
            return Ok(Self {
                server: Some(ByMinimum::new(config)?),
                client: None,
                verifier: Verifier::Diallers(verifier),
            });
        }
        let verifier = ListenerVerifier::new(parts, DEVICES, site, dates);
        let verifier = Arc::new(verifier.map_err(TrustError::Tls)?);
        let config = |versions: Versions| client_config(provider, verifier.clone(), key, versions);
        Ok(Self {
            server: None,
            client: Some(ByMinimum::new(config)?),
            verifier: Verifier::Listeners(verifier),
        })
    }
}

impl<C> ByMinimum<C> {
    fn new(config: impl Fn(Versions) -> Result<C, rustls::Error>) -> Result<Self, TrustError> {
        let config = |versions| {
            let config = config(versions).map_err(|error| TrustError::Tls(error.to_string()))?;
            Ok::<_, TrustError>(Arc::new(config))
        };
        Ok(Self {
            tls13: config(FROM_13)?,
            tls12: config(FROM_12)?,
        })
    }

    fn get(&self, minimum: MinimumTls) -> Arc<C> {
        match minimum {
            MinimumTls::Tls13 => self.tls13.clone(),
            MinimumTls::Tls12 => self.tls12.clone(),
        }
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<DiallerVerifier>,
    key: &Arc<CertifiedKey>,
    versions: Versions,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<ListenerVerifier>,
    key: &Arc<CertifiedKey>,
    versions: Versions,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

impl Trust {
    /// The headend's side of a client's connection.
    pub fn mbaps_server(&self, minimum: MinimumTls) -> Option<Arc<ServerConfig>> {
        Some(self.mbaps.server.as_ref()?.get(minimum))
    }

    /// The edge's side of a connection to a device.
    pub fn mbaps_client(&self, minimum: MinimumTls) -> Option<Arc<ClientConfig>> {
        Some(self.mbaps.client.as_ref()?.get(minimum))
    }

    /// What a device of this site is called in its certificate.
    pub fn device_name(&self, name: &Name) -> Result<ServerName<'static>, String> {
        let identity = Identity {
            site: self.identity.site.clone(),
            role: Role::Device,
            name: name.clone(),
        };
        ServerName::try_from(identity.dns()).map_err(|error| error.to_string())
    }

    /// Judges the certificate of a live client or device again, under this trust.
    pub fn still_trusts_mbaps(&self, proof: &Proof) -> Result<(), String> {
        self.judge_again(&self.mbaps.verifier, &proof.chain, &proof.identity)
    }
}

impl Proof {
    /// Reads what a verifier has accepted.
    pub fn of(state: &rustls::CommonState) -> Result<Self, String> {
        let none = "the peer showed no certificate";
        let chain = state.peer_certificates().ok_or(none)?;
        let leaf = chain.first().ok_or(none)?;
        let text = |error: &dyn fmt::Display| error.to_string();
        let identity = Identity::from_certificate(leaf).map_err(|error| text(&error))?;
        let summary = Summary::of(leaf).map_err(|error| text(&error))?;
        Ok(Self {
            identity,
            modbus_role: summary.modbus_role,
            not_after: summary.not_after,
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
        })
    }
}
