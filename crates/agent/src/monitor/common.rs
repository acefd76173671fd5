//! The metrics of any agent.

use fieldlock_pki::clock::Skew;

use super::page::{Kind, Page};
use super::{Monitored, process};
use crate::ledger::Alarm;
use crate::library::WARNINGS;
use crate::posture::short_hex;

pub(super) fn measure(agent: &impl Monitored, page: &mut Page) {
    let posture = &agent.runtime().posture;
    let trust = posture.trust();
    let identity = &trust.identity;
    page.family(
        Kind::Gauge,
        "fieldlock_build_info",
        "Always 1; version, role, name and site as labels.",
    )
    .add(
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("role", identity.role.as_str()),
            ("name", identity.name.as_str()),
            ("site", identity.site.as_str()),
        ],
        1,
    );
    page.family(
        Kind::Gauge,
        "fieldlock_policy_info",
        "1; the first 8 octets of the hash of the policy in force.",
    )
    .add(&[("policy", &short_hex(&posture.hash()))], 1);
    if let Some(version) = posture.bundle().version() {
        page.single(
            Kind::Gauge,
            "fieldlock_policy_bundle_version",
            "Of the policy bundle in force; 0: none, and nothing crosses.",
            version,
        );
    }
    dates(agent, page);
    let mut alarms = page.family(
        Kind::Gauge,
        "fieldlock_alarm",
        "How many alarms of this name last; 0: none.",
    );
    let lasting = agent.runtime().ledger.alarms();
    for &alarm in Alarm::ALL {
        let count = lasting.iter().filter(|lasting| lasting.alarm == alarm);
        alarms.add(&[("name", alarm.name())], count.count());
    }
    audit(agent, page);
    page.single(
        Kind::Counter,
        "fieldlock_library_warnings_total",
        "Warnings of the TLS library about what peers send; at most one a minute is logged.",
        WARNINGS.count(),
    );
    process::measure(page);
}

fn dates(agent: &impl Monitored, page: &mut Page) {
    let posture = &agent.runtime().posture;
    let trust = posture.trust();
    page.single(
        Kind::Gauge,
        "fieldlock_certificate_expiry_timestamp_seconds",
        "When the agent's certificate expires, since 1970-01-01 UTC.",
        trust.leaf.not_after,
    );
    let mut family = page.family(
        Kind::Gauge,
        "fieldlock_crl_next_update_timestamp_seconds",
        "When the first revocation list of a root, or of an issuing CA, is past its date.",
    );
    let crls = trust.list.crl_dates();
    for (authority, of_root) in [("root", true), ("issuing", false)] {
        let dates = crls.iter().filter(|crl| crl.is_root == of_root);
        if let Some(first) = dates.map(|crl| crl.next_update).min() {
            family.add(&[("authority", authority)], first);
        }
    }
    let skew = match posture.clock().read().skew {
        Skew::None => 0,
        Skew::Behind(by) => -by,
        Skew::Ahead(by) => by,
    };
    page.single(
        Kind::Gauge,
        "fieldlock_clock_skew_seconds",
        "By how much the system clock is ahead of what is known of the time; 0: it agrees.",
        skew,
    );
}

fn audit(agent: &impl Monitored, page: &mut Page) {
    let ledger = &agent.runtime().ledger;
    let (waiting, lag) = ledger.backlog();
    page.single(
        Kind::Gauge,
        "fieldlock_audit_writable",
        "1: the audit log takes records; 0: it can't be written, and no write passes.",
        u8::from(ledger.is_writable()),
    );
    page.single(
        Kind::Gauge,
        "fieldlock_audit_queue_records",
        "Records that are not on the disk yet.",
        waiting,
    );
    page.single(
        Kind::Gauge,
        "fieldlock_audit_lag_seconds",
        "How long the oldest of them has waited; up to 0.2 is usual.",
        lag.as_secs_f64(),
    );
    page.single(
        Kind::Counter,
        "fieldlock_audit_records_total",
        "Records on the disk, since the log was begun.",
        ledger.durable(),
    );
    page.single(
        Kind::Counter,
        "fieldlock_audit_lost_records_total",
        "Records that the log could not take, since the start.",
        ledger.not_recorded(),
    );
    page.single(
        Kind::Counter,
        "fieldlock_audit_left_out_records_total",
        "Records of people outside the policy beyond their share of the log, since the start.",
        ledger.left_out(),
    );
}
