//! What Enrollment over Secure Transport carries (RFC 7030, clarified by RFC 8951): base64 bodies
//! and certificates in a CMS message without signature.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use der::asn1::SetOfVec;
use der::{Any, Decode, Encode};
use x509_cert::Certificate;

/// Where EST is found below a server (RFC 7030, section 3.2.2).
pub const PATH: &str = "/.well-known/est/";
/// Where our trust list is found.
pub const TRUST_PATH: &str = "/.well-known/fieldlock/trust";
/// Of requests.
pub const PKCS10: &str = "application/pkcs10";
/// Of certificates.
pub const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";
/// Of what a request should contain.
pub const CSR_ATTRS: &str = "application/csrattrs";

/// Octets of a body that are taken, in either direction.
pub const MAX_BODY: usize = 64 << 10;

/// What requests should contain (RFC 8951, section 3): a P-256 key, as an attribute
/// id-ecPublicKey with the curve as its value.
///
/// ```text
/// SEQUENCE { SEQUENCE { OID 1.2.840.10045.2.1, SET { OID 1.2.840.10045.3.1.7 } } }
/// ```
pub const CSR_ATTRIBUTES: &[u8] = &[
    0x30, 0x17, 0x30, 0x15, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x31, 0x0a, 0x06,
    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
];

/// Base64 in lines of 64 characters, which every decoder takes.
pub fn encode(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut wrapped = String::with_capacity(text.len() + text.len() / 64 + 1);
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            wrapped.push('\n');
        }
        wrapped.push(character);
    }
    wrapped.push('\n');
    wrapped
}

/// Decodes base64 with white space anywhere and with or without padding. A PEM frame around it,
/// which some clients send, is passed over.
pub fn decode(body: &[u8]) -> Result<Vec<u8>, EstError> {
    if body.len() > MAX_BODY {
        return Err(EstError::TooLong);
    }
    let text = std::str::from_utf8(body).map_err(|_| EstError::NotBase64)?;
    let plain: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(str::chars)
        .filter(|character| !character.is_ascii_whitespace())
        .collect();
    if plain.is_empty() {
        return Err(EstError::Empty);
    }
    BASE64.decode(plain).map_err(|_| EstError::NotBase64)
}

/// A CMS SignedData with certificates and nothing else (RFC 5652, section 5; "certs-only").
pub fn certs_only(certificates: &[&[u8]]) -> Result<Vec<u8>, EstError> {
    let mut set = SetOfVec::new();
    for der in certificates {
        let certificate = Certificate::from_der(der).map_err(|_| EstError::NotCertificates)?;
        set.insert(CertificateChoices::Certificate(certificate))
            .map_err(|_| EstError::NotCertificates)?;
    }
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::new(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: const_oid::db::rfc5911::ID_DATA,
            econtent: None,
        },
        certificates: Some(CertificateSet(set)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::new()),
    };
    let content = ContentInfo {
        content_type: const_oid::db::rfc5911::ID_SIGNED_DATA,
        content: Any::encode_from(&signed).map_err(|_| EstError::NotCertificates)?,
    };
    content.to_der().map_err(|_| EstError::NotCertificates)
}

/// The certificates (DER) of a certs-only message.
pub fn parse_certs_only(der: &[u8]) -> Result<Vec<Vec<u8>>, EstError> {
    let malformed = |_| EstError::NotCertificates;
    let content = ContentInfo::from_der(der).map_err(malformed)?;
    if content.content_type != const_oid::db::rfc5911::ID_SIGNED_DATA {
        return Err(EstError::NotCertificates);
    }
    let signed: SignedData = content.content.decode_as().map_err(malformed)?;
    let mut certificates = Vec::new();
    for choice in signed.certificates.iter().flat_map(|set| set.0.iter()) {
        let CertificateChoices::Certificate(certificate) = choice else {
            return Err(EstError::NotCertificates);
        };
        certificates.push(certificate.to_der().map_err(malformed)?);
    }
    Ok(certificates)
}

/// Why a body can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EstError {
    #[error("the body has more than {MAX_BODY} octets")]
    TooLong,
    #[error("the body is empty")]
    Empty,
    #[error("the body is not base64")]
    NotBase64,
    #[error("it is not a CMS message with certificates (certs-only)")]
    NotCertificates,
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue::{Authority, Validity};
    use rcgen::KeyPair;

    fn certificates() -> [Vec<u8>; 2] {
        let validity = Validity {
            not_before: 1_700_000_000,
            not_after: 1_900_000_000,
        };
        let site = "plant1.example".parse().unwrap();
        let key = || Box::new(KeyPair::generate().unwrap());
        let serial = "41".parse().unwrap();
        let root = Authority::root(&site, "1", key(), &serial, validity).unwrap();
        let issuing = root.issuing(&site, "1", key(), &serial, validity).unwrap();
        [root, issuing].map(|authority| authority.certificate().to_vec())
    }

    #[test]
    fn certificates_come_back_octet_by_octet() {
        let certificates = certificates();
        let message = certs_only(&certificates.each_ref().map(Vec::as_slice)).unwrap();
        let mut back = parse_certs_only(&message).unwrap();
        let mut sent = certificates.to_vec();
        back.sort();
        sent.sort();
        assert_eq!(back, sent);
    }

    #[test]
    fn damaged_messages_are_refused_and_never_panic() {
        let [root, _] = certificates();
        let message = certs_only(&[&root]).unwrap();
        for position in 0..message.len() {
            assert!(parse_certs_only(&message[..position]).is_err());
            for value in [0x00, 0x7f, 0x80, 0xff] {
                let mut changed = message.clone();
                changed[position] = value;
                let _ = parse_certs_only(&changed);
            }
        }
        assert!(certs_only(&[b"no certificate"]).is_err());
    }

    #[test]
    fn bodies_are_taken_in_every_usual_spelling() {
        let octets: Vec<u8> = (0..=255).collect();
        let wrapped = encode(&octets);
        assert!(wrapped.lines().all(|line| line.len() <= 64));
        let plain: String = wrapped.lines().collect();
        let unpadded = plain.trim_end_matches('=').to_owned();
        let pem = format!("-----BEGIN X-----\n{wrapped}-----END X-----\n");
        for body in [
            &wrapped,
            &plain,
            &unpadded,
            &pem,
            &wrapped.replace('\n', "\r\n"),
        ] {
            assert_eq!(decode(body.as_bytes()).unwrap(), octets);
        }
        assert_eq!(decode(b" \r\n"), Err(EstError::Empty));
        assert_eq!(decode(b"%%%%"), Err(EstError::NotBase64));
        assert_eq!(decode(&[0xff; 8]), Err(EstError::NotBase64));
        assert_eq!(decode(&vec![b'A'; MAX_BODY + 1]), Err(EstError::TooLong));
    }
}
