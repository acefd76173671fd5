//! Values that move only so far, whoever writes them.

use fieldlock_audit::Kind;
use fieldlock_testkit::modbus::{Client, write_register, write_registers};
use fieldlock_testkit::ports::free_address;
use fieldlock_tests::answers::{
    ILLEGAL_VALUE, exception, expect_exception, read_registers, write_one,
};
use fieldlock_tests::trial::both;
use fieldlock_tests::{Agent, DEVICE, EDGE, HEADEND, Role, Setup, Site, Transport, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let numbers = "steps::numbers_of_several_registers_are_judged_whole_and_on_record";
    let steps = both("steps::a_value_moves_by_steps", by_steps);
    steps
        .into_iter()
        .chain(both(numbers, numbers_of_several_registers))
        .collect()
}

fn policy(max: u16) -> String {
    format!(
        r#"
syntax = 1
[[allow]]
name = "reads"
device = "any"
function = "read"
address = "any"

[[allow]]
name = "setpoint"
device = "any"
via = "{HEADEND}"
function = [6, 16]
address = "holding 0-99"
step = {{ max = {max}, within = "1h" }}

[[allow]]
name = "engineer"
device = "any"
via = "hd-2"
function = 6
address = "holding 0-99"
"#
    )
}

fn numbers_of_several_registers(transport: Transport) {
    let policy = r#"
syntax = 1
[[allow]]
name = "pressure"
device = "any"
function = ["read", 6, 16]
address = "holding 40-43"
type = "float32"
word_order = "little"
value = { max = 20.1 }
step = { max = 0.1, within = "1h" }
"#;
    let mut pair = Setup::new(transport).policy(policy).prepare();
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let mut client = pair.client();
    let words = |value: f32| {
        let bits = value.to_bits();
        [bits as u16, (bits >> 16) as u16]
    };
    let write = |value: f32| write_registers(42, &words(value));
    let mut direct = pair.direct();
    direct.request(1, &write(20.0)).unwrap();
    for refused in [write(20.2), write(f32::NAN), write_register(42, 0).to_vec()] {
        expect_exception(&mut client, &refused, ILLEGAL_VALUE);
    }
    eventually("a step", || {
        assert_eq!(read_registers(&mut client, 42, 2), words(20.0));
        let answer = client.request(1, &write(20.1)).unwrap();
        exception(&answer).is_none()
    });
    assert_eq!(read_registers(&mut direct, 42, 2), words(20.1));
    expect_exception(&mut client, &write(19.0), ILLEGAL_VALUE);
    let json = |record: &fieldlock_audit::Record| serde_json::to_value(record).unwrap();
    // Repeats of one refusal are one record, so these are by different functions.
    for (agent, kind, value) in [
        (&pair.headend, Kind::Denied, serde_json::json!(20.2)),
        (&pair.headend, Kind::Denied, "part".into()),
        (&pair.headend, Kind::WriteIntent, 20.1.into()),
        (&pair.edge, Kind::WriteIntent, 20.1.into()),
    ] {
        let decoded =
            serde_json::json!({ "type": "float32", "word_order": "little", "values": [value] });
        agent.wait_record("a decoded value", |record| {
            record.kind == kind
                && record.rule.as_deref() == Some("pressure")
                && json(record)["decoded"] == decoded
        });
    }
}

/// One headend may move values by steps, another one as it likes; both have the edge's policy, of
/// which a headend does not judge the steps.
fn by_steps(transport: Transport) {
    let (tunnel, clients) = (free_address().unwrap(), free_address().unwrap());
    let extra = format!(
        "[[headend]]\nname = \"hd-2\"\naddress = [\"{tunnel}\"]\ntransport = \"{transport}\"\n"
    );
    let mut pair = Setup::new(transport)
        .policy(&policy(50))
        .edge(&extra)
        .prepare();
    let config = format!(
        "[tunnel]\nlisten = [\"{tunnel}\"]\n\
         [[device]]\nname = \"{DEVICE}\"\nedge = \"{EDGE}\"\nlisten = \"{clients}\"\n"
    );
    let mut second = Agent::prepare(
        Role::Headend,
        "hd-2",
        pair.directory.path(),
        &Site::shared().identity(Role::Headend, "hd-2"),
        &config,
        &policy(50),
    );
    second.start();
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    second.wait_ready();
    second.wait_that("its device", |headend| {
        headend.status()["devices"][0]["connected"] == true
    });
    let (mut client, mut engineer) = (pair.client(), Client::connect(clients).unwrap());
    let mut direct = pair.direct();
    let refused = |client: &mut Client, value| {
        expect_exception(client, &write_register(42, value), ILLEGAL_VALUE);
    };

    write_one(&mut direct, 42, 900);
    refused(&mut client, 900);
    let reason = |text: &str| {
        pair.edge.wait_record(text, |record| {
            record.kind == Kind::Denied
                && record.rule.as_deref() == Some("setpoint")
                && record.reason.as_deref() == Some(text)
        })
    };
    reason("the value of holding 42 in the last 3600s is not known: read it first");

    // An edge that has just started learns nothing yet.
    eventually("a step", || {
        assert_eq!(read_registers(&mut client, 42, 1), [900]);
        let write = write_register(42, 950);
        client.request(1, &write).unwrap() == write
    });
    // By another function, since repeats of one refusal are one record.
    expect_exception(&mut client, &write_registers(42, &[1200]), ILLEGAL_VALUE);
    reason("step from 950 to 1200, allowed 50");
    assert_eq!(read_registers(&mut direct, 42, 1), [950]);
    // Each register of the request; the other has not been read.
    let two = write_registers(42, &[950, 0]);
    expect_exception(&mut client, &two, ILLEGAL_VALUE);
    write_one(&mut client, 42, 1000);

    // What came through another headend is known, what came past the edge once it is read.
    write_one(&mut engineer, 42, 2000);
    refused(&mut client, 1050);
    write_one(&mut client, 42, 1950);
    write_one(&mut direct, 42, 500);
    assert_eq!(read_registers(&mut client, 42, 1), [500]);
    refused(&mut client, 551);
    write_one(&mut client, 42, 550);

    pair.edge.write_policy(&policy(5));
    eventually("the last values to be forgotten", || {
        let answer = client.request(1, &write_register(42, 550)).unwrap();
        exception(&answer) == Some(ILLEGAL_VALUE)
    });
    eventually("a step by the other policy", || {
        assert_eq!(read_registers(&mut client, 42, 1), [550]);
        let write = write_register(42, 545);
        client.request(1, &write).unwrap() == write
    });
    refused(&mut client, 551);
    assert_eq!(read_registers(&mut direct, 42, 1), [545]);
}
