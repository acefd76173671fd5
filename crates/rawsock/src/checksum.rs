//! UDP checksums that were left to a network card.
//!
//! A frame that another program of this machine sends over a veth pair or a bridge never meets
//! a card. Its checksum field holds the sum over the pseudo-header alone (Linux,
//! CHECKSUM_PARTIAL), and a station behind a tunnel would drop it.

const IPV4: [u8; 2] = [0x08, 0x00];
const ETHERNET: usize = 14;
const UDP: u8 = 17;

/// Completes the UDP checksum of an untagged IPv4 frame whose field holds the sum over the
/// pseudo-header. Other frames are left alone.
pub(crate) fn complete_udp(frame: &mut [u8]) {
    let Some(ip) = frame.get(ETHERNET..) else {
        return;
    };
    if frame.get(12..14) != Some(&IPV4) || ip.get(9) != Some(&UDP) || ip.len() < 20 {
        return;
    }
    let header = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let Some(datagram) = frame.get_mut(ETHERNET + header..ETHERNET + total) else {
        return;
    };
    let sum = !folded(datagram);
    if let Some(field) = datagram.get_mut(6..8) {
        // Nothing but zeros means that there is no checksum (RFC 768).
        let sum = if sum == 0 { 0xffff } else { sum };
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// The ones' complement sum of 16-bit words (RFC 1071).
fn folded(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    // At most 65,535 octets: the sum fits.
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1:1000 to 10.0.0.2:2000, "abc".
    fn frame() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x03, 0xe8, 0x07, 0xd0, 0, 11, 0, 0, b'a', b'b', b'c']);
        frame
    }

    fn pseudo_header() -> [u8; 12] {
        [10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0, 11]
    }

    #[test]
    fn a_completed_checksum_makes_the_sum_come_out() {
        let mut frame = frame();
        frame[40..42].copy_from_slice(&folded(&pseudo_header()).to_be_bytes());
        complete_udp(&mut frame);
        let all = [&pseudo_header(), &frame[34..]].concat();
        assert_eq!(folded(&all), 0xffff);
        // As computed by hand.
        assert_eq!(frame[40..42], [0x1b, 0xbb]);
    }

    #[test]
    fn what_is_cut_short_or_no_udp_is_left_alone() {
        let whole = frame();
        for length in 0..whole.len() {
            let mut short = whole[..length].to_vec();
            complete_udp(&mut short);
            assert_eq!(short, whole[..length]);
        }
        let mut tcp = frame();
        tcp[23] = 6;
        let before = tcp.clone();
        complete_udp(&mut tcp);
        assert_eq!(tcp, before);
    }

    #[test]
    fn lengths_that_contradict_each_other_are_left_alone() {
        for (header, total) in [(0x4f, 31), (0x45, 10), (0x40, 3), (0x45, 0xff)] {
            let mut frame = frame();
            (frame[14], frame[17]) = (header, total);
            let before = frame.clone();
            complete_udp(&mut frame);
            if header == 0x45 || header == 0x4f {
                assert_eq!(frame, before);
            }
        }
    }
}
