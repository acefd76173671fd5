//! Why a CA refuses or fails, in words for the person who runs it.

use std::path::{Path, PathBuf};

use fieldlock_pki::bundle::BundleError;
use fieldlock_pki::csr::RequestError;
use fieldlock_pki::issue::IssueError;
use fieldlock_pki::profile::ProfileError;
use fieldlock_pki::{CrlError, Identity, Name, Role, Serial};

use crate::clock::Time;
use crate::file::FileError;
use crate::hsm::UriError;
use crate::keyfile::KeyFileError;
use crate::passphrase::PassphraseError;
use crate::records::RecordsError;
use crate::settings::SettingsError;

/// Why the CA did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(
        "{directory} is not a CA directory: make one with `fieldlock ca init --site SITE --dir {directory}`, or give `--dir`",
        directory = directory.display()
    )]
    NoCa { directory: PathBuf },
    #[error(
        "{directory}: permission denied. The CA's directory belongs to {owner}: run the command as that user, or as root",
        directory = directory.display()
    )]
    Denied { directory: PathBuf, owner: String },
    #[error("{path} exists: nothing is overwritten; choose another directory", path = path.display())]
    Exists { path: PathBuf },
    #[error(
        "{installed} is installed in {state}: `--replace` puts another identity in its place, and `fieldlock enroll undo --state {state}` brings it back",
        state = state.display()
    )]
    OtherInstalled { installed: Identity, state: PathBuf },
    #[error("{path} is not what a CA directory should hold there: restore it from a backup", path = path.display())]
    Broken { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    KeyUri(#[from] UriError),
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("the request is refused: {0}")]
    Request(#[from] RequestError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("the new certificate would not be accepted: {0}")]
    Bundle(#[from] BundleError),
    #[error("the CA's own trust list: {0}")]
    Trust(#[from] fieldlock_pki::TrustListError),
    #[error("the current CRL: {0}")]
    Crl(#[from] CrlError),
    #[error(transparent)]
    Store(#[from] fieldlock_pki::StoreError),
    #[error(
        "a certificate of the role {role} carries no Modbus role: leave out `--modbus-role`, or use the role client (or edge)"
    )]
    ModbusRole { role: Role },
    #[error("the request's key is of a kind that the role {role} can't have: use a P-256 key")]
    KeyKind { role: Role },
    #[error(
        "the request's key is RSA with {bits} bits: use a P-256 key, or have the CA accept it (`min_rsa_bits` under [serve] in ca.toml)"
    )]
    RsaKey { bits: u16 },
    #[error(
        "this key belongs to {role}/{name}: an identity needs a key of its own; make a new request with `fieldlock enroll request`"
    )]
    UsedKey { role: Role, name: Name },
    #[error(
        "this key was revoked (certificate {serial}): make a new one with `fieldlock enroll request`"
    )]
    RevokedKey { serial: Serial },
    #[error(
        "the clock says {now}, and the records have come to {last}: set the clock. If it is right and was ahead then, say so with `fieldlock ca clock --is-right`"
    )]
    ClockBehind { now: Time, last: Time },
    #[error("the clock says {now}, and no record is later: there is nothing to confirm")]
    ClockFine { now: Time },
    #[error("the issuing CA expired on {end}: make the next one with `fieldlock ca issuing new`")]
    IssuingEnded { end: Time },
    #[error(
        "the certificate would expire on {not_after}, after the issuing CA ({end}): give fewer `--days`"
    )]
    BeyondIssuing { end: Time, not_after: Time },
    #[error("no certificate has the name or serial number {0:?}: see `fieldlock ca list`")]
    Unknown(String),
    #[error(
        "{name:?} names a {first} and a {second}: say `{first}/{name}`, `{second}/{name}` or a serial number"
    )]
    Ambiguous {
        name: String,
        first: Role,
        second: Role,
    },
    #[error("every certificate of {0:?} is revoked already, and no token of it can be used")]
    NothingToRevoke(String),
    #[error(
        "standard input can't be both the request and the passphrase: give `--passphrase-file`"
    )]
    OneStdin,
    #[error(transparent)]
    Token(#[from] fieldlock_pki::TokenError),
    #[error("the token is not one of this CA for this role and name, or was cancelled")]
    TokenUnknown,
    #[error("no token of {role}/{name} can still be used: see `fieldlock ca tokens`")]
    NoToken { role: Role, name: Name },
    #[error("the token expired on {expires}: have another one made with `fieldlock ca token`")]
    TokenExpired { expires: Time },
    #[error(
        "the token was used already, for another key: if that was not you, revoke the certificate; then have another token made"
    )]
    TokenUsed,
    #[error("too many attempts have failed: try again in a minute")]
    Crowded,
    #[error("the certificate {serial} is revoked: this identity must be enrolled anew")]
    RevokedCertificate { serial: Serial },
    #[error(
        "the certificate has expired, and the one issued to {role}/{name} after it, {serial}, is revoked: this identity must be enrolled anew"
    )]
    RevokedIdentity {
        role: Role,
        name: Name,
        serial: Serial,
    },
    #[error(
        "the certificate expired on {expired}, more than the {days} days ago within which it may be renewed: enroll anew with a token"
    )]
    TooLate { expired: Time, days: u16 },
    #[error("the certificate was not issued by this CA")]
    NotOurs,
    #[error(
        "no address for the token: give `--address HOST:PORT`, or set `address` under [serve] in ca.toml"
    )]
    NoAddress,
    #[error(
        "this issuing CA's key is not open here: it was added with another passphrase, or its key file is missing"
    )]
    NotUnlocked,
    #[error(
        "no root that this CA trusts has signed it: have it signed with `fieldlock ca root sign`"
    )]
    NoRoot,
    #[error("no CA has the mark {mark:?}: see `fieldlock ca issuing list`")]
    NoGeneration { mark: String },
    #[error(
        "{path} exists: the next issuing CA's key was made before. Without `--key` its request comes again; remove the file to have another key made",
        path = path.display()
    )]
    NextKey { path: PathBuf },
    #[error("{mark} is in use: put another in its place first, with `fieldlock ca issuing use`")]
    InUse { mark: String },
    #[error(
        "{mark} has leaves that are still valid: {leaves}. They are renewed under the CA in use by themselves; wait for it, or revoke them"
    )]
    LeavesLeft { mark: String, leaves: String },
    #[error("{subject:?} is vouched for by no root that this CA trusts")]
    Foreign { subject: String },
    #[error("{path} is not a whole backup: {what}", path = path.display())]
    Backup { path: PathBuf, what: String },
    #[error("can't listen on {address}: {error}")]
    Listen {
        address: std::net::SocketAddr,
        error: std::io::Error,
    },
    #[error(
        "a key is on a token now, whose software the sandbox does not let in: start `ca serve` anew"
    )]
    Confined,
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the operation was interrupted")]
    Interrupted,
    #[error("a CA certificate can't be read")]
    Unreadable,
    #[error("the system gave no random numbers")]
    Random,
    #[error(
        "{a} and {b} must not be the same: the root key is to leave this machine",
        a = directory.display(), b = root_out.display()
    )]
    SameDirectory {
        directory: PathBuf,
        root_out: PathBuf,
    },
}

