//! What a CA did: a table of events in SQLite, each on the disk before the certificate or CRL that
//! it speaks of is handed out.
//!
//! An event holds the hash of the one before it, so that one that was changed, taken out or put in
//! shows ([`Records::verify`]). There is no other table: what is asked for is indexed.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Name, Serial, hex};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Params, Row, TransactionBehavior};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::Time;
use crate::event::{Change, Entry, Event, Level, TokenEntry};
use crate::file::{self, FileError};
use crate::passed::Passed;

/// One event with its place.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// From 1, without a gap.
    pub seq: i64,
    pub time: Time,
    /// SHA-256, hexadecimal, over the hash before it as it stands there (64 zeros before the
    /// first), `seq` and `time` in seconds as eight octets each, big-endian, and the event's text.
    pub hash: String,
    /// JSON, as it was hashed.
    pub event: Box<RawValue>,
}

impl Record {
    pub fn event(&self) -> Result<Event, serde_json::Error> {
        serde_json::from_str(self.event.get())
    }
}

/// The database, open.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    db: Connection,
}

impl Records {
    /// Makes an empty database; a file that exists is an error.
    pub(crate) fn create(path: &Path) -> Result<Self, RecordsError> {
        file::at(path, || {
            let mut options = File::options();
            options.write(true).create_new(true).mode(0o600).open(path)
        })?;
        let records = Self::connect(path)?;
        records.sql(|db| db.execute_batch(SCHEMA))?;
        Ok(records)
    }

    pub(crate) fn open(path: &Path) -> Result<Self, RecordsError> {
        // SQLite's own words for a file that is not there are less clear.
        file::at(path, || File::open(path))?;
        let records = Self::connect(path)?;
        let version: i64 =
            records.sql(|db| db.query_row("PRAGMA user_version", (), |row| row.get(0)))?;
        match version {
            VERSION => Ok(records),
            version => Err(RecordsError::Version {
                path: path.to_owned(),
                version,
            }),
        }
    }

