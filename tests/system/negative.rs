//! What must not work, on both transports.

mod downgrade;
mod early_data;
mod hostile_edge;
pub(crate) mod hostile_headend;
mod identity;
mod refused_by_edge;
mod refused_by_headend;
mod strangers;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        refused_by_headend::trials(),
        refused_by_edge::trials(),
        strangers::trials(),
        early_data::trials(),
        downgrade::trials(),
        hostile_edge::trials(),
        hostile_headend::trials(),
        identity::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
