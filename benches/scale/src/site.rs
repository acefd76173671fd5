//! The site of a run: a CA in memory, the headend's state directory, certificates of edges.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fieldlock_pki::bundle::{certificate_pem, crl_pem};
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::issue::{Authority, RevocationList, Validity};
use fieldlock_pki::profile::Profile;
use fieldlock_pki::{Bundle, Identity, Role, Serial, Site, store};
use fieldlock_session::ALPN;
use rcgen::KeyPair;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::Failure;

pub(crate) const HEADEND: &str = "hd-1";
const SITE: &str = "scale.example";
const DAY: i64 = 86_400;

/// Root and issuing CA, with their CRLs.
pub(crate) struct Ca {
    site: Site,
    issuing: Authority,
    root: Vec<u8>,
    /// What a bundle has beside its leaf, PEM.
    rest: String,
    validity: Validity,
}

impl Ca {
    pub(crate) fn new() -> Result<Self, Failure> {
        let site: Site = SITE.parse().map_err(Failure::certificate)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs() as i64);
        let validity = Validity {
            not_before: now - DAY,
            not_after: now + 30 * DAY,
        };
        let serial = Serial::from_octets(&[1]);
        let root = Authority::root(&site, "1", Box::new(key()?), &serial, validity)
            .map_err(Failure::certificate)?;
        let serial = Serial::from_octets(&[2]);
        let issuing = root
            .issuing(&site, "1", Box::new(key()?), &serial, validity)
            .map_err(Failure::certificate)?;
        let list = RevocationList {
            number: 1,
            this_update: now - DAY,
            next_update: now + 30 * DAY,
            revoked: Vec::new(),
        };
        let mut rest =
            certificate_pem(issuing.certificate()) + &certificate_pem(root.certificate());
        for authority in [&root, &issuing] {
            rest += &crl_pem(&authority.crl(&list).map_err(Failure::certificate)?);
        }
        Ok(Self {
            site,
            issuing,
            root: root.certificate().to_vec(),
            rest,
            validity,
        })
    }

    /// Name of the headend in its certificate.
    pub(crate) fn headend(&self) -> String {
        format!("{HEADEND}.headend.{}", self.site.as_str())
    }

    fn leaf(&self, role: Role, name: &str, serial: u32) -> Result<(KeyPair, Vec<u8>), Failure> {
        let key = key()?;
        let identity = Identity {
            site: self.site.clone(),
            role,
            name: name.parse().map_err(Failure::certificate)?,
        };
        let profile = Profile::of(role).map_err(Failure::certificate)?;
        let public = PublicKey::of(&key).map_err(Failure::certificate)?;
        let serial = Serial::from_octets(&(0x1000_0000 + serial).to_be_bytes());
        let leaf = self
            .issuing
            .leaf(&identity, None, &profile, &public, &serial, self.validity)
            .map_err(Failure::certificate)?;
        Ok((key, leaf))
    }

    /// A state directory as `enroll install` leaves it.
    pub(crate) fn install_headend(&self, state: &Path) -> Result<(), Failure> {
        let (key, leaf) = self.leaf(Role::Headend, HEADEND, 0)?;
        let bundle = Bundle::parse(&(certificate_pem(&leaf) + &self.rest));
        let bundle = bundle.map_err(Failure::certificate)?;
        store::install(state, &key.serialize_pem(), &bundle).map_err(Failure::certificate)
    }

    /// What the edge of this number shows and trusts in a handshake.
    pub(crate) fn edge(&self, number: u32) -> Result<Arc<ClientConfig>, Failure> {
        let (key, leaf) = self.leaf(Role::Edge, &edge_name(number), number + 1)?;
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(self.root.clone()))
            .map_err(Failure::certificate)?;
        let chain = vec![
            CertificateDer::from(leaf),
            CertificateDer::from(self.issuing.certificate().to_vec()),
        ];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Failure::certificate)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(Failure::certificate)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Of an edge, and of its one device.
pub(crate) fn edge_name(number: u32) -> String {
    format!("edge-{number:05}")
}

fn key() -> Result<KeyPair, Failure> {
    KeyPair::generate().map_err(Failure::certificate)
}
