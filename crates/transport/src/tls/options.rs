//! What a configuration says of certificates and TLS.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What an agent does when no fresh revocation list can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// How long after its date a list is still good for new tunnels.
    pub crl_grace: Span,
    pub after_grace: AfterGrace,
    /// What a tunnel's keys come from.
    pub key_exchange: KeyExchange,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            crl_grace: Span(Duration::from_secs(30 * 86_400)),
            after_grace: AfterGrace::Keep,
            key_exchange: KeyExchange::Any,
        }
    }
}

/// What happens to live tunnels then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterGrace {
    Keep,
    Cut,
}

/// Which key exchanges a tunnel may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyExchange {
    /// Post-quantum where both ends have it, and else the best that both have.
    #[default]
    Any,
    PostQuantum,
}

/// The least version of TLS on connections that are not tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MinimumTls {
    #[default]
    Tls13,
    Tls12,
}

impl TryFrom<String> for MinimumTls {
    type Error = String;

    /// From a text also where the environment made a number of it.
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "1.3" => Ok(Self::Tls13),
            "1.2" => Ok(Self::Tls12),
            _ => Err(format!(
                "`{text}` is not a least version of TLS: use \"1.3\" or \"1.2\""
            )),
        }
    }
}

/// A length of time as people write it: `"250ms"`, `"1s"`, `"5m"`, `"30d"`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        text.parse::<jiff::Span>()
            .and_then(|span| span.to_duration(days))
            .ok()
            .and_then(|span| Duration::try_from(span).ok())
            .map(Self)
            .ok_or_else(|| {
                D::Error::custom(format!(
                    "`{text}` is not a length of time; write it like \"250ms\", \"1s\" or \"5m\""
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        let span = |text: &str| {
            let json = serde_json::to_string(text).unwrap();
            serde_json::from_str::<Span>(&json).map(|span| span.0)
        };
        assert_eq!(span("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(span("1s").unwrap(), Duration::from_secs(1));
        assert_eq!(span("5m").unwrap(), Duration::from_secs(300));
        assert!(span("soon").unwrap_err().to_string().contains("250ms"));
        assert!(span("-1s").is_err());
    }
}
