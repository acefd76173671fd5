//! What is done with the root's key, on a machine without a network. A root's directory holds its
//! key, certificate and last CRL, and needs nothing of the CA's.

use std::path::Path;

use fieldlock_pki::bundle;
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::issue::{Authority, RevocationList, Validity};
use fieldlock_pki::{Site, TrustList};

use crate::clock::{BACKDATE_SECONDS, Time};
use crate::error::CaError;
use crate::file;
use crate::hsm::Uri;
use crate::keyfile;
use crate::layout::{ROOT, ROOT_KEY};
use crate::passphrase::Passphrase;
use crate::random::{new_mark, random_serial};

/// Opens the root in `directory`.
pub fn open(directory: &Path, passphrase: &Passphrase) -> Result<Authority, CaError> {
    let path = directory.join(ROOT);
    let text = file::read(&path, MAX_ROOT)?;
    let certificate = bundle::certificates_from_pem(&text)?.concat();
    let key = keyfile::load(&directory.join(ROOT_KEY), passphrase)?;
    Ok(Authority::new(certificate, key)?)
}

/// Signs the certificate (PEM) of an issuing CA of `site`; of the request only the key is taken.
pub fn sign_issuing(
    root: &Authority,
    site: &Site,
    request: &str,
    days: u16,
    now: Time,
) -> Result<String, CaError> {
    let key = PublicKey::from_request(request)?;
    let certificate = root.issuing_for(
        site,
        &new_mark()?,
        &key,
        &random_serial()?,
        validity(days, now),
    )?;
    Ok(bundle::certificate_pem(&certificate))
}

/// Makes a new root in `directory`, which must be empty of one, certified by the old; its key is on
/// the token if there is one. What comes back (PEM) is for the CA: the root, the link and the
/// first CRL.
pub fn new_root(
    old: &Authority,
    site: &Site,
    directory: &Path,
    token: Option<&Uri>,
    passphrase: &Passphrase,
    (days, crl_days): (u16, u16),
    now: Time,
) -> Result<String, CaError> {
    for name in [ROOT, ROOT_KEY] {
        let path = directory.join(name);
        if path.exists() {
            return Err(CaError::Exists { path });
        }
    }
    let mark = new_mark()?;
    let label = format!("fieldlock-root-{mark}");
    let (key, key_file) = keyfile::generate(token, &label, passphrase)?;
    let validity = validity(days, now);
    let root = Authority::root(site, &mark, key, &random_serial()?, validity)?;
    let link = old.link(&root, site, &mark, &random_serial()?, validity)?;
    let crl = root.crl(&RevocationList {
        number: u64::try_from(now.0).unwrap_or(1),
        this_update: now.0 - BACKDATE_SECONDS,
        next_update: now.plus_days(crl_days).0,
        revoked: Vec::new(),
    })?;
    file::make_directory(directory)?;
    file::create(&directory.join(ROOT_KEY), key_file.as_bytes())?;
    let certificate = bundle::certificate_pem(root.certificate());
    file::create(&directory.join(ROOT), certificate.as_bytes())?;
    let list = TrustList {
        roots: vec![root.certificate().to_vec()],
        links: vec![link],
        crls: vec![crl],
        ..TrustList::default()
    };
    Ok(list.to_pem())
}

fn validity(days: u16, now: Time) -> Validity {
    Validity {
        not_before: now.0 - BACKDATE_SECONDS,
        not_after: now.plus_days(days).0,
    }
}

const MAX_ROOT: u64 = 64 << 10;
