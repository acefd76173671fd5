//! Floods: of those who prove nothing, and of one that has a certificate.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use fieldlock_audit::{Kind, log_files};
use fieldlock_session::frame::CONTROL;
use fieldlock_session::{ALPN, Frame, Outcome};
use fieldlock_testkit::modbus::Client;
use fieldlock_testkit::usage::Snapshot;
use fieldlock_tests::answers::{read_registers, write_one};
use fieldlock_tests::rogue::{Credentials, Face, Rogue};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{Pair, Role, Setup, Site, Transport, eventually};
use libtest_mimic::Trial;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;

/// A headend may grow so much under attack; before, it has about 20 MiB.
const GROWTH: u64 = 32 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = both("attacks::a14_edge_that_floods", hostile_edge).into();
    trials.push(test("attacks::a13_ten_thousand_forged_handshakes", forged));
    trials.push(test(
        "attacks::a13_a_crowd_that_knocks_fills_no_queue_but_its_own",
        crowd,
    ));
    for when_full in ["drop-oldest", "stop"] {
        let name = format!("floods::strangers_push_out_no_write::{when_full}");
        trials.push(test(&name, move || strangers(when_full)));
    }
    trials.push(test(
        "floods::refused_writes_name_the_ranges_that_were_tried",
        ranges,
    ));
    trials
}

/// The policy knows 127.0.0.2, which may write holding registers up to 999.
const OPERATOR: [u8; 4] = [127, 0, 0, 2];
const KNOWN: &str = "syntax = 1\n[[client]]\nname = \"hmi-1\"\naddress = [\"127.0.0.2/32\"]\n\
    [[allow]]\nname = \"hmi\"\nclient = [\"hmi-1\"]\ndevice = [\"any\"]\n\
    function = [\"read\", \"write\"]\n\
    address = [\"holding 0-99\"]\n";

/// Addresses that no client of the policy names connect and close, and ask, as fast as they can.
fn strangers(when_full: &str) {
    const CONNECTIONS: u64 = 4_000;
    let limits = format!(
        "[client]\nmax_connections_per_address = 1000\n[audit]\nsegment_size = \"64KiB\"\n\
         max_size = \"256KiB\"\nwhen_full = \"{when_full}\"\n"
    );
    let mut pair = Setup::new(Transport::Tls)
        .policy(KNOWN)
        .headend(&limits)
        .up();
    let mut operator = pair.client_from(OPERATOR);
    write_one(&mut operator, 42, 1);
    for n in 0..CONNECTIONS {
        let local = IpAddr::from([127, 77, 0, (n % 8) as u8 + 1]);
        let mut stranger = Client::connect_from(local, pair.clients).unwrap();
        if n % 16 == 0 {
            let _ = stranger.request(1, &[6, 0, 42, 0, (n % 256) as u8]);
        }
    }
    // Who came before and who is known still writes.
    write_one(&mut operator, 42, 2);
    pair.headend.terminate();

    let records = pair.headend.audit();
    assert_eq!(records[0].seq, 1, "the log still begins where it began");
    let intents = records
        .iter()
        .filter(|record| record.kind == Kind::WriteIntent);
    assert_eq!(intents.count(), 2);
    let counted = |kind| {
        let of_kind = records.iter().filter(|record| record.kind == kind);
        of_kind.map(|record| record.count.unwrap_or(1)).sum::<u64>()
    };
    // The operator's connection, and those of strangers, each once: on record, joined or left out.
    let (opened, left_out) = (counted(Kind::ClientOpen), counted(Kind::LeftOut));
    assert!(opened <= CONNECTIONS + 1, "{opened}");
    if left_out == 0 {
        assert_eq!(opened, CONNECTIONS + 1);
        assert_eq!(counted(Kind::Denied), CONNECTIONS / 16);
    }
    let log = pair.headend.state().join("audit");
    let bytes: u64 = log_files(&log)
        .unwrap()
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    // A sixteenth of the log, and the agent's own records.
    assert!(bytes < 256 * 1024 / 16 + 16 * 1024, "{bytes}");
}

fn ranges() {
    let mut pair = Setup::new(Transport::Tls).policy(KNOWN).up();
    let mut operator = pair.client_from(OPERATOR);
    for n in 0..600_u16 {
        let address = if n % 100 == 7 { 9000 } else { 100 + n % 50 };
        let [high, low] = address.to_be_bytes();
        let answer = operator.request(1, &[6, high, low, 0, 1]).unwrap();
        assert_eq!(answer, [0x86, 2]);
    }
    pair.headend.terminate();
    let denied = pair.headend.audit_kind(Kind::Denied);
    let count: u64 = denied.iter().map(|record| record.count.unwrap_or(1)).sum();
    assert_eq!(count, 600);
    let names = |address: u16| {
        denied.iter().any(|record| {
            let tried = record.tried.as_deref().unwrap_or_default().iter();
            let mut ranges = tried.chain(&record.address);
            ranges.any(|range| (range.first, range.last) == (address, address))
        })
    };
    assert!(names(9000), "{denied:?}");
    let others = denied
        .iter()
        .flat_map(|record| record.tried.as_deref().unwrap_or_default());
    assert!(
        others
            .into_iter()
            .all(|range| range.last < 150 || range.first == 9000)
    );
}

