//! What reaches the agents from the CA while they run: revocations, trust lists, renewals.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fieldlock_audit::Kind;
use fieldlock_testkit::wait::wait_until;

use fieldlock_tests::answers::{read_registers, write_one};
use fieldlock_tests::{
    Agent, Pair, Role, SOON, Setup, Site, Transport, binary, clock, trial, within,
};
use libtest_mimic::Trial;

use crate::enroll;

pub(crate) fn trials() -> Vec<Trial> {
    // First, since it takes a minute.
    let mut trials = vec![trial::test(
        "trust::renewal_that_does_not_work_is_taken_back",
        taken_back,
    )];
    let others: Vec<Trial> = [
        trial::both("attacks::a09_edge_revoked_at_the_ca_is_cut", edge_revoked),
        trial::both("trust::headend_revoked_at_the_ca_is_cut", headend_revoked),
        trial::both("trust::stale_list_is_replaced_before_traffic", stale_edge),
        trial::both(
            "trust::polls_go_on_while_a_list_waits_for_the_disk",
            slow_disk,
        ),
        trial::both("trust::edge_renews_under_traffic", edge_renews),
        trial::both("trust::headend_renews_under_traffic", headend_renews),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.extend(others);
    trials.push(trial::test(
        "trust::expired_certificate_comes_back_by_itself",
        expired_edge,
    ));
    trials.push(trial::with_peers(
        "attacks::a11_no_fresh_list_to_be_had",
        &["faketime"],
        stale_lists,
    ));
    trials.extend(trial::both(
        "trust::root_and_issuing_ca_turn_over_under_traffic",
        turn_over,
    ));
    trials.push(trial::test(
        "trust::edge_that_was_off_follows_a_turnover",
        off_meanwhile,
    ));
    trials.push(trial::test(
        "attacks::a07_issuing_ca_stolen_and_revoked",
        issuing_revoked,
    ));
    trials.push(trial::test(
        "attacks::a01_stolen_box_and_its_copy",
        stolen_box,
    ));
    trials
}

/// From a revocation at the CA to the cut.
const CUT: Duration = Duration::from_secs(2);

/// Attack 9: a revoked device keeps its live tunnel, or comes back.
fn edge_revoked(transport: Transport) {
    let edge = format!("cut-{transport}");
    let (_server, mut pair) = with_ca(transport, &edge, "hd-1");
    let cut = revoke(Role::Edge, &edge, || !pair.is_connected());
    eprintln!("{transport}: {cut:?} from `ca revoke` to the cut");
    pair.headend
        .wait_record("the revocation", |r| r.kind == Kind::Revoked);
    // Refused on the way back, and it knows why.
    pair.edge.wait_that("the alarm", |edge| {
        edge.alarms().iter().any(|a| a == "certificate-revoked")
    });
    assert!(!pair.is_connected());
}

fn headend_revoked(transport: Transport) {
    let headend = format!("hd-cut-{transport}");
    let (_server, pair) = with_ca(transport, "press-07", &headend);
    let cut = revoke(Role::Headend, &headend, || tunnels(&pair.edge) == 0);
    eprintln!("{transport}: {cut:?} from `ca revoke` to the cut");
    pair.edge
        .wait_record("the revocation", |r| r.kind == Kind::Revoked);
}

/// The edge was off while the list changed: it gets the new one before anything crosses.
fn stale_edge(transport: Transport) {
    let site = Site::shared();
    let mut pair = Setup::new(transport).prepare();
    let list = |agent: &Agent| fs::read_to_string(agent.state().join("trust/list.pem")).unwrap();
    let other = format!("other-{transport}");
    site.identity(Role::Edge, &other);
    let crl = site.revoke(Role::Edge, &other);
    pair.headend.install_crl(&crl);
    assert_ne!(list(&pair.edge), list(&pair.headend));
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    // In force before anything crosses, on the disk some time later.
    assert_eq!(pair.headend.status()["tunnels"][0]["same_trust"], true);
    write_one(&mut pair.client(), 40, 7);
    within(SOON, "the edge's disk to have it", || {
        list(&pair.edge) == list(&pair.headend)
    });

    // And later ones over the live tunnel, which stays.
    let another = format!("another-{transport}");
    site.identity(Role::Edge, &another);
    let crl = site.revoke(Role::Edge, &another);
    pair.headend.install_crl(&crl);
    within(SOON, "the edge to have it", || {
        list(&pair.edge) == list(&pair.headend)
    });
    within(SOON, "the headend to know", || {
        pair.headend.status()["tunnels"][0]["same_trust"] == true
    });
    assert_eq!(pair.edge.audit_kind(Kind::TunnelUp).len(), 1);
}

fn slow_disk(transport: Transport) {
    let site = Site::shared();
    let mut pair = Setup::new(transport).up();
    let list = |agent: &Agent| fs::read_to_string(agent.state().join("trust/list.pem")).unwrap();
    let other = format!("waits-{transport}");
    site.identity(Role::Edge, &other);
    let crl = site.revoke(Role::Edge, &other);
    let before = list(&pair.edge);
    let edge_disk = pair.edge.hold_disk();
    pair.headend.install_crl(&crl);
    pair.edge.wait_record("the list", |r| {
        let reason = r.reason.as_deref();
        r.kind == Kind::Reload && reason.is_some_and(|text| text.starts_with("trust list: "))
    });
    // It is in force and waits for the disk; both are to read there, too.
    let headend_disk = pair.headend.hold_disk();
    pair.headend.process().hang_up();
    let file = File::options()
        .write(true)
        .open(pair.edge.state().join("trust/list.pem"));
    file.unwrap().set_modified(SystemTime::now()).unwrap();

    polls_go_on(&pair);
    assert_eq!(list(&pair.edge), before);

    drop((edge_disk, headend_disk));
    within(SOON, "the edge's disk to have it", || {
        list(&pair.edge) == list(&pair.headend)
    });
    assert_eq!(pair.headend.status()["tunnels"][0]["same_trust"], true);
    assert_eq!(pair.edge.audit_kind(Kind::TunnelUp).len(), 1);
}

/// While the disk of an agent stands still.
pub(crate) fn polls_go_on(pair: &Pair) {
    let mut client = pair.client();
    let begun = Instant::now();
    while begun.elapsed() < STANDSTILL {
        let asked = Instant::now();
        read_registers(&mut client, 0, 10);
        let took = asked.elapsed();
        assert!(took < POLL_AT_MOST, "a poll took {took:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Longer than a tunnel is kept of which nothing is heard.
const STANDSTILL: Duration = Duration::from_secs(5);
/// What a busy test machine may make of a millisecond.
const POLL_AT_MOST: Duration = Duration::from_millis(500);

fn edge_renews(transport: Transport) {
    let edge = format!("renew-{transport}");
    let identity = Site::shared().identity_between(Role::Edge, &edge, -60, 15);
    let (_server, pair) = renewing(transport, &edge, "hd-1", Role::Edge, &identity);
    writes_go_on_while(&pair, || is_renewed(&pair.edge, &identity));
    within(SOON, "the earlier pair to be gone", || {
        !pair.edge.state().join("identity/previous").exists()
    });
    assert_eq!(pair.edge.alarms(), [""; 0]);
}

fn headend_renews(transport: Transport) {
    let headend = format!("hd-renew-{transport}");
    let identity = Site::shared().identity_between(Role::Headend, &headend, -60, 15);
    let (_server, mut pair) = renewing(transport, "press-07", &headend, Role::Headend, &identity);
    writes_go_on_while(&pair, || is_renewed(&pair.headend, &identity));
    // Whoever comes next sees the new one, and that proves it.
    pair.edge.kill();
    pair.edge.start();
    pair.wait_up();
    within(SOON, "the earlier pair to be gone", || {
        !pair.headend.state().join("identity/previous").exists()
    });
}

/// The edge renews under an issuing CA that its headend does not know: no tunnel comes up with the
/// new certificate, and after a minute the earlier one is in force again. The tunnel stays.
fn taken_back() {
    let site = Site::new();
    let server = site.serve();
    let due = site.identity_between(Role::Edge, "press-07", -60, 15);
    let pair = Setup::new(Transport::Tls)
        .answer_within("5s")
        .edge(&format!("[ca]\naddress = [\"{}\"]\n", server.address))
        .prepare();
    let mut pair = of_site(&site, pair);
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();

    let request = site.unlocked_command(&[&"issuing", &"new"]);
    let request = pair.directory.write("next.csr", &request).unwrap();
    let signed = site.root_command("sign", &[&request], "root");
    let signed = pair.directory.write("next.pem", &signed).unwrap();
    let mark = site.unlocked_command(&[&"issuing", &"add", &signed]);
    site.ca_command(&[&"issuing", &"use", &mark.trim()]);

    replace_identity(&pair.edge, &due);
    writes_go_on_while(&pair, || is_renewed(&pair.edge, &due));
    within(Duration::from_secs(90), "the way back", || {
        !is_renewed(&pair.edge, &due)
    });
    // It dials anew with the earlier one.
    pair.wait_served();
    write_one(&mut pair.client(), 40, 7);
    pair.edge.wait_that("the alarm", |edge| {
        edge.alarms().iter().any(|a| a == "renewal-failed")
    });
}

/// A box that was off for longer than its certificate lived comes back without a visit.
fn expired_edge() {
    let identity = Site::shared().identity_between(Role::Edge, "slept-07", -60, -10);
    let (_server, mut pair) = prepared(Transport::Auto, "slept-07", "hd-1");
    replace_identity(&pair.edge, &identity);
    pair.headend.start();
    pair.headend.wait_ready();
    pair.edge.start();
    pair.wait_up();
    write_one(&mut pair.client(), 40, 7);
}

/// Attack 11: the CA can't be reached until its list is past its date. Within the grace there is an
/// alarm and traffic; after it no new tunnel.
fn stale_lists() {
    // A CA whose lists are good for a day, and agents whose clocks are ahead of it.
    let site = Site::new();
    for (time, works) in [("+40d", true), ("+70d", false)] {
        let (_server, mut pair) = own_site(&site, Transport::Auto);
        for agent in [&mut pair.edge, &mut pair.headend] {
            clock::set(agent, time);
        }
        pair.headend.start();
        pair.edge.start();
        if works {
            pair.wait_up();
            write_one(&mut pair.client(), 40, 7);
            for agent in [&pair.edge, &pair.headend] {
                let alarms = agent.alarms();
                let raised = alarms.iter().any(|alarm| alarm.starts_with("crl-expired"));
                assert!(raised, "{alarms:?}");
            }
        } else {
            let refused = pair
                .headend
                .wait_record("the refusal", |r| r.kind == Kind::TunnelRefused);
            let reason = refused.reason.unwrap();
            assert!(
                reason.contains("too old") || reason.contains("the other side's log says why"),
                "{reason}"
            );
            assert!(!pair.is_connected());
        }
    }
}

/// A new root, an issuing CA below it, and both agents renewed under it, while writes go on.
fn turn_over(transport: Transport) {
    let site = Site::new();
    let (server, mut pair) = own_site(&site, transport);
    // Made by the old CA, and due for renewal at once.
    let due = [(Role::Edge, "press-07"), (Role::Headend, "hd-1")]
        .map(|(role, name)| site.identity_between(role, name, -60, 15));
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();

    next_root(&site, &pair);
    // Two roots, a link, an issuing CA.
    writes_go_on_while(&pair, || {
        authorities(&pair.edge) == 4 && authorities(&pair.headend) == 4
    });

    let mark = next_issuing(&site, &pair);
    writes_go_on_while(&pair, || {
        authorities(&pair.edge) == 5 && authorities(&pair.headend) == 5
    });

    site.ca_command(&[&"issuing", &"use", &mark]);
    let [edge, headend] = &due;
    replace_identity(&pair.edge, edge);
    writes_go_on_while(&pair, || is_renewed(&pair.edge, edge));
    replace_identity(&pair.headend, headend);
    writes_go_on_while(&pair, || is_renewed(&pair.headend, headend));
    for agent in [&mut pair.edge, &mut pair.headend] {
        agent.kill();
        agent.start();
    }
    pair.wait_up();
    write_one(&mut pair.client(), 40, 7);

    // A token names the new root, and the server shows it.
    let token = site.token("edge", "late-07", server.address);
    let joined = enroll::join(&pair.directory.join("late"), &token);
    assert!(joined.status.success(), "{}", binary::text(&joined));

    // The old one has leaves that are valid yet.
    let list = site.ca_command(&[&"issuing", &"list"]);
    let old = list.lines().find(|line| line.contains("trusted")).unwrap();
    let old = old.split_whitespace().next().unwrap();
    let drop: [&dyn AsRef<std::ffi::OsStr>; 6] =
        [&"ca", &"issuing", &"drop", &old, &"--dir", &site.ca()];
    let refused = binary::text(&binary::run(&drop));
    assert!(refused.contains("press-07"), "{refused}");
}

/// Root and issuing CA turn over and the headend gets a certificate of the next, while an edge is off.
/// It knows neither, and hears of both from the CA, through the headend.
fn off_meanwhile() {
    let site = Site::new();
    let (_server, mut pair) = own_site(&site, Transport::Auto);
    let due = site.identity_between(Role::Headend, "hd-1", -60, 15);
    pair.headend.start();
    pair.headend.wait_ready();
    next_root(&site, &pair);
    let mark = next_issuing(&site, &pair);
    within(SOON, "the headend to know them", || {
        authorities(&pair.headend) == 5
    });
    site.ca_command(&[&"issuing", &"use", &mark]);
    replace_identity(&pair.headend, &due);
    within(SOON, "the headend to renew", || {
        is_renewed(&pair.headend, &due)
    });
    pair.edge.start();
    within(Duration::from_secs(40), "the edge to follow", || {
        pair.is_connected()
    });
    write_one(&mut pair.client(), 40, 7);
}

/// A new root beside the first; agents that follow the CA hear of it.
fn next_root(site: &Site, pair: &Pair) {
    let root2 = site.root_command("new", &[&"--root-out", &site.path("root2")], "root");
    let root2 = pair.directory.write("root2.pem", &root2).unwrap();
    site.ca_command(&[&"root", &"add", &root2]);
}

/// An issuing CA below it, not in use yet; its mark.
fn next_issuing(site: &Site, pair: &Pair) -> String {
    let request = site.unlocked_command(&[&"issuing", &"new"]);
    let request = pair.directory.write("next.csr", &request).unwrap();
    let signed = site.root_command("sign", &[&request], "root2");
    let signed = pair.directory.write("next.pem", &signed).unwrap();
    let mark = site.unlocked_command(&[&"issuing", &"add", &signed]);
    mark.trim().to_owned()
}

/// Attack 7: the issuing CA's key is stolen. The root's CRL takes everything under it out.
fn issuing_revoked() {
    let site = Site::new();
    let (_server, mut pair) = own_site(&site, Transport::Auto);
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let list = site.ca_command(&[&"issuing", &"list"]);
    let mark = list.split_whitespace().next().unwrap().to_owned();
    site.unlocked_command(&[
        &"root",
        &"crl",
        &"--root",
        &site.path("root"),
        &"--revoke",
        &mark,
        &"--reason",
        &"key-compromise",
    ]);
    within(CUT, "every tunnel to be cut", || !pair.is_connected());
    pair.headend
        .wait_record("the revocation", |r| r.kind == Kind::Revoked);
}

/// Agents of a site of the test's own, and its CA.
pub(crate) fn own_site(site: &Site, transport: Transport) -> (fieldlock_tests::CaServer, Pair) {
    let server = site.serve();
    let pair = Setup::new(transport)
        .answer_within("5s")
        .headend(&format!("[ca]\naddress = \"{}\"\n", server.address))
        .prepare();
    (server, of_site(site, pair))
}

/// Gives both agents identities of `site`.
fn of_site(site: &Site, pair: Pair) -> Pair {
    for (agent, role, name) in [
        (&pair.edge, Role::Edge, "press-07"),
        (&pair.headend, Role::Headend, "hd-1"),
    ] {
        fs::remove_dir_all(agent.state()).unwrap();
        site.install(role, name, &agent.state());
    }
    pair
}

/// How many CA certificates an agent trusts.
fn authorities(agent: &Agent) -> usize {
    let list = fs::read_to_string(agent.state().join("trust/list.pem")).unwrap();
    list.matches("BEGIN CERTIFICATE").count()
}

/// Attack 1: a box is stolen and its state copied; one command locks both out, and the box that
/// was not stolen goes on.
fn stolen_box() {
    let (_server, mut pair) = with_ca(Transport::Auto, "stolen-07", "hd-1");
    let copy = pair.directory.join("copy");
    let copied = std::process::Command::new("cp")
        .args(["-a"])
        .arg(pair.edge.state())
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    revoke(Role::Edge, "stolen-07", || !pair.is_connected());
    pair.edge.kill();
    // The thief's copy does not know of it yet, and is told.
    fs::remove_dir_all(pair.edge.state()).unwrap();
    fs::rename(&copy, pair.edge.state()).unwrap();
    let before = pair.headend.audit_kind(Kind::TunnelRefused).len();
    pair.edge.start();
    within(SOON, "the copy to be refused", || {
        pair.headend.audit_kind(Kind::TunnelRefused).len() > before
    });
    assert!(!pair.is_connected());
}

pub(crate) fn prepared(
    transport: Transport,
    edge: &str,
    headend: &str,
) -> (fieldlock_tests::CaServer, Pair) {
    let server = Site::shared().serve();
    let pair = Setup::new(transport)
        .named(edge, headend)
        .answer_within("5s")
        .headend(&format!("[ca]\naddress = \"{}\"\n", server.address))
        .prepare();
    (server, pair)
}

fn with_ca(transport: Transport, edge: &str, headend: &str) -> (fieldlock_tests::CaServer, Pair) {
    let (server, mut pair) = prepared(transport, edge, headend);
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    (server, pair)
}

/// One of the two starts with a certificate that is due at once.
fn renewing(
    transport: Transport,
    edge: &str,
    headend: &str,
    role: Role,
    identity: &Path,
) -> (fieldlock_tests::CaServer, Pair) {
    let (server, mut pair) = prepared(transport, edge, headend);
    match role {
        Role::Edge => replace_identity(&pair.edge, identity),
        Role::Headend => replace_identity(&pair.headend, identity),
    }
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    (server, pair)
}

pub(crate) fn replace_identity(agent: &Agent, identity: &Path) {
    for file in ["identity/key.pem", "identity/chain.pem"] {
        fs::copy(identity.join(file), agent.state().join(file)).unwrap();
    }
}

pub(crate) fn is_renewed(agent: &Agent, identity: &Path) -> bool {
    let chain = |state: &Path| fs::read(state.join("identity/chain.pem")).unwrap();
    chain(&agent.state()) != chain(identity)
}

/// No write fails before, while and after the certificate changes.
fn writes_go_on_while(pair: &Pair, renewed: impl Fn() -> bool) {
    let mut client = pair.client();
    let mut value = 0;
    let mut write = || {
        value = (value + 1) % 1000;
        write_one(&mut client, 40, value);
    };
    wait_until("the renewal", SOON, || {
        write();
        renewed()
    })
    .unwrap();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        write();
    }
}

/// Time from the start of the command until `cut` holds.
fn revoke(role: Role, name: &str, cut: impl FnMut() -> bool) -> Duration {
    let command = Instant::now();
    Site::shared().revoke(role, name);
    within(CUT, "the cut", cut);
    command.elapsed()
}

fn tunnels(edge: &Agent) -> usize {
    let status = edge.status();
    let headends = status["headends"].as_array().unwrap();
    let tunnels = |headend: &serde_json::Value| headend["tunnels"].as_array().unwrap().len();
    headends.iter().map(tunnels).sum()
}
