//! Signing with a key on a token.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::AuthPin;
use fieldlock_pki::issue::{CaKey, KeyFailure};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use super::HsmError;
use super::token::{failed, in_session};
use super::uri::Uri;
use crate::passphrase::Passphrase;

/// Logs in and finds the key that `uri` names.
pub(crate) fn open(uri: &Uri, passphrase: &Passphrase) -> Result<Box<dyn CaKey>, HsmError> {
    let pin = passphrase.pin().into();
    let point = in_session(uri, &pin, |session| {
        public_point(session, private_key(session, uri)?, uri)
    })?;
    Ok(Box::new(TokenKey::new(uri.clone(), pin, point)))
}

/// Logs in, and nothing else.
pub(crate) fn check(uri: &Uri, passphrase: &Passphrase) -> Result<(), HsmError> {
    in_session(uri, &passphrase.pin().into(), |_| Ok(()))
}

/// Makes a key pair on the token, by the name `name` unless `uri` has one; also the URI by which
/// it is found again.
pub(crate) fn generate(
    uri: &Uri,
    name: &str,
    passphrase: &Passphrase,
) -> Result<(Box<dyn CaKey>, Uri), HsmError> {
    let pin = passphrase.pin().into();
    let mut uri = uri.clone();
    let object = uri.object.get_or_insert_with(|| name.to_owned());
    let common = [
        Attribute::Token(true),
        label(object.clone()),
        Attribute::Id(uri.id.clone().map_or_else(random_id, Ok)?),
    ];
    let public = [
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
    ];
    // To sign is all that it may do, and it can't leave.
    let private = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
    ];
    let point = in_session(&uri, &pin, |session| {
        if !private_keys(session, &uri)?.is_empty() {
            return Err(HsmError::Exists {
                token: uri.token(),
                object: uri.key(),
            });
        }
        let made = session.generate_key_pair(
            &Mechanism::EccKeyPairGen,
            &[&common[..], &public].concat(),
            &[&common[..], &private].concat(),
        );
        let (_, private) = made.map_err(|error| failed(&uri, "make a key", &error))?;
        public_point(session, private, &uri)
    })?;
    let key = TokenKey::new(uri.clone(), pin, point);
    Ok((Box::new(key), uri))
}

/// A key on a token.
struct TokenKey {
    uri: Uri,
    /// Wiped from memory when dropped.
    pin: AuthPin,
    /// The public key: 4, x, y (SEC 1, section 2.3.3).
    point: Vec<u8>,
    failure: Mutex<Option<HsmError>>,
}

impl TokenKey {
    fn new(uri: Uri, pin: AuthPin, point: Vec<u8>) -> Self {
        Self {
            uri,
            pin,
            point,
            failure: Mutex::new(None),
        }
    }

    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        let digest = digest(&SHA256, message);
        let raw = in_session(&self.uri, &self.pin, |session| {
            let key = private_key(session, &self.uri)?;
            let signed = session.sign(&Mechanism::Ecdsa, key, digest.as_ref());
            signed.map_err(|error| failed(&self.uri, "sign", &error))
        })?;
        let wrong = || HsmError::Signature {
            token: self.uri.token(),
            object: self.uri.key(),
        };
        let signature = to_der(&raw).ok_or_else(wrong)?;
        // Also tells when another key has taken the place of the one that was opened.
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point)
            .verify(message, &signature)
            .map_err(|_| wrong())?;
        Ok(signature)
    }
}

impl PublicKeyData for TokenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.try_sign(message).map_err(|error| {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            *failure = Some(error);
            rcgen::Error::RemoteKeyError
        })
    }
}

impl CaKey for TokenKey {
    fn failure(&self) -> Option<KeyFailure> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map(KeyFailure::from)
    }
}

/// The one private key that `uri` names.
fn private_key(session: &Session, uri: &Uri) -> Result<ObjectHandle, HsmError> {
    let (token, object) = (uri.token(), uri.key());
    match private_keys(session, uri)?.as_slice() {
        [] => Err(HsmError::NoKey { token, object }),
        [only] => Ok(*only),
        several => Err(HsmError::ManyKeys {
            token,
            object,
            count: several.len(),
        }),
    }
}

fn private_keys(session: &Session, uri: &Uri) -> Result<Vec<ObjectHandle>, HsmError> {
    let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    wanted.extend(uri.object.clone().map(label));
    wanted.extend(uri.id.clone().map(Attribute::Id));
    let found = session.find_objects(&wanted);
    found.map_err(|error| failed(uri, "be searched", &error))
}

