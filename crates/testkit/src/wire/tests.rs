use super::*;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(5);

/// Echoes UDP and TCP on one port, as long as the test process lives.
fn echo() -> SocketAddr {
    let (udp, tcp) = bind_both(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    udp.set_nonblocking(false).unwrap();
    tcp.set_nonblocking(false).unwrap();
    let address = tcp.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&buffer[..length], from).unwrap();
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            thread::spawn(move || {
                let mut write = stream.try_clone().unwrap();
                io::copy(&mut stream, &mut write)
            });
        }
    });
    address
}

fn udp_client(wire: &Wire) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(wire.address()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn tcp_client(wire: &Wire) -> TcpStream {
    let stream = TcpStream::connect(wire.address()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn udp_echo(socket: &UdpSocket, text: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(text)?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

fn tcp_echo(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(text)?;
    let mut buffer = vec![0; text.len()];
    stream.read_exact(&mut buffer)?;
    Ok(buffer)
}

#[test]
fn both_protocols_pass_on_one_port_and_are_counted() {
    let wire = Wire::start(echo()).unwrap();
    let (first, second) = (udp_client(&wire), udp_client(&wire));
    assert_eq!(udp_echo(&first, b"one").unwrap(), b"one");
    assert_eq!(udp_echo(&second, b"three").unwrap(), b"three");
    assert_eq!(
        tcp_echo(&mut tcp_client(&wire), b"stream").unwrap(),
        b"stream"
    );
    for direction in [Direction::Up, Direction::Down] {
        let carried = wire.carried(direction);
        assert_eq!((carried.udp_packets, carried.udp_bytes), (2, 8));
        assert_eq!(carried.udp_dropped, 0);
        assert_eq!(carried.tcp_bytes, 6);
    }
    assert_eq!(wire.carried(Direction::Up).tcp_connections, 1);
}

#[test]
fn a_cut_is_silent_and_tcp_goes_on_afterwards() {
    let wire = Wire::start(echo()).unwrap();
    let udp = udp_client(&wire);
    let mut tcp = tcp_client(&wire);
    tcp_echo(&mut tcp, b"before").unwrap();
    udp_echo(&udp, b"before").unwrap();

    wire.cut();
    let mut late = tcp_client(&wire);
    for stream in [&mut tcp, &mut late] {
        stream.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(
            tcp_echo(stream, b"held").unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        stream.set_read_timeout(Some(LONG)).unwrap();
    }
    udp.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(
        udp_echo(&udp, b"gone").unwrap_err().kind(),
        ErrorKind::WouldBlock
    );

    wire.restore();
    for stream in [&mut tcp, &mut late] {
        let mut held = [0; 4];
        stream.read_exact(&mut held).unwrap();
        assert_eq!(&held, b"held");
    }
    udp.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(udp_echo(&udp, b"after").unwrap(), b"after");
    assert_eq!(wire.carried(Direction::Up).udp_dropped, 1);
}

#[test]
fn a_firewall_may_stop_one_protocol() {
    let wire = Wire::start(echo()).unwrap();
    let udp = udp_client(&wire);
    udp.set_read_timeout(Some(SHORT)).unwrap();
    wire.block_udp(true);
    assert!(udp_echo(&udp, b"x").is_err());
    let mut tcp = tcp_client(&wire);
    assert_eq!(tcp_echo(&mut tcp, b"passes").unwrap(), b"passes");
    wire.block_udp(false);
    wire.block_tcp(true);
    assert_eq!(udp_echo(&udp, b"y").unwrap(), b"y");
    tcp.set_read_timeout(Some(SHORT)).unwrap();
    assert!(tcp_echo(&mut tcp, b"stops").is_err());
}

#[test]
fn a_reset_reaches_both_ends_and_new_connections_live() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let wire = Wire::start(listener.local_addr().unwrap()).unwrap();
    let mut client = tcp_client(&wire);
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    wire.reset_tcp();
    for (name, end) in [("client", &mut client), ("server", &mut server)] {
        let read = end.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::ConnectionReset), "{name}");
    }
    let mut again = tcp_client(&wire);
    let (mut server, _) = listener.accept().unwrap();
    again.write_all(b"!").unwrap();
    server.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn an_end_of_stream_passes_and_leaves_the_other_half_open() {
    let wire = Wire::start(echo()).unwrap();
    let mut client = tcp_client(&wire);
    client.write_all(b"all of it").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"all of it");
}

#[test]
fn delay_adds_up_in_both_directions() {
    let wire = Wire::start(echo()).unwrap();
    wire.delay(Duration::from_millis(30), Duration::from_millis(5));
    let start = Instant::now();
    udp_echo(&udp_client(&wire), b"slow").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(60));
    let start = Instant::now();
    tcp_echo(&mut tcp_client(&wire), b"slow").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(60));
}

/// Sends numbered datagrams upwards only and returns what the target saw.
fn seen_through(seed: u64, count: u8, change: impl FnOnce(&mut Shape)) -> Vec<u8> {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(SHORT)).unwrap();
    let wire = Wire::start_seeded(target.local_addr().unwrap(), seed).unwrap();
    wire.shape(Direction::Up, change);
    let client = udp_client(&wire);
    for number in 0..count {
        client.send(&[number]).unwrap();
    }
    let mut seen = Vec::new();
    let mut buffer = [0; 1];
    while target.recv(&mut buffer).is_ok() {
        seen.push(buffer[0]);
    }
    seen
}

#[test]
fn loss_duplicates_and_reordering_follow_the_seed() {
    let lossy = |seed| seen_through(seed, 200, |shape| shape.loss = 0.3);
    let seen = lossy(5);
    assert!((110..170).contains(&seen.len()), "{}", seen.len());
    assert!(seen.is_sorted());
    assert_eq!(seen, lossy(5));

    let twice = seen_through(5, 100, |shape| shape.duplicate = 1.0);
    assert_eq!(twice.len(), 200);

    let mut mixed = seen_through(5, 100, |shape| shape.reorder = 0.2);
    assert!(!mixed.is_sorted());
    mixed.sort_unstable();
    assert_eq!(mixed, (0..100).collect::<Vec<u8>>());
}

#[test]
fn corruption_changes_a_byte_and_keeps_the_length() {
    let changed = seen_through(1, 10, |shape| shape.corrupt = 1.0);
    assert_eq!(
        changed,
        (0..10).map(|byte| byte ^ 0x55).collect::<Vec<u8>>()
    );
}

#[test]
fn a_target_that_is_gone_resets_and_may_be_replaced() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let wire = Wire::start(gone).unwrap();
    let error = tcp_client(&wire).read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    wire.redirect(echo());
    assert_eq!(tcp_echo(&mut tcp_client(&wire), b"here").unwrap(), b"here");
}

#[test]
fn ipv6_passes_where_the_machine_has_it() {
    let Ok(target) = UdpSocket::bind("[::1]:0") else {
        eprintln!("skipped: no IPv6 on loopback");
        return;
    };
    let wire = Wire::start(target.local_addr().unwrap()).unwrap();
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.send_to(b"six", wire.address()).unwrap();
    let mut buffer = [0; 8];
    target.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(target.recv(&mut buffer).unwrap(), 3);
}