/// Different client hellos, each as the datagrams that carry it.
const HELLOS: usize = 1000;
/// Sockets that they come from, on an address each. None ever answers.
const SOURCES: usize = 250;
const INITIALS: usize = 10_000;

/// What clients send first, of real TLS with a key share of its own each.
fn client_hellos(to: SocketAddr) -> Vec<Vec<Vec<u8>>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = Arc::new(QuicClientConfig::try_from(tls).unwrap());
    let config = ClientConfig::new(crypto);
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let now = Instant::now();
    let hello = |_| {
        let (_, mut connection) = endpoint
            .connect(now, config.clone(), to, "hd-1.headend.plant1.example")
            .unwrap();
        let mut datagrams = Vec::new();
        let mut buffer = Vec::new();
        while let Some(sent) = connection.poll_transmit(now, 1, &mut buffer) {
            datagrams.push(buffer[..sent.size].to_vec());
            buffer.clear();
        }
        datagrams
    };
    (0..HELLOS).map(hello).collect()
}

/// Sends forged client hellos and headers without sense until all are out, then again until
/// `enough`.
fn flood(to: SocketAddr, hellos: &[Vec<Vec<u8>>], enough: &AtomicBool) {
    let source = |n: usize| {
        let address = [127, 77, (n / 250) as u8, (n % 250) as u8 + 1];
        UdpSocket::bind(SocketAddr::from((address, 0))).unwrap()
    };
    let sources: Vec<_> = (0..SOURCES).map(source).collect();
    let mut garbage = vec![0x5A; 1200];
    // A long header of QUIC version 1, an Initial, with a connection id of eight octets.
    garbage[..6].copy_from_slice(&[0xC3, 0, 0, 0, 1, 8]);
    for turn in 0.. {
        if turn >= INITIALS && enough.load(Relaxed) {
            return;
        }
        // Each hello from another address each time, so that it is another handshake.
        let source = &sources[(turn + turn / HELLOS * 7) % SOURCES];
        for datagram in &hellos[turn % HELLOS] {
            // The kernel may have no room: that is a flood, too.
            let _ = source.send_to(datagram, to);
        }
        garbage[6..10].copy_from_slice(&(turn as u32).to_be_bytes());
        let _ = source.send_to(&garbage, to);
    }
}

/// What the kernel holds and has dropped for each socket of an address.
fn queues(of: SocketAddr) -> Vec<(u64, u64)> {
    let SocketAddr::V4(v4) = of else {
        panic!("{of}")
    };
    let local = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(v4.ip().octets()),
        v4.port()
    );
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let rows = table.lines().map(|line| line.split_ascii_whitespace());
    let rows = rows.filter(|row| row.clone().nth(1) == Some(&local));
    let queue = |mut row: std::str::SplitAsciiWhitespace<'_>| {
        let queues = row.nth(4).unwrap();
        let (_, held) = queues.split_once(':').unwrap();
        let dropped = row.last().unwrap();
        (
            u64::from_str_radix(held, 16).unwrap(),
            dropped.parse().unwrap(),
        )
    };
    rows.map(queue).collect()
}

/// While nothing is read, as when the processor is elsewhere.
fn crowd() {
    let mut pair = Pair::up(Transport::Quic);
    read_registers(&mut pair.client(), 0, 4);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut knock = vec![0x5A; 1200];
    knock[..6].copy_from_slice(&[0xC3, 0, 0, 0, 1, 8]);
    pair.headend.process().pause();
    for _ in 0..INITIALS {
        sender.send_to(&knock, pair.tunnel).unwrap();
    }
    for _ in 0..10 {
        // A short header.
        sender.send_to(&[0x40; 1000], pair.tunnel).unwrap();
    }
    let queues = queues(pair.tunnel);
    pair.headend.process().resume();
    assert_eq!(queues.len(), 2, "{queues:?}");
    let full = queues.iter().filter(|(_, dropped)| *dropped > 0);
    assert_eq!(
        full.count(),
        1,
        "{queues:?}: that of the crowd, and no other"
    );
    let held = |(held, dropped): &(u64, u64)| *held >= 10_000 && *dropped == 0;
    assert!(queues.iter().any(held), "{queues:?}: who is inside waits");
    read_registers(&mut pair.client(), 0, 4);
    assert!(pair.headend.audit_kind(Kind::TunnelDown).is_empty());
}

