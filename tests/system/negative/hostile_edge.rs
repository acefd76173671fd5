//! An edge with a good certificate that breaks the protocol. The headend ends its tunnel and
//! nothing else.

use std::time::Duration;

use fieldlock_audit::{Kind, Outcome as Recorded, Record};
use fieldlock_session::frame::{CONTROL, MAX_CONTROL};
use fieldlock_session::{Frame, Outcome};
use fieldlock_testkit::modbus::{Client, read, write_register};
use fieldlock_tests::answers::{NO_ANSWER, exception, read_registers};
use fieldlock_tests::rogue::{Credentials, Face, Rogue, hello};
use fieldlock_tests::trial::both;
use fieldlock_tests::{DEVICE, EDGE, Pair, Role, SOON, Setup, Site, Transport, eventually};
use libtest_mimic::Trial;
use rustls::NamedGroup;

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("attacks::a04_edge_claims_the_device_of_another", claims),
        both("negative::edge_breaks_the_hello", breaks_the_hello),
        both("negative::edge_breaks_the_frames", breaks_the_frames),
        both("negative::edge_says_nothing", says_nothing),
        both("negative::edge_answers_wrongly", answers_wrongly),
        both("negative::edge_does_not_read", does_not_read),
        both("negative::key_exchange_is_the_one_used", key_exchange),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn headend(transport: Transport) -> Pair {
    let mut pair = Setup::new(transport).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    pair
}

fn face() -> Face {
    let identity = Site::shared().identity(Role::Edge, EDGE);
    Face::of(Credentials::installed(&identity))
}

fn encoded(channel: u16, frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(channel, &mut bytes);
    bytes
}

