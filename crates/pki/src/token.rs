//! One-time tokens: what a technician carries from the CA to a box.
//!
//! ```text
//! fl1:edge/press-07@hd-1.dmz.example:4433#<43 characters>.<22 characters>
//!     role/name     address of the CA     root            secret
//! ```
//! The address may be that of a headend, which passes the connection on. The root is the SHA-256
//! of its certificate, the secret 16 random octets, both base64url without padding (RFC 4648,
//! section 5).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use zeroize::Zeroizing;

use crate::certificate;
use crate::identity::{Name, NameError, Role};

/// What a token says. Not printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub role: Role,
    pub name: Name,
    /// `HOST:PORT`; an IPv6 host in brackets.
    pub address: String,
    /// SHA-256 of the root's certificate.
    pub root: [u8; 32],
    pub secret: Secret,
}

/// Proves to the CA that an operator of its expects this box. Wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; Secret::LEN]>);

impl Secret {
    pub const LEN: usize = 16;

    /// `octets` are random.
    pub fn new(octets: [u8; Self::LEN]) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// What the CA keeps of it: SHA-256. The secret has 128 random bits, so nothing slower is
    /// needed.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(certificate::sha256(&*self.0).as_ref());
        hash
    }

    /// As it stands in a token and in the password of HTTP Basic.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(*self.0))
    }
}

impl FromStr for Secret {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        decode(text).map(Self::new).ok_or(TokenError::Secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Token {
    /// Longest text that is read.
    pub const MAX_LEN: usize = 512;

    /// The whole token. It is a secret: to a terminal or a file, not to a log.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{PREFIX}{}/{}@{}#{}.{}",
            self.role,
            self.name,
            self.address,
            BASE64.encode(self.root),
            *self.secret.to_text()
        ))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// White space around the token is ignored.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > Self::MAX_LEN {
            return Err(TokenError::Shape);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Shape)?;
        let (who, rest) = rest.split_once('@').ok_or(TokenError::Shape)?;
        let (address, rest) = rest.split_once('#').ok_or(TokenError::Shape)?;
        let (root, secret) = rest.split_once('.').ok_or(TokenError::Shape)?;
        let (role, name) = who.split_once('/').ok_or(TokenError::Shape)?;
        check_address(address)?;
        Ok(Self {
            role: role.parse()?,
            name: name.parse()?,
            address: address.to_owned(),
            root: decode(root).ok_or(TokenError::Root)?,
            secret: secret.parse()?,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("role", &self.role)
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// `HOST:PORT` of printable ASCII that can't be taken for another part of a token or URL.
pub fn check_address(address: &str) -> Result<(), TokenError> {
    let wrong = || TokenError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    let good_host = match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.len() <= 253 && host.bytes().all(plain),
    };
    let good_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    match good_host && good_port {
        true => Ok(()),
        false => Err(wrong()),
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let octets = Zeroizing::new(BASE64.decode(text).ok()?);
    octets.as_slice().try_into().ok()
}

/// Why a text is not a token. The text itself is left out: it may be one with a typing error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "it is not a token: expected fl1:ROLE/NAME@HOST:PORT#..., as `fieldlock ca token` prints it"
    )]
    Shape,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{0:?} is not HOST:PORT (an IPv6 address in brackets)")]
    Address(String),
    #[error("the token is damaged where it names the root: copy it anew")]
    Root,
    #[error("the token's secret is damaged: copy it anew")]
    Secret,
}

const PREFIX: &str = "fl1:";

#[cfg(test)]
mod tests {
    use super::*;

    fn token(address: &str) -> Token {
        Token {
            role: Role::Edge,
            name: "press-07".parse().unwrap(),
            address: address.to_owned(),
            root: [0xab; 32],
            secret: Secret::new([0xcd; 16]),
        }
    }

    #[test]
    fn token_goes_both_ways() {
        for address in ["hd-1.dmz.example:4433", "10.0.0.1:1", "[2001:db8::1]:65535"] {
            let text = token(address).to_text();
            assert_eq!(text.parse::<Token>().unwrap(), token(address));
            let padded = format!("  {}\r\n", *text);
            assert_eq!(padded.parse::<Token>().unwrap(), token(address));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = token("a:1");
        let shown = format!("{token:?} {:?}", token.secret);
        assert!(!shown.contains(token.secret.to_text().as_str()), "{shown}");
        assert!(!shown.contains("205"), "{shown}");
    }

    #[test]
    fn every_cut_and_every_odd_part_is_refused() {
        let text = token("hd-1:4433").to_text();
        for end in 0..text.len() {
            assert!(text[..end].parse::<Token>().is_err(), "{end}");
        }
        for (from, to) in [
            ("fl1:", "fl2:"),
            ("edge/", "root/"),
            ("press-07", "../x"),
            ("hd-1", "hd 1"),
            ("hd-1", ""),
            ("hd-1", "a/b"),
            ("hd-1", "user@x"),
            (":4433", ":0"),
            (":4433", ":99999"),
            (":4433", ""),
            ("#", "#A"),
        ] {
            let odd = text.replacen(from, to, 1);
            let error = odd.parse::<Token>();
            assert!(error.is_err(), "{odd}");
            let said = error.unwrap_err().to_string();
            assert!(!said.contains(token("a:1").secret.to_text().as_str()));
        }
        assert!("x".repeat(10_000).parse::<Token>().is_err());
    }
}
