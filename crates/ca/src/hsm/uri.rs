//! Where a key is, as a PKCS#11 URI (RFC 7512):
//! `pkcs11:token=plant1;object=fieldlock-issuing-0a1b2c3d?module-path=/usr/lib/softhsm/libsofthsm2.so`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A token, and maybe a private key on it. It never holds a PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    pub(super) module: PathBuf,
    pub(super) token: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) model: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) object: Option<String>,
    pub(super) id: Option<Vec<u8>>,
}

impl Uri {
    pub const SCHEME: &'static str = "pkcs11:";
}

#[cfg(feature = "pkcs11")]
impl Uri {
    /// The token, for messages.
    pub(super) fn token(&self) -> String {
        let names = [&self.token, &self.serial].into_iter().flatten();
        let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
        names.join(" ")
    }

    /// The key, for messages.
    pub(super) fn key(&self) -> String {
        match (&self.object, &self.id) {
            (Some(object), _) => format!("{object:?}"),
            (None, Some(id)) => format!("with id {}", encode(id, b"")),
            (None, None) => String::new(),
        }
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let rest = text.strip_prefix(Self::SCHEME).ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let attributes = path.split(';').chain(query.split('&'));
        let mut found = Self {
            module: PathBuf::new(),
            token: None,
            manufacturer: None,
            model: None,
            serial: None,
            object: None,
            id: None,
        };
        let mut module = None;
        let mut kind = None;
        for attribute in attributes.filter(|attribute| !attribute.is_empty()) {
            let (name, value) = split(attribute)?;
            let place = match name.as_str() {
                "token" => &mut found.token,
                "manufacturer" => &mut found.manufacturer,
                "model" => &mut found.model,
                "serial" => &mut found.serial,
                "object" => &mut found.object,
                "type" => &mut kind,
                "module-path" => &mut module,
                "id" => {
                    put(&mut found.id, name, value)?;
                    continue;
                }
                "pin-value" | "pin-source" => return Err(UriError::Pin { name }),
                _ => return Err(UriError::Unknown { name }),
            };
            let text =
                String::from_utf8(value).map_err(|_| UriError::Malformed { name: name.clone() })?;
            put(place, name, text)?;
        }
        if kind.is_some_and(|kind| kind != "private") {
            return Err(UriError::Type);
        }
        if found.token.is_none() && found.serial.is_none() {
            return Err(UriError::Token);
        }
        found.module = module.map(PathBuf::from).ok_or(UriError::Module)?;
        match found.module.is_absolute() {
            true => Ok(found),
            false => Err(UriError::Module),
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SCHEME)?;
        for (name, value) in [
            ("token", &self.token),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("serial", &self.serial),
            ("object", &self.object),
        ] {
            if let Some(value) = value {
                write!(f, "{name}={};", encode(value.as_bytes(), b""))?;
            }
        }
        if let Some(id) = &self.id {
            write!(f, "id={};", encode(id, b""))?;
        }
        let module = path_octets(&self.module);
        write!(f, "type=private?module-path={}", encode(module, b"/"))
    }
}

fn split(attribute: &str) -> Result<(String, Vec<u8>), UriError> {
    // What is misspelled may hold a PIN: no more than a name is ever repeated.
    let of_name = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let name: String = attribute.chars().take_while(of_name).take(32).collect();
    let value = attribute.strip_prefix(name.as_str());
    let value = value.and_then(|rest| rest.strip_prefix('='));
    match value.and_then(decode) {
        Some(value) if !value.is_empty() => Ok((name, value)),
        _ if name.starts_with("pin") => Err(UriError::Pin { name }),
        _ => Err(UriError::Malformed { name }),
    }
}

fn put<T>(place: &mut Option<T>, name: String, value: T) -> Result<(), UriError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Twice { name }),
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            0x21..=0x7e => octet,
            _ => return None,
        });
    }
    Some(octets)
}

