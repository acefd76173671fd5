//! The program with real interfaces and sockets. What needs root says so on stderr without it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fieldlock_rawsock::{Filter, Namespace, PacketSocket};
use fieldlock_testkit::process::Process;

const LONG: Duration = Duration::from_secs(10);

fn wire() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fieldlock-wire"))
}

fn start(directory: &Path, arguments: &[&str]) -> Process {
    let mut wire = Process::start("wire", wire().args(arguments), directory).unwrap();
    wire.wait_log("carrying", LONG).unwrap();
    wire
}

fn replays(log: &Path) -> bool {
    let replay = wire()
        .arg("replay")
        .arg(log)
        .stdout(Stdio::piped())
        .output();
    let replay = replay.unwrap();
    replay.status.success() && replay.stdout == fs::read(log).unwrap()
}

/// Frames that arrive in `time`, or until there are `count`.
fn receive(socket: &mut PacketSocket, count: usize, time: Duration) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + time;
    let mut seen = Vec::new();
    while seen.len() < count && Instant::now() < deadline {
        let each = |frame: &[u8]| seen.push(frame.to_vec());
        if socket.try_recv(each).unwrap() == 0 {
            std::thread::yield_now();
        }
    }
    seen
}

/// A tagged cyclic frame to all.
fn frame(number: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([
        0, 0x1b, 0x1b, 1, 2, 3, 0x81, 0, 0xc0, 0, 0x88, 0x92, 0x80, 0x01,
    ]);
    frame.resize(60, number);
    frame
}

#[test]
fn a_wire_between_two_interfaces_carries_tagged_frames_and_its_log_replays() {
    let namespace = match Namespace::create() {
        Ok(namespace) => namespace,
        Err(error) => return eprintln!("skipped: needs root ({error})"),
    };
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("run.csv");
    let test = || {
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let arguments = format!(
            "tap left right --loss 30% --delay 2ms --jitter 1ms --duplicate 10% --corrupt 10% \
             --seed 7 --log {}",
            log.display()
        );
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let mut wire = start(directory.path(), &arguments);
        let open = |name| PacketSocket::open(name, Filter::default()).unwrap();
        let (mut left, mut right) = (open("left"), open("right"));
        let frames: Vec<_> = (0..100).map(frame).collect();
        let sent: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let both_ways = |from: &mut PacketSocket, to: &mut PacketSocket| {
            assert_eq!(from.try_send(&sent).unwrap(), 100);
            let seen = receive(to, 100, Duration::from_secs(1));
            assert!((50..95).contains(&seen.len()), "{}", seen.len());
            let whole = seen.iter().filter(|frame| sent.contains(&frame.as_slice()));
            assert!(whole.clone().count() > 40);
            // Duplicates beside each other, and else in order.
            assert!(whole.map(|frame| frame[30]).is_sorted());
        };
        both_ways(&mut left, &mut right);
        both_ways(&mut right, &mut left);
        wire.terminate();
        assert!(wire.wait_exit(LONG).unwrap().success());
    };
    namespace.run(test).unwrap();
    // The frames of both directions, one line each, under the command and the columns.
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 202);
    assert!(replays(&log));
    let tampered = text.replacen(",loss,", ",deliver,2000000", 1);
    fs::write(&log, tampered).unwrap();
    assert!(!replays(&log));
}

#[test]
fn the_two_ends_may_be_in_namespaces_with_names() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = format!("wire-test-{}-", std::process::id());
    let rig = |action| {
        let mut command = wire();
        command.args(["rig", action, "--prefix", &prefix]);
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    if !rig("up") {
        return eprintln!("skipped: needs root");
    }
    // A second one of the same name is refused, and the first lives on.
    assert!(!rig("up"));
    let named = |name: &str| Namespace::named(&format!("{prefix}{name}")).unwrap();
    let (controller, device) = (named("controller"), named("device"));
    let (a, b) = (format!("{prefix}controller"), format!("{prefix}device"));
    let wire = start(
        directory.path(),
        &["tap", "bare", "bare", "--netns-a", &a, "--netns-b", &b],
    );
    let open = |namespace: &Namespace| {
        let opened = namespace.run(|| PacketSocket::open("bare", Filter::default()));
        opened.unwrap().unwrap()
    };
    let (mut left, mut right) = (open(&controller), open(&device));
    assert_eq!(left.try_send(&[&frame(1)]).unwrap(), 1);
    assert_eq!(receive(&mut right, 1, LONG), [frame(1)]);
    drop(wire);
    assert!(rig("down"));
    assert!(!rig("down"));
}

#[test]
fn many_udp_clients_each_get_their_own_answers() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("run.csv");
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap().to_string();
    let listen = fieldlock_testkit::ports::free_address().unwrap();
    let listen_text = listen.to_string();
    let arguments = [
        "udp",
        "--listen",
        &listen_text,
        "--to",
        &to,
        "--jitter",
        "1ms",
        "--delay",
        "5ms",
        "--log",
    ];
    let mut wire = start(
        directory.path(),
        &[&arguments[..], &[log.to_str().unwrap()]].concat(),
    );
    let clients: Vec<_> = (0..10_u8)
        .map(|number| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(LONG)).unwrap();
            client.connect(listen).unwrap();
            client.send(&[number]).unwrap();
            client
        })
        .collect();
    target.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = [0; 8];
    let sent = Instant::now();
    for _ in &clients {
        let (length, from) = target.recv_from(&mut buffer).unwrap();
        target.send_to(&[buffer[0], 0xaa], from).unwrap();
        assert_eq!(length, 1);
    }
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(client.recv(&mut buffer).unwrap(), 2);
        assert_eq!(buffer[..2], [number as u8, 0xaa]);
    }
    assert!(sent.elapsed() >= Duration::from_millis(5));
    wire.terminate();
    assert!(wire.wait_exit(LONG).unwrap().success());
    assert!(replays(&log));
}

#[test]
fn a_log_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.csv");
    let columns = "number,nanoseconds,client,direction,length,decision,delay_nanoseconds";
    for text in [
        String::new(),
        "# fieldlock-wire tap a b\n".to_owned(),
        format!("# fieldlock-wire rig up\n{columns}\n"),
        format!("# fieldlock-wire tap a b --loss 200%\n{columns}\n"),
        format!("# fieldlock-wire tap a b\n{columns}\n1,2,3\n"),
        format!("# fieldlock-wire tap a b\n{columns}\n1,1,0,2,60,deliver,0\n"),
        format!("# fieldlock-wire tap a b\n{columns}\n1,1,0,0,60,deliver,1\n"),
    ] {
        fs::write(&file, &text).unwrap();
        assert!(!replays(&file), "{text}");
    }
    fs::write(
        &file,
        format!("# fieldlock-wire tap a b\n{columns}\n1,1,0,0,60,deliver,0\n"),
    )
    .unwrap();
    assert!(replays(&file));
}
