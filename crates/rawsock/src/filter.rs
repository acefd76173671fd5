//! Which frames the kernel hands over, as a program of the classic Berkeley Packet Filter.

use fieldlock_profinet::{Mac, eth};
use libc::sock_filter;
use socket2::SockFilter;

use crate::bpf::{
    a_from_x, answer, if_bits_skip_else, if_equal_skip, keep_a, keep_bits, load_half, load_half_x,
    load_octet_x, load_word, restore_a, set_x, unless_equal_skip, x_from_a,
};

/// Addresses beside the interface's own that frames may be for. The program compares with each
/// in turn; two programs, the old and the new, must fit `net.core.optmem_max`, 20 KiB before
/// Linux 6.9.
pub const MOST_STATIONS: usize = 128;

/// What a [`crate::PacketSocket`] hears. All else ends in the kernel, uncounted.
///
/// A frame must be PROFINET (0x8892), ARP or UDP over IPv4 and no later fragment; for the
/// interface's own address, the broadcast address or one that was joined; and have no 802.1Q
/// tag, a priority tag (VLAN 0) or one of these VLANs. What this machine sends itself is not
/// heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub vlans: Vlans,
}

/// Which VLANs a frame may be tagged with, beside VLAN 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Vlans {
    #[default]
    None,
    /// That of the wire, 1 to 4094.
    One(u16),
    /// Any: who hears the frame looks at its tag.
    All,
}

// Offsets that ask for what the kernel knows beside the octets (<linux/filter.h>).
const KERNEL: u32 = libc::SKF_AD_OFF as u32;
const PACKET_TYPE: u32 = KERNEL.wrapping_add(libc::SKF_AD_PKTTYPE as u32);
const TAG: u32 = KERNEL.wrapping_add(libc::SKF_AD_VLAN_TAG as u32);
const TAGGED: u32 = KERNEL.wrapping_add(libc::SKF_AD_VLAN_TAG_PRESENT as u32);

const VLAN_BITS: u32 = 0x0fff;
const OFFSET_BITS: u32 = 0x1fff;

impl Filter {
    /// The program, for frames to the interface's own address, to all, or to `joined`.
    pub(crate) fn program(&self, joined: &[Mac]) -> Vec<SockFilter> {
        // A VLAN that is not there is compared with 0 twice, and so is of all of them no bit.
        let (vlan, bits) = match self.vlans {
            Vlans::None => (0, VLAN_BITS),
            Vlans::One(vlan) => (u32::from(vlan) & VLAN_BITS, VLAN_BITS),
            Vlans::All => (0, 0),
        };
        let ethertype = |of: u16| u32::from(of);
        let mut program = vec![
            load_word(PACKET_TYPE),
            unless_equal_skip(u32::from(libc::PACKET_OUTGOING), 1),
            refuse(),
            // X: octets of a tag that is still in the frame.
            set_x(0),
            load_word(TAGGED),
            if_equal_skip(0, 5),
            load_word(TAG),
            keep_bits(bits),
            // To the EtherType.
            if_equal_skip(0, 10),
            if_equal_skip(vlan, 9),
            refuse(),
            // The kernel has taken no tag off.
            load_half(12),
            unless_equal_skip(ethertype(eth::VLAN), 6),
            load_half(14),
            keep_bits(bits),
            if_equal_skip(0, 2),
            if_equal_skip(vlan, 1),
            refuse(),
            set_x(4),
            // The EtherType behind all tags.
            load_half_x(12),
            if_equal_skip(ethertype(eth::PROFINET), 8),
            if_equal_skip(ethertype(eth::ARP), 7),
            if_equal_skip(ethertype(eth::IPV4), 1),
            refuse(),
            load_octet_x(23),
            unless_equal_skip(libc::IPPROTO_UDP as u32, 2),
            load_half_x(20),
            if_bits_skip_else(OFFSET_BITS, 0, 1),
            refuse(),
            // For whom?
            load_word(PACKET_TYPE),
            if_equal_skip(u32::from(libc::PACKET_HOST), 1),
            unless_equal_skip(u32::from(libc::PACKET_BROADCAST), 1),
            accept(),
        ];
        // A: the first four octets of the destination; X: its last two.
        program.extend([load_half(4), x_from_a(), load_word(0), keep_a()]);
        for mac in joined {
            let [a, b, c, d, e, f] = mac.0;
            program.extend([
                unless_equal_skip(u32::from_be_bytes([a, b, c, d]), 4),
                a_from_x(),
                unless_equal_skip(u32::from_be_bytes([0, 0, e, f]), 1),
                accept(),
                restore_a(),
            ]);
        }
        program.push(refuse());
        let instructions = program.iter();
        instructions
            .map(|it| SockFilter::new(it.code, it.jt, it.jf, it.k))
            .collect()
    }
}

/// The whole frame.
fn accept() -> sock_filter {
    answer(u32::MAX)
}

fn refuse() -> sock_filter {
    answer(0)
}

#[cfg(test)]
mod tests;
