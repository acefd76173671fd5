//! The role of a Modbus client, as Modbus/TCP Security puts it in a certificate: an extension of
//! its own with one UTF8String. What a role may do is the policy's business.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use x509_parser::prelude::X509Certificate;

use crate::certificate::{self, CertificateError};
use crate::identity::Role;

/// Name of a Modbus role, such as `Operator`: 1 to [`ModbusRole::MAX_LEN`] of letters, digits,
/// space, `_`, `-` and `.` (all ASCII), neither beginning nor ending with a space.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModbusRole(String);

/// 1.3.6.1.4.1.50316.802.1 (Modbus/TCP Security, section 8.4).
pub const OID: &[u64] = &[1, 3, 6, 1, 4, 1, 50316, 802, 1];

/// Tag of a UTF8String.
const UTF8_STRING: u8 = 0x0c;

impl ModbusRole {
    /// The length then always fits the one octet that DER has for short ones.
    pub const MAX_LEN: usize = 64;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for the roles of certificates that may carry one: who speaks to a device, or for
    /// somebody to a device.
    pub fn is_for(role: Role) -> bool {
        matches!(role, Role::Client | Role::Edge)
    }

    /// The value of the extension: one UTF8String.
    pub fn to_der(&self) -> Vec<u8> {
        // `MAX_LEN` is below 128.
        let mut der = vec![UTF8_STRING, self.0.len() as u8];
        der.extend_from_slice(self.0.as_bytes());
        der
    }

    /// Reads the value of the extension: one UTF8String, nothing after it, nothing else in it.
    pub fn from_der(der: &[u8]) -> Result<Self, ModbusRoleError> {
        let [UTF8_STRING, length, text @ ..] = der else {
            return Err(ModbusRoleError::Encoding);
        };
        if text.len() != usize::from(*length) || text.len() > Self::MAX_LEN {
            return Err(ModbusRoleError::Encoding);
        }
        let text = std::str::from_utf8(text).map_err(|_| ModbusRoleError::Encoding)?;
        text.parse()
    }

    /// Reads the role of a DER certificate; `None` where it has none. A certificate whose role
    /// can't be read is one to refuse, not one without a role.
    pub fn of_certificate(der: &[u8]) -> Result<Option<Self>, CertificateError> {
        Ok(Self::from_parsed(&certificate::parse(der)?)?)
    }

    pub(crate) fn from_parsed(
        certificate: &X509Certificate<'_>,
    ) -> Result<Option<Self>, ModbusRoleError> {
        let is_role = |oid: &x509_parser::der_parser::oid::Oid<'_>| {
            oid.iter().is_some_and(|arcs| arcs.eq(OID.iter().copied()))
        };
        let mut found = certificate
            .extensions()
            .iter()
            .filter(|extension| is_role(&extension.oid));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(extension), None) => Self::from_der(extension.value).map(Some),
            (Some(_), Some(_)) => Err(ModbusRoleError::Twice),
        }
    }
}

impl FromStr for ModbusRole {
    type Err = ModbusRoleError;

    fn from_str(text: &str) -> Result<Self, ModbusRoleError> {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b" _-.".contains(&octet);
        let good = (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(plain)
            && text.trim().len() == text.len();
        match good {
            true => Ok(Self(text.to_owned())),
            false => Err(ModbusRoleError::Name),
        }
    }
}

impl fmt::Display for ModbusRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for ModbusRole {
    type Error = ModbusRoleError;

    fn try_from(text: String) -> Result<Self, ModbusRoleError> {
        text.parse()
    }
}

impl From<ModbusRole> for String {
    fn from(role: ModbusRole) -> String {
        role.0
    }
}

/// Why something is not a Modbus role. The text is left out: it is a stranger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModbusRoleError {
    #[error(
        "a Modbus role is 1 to {max} of A-Z, a-z, 0-9, space, `_`, `-` and `.`, without a space at either end",
        max = ModbusRole::MAX_LEN
    )]
    Name,
    #[error("the Modbus role in the certificate is not one UTF8String of at most {max} octets", max = ModbusRole::MAX_LEN)]
    Encoding,
    #[error("the certificate has more than one Modbus role")]
    Twice,
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, KeyPair, SanType};

    use super::*;
    use crate::{Identity, Summary};

    #[test]
    fn names_follow_the_rule() {
        let longest = "r".repeat(64);
        for good in ["Operator", "a", "7", "plant 1_b-c.d", "-", longest.as_str()] {
            assert_eq!(good.parse::<ModbusRole>().unwrap().as_str(), good);
        }
        let too_long = "r".repeat(65);
        for bad in [
            "",
            " ",
            " a",
            "a ",
            "a\n",
            "a\tb",
            "a\0",
            "ä",
            "a/b",
            "a,b",
            "a\"",
            "\u{202e}a",
            &too_long,
        ] {
            assert!(bad.parse::<ModbusRole>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_one_whole_utf8_string_is_read() {
        let role: ModbusRole = "Operator".parse().unwrap();
        let der = role.to_der();
        assert_eq!(der, b"\x0c\x08Operator");
        assert_eq!(ModbusRole::from_der(&der), Ok(role));
        for bad in [
            &b""[..],
            b"\x0c",
            b"\x0c\x00",
            b"\x0c\x01",
            b"\x0c\x01ab",
            b"\x0c\x08Operator\x0c\x01a",
            b"\x0c\x81\x01a",
            b"\x0c\x80a\x00\x00",
            b"\x13\x01a",
            b"\x16\x01a",
            b"\x1e\x02\x00a",
            b"\x30\x03\x0c\x01a",
            b"\x2c\x03\x0c\x01a",
            b"\x0c\x02\xff\xfe",
            b"\x0c\x02a\x00",
            b"Operator",
        ] {
            assert!(ModbusRole::from_der(bad).is_err(), "{bad:02x?}");
        }
        let longest = "r".repeat(64).parse::<ModbusRole>().unwrap();
        assert_eq!(ModbusRole::from_der(&longest.to_der()), Ok(longest.clone()));
        let mut longer = longest.to_der();
        longer[1] = 65;
        longer.push(b'r');
        assert!(ModbusRole::from_der(&longer).is_err());
    }

    #[test]
    fn a_certificate_with_a_role_that_cannot_be_read_proves_nothing() {
        let operator = b"\x0c\x08Operator";
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&[&operator[..]][..], Ok(Some("Operator"))),
            (&[operator, operator], Err(ModbusRoleError::Twice)),
            (&[operator, b""], Err(ModbusRoleError::Twice)),
            (&[b"Operator"], Err(ModbusRoleError::Encoding)),
            (&[b"\x0c\x01\x00"], Err(ModbusRoleError::Name)),
        ] {
            let der = certificate_with(values);
            let role = ModbusRole::of_certificate(&der);
            let expected = expected.map_err(CertificateError::from);
            assert_eq!(
                role.as_ref()
                    .map(|role| role.as_ref().map(ModbusRole::as_str)),
                expected.as_ref().map(|role| *role)
            );
            assert_eq!(Identity::from_certificate(&der).is_ok(), expected.is_ok());
            assert_eq!(
                Summary::of(&der).unwrap().identity.is_some(),
                expected.is_ok()
            );
        }
    }

    fn certificate_with(values: &[&[u8]]) -> Vec<u8> {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![
            SanType::URI("spiffe://plant1.example/client/scada".try_into().unwrap()),
            SanType::DnsName("scada.client.plant1.example".try_into().unwrap()),
        ];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let extension = |value: &&[u8]| CustomExtension::from_oid_content(OID, value.to_vec());
        parameters.custom_extensions = values.iter().map(extension).collect();
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }
}