/// All but what RFC 3986 calls unreserved, and `more`, as `%XX`.
fn encode(octets: &[u8], more: &[u8]) -> String {
    let octet = |octet: &u8| match octet {
        b'-' | b'.' | b'_' | b'~' => char::from(*octet).to_string(),
        octet if octet.is_ascii_alphanumeric() || more.contains(octet) => {
            char::from(*octet).to_string()
        }
        octet => format!("%{octet:02X}"),
    };
    octets.iter().map(octet).collect()
}

fn path_octets(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

/// What is wrong with a PKCS#11 URI. The URI itself is not repeated: it may hold a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("a key's URI begins with `pkcs11:` (RFC 7512)")]
    Scheme,
    #[error(
        "the PKCS#11 URI has `{name}`: a PIN is no part of it, since it stands in a file and in the list of processes. Take it out, change the PIN if it was there, and give it at the prompt or by `--passphrase-file`"
    )]
    Pin { name: String },
    #[error(
        "the PKCS#11 URI has `{name}`, which means nothing here: known are token, serial, model, manufacturer, object, id, type and, after the `?`, module-path"
    )]
    Unknown { name: String },
    #[error(
        "the PKCS#11 URI has no good value of `{name}`: write `{name}=VALUE`, with `%XX` for octets that are not plain"
    )]
    Malformed { name: String },
    #[error("the PKCS#11 URI has `{name}` twice")]
    Twice { name: String },
    #[error("the PKCS#11 URI has another `type` than `private`")]
    Type,
    #[error("the PKCS#11 URI names no token: add `token=LABEL` or `serial=NUMBER`")]
    Token,
    #[error(
        "the PKCS#11 URI lacks the token's software: end it with `?module-path=/absolute/path.so`"
    )]
    Module,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_comes_back_as_it_went() {
        let text = "pkcs11:token=plant%201;object=issuing%3B;id=%00%FF;type=private?module-path=/usr/lib/a%20b.so";
        let uri: Uri = text.parse().unwrap();
        assert_eq!(uri.token.as_deref(), Some("plant 1"));
        assert_eq!(uri.object.as_deref(), Some("issuing;"));
        assert_eq!(uri.id.as_deref(), Some(&[0, 255][..]));
        assert_eq!(uri.module, Path::new("/usr/lib/a b.so"));
        assert_eq!(uri.to_string(), text);
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_it() {
        let name = |name: &str| name.to_owned();
        for (text, error) in [
            ("file:token=a?module-path=/m", UriError::Scheme),
            ("pkcs11:token=a", UriError::Module),
            ("pkcs11:token=a?module-path=m.so", UriError::Module),
            ("pkcs11:object=a?module-path=/m", UriError::Token),
            ("pkcs11:token=a;type=public?module-path=/m", UriError::Type),
            (
                "pkcs11:token=a;token=b?module-path=/m",
                UriError::Twice {
                    name: name("token"),
                },
            ),
            (
                "pkcs11:token=a;slot-id=1?module-path=/m",
                UriError::Unknown {
                    name: name("slot-id"),
                },
            ),
            (
                "pkcs11:token=%4?module-path=/m",
                UriError::Malformed {
                    name: name("token"),
                },
            ),
            (
                "pkcs11:token=%FF?module-path=/m",
                UriError::Malformed {
                    name: name("token"),
                },
            ),
            (
                "pkcs11:token=?module-path=/m",
                UriError::Malformed {
                    name: name("token"),
                },
            ),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_pin_is_refused_wherever_it_stands_and_not_repeated() {
        for text in [
            "pkcs11:token=a?module-path=/m&pin-value=31415926",
            "pkcs11:token=a?module-path=/m&pin-source=/31415926",
            "pkcs11:token=a;pin-value=31415926?module-path=/m",
            "pkcs11:token=a?module-path=/m&pin-value:31415926",
            "pkcs11:token=a?module-path=/m&pin-value=",
        ] {
            let error = text.parse::<Uri>().unwrap_err();
            assert!(matches!(error, UriError::Pin { .. }), "{text}: {error}");
            assert!(!error.to_string().contains("31415926"), "{error}");
        }
    }
}
