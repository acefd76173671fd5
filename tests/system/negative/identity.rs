//! Two processes with one key, and certificates that are revoked while in use.

use std::time::{Duration, Instant};

use fieldlock_audit::Kind;
use fieldlock_testkit::modbus::Client;
use fieldlock_tests::answers::{read_one, read_registers};
use fieldlock_tests::trial::both;
use fieldlock_tests::{
    Agent, EDGE, HEADEND, OPEN_POLICY, Pair, Role, Setup, Site, Transport, eventually, within,
};
use libtest_mimic::Trial;

/// Promised are 2 s from the installation of a CRL to the cut.
const CUT_AT_MOST: Duration = Duration::from_millis(3500);

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("attacks::a02_second_process_with_one_key", second_process),
        both(
            "negative::second_process_replaces_a_dead_one",
            replaces_dead,
        ),
        both("negative::edge_revoked_while_live", edge_revoked),
        both("negative::headend_revoked_while_live", headend_revoked),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Another process with the state directory's contents of the edge, as after a theft or
/// when a virtual machine was copied.
fn twin(pair: &Pair) -> Agent {
    let mut twin = Agent::prepare(
        Role::Edge,
        "twin",
        pair.directory.path(),
        &Site::shared().identity(Role::Edge, EDGE),
        &pair.edge_config,
        OPEN_POLICY,
    );
    twin.start();
    twin.wait_ready();
    twin
}

fn second_process(transport: Transport) {
    let mut pair = Pair::up(transport);
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    let twin = twin(&pair);
    // The older one serves while it is probed and after.
    let refused = |agent: &Agent| {
        let records = agent.audit_kind(Kind::TunnelRefused);
        records.iter().any(|record| {
            let reason = record.reason.as_deref().unwrap_or_default();
            reason.contains("duplicate-identity")
        })
    };
    eventually("the refusal on record at both ends", || {
        read_registers(&mut client, 0, 1);
        refused(&pair.headend) && refused(&twin)
    });
    let edge_alarm = format!("duplicate-identity {EDGE}");
    eventually("the alarm at the headend", || {
        pair.headend.alarms().contains(&edge_alarm)
    });
    let twin_alarm = format!("duplicate-identity {HEADEND}");
    eventually("the alarm at the refused edge", || {
        twin.alarms().contains(&twin_alarm)
    });
    assert!(twin.audit_kind(Kind::TunnelUp).is_empty());
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
    assert!(pair.headend.audit_kind(Kind::TunnelDown).is_empty());
    assert!(pair.edge.is_running());
    read_registers(&mut client, 0, 1);
}

fn replaces_dead(transport: Transport) {
    let mut pair = Pair::up(transport);
    pair.edge.process().pause();
    let twin = twin(&pair);
    let up = || pair.headend.audit_kind(Kind::TunnelUp).len() == 2;
    eventually("the newer tunnel", up);
    eventually("the twin to be connected", || pair.is_connected());
    read_registers(&mut pair.client(), 0, 1);
    let down = pair
        .headend
        .wait_record("the older one's end", |r| r.kind == Kind::TunnelDown);
    let reason = down.reason.unwrap_or_default();
    assert!(
        reason.contains("replaced") || reason.contains("nothing heard"),
        "{reason}"
    );
    // Who comes back is the second one now.
    pair.edge.process().resume();
    let alarm = format!("duplicate-identity {EDGE}");
    eventually("the alarm", || pair.headend.alarms().contains(&alarm));
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 2);
    eventually("the twin to say so", || {
        !twin.audit_kind(Kind::TunnelUp).is_empty()
    });
}

fn edge_revoked(transport: Transport) {
    let name = format!("edge-live-{transport}");
    let pair = Setup::new(transport).named(&name, HEADEND).up();
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    let crl = Site::shared().revoke(Role::Edge, &name);
    pair.headend.install_crl(&crl);
    cut(&pair, &pair.headend, &mut client);
    // It goes on dialling and is refused in the handshake.
    pair.headend.wait_record("refusal", |r| {
        r.kind == Kind::TunnelRefused && r.reason.as_deref().unwrap_or("").contains("revoked")
    });
    assert!(!pair.is_connected());
}

fn headend_revoked(transport: Transport) {
    let name = format!("hd-live-{transport}");
    let pair = Setup::new(transport).named(EDGE, &name).up();
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    let crl = Site::shared().revoke(Role::Headend, &name);
    pair.edge.install_crl(&crl);
    cut(&pair, &pair.edge, &mut client);
    let error = || pair.edge.status()["headends"][0]["last_error"].to_string();
    eventually("the edge to refuse it in the handshake", || {
        error().contains("revoked")
    });
    assert!(!pair.is_connected());
}

/// The agent that got the CRL cuts the tunnel in the promised time.
fn cut(pair: &Pair, agent: &Agent, client: &mut Client) {
    let installed = Instant::now();
    within(CUT_AT_MOST, "the cut", || !pair.is_connected());
    let after = installed.elapsed();
    let record = agent.wait_record("the revocation", |r| r.kind == Kind::Revoked);
    assert!(
        record.reason.unwrap_or_default().contains("revoked"),
        "cut after {after:?}"
    );
    let answer = client.request(1, &read_one(0)).unwrap();
    assert_eq!(answer[0], 0x83, "served after {after:?}");
}
