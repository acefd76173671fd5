//! A CA directory at work: issue, revoke, publish.
//!
//! ```text
//! CA/ca.toml           settings
//! CA/root.pem          the root (its key is elsewhere: see the ceremony in pki/README.md)
//! CA/issuing.pem       the issuing CA, and CA/issuing.key.pem its encrypted key
//! CA/issuing.crl.pem   current CRL of the issuing CA
//! CA/root.crl.pem      current CRL of the root
//! CA/records.db        what was done
//! CA/lock              held by the command that works here
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fieldlock_pki::bundle::{self, Bundle, BundleError};
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::issue::{Authority, Reason, Revocation, RevocationList, Validity};
use fieldlock_pki::profile::Profile;
use fieldlock_pki::{Crl, ModbusRole, Name, Role, Serial, Summary, TrustList, certificate};

use crate::ceremony;
use crate::clock::{BACKDATE_SECONDS, Time};
use crate::error::CaError;
use crate::event::{Change, Entry, Event, Level, Refusal, Source, TokenEntry};
use crate::file;
use crate::generation::{self, Generation, Keys};
use crate::keyfile;
use crate::layout::{LOCK, RECORDS, ROOT, ROOT_CRL, SETTINGS};
use crate::passphrase::Passphrase;
use crate::random::random_serial;
use crate::records::Records;
use crate::settings::Settings;

/// An opened CA directory. Another command waits until it is dropped.
#[derive(Debug)]
pub struct Ca {
    directory: PathBuf,
    settings: Settings,
    records: Records,
    root: Vec<u8>,
    generations: Vec<Generation>,
    /// Index of the one in use.
    active: usize,
    _lock: File,
}

/// What a command does with the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// A leaf to be issued.
#[derive(Debug)]
pub struct Order {
    pub role: Role,
    pub name: Name,
    /// Only for the roles that [may carry one](ModbusRole::is_for).
    pub modbus_role: Option<ModbusRole>,
    pub key: PublicKey,
    pub source: Source,
    pub life: Life,
}

/// How long a leaf is to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// As the site's settings or the profile say, cut at the end of the issuing CA.
    Usual,
    Days(u16),
    /// For tests: also dates in the past or the future.
    Between(Time, Time),
}

/// What was issued.
#[derive(Debug)]
pub struct Issued {
    pub bundle: Bundle,
    pub summary: Summary,
    /// Earlier certificates of this identity that are still valid.
    pub still_valid: Vec<Serial>,
    /// The usual life was cut short by the end of the issuing CA.
    pub cut_short: bool,
}

impl Ca {
    pub fn open(directory: &Path, access: Access) -> Result<Self, CaError> {
        Self::check(directory)?;
        let lock = lock(&directory.join(LOCK), access)?;
        let mut ca = Self {
            directory: directory.to_owned(),
            settings: Settings::load(&directory.join(SETTINGS))?,
            records: Records::open(&directory.join(RECORDS))?,
            root: only_certificate(&directory.join(ROOT))?,
            generations: Vec::new(),
            active: 0,
            _lock: lock,
        };
        ca.reload_generations()?;
        Ok(ca)
    }

