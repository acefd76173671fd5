//! Who a certificate names: a site, a role in it, and a name.
//!
//! A leaf carries the identity twice, as the URI `spiffe://SITE/ROLE/NAME`, which decides, and as
//! the DNS name `NAME.ROLE.SITE`, which TLS libraries and name constraints understand. The common
//! name means nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::certificate::{self, CertificateError};
use crate::modbus_role::ModbusRole;

/// What a certificate proves about its holder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub site: Site,
    pub role: Role,
    pub name: Name,
}

impl Identity {
    /// `spiffe://SITE/ROLE/NAME`.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}/{}", self.site, self.role, self.name)
    }

    /// `NAME.ROLE.SITE`, at most 253 octets.
    pub fn dns(&self) -> String {
        format!("{}.{}.{}", self.name, self.role, self.site)
    }

    pub fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Uri(uri.to_owned());
        let path = uri.strip_prefix(SCHEME).ok_or_else(malformed)?;
        let mut parts = path.split('/');
        let (Some(site), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        Ok(Self {
            site: site.parse()?,
            role: role.parse()?,
            name: name.parse()?,
        })
    }

    /// Reads the identity from a DER certificate: exactly one URI name and one DNS name, which
    /// agree, no other name, exactly the extended key usage of the role, and no Modbus role or one
    /// that can be read. The chain and the dates are not looked at.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        Self::from_parsed(&certificate::parse(der)?)
    }

    pub(crate) fn from_parsed(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        if certificate.is_ca() {
            return Err(IdentityError::Authority);
        }
        let (uri, dns) = names(certificate)?;
        let identity = Self::from_uri(uri)?;
        if !dns.eq_ignore_ascii_case(&identity.dns()) {
            return Err(IdentityError::Disagree {
                uri: uri.to_owned(),
                dns: dns.to_owned(),
            });
        }
        check_usage(certificate, identity.role)?;
        ModbusRole::from_parsed(certificate).map_err(CertificateError::from)?;
        Ok(identity)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

fn names<'a>(certificate: &'a X509Certificate<'_>) -> Result<(&'a str, &'a str), IdentityError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::Malformed)?
        .ok_or(IdentityError::NameCount {
            uris: 0,
            dns: 0,
            others: 0,
        })?;
    let (mut uris, mut dns, mut others) = (Vec::new(), Vec::new(), 0);
    for name in &extension.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns.push(*name),
            _ => others += 1,
        }
    }
    match (uris.as_slice(), dns.as_slice(), others) {
        ([uri], [dns], 0) => Ok((uri, dns)),
        _ => Err(IdentityError::NameCount {
            uris: uris.len(),
            dns: dns.len(),
            others,
        }),
    }
}

fn check_usage(certificate: &X509Certificate<'_>, role: Role) -> Result<(), IdentityError> {
    let extension = certificate
        .extended_key_usage()
        .map_err(|_| CertificateError::Malformed)?
        .ok_or(IdentityError::Usage { role })?;
    let usage = extension.value;
    let more = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    let serves = role.serves();
    if more || usage.server_auth != serves || usage.client_auth == serves {
        return Err(IdentityError::Usage { role });
    }
    Ok(())
}

/// What an identity may be in a tunnel or at the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// In the cell, dials headends.
    Edge,
    /// Accepts tunnels.
    Headend,
    /// A person who runs commands.
    Operator,
    /// A Modbus client that speaks Modbus/TCP Security.
    Client,
    /// Modbus/TCP Security on a device.
    Device,
    /// The enrolment server, not a certificate authority.
    Ca,
}

impl Role {
    pub const ALL: [Role; 6] = [
        Role::Edge,
        Role::Headend,
        Role::Operator,
        Role::Client,
        Role::Device,
        Role::Ca,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Edge => "edge",
            Role::Headend => "headend",
            Role::Operator => "operator",
            Role::Client => "client",
            Role::Device => "device",
            Role::Ca => "ca",
        }
    }

    /// True for the roles that are TLS servers, whose certificates say serverAuth; the others
    /// say clientAuth. No role is both.
    pub fn serves(self) -> bool {
        matches!(self, Role::Headend | Role::Device | Role::Ca)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NameError::Role(text.to_owned()))
    }
}

/// The name of an agent, operator, client or device: 1 to 63 of `a-z`, `0-9` and `-`, neither
/// beginning nor ending with `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The name of a site: a lower-case DNS name of at most [`Site::MAX_LEN`] octets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Site(String);

