//! Headends that an edge refuses, and states of the disk with which no agent starts.

use fieldlock_testkit::process::Directory;
use fieldlock_tests::rogue::{Credentials, Face, RogueHeadend};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{
    Agent, EDGE, HEADEND, OPEN_POLICY, Pair, Role, Setup, Site, Transport, eventually,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("negative::edge_refuses_another_name", another_name),
        both("attacks::a24_an_edge_as_headend", edge_as_headend),
        both("negative::edge_refuses_another_ca", another_ca),
        both("negative::edge_refuses_expired", expired),
        both("negative::edge_refuses_revoked", revoked),
        both("negative::edge_refuses_no_alpn", no_alpn),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(test("negative::no_crl_no_start", no_crl));
    trials.push(test("negative::certificate_of_another_role_no_start", role));
    trials
}

fn another_name(transport: Transport) {
    let identity = Site::shared().identity(Role::Headend, "hd-2");
    refuses(transport, Credentials::installed(&identity), "name");
}

fn edge_as_headend(transport: Transport) {
    let identity = Site::shared().identity(Role::Edge, HEADEND);
    let reason = "server authentication";
    refuses(transport, Credentials::installed(&identity), reason);
}

fn another_ca(transport: Transport) {
    let other = Site::new();
    let identity = other.identity(Role::Headend, HEADEND);
    refuses(
        transport,
        Credentials::installed(&identity),
        "not trusted here",
    );
}

fn expired(transport: Transport) {
    let issued = Site::shared().issued_between(Role::Headend, HEADEND, -4, -1);
    refuses(transport, Credentials::issued(&issued), "expired");
}

fn revoked(transport: Transport) {
    let site = Site::shared();
    let name = format!("hd-revoked-{transport}");
    let credentials = Credentials::installed(&site.identity(Role::Headend, &name));
    let crl = site.revoke(Role::Headend, &name);
    let pair = Setup::new(transport).named(EDGE, &name).prepare();
    pair.edge.install_crl(&crl);
    refuses_at(pair, transport, Face::of(credentials), "revoked");
}

fn no_alpn(transport: Transport) {
    let identity = Site::shared().identity(Role::Headend, HEADEND);
    let face = Face {
        group: None,
        credentials: Some(Credentials::installed(&identity)),
        alpn: Vec::new(),
    };
    let reason = match transport {
        Transport::Quic => "(ALPN)",
        _ => "no ALPN",
    };
    refuses_at(Setup::new(transport).prepare(), transport, face, reason);
}

fn refuses(transport: Transport, credentials: Credentials, reason: &str) {
    let pair = Setup::new(transport).prepare();
    refuses_at(pair, transport, Face::of(credentials), reason);
}

/// An edge that dials a headend with this face says so, and says nothing to it.
#[track_caller]
fn refuses_at(mut pair: Pair, transport: Transport, face: Face, reason: &str) {
    let rogue = RogueHeadend::listen(transport, face);
    let config = pair
        .edge_config
        .replace(&pair.tunnel.to_string(), &rogue.address.to_string());
    pair.edge.write_config(&config);
    pair.edge.start();
    pair.edge.wait_ready();
    if let Ok(mut accepted) = rogue.accept() {
        let said = accepted.receive(0);
        assert!(said.is_err(), "the edge talks to a stranger: {said:02x?}");
    }
    let last_error = || {
        let status = pair.edge.status();
        let error = status["headends"][0]["last_error"].as_str();
        error.unwrap_or_default().to_owned()
    };
    eventually("the edge to say why", || !last_error().is_empty());
    let said = last_error();
    assert!(
        said.to_lowercase().contains(&reason.to_lowercase()),
        "refused, but because of: {said}"
    );
    let tunnels = &pair.edge.status()["headends"][0]["tunnels"];
    assert_eq!(tunnels.as_array().unwrap().len(), 0);
}

fn no_crl() {
    const BEGIN_CRL: &str = "-----BEGIN X509 CRL-----";
    for role in [Role::Edge, Role::Headend] {
        for crls in 0..=1 {
            let mut pair = Setup::new(Transport::Quic).prepare();
            let agent = match role {
                Role::Edge => &mut pair.edge,
                Role::Headend => &mut pair.headend,
            };
            let list = agent.state().join("trust/list.pem");
            let text = std::fs::read_to_string(&list).unwrap();
            let parts: Vec<_> = text.split(BEGIN_CRL).collect();
            std::fs::write(&list, parts[..=crls].join(BEGIN_CRL)).unwrap();
            refuses_to_start(agent, "needs exactly one CRL");
            std::fs::remove_file(&list).unwrap();
            refuses_to_start(agent, "fieldlock enroll");
        }
    }
}

fn role() {
    let directory = Directory::new().unwrap();
    let identity = Site::shared().identity(Role::Headend, HEADEND);
    let config = "[[headend]]\nname = \"hd-1\"\naddress = [\"127.0.0.1:9\"]\n\
                  [[device]]\nname = \"d\"\nmodbus_tcp = { address = \"127.0.0.1:9\" }";
    let mut agent = Agent::prepare(
        Role::Edge,
        "turncoat",
        directory.path(),
        &identity,
        config,
        OPEN_POLICY,
    );
    refuses_to_start(&mut agent, "role");
}

#[track_caller]
fn refuses_to_start(agent: &mut Agent, hint: &str) {
    let check = agent.check();
    assert!(!check.status.success(), "--check finds nothing");
    agent.start();
    let status = agent.wait_exit();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}");
    let log = agent.log();
    assert!(log.contains(hint), "no {hint:?} in: {log}");
}