    /// Brings the issuing CAs in line with the records.
    pub(crate) fn reload_generations(&mut self) -> Result<(), CaError> {
        let mut marks = vec![String::new()];
        let mut active = String::new();
        for (mark, change) in self.records.issuing()? {
            match change {
                Change::Added => marks.push(mark),
                Change::Used => active = mark,
                Change::Dropped => marks.retain(|known| *known != mark),
            }
        }
        let load = |mark: String| {
            let certificate = only_certificate(&self.path(&Generation::file(&mark, "pem")))?;
            Ok(Generation { mark, certificate })
        };
        let generations: Vec<_> = marks
            .into_iter()
            .map(load)
            .collect::<Result<_, CaError>>()?;
        let place = generations.iter().position(|known| known.mark == active);
        self.active = place.ok_or(CaError::Broken {
            path: self.path(RECORDS),
        })?;
        self.generations = generations;
        Ok(())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn all_generations(&self) -> &[Generation] {
        &self.generations
    }

    pub(crate) fn active(&self) -> &Generation {
        // `reload_generations` has found it there.
        &self.generations[self.active]
    }

    /// Fails early, before anyone is asked for a passphrase.
    pub fn check(directory: &Path) -> Result<(), CaError> {
        let directory = || directory.to_owned();
        match fs::metadata(directory().join(SETTINGS)) {
            Ok(data) if data.is_file() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let owner = fs::metadata(directory()).map(|data| data.uid()).ok();
                Err(CaError::Denied {
                    directory: directory(),
                    owner: owner.map_or("somebody else".to_owned(), |uid| format!("user {uid}")),
                })
            }
            _ => Err(CaError::NoCa {
                directory: directory(),
            }),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn records(&self) -> &Records {
        &self.records
    }

    pub(crate) fn record(&mut self, now: Time, event: Event) -> Result<(), CaError> {
        Ok(self.records.append(now, event)?)
    }

    /// The root above the issuing CA in use, DER.
    pub fn root_certificate(&self) -> Result<Vec<u8>, CaError> {
        let list = self.trust()?;
        let root = list.root_of(&self.active().certificate);
        Ok(root.ok_or(CaError::NoRoot)?.to_vec())
    }

    /// The issuing CAs with their private keys.
    pub fn unlock(&self, passphrase: &Passphrase) -> Result<Keys, CaError> {
        let unlock = |generation: &Generation| {
            let path = self.path(&Generation::file(&generation.mark, "key.pem"));
            let key = keyfile::load(&path, passphrase)?;
            Ok(Authority::new(generation.certificate.clone(), key)?)
        };
        let keys: Result<_, CaError> = self.generations.iter().map(unlock).collect();
        Ok(Keys::new(keys?))
    }

    /// Whether a key of an issuing CA is on a token, and not in its file.
    pub fn has_key_on_token(&self) -> Result<bool, CaError> {
        for generation in &self.generations {
            let path = self.path(&Generation::file(&generation.mark, "key.pem"));
            if keyfile::is_on_token(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A root that agents trust, with its private key, which is in `directory`.
    pub fn unlock_root(
        &self,
        directory: &Path,
        passphrase: &Passphrase,
    ) -> Result<Authority, CaError> {
        let root = ceremony::open(directory, passphrase)?;
        match self
            .trust()?
            .roots
            .iter()
            .any(|der| der == root.certificate())
        {
            true => Ok(root),
            false => Err(CaError::NoRoot),
        }
    }

    /// Signs, records, and only then hands over. A CRL that is due is issued on the way.
    pub fn issue(&mut self, keys: &Keys, order: Order, now: Time) -> Result<Issued, CaError> {
        let profile = Profile::of(order.role)?;
        if let Err(refusal) = self.admit(&order, &profile) {
            let event = Refusal {
                role: Some(order.role),
                name: Some(order.name),
                key_hash: Some(order.key.hash().to_owned()),
                reason: refusal.to_string(),
                ..Refusal::default()
            };
            self.records.append(now, Event::Refused(event))?;
            return Err(refusal);
        }
        let (validity, cut_short) = self.validity(&order, &profile, now)?;
        if self.crl_due(now)? {
            self.renew_crl(keys, now)?;
        }
        let authority = keys.of(&self.active().certificate)?;
        let still_valid = self.valid_certificates(order.role, &order.name, now)?;
        let still_valid = still_valid.into_iter().map(|entry| entry.serial).collect();
        let serial = random_serial()?;
        let identity = fieldlock_pki::Identity {
            site: self.settings.site.clone(),
            role: order.role,
            name: order.name.clone(),
        };
        let leaf = authority.leaf(
            &identity,
            order.modbus_role.as_ref(),
            &profile,
            &order.key,
            &serial,
            validity,
        )?;
        let bundle = Bundle {
            leaf,
            trust: self.trust()?,
        };
        // What our own agents would refuse never gets out.
        bundle.verify()?;
        let summary = Summary::of(&bundle.leaf).map_err(|_| CaError::Unreadable)?;
        let entry = Entry {
            serial,
            role: order.role,
            name: order.name,
            modbus_role: order.modbus_role,
            key_hash: order.key.hash().to_owned(),
            not_before: Time(validity.not_before),
            not_after: Time(validity.not_after),
            source: order.source,
            certificate: bundle::certificate_pem(&bundle.leaf),
        };
        self.records.append(now, Event::Issued(entry))?;
        Ok(Issued {
            bundle,
            summary,
            still_valid,
            cut_short,
        })
    }

    /// Records the revocations and issues the CRL that tells of them.
    pub fn revoke(
        &mut self,
        keys: &Keys,
        serials: &[Serial],
        reason: Reason,
        now: Time,
    ) -> Result<Crl, CaError> {
        for serial in serials {
            let event = Event::Revoked {
                serial: serial.clone(),
                reason,
            };
            self.records.append(now, event)?;
        }
        self.renew_crl(keys, now)
    }

    /// Issues the CRLs of the issuing CAs anew; that of the one in use comes back.
    pub fn renew_crl(&mut self, keys: &Keys, now: Time) -> Result<Crl, CaError> {
        let mut newest = None;
        for generation in self.generations.clone() {
            let authority = keys.of(&generation.certificate)?;
            let crl = self.publish_issuing(authority, &generation.mark, now)?;
            if generation == *self.active() {
                newest = Some(crl);
            }
        }
        newest.ok_or(CaError::NotUnlocked)
    }

    pub(crate) fn publish_issuing(
        &mut self,
        authority: &Authority,
        mark: &str,
        now: Time,
    ) -> Result<Crl, CaError> {
        let issuer = Summary::of(authority.certificate()).map_err(|_| CaError::Unreadable)?;
        let mut revoked = Vec::new();
        for revocation in self.records.revoked()? {
            if self.is_issued_by(&revocation.0, &issuer.subject)? {
                revoked.push(revocation);
            }
        }
        let path = self.path(&Generation::file(mark, "crl.pem"));
        self.publish(authority, Level::Issuing, revoked, &path, now)
    }

    pub(crate) fn is_known_revoked(&self, level: Level, serial: &Serial) -> Result<bool, CaError> {
        let known = match level {
            Level::Issuing => return Ok(self.records.revocation(serial)?.is_some()),
            Level::Root => self.records.revoked_authorities()?,
        };
        Ok(known.iter().any(|(known, _, _)| known == serial))
    }

    /// The first root's CRL has the plain name.
    pub fn root_crl_path(&self, root: &[u8]) -> Result<PathBuf, CaError> {
        if root == self.root {
            return Ok(self.path(ROOT_CRL));
        }
        let mark = generation::mark_of(root)?;
        Ok(self.path(&format!("root-{mark}.crl.pem")))
    }

    /// A serial that is not on record is everybody's.
    fn is_issued_by(&self, serial: &Serial, issuer: &str) -> Result<bool, CaError> {
        let Some(entry) = self.records.certificate(serial)? else {
            return Ok(true);
        };
        let leaf = bundle::certificates_from_pem(&entry.certificate).map(|der| der.concat());
        let leaf = leaf.map(|der| Summary::of(&der));
        Ok(!matches!(leaf, Ok(Ok(leaf)) if leaf.issuer != issuer))
    }

    /// Issues the CRL of the root anew.
    pub fn renew_root_crl(&mut self, root: &Authority, now: Time) -> Result<Crl, CaError> {
        let revoked = self.records.revoked_authorities()?;
        let path = self.root_crl_path(root.certificate())?;
        self.publish(root, Level::Root, revoked, &path, now)
    }

    /// Takes an issuing CA out of service, by the root's CRL: nothing under it is accepted any
    /// more.
    pub fn revoke_issuing(
        &mut self,
        root: &Authority,
        mark: &str,
        reason: Reason,
        now: Time,
    ) -> Result<Crl, CaError> {
        let found = self
            .generations()
            .into_iter()
            .find(|(own, _, _)| own == mark);
        let (_, _, generation) = found.ok_or_else(|| CaError::NoGeneration {
            mark: mark.to_owned(),
        })?;
        let summary = Summary::of(&generation.certificate).map_err(|_| CaError::Unreadable)?;
        let event = Event::AuthorityRevoked {
            serial: summary.serial,
            reason,
        };
        self.record(now, event)?;
        self.renew_root_crl(root, now)
    }

    /// Whom agents of this site trust.
    pub fn trust(&self) -> Result<TrustList, CaError> {
        let mut list = self.more()?;
        for root in &list.roots {
            let path = self.root_crl_path(root)?;
            if path.exists() {
                list.crls.push(only_crl(&path)?);
            }
        }
        list.roots.push(self.root.clone());
        list.crls.push(only_crl(&self.path(ROOT_CRL))?);
        for generation in &self.generations {
            list.issuing.push(generation.certificate.clone());
            let path = self.path(&Generation::file(&generation.mark, "crl.pem"));
            list.crls.push(only_crl(&path)?);
        }
        let dropped = self.records.dropped_roots()?;
        list.roots
            .retain(|der| !dropped.contains(&certificate::fingerprint(der)));
        Ok(list.tidy()?)
    }

    /// The current CRLs (DER): of the issuing CA in use, then of the first root.
    pub fn crls(&self) -> Result<[Vec<u8>; 2], CaError> {
        let issuing = only_crl(&self.crl_path(Level::Issuing))?;
        Ok([issuing, only_crl(&self.path(ROOT_CRL))?])
    }

    /// True if half the life of the issuing CA's CRL has passed, if it lacks a revocation (the
    /// command that recorded it was interrupted), or if it is dated ahead (by a clock that was).
    pub fn crl_due(&self, now: Time) -> Result<bool, CaError> {
        let revoked = self.records.revoked()?;
        for generation in &self.generations {
            let der = only_crl(&self.path(&Generation::file(&generation.mark, "crl.pem")))?;
            let crl = Crl::parse(&der)?;
            let half = crl.this_update + (crl.next_update - crl.this_update) / 2;
            if now.0 >= half || crl.this_update > now.0 {
                return Ok(true);
            }
            for (serial, _, _) in &revoked {
                if !crl.is_revoked(serial) && self.is_issued_by(serial, &crl.issuer)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub fn crl_path(&self, level: Level) -> PathBuf {
        self.directory.join(match level {
            Level::Issuing => Generation::file(&self.active().mark, "crl.pem"),
            Level::Root => ROOT_CRL.to_owned(),
        })
    }

    /// The certificates meant by a name, a role and name (`edge/press-07`) or a serial number.
    pub fn find(&self, what: &str) -> Result<Vec<Entry>, CaError> {
        let (role, name) = role_and_name(what);
        let mut named = self.records.certificates_named(name)?;
        named.retain(|entry| role.is_none_or(|role| role == entry.role.as_str()));
        if !named.is_empty() {
            return Ok(named);
        }
        let numbered = match what.parse() {
            Ok(serial) => self.records.certificate(&serial)?,
            Err(_) => None,
        };
        let numbered = numbered.ok_or_else(|| CaError::Unknown(what.to_owned()))?;
        Ok(vec![numbered])
    }

    /// What a revocation of `what` hits. By a name that is everything which the identity could still
    /// show: certificates that are valid or may yet be renewed, tokens that may yet be used; and if
    /// all has expired for good, the certificate that was issued last. By a serial number it is that
    /// certificate alone.
    pub fn find_revocable(&self, what: &str, now: Time) -> Result<Revocable, CaError> {
        let (role, name) = role_and_name(what);
        let mut tokens = self.open_tokens(now)?;
        tokens.retain(|token| {
            token.name.as_str() == name && role.is_none_or(|role| role == token.role.as_str())
        });
        let found = match self.find(what) {
            Err(CaError::Unknown(_)) if !tokens.is_empty() => Vec::new(),
            found => found?,
        };
        let mut roles: Vec<Role> = found.iter().map(|entry| entry.role).collect();
        roles.extend(tokens.iter().map(|token| token.role));
        roles.sort_unstable();
        roles.dedup();
        if let [first, second, ..] = roles.as_slice() {
            return Err(CaError::Ambiguous {
                name: what.to_owned(),
                first: *first,
                second: *second,
            });
        }
        let by_name = found.iter().all(|entry| entry.name.as_str() == name);
        let mut entries = Vec::new();
        for entry in found {
            if self.records.revocation(&entry.serial)?.is_none() {
                entries.push(entry);
            }
        }
        if by_name {
            let newest = entries.last().cloned();
            entries.retain(|entry| self.last_renewal(entry) >= now);
            if entries.is_empty() {
                entries.extend(newest);
            }
        }
        if entries.is_empty() && tokens.is_empty() {
            return Err(CaError::NothingToRevoke(what.to_owned()));
        }
        Ok(Revocable { entries, tokens })
    }

    /// Revokes what [`Ca::find_revocable`] finds now, and issues the CRL that tells of it.
    pub fn revoke_all(
        &mut self,
        keys: &Keys,
        what: &str,
        reason: Reason,
        now: Time,
    ) -> Result<(Revocable, Crl), CaError> {
        let revocable = self.find_revocable(what, now)?;
        for token in &revocable.tokens {
            let hash = token.hash.clone();
            self.records.append(now, Event::TokenCancelled { hash })?;
        }
        let serials: Vec<Serial> = revocable.serials().cloned().collect();
        let crl = self.revoke(keys, &serials, reason, now)?;
        Ok((revocable, crl))
    }

    /// Until when the holder of this certificate may have it renewed.
    pub(crate) fn last_renewal(&self, entry: &Entry) -> Time {
        let days = self.settings.serve.renew_expired_days;
        entry.not_after.plus_days(days)
    }

    pub fn state(&self, entry: &Entry, now: Time) -> Result<State, CaError> {
        Ok(match self.records.revocation(&entry.serial)? {
            Some((time, reason)) => State::Revoked { time, reason },
            None if now > entry.not_after => State::Expired,
            None if now < entry.not_before => State::NotYetValid,
            None => State::Valid,
        })
    }

    fn admit(&self, order: &Order, profile: &Profile) -> Result<(), CaError> {
        check_modbus_role(order.role, order.modbus_role.as_ref())?;
        if !profile.keys.contains(&order.key.kind()) {
            return Err(CaError::KeyKind { role: order.role });
        }
        let least = self.settings.serve.min_rsa_bits;
        if let Some(bits) = order.key.rsa_bits()
            && least.is_none_or(|least| bits < least)
        {
            return Err(CaError::RsaKey { bits });
        }
        for entry in self.records.certificates_of_key(order.key.hash())? {
            let Entry {
                serial, role, name, ..
            } = entry;
            if self.records.revocation(&serial)?.is_some() {
                return Err(CaError::RevokedKey { serial });
            }
            if role != order.role || name != order.name {
                return Err(CaError::UsedKey { role, name });
            }
        }
        Ok(())
    }

    fn validity(
        &self,
        order: &Order,
        profile: &Profile,
        now: Time,
    ) -> Result<(Validity, bool), CaError> {
        let authority = Summary::of(&self.active().certificate).map_err(|_| CaError::Unreadable)?;
        let end = Time(authority.not_after);
        if now > end {
            return Err(CaError::IssuingEnded { end });
        }
        let usual = self.settings.days.get(&order.role).copied();
        let (not_before, not_after) = match order.life {
            Life::Usual => (
                Time(now.0 - BACKDATE_SECONDS),
                now.plus_days(usual.unwrap_or(profile.days)),
            ),
            Life::Days(days) => (Time(now.0 - BACKDATE_SECONDS), now.plus_days(days)),
            Life::Between(not_before, not_after) => (not_before, not_after),
        };
        let cut_short = not_after > end && order.life == Life::Usual;
        if not_after > end && !cut_short {
            return Err(CaError::BeyondIssuing { end, not_after });
        }
        let validity = Validity {
            not_before: not_before.0,
            not_after: not_after.min(end).0,
        };
        Ok((validity, cut_short))
    }

    /// Of one identity, oldest first.
    pub fn valid_certificates(
        &self,
        role: Role,
        name: &Name,
        now: Time,
    ) -> Result<Vec<Entry>, CaError> {
        let mut valid = Vec::new();
        for entry in self.records.certificates_named(name.as_str())? {
            if entry.role == role && self.state(&entry, now)? == State::Valid {
                valid.push(entry);
            }
        }
        Ok(valid)
    }

    fn publish(
        &mut self,
        authority: &Authority,
        level: Level,
        revoked: Vec<(Serial, Time, Reason)>,
        path: &Path,
        now: Time,
    ) -> Result<Crl, CaError> {
        let life = match level {
            Level::Root => self.settings.root,
            Level::Issuing => self.settings.issuing,
        };
        let count = revoked.len();
        let number = self.records.next_crl_number(level, now)?;
        let next_update = now.plus_days(life.crl_days);
        let revoked = revoked.into_iter();
        let der = authority.crl(&RevocationList {
            number,
            this_update: now.0 - BACKDATE_SECONDS,
            next_update: next_update.0,
            revoked: revoked
                .map(|(serial, time, reason)| Revocation {
                    serial,
                    time: time.0,
                    reason,
                })
                .collect(),
        })?;
        let event = Event::Crl {
            authority: level,
            number,
            next_update,
            revoked: count,
        };
        self.records.append(now, event)?;
        file::replace(path, bundle::crl_pem(&der).as_bytes())?;
        Ok(Crl::parse(&der)?)
    }
}

/// What can be revoked at once.
#[derive(Debug)]
pub struct Revocable {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// To be cancelled with them.
    pub tokens: Vec<TokenEntry>,
}

impl Revocable {
    pub fn serials(&self) -> impl Iterator<Item = &Serial> {
        self.entries.iter().map(|entry| &entry.serial)
    }
}

/// `edge/press-07`, or a name alone.
fn role_and_name(what: &str) -> (Option<&str>, &str) {
    match what.split_once('/') {
        Some((role, name)) => (Some(role), name),
        None => (None, what),
    }
}

/// Where a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Valid,
    NotYetValid,
    Expired,
    Revoked { time: Time, reason: Reason },
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Valid => "valid",
            State::NotYetValid => "not-yet-valid",
            State::Expired => "expired",
            State::Revoked { .. } => "revoked",
        }
    }
}

/// Refuses a Modbus role where nobody would look for one.
pub(crate) fn check_modbus_role(
    role: Role,
    modbus_role: Option<&ModbusRole>,
) -> Result<(), CaError> {
    match modbus_role {
        Some(_) if !ModbusRole::is_for(role) => Err(CaError::ModbusRole { role }),
        _ => Ok(()),
    }
}

fn lock(path: &Path, access: Access) -> Result<File, CaError> {
    let lock = || {
        let file = File::options()
            .read(true)
            .write(access == Access::Write)
            .create(access == Access::Write)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match access {
            Access::Read => file.lock_shared()?,
            Access::Write => file.lock()?,
        }
        Ok(file)
    };
    Ok(file::at(path, lock)?)
}

fn only_certificate(path: &Path) -> Result<Vec<u8>, CaError> {
    only(path, bundle::certificates_from_pem)
}

fn only_crl(path: &Path) -> Result<Vec<u8>, CaError> {
    only(path, bundle::crls_from_pem)
}

fn only(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<Vec<Vec<u8>>, BundleError>,
) -> Result<Vec<u8>, CaError> {
    let broken = || CaError::Broken {
        path: path.to_owned(),
    };
    let text = file::read(path, Bundle::MAX_PEM as u64)?;
    match <[Vec<u8>; 1]>::try_from(parse(&text).map_err(|_| broken())?) {
        Ok([der]) => Ok(der),
        Err(_) => Err(broken()),
    }
}