impl CaError {
    pub fn io(path: &Path, error: std::io::Error) -> Self {
        Self::File(FileError {
            path: path.to_owned(),
            error,
        })
    }

    /// True for what an asker over the network did wrong, and may be told.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            CaError::Request(_)
                | CaError::KeyKind { .. }
                | CaError::RsaKey { .. }
                | CaError::UsedKey { .. }
                | CaError::RevokedKey { .. }
                | CaError::TokenUnknown
                | CaError::TokenExpired { .. }
                | CaError::TokenUsed
                | CaError::RevokedCertificate { .. }
                | CaError::RevokedIdentity { .. }
                | CaError::TooLate { .. }
                | CaError::NotOurs
        )
    }

    /// True for what was wrong in the command line or the settings rather than in the doing: a
    /// service manager does not start it again.
    pub fn is_usage(&self) -> bool {
        if let CaError::Key(KeyFileError::Token { error, .. } | KeyFileError::Hsm(error)) = self {
            return error.is_lasting();
        }
        matches!(
            self,
            CaError::NoCa { .. }
                | CaError::Denied { .. }
                | CaError::Settings(_)
                | CaError::KeyUri(_)
                | CaError::OneStdin
                | CaError::SameDirectory { .. }
                | CaError::Ambiguous { .. }
                | CaError::Token(_)
                | CaError::NoAddress
                | CaError::ModbusRole { .. }
                | CaError::NoGeneration { .. }
        )
    }
}
