//! PROFINET stations in the tunnel: who may offer them, what their channels carry, and the second
//! connection that cyclic data have over TLS.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_session::frame::CONTROL;
use fieldlock_session::{CYCLIC_ALPN, Frame, Hello};
use fieldlock_tests::rig::{CONTROLLER_WIRE, DEVICE_WIRE};
use fieldlock_tests::rogue::{Credentials, Face, Rogue, hello};
use fieldlock_tests::trial::on_rig;
use fieldlock_tests::{DEVICE, EDGE, Pair, Role, Setup, Site, Transport, eventually};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::negative::hostile_headend::edge_of_a_rogue;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<_> = [
        both_among_agents("stations::both_ends_carry_them", both_ends_carry_them),
        both_among_agents(
            "stations::an_older_headend_serves_the_devices",
            older_headend,
        ),
        both_among_agents("stations::only_those_of_the_edge_are_taken", only_bound),
        both_among_agents("stations::channels_carry_nothing_else", nothing_else),
        both_among_agents("stations::another_list_is_another_hello", another_list),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.extend([
        among_agents("stations::a_token_admits_one_connection", tokens),
        among_agents("stations::a_lost_connection_comes_back", comes_back),
    ]);
    trials
}

/// An agent with stations opens an interface of its own.
fn among_agents(name: &str, run: fn()) -> Trial {
    on_rig(name, move |rig| rig.among_agents(run))
}

fn both_among_agents(name: &str, run: fn(Transport)) -> [Trial; 2] {
    [Transport::Quic, Transport::Tls].map(|transport| {
        let name = format!("{name}::{transport}");
        on_rig(&name, move |rig| rig.among_agents(|| run(transport)))
    })
}

const CONTROLLER: &str = "[[controller]]\nname = \"plc-1\"\nmac = \"02:00:00:00:00:01\"\n";

fn setup(transport: Transport) -> Setup {
    let stations = ["drive-1", "drive-2"];
    let of_edge: String = stations
        .map(|name| format!("[[station]]\nname = \"{name}\"\n"))
        .concat();
    let of_headend: String = stations
        .map(|name| format!("[[station]]\nname = \"{name}\"\nedge = \"{EDGE}\"\n"))
        .concat();
    Setup::new(transport)
        .edge(&format!("{}{of_edge}", wire(DEVICE_WIRE)))
        .headend(&format!(
            "{}{of_headend}{CONTROLLER}",
            wire(CONTROLLER_WIRE)
        ))
}

fn wire(interface: &str) -> String {
    format!("\n[profinet]\ninterface = \"{interface}\"\n")
}

fn with_stations(devices: &[&str], stations: &[&str]) -> Hello {
    Hello {
        stations: stations.iter().map(ToString::to_string).collect(),
        ..hello(devices)
    }
}

fn face(name: &str, alpn: &[u8]) -> Face {
    let identity = Site::shared().identity(Role::Edge, name);
    Face {
        alpn: vec![alpn.to_vec()],
        ..Face::of(Credentials::installed(&identity))
    }
}

fn headend(transport: Transport) -> Pair {
    let mut pair = setup(transport).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    pair
}

/// What an agent says of the stations of its tunnel.
fn carried(status: &Value) -> Option<u64> {
    let tunnel = match status["role"].as_str()? {
        "edge" => &status["headends"][0]["tunnels"][0],
        _ => &status["tunnels"][0],
    };
    tunnel["stations"]["carried"].as_u64()
}

fn max_datagram(status: &Value) -> u64 {
    let tunnel = match status["role"].as_str() {
        Some("edge") => &status["headends"][0]["tunnels"][0],
        _ => &status["tunnels"][0],
    };
    tunnel["stations"]["max_datagram"].as_u64().unwrap_or(0)
}

fn both_ends_carry_them(transport: Transport) {
    let mut pair = setup(transport).up();
    pair.wait_served();
    for agent in [&mut pair.edge, &mut pair.headend] {
        agent.wait_that("a way for cyclic data", |agent| {
            agent.try_status().is_some_and(|s| max_datagram(&s) > 1000)
        });
        assert_eq!(carried(&agent.status()), Some(2));
    }
    for (agent, wire) in [(&pair.edge, DEVICE_WIRE), (&pair.headend, CONTROLLER_WIRE)] {
        let output = agent.check();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wanted = format!("PROFINET on `{wire}` with 2 stations");
        assert!(said.contains(&wanted), "{said}");
    }
}