    fn connect(path: &Path) -> Result<Self, RecordsError> {
        let failed = |error| RecordsError::Database {
            path: path.to_owned(),
            error,
        };
        // A rollback journal rather than a write-ahead log: between commands the CA is one file.
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .and_then(|db| {
                db.busy_timeout(BUSY)?;
                db.pragma_update(None, "synchronous", "EXTRA")?;
                Ok(db)
            })
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            db,
        })
    }

    /// On the disk when it returns.
    pub(crate) fn append(&mut self, time: Time, event: Event) -> Result<(), RecordsError> {
        let text = serde_json::to_string(&event).map_err(|_| RecordsError::Unwritable)?;
        self.append_text(time, &text).map(|_| ())
    }

    /// The hash of the new record.
    pub(crate) fn append_text(&mut self, time: Time, text: &str) -> Result<String, RecordsError> {
        let Self { path, db } = self;
        let append = |db: &mut Connection| {
            let write = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let last = write
                .prepare_cached("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1")?
                .query_row((), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let (last, before): (i64, String) = last.unwrap_or((0, NO_HASH.to_owned()));
            let hash = chain(&before, last + 1, time, text);
            write
                .prepare_cached("INSERT INTO event (seq, time, body, hash) VALUES (?, ?, ?, ?)")?
                .execute((last + 1, time.0, text, &hash))?;
            write.commit()?;
            Ok(hash)
        };
        append(db).map_err(|error| RecordsError::Database {
            path: path.clone(),
            error,
        })
    }

    /// All certificates, in the order of their issuance.
    pub fn certificates(&self) -> Result<Vec<Entry>, RecordsError> {
        self.issued("kind = 'issued'", ())
    }

    pub fn certificate(&self, serial: &Serial) -> Result<Option<Entry>, RecordsError> {
        let serial = serial.to_string();
        let mut found = self.issued("kind = 'issued' AND serial = ?", [serial])?;
        Ok(found.pop())
    }

    /// Of every role.
    pub(crate) fn certificates_named(&self, name: &str) -> Result<Vec<Entry>, RecordsError> {
        self.issued("kind = 'issued' AND name = ?", [name])
    }

    pub(crate) fn certificates_of_key(&self, hash: &str) -> Result<Vec<Entry>, RecordsError> {
        self.issued("kind = 'issued' AND key_hash = ?", [hash])
    }

    /// The certificate that the token with this hash was used for.
    pub fn enrolled_by(&self, token: &str) -> Result<Option<Entry>, RecordsError> {
        let mut found = self.issued("kind = 'issued' AND token = ?", [token])?;
        Ok(found.pop())
    }

    /// The first revocation counts: a later one does not move its date.
    pub fn revocation(&self, serial: &Serial) -> Result<Option<(Time, Reason)>, RecordsError> {
        let found = self.revocations("kind = 'revoked' AND serial = ?", [serial.to_string()])?;
        let first = found.into_iter().next();
        Ok(first.map(|(_, time, reason)| (time, reason)))
    }

    /// Of leaves; each once.
    pub fn revoked(&self) -> Result<Vec<(Serial, Time, Reason)>, RecordsError> {
        self.revocations("kind = 'revoked'", ())
    }

    /// Of issuing CAs; each once.
    pub(crate) fn revoked_authorities(&self) -> Result<Vec<(Serial, Time, Reason)>, RecordsError> {
        self.revocations("kind = 'authority-revoked'", ())
    }

    /// The changes of issuing CAs, oldest first.
    pub(crate) fn issuing(&self) -> Result<Vec<(String, Change)>, RecordsError> {
        self.select("kind = 'issuing'", (), |_, event| match event {
            Event::Issuing { mark, change } => Some((mark, change)),
            _ => None,
        })
    }

    /// Fingerprints.
    pub(crate) fn dropped_roots(&self) -> Result<Vec<String>, RecordsError> {
        self.select("kind = 'root-dropped'", (), |_, event| match event {
            Event::RootDropped { fingerprint } => Some(fingerprint),
            _ => None,
        })
    }

    /// That were made and not cancelled.
    pub(crate) fn tokens(&self) -> Result<Vec<TokenEntry>, RecordsError> {
        let mut tokens = Vec::new();
        for event in self.select("kind IN ('token', 'token-cancelled')", (), |_, event| {
            Some(event)
        })? {
            match event {
                Event::Token(token) => tokens.push(token),
                Event::TokenCancelled { hash } => {
                    tokens.retain(|token: &TokenEntry| token.hash != hash);
                }
                _ => {}
            }
        }
        Ok(tokens)
    }

    /// The number for the next CRL: above every earlier one, and never below the time, so that
    /// records restored from an old copy don't give a number twice.
    pub(crate) fn next_crl_number(&self, level: Level, now: Time) -> Result<u64, RecordsError> {
        let numbers = self.select("kind = 'crl'", (), |_, event| match event {
            Event::Crl {
                authority, number, ..
            } if authority == level => Some(number),
            _ => None,
        })?;
        let last = numbers.into_iter().max().unwrap_or(0);
        let now = u64::try_from(now.0).unwrap_or(0);
        Ok(last.saturating_add(1).max(now))
    }

    /// What time has passed by the records, see [`Passed`]; `now` is what the clock says.
    pub(crate) fn passed(&self, now: Time) -> Result<Time, RecordsError> {
        let latest: Option<i64> =
            self.sql(|db| db.query_row("SELECT max(time) FROM event", (), |row| row.get(0)))?;
        let latest = Time(latest.unwrap_or(i64::MIN));
        if latest <= now {
            return Ok(latest);
        }
        let mut passed = Passed::default();
        self.sql(|db| {
            let mut statement =
                db.prepare_cached("SELECT time, kind = 'clock' FROM event ORDER BY seq")?;
            let mut rows = statement.query(())?;
            while let Some(row) = rows.next()? {
                if row.get(1)? {
                    passed = Passed::default();
                }
                passed.see(Time(row.get(0)?));
            }
            Ok(())
        })?;
        passed.see(now);
        Ok(passed.time)
    }

    /// Gives the records that match every filter to `see`, oldest first.
    pub fn search(
        &self,
        kind: Option<&str>,
        name: Option<&Name>,
        since: Option<Time>,
        mut see: impl FnMut(Record),
    ) -> Result<(), RecordsError> {
        let filter = "(?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) AND time >= ?3";
        let since = since.map_or(i64::MIN, |time| time.0);
        self.each(filter, (kind, name.map(Name::as_str), since), |record| {
            see(record);
            Ok(())
        })
    }

    /// Gives every record to `see`, oldest first, after its hash was found right.
    pub fn verify(&self, mut see: impl FnMut(Record)) -> Result<(), RecordsError> {
        let sound: String =
            self.sql(|db| db.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0)))?;
        if sound != "ok" {
            return Err(self.damaged(0, sound));
        }
        let mut before = (0, NO_HASH.to_owned());
        let each = |record: Record| {
            if record.seq != before.0 + 1 {
                return Err(self.damaged(before.0 + 1, "it is missing".to_owned()));
            }
            let text = record.event.get();
            if chain(&before.1, record.seq, record.time, text) != record.hash {
                let what = "it, or one before it, is not what was written".to_owned();
                return Err(self.damaged(record.seq, what));
            }
            before = (record.seq, record.hash.clone());
            see(record);
            Ok(())
        };
        self.each("1", (), each)
    }

    fn issued(&self, filter: &str, params: impl Params) -> Result<Vec<Entry>, RecordsError> {
        self.select(filter, params, |_, event| match event {
            Event::Issued(entry) => Some(entry),
            _ => None,
        })
    }

    fn revocations(
        &self,
        filter: &str,
        params: impl Params,
    ) -> Result<Vec<(Serial, Time, Reason)>, RecordsError> {
        let mut seen = std::collections::BTreeSet::new();
        self.select(filter, params, |time, event| match event {
            Event::Revoked { serial, reason } | Event::AuthorityRevoked { serial, reason } => seen
                .insert(serial.clone())
                .then_some((serial, time, reason)),
            _ => None,
        })
    }

    fn select<T>(
        &self,
        filter: &str,
        params: impl Params,
        mut pick: impl FnMut(Time, Event) -> Option<T>,
    ) -> Result<Vec<T>, RecordsError> {
        let mut picked = Vec::new();
        self.each(filter, params, |record| {
            let event = record
                .event()
                .map_err(|error| self.damaged(record.seq, error.to_string()))?;
            picked.extend(pick(record.time, event));
            Ok(())
        })?;
        Ok(picked)
    }

    /// Oldest first. `filter` is ours, what comes from outside is in `params`.
    fn each(
        &self,
        filter: &str,
        params: impl Params,
        mut see: impl FnMut(Record) -> Result<(), RecordsError>,
    ) -> Result<(), RecordsError> {
        let failed = |error| self.failed(error);
        let sql = format!("SELECT seq, time, hash, body FROM event WHERE {filter} ORDER BY seq");
        let mut statement = self.db.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(params).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            see(self.record(row)?)?;
        }
        Ok(())
    }

    fn record(&self, row: &Row<'_>) -> Result<Record, RecordsError> {
        let text = |column| row.get(column).map_err(|error| self.failed(error));
        let number = |column| row.get(column).map_err(|error| self.failed(error));
        let seq = number(0)?;
        Ok(Record {
            seq,
            time: Time(number(1)?),
            hash: text(2)?,
            event: RawValue::from_string(text(3)?)
                .map_err(|error| self.damaged(seq, error.to_string()))?,
        })
    }

    fn sql<T>(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, RecordsError> {
        run(&self.db).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rusqlite::Error) -> RecordsError {
        RecordsError::Database {
            path: self.path.clone(),
            error,
        }
    }

    fn damaged(&self, seq: i64, message: String) -> RecordsError {
        RecordsError::Damaged {
            path: self.path.clone(),
            seq,
            message,
        }
    }
}

