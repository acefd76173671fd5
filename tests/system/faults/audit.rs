//! An audit log that can't be written: no record, no write.

use fieldlock_audit::Kind;
use fieldlock_testkit::modbus::write_register;
use fieldlock_tests::answers::{BUSY, exception, read_registers, write_one};
use fieldlock_tests::tmpfs::Tmpfs;
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

fn disk_full(role: &str) {
    let mut pair = Setup::new(Transport::Quic).prepare();
    let agent: fn(&Pair) -> &Agent = match role {
        "edge" => |pair| &pair.edge,
        _ => |pair| &pair.headend,
    };
    let disk = Tmpfs::mount(agent(&pair).state().join("audit"), 256).unwrap();
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
