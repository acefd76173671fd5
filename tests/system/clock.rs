//! Clocks that are not set, are set back, or jump while agents run. `faketime` shows agents a time of
//! the test's choice; the monotonic clock stays as it is.

use std::fs;
use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_tests::answers::{exception, read_one, read_registers, write_one};
use fieldlock_tests::clock::{Settable, set};
use fieldlock_tests::{
    Agent, OPEN_POLICY, Pair, Role, SOON, Setup, Site, Transport, binary, trial, within,
};
use libtest_mimic::Trial;

use crate::trust::{is_renewed, prepared, replace_identity};

pub(crate) fn trials() -> Vec<Trial> {
    let test = |name, run: fn()| trial::with_peers(name, &["faketime"], run);
    vec![
        test("attacks::a12_clock_set_back_revives_nothing", set_back),
        test("clock::jumps_drop_no_tunnel::quic", || {
            jumps(Transport::Quic)
        }),
        test("clock::jumps_drop_no_tunnel::tls", || jumps(Transport::Tls)),
        test("clock::windows_are_closed_while_it_is_wrong", windows_close),
        test("clock::a_box_without_a_clock_starts", no_clock),
        test("clock::records_carry_the_time_that_is_known", dated),
        test(
            "clock::one_that_is_ahead_is_one_alarm_and_deletes_nothing",
            ahead,
        ),
        test("clock::a_box_without_a_clock_asks_the_ca", asks_the_ca),
    ]
}

/// An agent looks at its clock every ten seconds.
const LOOK: Duration = Duration::from_secs(25);

/// Attack 12: the headend's clock is set back to when a certificate was valid that has ended.
fn set_back() {
    let mut pair = Setup::new(Transport::Auto).prepare();
    let time = Settable::of(&mut pair.headend);
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let expired = Site::shared().identity_between(Role::Edge, "press-07", -60, -10);
    replace_identity(&pair.edge, &expired);

    time.set("-30m");
    is_refused_as_expired(&mut pair);
    // What it knows of the time outlives it.
    pair.headend.terminate();
    pair.headend.start();
    is_refused_as_expired(&mut pair);
    pair.headend.wait_that("the alarm", has_alarm);
}

fn is_refused_as_expired(pair: &mut Pair) {
    let before = pair.headend.audit_kind(Kind::TunnelRefused).len();
    pair.edge.kill();
    pair.edge.start();
    let mut reason = String::new();
    within(SOON, "the refusal", || {
        let refused = pair.headend.audit_kind(Kind::TunnelRefused);
        reason = refused.get(before).map_or_else(String::new, |record| {
            record
                .reason
                .as_ref()
                .map_or_else(String::new, ToString::to_string)
        });
        !reason.is_empty()
    });
    assert!(reason.to_lowercase().contains("expired"), "{reason}");
    within(SOON, "the tunnel of before to be gone", || {
        !pair.is_connected()
    });
}

/// Both clocks jump by years, ahead and back, while a client writes.
fn jumps(transport: Transport) {
    let mut pair = Setup::new(transport).prepare();
    let times = [
        Settable::of(&mut pair.headend),
        Settable::of(&mut pair.edge),
    ];
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let mut client = pair.client();
    for (value, time) in (1..).zip(["+700d", "-700d", "+1d", "+0"]) {
        times.iter().for_each(|settable| settable.set(time));
        within(LOOK, "both to notice", || {
            let wrong = time != "+0";
            [&pair.headend, &pair.edge]
                .iter()
                .all(|agent| has_alarm(agent) == wrong)
        });
        // A change of lists judges every live tunnel again.
        let other = format!("jump-{transport}-{value}");
        Site::shared().identity(Role::Edge, &other);
        let crl = Site::shared().revoke(Role::Edge, &other);
        pair.headend.install_crl(&crl);
        within(SOON, "the edge to have it", || {
            let list = |agent: &Agent| fs::read(agent.state().join("trust/list.pem")).unwrap();
            list(&pair.edge) == list(&pair.headend)
        });
        write_one(&mut client, 40, value);
    }
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
    assert_eq!(pair.headend.audit_kind(Kind::TunnelDown).len(), 0);
}

