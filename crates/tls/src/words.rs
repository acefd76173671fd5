//! What TLS says went wrong, in words for people.
//!
//! The library's own texts are for its developers: names of variants, times as seconds. Here each
//! is a half-sentence about the other side, without anything that differs from one attempt to the
//! next, so that repeats can be told.

use std::borrow::Cow;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// In words, if TLS is why.
pub fn io_error(error: &io::Error) -> Cow<'static, str> {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(tls) => tls_error(tls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection ended in the middle of the handshake".into()
        }
        None => error.to_string().into(),
    }
}

pub fn tls_error(error: &Error) -> Cow<'static, str> {
    match error {
        Error::InvalidCertificate(error) => certificate_error(error),
        Error::NoCertificatesPresented => "it shows no certificate".into(),
        Error::AlertReceived(alert) => {
            format!("it ended the handshake: {}", alert_text(*alert)).into()
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => NOT_TLS.into(),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerSentOversizedRecord => "what it sends is not TLS, or damaged".into(),
        Error::DecryptError => "what it sends can't be decrypted".into(),
        Error::PeerIncompatible(reason) => incompatible(reason).into(),
        Error::PeerMisbehaved(_) => "it breaks the rules of TLS".into(),
        Error::NoApplicationProtocol => "it asks for no protocol (ALPN) that is served here".into(),
        // Says what is wrong here, not with the other side.
        error => error.to_string().into(),
    }
}

pub const NOT_TLS: &str = "what it sends is not TLS";
pub const NO_TLS13: &str = "it does not offer TLS 1.3";

fn incompatible(reason: &PeerIncompatible) -> &'static str {
    match reason {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls13RequiredForQuic => NO_TLS13,
        PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired => {
            "it offers no key exchange that is accepted here"
        }
        PeerIncompatible::NoCipherSuitesInCommon => "it offers no cipher that is accepted here",
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            "it offers no kind of signature that is accepted here"
        }
        _ => "it offers no way of TLS that is accepted here",
    }
}

pub fn certificate_error(error: &CertificateError) -> Cow<'static, str> {
    let text = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        CertificateError::Revoked => "its certificate is revoked",
        CertificateError::UnknownIssuer => {
            "its certificate comes from a CA that is not trusted here"
        }
        CertificateError::UnknownRevocationStatus => {
            "no revocation list that is installed here covers its certificate"
        }
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            "the revocation list for its certificate is out of date"
        }
        CertificateError::BadSignature => "a signature on its certificate or handshake is wrong",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        CertificateError::InvalidPurposeContext { required, .. } => {
            return format!("its certificate is not for {required} (extended key usage)").into();
        }
        CertificateError::InvalidPurpose => {
            "its certificate is not for this use (extended key usage)"
        }
        CertificateError::BadEncoding | CertificateError::UnhandledCriticalExtension => {
            "its certificate can't be read"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate is signed in a way that is not accepted here"
        }
        // What our own verifiers found.
        CertificateError::Other(own) => return own.0.to_string().into(),
        error => return format!("its certificate is not accepted: {error}").into(),
    };
    text.into()
}

/// What an alert (RFC 8446, section 6.2) means, received or sent.
pub fn alert(code: u8) -> Cow<'static, str> {
    alert_text(AlertDescription::from(code))
}

fn alert_text(alert: AlertDescription) -> Cow<'static, str> {
    let text = match alert {
        AlertDescription::BadCertificate => "the certificate is not accepted",
        AlertDescription::UnsupportedCertificate => {
            "the certificate is of a kind that is not accepted"
        }
        AlertDescription::CertificateRevoked => "the certificate is revoked",
        AlertDescription::CertificateExpired => "the certificate has expired, or is not valid yet",
        AlertDescription::CertificateUnknown => {
            "the certificate is not accepted; the other side's log says why"
        }
        AlertDescription::UnknownCA => "the certificate comes from a CA that is not trusted there",
        AlertDescription::AccessDenied => "the certificate does not entitle to this",
        AlertDescription::CertificateRequired => "a certificate is required, and none was shown",
        AlertDescription::NoApplicationProtocol => "no common protocol (ALPN)",
        AlertDescription::ProtocolVersion => "no common version of TLS",
        AlertDescription::HandshakeFailure => "no common key exchange, cipher or signature",
        AlertDescription::InsufficientSecurity => "stronger cryptography is required",
        AlertDescription::DecryptError => "a signature or key did not fit",
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => "it was given up",
        AlertDescription::InternalError => "an error of its own",
        alert => return format!("TLS alert {}", u8::from(alert)).into(),
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::pki_types::UnixTime;
    use rustls::{OtherError, PeerMisbehaved};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("certificate of role client, expected edge")]
    struct Own;

    #[test]
    fn no_text_shows_how_the_library_is_written() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let of = |error: CertificateError| Error::InvalidCertificate(error);
        for (error, expected) in [
            (of(CertificateError::Revoked), "revoked"),
            (
                of(CertificateError::ExpiredContext {
                    time: at(1_796_000_000),
                    not_after: at(1_795_000_000),
                }),
                "expired",
            ),
            (of(CertificateError::UnknownIssuer), "not trusted here"),
            (
                of(CertificateError::Other(OtherError(Arc::new(Own)))),
                "role client",
            ),
            (Error::NoCertificatesPresented, "shows no certificate"),
            (
                Error::AlertReceived(AlertDescription::CertificateRevoked),
                "the certificate is revoked",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "not TLS",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
                "TLS 1.3",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived),
                "rules of TLS",
            ),
            (Error::NoApplicationProtocol, "ALPN"),
        ] {
            let text = io_error(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert!(text.contains(expected), "{text}");
            let is_plain = !text.contains(['{', '(']) || text.contains("(ALPN)");
            assert!(is_plain && !text.contains("17960"), "{text}");
        }
    }
}