/// One that never heard of stations says nothing of them in its hello.
fn older_headend(transport: Transport) {
    let (mut pair, rogue) = edge_of_a_rogue(setup(transport), transport);
    let mut tunnel = rogue.tunnel().unwrap();
    let up = |edge: &fieldlock_tests::Agent| {
        let status = edge.try_status().unwrap_or_default();
        status["headends"][0]["tunnels"][0]["transport"].is_string()
    };
    pair.edge.wait_that("the tunnel", up);
    assert_eq!(carried(&pair.edge.status()), None);
    let close = Frame::ClientClose { client: 1 };
    tunnel.send(1, &close).unwrap();
    // Still there, for the device, and not for what was not agreed on.
    tunnel.send(1, &close).unwrap();
    if transport == Transport::Tls {
        tunnel.send(2, &Frame::Station(&[7; 60])).unwrap();
        tunnel.wait_close(Duration::from_secs(10)).unwrap();
    }
}

fn only_bound(transport: Transport) {
    let pair = headend(transport);
    for (devices, stations, reason) in [
        (&[][..], &["drive-1", "drive-3"][..], "station `drive-3`"),
        (&[DEVICE], &["drive-2", "pump-1"], "station `pump-1`"),
        (&["other"], &["drive-1"], "device `other`"),
    ] {
        let offer = with_stations(devices, stations);
        let face = face(EDGE, fieldlock_session::ALPN);
        let refused = Rogue::offer(transport, pair.tunnel, face, &offer);
        let text = refused.map(|_| ()).unwrap_err();
        assert!(text.starts_with("goodbye 3: "), "{text}");
        assert!(text.contains(reason), "{text}");
    }
    // Another edge has no part in them; stations alone are enough for the right one.
    let offer = with_stations(&[], &["drive-1"]);
    let other = face("press-08", fieldlock_session::ALPN);
    assert!(Rogue::offer(transport, pair.tunnel, other, &offer).is_err());
    let right = face(EDGE, fieldlock_session::ALPN);
    let (_tunnel, answer) = Rogue::offer(transport, pair.tunnel, right, &offer).unwrap();
    assert_eq!(answer.stations, offer.stations);
    assert_eq!(answer.cyclic.is_some(), transport == Transport::Tls);
    eventually("the tunnel", || carried(&pair.headend.status()) == Some(1));
}

fn nothing_else(transport: Transport) {
    let stray = Frame::Station(&[7; 60]);
    let answer = Frame::Answer {
        id: 1,
        outcome: fieldlock_session::Outcome::Answered,
        pdu: &[3, 2, 0, 0],
    };
    const UNKNOWN: &str = "not announced in the hello";
    // Over QUIC with a station alone: its stream is the one that the headend opens.
    let (devices, wrongs) = match transport {
        Transport::Quic => (
            &[][..],
            vec![
                (1, &answer, "which belongs to a station"),
                (2, &stray, UNKNOWN),
            ],
        ),
        _ => (
            &[DEVICE][..],
            vec![
                (1, &stray, "which belongs to a device"),
                (2, &answer, "which belongs to a station"),
                (3, &stray, UNKNOWN),
            ],
        ),
    };
    let offer = with_stations(devices, &["drive-1"]);
    let pair = headend(transport);
    for (index, (channel, frame, reason)) in wrongs.into_iter().enumerate() {
        let face = face(EDGE, fieldlock_session::ALPN);
        let (mut rogue, _) = Rogue::offer(transport, pair.tunnel, face, &offer).unwrap();
        eventually("the tunnel", || carried(&pair.headend.status()) == Some(1));
        if transport == Transport::Quic {
            rogue.accept_device().unwrap();
            assert_eq!(rogue.receive(1).unwrap(), encoded(1, &Frame::Station(&[])));
        }
        rogue.send(channel, frame).unwrap();
        rogue.wait_close(Duration::from_secs(10)).unwrap();
        let mut said = String::new();
        eventually("a record", || {
            let downs = pair.headend.audit_kind(Kind::TunnelDown);
            let reason = downs.get(index).and_then(|record| record.reason.clone());
            said = reason.unwrap_or_default().into_owned();
            !said.is_empty()
        });
        assert!(said.contains(reason), "{channel}: {said}");
    }
}

fn encoded(channel: u16, frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(channel, &mut bytes);
    bytes
}

