//! Policy and configuration that change under way.

use fieldlock_audit::Kind;
use fieldlock_testkit::modbus::{Client, registers, write_register};
use fieldlock_testkit::ports::free_address;
use fieldlock_tests::answers::{
    ILLEGAL_FUNCTION, NO_PATH, exception, expect_exception, read_one, read_registers, write_one,
};
use fieldlock_tests::trial::test;
use fieldlock_tests::{Agent, EDGE, Hosted, OPEN_POLICY, Pair, Transport, eventually};
use libtest_mimic::Trial;

const NOTHING: &str = "syntax = 1\n";
const READS: &str = r#"
syntax = 1
[[allow]]
name = "reads only"
device = ["any"]
function = ["read"]
address = ["any"]
"#;

pub(crate) fn trials() -> Vec<Trial> {
    [
        test("faults::policy_changes_under_a_client::edge", || {
            policy_changes(|pair| &pair.edge);
        }),
        test("faults::policy_changes_under_a_client::headend", || {
            policy_changes(|pair| &pair.headend);
        }),
        test("faults::a_window_opens_and_closes::edge", || {
            window_opens(|pair| &pair.edge);
        }),
        test("faults::a_window_opens_and_closes::headend", || {
            window_opens(|pair| &pair.headend);
        }),
        test("faults::a_rate_is_held_across_connections::edge", || {
            rate_is_held(|pair| &pair.edge);
        }),
        test("faults::a_rate_is_held_across_connections::headend", || {
            rate_is_held(|pair| &pair.headend);
        }),
        test("faults::broken_policy_is_refused::edge", || {
            broken_policy(|pair| &pair.edge);
        }),
        test("faults::broken_policy_is_refused::headend", || {
            broken_policy(|pair| &pair.headend);
        }),
        test("faults::broken_configuration_is_refused", broken_settings),
        test("faults::sighup_reads_everything_again", sighup),
        test("faults::device_comes_and_goes", device_comes_and_goes),
        test("faults::headend_configured_otherwise", headend_otherwise),
    ]
    .into()
}

fn policy_changes(agent: fn(&Pair) -> &Agent) {
    let pair = Pair::up(Transport::Quic);
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    write_one(&mut client, 42, 1);
    agent(&pair).write_policy(READS);
    eventually("writes to be refused", || {
        let answer = client.request(1, &write_register(42, 2)).unwrap();
        exception(&answer) == Some(ILLEGAL_FUNCTION)
    });
    read_registers(&mut client, 0, 1);
    agent(&pair).write_policy(NOTHING);
    eventually("reads to be refused", || {
        let answer = client.request(1, &read_one(0)).unwrap();
        exception(&answer) == Some(ILLEGAL_FUNCTION)
    });
    // The difference shows at both ends.
    eventually("the difference in status", || {
        pair.headend.status()["tunnels"][0]["same_policy"] == false
            && pair.edge.status()["headends"][0]["tunnels"][0]["same_policy"] == false
    });
    agent(&pair).write_policy(OPEN_POLICY);
    eventually("writes to be allowed again", || {
        let write = write_register(42, 3);
        client.request(1, &write).unwrap() == write
    });
    let reloads = || agent(&pair).audit_kind(Kind::Reload).len();
    eventually("the reloads on record", || reloads() == 3);
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
}