fn forged() {
    // The flood shares two cores and a socket with what is honest.
    let mut pair = Setup::new(Transport::Quic).answer_within("10s").up();
    let mut client = pair.client();
    read_registers(&mut client, 0, 4);
    let headend = [pair.headend.process().id()];
    let before = Snapshot::take(&headend).resident();
    let (to, enough) = (pair.tunnel, Arc::<AtomicBool>::default());
    let hellos = client_hellos(to);
    let flooding = thread::spawn({
        let enough = enough.clone();
        move || flood(to, &hellos, &enough)
    });
    let mut most = 0;
    let mut serves = |client: &mut Client| {
        // Within `answer_within`: later it would be an exception, and a panic.
        read_registers(client, 0, 4);
        most = most.max(Snapshot::take(&headend).resident());
    };
    for _ in 0..50 {
        serves(&mut client);
    }
    assert!(
        pair.headend.audit_kind(Kind::TunnelDown).is_empty(),
        "a live tunnel was lost"
    );
    // Another edge gets in meanwhile: the same, after a restart.
    pair.edge.kill();
    pair.edge.start();
    pair.wait_up();
    // What went to the edge that was killed is lost with it.
    pair.wait_served();
    enough.store(true, Relaxed);
    while !flooding.is_finished() {
        serves(&mut client);
    }
    flooding.join().unwrap();
    assert!(
        most < before + GROWTH,
        "{before} octets before, {most} meanwhile"
    );
    read_registers(&mut pair.client(), 0, 4);
    let refused = pair.headend.audit_kind(Kind::TunnelRefused);
    assert!(
        refused.len() < 100,
        "{} records of forged handshakes",
        refused.len()
    );
}

fn hostile_edge(transport: Transport) {
    const ROGUE: &str = "flooder";
    let config = format!("[[device]]\nname = \"{ROGUE}\"\n");
    let mut pair = Setup::new(transport).headend(&config).up();
    let mut client = pair.client();
    let headend = [pair.headend.process().id()];
    let before = Snapshot::take(&headend).resident();
    let face = || {
        let identity = Site::shared().identity(Role::Edge, ROGUE);
        Face::of(Credentials::installed(&identity))
    };
    let edge = |pair: &Pair| Rogue::edge(transport, pair.tunnel, face(), &[ROGUE]);
    let calm = |pair: &mut Pair, what: &str, client: &mut _| {
        read_registers(client, 0, 4);
        let now = Snapshot::take(&headend).resident();
        assert!(
            now < before + GROWTH,
            "{what}: {before} octets before, {now} now"
        );
        let lost = pair.headend.audit();
        let lost = lost.iter().filter(|r| {
            let tunnel = r.tunnel.as_deref().unwrap_or_default();
            r.kind == Kind::TunnelDown && !tunnel.ends_with(ROGUE)
        });
        assert_eq!(lost.count(), 0, "{what}: the other edge lost its tunnel");
    };

    // Pings without end, whose answers are not read.
    let mut rogue = edge(&pair).unwrap();
    let mut pings = Vec::new();
    for token in 0..20_000 {
        Frame::Ping(token).encode(CONTROL, &mut pings);
    }
    for _ in 0..100 {
        if rogue.send_bytes(CONTROL, &pings).is_err() {
            break;
        }
    }
    calm(&mut pair, "pings", &mut client);
    drop(rogue);

    // A length that no frame has, and octets after it.
    eventually("the flooder to be let in again", || {
        let Ok(mut rogue) = edge(&pair) else {
            return false;
        };
        let mut huge = vec![0xFF; 1 << 20];
        huge[2..5].copy_from_slice(&[0, 0, 1]);
        let _ = rogue.send_bytes(CONTROL, &huge);
        rogue.wait_close(fieldlock_tests::SOON).unwrap();
        true
    });
    calm(&mut pair, "a huge length", &mut client);

    // Answers that nobody asked for.
    eventually("the flooder to be let in again", || {
        let Ok(mut rogue) = edge(&pair) else {
            return false;
        };
        let mut answers = Vec::new();
        for id in 0..20_000 {
            let answer = Frame::Answer {
                id,
                outcome: Outcome::Answered,
                pdu: &[3, 2, 0, 0],
            };
            answer.encode(1, &mut answers);
        }
        // On the wrong stream over QUIC, which ends the tunnel.
        let _ = rogue.send_bytes(CONTROL, &answers);
        true
    });
    calm(&mut pair, "answers", &mut client);

    // The tunnel again and again: past thirty, once a second is enough.
    let put_off = |pair: &Pair| {
        let refused = pair.headend.audit_kind(Kind::TunnelRefused);
        let often = |r: &&fieldlock_audit::Record| {
            r.reason
                .as_deref()
                .is_some_and(|reason| reason.contains("reconnects too often"))
        };
        refused.iter().filter(often).count() > 0
    };
    eventually("the flooder to be turned away", || {
        for _ in 0..8 {
            let _ = edge(&pair);
        }
        put_off(&pair)
    });
    calm(&mut pair, "tunnels", &mut client);
}
