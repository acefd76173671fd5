//! Certificates and offers that a headend refuses.

use fieldlock_audit::Kind;
use fieldlock_session::frame::CONTROL;
use fieldlock_session::{ALPN, Frame};
use fieldlock_tests::answers::{NO_PATH, expect_exception, read_one, read_registers};
use fieldlock_tests::rogue::{Credentials, Early, Face, Returning, Rogue, RogueHeadend, hello};
use fieldlock_tests::trial::both;
use fieldlock_tests::{DEVICE, EDGE, HEADEND, Pair, Role, SOON, Setup, Site, Transport};
use libtest_mimic::Trial;
use rustls::NamedGroup;

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("negative::headend_refuses_no_certificate", no_certificate),
        both("negative::headend_refuses_another_ca", another_ca),
        both("negative::headend_refuses_expired", expired),
        both("negative::headend_refuses_not_yet_valid", not_yet_valid),
        both("negative::headend_refuses_revoked", revoked),
        both(
            "negative::each_reason_and_identity_from_one_address_is_on_record",
            told_apart,
        ),
        both("attacks::a10_revoked_edge_resumes_a_session", resumes),
        both("negative::headend_refuses_a_headend", headend_as_edge),
        both("negative::headend_refuses_no_alpn", no_alpn),
        both(
            "negative::headend_refuses_keys_that_are_not_post_quantum",
            classical,
        ),
        both("negative::headend_refuses_another_alpn", another_alpn),
        both("negative::device_bound_to_another_edge", bound_to_another),
        both("negative::device_bound_to_no_edge", bound_to_none),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn no_certificate(transport: Transport) {
    let face = Face {
        group: None,
        credentials: None,
        alpn: vec![ALPN.to_vec()],
    };
    refuses(transport, face, "no certificate");
}

fn another_ca(transport: Transport) {
    // The same site, the same names, another key.
    let other = Site::new();
    let face = Face::of(Credentials::installed(&other.identity(Role::Edge, EDGE)));
    refuses(transport, face, "not trusted here");
}

fn expired(transport: Transport) {
    let issued = Site::shared().issued_between(Role::Edge, EDGE, -4, -1);
    refuses(transport, Face::of(Credentials::issued(&issued)), "expired");
}

fn not_yet_valid(transport: Transport) {
    let issued = Site::shared().issued_between(Role::Edge, EDGE, 60, 120);
    let face = Face::of(Credentials::issued(&issued));
    refuses(transport, face, "not valid yet");
}

fn revoked(transport: Transport) {
    let site = Site::shared();
    let name = format!("edge-revoked-{transport}");
    let identity = site.identity(Role::Edge, &name);
    let crl = site.revoke(Role::Edge, &name);
    let pair = Setup::new(transport).prepare();
    pair.headend.install_crl(&crl);
    let face = Face::of(Credentials::installed(&identity));
    refuses_at(pair, transport, face, "revoked");
}

/// Many refusals of many kinds from one address: no kind vanishes among others, and of certificates
/// that our CA issued each is named.
fn told_apart(transport: Transport) {
    let site = Site::shared();
    let names = ["told-1", "told-2"].map(|name| format!("{name}-{transport}"));
    let mut pair = Setup::new(transport).prepare();
    let revoked = names.clone().map(|name| {
        let identity = site.identity(Role::Edge, &name);
        pair.headend.install_crl(&site.revoke(Role::Edge, &name));
        identity
    });
    pair.headend.start();
    pair.headend.wait_ready();
    let nobody = || Face {
        group: None,
        credentials: None,
        alpn: vec![ALPN.to_vec()],
    };
    let headend = site.identity(Role::Headend, HEADEND);
    let dial = |face: Face| {
        if let Ok(mut rogue) = Rogue::dial(transport, pair.tunnel, face) {
            let _ = rogue.send(CONTROL, &Frame::Hello(&hello(&[DEVICE]).encode()));
            assert!(rogue.receive(CONTROL).is_err());
        }
    };
    for _ in 0..4 {
        (0..4).for_each(|_| dial(nobody()));
        let faces = revoked.iter().chain([&headend]);
        faces.for_each(|identity| dial(Face::of(Credentials::installed(identity))));
    }
    pair.headend.terminate();
    let refused = pair.headend.audit_kind(Kind::TunnelRefused);
    let total: u64 = refused.iter().map(|record| record.count.unwrap_or(1)).sum();
    assert_eq!(total, 4 * (4 + 3), "{refused:?}");
    let of = |identity: Option<&str>, reason: &str| {
        let record = refused.iter().find(|record| {
            let client = record.client.as_deref().unwrap();
            let said = record.reason.as_deref().unwrap_or_default();
            client.identity.as_deref() == identity && said.contains(reason)
        });
        let record = record.unwrap_or_else(|| panic!("{identity:?} {reason}: {refused:?}"));
        assert_eq!(
            record.client.as_deref().unwrap().serial.is_some(),
            identity.is_some()
        );
        let plain = record.reason.as_deref().unwrap_or_default();
        assert!(
            !plain.contains("Other(") && !plain.contains("error 4"),
            "{plain}"
        );
    };
    of(None, "shows no certificate");
    for name in &names {
        let identity = format!("spiffe://plant1.example/edge/{name}");
        of(Some(&identity), "its certificate is revoked");
    }
    let identity = format!("spiffe://plant1.example/headend/{HEADEND}");
    of(Some(&identity), "client authentication");
}

