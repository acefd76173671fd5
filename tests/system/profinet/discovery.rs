//! DCP by tools of others: who is found, and what is set.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fieldlock_audit::{Decision, Kind, Record};
use fieldlock_profinet::Mac;
use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_tests::plant::{self, IO_RULE, STATION, client, live_device, live_device_with};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::{EDGE, OPEN_POLICY, Pair, SOON, Transport, audit_of, eventually, trial};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial::on_rig_with(
            "profinet::scapy_finds_a_station_also_one_that_takes_its_time",
            &["scapy"],
            scapy_finds,
        ),
        trial::on_rig_with(
            "profinet::pnio_dcp_sees_the_stations_that_it_may_and_no_others",
            &["pnio_dcp"],
            pnio_dcp_sees,
        ),
        trial::on_rig_with(
            "profinet::a_set_by_pnio_dcp_is_refused_unless_a_rule_names_it",
            &["pnio_dcp"],
            pnio_dcp_sets,
        ),
    ]
}

/// As a real device was seen to be; the delay factor of 1 here gives it 10 ms.
const LATE: Duration = Duration::from_millis(1100);

fn scapy_finds(rig: &Rig) {
    let pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    let device = live_device(rig);
    let station = json!([STATION, rig.mac_of(&rig.device).to_string(), "192.168.0.20"]);
    let found = |name: &str, seconds: &str| {
        let answers = python(rig, &pair, "scapy", &["eth0", name, seconds]);
        let pick = |answer: Value| {
            let place = json!([answer["name"], answer["mac"], answer["ip"]]);
            (place, answer["after"].as_f64().unwrap())
        };
        answers
            .into_iter()
            .map(pick)
            .unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let (stations, _) = found("all", "1");
    assert_eq!(stations, std::slice::from_ref(&station));
    device.be_late(LATE);
    let (stations, after) = found(STATION, "10");
    assert_eq!(stations, [station]);
    assert!(after[0] > LATE.as_secs_f64(), "{after:?}");
}

fn pnio_dcp_sees(rig: &Rig) {
    // One that is configured and that no rule names, and one that is not configured.
    let more = "[[station]]\nname = \"drive-2\"\n";
    let more_at_headend = format!("{more}edge = \"{EDGE}\"\n");
    let policy = plant::io_policy(rig.mac_of(&rig.controller));
    let setup = plant::setup_with_more(rig, Transport::Quic, [more, &more_at_headend], &policy);
    let pair = rig.among_agents(|| setup.up());
    rig.ip(&rig.controller, "addr add 192.168.0.1/24 dev eth0");
    let own = rig.mac_of(&rig.device);
    let device = live_device(rig);
    let others = [2, 3].map(|number| {
        live_device_with(
            rig,
            |config| {
                config.name = format!("drive-{number}");
                config.mac = Mac([2, 0, 0, 0, 0, number]);
                config.ip.address = [192, 168, 0, 20 + number].into();
            },
            |_| {},
        )
    });
    let station = json!([STATION, own.to_string(), "192.168.0.20"]);
    let found = pnio_dcp(rig, &pair, &["identify-all", "2"]);
    assert_eq!(found, json!([station]));
    // All of them were asked, on their wire, and answered: the edge has kept that to itself.
    for device in others.iter().chain([&device]) {
        assert_eq!(device.with(|device, _| device.asked().identify), 1);
    }
    for reason in ["not-paired", "unasked"] {
        assert_eq!(plant::dropped(&pair.edge, reason), 1, "{reason}");
    }
    let mac = own.to_string();
    assert_eq!(pnio_dcp(rig, &pair, &["name", &mac]), STATION);
    assert_eq!(pnio_dcp(rig, &pair, &["ip", &mac]), "192.168.0.20");
}

fn pnio_dcp_sets(rig: &Rig) {
    let pair = rig.among_agents(|| plant::setup(rig, Transport::Quic).up());
    rig.ip(&rig.controller, "addr add 192.168.0.1/24 dev eth0");
    let edge_log = pair.edge.audit_file();
    // What was on record at the edge when a Set reached the device.
    let on_record = Arc::new(Mutex::new(Vec::new()));
    let noted = on_record.clone();
    let hear = move |frame: &[u8]| {
        if is_set(frame) {
            noted.lock().unwrap().push(sets(&edge_log).len());
        }
    };
    let device = live_device_with(rig, |_| {}, hear);
    let mac = rig.mac_of(&rig.device).to_string();
    let found = pnio_dcp(rig, &pair, &["identify-all", "1"]);
    assert_eq!(found.as_array().unwrap().len(), 1);

    let set_ip: &[&str] = &[
        "set-ip",
        &mac,
        "192.168.0.77",
        "255.255.255.0",
        "192.168.0.1",
    ];
    let others: [&[&str]; 2] = [&["set-name", &mac, "drive-7"], &["reset", &mac]];
    for set in [set_ip, others[0], others[1]] {
        assert_eq!(pnio_dcp(rig, &pair, set), "silence", "{set:?}");
    }
    for service in ["set-ip", "set-name", "reset"] {
        pair.headend.wait_record(service, |record| {
            record.kind == Kind::Denied
                && record.decision == Some(Decision::Deny)
                && record.service.as_deref() == Some(service)
                && record.station.as_deref() == Some(STATION)
        });
    }
    assert_eq!(
        on_record.lock().unwrap().len(),
        0,
        "a Set reached the device"
    );

    let rule = IO_RULE.replace("\"records\"", "\"records\", \"set-ip\"");
    let policy = format!("{OPEN_POLICY}{}{rule}", client(rig.mac_of(&rig.controller)));
    for agent in [&pair.edge, &pair.headend] {
        agent.write_policy(&policy);
        agent.wait_record("the policy", |record| record.kind == Kind::Reload);
    }
    eventually("the Set to be carried", || {
        pnio_dcp(rig, &pair, set_ip) == "ok"
    });
    assert_eq!(
        device.with(|device, _| device.ip().address),
        Ipv4Addr::new(192, 168, 0, 77)
    );
    assert!(on_record.lock().unwrap().iter().all(|records| *records > 0));
    for agent in [&pair.edge, &pair.headend] {
        let set = agent.wait_record("the Set", |record| record.kind == Kind::StationSet);
        assert_eq!(set.service.as_deref(), Some("set-ip"));
        assert_eq!(set.rule.as_deref(), Some("line 1 io"));
        let value = "192.168.0.77 mask 255.255.255.0 gateway 192.168.0.1";
        assert_eq!(set.set.as_deref(), Some(value));
    }
    // The rule names one Set and no other.
    for set in others {
        assert_eq!(pnio_dcp(rig, &pair, set), "silence", "{set:?}");
    }
    let asked = device.with(|device, _| device.asked());
    assert_eq!((asked.set_name, asked.reset), (0, 0));
}

/// DCP Set, request.
fn is_set(frame: &[u8]) -> bool {
    frame.get(12..18) == Some(&[0x88, 0x92, 0xfe, 0xfd, 4, 0])
}

fn sets(log: &Path) -> Vec<Record> {
    let mut records = audit_of(log);
    records.retain(|record| record.kind == Kind::StationSet);
    records
}

fn pnio_dcp(rig: &Rig, pair: &Pair, arguments: &[&str]) -> Value {
    let arguments = [&["192.168.0.1"], arguments].concat();
    python(rig, pair, "pnio_dcp", &arguments).remove(0)
}

/// Runs the script of a module beside the controller; the lines that it printed.
fn python(rig: &Rig, pair: &Pair, module: &str, arguments: &[&str]) -> Vec<Value> {
    let script = match module {
        "scapy" => "dcp_scapy.py",
        _ => "dcp_pnio.py",
    };
    let mut command = Command::new(Peer::find(module).unwrap());
    command.arg(workspace_root().join("tests/peers").join(script));
    command.args(arguments);
    let directory = pair.directory.path();
    // Each run goes on in the log of the one before.
    let log = directory.join(format!("{script}.log"));
    let before = std::fs::metadata(log).map_or(0, |data| data.len() as usize);
    let mut process = rig.spawn_in(&rig.controller, script, &mut command, directory);
    assert!(process.wait_exit(2 * SOON).unwrap().success(), "{module}");
    let log = process.log();
    let lines = log[before..].lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