/// The public key of `private`: the one with the same id, or, if that is empty, the same label.
fn public_point(session: &Session, private: ObjectHandle, uri: &Uri) -> Result<Vec<u8>, HsmError> {
    let search = |error| failed(uri, "be searched", &error);
    let (token, object) = (uri.token(), uri.key());
    let id = attribute(session, private, AttributeType::Id).map_err(search)?;
    let id = id.filter(|id| !id.is_empty()).map(Attribute::Id);
    let Some(common) = id.or_else(|| uri.object.clone().map(label)) else {
        return Err(HsmError::NoPublic { token, object });
    };
    let publics = session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY), common]);
    let Some(&public) = publics.map_err(search)?.first() else {
        return Err(HsmError::NoPublic { token, object });
    };
    let curve = attribute(session, public, AttributeType::EcParams).map_err(search)?;
    let point = attribute(session, public, AttributeType::EcPoint).map_err(search)?;
    match (curve, point.as_deref().and_then(uncompressed)) {
        (Some(curve), Some(point)) if curve == P256 => Ok(point.to_vec()),
        _ => Err(HsmError::Kind { token, object }),
    }
}

fn attribute(
    session: &Session,
    object: ObjectHandle,
    kind: AttributeType,
) -> Result<Option<Vec<u8>>, Error> {
    let found = session.get_attributes(object, &[kind])?.pop();
    Ok(match found {
        Some(Attribute::Id(octets) | Attribute::EcParams(octets) | Attribute::EcPoint(octets)) => {
            Some(octets)
        }
        _ => None,
    })
}

fn label(text: String) -> Attribute {
    Attribute::Label(text.into_bytes())
}

fn random_id() -> Result<Vec<u8>, HsmError> {
    let mut id = vec![0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| HsmError::Random)?;
    Ok(id)
}

/// A point is an OCTET STRING (PKCS #11, section 6.3.3); some tokens leave its header out.
fn uncompressed(point: &[u8]) -> Option<&[u8]> {
    let point = match point {
        [0x04, 0x41, inner @ ..] if inner.len() == 65 => inner,
        point => point,
    };
    (point.len() == 65 && point.first() == Some(&0x04)).then_some(point)
}

/// Ecdsa-Sig-Value (RFC 3279, section 2.2.3) of r and s, 32 octets each.
fn to_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
    let mut integers = integer(r);
    integers.extend(integer(s));
    // At most twice 35 octets: the length takes one.
    let length = u8::try_from(integers.len()).ok()?;
    Some([&[0x30, length], integers.as_slice()].concat())
}

/// The shortest INTEGER of an unsigned number of at most 32 octets.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    let number = number.get(zeros..).unwrap_or_default();
    // Zero, and what would be negative, begins with a zero octet.
    let padded = number.first().is_none_or(|octet| *octet >= 0x80);
    let mut value = vec![0; usize::from(padded)];
    value.extend(number);
    let mut der = vec![0x02, value.len() as u8];
    der.extend(value);
    der
}

/// The OID of prime256v1, 1.2.840.10045.3.1.7, in DER.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_written_in_the_shortest_form() {
        let mut raw = [0; 64];
        // r = 0x80: needs a zero before it; s = 1: its zeros go.
        raw[31] = 0x80;
        raw[63] = 1;
        let der = [0x30, 7, 0x02, 2, 0, 0x80, 0x02, 1, 1];
        assert_eq!(to_der(&raw).unwrap(), der);
        let longest = to_der(&[0xff; 64]).unwrap();
        assert_eq!(longest[..5], [0x30, 70, 0x02, 33, 0]);
        assert_eq!(to_der(&[0; 64]).unwrap(), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(to_der(&[0; 63]), None);
        assert_eq!(to_der(&[0; 96]), None);
    }

    #[test]
    fn points_come_with_and_without_a_header() {
        let point = [&[4][..], &[7; 64]].concat();
        let wrapped = [&[4, 0x41][..], &point].concat();
        assert_eq!(uncompressed(&point), Some(point.as_slice()));
        assert_eq!(uncompressed(&wrapped), Some(point.as_slice()));
        assert_eq!(uncompressed(&point[..64]), None);
        assert_eq!(uncompressed(&[2; 65]), None);
    }
}
