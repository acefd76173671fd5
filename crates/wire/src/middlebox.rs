//! What firewalls, routers and translators of addresses do to IPv4 packets on their way. All else
//! passes as it is.

use clap::{Args, ValueEnum};
use fieldlock_testkit::link::damage;

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// To both directions alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct Middlebox {
    /// A firewall that drops this and says nothing. May be given again.
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    block: Vec<Protocol>,
    /// IPv4 packets that are longer vanish, and no ICMP says so: a black hole.
    #[arg(long, value_name = "OCTETS")]
    largest: Option<u16>,
    /// A NAT: ports of A are seen by B so much higher. Another number is another NAT's.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    shift_ports: u16,
    /// What --corrupt damages behind the headers has a checksum that fits: only who looks closer
    /// finds it.
    #[arg(long)]
    repair: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Udp,
    Tcp,
}

impl Middlebox {
    /// Whether a frame passes; its ports are translated. Direction 0 is from A to B.
    pub(crate) fn pass(&self, direction: usize, frame: &mut [u8]) -> bool {
        let Some(packet) = Packet::of(frame) else {
            return true;
        };
        let blocked = match packet.protocol {
            TCP => self.block.contains(&Protocol::Tcp),
            UDP => self.block.contains(&Protocol::Udp),
            _ => false,
        };
        if blocked || self.largest.is_some_and(|most| packet.total > most.into()) {
            return false;
        }
        if self.shift_ports != 0 {
            packet.shift_port(frame, direction, self.shift_ports);
        }
        true
    }

    /// Damages the octet at `at`.
    pub(crate) fn damage(&self, frame: &mut [u8], at: usize) {
        let packet = Packet::of(frame).filter(|packet| self.repair && packet.has_content(at));
        match packet {
            None => damage(frame, at),
            Some(packet) => packet.change(frame, at & !1, |frame| damage(frame, at)),
        }
    }
}

/// Where things are in a frame with a whole IPv4 packet of TCP or UDP, the first of its fragments.
struct Packet {
    protocol: u8,
    /// Length of the IP packet.
    total: usize,
    /// Where TCP or UDP begins in the frame, and its content.
    transport: usize,
    content: usize,
}

impl Packet {
    fn of(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        if frame.get(12..14) != Some(&IPV4) || ip.len() < 20 {
            return None;
        }
        let header = usize::from(ip[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let later_fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff != 0;
        let transport = ETHERNET + header;
        let content = match ip[9] {
            TCP => transport + usize::from(*frame.get(transport + 12)? >> 4) * 4,
            UDP => transport + 8,
            _ => return None,
        };
        let sound = header >= 20 && content <= ETHERNET + total && total <= ip.len();
        (sound && !later_fragment).then_some(Self {
            protocol: ip[9],
            total,
            transport,
            content,
        })
    }

    fn has_content(&self, at: usize) -> bool {
        (self.content..ETHERNET + self.total).contains(&at)
    }

    fn shift_port(&self, frame: &mut [u8], direction: usize, by: u16) {
        let at = self.transport + 2 * direction;
        self.change(frame, at, |frame| {
            let port = u16::from_be_bytes([frame[at], frame[at + 1]]);
            let port = match direction {
                0 => port.wrapping_add(by),
                _ => port.wrapping_sub(by),
            };
            frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
        });
    }

    /// Changes the 16-bit word at `at` (Ethernet's header is even) and the checksum with it
    /// (RFC 1624, equation 3).
    fn change(&self, frame: &mut [u8], at: usize, change: impl FnOnce(&mut [u8])) {
        let word = |frame: &[u8], at: usize| {
            let octet = |at| frame.get(at).copied().unwrap_or(0);
            // An odd last octet is summed with a zero; what follows is Ethernet's padding.
            let low = if at + 1 < ETHERNET + self.total {
                octet(at + 1)
            } else {
                0
            };
            u16::from_be_bytes([octet(at), low])
        };
        let place = self.transport + if self.protocol == TCP { 16 } else { 6 };
        let (old, sum) = (word(frame, at), word(frame, place));
        change(frame);
        let new = word(frame, at);
        if self.protocol == UDP && sum == 0 {
            // It has none.
            return;
        }
        let mut repaired = u32::from(!sum) + u32::from(!old) + u32::from(new);
        while repaired > 0xffff {
            repaired = (repaired & 0xffff) + (repaired >> 16);
        }
        let repaired = match !(repaired as u16) {
            0 if self.protocol == UDP => 0xffff,
            repaired => repaired,
        };
        frame[place..place + 2].copy_from_slice(&repaired.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1:1000 to 10.0.0.2:2000, "abc", with its checksum.
    fn udp() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x03, 0xe8, 0x07, 0xd0, 0, 11, 0x1b, 0xbb, b'a', b'b', b'c']);
        frame
    }

    /// Of the pseudo-header and the datagram: all ones when the checksum fits.
    fn sum(frame: &[u8]) -> u16 {
        let mut octets = [&frame[26..34], &[0, 17, 0, 11], &frame[34..45]].concat();
        octets.push(0);
        let words = octets
            .chunks(2)
            .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn what_is_blocked_or_too_long_vanishes_and_all_else_passes() {
        let with = |block: &[Protocol], largest| Middlebox {
            block: block.to_vec(),
            largest,
            ..Middlebox::default()
        };
        assert!(with(&[], None).pass(0, &mut udp()));
        assert!(!with(&[Protocol::Udp], None).pass(0, &mut udp()));
        assert!(with(&[Protocol::Tcp], None).pass(1, &mut udp()));
        assert!(with(&[], Some(31)).pass(0, &mut udp()));
        assert!(!with(&[], Some(30)).pass(0, &mut udp()));
        let mut arp = udp();
        arp[13] = 6;
        assert!(with(&[Protocol::Udp], Some(0)).pass(0, &mut arp));
        for length in 0..udp().len() {
            // Cut short: no packet, and no panic.
            assert!(with(&[Protocol::Udp], None).pass(0, &mut udp()[..length]));
        }
    }

    #[test]
    fn ports_are_translated_there_and_back() {
        assert_eq!(sum(&udp()), 0xffff);
        let nat = Middlebox {
            shift_ports: 65_000,
            ..Middlebox::default()
        };
        let mut there = udp();
        nat.pass(0, &mut there);
        assert_eq!(there[34..38], [0x01, 0xd0, 0x07, 0xd0]);
        assert_eq!(sum(&there), 0xffff);
        let mut back = udp();
        nat.pass(1, &mut back);
        assert_eq!(back[34..38], [0x03, 0xe8, 0x09, 0xe8]);
        assert_eq!(sum(&back), 0xffff);
    }

    #[test]
    fn damage_that_is_repaired_can_only_be_seen_in_the_content() {
        for repair in [true, false] {
            let middlebox = Middlebox {
                repair,
                ..Middlebox::default()
            };
            for at in 42..45 {
                let mut frame = udp();
                middlebox.damage(&mut frame, at);
                assert_ne!(frame[at], udp()[at]);
                assert_eq!(sum(&frame) == 0xffff, repair, "octet {at}");
            }
            let mut frame = udp();
            middlebox.damage(&mut frame, 40);
            assert_ne!(sum(&frame), 0xffff);
        }
    }
}
