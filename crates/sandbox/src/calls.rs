//! Which system calls an agent, or the CA's server, never makes: these fail with EPERM from here on.
//!
//! What it does make is left to the unit's filter (`SystemCallFilter` of examples/systemd): a
//! list of that in the program would have to follow each C library.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use thiserror::Error;

/// Other programs; other processes; mounts and namespaces; the kernel, its clock and its keys;
/// ways around a filter of calls.
const NEVER: [i64; 44] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
];

/// Sockets that it opens after its start: of clients, devices and tunnels; of the service manager
/// and the resolver; the latter's look at the machine's own addresses.
const FAMILIES: [i32; 4] = [
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_UNIX,
    libc::AF_NETLINK,
];

#[derive(Debug, Error)]
pub(super) enum CallsError {
    #[error("{0}")]
    Machine(#[from] BackendError),
    #[error("{0}")]
    Kernel(#[from] Error),
}

pub(super) fn confine() -> Result<(), CallsError> {
    Ok(apply_filter(&filter()?)?)
}

fn filter() -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for call in NEVER {
        rules.insert(call, Vec::new());
    }
    let other = FAMILIES.map(|family| {
        SeccompCondition::new(
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Ne,
            u64::from(family.unsigned_abs()),
        )
    });
    let other = other.into_iter().collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(other)?]);
    x32(&mut rules);
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, denied, machine)?.try_into()
}

/// The same calls by their second numbers: on x86-64 the x32 ABI adds a bit, and has some calls
/// twice (arch/x86/entry/syscalls/syscall_64.tbl).
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
fn x32(rules: &mut BTreeMap<i64, Vec<SeccompRule>>) {
    const BIT: i64 = 0x4000_0000;
    /// execve, ptrace, process_vm_readv, process_vm_writev, execveat.
    const TWICE: [i64; 5] = [520, 521, 539, 540, 545];
    let second: Vec<_> = rules
        .iter()
        .map(|(call, r)| (call | BIT, r.clone()))
        .collect();
    rules.extend(second);
    rules.extend(TWICE.map(|call| (call | BIT, Vec::new())));
}

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
fn x32(_: &mut BTreeMap<i64, Vec<SeccompRule>>) {}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A filter is of a thread: the test's own one.
    #[test]
    fn no_program_is_run_and_no_raw_socket_opened() {
        let confined = thread::spawn(|| {
            let packet = || Socket::new(Domain::PACKET, Type::RAW, None);
            confine().unwrap();
            let run = Command::new("/bin/true").status();
            assert_eq!(run.unwrap_err().raw_os_error(), Some(libc::EPERM));
            assert_eq!(packet().unwrap_err().raw_os_error(), Some(libc::EPERM));
            for domain in [Domain::IPV4, Domain::IPV6, Domain::UNIX] {
                Socket::new(domain, Type::STREAM, None).unwrap();
            }
            thread::spawn(|| ()).join().unwrap();
        });
        confined.join().unwrap();
    }
}
