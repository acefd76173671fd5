//! Certificates for who asks over the network: by a one-time token, or by the certificate that
//! is to be followed by a new one.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use fieldlock_pki::bundle::{self, Bundle};
use fieldlock_pki::csr::PublicKey;
use fieldlock_pki::token::{Secret, Token, check_address};
use fieldlock_pki::{ModbusRole, Name, Role, Summary, certificate, hex};

use crate::authority::{Ca, Issued, Life, Order, check_modbus_role};
use crate::clock::{BACKDATE_SECONDS, Time};
use crate::error::CaError;
use crate::event::{Entry, Event, Refusal, Source, TokenEntry};
use crate::generation::Keys;

/// A token to be made.
#[derive(Debug)]
pub struct TokenOrder {
    pub role: Role,
    pub name: Name,
    /// What the certificate will say; the box has no say in it.
    pub modbus_role: Option<ModbusRole>,
    /// `HOST:PORT` where the box finds the CA, perhaps through a headend.
    pub address: String,
    /// Seconds.
    pub life: i64,
}

/// What an asker shows in place of a certificate.
#[derive(Debug)]
pub struct Credentials {
    pub role: Role,
    pub name: Name,
    pub secret: Secret,
}

impl Ca {
    /// Makes a token and records it, hashed.
    pub fn token(&mut self, order: TokenOrder, now: Time) -> Result<(Token, TokenEntry), CaError> {
        check_address(&order.address)?;
        check_modbus_role(order.role, order.modbus_role.as_ref())?;
        let mut secret = [0; Secret::LEN];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| CaError::Random)?;
        let secret = Secret::new(secret);
        let entry = TokenEntry {
            hash: hex::lower(&secret.hash()),
            role: order.role,
            name: order.name.clone(),
            modbus_role: order.modbus_role,
            expires: Time(now.0.saturating_add(order.life)),
        };
        self.record(now, Event::Token(entry.clone()))?;
        let token = Token {
            role: order.role,
            name: order.name,
            address: order.address,
            root: certificate::hash(&self.root_certificate()?),
            secret,
        };
        Ok((token, entry))
    }

    /// The certificate that a token is for. A token is used once; who repeats its use with the
    /// same key gets the same certificate, since the first answer may have been lost.
    pub fn enroll(
        &mut self,
        keys: &Keys,
        credentials: &Credentials,
        key: PublicKey,
        now: Time,
    ) -> Result<Issued, CaError> {
        let now = self.not_before_now(now)?;
        let found = self.find_token(credentials, now);
        let asked = Asked {
            role: credentials.role,
            name: &credentials.name,
            key: Some(&key),
        };
        let token = self.on_record(asked, now, found)?;
        if let Some(entry) = self.records().enrolled_by(&token.hash)? {
            let repeated = self.repeat(&entry, &key, now);
            return self.on_record(asked, now, repeated);
        }
        let order = Order {
            role: credentials.role,
            name: credentials.name.clone(),
            modbus_role: token.modbus_role,
            key,
            source: Source::Token(token.hash),
            life: Life::Usual,
        };
        self.issue(keys, order, now)
    }

    /// Whether [`Ca::enroll`] would take this token, for this key if it is known yet; nothing is put
    /// on record. A token that was used is good for its own key alone.
    pub fn has_token(
        &self,
        credentials: &Credentials,
        key: Option<&PublicKey>,
        now: Time,
    ) -> Result<bool, CaError> {
        let found = self.find_token(credentials, now).and_then(|token| {
            match (self.records().enrolled_by(&token.hash)?, key) {
                (Some(entry), Some(key)) => self.repeat(&entry, key, now).map(|_| ()),
                _ => Ok(()),
            }
        });
        match found {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.is_refusal() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Refuses credentials that [`Ca::enroll`] would refuse for every key.
    pub fn judge_token(&mut self, credentials: &Credentials, now: Time) -> Result<(), CaError> {
        let now = self.not_before_now(now)?;
        let found = self.find_token(credentials, now).map(|_| ());
        let asked = Asked {
            role: credentials.role,
            name: &credentials.name,
            key: None,
        };
        self.on_record(asked, now, found)
    }

    /// Refuses a certificate that [`Ca::reenroll`] would refuse for every key.
    pub fn judge_renewal(&mut self, current: &[u8], now: Time) -> Result<(), CaError> {
        let now = self.not_before_now(now)?;
        let entry = self.entry_of(current, now)?;
        let renewable = self.renewable(&entry, now);
        let asked = Asked {
            role: entry.role,
            name: &entry.name,
            key: None,
        };
        self.on_record(asked, now, renewable)
    }

    /// Puts on record that somebody was turned away.
    pub fn refuse(&mut self, refusal: Refusal, now: Time) -> Result<(), CaError> {
        self.record(now, Event::Refused(refusal))
    }

    /// A new certificate for who holds `current` (DER), of the same identity. It may have expired
    /// within the site's window; neither it nor, if it has expired, a later one may be revoked.
    pub fn reenroll(
        &mut self,
        keys: &Keys,
        current: &[u8],
        key: PublicKey,
        now: Time,
    ) -> Result<Issued, CaError> {
        let now = self.not_before_now(now)?;
        let entry = self.entry_of(current, now)?;
        let renewable = self.renewable(&entry, now);
        let asked = Asked {
            role: entry.role,
            name: &entry.name,
            key: Some(&key),
        };
        self.on_record(asked, now, renewable)?;
        let order = Order {
            role: entry.role,
            name: entry.name,
            modbus_role: entry.modbus_role,
            key,
            source: Source::Renewal(entry.serial),
            life: Life::Usual,
        };
        self.issue(keys, order, now)
    }

    /// Tokens that can still be used.
    pub fn open_tokens(&self, now: Time) -> Result<Vec<TokenEntry>, CaError> {
        let mut open = Vec::new();
        for token in self.records().tokens()? {
            if now <= token.expires && self.records().enrolled_by(&token.hash)?.is_none() {
                open.push(token);
            }
        }
        Ok(open)
    }

    /// Cancels the tokens of an identity that can still be used; how many.
    pub fn cancel_tokens(&mut self, role: Role, name: &Name, now: Time) -> Result<usize, CaError> {
        let mut open = self.open_tokens(now)?;
        open.retain(|token| token.role == role && token.name == *name);
        let count = open.len();
        for token in open {
            self.record(now, Event::TokenCancelled { hash: token.hash })?;
        }
        Ok(count)
    }

    /// The token that the credentials show.
    fn find_token(&self, credentials: &Credentials, now: Time) -> Result<TokenEntry, CaError> {
        let shown = hex::lower(&credentials.secret.hash());
        let same = |token: &TokenEntry| {
            verify_slices_are_equal(token.hash.as_bytes(), shown.as_bytes()).is_ok()
        };
        let token = self
            .records()
            .tokens()?
            .into_iter()
            .filter(|token| token.role == credentials.role && token.name == credentials.name)
            .find(same)
            .ok_or(CaError::TokenUnknown)?;
        if now > token.expires && self.records().enrolled_by(&shown)?.is_none() {
            return Err(CaError::TokenExpired {
                expires: token.expires,
            });
        }
        Ok(token)
    }

    fn repeat(&self, entry: &Entry, key: &PublicKey, now: Time) -> Result<Issued, CaError> {
        if entry.key_hash != key.hash() {
            return Err(CaError::TokenUsed);
        }
        self.renewable(entry, now)?;
        let leaf = bundle::certificates_from_pem(&entry.certificate)?.concat();
        let summary = Summary::of(&leaf).map_err(|_| CaError::Unreadable)?;
        let bundle = Bundle {
            leaf,
            trust: self.trust()?,
        };
        Ok(Issued {
            bundle,
            summary,
            still_valid: Vec::new(),
            cut_short: false,
        })
    }

    /// What is on record of a certificate (DER) that was shown.
    fn entry_of(&mut self, current: &[u8], now: Time) -> Result<Entry, CaError> {
        let summary = Summary::of(current).map_err(|_| CaError::Unreadable)?;
        let pem = bundle::certificate_pem(current);
        let known = self.records().certificate(&summary.serial)?;
        if let Some(entry) = known.filter(|entry| entry.certificate == pem) {
            return Ok(entry);
        }
        let identity = summary.identity;
        let refusal = Refusal {
            role: identity.as_ref().map(|identity| identity.role),
            name: identity.map(|identity| identity.name),
            reason: format!("certificate {}: {}", summary.serial, CaError::NotOurs),
            ..Refusal::default()
        };
        self.refuse(refusal, now)?;
        Err(CaError::NotOurs)
    }

    fn renewable(&self, entry: &Entry, now: Time) -> Result<(), CaError> {
        if self.records().revocation(&entry.serial)?.is_some() {
            return Err(CaError::RevokedCertificate {
                serial: entry.serial.clone(),
            });
        }
        if now > self.last_renewal(entry) {
            return Err(CaError::TooLate {
                expired: entry.not_after,
                days: self.settings().serve.renew_expired_days,
            });
        }
        if now > entry.not_after {
            self.not_succeeded_by_revoked(entry)?;
        }
        Ok(())
    }

    /// That an expired certificate still counts is a favour to a box that was off. It is none to who
    /// kept one from before the identity was revoked.
    fn not_succeeded_by_revoked(&self, entry: &Entry) -> Result<(), CaError> {
        let mut later = self.records().certificates_named(entry.name.as_str())?;
        later.retain(|other| other.role == entry.role);
        let later = later
            .into_iter()
            .skip_while(|other| other.serial != entry.serial);
        for Entry {
            serial, role, name, ..
        } in later
        {
            if self.records().revocation(&serial)?.is_some() {
                return Err(CaError::RevokedIdentity { role, name, serial });
            }
        }
        Ok(())
    }

    /// A clock that was set back makes no token and no window last longer: what has passed by the
    /// records has passed. By a clock that is far behind nothing is issued over the network.
    fn not_before_now(&self, now: Time) -> Result<Time, CaError> {
        let passed = self.records().passed(now)?;
        match passed.0 > now.0 + BACKDATE_SECONDS {
            true => Err(CaError::ClockBehind { now, last: passed }),
            false => Ok(passed.max(now)),
        }
    }

    /// Puts on record that the clock is right now and was ahead when later times were recorded; up to
    /// when these go.
    pub fn confirm_clock(&mut self, now: Time) -> Result<Time, CaError> {
        let ahead = self.records().passed(now)?;
        if ahead.0 <= now.0 + BACKDATE_SECONDS {
            return Err(CaError::ClockFine { now });
        }
        self.record(now, Event::Clock { ahead })?;
        Ok(ahead)
    }

    /// Puts a refusal on record on its way out.
    fn on_record<T>(
        &mut self,
        asked: Asked<'_>,
        now: Time,
        outcome: Result<T, CaError>,
    ) -> Result<T, CaError> {
        if let Err(refusal) = &outcome {
            let refusal = Refusal {
                role: Some(asked.role),
                name: Some(asked.name.clone()),
                key_hash: asked.key.map(|key| key.hash().to_owned()),
                reason: refusal.to_string(),
                ..Refusal::default()
            };
            self.refuse(refusal, now)?;
        }
        outcome
    }
}

/// Who asks, for the record.
#[derive(Clone, Copy)]
struct Asked<'a> {
    role: Role,
    name: &'a Name,
    key: Option<&'a PublicKey>,
}
