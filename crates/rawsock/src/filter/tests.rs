//! The program in the kernel, without root: a filter works on any socket. Here a frame never
//! has a tag that was taken off and is always for this host; the tests on a veth pair have both.

use std::os::unix::net::UnixDatagram;

use socket2::SockRef;

use super::*;

const ADDRESSES: [u8; 12] = [0; 12];

fn passes(filter: &Filter, parts: &[&[u8]]) -> bool {
    let (sender, receiver) = UnixDatagram::pair().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let program = filter.program(&[]);
    SockRef::from(&receiver).attach_filter(&program).unwrap();
    let mut frame = ADDRESSES.to_vec();
    frame.extend(parts.concat());
    // Refused by the filter of the other end.
    let _ = sender.send(&frame);
    receiver.recv(&mut [0; 2_000]).is_ok()
}

#[test]
fn a_tag_in_the_frame_is_looked_behind() {
    let profinet = &[0x88, 0x92, 0x80, 0x01][..];
    let tags = [
        (&[][..], Vlans::None, true),
        (&[0x81, 0, 0xc0, 0][..], Vlans::None, true),
        (&[0x81, 0, 0xc0, 5], Vlans::None, false),
        (&[0x81, 0, 0xc0, 5], Vlans::One(5), true),
        (&[0x81, 0, 0xc0, 0], Vlans::One(5), true),
        (&[0x81, 0, 0xd0, 0], Vlans::One(5), true),
        (&[0x81, 0, 0xc0, 6], Vlans::One(5), false),
        (&[0x81, 0, 0xc1, 5], Vlans::One(5), false),
        (&[][..], Vlans::All, true),
        (&[0x81, 0, 0xc1, 5], Vlans::All, true),
        (&[0x81, 0, 0, 0, 0x81, 0, 0, 0], Vlans::None, false),
        (&[0x81, 0, 0, 4, 0x81, 0, 0, 4], Vlans::All, false),
        (&[0x88, 0xa8, 0, 0], Vlans::All, false),
    ];
    for (tag, vlans, expected) in tags {
        assert_eq!(
            passes(&Filter { vlans }, &[tag, profinet]),
            expected,
            "{tag:?} {vlans:?}"
        );
    }
}

#[test]
fn of_ipv4_only_udp_that_is_no_later_fragment_passes() {
    let ipv4 = |fragment: [u8; 2], protocol: u8| {
        let [a, b] = fragment;
        [0x08, 0, 0x45, 0, 0, 28, 0, 0, a, b, 64, protocol, 0, 0]
    };
    let packets = [
        (ipv4([0, 0], 17), true),
        (ipv4([0x40, 0], 17), true),
        (ipv4([0x20, 0], 17), true),
        (ipv4([0x20, 1], 17), false),
        (ipv4([0x1f, 0xff], 17), false),
        (ipv4([0, 0], 6), false),
        (ipv4([0, 0], 1), false),
    ];
    for (packet, expected) in packets {
        for tag in [&[][..], &[0x81, 0, 0, 0]] {
            let seen = passes(&Filter::default(), &[tag, &packet, &[0; 20]]);
            assert_eq!(seen, expected, "{packet:?} {tag:?}");
        }
    }
}

#[test]
fn a_frame_that_is_cut_short_does_not_pass() {
    let filter = Filter::default();
    for length in 0..2 {
        assert!(!passes(&filter, &[&[0x88, 0x92][..length]]));
        assert!(!passes(
            &filter,
            &[&[0x81, 0, 0, 0], &[0x88, 0x92][..length]]
        ));
    }
    let udp = [0x08, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17];
    for length in 2..udp.len() {
        assert!(!passes(&filter, &[&udp[..length]]));
    }
    assert!(passes(&filter, &[&udp]));
}

#[test]
fn the_longest_program_is_one_that_the_kernel_takes() {
    let joined = vec![Mac::DCP_HELLO; MOST_STATIONS];
    let (_, receiver) = UnixDatagram::pair().unwrap();
    let program = Filter::default().program(&joined);
    SockRef::from(&receiver).attach_filter(&program).unwrap();
}
