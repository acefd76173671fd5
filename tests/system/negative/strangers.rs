//! Connections that are no tunnels at all: garbage, and handshakes that never go on.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_testkit::modbus::Client;
use fieldlock_testkit::wire::{Direction, Wire};
use fieldlock_tests::answers::read_registers;
use fieldlock_tests::rogue::{Credentials, Face, Rogue};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{EDGE, Pair, Role, Setup, Site, Transport, eventually};
use libtest_mimic::Trial;

/// The headend gives a handshake 5 s; what the test machine may add.
const HANDSHAKE_AT_MOST: Duration = Duration::from_secs(9);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = both("negative::garbage_on_the_tunnel_port", garbage).into();
    trials.push(test("negative::slow_loris::tls", slow_loris_tls));
    trials.push(test("negative::slow_loris::quic", slow_loris_quic));
    trials
}

/// What a scanner, a lost browser or a fuzzer would send.
fn samples() -> Vec<Vec<u8>> {
    let mut samples = vec![
        b"GET / HTTP/1.1\r\nHost: hd-1\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        vec![0; 1400],
        vec![0xFF; 1400],
        // A TLS record header that promises more than is allowed.
        vec![0x16, 0x03, 0x01, 0xFF, 0xFF, 0x01],
        // A QUIC version 1 Initial with a wrong length, and an unknown version.
        [&[0xC3, 0, 0, 0, 1, 8][..], &[7; 1194]].concat(),
        [&[0xC3, 0xBA, 0xBA, 0xBA, 0xBA, 8][..], &[7; 1194]].concat(),
        // A short header for a connection that does not exist.
        [&[0x43][..], &[9; 60]].concat(),
        fieldlock_testkit::modbus::adu(1, 1, &[3, 0, 0, 0, 1]),
    ];
    // Octets without any sense, the same in every run.
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    for length in [1, 7, 64, 600, 1300] {
        let noise = (0..length).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        samples.push(noise.collect());
    }
    samples
}

fn garbage(transport: Transport) {
    let pair = Pair::up(transport);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for sample in samples() {
        udp.send_to(&sample, pair.tunnel).unwrap();
        let mut tcp = Client::connect(pair.tunnel).unwrap();
        // The other side may close in the middle of it.
        let _ = tcp.send(&sample);
        let _ = tcp.stream().shutdown(std::net::Shutdown::Write);
        tcp.read_to_close(HANDSHAKE_AT_MOST).unwrap();
    }
    let refused = |status: &serde_json::Value| status["counters"]["handshakes_refused"].as_u64();
    let expected = samples().len() as u64;
    eventually("all to be counted", || {
        refused(&pair.headend.status()) >= Some(expected)
    });
    pair.headend.wait_record("a refusal with its origin", |r| {
        let address = r.client.as_ref().and_then(|client| client.address);
        r.kind == Kind::TunnelRefused && address.is_some_and(|address| address.is_loopback())
    });
    still_the_first_tunnel(&pair);
}

/// The tunnel that was there all the time was never disturbed.
fn still_the_first_tunnel(pair: &Pair) {
    read_registers(&mut pair.client(), 0, 4);
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
    assert!(pair.headend.audit_kind(Kind::TunnelDown).is_empty());
}

fn slow_loris_tls() {
    let mut pair = Setup::new(Transport::Tls).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    let mut loris: Vec<Client> = (0..64)
        .map(|_| Client::connect(pair.tunnel).unwrap())
        .collect();
    for client in loris.iter_mut().step_by(2) {
        // The first octets of a ClientHello.
        client.send(&[0x16, 0x03, 0x01, 0x02]).unwrap();
    }
    pair.edge.start();
    pair.wait_up();
    read_registers(&mut pair.client(), 0, 4);
    for mut client in loris {
        client.read_to_close(HANDSHAKE_AT_MOST).unwrap();
    }
    refused_in_time(&pair);
    still_the_first_tunnel(&pair);
}

fn slow_loris_quic() {
    let mut pair = Setup::new(Transport::Quic).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    // The handshake's first flight arrives, the answer never does.
    let wire = Wire::start(pair.tunnel).unwrap();
    wire.shape(Direction::Down, |shape| shape.cut = true);
    let dialling: Vec<_> = (0..8)
        .map(|_| {
            let address = wire.address();
            thread::spawn(move || {
                let identity = Site::shared().identity(Role::Edge, EDGE);
                let face = Face::of(Credentials::installed(&identity));
                Rogue::dial(Transport::Quic, address, face).is_err()
            })
        })
        .collect();
    pair.edge.start();
    pair.wait_up();
    read_registers(&mut pair.client(), 0, 4);
    refused_in_time(&pair);
    still_the_first_tunnel(&pair);
    for dialled in dialling {
        assert!(dialled.join().unwrap(), "a handshake without answers");
    }
}

fn refused_in_time(pair: &Pair) {
    pair.headend.wait_record("the end of a handshake", |r| {
        let reason = r.reason.as_deref().unwrap_or_default();
        let timed_out = reason.contains("in time") || reason.contains("timed out");
        r.kind == Kind::TunnelRefused && timed_out
    });
}
