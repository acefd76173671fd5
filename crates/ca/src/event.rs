//! What can happen in a CA, as its records spell it.

use std::net::IpAddr;

use fieldlock_pki::issue::Reason;
use fieldlock_pki::{Identity, ModbusRole, Name, Role, Serial, Site};
use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// Names of fields are names of columns in the database, see [`crate::records`].
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
    /// The token with this hash is not to be used any more.
    TokenCancelled {
        hash: String,
    },
    /// Somebody confirmed that the clock is right, and that records up to `ahead` are of one that was
    /// not.
    Clock {
        ahead: Time,
    },
    /// A certificate was asked for and not given.
    Refused(Refusal),
}

/// A refusal, with what is known of who asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// As asked for, or as the certificate shown says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    pub reason: String,
    /// How many before it are not on record, since so many in a time are not.
    #[serde(skip_serializing_if = "is_zero")]
    pub unrecorded: u32,
}

impl Refusal {
    /// Of somebody who is not known.
    pub fn of(reason: String) -> Self {
        Self {
            reason,
            ..Self::default()
        }
    }
}

fn is_zero(count: &u32) -> bool {
    *count == 0
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modbus_role: Option<ModbusRole>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modbus_role: Option<ModbusRole>,
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

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Root => "root",
            Level::Issuing => "issuing",
        }
    }
}
