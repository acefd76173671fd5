//! The settings of a CA: its site and its lifetimes.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use fieldlock_pki::{Name, Role, Site};
use serde::{Deserialize, Serialize};

use crate::file::{self, FileError};

/// Resolved settings; kept as `ca.toml` in the CA's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub site: Site,
    pub root: Lifetime,
    pub issuing: Lifetime,
    /// Life of leaf certificates in days, where it differs from the role's profile.
    #[serde(default)]
    pub days: BTreeMap<Role, u16>,
    #[serde(default)]
    pub serve: Serve,
}

/// How `ca serve` serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    pub listen: SocketAddr,
    /// NAME in the server's own certificate, `NAME.ca.SITE`.
    pub name: Name,
    /// `HOST:PORT` that tokens say, where they are not told otherwise: of a headend, or of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How long after it expired a certificate may still be renewed.
    pub renew_expired_days: u16,
    /// Connections at once.
    pub max_connections: usize,
    /// And from one address. Those that a headend passes on come from the headend's.
    pub max_connections_per_address: usize,
    /// From one address (IPv6: one /64).
    pub requests_per_minute: u32,
    /// TLS 1.2 is spoken too, for clients that can't do 1.3.
    pub tls12: bool,
    /// RSA keys of this size and above are accepted in requests of clients, devices and operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rsa_bits: Option<u16>,
    /// The server confines itself to the CA's directory.
    pub sandbox: bool,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 4434)),
            name: Name::ca(),
            address: None,
            renew_expired_days: 30,
            max_connections: 512,
            max_connections_per_address: 256,
            requests_per_minute: 600,
            tls12: false,
            min_rsa_bits: None,
            sandbox: true,
        }
    }
}

/// How long a CA lives and how long its CRLs do, in days, each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetime {
    pub days: u16,
    pub crl_days: u16,
}

impl Settings {
    /// What `profile` says, `site` before it, and the built-in values for the rest.
    pub fn resolve(site: Option<Site>, profile: Option<&Path>) -> Result<Self, SettingsError> {
        let built_in = Written::parse(BUILT_IN, Path::new("the built-in profile"))?;
        let own = match profile {
            Some(path) => Written::parse(&file::read(path, MAX_SETTINGS)?, path)?,
            None => Written::default(),
        };
        let settings = Self {
            site: site.or(own.site).ok_or(SettingsError::NoSite)?,
            root: own.root.or(built_in.root)?,
            issuing: own.issuing.or(built_in.issuing)?,
            days: own.days,
            serve: own.serve,
        };
        settings.check()?;
        Ok(settings)
    }

    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = file::read(path, MAX_SETTINGS)?;
        let settings: Self =
            toml::from_str(&text).map_err(|error| SettingsError::syntax(path, &error))?;
        settings.check()?;
        Ok(settings)
    }

    pub fn to_toml(&self) -> Result<String, SettingsError> {
        toml::to_string(self).map_err(|_| SettingsError::Unwritable)
    }

    pub fn check(&self) -> Result<(), SettingsError> {
        let ours = [
            ("root.days", self.root.days),
            ("root.crl_days", self.root.crl_days),
            ("issuing.days", self.issuing.days),
            ("issuing.crl_days", self.issuing.crl_days),
        ];
        let leaves = self.days.values().map(|days| ("days", *days));
        for (key, days) in ours.into_iter().chain(leaves) {
            if !(1..=MAX_DAYS).contains(&days) {
                return Err(SettingsError::Days { key, days });
            }
        }
        if self.issuing.days > self.root.days {
            return Err(SettingsError::Outlives {
                issuing: self.issuing.days,
                root: self.root.days,
            });
        }
        match self.serve.min_rsa_bits {
            Some(bits) if !RSA_BITS.contains(&bits) => Err(SettingsError::RsaBits { bits }),
            _ => Ok(()),
        }
    }
}

/// Settings as a file has them: anything may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    site: Option<Site>,
    root: WrittenLifetime,
    issuing: WrittenLifetime,
    days: BTreeMap<Role, u16>,
    serve: Serve,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenLifetime {
    days: Option<u16>,
    crl_days: Option<u16>,
}

impl Written {
    fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        toml::from_str(text).map_err(|error| SettingsError::syntax(path, &error))
    }
}

impl WrittenLifetime {
    fn or(self, built_in: Self) -> Result<Lifetime, SettingsError> {
        let days = self.days.or(built_in.days);
        let crl_days = self.crl_days.or(built_in.crl_days);
        match (days, crl_days) {
            (Some(days), Some(crl_days)) => Ok(Lifetime { days, crl_days }),
            _ => Err(SettingsError::BuiltIn),
        }
    }
}

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {message}", path = path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("no site: give `--site`, a lower-case DNS name such as `plant1.example`")]
    NoSite,
    #[error("`{key}` is {days} days, allowed are 1 to {MAX_DAYS}")]
    Days { key: &'static str, days: u16 },
    #[error("the issuing CA would live for {issuing} days, longer than the root ({root} days)")]
    Outlives { issuing: u16, root: u16 },
    #[error(
        "`serve.min_rsa_bits` is {bits}, allowed are {} to {}",
        RSA_BITS.start(), RSA_BITS.end()
    )]
    RsaBits { bits: u16 },
    #[error("the built-in profile lacks a lifetime")]
    BuiltIn,
    #[error("the settings can't be written as TOML")]
    Unwritable,
}

impl SettingsError {
    fn syntax(path: &Path, error: &toml::de::Error) -> Self {
        Self::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        }
    }
}

const BUILT_IN: &str = include_str!("../../../pki/profiles/site.toml");
const MAX_SETTINGS: u64 = 64 << 10;
/// Thirty years: what is meant to last longer than a plant is a mistake.
pub const MAX_DAYS: u16 = 10_950;
/// Below is weak, above is not verified.
const RSA_BITS: std::ops::RangeInclusive<u16> = 2048..=8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        "plant1.example".parse().unwrap()
    }

    #[test]
    fn built_in_values_fill_what_a_profile_leaves_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        std::fs::write(&path, "[issuing]\ncrl_days = 7\n[days]\nedge = 30\n").unwrap();
        let settings = Settings::resolve(Some(site()), Some(&path)).unwrap();
        let plain = Settings::resolve(Some(site()), None).unwrap();
        assert_eq!(settings.issuing.crl_days, 7);
        assert_eq!(settings.issuing.days, plain.issuing.days);
        assert_eq!(settings.root, plain.root);
        assert_eq!(settings.days.get(&Role::Edge), Some(&30));
    }

    #[test]
    fn written_settings_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.toml");
        let mut settings = Settings::resolve(Some(site()), None).unwrap();
        settings.days.insert(Role::Headend, 400);
        std::fs::write(&path, settings.to_toml().unwrap()).unwrap();
        assert_eq!(Settings::load(&path).unwrap(), settings);
    }

    #[test]
    fn unknown_keys_and_odd_lives_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        for text in [
            "sit = \"a\"",
            "[root]\ndays = 0",
            "[days]\nplc = 3",
            "[days]\nedge = 60000",
            "[serve]\nmin_rsa_bits = 1024",
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(
                Settings::resolve(Some(site()), Some(&path)).is_err(),
                "{text}"
            );
        }
        assert!(matches!(
            Settings::resolve(None, None),
            Err(SettingsError::NoSite)
        ));
    }
}
