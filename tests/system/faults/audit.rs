//! An audit log that can't be written: no record, no write.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fieldlock_audit::Kind;
use fieldlock_testkit::modbus::write_register;
use fieldlock_tests::answers::{BUSY, exception, read_registers, write_one};
use fieldlock_tests::trial::{ignored, test};
use fieldlock_tests::{Agent, Pair, Setup, Transport, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    ["edge", "headend"]
        .map(|role| {
            let name = format!("faults::audit_disk_full::{role}");
            match Tmpfs::is_possible() {
                true => test(&name, move || disk_full(role)),
                false => ignored(&name, "needs root, to mount a small file system"),
            }
        })
        .into()
}

/// A file system of 256 KiB, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn is_possible() -> bool {
        let directory = fieldlock_testkit::process::Directory::new().unwrap();
        Self::mount(directory.path().to_owned()).is_some()
    }

    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "fieldlock-test"])
            .arg(&at)
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then_some(Self(at))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let ballast = vec![0; 4096];
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &ballast).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: the agent may still have its log open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn disk_full(role: &str) {
    let mut pair = Setup::new(Transport::Quic).prepare();
    let agent: fn(&Pair) -> &Agent = match role {
        "edge" => |pair| &pair.edge,
        _ => |pair| &pair.headend,
    };
    let disk = Tmpfs::mount(agent(&pair).state().join("audit")).unwrap();
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let mut client = pair.client();
    write_one(&mut client, 42, 1);
    disk.fill();
    // What still fits into the last page may be written; then no write gets through.
    let mut write = write_register(42, 2);
    eventually("writes to be refused", || {
        let answer = client.request(1, &write).unwrap();
        exception(&answer) == Some(BUSY)
    });
    eventually("the alarm", || {
        let alarms = agent(&pair).alarms();
        alarms.iter().any(|alarm| alarm == "audit-log-unwritable")
    });
    let made = pair.plc().write_count();
    write = write_register(42, 3);
    for _ in 0..20 {
        assert_eq!(client.request(1, &write).unwrap(), [0x86, BUSY]);
        read_registers(&mut client, 0, 4);
    }
    assert_eq!(pair.plc().write_count(), made);
    assert_eq!(agent(&pair).status()["audit"]["writable"], false);

    disk.free();
    eventually("writes to be served again", || {
        client.request(1, &write).unwrap() == write
    });
    eventually("the end of the alarm", || agent(&pair).alarms().is_empty());
    agent(&pair).wait_record("the alarm's end", |r| r.kind == Kind::AlarmEnd);
    // Drops before the pair's directory, with nothing left in it to be removed.
    pair.edge.kill();
    pair.headend.kill();
    drop(disk);
}
