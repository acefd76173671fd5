//! Frames per second over a veth pair, in a namespace of its own (root). Each measurement sends
//! 32 cyclic frames of 60 octets, tag included, and receives them again, so that the cost of a
//! frame is that of its whole way through the kernel, twice through a system call.
//!
//! On a virtual machine of two processors (Linux 6.18): 485,000 frames/s in batches and 330,000
//! one by one, as many as UDP over loopback (369,000). A cell of 32 devices at 1 ms each way is
//! 64,000. A ring shared with the kernel (PACKET_RX_RING) would spare copies of 60 octets and a
//! system call in 32 frames: not needed.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::net::UdpSocket;

use divan::{Bencher, counter::ItemsCount};
use fieldlock_profinet::Mac;
use fieldlock_rawsock::{BATCH, Filter, MOST_STATIONS, Namespace, PacketSocket};

fn main() {
    let namespace = match Namespace::create() {
        Ok(namespace) => namespace,
        Err(error) => return eprintln!("skipped: needs root ({error})"),
    };
    let run = || {
        for arguments in [
            "link add left type veth peer name right",
            "link set left up",
            "link set right up",
            "link set lo up",
        ] {
            let arguments = arguments.split(' ');
            std::process::Command::new("ip")
                .args(arguments)
                .status()
                .unwrap();
        }
        divan::main();
    };
    namespace.run(run).unwrap();
}

fn cyclic(to: Mac) -> Vec<u8> {
    let mut frame = [to.0, [0, 0x1b, 0x1b, 1, 2, 3]].concat();
    frame.extend([0x81, 0, 0xc0, 0, 0x88, 0x92, 0x80, 0x01]);
    frame.resize(60, 0);
    frame
}

fn pair() -> (PacketSocket, PacketSocket, Vec<u8>) {
    let open = |name| PacketSocket::open(name, Filter::default()).unwrap();
    let (left, right) = (open("left"), open("right"));
    let frame = cyclic(right.mac());
    (left, right, frame)
}

fn receive(socket: &mut PacketSocket, count: usize) {
    let mut seen = 0;
    while seen < count {
        seen += socket.try_recv(|frame| _ = black_box(frame)).unwrap();
    }
}

/// As the agent does it under load: 32 frames in a call.
#[divan::bench]
fn in_batches(bencher: Bencher<'_, '_>) {
    let (mut left, mut right, frame) = pair();
    let frames = [frame.as_slice(); BATCH];
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        left.try_send(&frames).unwrap();
        receive(&mut right, BATCH);
    });
}

/// As it does when frames are rare: each comes by itself.
#[divan::bench]
fn one_by_one(bencher: Bencher<'_, '_>) {
    let (mut left, mut right, frame) = pair();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for _ in 0..BATCH {
            left.try_send(&[&frame]).unwrap();
            receive(&mut right, 1);
        }
    });
}

/// What the kernel takes to refuse a frame: to the last of as many stations as there may be.
#[divan::bench(args = [0, 32, MOST_STATIONS])]
fn past_joined_stations(bencher: Bencher<'_, '_>, stations: usize) {
    let (mut left, mut right, _) = pair();
    for number in 0..stations {
        let [.., high, low] = number.to_be_bytes();
        right.join(Mac([2, 0, 0, 0, high, low])).unwrap();
    }
    let frame = cyclic(Mac([2, 0, 0, 0, 0xff, 0xff]));
    let frames = [frame.as_slice(); BATCH];
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        left.try_send(&frames).unwrap();
    });
}

/// For comparison: a UDP datagram of the same length over loopback, a call each.
#[divan::bench]
fn udp_on_loopback(bencher: Bencher<'_, '_>) {
    let (left, right) = (
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    left.connect(right.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 60];
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for _ in 0..BATCH {
            left.send(&[0; 60]).unwrap();
            right.recv(&mut buffer).unwrap();
        }
    });
}
