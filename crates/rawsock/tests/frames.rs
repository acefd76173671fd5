//! Frames over a veth pair in a network namespace of the test's own. Needs root; a test that
//! does not have it says so on stderr.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use std::time::{Duration, Instant};

use fieldlock_profinet::Mac;
use fieldlock_rawsock::{
    Counters, Filter, InterfaceError, JoinError, LONGEST_FRAME, LinkError, MOST_STATIONS,
    Namespace, OpenError, PacketSocket, Tap, Vlans, interface_mac,
};

const STATION: Mac = Mac([0x00, 0x1b, 0x1b, 1, 2, 3]);
const OTHER: Mac = Mac([0x00, 0x1b, 0x1b, 9, 9, 9]);
const PROFINET: [u8; 2] = [0x88, 0x92];
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

/// Runs a test in a namespace with `left` and `right`, the ends of a veth pair; or says why not.
fn on_a_wire(test: impl FnOnce() + Send) {
    let namespace = match Namespace::create() {
        Ok(namespace) => namespace,
        Err(error) => return eprintln!("skipped: needs root ({error})"),
    };
    let run = || {
        // A veth pair keeps the order of frames that are sent on one processor.
        let mut here = rustix::thread::CpuSet::new();
        here.set(rustix::thread::sched_getcpu());
        rustix::thread::sched_setaffinity(None, &here).unwrap();
        // Or the kernel would speak of its own accord.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        wait_up();
        test();
    };
    namespace.run(run).unwrap();
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

/// The kernel drops what is sent before it has taken notice of a carrier, some time after `up`.
fn wait_up() {
    let deadline = Instant::now() + LONG;
    let through = |from: &mut PacketSocket, to: &mut PacketSocket| {
        let probe = marker(to.mac());
        while to.try_recv(|_| {}).unwrap() == 0 {
            assert!(Instant::now() < deadline, "the link does not come up");
            from.try_send(&[&probe]).unwrap();
            std::thread::yield_now();
        }
    };
    let (mut left, mut right) = (open("left"), open("right"));
    through(&mut left, &mut right);
    through(&mut right, &mut left);
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn open(interface: &str) -> PacketSocket {
    PacketSocket::open(interface, Filter::default()).unwrap()
}

fn frame(to: Mac, rest: &[&[u8]]) -> Vec<u8> {
    let mut frame = [to.0, OTHER.0].concat();
    for part in rest {
        frame.extend_from_slice(part);
    }
    frame.resize(frame.len().max(60), 0);
    frame
}

fn tag(content: u16) -> [u8; 4] {
    let [a, b] = content.to_be_bytes();
    [0x81, 0x00, a, b]
}

/// A frame that every filter lets pass, to know that those before it have been judged.
fn marker(to: Mac) -> Vec<u8> {
    frame(to, &[&PROFINET, b"that was all"])
}

/// Sends frames and what marks their end, and returns what arrived beside the mark.
fn through(
    sender: &mut PacketSocket,
    receiver: &mut PacketSocket,
    frames: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let last = marker(receiver.mac());
    let all: Vec<&[u8]> = frames.iter().chain([&last]).map(Vec::as_slice).collect();
    assert_eq!(sender.try_send(&all).unwrap(), all.len());
    let mut arrived: Vec<Vec<u8>> = Vec::new();
    let deadline = Instant::now() + LONG;
    // Anywhere: a frame of before may come behind it.
    while !arrived.contains(&last) {
        let counters = (sender.counters(), receiver.counters());
        assert!(
            Instant::now() < deadline,
            "the mark did not arrive: {counters:?}"
        );
        let each = |frame: &[u8]| arrived.push(frame.to_vec());
        receiver.try_recv(each).unwrap();
        std::thread::yield_now();
    }
    arrived.retain(|frame| *frame != last);
    arrived
}

#[test]
fn tagged_and_untagged_frames_arrive_as_they_were_sent() {
    on_a_wire(|| {
        let (mut left, mut right) = (open("left"), open("right"));
        for (from, to) in [(true, "right"), (false, "left")] {
            let to = interface_mac(to).unwrap();
            let longest = vec![0xab; 1_500];
            let frames = [
                frame(to, &[&tag(0xc000), &PROFINET, &[0x80, 0x01, 1]]),
                frame(to, &[&PROFINET, &[0x80, 0x01, 2]]),
                frame(to, &[&tag(0xa000), &PROFINET, &[0xfe, 0x01, 3]]),
                frame(to, &[&tag(0x0000), &PROFINET, &longest]),
                frame(Mac::BROADCAST, &[&[0x08, 0x06], &[4; 46]]),
            ];
            let (sender, receiver) = match from {
                true => (&mut left, &mut right),
                false => (&mut right, &mut left),
            };
            assert_eq!(through(sender, receiver, &frames), frames);
        }
        // Six frames each, those that mark the end included.
        let expected = Counters {
            received: 6,
            sent: 6,
            ..Counters::default()
        };
        assert_eq!(left.counters(), expected);
        assert_eq!(right.counters(), expected);
    });
}

#[test]
fn other_protocols_and_vlans_end_in_the_kernel() {
    on_a_wire(|| {
        let (mut left, mut right) = (open("left"), open("right"));
        let to = right.mac();
        let ipv4 = |protocol: u8, fragment: [u8; 2]| {
            let [high, low] = fragment;
            let header = [0x45, 0, 0, 40, 0, 0, high, low, 64, protocol, 0, 0];
            frame(to, &[&[0x08, 0x00], &header, &[10; 28]])
        };
        let (udp, first) = (ipv4(17, [0x40, 0]), ipv4(17, [0x20, 0]));
        let frames = [
            ipv4(6, [0, 0]),
            ipv4(17, [0, 1]),
            udp.clone(),
            first.clone(),
            frame(to, &[&[0x86, 0xdd], &[0; 46]]),
            frame(to, &[&[0x88, 0xcc], &[0; 46]]),
            frame(to, &[&[0x88, 0xe3], &[0; 46]]),
            // IPX and STP, by length.
            frame(to, &[&[0x00, 0x2e], &[0xff; 46]]),
            frame(to, &[&[0x00, 0x26, 0x42, 0x42, 0x03], &[0; 46]]),
            frame(to, &[&tag(0x6005), &PROFINET, &[0; 46]]),
            frame(to, &[&tag(0x0000), &[0x88, 0xcc], &[0; 46]]),
            frame(to, &[&tag(0x0000), &tag(0x0000), &PROFINET, &[0; 46]]),
        ];
        assert_eq!(through(&mut left, &mut right, &frames), [udp, first]);
        // The kernel counts what passed the filter: nothing else has.
        assert_eq!(right.counters().received, 3);

        let vlan = Filter {
            vlans: Vlans::One(5),
        };
        right.set_filter(vlan).unwrap();
        let frames = [5, 6, 0].map(|id| frame(to, &[&tag(0x6000 | id), &PROFINET, &[1; 46]]));
        let passed = through(&mut left, &mut right, &frames);
        assert_eq!(passed, [frames[0].clone(), frames[2].clone()]);
    });
}

#[test]
fn frames_to_a_station_are_heard_while_it_is_joined() {
    on_a_wire(|| {
        let (mut left, mut right) = (open("left"), open("right"));
        let frames = [STATION, OTHER, Mac::DCP_IDENTIFY, Mac::DCP_HELLO]
            .map(|to| frame(to, &[&tag(0), &PROFINET, &[7; 46]]));
        let mut heard = |right: &mut PacketSocket| through(&mut left, right, &frames);
        assert!(heard(&mut right).is_empty());
        right.join(STATION).unwrap();
        right.join(STATION).unwrap();
        right.join(Mac::DCP_IDENTIFY).unwrap();
        let both = [frames[0].clone(), frames[2].clone()];
        assert_eq!(heard(&mut right), both);
        // A change of the filter keeps them.
        right
            .set_filter(Filter {
                vlans: Vlans::One(7),
            })
            .unwrap();
        assert_eq!(heard(&mut right), both);
        right.leave(STATION).unwrap();
        right.leave(STATION).unwrap();
        assert_eq!(heard(&mut right), [frames[2].clone()]);
    });
}

#[test]
fn as_many_stations_are_joined_as_are_promised_and_no_more() {
    on_a_wire(|| {
        // What older kernels have; those that don't let a namespace choose keep theirs.
        let _ = std::fs::write("/proc/sys/net/core/optmem_max", "20480");
        let (mut left, mut right) = (open("left"), open("right"));
        let station = |number: usize| {
            let [.., high, low] = number.to_be_bytes();
            Mac([2, 0, 0, 0, high, low])
        };
        for number in 0..MOST_STATIONS {
            right.join(station(number)).unwrap();
        }
        let more = right.join(station(MOST_STATIONS)).unwrap_err();
        assert!(matches!(more, JoinError::TooMany(mac) if mac == station(MOST_STATIONS)));
        let frames = [0, MOST_STATIONS - 1, MOST_STATIONS]
            .map(|number| frame(station(number), &[&PROFINET, &[1; 46]]));
        assert_eq!(through(&mut left, &mut right, &frames), frames[..2]);
    });
}

#[test]
fn own_frames_and_those_of_neighbours_on_the_host_are_not_heard() {
    on_a_wire(|| {
        let (mut left, mut beside) = (open("left"), open("left"));
        let sent = frame(Mac::BROADCAST, &[&PROFINET, &[1; 46]]);
        assert_eq!(left.try_send(&[&sent]).unwrap(), 1);
        for socket in [&mut left, &mut beside] {
            assert_eq!(socket.try_recv(|_| {}).unwrap(), 0);
        }
    });
}

#[test]
fn frames_longer_than_any_wire_carries_are_counted_and_left_out() {
    on_a_wire(|| {
        ip("link set left mtu 9000");
        ip("link set right mtu 9000");
        let (mut left, mut right) = (open("left"), open("right"));
        let to = right.mac();
        let fits = frame(to, &[&PROFINET, &[1; LONGEST_FRAME - 14]]);
        let frames = [
            frame(to, &[&PROFINET, &[1; LONGEST_FRAME - 13]]),
            // Short enough without its tag alone.
            frame(to, &[&tag(0), &PROFINET, &[1; LONGEST_FRAME - 17]]),
            frame(to, &[&PROFINET, &[1; 8_000]]),
            fits.clone(),
        ];
        assert_eq!(through(&mut left, &mut right, &frames), [fits]);
        assert_eq!(right.counters().too_long, 3);
    });
}

#[test]
fn a_frame_that_the_kernel_refuses_is_counted_and_others_go_on() {
    on_a_wire(|| {
        let (mut left, mut right) = (open("left"), open("right"));
        let good = frame(right.mac(), &[&PROFINET, &[1; 46]]);
        let frames = [good.clone(), vec![0; 5], vec![1; 4_000], good.clone()];
        assert_eq!(
            through(&mut left, &mut right, &frames),
            [good.clone(), good]
        );
        assert_eq!(left.counters().send_errors, 2);
    });
}

#[test]
fn more_frames_than_one_batch_arrive_in_order() {
    on_a_wire(|| {
        let (mut left, mut right) = (open("left"), open("right"));
        let frames: Vec<_> = (0..100)
            .map(|number| frame(right.mac(), &[&tag(0xc000), &PROFINET, &[number; 46]]))
            .collect();
        assert_eq!(through(&mut left, &mut right, &frames), frames);
    });
}

#[test]
fn what_finds_no_room_in_the_kernel_is_counted() {
    on_a_wire(|| {
        let (mut left, mut right) = (open("left"), open("right"));
        let one = frame(right.mac(), &[&PROFINET, &[1; 46]]);
        // A few at a time, as they arrive beside it: the queue of the processor, before all
        // sockets, is shared with other tests.
        let mut beside = open("right");
        let deadline = Instant::now() + LONG;
        while right.counters().dropped_by_kernel == 0 {
            assert!(Instant::now() < deadline, "there is always room");
            left.try_send(&[one.as_slice(); 20]).unwrap();
            let (mut seen, patience) = (0, Instant::now() + SHORT);
            while seen < 20 && Instant::now() < patience {
                seen += beside.try_recv(|_| {}).unwrap();
                std::thread::yield_now();
            }
        }
        assert!(right.try_recv(|_| {}).unwrap() > 0);
    });
}

#[test]
fn an_interface_that_goes_down_is_noticed_and_heard_again() {
    on_a_wire(|| {
        let (mut left, mut right) = (open("left"), open("right"));
        right.join(STATION).unwrap();
        ip("link set right down");
        let wait = right.recv(|_| {});
        let noticed = runtime().block_on(async { tokio::time::timeout(LONG, wait).await.unwrap() });
        assert!(matches!(noticed, Err(LinkError::Down)), "{noticed:?}");
        let one = frame(STATION, &[&tag(0xc000), &PROFINET, &[1; 46]]);
        assert!(matches!(right.try_send(&[&one]), Err(LinkError::Down)));
        ip("link set right up");
        wait_up();
        while right.try_recv(|_| {}).unwrap() > 0 {}
        let frames = [one];
        assert_eq!(through(&mut left, &mut right, &frames), frames);
    });
}

#[test]
fn an_interface_that_is_removed_is_noticed() {
    on_a_wire(|| {
        let mut right = open("right");
        ip("link del left");
        assert!(matches!(right.try_recv(|_| {}), Err(LinkError::Removed)));
        let one = frame(STATION, &[&PROFINET, &[1; 46]]);
        assert!(matches!(right.try_send(&[&one]), Err(LinkError::Removed)));
    });
}

#[test]
fn a_wait_that_is_dropped_loses_no_frame() {
    on_a_wire(|| {
        let (mut left, mut right) = (open("left"), open("right"));
        runtime().block_on(async {
            let wait = tokio::time::timeout(SHORT, right.recv(|_| {}));
            assert!(wait.await.is_err());
            let one = frame(right.mac(), &[&PROFINET, &[1; 46]]);
            assert_eq!(left.send(&[&one]).await.unwrap(), 1);
            let mut seen = Vec::new();
            let wait = right.recv(|frame| seen.push(frame.to_vec()));
            tokio::time::timeout(LONG, wait).await.unwrap().unwrap();
            assert_eq!(seen, [one]);
        });
    });
}

#[test]
fn what_can_not_be_opened_says_why() {
    on_a_wire(|| {
        let open = |name, filter| PacketSocket::open(name, filter).unwrap_err();
        let interface = |name| match open(name, Filter::default()) {
            OpenError::Interface(error) => error,
            other => panic!("{other}"),
        };
        assert!(matches!(interface("middle"), InterfaceError::Missing(_)));
        assert!(matches!(interface("lo"), InterfaceError::NotEthernet(_)));
        ip("link set left down");
        assert!(matches!(interface("left"), InterfaceError::Down(_)));
        let vlan = open(
            "right",
            Filter {
                vlans: Vlans::One(4095),
            },
        );
        assert!(matches!(vlan, OpenError::Vlan(4095)));
        // Another user has no capabilities.
        let bare = rustix::thread::CapabilitySets {
            effective: rustix::thread::CapabilitySet::empty(),
            permitted: rustix::thread::CapabilitySet::empty(),
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, bare).unwrap();
        let denied = open("right", Filter::default());
        assert!(matches!(denied, OpenError::NotPermitted(name) if name == "right"));
    });
}

#[test]
fn a_checksum_that_was_left_to_the_card_is_completed() {
    on_a_wire(|| {
        ip("addr add 10.9.0.1/24 dev left");
        ip("neigh add 10.9.0.2 lladdr 00:1b:1b:01:02:03 dev left");
        let mut right = open("right");
        right.join(STATION).unwrap();
        let socket = std::net::UdpSocket::bind("10.9.0.1:34964").unwrap();
        socket.send_to(b"abc", "10.9.0.2:34964").unwrap();
        let mut seen = Vec::new();
        let wait = right.recv(|frame| seen.push(frame.to_vec()));
        runtime().block_on(async { tokio::time::timeout(LONG, wait).await.unwrap().unwrap() });
        let datagram = &seen[0][34..];
        let pseudo = [&seen[0][26..34], &[0, 17, 0, 11]].concat();
        let words = [&pseudo, datagram, &[0]].concat();
        let sum: u64 = words
            .chunks(2)
            .map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        assert_eq!(sum % 0xffff, 0);
    });
}

#[test]
fn a_tap_carries_tagged_frames_both_ways() {
    on_a_wire(|| {
        let tap = Tap::create(Some("wire")).unwrap();
        assert_eq!(tap.name(), "wire");
        let unnamed = Tap::create(None).unwrap();
        assert_eq!(unnamed.name(), "tap0");
        assert!(Tap::create(Some("not/this")).is_err());
        let mut socket = open("wire");
        let there = frame(STATION, &[&tag(0xc000), &PROFINET, &[1; 46]]);
        let back = frame(socket.mac(), &[&tag(0xa000), &PROFINET, &[2; 46]]);
        runtime().block_on(async {
            assert_eq!(socket.send(&[&there]).await.unwrap(), 1);
            let mut buffer = [0; LONGEST_FRAME];
            let wait = tokio::time::timeout(LONG, tap.recv(&mut buffer));
            let length = wait.await.unwrap().unwrap();
            assert_eq!(buffer[..length], there);
            tap.send(&back).unwrap();
            let mut seen = Vec::new();
            let wait = socket.recv(|frame| seen.push(frame.to_vec()));
            tokio::time::timeout(LONG, wait).await.unwrap().unwrap();
            assert_eq!(seen, [back]);
        });
    });
}
