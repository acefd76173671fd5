//! What a CA did: an append-only file of JSON lines, each on the disk before the certificate or
//! CRL that it speaks of is handed out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Identity, Name, Role, Serial, Site};
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::file::{self, FileError};

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this syntax.
    pub v: u8,
    pub time: Time,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Event {
    /// A CA certificate was made.
    Authority {
        authority: Level,
        serial: Serial,
        key_hash: String,
        not_before: Time,
        not_after: Time,
    },
    /// A leaf was signed.
    Issued(Entry),
    Revoked {
        serial: Serial,
        reason: Reason,
    },
    /// A CRL was signed.
    Crl {
        authority: Level,
        number: u64,
        next_update: Time,
        revoked: usize,
    },
    /// What became of an issuing CA.
    Issuing {
        mark: String,
        change: Change,
    },
    /// The root with this fingerprint is trusted no more.
    RootDropped {
        fingerprint: String,
    },
    /// The root revoked an issuing CA.
    AuthorityRevoked {
        serial: Serial,
        reason: Reason,
    },
    /// A one-time token was made.
    Token(TokenEntry),
    /// A certificate was asked for and not given.
    Refused {
        role: Role,
        name: Name,
        key_hash: String,
        reason: String,
    },
}

/// A step in the life of an issuing CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Added,
    Used,
    Dropped,
}

/// Which of the two CAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Root,
    Issuing,
}

/// An issued leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub serial: Serial,
    pub role: Role,
    pub name: Name,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key_hash: String,
    pub not_before: Time,
    pub not_after: Time,
    pub source: Source,
    /// The certificate itself, PEM.
    pub certificate: String,
}

impl Entry {
    pub fn identity(&self, site: &Site) -> Identity {
        Identity {
            site: site.clone(),
            role: self.role,
            name: self.name.clone(),
        }
    }
}

/// A one-time token. Its use is the certificate whose [`Source`] names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// SHA-256 of the secret, hexadecimal.
    pub hash: String,
    pub role: Role,
    pub name: Name,
    pub expires: Time,
}

/// Where the key of a leaf came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A request file, by the name that it had.
    Request(String),
    /// Made by the CA, with the certificate.
    Made,
    /// Over the network by the token with this hash.
    Token(String),
    /// Over the network by the certificate with this serial.
    Renewal(Serial),
}

/// The file, read whole, and open for appending.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
    tokens: Vec<TokenEntry>,
    issuing: Vec<(String, Change)>,
    dropped_roots: Vec<String>,
    revoked_authorities: Vec<(Serial, Time, Reason)>,
    revoked: BTreeMap<Serial, (Time, Reason)>,
    highest_crl: BTreeMap<&'static str, u64>,
    /// Octets of an interrupted last line that were dropped.
    pub torn: Option<usize>,
}

impl Records {
    /// Opens the file, or creates it. `write`: an interrupted last line is cut off; otherwise it
    /// is passed over.
    pub fn open(path: &Path, write: bool) -> Result<Self, RecordsError> {
        let file = file::at(path, || {
            File::options()
                .read(true)
                .append(write)
                .create(write)
                .mode(0o600)
                .open(path)
        })?;
        let octets = file::read_octets(path, MAX_RECORDS)?;
        let mut records = Self {
            path: path.to_owned(),
            file,
            entries: Vec::new(),
            tokens: Vec::new(),
            issuing: Vec::new(),
            dropped_roots: Vec::new(),
            revoked_authorities: Vec::new(),
            revoked: BTreeMap::new(),
            highest_crl: BTreeMap::new(),
            torn: None,
        };
        records.replay(&octets, write)?;
        Ok(records)
    }