fn chain(before: &str, seq: i64, time: Time, text: &str) -> String {
    let mut octets = before.as_bytes().to_vec();
    octets.extend(seq.to_be_bytes());
    octets.extend(time.0.to_be_bytes());
    octets.extend(text.as_bytes());
    hex::lower(digest(&SHA256, &octets).as_ref())
}

/// Why the records can't be used. The CA issues nothing without them.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {error}", path = path.display())]
    Database {
        path: PathBuf,
        error: rusqlite::Error,
    },
    #[error(
        "{path}, record {seq}: {message}. Restore the CA from a backup, and find out who wrote here",
        path = path.display()
    )]
    Damaged {
        path: PathBuf,
        /// 0: the file as a whole.
        seq: i64,
        message: String,
    },
    #[error(
        "{path} has version {version}, this program knows {VERSION}: use a newer one",
        path = path.display()
    )]
    Version { path: PathBuf, version: i64 },
    #[error("a record can't be written as JSON")]
    Unwritable,
}

const VERSION: i64 = 1;

/// The columns behind `hash` are read out of the event by SQLite itself.
const SCHEMA: &str = "
BEGIN;
CREATE TABLE event (
    seq      INTEGER PRIMARY KEY,
    time     INTEGER NOT NULL,
    body     TEXT NOT NULL,
    hash     TEXT NOT NULL,
    kind     TEXT AS (body ->> 'kind'),
    serial   TEXT AS (body ->> 'serial'),
    name     TEXT AS (body ->> 'name'),
    key_hash TEXT AS (body ->> 'key_hash'),
    token    TEXT AS (body ->> '$.source.token')
) STRICT;
CREATE INDEX event_serial ON event (kind, serial);
CREATE INDEX event_name ON event (kind, name);
CREATE INDEX event_key ON event (kind, key_hash);
-- A token is used once.
CREATE UNIQUE INDEX event_token ON event (kind, token) WHERE token IS NOT NULL;
CREATE TRIGGER event_update BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'records are never changed'); END;
CREATE TRIGGER event_delete BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'records are never deleted'); END;
PRAGMA user_version = 1;
COMMIT;
";

/// Commands on one CA wait for each other's lock; this is for programs that are not ours.
const BUSY: Duration = Duration::from_secs(5);

const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";
