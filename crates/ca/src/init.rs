//! Making a CA: a root and an issuing CA below it.

use std::fs;
use std::path::{Path, PathBuf};

use fieldlock_pki::Summary;
use fieldlock_pki::bundle;
use fieldlock_pki::issue::{Authority, CaKey, RevocationList, Validity};

use crate::clock::{BACKDATE_SECONDS, Time};
use crate::error::CaError;
use crate::event::{Event, Level};
use crate::file;
use crate::hsm::{self, Uri};
use crate::keyfile::{self, KeyFileError};
use crate::layout::{
    ISSUING, ISSUING_CRL, ISSUING_KEY, LOCK, RECORDS, ROOT, ROOT_CRL, ROOT_KEY, SETTINGS,
};
use crate::passphrase::Passphrase;
use crate::random::{new_mark, random_serial};
use crate::records::Records;
use crate::settings::Settings;

/// A CA to be made.
#[derive(Debug)]
pub struct Plan {
    /// Of the issuing CA; must not exist, or be empty.
    pub directory: PathBuf,
    /// Where the root's key goes, to be taken away from this machine.
    pub root_out: PathBuf,
    pub settings: Settings,
    pub passphrase: Passphrase,
    pub root_passphrase: Passphrase,
    /// The token on which the issuing CA's key is made, if not in a file.
    pub token: Option<Uri>,
    pub root_token: Option<Uri>,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    pub root: Summary,
    pub issuing: Summary,
    pub root_key: PathBuf,
}

/// Everything is made in a directory beside the final one and then moved there, so that a CA is
/// there whole or not at all.
pub fn make(plan: &Plan, now: Time) -> Result<Made, CaError> {
    check(plan)?;
    let root_key = plan.root_out.join(ROOT_KEY);
    let inside = plan.root_out.strip_prefix(&plan.directory).ok();
    let staging = staging(&plan.directory);
    if staging.exists() {
        file::at(&staging, || fs::remove_dir_all(&staging))?;
    }
    file::make_directory(&staging)?;
    let mark = new_mark()?;
    let key = |token: &Option<Uri>, what, passphrase| {
        keyfile::generate(
            token.as_ref(),
            &format!("fieldlock-{what}-{mark}"),
            passphrase,
        )
    };
    let (key_of_root, root_key_file) = key(&plan.root_token, "root", &plan.root_passphrase)?;
    let (key_of_issuing, key_file) = key(&plan.token, "issuing", &plan.passphrase)?;
    let (root, issuing) = authorities(plan, &mark, key_of_root, key_of_issuing, now)?;

    let root_directory = inside.map_or_else(|| plan.root_out.clone(), |path| staging.join(path));
    file::make_directory(&root_directory)?;
    file::create(&root_directory.join(ROOT_KEY), root_key_file.as_bytes())?;
    let certificate = bundle::certificate_pem(root.certificate());
    file::create(&root_directory.join(ROOT), certificate.as_bytes())?;
    file::create(&staging.join(ISSUING_KEY), key_file.as_bytes())?;
    write_directory(&staging, plan, &root, &issuing, now)?;
    file::at(&plan.directory, || fs::rename(&staging, &plan.directory))?;
    let summary = |authority: &Authority| {
        Summary::of(authority.certificate()).map_err(|_| CaError::Unreadable)
    };
    Ok(Made {
        root: summary(&root)?,
        issuing: summary(&issuing)?,
        root_key,
    })
}

/// Refuses what would overwrite something, before any passphrase is asked for.
pub fn check_free(directory: &Path, root_out: &Path) -> Result<(), CaError> {
    if directory == root_out {
        return Err(CaError::SameDirectory {
            directory: directory.to_owned(),
            root_out: root_out.to_owned(),
        });
    }
    let taken = |path: &Path| {
        Err(CaError::Exists {
            path: path.to_owned(),
        })
    };
    let empty = || fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if directory.exists() && !empty() {
        return taken(directory);
    }
    for name in [ROOT_KEY, ROOT] {
        if root_out.join(name).exists() {
            return taken(&root_out.join(name));
        }
    }
    Ok(())
}

fn check(plan: &Plan) -> Result<(), CaError> {
    plan.settings.check()?;
    check_free(&plan.directory, &plan.root_out)?;
    // Both before a key is made on either: it would stay there if the other failed.
    for (token, passphrase) in [
        (&plan.token, &plan.passphrase),
        (&plan.root_token, &plan.root_passphrase),
    ] {
        if let Some(token) = token {
            hsm::check(token, passphrase).map_err(KeyFileError::from)?;
        }
    }
    Ok(())
}

fn authorities(
    plan: &Plan,
    mark: &str,
    key_of_root: Box<dyn CaKey>,
    key_of_issuing: Box<dyn CaKey>,
    now: Time,
) -> Result<(Authority, Authority), CaError> {
    let settings = &plan.settings;
    let validity = |days| Validity {
        not_before: now.0 - BACKDATE_SECONDS,
        not_after: now.plus_days(days).0,
    };
    let root = Authority::root(
        &settings.site,
        mark,
        key_of_root,
        &random_serial()?,
        validity(settings.root.days),
    )?;
    let issuing = root.issuing(
        &settings.site,
        mark,
        key_of_issuing,
        &random_serial()?,
        validity(settings.issuing.days),
    )?;
    Ok((root, issuing))
}

fn write_directory(
    directory: &Path,
    plan: &Plan,
    root: &Authority,
    issuing: &Authority,
    now: Time,
) -> Result<(), CaError> {
    let create = |name: &str, text: String| file::create(&directory.join(name), text.as_bytes());
    create(SETTINGS, plan.settings.to_toml()?)?;
    create(ROOT, bundle::certificate_pem(root.certificate()))?;
    create(ISSUING, bundle::certificate_pem(issuing.certificate()))?;
    create(LOCK, String::new())?;
    let mut records = Records::create(&directory.join(RECORDS))?;
    for (authority, level, name, life) in [
        (root, Level::Root, ROOT_CRL, plan.settings.root),
        (issuing, Level::Issuing, ISSUING_CRL, plan.settings.issuing),
    ] {
        record_authority(&mut records, authority, level, now)?;
        let number = records.next_crl_number(level, now)?;
        let next_update = now.plus_days(life.crl_days);
        let der = authority.crl(&RevocationList {
            number,
            this_update: now.0 - BACKDATE_SECONDS,
            next_update: next_update.0,
            revoked: Vec::new(),
        })?;
        let event = Event::Crl {
            authority: level,
            number,
            next_update,
            revoked: 0,
        };
        records.append(now, event)?;
        create(name, bundle::crl_pem(&der))?;
    }
    Ok(())
}

fn record_authority(
    records: &mut Records,
    authority: &Authority,
    level: Level,
    now: Time,
) -> Result<(), CaError> {
    let summary = Summary::of(authority.certificate()).map_err(|_| CaError::Unreadable)?;
    let event = Event::Authority {
        authority: level,
        serial: summary.serial,
        key_hash: summary.key_hash,
        not_before: Time(summary.not_before),
        not_after: Time(summary.not_after),
    };
    Ok(records.append(now, event)?)
}

fn staging(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_os_string();
    name.push(".init");
    directory.with_file_name(name)
}
