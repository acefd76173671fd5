//! The limits of [`Admission`], as the settings have them.

pub(super) use fieldlock_session::admission::{Admission, Limits, Pass, Verdict};

use crate::settings::Tunnel;

pub(super) fn limits(settings: &Tunnel) -> Limits {
    Limits {
        max_handshakes: settings.max_handshakes,
        max_handshakes_per_address: settings.max_handshakes_per_address,
        handshake_rate: settings.handshake_rate,
        handshake_rate_per_address: settings.handshake_rate_per_address,
    }
}
