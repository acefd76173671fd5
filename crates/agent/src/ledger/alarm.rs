//! Alarms: conditions that a person should look at, for as long as they last.

use std::fmt;
use std::time::Instant;

macro_rules! alarms {
    ($($variant:ident => $name:literal,)+) => {
        /// The kinds of alarms.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Alarm {
            $($variant,)+
        }

        impl Alarm {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As records, metrics and `status` call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

// A name is part of the audit log and of what watches it: it never changes. docs/operate.md says
// what each means.
alarms! {
    AuditLogUnwritable => "audit-log-unwritable",
    PolicyRefused => "policy-refused",
    PolicyBundleMissing => "policy-bundle-missing",
    PolicyBundleRefused => "policy-bundle-refused",
    ConfigurationRefused => "configuration-refused",
    TrustRefused => "trust-refused",
    CrlExpired => "crl-expired",
    RootCrlExpires => "root-crl-expires",
    CertificateExpires => "certificate-expires",
    CertificateRevoked => "certificate-revoked",
    RenewalFailed => "renewal-failed",
    CaUnreachable => "ca-unreachable",
    ClockWrong => "clock-wrong",
    DuplicateIdentity => "duplicate-identity",
    PeerLogCut => "peer-log-cut",
    ProfinetInterfaceDown => "profinet-interface-down",
    StationWithoutName => "station-without-name",
    AuditLogChanged => "audit-log-changed",
    AuditShareUsedUp => "audit-share-used-up",
    FallbackTransport => "fallback-transport",
}

/// An alarm that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting {
    pub alarm: Alarm,
    /// What it is about, where there may be several: an edge, a CA, an interface. Empty for one of
    /// the agent as a whole.
    pub key: String,
    pub text: String,
    pub since: Instant,
}

/// Its name and key.
impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.alarm.name())?;
        match self.key.as_str() {
            "" => Ok(()),
            key => write!(f, " {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alarm_has_a_line_for_those_who_operate_it() {
        let page = include_str!("../../../../docs/operate.md");
        for alarm in Alarm::ALL {
            let line = format!("| `{}` | ", alarm.name());
            assert_eq!(page.matches(&line).count(), 1, "{line}");
        }
    }
}