/// A connected client is let in and put out again by the clock alone.
fn window_opens(agent: fn(&Pair) -> &Agent) {
    let pair = Pair::up(Transport::Quic);
    let mut client = pair.client();
    let refused = |client: &mut Client| {
        let answer = client.request(1, &write_register(42, 2)).unwrap();
        exception(&answer) == Some(ILLEGAL_FUNCTION)
    };
    let now = jiff::Timestamp::now().as_second();
    let moment = |seconds| jiff::Timestamp::from_second(now + seconds).unwrap();
    let (from, until) = (moment(6), moment(9));
    agent(&pair).write_policy(&format!(
        "{READS}time = {{ not_before = \"2026-01-01T00:00:00Z\" }}\n\
         [[allow]]\nname = \"grant\"\ndevice = \"any\"\nfunction = 6\naddress = \"any\"\n\
         time = {{ not_before = \"{from}\", not_after = \"{until}\" }}\n"
    ));
    eventually("writes to be refused", || refused(&mut client));
    read_registers(&mut client, 0, 1);
    eventually("the window to open", || !refused(&mut client));
    eventually("the window to close", || refused(&mut client));
    read_registers(&mut client, 0, 1);
    let record = agent(&pair).wait_record("the refusal", |r| {
        r.rule.as_deref() == Some("grant") && r.kind == Kind::Denied
    });
    assert_eq!(record.reason.as_deref(), Some("outside its time window"));
    assert_eq!(pair.headend.audit_kind(Kind::ClientOpen).len(), 1);
}

/// A client that connects anew finds what it has used; what a device does not get uses nothing.
fn rate_is_held(agent: fn(&Pair) -> &Agent) {
    let pair = Pair::up(Transport::Quic);
    agent(&pair).write_policy(&format!(
        "{READS}[[allow]]\nname = \"writes\"\ndevice = \"any\"\nfunction = 6\naddress = \"holding 0-99\"\n\
         rate = {{ count = 3, per = \"24h\" }}\n"
    ));
    agent(&pair).wait_record("the reload", |r| r.kind == Kind::Reload);
    for value in 1..=3 {
        let mut client = pair.client();
        expect_exception(&mut client, &write_register(100, 1), 0x02);
        write_one(&mut client, 42, value);
    }
    let mut client = pair.client();
    expect_exception(&mut client, &write_register(42, 4), 0x06);
    assert_eq!(read_registers(&mut client, 42, 1), [3]);
    let record = agent(&pair).wait_record("the refusal", |r| {
        r.rule.as_deref() == Some("writes") && r.kind == Kind::Denied
    });
    let reason = "more than 3 requests in 86400s";
    assert_eq!(record.reason.as_deref(), Some(reason));
}

fn broken_policy(agent: fn(&Pair) -> &Agent) {
    let pair = Pair::up(Transport::Quic);
    let mut client = pair.client();
    agent(&pair).write_policy("syntax = 1\n[[allow]]\nnam = \"typo\"\ndevice = [\"any\"]\n");
    let alarm = || agent(&pair).alarms().contains(&"policy-refused".to_owned());
    eventually("the alarm", alarm);
    let status = agent(&pair).status();
    let text = status["alarms"][0]["text"].as_str().unwrap();
    assert!(text.contains(".policy.toml:3:1"), "{text}");
    assert!(text.contains("name"), "no hint in: {text}");
    assert!(text.contains("the old policy stays in force"), "{text}");
    agent(&pair).wait_record("the refusal", |r| r.kind == Kind::ReloadRefused);
    agent(&pair).wait_record("the alarm", |r| r.kind == Kind::AlarmStart);
    write_one(&mut client, 42, 1);
    agent(&pair).write_policy(OPEN_POLICY);
    eventually("the end of the alarm", || !alarm());
    agent(&pair).wait_record("the end", |r| r.kind == Kind::AlarmEnd);
    write_one(&mut client, 42, 2);
}

fn broken_settings() {
    let pair = Pair::up(Transport::Quic);
    let mut client = pair.client();
    for (agent, config) in [
        (&pair.edge, &pair.edge_config),
        (&pair.headend, &pair.headend_config),
    ] {
        agent.write_config(&format!("{config}\n[[devcie]]\nname = \"d\"\n"));
        let alarm = || agent.alarms().contains(&"configuration-refused".to_owned());
        eventually("the alarm", alarm);
        let status = agent.status();
        let text = status["alarms"][0]["text"].as_str().unwrap().to_owned();
        assert!(text.contains("did you mean `device`"), "{text}");
        read_registers(&mut client, 0, 1);
        agent.write_config(config);
        eventually("the end of the alarm", || !alarm());
    }
    read_registers(&mut client, 0, 1);
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
}