/// A frame by its parts, with a length that may be a lie.
fn raw(length: u16, channel: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(channel.to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

fn oversized() -> Vec<u8> {
    let too_long = MAX_CONTROL as u16 + 1;
    raw(too_long, CONTROL, 1, &vec![0; usize::from(too_long) - 1])
}

/// Attack 4: an edge with a certificate of its own says the hello of another, which is there.
fn claims(transport: Transport) {
    let pair = Pair::up(transport);
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    let requests = pair.plc().requests();
    let name = "press-09";
    let identity = Site::shared().identity(Role::Edge, name);
    for devices in [&[DEVICE][..], &["press-09", DEVICE]] {
        let face = Face::of(Credentials::installed(&identity));
        let refusal = Rogue::edge(transport, pair.tunnel, face, devices).unwrap_err();
        assert!(refusal.contains("goodbye"), "{refusal}");
        assert!(refusal.contains("not bound"), "{refusal}");
    }
    let record = pair.headend.wait_record("whose certificate it was", |r| {
        let who = r.tunnel.as_deref().unwrap_or_default();
        r.kind == Kind::TunnelRefused && who.ends_with("/edge/press-09")
    });
    assert!(
        record
            .reason
            .unwrap_or_default()
            .contains("device-not-bound")
    );
    // The other one was neither probed nor replaced, and the device is its own.
    read_registers(&mut client, 0, 1);
    assert_eq!(pair.plc().requests(), requests + 1);
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
    assert!(pair.headend.audit_kind(Kind::TunnelDown).is_empty());
    let tunnels = pair.headend.status()["tunnels"].clone();
    assert_eq!(tunnels.as_array().unwrap().len(), 1);
    assert_eq!(tunnels[0]["edge"], EDGE);
    assert!(pair.headend.alarms().is_empty());
}

fn breaks_the_hello(transport: Transport) {
    let mut newer = hello(&[DEVICE]);
    newer.version = 99;
    let many: Vec<String> = (0..300).map(|n| format!("d{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let first_words = [
        ("oversized", oversized(), "allowed 1 to 32768"),
        ("empty frame", vec![0; 64], "frame of 0 octets"),
        ("garbage", vec![0x17; 600], "frame"),
        ("unknown kind", raw(1, CONTROL, 0x7F, &[]), "0x7f"),
        ("ready first", encoded(CONTROL, &Frame::Ready), "ready"),
        ("a later version", hello_bytes(&newer), "version 99"),
        ("half a hello", raw(3, CONTROL, 1, &[0, 1]), "hello"),
        ("no device", hello_bytes(&hello(&[])), "offers no device"),
        ("300 devices", hello_bytes(&hello(&many)), "256"),
        (
            "terminal escapes",
            hello_bytes(&hello(&["\u{1b}[2J"])),
            "malformed",
        ),
    ];
    let mut pair = headend(transport);
    for (what, bytes, reason) in first_words {
        let before = pair.headend.audit_kind(Kind::TunnelRefused).len();
        let mut rogue = Rogue::dial(transport, pair.tunnel, face()).unwrap();
        // It may be closed before all of it is written.
        let _ = rogue.send_bytes(CONTROL, &bytes);
        closes(&mut rogue, what);
        let mut said = String::new();
        eventually(what, || {
            let records = pair.headend.audit_kind(Kind::TunnelRefused);
            said = reason_of(records.get(before));
            !said.is_empty()
        });
        let lower = said.to_lowercase();
        assert!(lower.contains(reason), "{what}: refused, but: {said}");
    }
    serves_a_good_edge(&mut pair);
}

fn reason_of(record: Option<&Record>) -> String {
    let reason = record.and_then(|record| record.reason.clone());
    reason.unwrap_or_default().into_owned()
}

fn hello_bytes(hello: &fieldlock_session::Hello) -> Vec<u8> {
    encoded(CONTROL, &Frame::Hello(&hello.encode()))
}

fn breaks_the_frames(transport: Transport) {
    let answer = Frame::Answer {
        id: 1,
        outcome: Outcome::Answered,
        pdu: &[3, 2, 0, 0],
    };
    let request = Frame::Request {
        id: 1,
        client: 1,
        within: 1000,
        unit: 1,
        pdu: &[3, 0, 0, 0, 1],
    };
    let wrongs = [
        ("oversized", oversized()),
        ("oversized on a device", raw(1025, 1, 0x13, &[0; 1024])),
        ("empty frame", vec![0; 64]),
        ("garbage", vec![0x17; 600]),
        ("unknown kind", raw(1, CONTROL, 0x7F, &[])),
        ("second hello", hello_bytes(&hello(&[DEVICE]))),
        ("second ready", encoded(CONTROL, &Frame::Ready)),
        ("a request", encoded(1, &request)),
        ("a channel never offered", encoded(9, &answer)),
        ("an unknown outcome", raw(12, 1, 0x13, &[0xEE; 11])),
    ];
    let mut pair = headend(transport);
    for (index, (what, bytes)) in wrongs.into_iter().enumerate() {
        let mut rogue = Rogue::edge(transport, pair.tunnel, face(), &[DEVICE]).unwrap();
        eventually("the tunnel to be up", || pair.is_connected());
        let _ = rogue.send_bytes(CONTROL, &bytes);
        closes(&mut rogue, what);
        eventually(what, || !pair.is_connected());
        let mut reason = String::new();
        eventually(what, || {
            let downs = pair.headend.audit_kind(Kind::TunnelDown);
            reason = reason_of(downs.get(index));
            !reason.is_empty()
        });
        assert!(reason.contains("protocol violation"), "{what}: {reason}");
    }
    serves_a_good_edge(&mut pair);
}

fn says_nothing(transport: Transport) {
    let mut pair = headend(transport);
    let mut silent = Rogue::dial(transport, pair.tunnel, face()).unwrap();
    let mut other = Rogue::dial(transport, pair.tunnel, face()).unwrap();
    other
        .send_bytes(CONTROL, &encoded(CONTROL, &Frame::Hello(&[]))[..3])
        .unwrap();
    // Hellos have 5 s.
    closes(&mut silent, "silent");
    closes(&mut other, "half a frame");
    let record = pair
        .headend
        .wait_record("refusal", |r| r.kind == Kind::TunnelRefused);
    assert!(record.reason.unwrap_or_default().contains("no hello"));
    serves_a_good_edge(&mut pair);
}

/// Status tells which group was negotiated, not which is preferred.
fn key_exchange(transport: Transport) {
    for (group, name) in [
        (NamedGroup::X25519MLKEM768, "X25519MLKEM768"),
        (NamedGroup::X25519, "X25519"),
        (NamedGroup::secp256r1, "P-256"),
    ] {
        let pair = headend(transport);
        let face = Face {
            group: Some(group),
            ..face()
        };
        let _rogue = Rogue::edge(transport, pair.tunnel, face, &[DEVICE]).unwrap();
        eventually("the tunnel to be up", || pair.is_connected());
        assert_eq!(pair.headend.status()["tunnels"][0]["key_exchange"], name);
    }
}

/// An edge can lie about its device; it can't make a client see what is no answer.
fn answers_wrongly(transport: Transport) {
    let mut pair = headend(transport);
    let mut rogue = Rogue::edge(transport, pair.tunnel, face(), &[DEVICE]).unwrap();
    eventually("the tunnel to be up", || pair.is_connected());
    let mut client = pair.client();
    let mut opened = false;
    let wrongs: [(Outcome, &[u8]); 7] = [
        (Outcome::Answered, &[4, 4, 0, 0, 0, 0]),
        (Outcome::Answered, &[3, 2, 0, 0]),
        (Outcome::Answered, &[3, 4, 0, 0, 0]),
        (Outcome::Answered, &[]),
        (Outcome::Refused, &[3, 4, 0, 0, 0, 0]),
        (Outcome::NotSent, &[3, 4, 0, 0, 0, 0]),
        (Outcome::Unknown, &[]),
    ];
    for (outcome, pdu) in wrongs {
        client.send_request(1, &read(3, 0, 2)).unwrap();
        if !std::mem::replace(&mut opened, true) {
            rogue.accept_device().unwrap();
        }
        let id = next_request(&mut rogue);
        let answer = Frame::Answer { id, outcome, pdu };
        // For a request that nobody made, then the wrong one, then the same once more.
        let stray = Frame::Answer {
            id: id + 77,
            outcome: Outcome::Answered,
            pdu: &[3, 4, 0, 0, 0, 0],
        };
        for frame in [&stray, &answer, &answer] {
            rogue.send(1, frame).unwrap();
        }
        let answer = client.read_adu(SOON).unwrap();
        assert_eq!(
            exception(&answer[7..]),
            Some(NO_ANSWER),
            "{outcome:?} {pdu:02x?}"
        );
    }
    a_write_answered_wrongly(&pair, &mut rogue, &mut client);
    drop(rogue);
    serves_a_good_edge(&mut pair);
}

fn a_write_answered_wrongly(pair: &Pair, rogue: &mut Rogue, client: &mut Client) {
    client.send_request(1, &write_register(40, 7)).unwrap();
    let id = next_request(rogue);
    let pdu = &write_register(40, 8);
    let outcome = Outcome::Answered;
    rogue.send(1, &Frame::Answer { id, outcome, pdu }).unwrap();
    let answer = client.read_adu(SOON).unwrap();
    assert_eq!(exception(&answer[7..]), Some(NO_ANSWER));
    let record = pair
        .headend
        .wait_record("outcome", |r| r.kind == Kind::WriteOutcome);
    assert_eq!(record.outcome, Some(Recorded::Unknown));
}

/// The id of the next request; what else the headend says is passed over.
fn next_request(rogue: &mut Rogue) -> u64 {
    loop {
        let frame = rogue.receive(1).unwrap();
        if let Ok(Some((1, Frame::Request { id, .. }, _))) = Frame::decode(&frame) {
            return id;
        }
    }
}

/// Pings without end, and never a read: the headend's memory stays bounded.
fn does_not_read(transport: Transport) {
    let mut pair = headend(transport);
    let mut rogue = Rogue::edge(transport, pair.tunnel, face(), &[DEVICE]).unwrap();
    let pings = encoded(CONTROL, &Frame::Ping(1)).repeat(1000);
    let mut sent = 0;
    while rogue.send_bytes(CONTROL, &pings).is_ok() {
        sent += 1;
        assert!(sent < 10_000, "the headend takes everything");
    }
    let resident = fieldlock_tests::resident(pair.headend.process().id());
    assert!(resident < 100 << 20, "{} MiB", resident >> 20);
    drop(rogue);
    serves_a_good_edge(&mut pair);
}

#[track_caller]
fn closes(rogue: &mut Rogue, what: &str) {
    let within = Duration::from_secs(10);
    rogue
        .wait_close(within)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[track_caller]
fn serves_a_good_edge(pair: &mut Pair) {
    pair.edge.start();
    pair.wait_up();
    pair.wait_served();
}