/// While both run: the edge dials anew with it, and the headend judges it by its own new file.
fn another_list(transport: Transport) {
    let mut pair = setup(transport).up();
    let third = "[[station]]\nname = \"drive-3\"\n";
    let bound = format!("{third}edge = \"{EDGE}\"\n");
    let config = format!("{}{bound}", pair.headend_config);
    pair.headend.write_config(&config);
    eventually("the headend's file to be taken", || {
        pair.headend.log().contains("configuration")
    });
    let config = format!("{}{third}", pair.edge_config);
    pair.edge.write_config(&config);
    for agent in [&mut pair.edge, &mut pair.headend] {
        agent.wait_that("three stations", |agent| {
            agent.try_status().as_ref().and_then(carried) == Some(3)
        });
    }
    pair.wait_served();
}

fn tokens() {
    let transport = Transport::Tls;
    let pair = headend(transport);
    let offer = with_stations(&[], &["drive-1"]);
    let right = || face(EDGE, fieldlock_session::ALPN);
    let (tunnel, answer) = Rogue::offer(transport, pair.tunnel, right(), &offer).unwrap();
    let tunnel = keep_alive(tunnel);
    let token = answer.cyclic.unwrap();
    eventually("the tunnel", || carried(&pair.headend.status()) == Some(1));
    let dial = |name: &str, token: &[u8]| {
        let mut rogue = Rogue::dial(transport, pair.tunnel, face(name, CYCLIC_ALPN))?;
        rogue.send_bytes(CONTROL, token)?;
        let welcome = rogue.octets(2)?;
        assert_eq!(welcome, [0, 0]);
        Ok::<_, String>(rogue)
    };
    let refusals = || pair.headend.audit_kind(Kind::TunnelRefused).len();
    // No token, another one, and the right one in other hands.
    for (name, wrong) in [(EDGE, [0; 16]), (EDGE, [0x5a; 16]), ("press-08", token)] {
        let before = refusals();
        assert!(dial(name, &wrong).is_err());
        eventually("a refusal on record", || refusals() > before);
    }
    let way = || max_datagram(&pair.headend.status());
    assert_eq!(way(), 0);
    // The newer takes the place of the older, which ends.
    let mut first = dial(EDGE, &token).unwrap();
    eventually("a way for cyclic data", || way() > 1000);
    let mut second = dial(EDGE, &token).unwrap();
    assert!(first.octets(1).is_err());
    // A datagram that is too long ends it, and not the tunnel.
    second.send_bytes(CONTROL, &[0xff, 0xff]).unwrap();
    assert!(second.octets(1).is_err());
    eventually("no way for cyclic data", || way() == 0);
    let mut third = dial(EDGE, &token).unwrap();
    eventually("a way again", || way() > 1000);
    third
        .send_bytes(CONTROL, &[0, 3, 1, 2, 3, 0, 0, 0, 1, 9])
        .unwrap();
    eventually("two datagrams", || {
        let status = pair.headend.status();
        let counters = &status["tunnels"][0]["stations"]["counters"];
        counters["datagrams_received"] == 2
    });
    // With the tunnel its second connection ends, and its token is worth nothing.
    drop(tunnel);
    assert!(third.octets(1).is_err());
    assert!(dial(EDGE, &token).is_err());
}

fn comes_back() {
    let transport = Transport::Tls;
    let (mut pair, rogue) = edge_of_a_rogue(setup(transport), transport);
    let answer = Hello {
        cyclic: Some([7; 16]),
        ..with_stations(&[], &["drive-1", "drive-2"])
    };
    let _tunnel = keep_alive(rogue.answer(&answer).unwrap());
    for _ in 0..3 {
        let mut cyclic = rogue.accept().unwrap();
        assert_eq!(cyclic.octets(16).unwrap(), [7; 16]);
        cyclic.send_bytes(CONTROL, &[0, 0]).unwrap();
        let way = |edge: &fieldlock_tests::Agent| {
            let status = edge.try_status();
            status.is_some_and(|status| max_datagram(&status) > 1000)
        };
        pair.edge.wait_that("a way for cyclic data", way);
        drop(cyclic);
        let none = |edge: &fieldlock_tests::Agent| {
            let status = edge.try_status();
            status.is_some_and(|status| max_datagram(&status) == 0)
        };
        pair.edge.wait_that("the loss to be noticed", none);
    }
    let tunnels = pair.edge.audit_kind(Kind::TunnelUp).len();
    assert_eq!(tunnels, 1, "the tunnel was lost, too");
}

/// Pings until the sender is dropped, and the tunnel with it.
fn keep_alive(mut tunnel: Rogue) -> Sender<()> {
    let (alive, ended) = mpsc::channel();
    thread::spawn(move || {
        while ended.recv_timeout(Duration::from_millis(300)) == Err(RecvTimeoutError::Timeout) {
            let _ = tunnel.send(CONTROL, &Frame::Ping(1));
        }
    });
    alive
}
