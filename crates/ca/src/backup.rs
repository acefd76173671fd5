//! A CA in one file, and back.
//!
//! Keys in it are encrypted as they are in the directory, or stay on their token; it is to be kept
//! like them. A copy is older than what happened since: [`restore`] takes the newest CRLs from the
//! field, so that what was revoked meanwhile stays revoked and no CRL number comes twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Crl, Serial, TrustList, hex};
use serde::{Deserialize, Serialize};

use crate::authority::{Access, Ca};
use crate::clock::Time;
use crate::error::CaError;
use crate::event::{Event, Level};
use crate::file;
use crate::hsm::Uri;
use crate::keyfile;
use crate::layout::{LOCK, RECORDS};
use crate::records::{Record, Records};

/// The file: JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    /// Version of this syntax.
    v: u8,
    made: Time,
    /// By plain name; all files of a CA but the database are text.
    files: BTreeMap<String, Kept>,
    records: Vec<Record>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    sha256: String,
    text: String,
}

/// What a copy holds.
#[derive(Debug)]
pub struct Copied {
    pub files: usize,
    /// Key files that say on which token the key is: the copy has no more than that.
    pub on_tokens: Vec<(String, Uri)>,
}

/// Writes the CA in `directory` to a new file.
pub fn make(directory: &Path, out: &Path, now: Time) -> Result<Copied, CaError> {
    // Keeps every other command out, so that the files belong together.
    let ca = Ca::open(directory, Access::Read)?;
    let mut records = Vec::new();
    ca.records().verify(|record| records.push(record))?;
    let mut files = BTreeMap::new();
    let mut on_tokens = Vec::new();
    for entry in file::at(directory, || fs::read_dir(directory))? {
        let entry = file::at(directory, || entry)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = file::at(&entry.path(), || entry.file_type())?.is_file();
        if !is_file || is_made_anew(&name) || !is_plain(&name) {
            continue;
        }
        let text = file::read(&entry.path(), MAX_FILE)?;
        if let Some(uri) = keyfile::uri_in(&entry.path(), &text) {
            on_tokens.push((name.clone(), uri?));
        }
        let sha256 = hash(&text);
        files.insert(name, Kept { sha256, text });
    }
    let copied = Copied {
        files: files.len(),
        on_tokens,
    };
    let backup = Backup {
        v: 1,
        made: now,
        files,
        records,
    };
    let text = serde_json::to_vec(&backup).map_err(|_| CaError::Unreadable)?;
    file::create(out, &text)?;
    Ok(copied)
}

/// What a restoration did.
#[derive(Debug)]
pub struct Restored {
    pub made: Time,
    pub files: usize,
    /// Revocations that the copy lacked.
    pub revoked: Vec<Serial>,
}

/// Makes the CA anew in `directory`, which must not exist. `field` is PEM with the newest CRLs to
/// be had, of an agent's trust list or the CA's own files.
pub fn restore(file: &Path, directory: &Path, field: &str, now: Time) -> Result<Restored, CaError> {
    if directory.exists() {
        return Err(CaError::Exists {
            path: directory.to_owned(),
        });
    }
    let backup = read(file)?;
    let staging = staging(directory);
    if staging.exists() {
        file::at(&staging, || fs::remove_dir_all(&staging))?;
    }
    file::make_directory(&staging)?;
    for (name, kept) in &backup.files {
        file::create(&staging.join(name), kept.text.as_bytes())?;
    }
    file::create(&staging.join(LOCK), b"")?;
    let mut records = Records::create(&staging.join(RECORDS))?;
    for record in &backup.records {
        let hash = records.append_text(record.time, record.event.get())?;
        if hash != record.hash {
            return Err(CaError::Backup {
                path: file.to_owned(),
                what: format!("record {} was changed", record.seq),
            });
        }
    }
    drop(records);
    let mut ca = Ca::open(&staging, Access::Write)?;
    let revoked = catch_up(&mut ca, &TrustList::parse(field)?, now)?;
    drop(ca);
    file::at(directory, || fs::rename(&staging, directory))?;
    Ok(Restored {
        made: backup.made,
        files: backup.files.len(),
        revoked,
    })
}

fn read(path: &Path) -> Result<Backup, CaError> {
    let damaged = |what: String| CaError::Backup {
        path: path.to_owned(),
        what,
    };
    let text = file::read(path, MAX_BACKUP)?;
    let backup: Backup = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if backup.v != 1 {
        return Err(damaged(format!(
            "version {}, this program knows 1",
            backup.v
        )));
    }
    for (name, kept) in &backup.files {
        if !is_plain(name) || is_made_anew(name) {
            return Err(damaged(format!("{name:?} is no name of a file of a CA")));
        }
        if hash(&kept.text) != kept.sha256 {
            return Err(damaged(format!("{name} was changed")));
        }
    }
    Ok(backup)
}

/// Records what the CRLs of the field know and the records don't.
fn catch_up(ca: &mut Ca, field: &TrustList, now: Time) -> Result<Vec<Serial>, CaError> {
    let known = ca.trust()?;
    let mut caught = Vec::new();
    for der in &field.crls {
        let signed = |authority: &&Vec<u8>| Crl::signed_by(der, authority).ok();
        let of_root = known.roots.iter().find_map(|authority| signed(&authority));
        let of_issuing = known
            .issuing
            .iter()
            .find_map(|authority| signed(&authority));
        let (authority, crl) = match (of_root, of_issuing) {
            (Some(crl), _) => (Level::Root, crl),
            (None, Some(crl)) => (Level::Issuing, crl),
            (None, None) => {
                return Err(CaError::Foreign {
                    subject: Crl::parse(der)?.issuer,
                });
            }
        };
        for serial in crl.revoked() {
            if ca.is_known_revoked(authority, serial)? {
                continue;
            }
            let (serial, reason) = (serial.clone(), Reason::Unspecified);
            caught.push(serial.clone());
            ca.record(
                now,
                match authority {
                    Level::Root => Event::AuthorityRevoked { serial, reason },
                    Level::Issuing => Event::Revoked { serial, reason },
                },
            )?;
        }
        let event = Event::Crl {
            authority,
            number: crl.number,
            next_update: Time(crl.next_update),
            revoked: crl.revoked().len(),
        };
        ca.record(now, event)?;
    }
    Ok(caught)
}

/// Files that are not copied: the database is kept as its records.
fn is_made_anew(name: &str) -> bool {
    name == LOCK || name.starts_with(RECORDS)
}

/// Names of files of a CA: no separators, no leading dot, nothing that a file system could take
/// for something else.
fn is_plain(name: &str) -> bool {
    let plain = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit();
    name.len() <= 64
        && name.bytes().next().is_some_and(plain)
        && name
            .bytes()
            .all(|octet| plain(octet) || b"-.".contains(&octet))
        && !name.contains("..")
}

fn staging(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_os_string();
    name.push(".restore");
    directory.with_file_name(name)
}

fn hash(text: &str) -> String {
    hex::lower(digest(&SHA256, text.as_bytes()).as_ref())
}

const MAX_FILE: u64 = 1 << 30;
const MAX_BACKUP: u64 = 2 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_lead_nowhere() {
        for good in ["ca.toml", "issuing-0a1b2c3d.key.pem"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "a\0",
            ".hidden",
            "A",
            "a..b",
            "ä",
        ] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }
}
