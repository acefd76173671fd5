//! Both ends of a tunnel over real sockets, without agents around them.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use fieldlock_pki::Identity;
use fieldlock_session::{ALPN, DeviceOffer, Transport, VERSION};
use fieldlock_testkit::wire::Wire;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, ServerConfig};
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{interval, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::*;

mod hostile;

const NAME: &str = "tunnel.example";
const PATIENCE: Duration = Duration::from_secs(10);

fn hello(devices: usize, stations: &[&str]) -> Hello {
    let device = |number| DeviceOffer {
        name: format!("press-{number}"),
        credit: 1,
        answer_within: 1000,
        quirks: 0,
    };
    Hello {
        version: VERSION,
        agent_version: "0.1.0".into(),
        instance: [1; 16],
        policy: [2; 32],
        trust: None,
        bundle: None,
        tunnel: 0,
        devices: (0..devices).map(device).collect(),
        stations: stations.iter().map(ToString::to_string).collect(),
        cyclic: None,
    }
}

/// Keeps what arrives. As a headend it accepts what an edge offers, as far as it knows stations.
#[derive(Debug, Default)]
struct Recorder {
    knows_no_stations: bool,
    cyclic: Option<[u8; 16]>,
    frames: RefCell<Vec<(u16, Vec<u8>)>>,
    datagrams: RefCell<Vec<Vec<u8>>>,
    arrived: Notify,
}

impl Recorder {
    fn headend(cyclic: Option<[u8; 16]>) -> Self {
        Self {
            cyclic,
            ..Self::default()
        }
    }

    async fn until(&self, there: impl Fn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !there(self) {
                self.arrived.notified().await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("it never came: {self:?}"));
    }
}

impl Handler for Recorder {
    fn event(&self, link: &Rc<Link>, event: Event) {
        if let Event::Hello(offered) = event {
            let stations = match self.knows_no_stations {
                true => Vec::new(),
                false => offered.stations.clone(),
            };
            let answer = Hello {
                stations,
                cyclic: self.cyclic,
                ..hello(0, &[])
            };
            link.accept(&answer, &offered);
        }
        self.arrived.notify_one();
    }

    fn frame(&self, _: &Rc<Link>, _: u16, _: Frame<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn station(&self, _: &Rc<Link>, station: u16, frame: &[u8]) {
        self.frames.borrow_mut().push((station, frame.to_vec()));
        self.arrived.notify_one();
    }

    fn datagram(&self, _: &Rc<Link>, datagram: &[u8]) {
        self.datagrams.borrow_mut().push(datagram.to_vec());
        self.arrived.notify_one();
    }

    fn flush(&self) {}
}

fn peer(transport: Transport) -> Peer {
    Peer {
        identity: Identity::from_uri("spiffe://plant1.example/edge/press-07").unwrap(),
        chain: Vec::new(),
        valid: (0, i64::MAX),
        address: "192.0.2.1:4433".parse().unwrap(),
        transport,
        group: String::new(),
    }
}

/// TLS that trusts itself, for both sides.
fn tls() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let versions = &[&rustls::version::TLS13];
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private)
        .unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.alpn_protocols = vec![ALPN.to_vec()];
    client.alpn_protocols = vec![ALPN.to_vec()];
    (Arc::new(server), Arc::new(client))
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// One end and its driver.
struct Side {
    link: Rc<Link>,
    recorder: Rc<Recorder>,
    driver: JoinHandle<End>,
}

impl Side {
    async fn up(&self) {
        let up = self.recorder.until(|_| self.link.is_up());
        up.await;
    }

    async fn end(self) -> End {
        timeout(PATIENCE, self.driver).await.unwrap().unwrap()
    }
}

struct Pair {
    edge: Side,
    headend: Side,
    /// Between them, over QUIC.
    wire: Option<Wire>,
    /// They live as long as what they carry.
    _endpoints: Vec<quinn::Endpoint>,
}

impl Pair {
    /// With settings of the transport for both, by the number of streams.
    async fn quic(
        offer: &Hello,
        headend: Recorder,
        transport: impl Fn(u32) -> quinn::TransportConfig,
    ) -> Self {
        let (server, client) = tls();
        let mut server =
            ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
        server.transport_config(Arc::new(transport(1)));
        let listening = udp::endpoint(socket(), None, EndpointConfig::default()).unwrap();
        listening.set_server_config(Some(server));
        let wire = Wire::start_seeded(listening.local_addr().unwrap(), 7).unwrap();
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
        let streams = u32::try_from(offer.channels()).unwrap();
        client.transport_config(Arc::new(transport(streams)));
        let dialling = udp::endpoint(socket(), None, EndpointConfig::default()).unwrap();
        let dialled = dialling.connect_with(client, wire.address(), NAME).unwrap();
        let accepted = async { listening.accept().await.unwrap().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dialled, accepted);
        let start = |link: Rc<Link>, recorder: Recorder| {
            let recorder = Rc::new(recorder);
            let driver = quic::run(link.clone(), recorder.clone());
            Side {
                driver: tokio::task::spawn_local(driver),
                link,
                recorder,
            }
        };
        let path = Path::Quic(dialled.unwrap());
        let edge = Link::edge(peer(Transport::Quic), path, 1, offer);
        let far = Link::headend(peer(Transport::Quic), Path::Quic(accepted), 1);
        Self {
            edge: start(edge, Recorder::default()),
            headend: start(far, headend),
            wire: Some(wire),
            _endpoints: vec![listening, dialling],
        }
    }

    async fn tls(offer: &Hello, headend: Recorder) -> Self {
        let (dialled, accepted) = connection().await;
        let start = |link: Rc<Link>, recorder: Recorder, stream| {
            let recorder = Rc::new(recorder);
            let (link_, recorder_) = (link.clone(), recorder.clone());
            let driver = async move { tcp::run(stream, link_, &*recorder_).await };
            Side {
                driver: tokio::task::spawn_local(driver),
                link,
                recorder,
            }
        };
        let edge = Link::edge(peer(Transport::Tls), Path::Tls, 1, offer);
        let far = Link::headend(peer(Transport::Tls), Path::Tls, 1);
        Self {
            edge: start(edge, Recorder::default(), dialled),
            headend: start(far, headend, accepted),
            wire: None,
            _endpoints: Vec::new(),
        }
    }

    async fn up(&self) {
        tokio::join!(self.edge.up(), self.headend.up());
    }
}

/// Both ends of a TLS connection.
async fn connection() -> (TlsStream<TcpStream>, TlsStream<TcpStream>) {
    let (server, client) = tls();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    let name = ServerName::try_from(NAME).unwrap();
    let (dialled, accepted) = tokio::join!(
        TlsConnector::from(client).connect(name, dialled.unwrap()),
        TlsAcceptor::from(server).accept(accepted.unwrap().0),
    );
    (dialled.unwrap().into(), accepted.unwrap().into())
}

/// A cyclic datagram with this sequence number, always of the same stream.
fn cyclic(sequence: u32, length: usize) -> Vec<u8> {
    let header = [
        &[0x10, 0, 1, 0, 1, 0xc0, 1][..],
        &sequence.to_be_bytes(),
        &[0; 4],
        &[1],
    ];
    let mut datagram = header.concat();
    datagram.resize(length, 0);
    datagram
}

fn with_stations(streams: u32) -> quinn::TransportConfig {
    quic::transport(streams, true)
}

async fn locally(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[test]
fn pings_of_a_peer_that_does_not_read_end_the_tunnel() {
    let hello = hello(0, &[]);
    let link = Link::headend(peer(Transport::Tls), Path::Tls, 1);
    let handler = Recorder::default();
    let encoded = hello.encode();
    let deliver = |frame| link.deliver(&handler, Instant::now(), 0, frame);
    deliver(Frame::Hello(&encoded)).unwrap();
    deliver(Frame::Ready).unwrap();
    assert!(link.is_up());
    let mut pings = (0..1_000_000).map(|token| deliver(Frame::Ping(token)));
    let end = pings.find_map(Result::err);
    assert!(
        matches!(end, Some(End::Violation(Violation::Flood))),
        "{end:?}"
    );
}

/// Channel 1 is the device, 2 and 3 are the stations.
#[test]
fn each_channel_carries_what_it_is_for() {
    let link = Link::headend(peer(Transport::Tls), Path::Tls, 1);
    let handler = Recorder::default();
    let deliver = |channel, frame| link.deliver(&handler, Instant::now(), channel, frame);
    let offer = hello(1, &["a", "b"]).encode();
    deliver(0, Frame::Hello(&offer)).unwrap();
    let early = deliver(2, Frame::Station(&[7; 60]));
    assert!(matches!(
        early,
        Err(End::Violation(Violation::Early { channel: 2 }))
    ));
    deliver(0, Frame::Ready).unwrap();
    deliver(2, Frame::Station(&[7; 60])).unwrap();
    deliver(3, Frame::Station(&[])).unwrap();
    deliver(3, Frame::Station(&[8; 60])).unwrap();
    assert_eq!(
        *handler.frames.borrow(),
        [(0, vec![7; 60]), (1, vec![8; 60])]
    );
    let answer = || Frame::ClientClose { client: 1 };
    deliver(1, answer()).unwrap();
    let violation = |channel, frame| match deliver(channel, frame) {
        Err(End::Violation(violation)) => violation,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        violation(1, Frame::Station(&[7; 60])),
        Violation::Misplaced {
            frame: "station",
            channel: 1,
            channel_of: "device",
        }
    );
    assert_eq!(
        violation(2, answer()),
        Violation::Misplaced {
            frame: "client-close",
            channel: 2,
            channel_of: "station",
        }
    );
    assert_eq!(
        violation(4, Frame::Station(&[7; 60])),
        Violation::Channel { channel: 4 }
    );
}

#[test]
fn a_link_that_stands_still_takes_no_more_frames() {
    let link = Link::headend(peer(Transport::Tls), Path::Tls, 1);
    let handler = Recorder::default();
    let deliver = |frame| link.deliver(&handler, Instant::now(), 0, frame);
    assert_eq!(link.send_station(0, &[7; 60]), Err(NotSent::NotYet));
    let offer = hello(0, &["a"]).encode();
    deliver(Frame::Hello(&offer)).unwrap();
    deliver(Frame::Ready).unwrap();
    assert_eq!(link.send_station(1, &[7; 60]), Err(NotSent::NotYet));
    assert_eq!(link.send_station(0, &[7; 1523]), Err(NotSent::TooLarge));
    let mut sent = 0;
    let full = loop {
        match link.send_station(0, &[7; 1522]) {
            Ok(()) => sent += 1,
            Err(reason) => break reason,
        }
    };
    assert_eq!(full, NotSent::Full);
    assert!((170..180).contains(&sent), "{sent}");
    assert_eq!(link.counters.frames_sent.get(), sent);
    assert_eq!(link.counters.frames_dropped.get(), 4);
}

#[tokio::test]
async fn over_quic_either_side_of_a_station_may_begin() {
    locally(async {
        let offer = hello(1, &["a", "b"]);
        let pair = Pair::quic(&offer, Recorder::default(), with_stations).await;
        pair.up().await;
        let (edge, headend) = (&pair.edge, &pair.headend);
        assert_eq!((edge.link.stations(), headend.link.stations()), (2, 2));
        // The edge's stream is the headend's to open.
        edge.link.send_station(1, &[1; 1522]).unwrap();
        headend.link.send_station(0, &[2; 14]).unwrap();
        headend
            .recorder
            .until(|r| !r.frames.borrow().is_empty())
            .await;
        edge.recorder.until(|r| !r.frames.borrow().is_empty()).await;
        assert_eq!(*headend.recorder.frames.borrow(), [(1, vec![1; 1522])]);
        assert_eq!(*edge.recorder.frames.borrow(), [(0, vec![2; 14])]);
    })
    .await;
}

#[tokio::test]
async fn over_quic_datagrams_go_both_ways_as_long_as_the_path_takes_them() {
    locally(async {
        let pair = Pair::quic(&hello(0, &["a"]), Recorder::default(), with_stations).await;
        assert_eq!(pair.edge.link.send_datagram(&[1]), Err(NotSent::NotYet));
        pair.up().await;
        for (from, to) in [(&pair.edge, &pair.headend), (&pair.headend, &pair.edge)] {
            let longest = from.link.max_datagram();
            assert!(longest > 1100, "{longest}");
            from.link.send_datagram(&vec![7; longest]).unwrap();
            let there = to.recorder.until(|r| !r.datagrams.borrow().is_empty());
            there.await;
            assert_eq!(*to.recorder.datagrams.borrow(), [vec![7; longest]]);
            let longer = vec![7; lane::MAX_DATAGRAM];
            assert_eq!(from.link.send_datagram(&longer), Err(NotSent::TooLarge));
        }
        assert_eq!(pair.edge.link.counters.datagrams_dropped.get(), 2);
    })
    .await;
}

/// It goes by the first version of the protocol: no datagrams, no streams for stations.
#[tokio::test]
async fn a_headend_that_knows_no_stations_serves_the_devices() {
    locally(async {
        let old = || Recorder {
            knows_no_stations: true,
            ..Recorder::default()
        };
        let offer = hello(1, &["a"]);
        let without = |streams| quic::transport(streams, streams > 1);
        for pair in [
            Pair::quic(&offer, old(), without).await,
            Pair::tls(&offer, old()).await,
        ] {
            pair.up().await;
            let link = &pair.edge.link;
            assert_eq!((link.stations(), link.max_datagram()), (0, 0));
            assert_eq!(link.send_station(0, &[7; 60]), Err(NotSent::NotYet));
            assert_eq!(link.send_datagram(&[7; 60]), Err(NotSent::NotYet));
            assert!(link.channel(1).is_some());
        }
    })
    .await;
}

#[tokio::test]
async fn over_tls_frames_share_the_tunnel_and_datagrams_have_a_connection_of_their_own() {
    locally(async {
        let token = [9; 16];
        let pair = Pair::tls(&hello(1, &["a"]), Recorder::headend(Some(token))).await;
        pair.up().await;
        let (edge, headend) = (&pair.edge, &pair.headend);
        edge.link.send_station(0, &[1; 60]).unwrap();
        headend
            .recorder
            .until(|r| !r.frames.borrow().is_empty())
            .await;
        assert_eq!(edge.link.max_datagram(), 0);
        assert_eq!(edge.link.send_datagram(&[1]), Err(NotSent::NotYet));
        assert!(headend.link.lane.admits(&token) && !headend.link.lane.admits(&[8; 16]));
        // Three times: what was lost comes back.
        for round in 1..=3_u8 {
            let wanted = timeout(PATIENCE, edge.link.lane.wanted()).await;
            assert_eq!(wanted, Ok(token));
            let (dialled, accepted) = connection().await;
            edge.link.lane.offer(dialled).unwrap();
            headend.link.lane.offer(accepted).unwrap();
            let up = || edge.link.lane.is_up() && headend.link.lane.is_up();
            while !up() {
                tokio::task::yield_now().await;
            }
            for (from, to) in [(edge, headend), (headend, edge)] {
                let datagram = cyclic(round.into(), from.link.max_datagram());
                from.link.send_datagram(&datagram).unwrap();
                let last = |r: &Recorder| r.datagrams.borrow().last() == Some(&datagram);
                to.recorder.until(last).await;
            }
            // Something else in its place, which then breaks off.
            let (other, gone) = connection().await;
            headend.link.lane.offer(other).unwrap();
            drop(gone);
        }
        // The tunnel itself has not noticed.
        headend.link.send_station(0, &[2; 60]).unwrap();
        edge.recorder.until(|r| !r.frames.borrow().is_empty()).await;
        let (link, driver) = (pair.edge.link.clone(), pair.edge.driver);
        link.close(Close::Shutdown, "done");
        timeout(PATIENCE, driver).await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_connection_for_datagrams_ends_with_the_tunnel() {
    locally(async {
        let pair = Pair::tls(&hello(0, &["a"]), Recorder::headend(Some([9; 16]))).await;
        pair.up().await;
        let (mut dialled, accepted) = connection().await;
        pair.headend.link.lane.offer(accepted).unwrap();
        pair.headend.link.close(Close::Shutdown, "done");
        pair.headend.end().await;
        let mut octets = Vec::new();
        let end = tokio::io::AsyncReadExt::read_to_end(&mut dialled, &mut octets);
        // With or without a farewell of TLS.
        let _ = timeout(PATIENCE, end).await.unwrap();
        assert!(octets.is_empty());
    })
    .await;
}

/// What a reader that stands still misses is old, and the last datagram is not.
#[tokio::test]
async fn of_datagrams_that_wait_the_newest_wins() {
    locally(async {
        let pair = Pair::tls(&hello(0, &["a"]), Recorder::headend(Some([9; 16]))).await;
        pair.up().await;
        let (edge, headend) = (&pair.edge, &pair.headend);
        let (dialled, mut accepted) = connection().await;
        edge.link.lane.offer(dialled).unwrap();
        let mut sent = 0_u32;
        let mut tick = interval(Duration::from_micros(200));
        // Until the path is full and has been for a while.
        while edge.link.counters.datagrams_replaced.get() < 1000 {
            tick.tick().await;
            for _ in 0..50 {
                let datagram = cyclic(sent, 1500);
                if edge.link.send_datagram(&datagram).is_ok() {
                    sent += 1;
                }
            }
        }
        let mut length = [0; 2];
        let mut datagram = [0; 1500];
        let mut seen: Vec<u32> = Vec::new();
        while seen.last() != Some(&(sent - 1)) {
            use tokio::io::AsyncReadExt;
            let read = async {
                accepted.read_exact(&mut length).await.unwrap();
                accepted.read_exact(&mut datagram).await.unwrap();
            };
            timeout(PATIENCE, read).await.unwrap();
            assert_eq!(length, 1500_u16.to_be_bytes());
            seen.push(u32::from_be_bytes(datagram[7..11].try_into().unwrap()));
        }
        assert!(seen.is_sorted());
        let replaced = edge.link.counters.datagrams_replaced.get();
        assert_eq!(seen.len() as u64 + replaced, u64::from(sent));
        assert_eq!(headend.link.counters.datagrams_received.get(), 0);
    })
    .await;
}

/// What `stations` with 200 octets every 10 ms send in `time`, over a path of 50 ms that loses a
/// tenth: the share that arrived.
async fn delivered(
    time: Duration,
    stations: usize,
    transport: impl Fn(u32) -> quinn::TransportConfig,
) -> f64 {
    let pair = Pair::quic(&hello(0, &["a"]), Recorder::default(), transport).await;
    pair.up().await;
    let wire = pair.wire.as_ref().unwrap();
    wire.delay(Duration::from_millis(25), Duration::ZERO);
    wire.loss(0.1);
    let mut tick = interval(Duration::from_millis(10));
    let count = time.as_millis() / 10;
    for _ in 0..count {
        tick.tick().await;
        for _ in 0..stations {
            pair.edge.link.send_datagram(&[7; 200]).unwrap();
        }
    }
    let received = &pair.headend.link.counters.datagrams_received;
    // Until nothing is under way any more, on a busy machine too.
    let mut seen = None;
    while seen.replace(received.get()) != Some(received.get()) {
        sleep(Duration::from_millis(300)).await;
    }
    received.get() as f64 / stations as f64 / count as f64
}

/// By CUBIC alone the shares are 0.91 and 0.32.
#[tokio::test]
async fn losses_do_not_starve_datagrams() {
    locally(async {
        for stations in [1, 16] {
            let share = delivered(Duration::from_secs(4), stations, with_stations).await;
            assert!(share >= 0.85 * 0.9, "{stations}: {share}");
        }
    })
    .await;
}