/// Without a change there is nothing to notice for the watch on the files.
fn sighup() {
    let mut pair = Pair::up(Transport::Quic);
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    pair.headend.process().hang_up();
    pair.headend
        .wait_record("the reload", |r| r.kind == Kind::Reload);
    pair.edge.process().hang_up();
    pair.edge
        .wait_record("the reload", |r| r.kind == Kind::Reload);
    // The edge dials anew with what it read; the client notices nothing of it.
    eventually("the new tunnel", || {
        read_registers(&mut client, 0, 1);
        pair.headend.audit_kind(Kind::TunnelUp).len() == 2
    });
    eventually("the end of the old one", || {
        read_registers(&mut client, 0, 1);
        pair.headend.audit_kind(Kind::TunnelDown).len() == 1
    });
    assert!(pair.headend.audit_kind(Kind::Lost).is_empty());
}

/// The tunnel of the older entry ends with a word, and nothing of it stays behind.
fn headend_otherwise() {
    let pair = Pair::up(Transport::Quic);
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    let other = pair.edge_config.replacen("\"quic\"", "\"tls\"", 1);
    pair.edge.write_config(&other);
    eventually("the tunnel over TLS alone", || {
        read_registers(&mut client, 0, 1);
        let status = pair.edge.status();
        let tunnels = status["headends"][0]["tunnels"].as_array().unwrap().clone();
        tunnels.len() == 1 && tunnels[0]["transport"] == "tls"
    });
    pair.edge
        .wait_record("the end of the older", |r| r.kind == Kind::TunnelDown);

    pair.edge
        .write_config(&other.replacen("name = \"hd-1\"", "name = \"hd-9\"", 1));
    let down = |record: &fieldlock_audit::Record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.kind == Kind::TunnelDown && reason.contains("reconfigured")
    };
    pair.edge.wait_record("the reason at the edge", down);
    pair.headend.wait_record("the reason at the headend", down);
    eventually("0x0A for clients", || {
        let answer = client.request(1, &read_one(0)).unwrap();
        exception(&answer) == Some(NO_PATH)
    });
    assert_eq!(pair.edge.status()["headends"][0]["name"], "hd-9");
}

fn device_comes_and_goes() {
    let pair = Pair::up(Transport::Quic);
    let second_plc = Hosted::plc(0);
    let second = free_address().unwrap();
    let mut first_client = pair.client();
    read_registers(&mut first_client, 0, 1);

    let at_headend =
        format!("[[device]]\nname = \"second\"\nedge = \"{EDGE}\"\nlisten = \"{second}\"\n");
    let at_edge = format!(
        "[[device]]\nname = \"second\"\nmodbus_tcp = {{ address = \"{}\" }}\n",
        second_plc.address()
    );
    let headend_config = format!("{}{at_headend}", pair.headend_config);
    pair.headend.write_config(&headend_config);
    eventually("the new listener", || Client::connect(second).is_ok());
    let mut second_client = Client::connect(second).unwrap();
    expect_exception(&mut second_client, &read_one(0), NO_PATH);

    let edge_config = format!("{}{at_edge}", pair.edge_config);
    pair.edge.write_config(&edge_config);
    eventually("the second device", || {
        read_registers(&mut first_client, 0, 1);
        let answer = second_client.request(1, &read_one(0)).unwrap();
        registers(&answer).is_some()
    });
    assert!(second_plc.requests() > 0);

    pair.edge.write_config(&pair.edge_config);
    eventually("the second device to be gone", || {
        read_registers(&mut first_client, 0, 1);
        let answer = second_client.request(1, &read_one(0)).unwrap();
        exception(&answer) == Some(NO_PATH)
    });
    pair.headend.write_config(&pair.headend_config);
    eventually("the listener to be gone", || {
        read_registers(&mut first_client, 0, 1);
        Client::connect(second).is_err()
    });
    assert!(
        pair.headend
            .audit_kind(Kind::Lost)
            .iter()
            .all(|record| { record.device.as_deref() == Some("second") })
    );
}
