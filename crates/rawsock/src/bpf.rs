//! Instructions of the classic Berkeley Packet Filter.

use libc::sock_filter;

fn instruction(code: u32, on_true: u8, on_false: u8, value: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: on_true,
        jf: on_false,
        k: value,
    }
}

pub(crate) fn load_word(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

pub(crate) fn load_octet(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, at)
}

pub(crate) fn load_half(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, at)
}

pub(crate) fn load_half_x(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, at)
}

pub(crate) fn load_octet_x(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0, 0, at)
}

pub(crate) fn set_x(value: u32) -> sock_filter {
    instruction(libc::BPF_LDX | libc::BPF_IMM, 0, 0, value)
}

pub(crate) fn x_from_a() -> sock_filter {
    instruction(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0)
}

pub(crate) fn a_from_x() -> sock_filter {
    instruction(libc::BPF_MISC | libc::BPF_TXA, 0, 0, 0)
}

pub(crate) fn keep_a() -> sock_filter {
    instruction(libc::BPF_ST, 0, 0, 0)
}

pub(crate) fn restore_a() -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_MEM, 0, 0, 0)
}

pub(crate) fn keep_bits(mask: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
}

pub(crate) fn if_equal_skip(value: u32, skip: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, 0, value)
}

pub(crate) fn unless_equal_skip(value: u32, skip: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value)
}

pub(crate) fn if_bits_skip_else(bits: u32, set: u8, clear: u8) -> sock_filter {
    instruction(
        libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
        set,
        clear,
        bits,
    )
}

pub(crate) fn answer(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}