/// The edge's clock is set back, and ahead, while a client writes by a rule with a time window.
fn windows_close() {
    let policy = OPEN_POLICY.replace(
        "address = [\"any\"]\n",
        "address = [\"any\"]\ntime = { from = \"00:00\", zone = \"UTC\" }\n",
    );
    let mut pair = Setup::new(Transport::Auto).edge_policy(&policy).prepare();
    let time = Settable::of(&mut pair.edge);
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let mut client = pair.client();
    for wrong in ["-700d", "+1d"] {
        write_one(&mut client, 40, 1);
        time.set(wrong);
        within(LOOK, "the window to count as closed", || {
            let answer = client.request(1, &read_one(40)).unwrap();
            exception(&answer) == Some(0x01)
        });
        time.set("+0");
        within(LOOK, "the window to be open again", || {
            let answer = client.request(1, &read_one(40)).unwrap();
            exception(&answer).is_none()
        });
    }
}

/// The edge's clock says 1970: it goes by the dates of what is installed, says so, and keeps what it
/// learns for the next start.
fn no_clock() {
    let mut pair = Setup::new(Transport::Auto).prepare();
    set(&mut pair.edge, "@1970-01-02 00:00:00");
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    write_one(&mut pair.client(), 40, 7);
    assert!(has_alarm(&pair.edge), "{:?}", pair.edge.alarms());
    let kept = pair.edge.state().join("trust/time");
    within(SOON, "the time to be kept", || kept.exists());
    let kept: i64 = fs::read_to_string(kept).unwrap().trim().parse().unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert!((now - 86_400..=now).contains(&kept), "{kept}, it is {now}");
}

/// A start with a clock at 2020: its records are found where they belong, and the log verifies.
fn dated() {
    let mut pair = Setup::new(Transport::Auto).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    pair.headend.terminate();
    set(&mut pair.headend, "@2020-01-02 00:00:00");
    pair.headend.start();
    pair.headend.wait_ready();
    pair.headend.terminate();
    pair.headend.set_environment("FAKETIME", "+0");
    pair.headend.start();
    pair.headend.wait_ready();
    pair.headend.terminate();

    let starts = pair.headend.audit_kind(Kind::Start);
    let said: Vec<bool> = starts.iter().map(|record| record.clock.is_some()).collect();
    assert_eq!(said, [false, true, false]);
    let state = pair.headend.state();
    let verified = binary::run_ok(&[&"audit", &"verify", &"--state", &state]);
    assert!(verified.contains("in order"), "{verified}");
    let found = binary::run_ok(&[
        &"audit", &"query", &"--state", &state, &"--kind", &"start", &"--since", &"40d",
    ]);
    assert_eq!(found.lines().count(), 3, "{found}");
    assert!(
        found.contains("the system clock said 2020-01-02"),
        "{found}"
    );
}

/// A start years ahead, beyond all certificates and lists.
fn ahead() {
    let limits = "[audit]\nsegment_size = \"64KiB\"\nsegment_age = \"1m\"\nkeep = \"730d\"\n";
    let mut pair = Setup::new(Transport::Auto).headend(limits).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    pair.headend.terminate();
    set(&mut pair.headend, "+1100d");
    pair.headend.start();
    pair.headend.wait_ready();
    within(LOOK, "the alarm", || has_alarm(&pair.headend));
    assert_eq!(pair.headend.alarms(), ["clock-wrong"]);
    pair.headend.terminate();
    let records = pair.headend.audit();
    assert_eq!(records[0].seq, 1);
    let text = records
        .iter()
        .rfind(|record| record.alarm.is_some())
        .unwrap();
    let said = text.reason.as_deref().unwrap_or_default();
    assert!(
        said.contains("by it this agent's certificate has expired"),
        "{said}"
    );
    let now = std::time::SystemTime::now();
    assert!(records.iter().all(|record| record.time <= Some(now)));
}

/// The same box was off until its certificate ended. By its own dates it is still valid: only the CA
/// can tell.
fn asks_the_ca() {
    let site = Site::shared();
    let ended = site.identity_between(Role::Edge, "dark-07", -60, -1);
    let (_server, mut pair) = prepared(Transport::Auto, "dark-07", "hd-1");
    replace_identity(&pair.edge, &ended);
    set(&mut pair.edge, "@1970-01-02 00:00:00");
    pair.headend.start();
    pair.headend.wait_ready();
    pair.edge.start();
    pair.wait_up();
    assert!(is_renewed(&pair.edge, &ended));
    read_registers(&mut pair.client(), 40, 1);
}

fn has_alarm(agent: &Agent) -> bool {
    agent.alarms().iter().any(|alarm| alarm == "clock-wrong")
}
