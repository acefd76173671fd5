//! Why a handshake was refused, and whose certificate it was.
//!
//! rustls tells neither the identity nor the serial number of a certificate that it turned down, and
//! quinn passes on a text alone. So our verifiers note what they refuse; like the note of the key
//! exchange it is collected right where rustls was called, on the same stack, so it can only be
//! that connection's own.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;

use fieldlock_audit::Party;
use fieldlock_pki::{Identity, Summary, TrustList};
use fieldlock_tls::words;
use quinn_proto::TransportError;

thread_local! {
    static REFUSED: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// Why a handshake came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub why: Cow<'static, str>,
    /// The certificate that was shown, if a CA of the site issued it. That its key is the peer's is
    /// not proven.
    pub shown: Option<Shown>,
}

/// A certificate that a CA of the site issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    identity: String,
    serial: String,
}

impl Shown {
    pub fn of(leaf: &[u8]) -> Option<Self> {
        Some(Self {
            identity: Identity::from_certificate(leaf).ok()?.uri(),
            serial: Summary::of(leaf).ok()?.serial.to_string(),
        })
    }
}

impl Refusal {
    /// Puts down that `leaf` was refused, for whoever called rustls.
    pub(super) fn note(error: &rustls::Error, leaf: &[u8], list: &TrustList) {
        let ours = list.issuer_of(leaf).is_some();
        let refusal = Self {
            why: words::tls_error(error),
            shown: ours.then(|| Shown::of(leaf)).flatten(),
        };
        REFUSED.replace(Some(refusal));
    }

    /// What was put down since this was asked last.
    pub(super) fn noted() -> Option<Self> {
        REFUSED.take()
    }

    /// Of a handshake over QUIC: `error` came from our layer around quinn's TLS session.
    pub fn of_quic(error: &quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::TransportError(error) if is_alert(error.code) => {
                Self::parse(&error.reason)
            }
            quinn::ConnectionError::ConnectionClosed(close) if is_alert(close.error_code) => {
                let alert = words::alert(alert_of(close.error_code));
                format!("it ended the handshake: {alert}").into()
            }
            error => error.to_string().into(),
        }
    }

    /// Makes of quinn's text one of ours, with which [`Refusal::of_quic`] can do something.
    pub(super) fn put_into(error: TransportError) -> TransportError {
        let refusal = Self::noted();
        if !is_alert(error.code) {
            return error;
        }
        let refusal = refusal.unwrap_or_else(|| sent_alert(alert_of(error.code)).into());
        TransportError {
            reason: refusal.to_string(),
            ..error
        }
    }

    /// The opposite of its [`Display`](fmt::Display).
    fn parse(text: &str) -> Self {
        let parts = text.strip_suffix(')').and_then(|text| {
            let (why, certificate) = text.rsplit_once(OPENING)?;
            let (serial, identity) = certificate.split_once(OF)?;
            Some((why, serial, identity))
        });
        match parts {
            Some((why, serial, identity)) => Self {
                why: why.to_owned().into(),
                shown: Some(Shown {
                    identity: identity.to_owned(),
                    serial: serial.to_owned(),
                }),
            },
            None => text.to_owned().into(),
        }
    }

    /// The peer, as far as it is known.
    pub fn party(&self, party: Party) -> Arc<Party> {
        let shown = self.shown.as_ref();
        Arc::new(Party {
            identity: shown.map(|shown| shown.identity.as_str().into()),
            serial: shown.map(|shown| shown.serial.as_str().into()),
            ..party
        })
    }
}

const OPENING: &str = " (certificate ";
const OF: &str = " of ";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match &self.shown {
            Some(Shown { identity, serial }) => write!(f, "{OPENING}{serial}{OF}{identity})"),
            None => Ok(()),
        }
    }
}

impl From<&'static str> for Refusal {
    fn from(why: &'static str) -> Self {
        Self {
            why: why.into(),
            shown: None,
        }
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self {
            why: why.into(),
            shown: None,
        }
    }
}

impl From<Cow<'static, str>> for Refusal {
    fn from(why: Cow<'static, str>) -> Self {
        Self { why, shown: None }
    }
}

/// Makes a handshake over TCP, and says why it failed.
pub async fn handshake<T>(handshake: impl Future<Output = io::Result<T>>) -> Result<T, Refusal> {
    let mut handshake = pin!(handshake);
    let mut refusal = None;
    let outcome = poll_fn(|context| {
        Refusal::noted();
        let polled = handshake.as_mut().poll(context);
        if let Some(noted) = Refusal::noted() {
            refusal = Some(noted);
        }
        polled
    });
    let outcome = outcome.await;
    outcome.map_err(|error| refusal.unwrap_or_else(|| words::io_error(&error).into()))
}

/// 0x100 to 0x1ff: a TLS alert (RFC 9001, section 4.8).
pub(crate) fn is_alert(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

pub(crate) fn alert_of(code: quinn::TransportErrorCode) -> u8 {
    u64::from(code) as u8
}

/// What we found, by the alert that we sent.
fn sent_alert(alert: u8) -> Cow<'static, str> {
    match alert {
        116 => words::tls_error(&rustls::Error::NoCertificatesPresented),
        120 => words::tls_error(&rustls::Error::NoApplicationProtocol),
        alert => words::alert(alert),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_text_that_quinn_passes_on() {
        for refusal in [
            Refusal {
                why: "its certificate is revoked".into(),
                shown: Some(Shown {
                    identity: "spiffe://plant1.example/edge/press-07".to_owned(),
                    serial: "4f00aa".to_owned(),
                }),
            },
            "it shows no certificate".into(),
            "certificate without a usable identity: two URIs (of one)".into(),
        ] {
            assert_eq!(Refusal::parse(&refusal.to_string()), refusal);
        }
    }
}