    /// On the disk when it returns.
    pub fn append(&mut self, time: Time, event: Event) -> Result<(), RecordsError> {
        let record = Record { v: 1, time, event };
        let mut line = serde_json::to_vec(&record).map_err(|_| RecordsError::Unwritable)?;
        line.push(b'\n');
        let before = file::at(&self.path, || self.file.metadata())?.len();
        let written = file::at(&self.path, || {
            self.file.write_all(&line)?;
            self.file.sync_data()
        });
        if let Err(error) = written {
            // On a full disk half a line may stand there; the next record must not join it.
            let _ = self.cut_to(before);
            return Err(error.into());
        }
        self.apply(record);
        Ok(())
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The changes of issuing CAs, oldest first.
    pub(crate) fn issuing(&self) -> &[(String, Change)] {
        &self.issuing
    }

    /// Fingerprints.
    pub(crate) fn dropped_roots(&self) -> &[String] {
        &self.dropped_roots
    }

    pub(crate) fn revoked_authorities(&self) -> &[(Serial, Time, Reason)] {
        &self.revoked_authorities
    }

    pub fn tokens(&self) -> &[TokenEntry] {
        &self.tokens
    }

    /// The certificate that the token with this hash was used for.
    pub fn enrolled_by(&self, hash: &str) -> Option<&Entry> {
        let by = |entry: &&Entry| matches!(&entry.source, Source::Token(token) if token == hash);
        self.entries.iter().find(by)
    }

    pub fn revocation(&self, serial: &Serial) -> Option<(Time, Reason)> {
        self.revoked.get(serial).copied()
    }

    pub fn revoked(&self) -> impl ExactSizeIterator<Item = (&Serial, &(Time, Reason))> {
        self.revoked.iter()
    }

    /// The number for the next CRL: above every earlier one, and never below the time, so that
    /// records restored from an old copy don't give a number twice.
    pub fn next_crl_number(&self, level: Level, now: Time) -> u64 {
        let last = self.highest_crl.get(level.key()).copied().unwrap_or(0);
        last.saturating_add(1)
            .max(u64::try_from(now.0).unwrap_or(0))
    }

    fn replay(&mut self, octets: &[u8], write: bool) -> Result<(), RecordsError> {
        let last = octets.iter().rposition(|octet| *octet == b'\n');
        let complete = last.map_or(0, |end| end + 1);
        let (lines, torn) = octets.split_at(complete);
        for (index, line) in lines.split_inclusive(|octet| *octet == b'\n').enumerate() {
            let record: Record =
                serde_json::from_slice(line).map_err(|error| RecordsError::Damaged {
                    path: self.path.clone(),
                    line: index + 1,
                    message: error.to_string(),
                })?;
            if record.v != 1 {
                return Err(RecordsError::Version {
                    path: self.path.clone(),
                    line: index + 1,
                    version: record.v,
                });
            }
            self.apply(record);
        }
        if !torn.is_empty() {
            self.torn = Some(torn.len());
            if write {
                self.cut_to(complete as u64)?;
            }
        }
        Ok(())
    }

    fn cut_to(&mut self, length: u64) -> Result<(), RecordsError> {
        let cut = || -> io::Result<()> {
            self.file.set_len(length)?;
            (&self.file).seek(SeekFrom::End(0))?;
            self.file.sync_all()
        };
        Ok(file::at(&self.path, cut)?)
    }

    fn apply(&mut self, record: Record) {
        match record.event {
            Event::Issued(entry) => self.entries.push(entry),
            Event::Token(token) => self.tokens.push(token),
            Event::Issuing { mark, change } => self.issuing.push((mark, change)),
            Event::RootDropped { fingerprint } => self.dropped_roots.push(fingerprint),
            Event::AuthorityRevoked { serial, reason } => {
                self.revoked_authorities.push((serial, record.time, reason));
            }
            Event::Revoked { serial, reason } => {
                // The first revocation counts: a later one must not move its date.
                self.revoked.entry(serial).or_insert((record.time, reason));
            }
            Event::Crl {
                authority, number, ..
            } => {
                let highest = self.highest_crl.entry(authority.key()).or_insert(0);
                *highest = number.max(*highest);
            }
            Event::Authority { .. } | Event::Refused { .. } => {}
        }
    }
}

impl Level {
    fn key(self) -> &'static str {
        match self {
            Level::Root => "root",
            Level::Issuing => "issuing",
        }
    }
}

/// Why the records can't be used. The CA issues nothing without them.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{path}, line {line} is damaged ({message}): restore the file from a backup; do not delete lines, they hold the revocations",
        path = path.display()
    )]
    Damaged {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error(
        "{path}, line {line} has version {version}, this program knows 1: use a newer one",
        path = path.display()
    )]
    Version {
        path: PathBuf,
        line: usize,
        version: u8,
    },
    #[error("a record can't be written as JSON")]
    Unwritable,
}

/// Some 500,000 certificates.
const MAX_RECORDS: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_last_line_is_cut_off_and_the_rest_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.jsonl");
        let serial: Serial = "0a".parse().unwrap();
        let revoked = |serial: &Serial| Event::Revoked {
            serial: serial.clone(),
            reason: Reason::KeyCompromise,
        };
        Records::open(&path, true)
            .unwrap()
            .append(Time(1000), revoked(&serial))
            .unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        for torn in 1..whole.len() {
            let mut text = whole.clone();
            text.push_str(whole.get(..torn).unwrap());
            std::fs::write(&path, &text).unwrap();

            let mut records = Records::open(&path, true).unwrap();
            assert_eq!(records.torn, Some(torn));
            assert!(records.revocation(&serial).is_some());
            let other: Serial = "0b".parse().unwrap();
            records.append(Time(2000), revoked(&other)).unwrap();

            let again = Records::open(&path, false).unwrap();
            assert_eq!(again.torn, None, "torn at {torn}");
            assert_eq!(again.revoked().len(), 2);
        }
    }

    #[test]
    fn damage_in_the_middle_stops_the_ca() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.jsonl");
        std::fs::write(&path, "{\"v\":1,\n").unwrap();
        assert!(matches!(
            Records::open(&path, true),
            Err(RecordsError::Damaged { line: 1, .. })
        ));
    }

    #[test]
    fn crl_numbers_rise_even_when_the_clock_falls_back_or_records_are_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.jsonl");
        let mut records = Records::open(&path, true).unwrap();
        let first = records.next_crl_number(Level::Issuing, Time(5000));
        let crl = Event::Crl {
            authority: Level::Issuing,
            number: first,
            next_update: Time(9000),
            revoked: 0,
        };
        records.append(Time(5000), crl).unwrap();
        assert_eq!(first, 5000);
        assert_eq!(records.next_crl_number(Level::Issuing, Time(10)), 5001);
        assert_eq!(records.next_crl_number(Level::Root, Time(10)), 10);
    }
}
