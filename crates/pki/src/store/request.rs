//! A request that waits for its certificate: its key, and as whom it asked.
//!
//! All of it is in one file, the key with a line before it (PEM allows text there), so that it is
//! there whole or not at all.

use std::fmt;
use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use super::install::{self, Lock};
use super::{KEY, REQUESTED_KEY, StoreError};
use crate::identity::{Name, Role};

/// What an agent asked to be.
pub struct Request {
    pub role: Role,
    pub name: Name,
    /// PKCS#8 DER; wiped from memory when dropped.
    pub key_der: Zeroizing<Vec<u8>>,
}

impl Request {
    /// Keeps a request; one that waits already is replaced.
    pub fn keep(state: &Path, role: Role, name: &Name, key_pem: &str) -> Result<(), StoreError> {
        install::make_directories(state)?;
        let _lock = Lock::exclusive(state)?;
        let text = Zeroizing::new(format!("{INTRODUCTION}{role}/{name}\n{key_pem}"));
        install::replace_file(state, REQUESTED_KEY, text.as_bytes())
    }

    /// The waiting request, if there is one.
    pub fn load(state: &Path) -> Result<Option<Self>, StoreError> {
        if !state.join(REQUESTED_KEY).exists() {
            return Ok(None);
        }
        let text = Zeroizing::new(super::read(state, REQUESTED_KEY)?);
        let malformed = || StoreError::Request {
            path: state.join(REQUESTED_KEY),
        };
        let (role, name) = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix(INTRODUCTION))
            .and_then(|asked| asked.split_once('/'))
            .ok_or_else(malformed)?;
        Ok(Some(Self {
            role: role.parse().map_err(|_| malformed())?,
            name: name.parse().map_err(|_| malformed())?,
            key_der: super::load_key(state, REQUESTED_KEY)?,
        }))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("role", &self.role)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Removes a waiting request whose key is the installed one: it has been answered.
pub(super) fn drop_answered(state: &Path) -> Result<(), StoreError> {
    let key = |file| super::load_key(state, file).ok();
    let waiting = key(REQUESTED_KEY);
    if waiting.is_none() || waiting != key(KEY) {
        return Ok(());
    }
    let path = state.join(REQUESTED_KEY);
    fs::remove_file(&path).map_err(|error| StoreError::io(path, error))
}

const INTRODUCTION: &str = "Fieldlock request: ";
