//! Who is at the other end: chain, revocation, role, site, name.
//!
//! rustls-webpki judges the chain against both CRLs and the DNS name; the identity in the
//! URI SAN is judged here, since webpki does not look at it. Both happen inside the
//! handshake, and again for live tunnels when the trust changes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fieldlock_enroll::AgentClock;
use fieldlock_pki::{Identity, Role, Site, Summary, TrustList};
use fieldlock_tls::verify_signatures;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, OtherError, RootCertStore};
use thiserror::Error;

use super::options::Trust as Options;
use super::refusal::Refusal;

/// A certificate that is sound, but not that of a peer this agent talks to.
#[derive(Clone, PartialEq, Eq, Error)]
pub(crate) enum NotThisPeer {
    #[error("certificate without a usable identity: {0}")]
    Identity(String),
    #[error("certificate of role {got}, expected {}", either(expected))]
    Role {
        got: Role,
        expected: &'static [Role],
    },
    #[error("certificate of site {got}, this agent belongs to {expected}")]
    Site { got: Site, expected: Site },
    #[error(
        "the CRL of {authority:?} is too old: nobody knows whether this certificate is revoked; get a fresh one from the CA"
    )]
    Stale { authority: String },
    #[error("certificate of {got}, this one is configured as {expected}")]
    Name { got: String, expected: String },
}

/// rustls shows errors of verifiers by their `Debug`, to people.
impl fmt::Debug for NotThisPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<NotThisPeer> for Error {
    fn from(error: NotThisPeer) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// What the time says of a certificate, and what time it is.
#[derive(Debug)]
pub(super) struct Dates {
    clock: Arc<AgentClock>,
    list: TrustList,
    /// Until when each issuing CA's word on revocations is good enough for a new tunnel: its CRL's
    /// next update or its root's, whichever is earlier, and the grace. Issuer of leaves, seconds
    /// since 1970.
    until: Vec<(String, i64)>,
}

pub(super) fn grace(options: Options) -> i64 {
    i64::try_from(options.crl_grace.0.as_secs()).unwrap_or(i64::MAX)
}

impl Dates {
    pub(super) fn new(list: &TrustList, options: Options, clock: Arc<AgentClock>) -> Self {
        let until = list.issuing.iter().filter_map(|issuing| {
            let own = list.crl_of(issuing)?;
            let root = list.crl_of(list.root_of(issuing)?)?;
            let next_update = own.next_update.min(root.next_update);
            Some((own.issuer, next_update.saturating_add(grace(options))))
        });
        Self {
            clock,
            list: list.clone(),
            until: until.collect(),
        }
    }

    fn now_for(&self, leaf: &[u8]) -> i64 {
        self.clock.now_for(leaf, &self.list)
    }

    /// Puts down why `leaf` was refused, if it was.
    fn noting(&self, leaf: &[u8], judged: Result<(), Error>) -> Result<(), Error> {
        judged.inspect_err(|error| Refusal::note(error, leaf, &self.list))
    }

    pub(super) fn check_fresh(&self, leaf: &[u8], now: i64) -> Result<(), NotThisPeer> {
        let issuer = Summary::of(leaf).map(|leaf| leaf.issuer);
        let issuer = issuer.map_err(|error| NotThisPeer::Identity(error.to_string()))?;
        // An issuer that is not in the list has failed the chain already.
        match self
            .until
            .iter()
            .find(|(authority, _)| *authority == issuer)
        {
            Some((_, until)) if now > *until => Err(NotThisPeer::Stale { authority: issuer }),
            _ => Ok(()),
        }
    }
}

/// What chains are judged by.
pub(super) struct Parts {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
}

/// Judges the certificate of who connects: an edge, or a client that speaks MBAPS; runs at the
/// headend.
#[derive(Debug)]
pub(super) struct DiallerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    roles: &'static [Role],
    site: Site,
    dates: Dates,
    algorithms: WebPkiSupportedAlgorithms,
}

impl DiallerVerifier {
    pub(super) fn new(
        parts: &Parts,
        roles: &'static [Role],
        site: Site,
        dates: Dates,
    ) -> Result<Self, String> {
        let (roots, provider) = (parts.roots.clone(), parts.provider.clone());
        let algorithms = provider.signature_verification_algorithms;
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .with_crls(parts.crls.clone())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            chain,
            roles,
            site,
            dates,
            algorithms,
        })
    }
}

impl DiallerVerifier {
    /// All but the age of the CRLs.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: i64,
    ) -> Result<(), Error> {
        self.chain
            .verify_client_cert(leaf, intermediates, unix(now))
            .map_err(without_clock)?;
        judge(leaf, self.roles, &self.site)?;
        Ok(())
    }
}

impl ClientCertVerifier for DiallerVerifier {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let now = self.dates.now_for(leaf);
        let judged = self
            .judge(leaf, intermediates, now)
            .and_then(|()| Ok(self.dates.check_fresh(leaf, now)?));
        self.dates.noting(leaf, judged)?;
        Ok(ClientCertVerified::assertion())
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    verify_signatures!(|verifier| verifier.algorithms);
}

/// Judges the certificate of who is connected to: a headend, or a device that speaks MBAPS; runs
/// at the edge.
#[derive(Debug)]
pub(super) struct ListenerVerifier {
    chain: Arc<WebPkiServerVerifier>,
    roles: &'static [Role],
    site: Site,
    dates: Dates,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ListenerVerifier {
    pub(super) fn new(
        parts: &Parts,
        roles: &'static [Role],
        site: Site,
        dates: Dates,
    ) -> Result<Self, String> {
        let (roots, provider) = (parts.roots.clone(), parts.provider.clone());
        let algorithms = provider.signature_verification_algorithms;
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .with_crls(parts.crls.clone())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            chain,
            roles,
            site,
            dates,
            algorithms,
        })
    }
}

impl ListenerVerifier {
    /// All but the age of the CRLs.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: i64,
    ) -> Result<(), Error> {
        self.chain
            .verify_server_cert(leaf, intermediates, server_name, &[], unix(now))
            .map_err(without_clock)?;
        let identity = judge(leaf, self.roles, &self.site)?;
        let expected = server_name.to_str();
        if identity.dns() != expected {
            return Err(NotThisPeer::Name {
                got: identity.dns(),
                expected: expected.into_owned(),
            }
            .into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for ListenerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = self.dates.now_for(leaf);
        let judged = self
            .judge(leaf, intermediates, server_name, now)
            .and_then(|()| Ok(self.dates.check_fresh(leaf, now)?));
        self.dates.noting(leaf, judged)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!(|verifier| verifier.algorithms);
}

fn unix(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Leaves out the seconds since expiry: they would make each refusal look like another.
fn without_clock(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { .. }) => {
            CertificateError::Expired.into()
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { .. }) => {
            CertificateError::NotValidYet.into()
        }
        error => error,
    }
}

fn judge(leaf: &[u8], roles: &'static [Role], site: &Site) -> Result<Identity, NotThisPeer> {
    let identity = Identity::from_certificate(leaf)
        .map_err(|error| NotThisPeer::Identity(error.to_string()))?;
    if !roles.contains(&identity.role) {
        return Err(NotThisPeer::Role {
            got: identity.role,
            expected: roles,
        });
    }
    if identity.site != *site {
        return Err(NotThisPeer::Site {
            got: identity.site,
            expected: site.clone(),
        });
    }
    Ok(identity)
}

fn either(roles: &[Role]) -> String {
    let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    names.join(" or ")
}
