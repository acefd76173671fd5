//! Configurations that can't be used, and the environment over those that can.

use fieldlock_audit::Kind;
use fieldlock_testkit::ports::free_address;
use fieldlock_tests::trial::test;
use fieldlock_tests::{Agent, Pair, Setup, Transport, binary, eventually};
use libtest_mimic::Trial;
use std::net::TcpStream;

pub(crate) fn trials() -> Vec<Trial> {
    [
        test("faults::settings::environment_overrides", environment),
        test("faults::settings::check_opens_nothing", check_opens_nothing),
        test("faults::settings::check_finds_what_is_broken", check_finds),
    ]
    .into()
}

fn prepared() -> Pair {
    Setup::new(Transport::Quic).prepare()
}

fn environment() {
    let mut pair = prepared();
    let other = free_address().unwrap();
    let key = "FIELDLOCK__TUNNEL__LISTEN";
    pair.headend.set_environment(key, &other.to_string());
    pair.headend.start();
    pair.headend.wait_ready();
    let listening = &pair.headend.status()["listening"];
    assert_eq!(*listening, serde_json::json!([other.to_string()]));
    assert!(TcpStream::connect(other).is_ok());
    assert!(TcpStream::connect(pair.tunnel).is_err());

    let mut broken = prepared();
    broken.edge.set_environment("FIELDLOCK__POLCY", "x");
    broken.edge.start();
    assert_eq!(broken.edge.wait_exit().code(), Some(2));
    let log = broken.edge.log();
    assert!(log.contains("did you mean `policy`"), "{log}");
}

fn check_opens_nothing() {
    let pair = prepared();
    for agent in [&pair.edge, &pair.headend] {
        let checked = agent.check();
        assert!(checked.status.success(), "{}", binary::text(&checked));
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(said.contains(agent.name()), "{said}");
        assert!(!agent.state().join("audit").exists());
        assert!(!agent.state().join("control.sock").exists());
    }
    // It may stand beside a running agent.
    let pair = Pair::up(Transport::Quic);
    for agent in [&pair.edge, &pair.headend] {
        assert!(agent.check().status.success());
        eventually("its start on record", || {
            agent.audit_kind(Kind::Start).len() == 1
        });
    }
}

/// Changes of a sound configuration, and what the complaint must say.
fn check_finds() {
    let device = "[[device]]\nname = \"d\"\n";
    let tcp = "modbus_tcp = { address = \"127.0.0.1:502\" }\n";
    let edge = [
        ("polcy = \"x\"\n".into(), "did you mean `policy`"),
        ("[[devcie]]\n".into(), "did you mean `device`"),
        ("[[device]\n".into(), "edge.toml"),
        (
            device.into(),
            "exactly one of `modbus_tcp` and `modbus_rtu`",
        ),
        (format!("{device}{tcp}{device}{tcp}"), "duplicate"),
        (
            format!("{device}modbus_tcp = {{ address = \"plc\" }}\n"),
            "host:port",
        ),
        (
            format!("{device}{tcp}answer_within = \"soon\"\n"),
            "length of time",
        ),
        (format!("{device}{tcp}queue = 0\n"), "at least 1"),
        (
            format!("[[device]]\nname = \"No Name\"\n{tcp}"),
            "device `No Name`",
        ),
    ];
    let pair = prepared();
    for (text, complaint) in edge {
        complains(&pair.edge, &pair.edge_config, &text, complaint);
    }
    let headend = [
        ("[[device]]\nname = \"press-07\"\n".into(), "duplicate"),
        (
            format!("[[listener]]\naddress = \"{}\"\nunit = []\n", pair.clients),
            "has its address",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:5020\"\nunit = [{ unit = 1, device = \"x\" }]\n"
                .into(),
            "there is no device `x`",
        ),
        ("[client]\nin_flight = 0\n".into(), "at least 1"),
    ];
    for (text, complaint) in headend {
        complains(&pair.headend, &pair.headend_config, &text, complaint);
    }
    pair.edge.write_config(&pair.edge_config);
    pair.edge.write_policy("syntax = 1\n[[alow]]\n");
    let checked = pair.edge.check();
    assert_eq!(checked.status.code(), Some(2));
    let text = binary::text(&checked);
    assert!(text.contains(".policy.toml:2:"), "{text}");
    std::fs::remove_file(pair.edge.policy_file()).unwrap();
    assert_eq!(pair.edge.check().status.code(), Some(2));
    std::fs::remove_file(pair.headend.config_file()).unwrap();
    assert_eq!(pair.headend.check().status.code(), Some(2));
}

#[track_caller]
fn complains(agent: &Agent, sound: &str, more: &str, complaint: &str) {
    // A bare key can only stand before the first table.
    let config = match more.starts_with('[') {
        true => format!("{sound}\n{more}"),
        false => format!("{more}{sound}"),
    };
    agent.write_config(&config);
    let checked = agent.check();
    let text = binary::text(&checked);
    assert_eq!(checked.status.code(), Some(2), "{more}: {text}");
    let complaint = complaint.replace("edge.toml", &format!("{}.toml", agent.name()));
    assert!(text.contains(&complaint), "{more}: {text}");
    assert!(text.contains(".toml"), "no file in: {text}");
}