impl Name {
    /// What the enrolment server of a CA is called unless it is told otherwise.
    pub fn ca() -> Self {
        Self("ca".to_owned())
    }
}

impl Site {
    /// So that `NAME.ROLE.SITE` with the longest name and role stays a DNS name (253 octets).
    pub const MAX_LEN: usize = 180;
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !is_label(text) {
            return Err(NameError::Name(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Site {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // TLS libraries take a name that ends in digits only for an IPv4 address.
        let numeric_end = text
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit()));
        if text.len() > Self::MAX_LEN || numeric_end || !text.split('.').all(is_label) {
            return Err(NameError::Site(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_label(text: &str) -> bool {
    let octets = text.as_bytes();
    let plain = |octet: &u8| octet.is_ascii_lowercase() || octet.is_ascii_digit();
    (1..=63).contains(&octets.len())
        && octets.first().is_some_and(plain)
        && octets.last().is_some_and(plain)
        && octets.iter().all(|octet| plain(octet) || *octet == b'-')
}

macro_rules! text_newtype {
    ($type:ty) => {
        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

text_newtype!(Name);
text_newtype!(Site);

/// Why a text is not a name, site or role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "{0:?} is not a name: use 1 to 63 of a-z, 0-9 and `-`, not beginning or ending with `-`"
    )]
    Name(String),
    #[error(
        "{0:?} is not a site: use a lower-case DNS name of at most {max} octets, such as `plant1.example`",
        max = Site::MAX_LEN
    )]
    Site(String),
    #[error("{0:?} is not a role: use edge, headend, operator, client, device or ca")]
    Role(String),
}

/// Why a certificate or a URI proves no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("it is the certificate of a CA, not of an agent")]
    Authority,
    #[error(
        "a certificate needs exactly one URI name and one DNS name; this has {uris} and {dns}, and {others} others"
    )]
    NameCount {
        uris: usize,
        dns: usize,
        others: usize,
    },
    #[error("{0:?} is not an identity; expected spiffe://SITE/ROLE/NAME")]
    Uri(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("the DNS name {dns:?} does not belong to the identity {uri:?}")]
    Disagree { uri: String, dns: String },
    #[error("the extended key usage is not exactly that of the role {role}")]
    Usage { role: Role },
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let longest = "a".repeat(63);
        for good in ["a", "7", "press-07", "hd-1", "a--b", longest.as_str()] {
            assert_eq!(good.parse::<Name>().unwrap().as_ref(), good);
        }
        let too_long = "a".repeat(64);
        for bad in [
            "", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", "a\n", "../x", "a/b", "a\0", &too_long,
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sites_are_lower_case_dns_names() {
        for good in ["plant1.example", "plant1", "a.b.c-d.example"] {
            assert_eq!(good.parse::<Site>().unwrap().to_string(), good);
        }
        let too_long = format!("{}.example", ["a"; 90].join("."));
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "Plant1.example",
            "a..b",
            "192.0.2.1",
            "x.1",
            "a_b.example",
            "*.example",
            &too_long,
        ] {
            assert!(bad.parse::<Site>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn uri_goes_both_ways() {
        for role in Role::ALL {
            let uri = format!("spiffe://plant1.example/{role}/press-07");
            let identity = Identity::from_uri(&uri).unwrap();
            assert_eq!(identity.uri(), uri);
            assert_eq!(identity.dns(), format!("press-07.{role}.plant1.example"));
        }
    }

    #[test]
    fn odd_uris_are_refused() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://plant1.example",
            "spiffe://plant1.example/edge",
            "spiffe://plant1.example/edge/",
            "spiffe://plant1.example/edge/a/",
            "spiffe://plant1.example/edge/a/b",
            "spiffe://plant1.example//a",
            "spiffe://plant1.example/Edge/a",
            "spiffe://plant1.example/root/a",
            "spiffe://plant1.example/edge/a?x",
            "spiffe://plant1.example/edge/a#x",
            "spiffe://user@plant1.example/edge/a",
            "spiffe://plant1.example:1/edge/a",
            "SPIFFE://plant1.example/edge/a",
            "https://plant1.example/edge/a",
        ] {
            assert!(Identity::from_uri(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn longest_identity_is_a_dns_name() {
        let site: Site = format!("{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(52))
            .parse()
            .unwrap();
        let identity = Identity {
            site,
            role: Role::Operator,
            name: "d".repeat(63).parse().unwrap(),
        };
        assert_eq!(identity.dns().len(), 253);
    }
}