/// Attack 10: an edge that was let in keeps what it has of sessions, and comes back once it is
/// revoked. Another server gives it a session that it does resume: it is the headend that has none.
fn resumes(transport: Transport) {
    let site = Site::shared();
    let name = format!("resumes-{transport}");
    let identity = site.identity(Role::Edge, &name);
    let face = || Face::of(Credentials::installed(&identity));
    let mut pair = Setup::new(transport).named(&name, HEADEND).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    let returning = Returning::new(face());
    let mut first = returning.dial(transport, pair.tunnel).unwrap();
    first.greet(&hello(&[DEVICE])).unwrap();
    pair.headend
        .wait_record("the tunnel", |r| r.kind == Kind::TunnelUp);
    // What it was given it would send early data with.
    let early = returning.early(transport, pair.tunnel, b"again");
    assert_eq!(early, Ok(Early::NoSession));
    let (other, sessions) = RogueHeadend::inviting(transport, face());
    let _session = returning.visit(transport, &other);
    assert!(sessions.given() > 0);

    let crl = site.revoke(Role::Edge, &name);
    pair.headend.install_crl(&crl);
    first.wait_close(SOON).unwrap();
    let dialled = returning.dial(transport, pair.tunnel);
    is_refused(&pair, transport, dialled, "revoked");
}

fn headend_as_edge(transport: Transport) {
    let identity = Site::shared().identity(Role::Headend, HEADEND);
    let face = Face::of(Credentials::installed(&identity));
    // By the extended key usage, before the role in the URI is looked at.
    refuses(transport, face, "client authentication");
}

fn no_alpn(transport: Transport) {
    // On QUIC the TLS library insists by itself (RFC 9001, section 8.1).
    let reason = match transport {
        Transport::Quic => "(ALPN)",
        _ => "no ALPN",
    };
    refuses(transport, with_alpn(&[]), reason);
}

fn another_alpn(transport: Transport) {
    refuses(transport, with_alpn(&[b"fieldlock/0", b"h3"]), "(ALPN)");
}

fn with_alpn(alpn: &[&[u8]]) -> Face {
    let identity = Site::shared().identity(Role::Edge, EDGE);
    Face {
        group: None,
        credentials: Some(Credentials::installed(&identity)),
        alpn: alpn.iter().map(|protocol| protocol.to_vec()).collect(),
    }
}

/// Where it is told to; the edge of the pair has the group.
fn classical(transport: Transport) {
    let identity = Site::shared().identity(Role::Edge, EDGE);
    let face = Face {
        group: Some(NamedGroup::X25519),
        ..Face::of(Credentials::installed(&identity))
    };
    let pair = Setup::new(transport)
        .headend("[trust]\nkey_exchange = \"post-quantum\"\n")
        .edge("[trust]\nkey_exchange = \"post-quantum\"\n")
        .prepare();
    refuses_at(pair, transport, face, "key exchange");
}

fn refuses(transport: Transport, face: Face, reason: &str) {
    refuses_at(Setup::new(transport).prepare(), transport, face, reason);
}

/// Dials the headend, which must refuse with a word on record, and go on serving.
#[track_caller]
fn refuses_at(mut pair: Pair, transport: Transport, face: Face, reason: &str) {
    pair.headend.start();
    pair.headend.wait_ready();
    let dialled = Rogue::dial(transport, pair.tunnel, face);
    is_refused(&pair, transport, dialled, reason);
    assert!(pair.headend.audit_kind(Kind::TunnelUp).is_empty());
    pair.edge.start();
    pair.wait_up();
    read_registers(&mut pair.client(), 0, 1);
}

#[track_caller]
fn is_refused(pair: &Pair, transport: Transport, dialled: Result<Rogue, String>, reason: &str) {
    if let Ok(mut rogue) = dialled {
        // A TLS 1.3 client hears of its refusal only now.
        let sent = rogue.send(CONTROL, &Frame::Hello(&hello(&[DEVICE]).encode()));
        let answer = sent.and_then(|()| rogue.receive(CONTROL));
        assert!(answer.is_err(), "the headend talks: {answer:02x?}");
    }
    let record = pair
        .headend
        .wait_record(&format!("refusal because of {reason:?}"), |r| {
            let said = r.reason.as_deref().unwrap_or_default().to_lowercase();
            r.kind == Kind::TunnelRefused && said.contains(&reason.to_lowercase())
        });
    assert_eq!(record.transport.as_deref(), Some(&*transport.to_string()));
    assert_eq!(
        pair.headend.status()["tunnels"].as_array().unwrap().len(),
        0
    );
}

fn bound_to_another(transport: Transport) {
    let pair = Setup::new(transport).prepare();
    let bound = format!("edge = \"{EDGE}\"");
    assert!(pair.headend_config.contains(&bound));
    let config = pair.headend_config.replace(&bound, "edge = \"press-08\"");
    pair.headend.write_config(&config);
    not_bound(pair);
}

fn bound_to_none(transport: Transport) {
    let extra = "[[device]]\nname = \"stranger\"\nmodbus_tcp = { address = \"127.0.0.1:9\" }";
    not_bound(Setup::new(transport).edge(extra).prepare());
}

/// The whole hello is refused, not only the device: audited at both ends, 0x0A for clients.
#[track_caller]
fn not_bound(mut pair: Pair) {
    pair.headend.start();
    pair.headend.wait_ready();
    pair.edge.start();
    for agent in [&pair.headend, &pair.edge] {
        agent.wait_record("the refusal", |r| {
            let reason = r.reason.as_deref().unwrap_or_default();
            r.kind == Kind::TunnelRefused
                && reason.contains("device-not-bound")
                && reason.contains("is not bound to edge")
        });
        assert!(agent.audit_kind(Kind::TunnelUp).is_empty());
    }
    assert!(!pair.is_connected());
    expect_exception(&mut pair.client(), &read_one(0), NO_PATH);
    assert_eq!(pair.plc().requests(), 0);
}
