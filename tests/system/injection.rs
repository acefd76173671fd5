//! Attacks through what people read and edit: the log's lines, and the files of an agent.

use std::fs;

use fieldlock_audit::Kind;
use fieldlock_session::{ClientOpen, Frame};
use fieldlock_testkit::modbus::write_register;
use fieldlock_tests::answers::{ILLEGAL_FUNCTION, expect_exception, read_registers, write_one};
use fieldlock_tests::trial::test;
use fieldlock_tests::{Agent, Pair, Setup, Transport, binary, eventually};
use libtest_mimic::Trial;

use crate::negative::hostile_headend::{answer, edge_of_a_rogue};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("attacks::a17_names_that_forge_log_lines", forged_lines),
        test("attacks::a21_hostile_files::edge", || {
            hostile_files(|pair| &pair.edge)
        }),
        test("attacks::a21_hostile_files::headend", || {
            hostile_files(|pair| &pair.headend);
        }),
    ]
}

/// Line breaks, a whole record, terminal escapes, a formula, separators of CEF and syslog.
const NAMES: [&str; 8] = [
    "a\r\n{\"v\":1,\"seq\":1,\"kind\":\"stop\"}\n",
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "=cmd|' /C calc'!A0",
    "+1-2@x\t,;",
    "a|b=c\\ act=allow",
    "<0>1 - - - - - [x y=\"z\"] ]",
    "\u{202e}txt\u{2028}\u{85}\u{0}",
    "\"},{\"forged\":true",
];

fn forged_lines() {
    let policy = "syntax = 1\n[[allow]]\nname = \"reads\"\ndevice = \"any\"\n\
                  function = \"read\"\naddress = \"any\"\n";
    let setup = Setup::new(Transport::Quic).edge_policy(policy);
    let (mut pair, headend) = edge_of_a_rogue(setup, Transport::Quic);
    let mut rogue = headend.tunnel().unwrap();
    for (client, name) in (1..).zip(NAMES) {
        let open = ClientOpen {
            client,
            address: "192.0.2.66:1000".parse().unwrap(),
            name: name.as_bytes(),
            identity: name.as_bytes(),
            role: name.as_bytes(),
        };
        rogue.send(1, &Frame::ClientOpen(open)).unwrap();
        // Modbus carries strings as well: in vendors' functions, and in registers.
        let pdu = [&[90u8], name.as_bytes()].concat();
        let id = u64::from(client);
        let request = Frame::Request {
            id,
            client,
            within: 1000,
            unit: 1,
            pdu: &pdu,
        };
        rogue.send(1, &request).unwrap();
        assert_eq!(answer(&mut rogue).0, id);
    }
    let refused = |pair: &Pair| pair.edge.audit_kind(Kind::Denied).len();
    eventually("the refusals", || refused(&pair) == NAMES.len());
    let goodbye = Frame::Goodbye {
        code: 1,
        text: NAMES[0].as_bytes(),
    };
    rogue
        .send(fieldlock_session::frame::CONTROL, &goodbye)
        .unwrap();
    pair.edge
        .wait_record("the end", |record| record.kind == Kind::TunnelDown);
    pair.edge.terminate();

    // One line an event, each a record, and nothing between them.
    let records = pair.edge.audit();
    let text = fs::read_to_string(pair.edge.audit_file()).unwrap();
    assert_eq!(text.lines().count(), records.len());
    let steers = |c: char| fieldlock_audit::steers(c) && c != '\n';
    assert!(!text.contains(steers));
    let log = pair.edge.state().join("audit");
    binary::run_ok(&[&"audit", &"verify", &log]);
    let stops = records.iter().filter(|r| r.kind == Kind::Stop).count();
    assert_eq!(stops, 1);
    for arguments in [
        &["query"][..],
        &["query", "--json"],
        &["tail"],
        &["export", "--format", "jsonl"],
        &["export", "--format", "cef"],
        &["export", "--format", "syslog"],
    ] {
        let mut command = binary::command();
        let output = command.arg("audit").args(arguments).arg(&log).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(text.lines().count(), records.len(), "{arguments:?}: {text}");
        assert!(!text.contains(steers), "{arguments:?}");
        // A line begins as its form says, so with no sign that makes a formula of it.
        assert!(
            !text
                .lines()
                .any(|line| line.starts_with(['=', '+', '-', '@', '\t']))
        );
    }
    // Nor in what the agent says of itself.
    let said = pair.edge.log();
    assert!(!said.contains('\u{1b}') && !said.contains('\r'), "{said:?}");
}

const GOOD: &str = r#"
syntax = 1
[[allow]]
name = "reads"
device = ["any"]
function = ["read"]
address = ["any"]
[[allow]]
name = "setpoint"
device = ["any"]
function = [6]
address = ["holding 40"]
"#;

/// Texts that would open more, or break something, if any of them were taken.
fn hostile_policies() -> Vec<Vec<u8>> {
    let open =
        "[[allow]]\nname = \"all\"\ndevice = \"any\"\nfunction = \"any\"\naddress = \"any\"\n";
    let mut texts: Vec<Vec<u8>> = [
        "",
        "syntax = 2\n",
        "syntax = 1\ninclude = \"/etc/passwd\"\n",
        "syntax = 1\n[[allow]]\nname = \"${HOME}\"\ndevice = \"any\"\nfunction = \"$(id)\"\n",
        "syntax = 1\n[[alow]]\nname = \"typo\"\n",
        "syntax = 1\nsyntax = 1\n",
        "\u{feff}\u{0}syntax = 1\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    // A good rule before something that is wrong: refused whole, not in part.
    texts.push(format!("syntax = 1\n{open}[[deny]]\nname = \"half\"\n").into_bytes());
    texts.push(format!("syntax = 1\n{open}{open}").into_bytes());
    texts.push(
        format!(
            "syntax = 1\n{open}[[test]]\nname = \"no\"\ngiven = {{ ip = \"192.0.2.1\", \
             device = \"d\", function = 5, address = \"coil 0\", value = 1 }}\nexpect = \"deny\"\n"
        )
        .into_bytes(),
    );
    texts.push(vec![0xFF; 4096]);
    texts.push(format!("syntax = 1\n{open}# {}", "x".repeat(9 << 20)).into_bytes());
    texts.push(
        format!(
            "syntax = 1\na = {}1{}\n{open}",
            "[".repeat(9999),
            "]".repeat(9999)
        )
        .into_bytes(),
    );
    // The good one cut anywhere in its rules.
    for cut in (40..GOOD.len() - 30).step_by(71) {
        texts.push(format!("{}\"", &GOOD[..cut]).into_bytes());
    }
    texts
}

fn hostile_files(agent: fn(&Pair) -> &Agent) {
    let pair = Setup::new(Transport::Quic).policy(GOOD).up();
    let mut client = pair.client();
    let alarm = |name: &str| agent(&pair).alarms().contains(&name.to_owned());
    let still = |client: &mut fieldlock_testkit::modbus::Client| {
        read_registers(client, 0, 1);
        write_one(client, 40, 7);
        expect_exception(client, &write_register(41, 7), 2);
        expect_exception(client, &[5, 0, 0, 0xFF, 0], ILLEGAL_FUNCTION);
    };
    let policy = agent(&pair).policy_file();
    let refusals = || agent(&pair).audit_kind(Kind::ReloadRefused).len();
    let put = |content: &[u8]| {
        let new = policy.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &policy).unwrap();
    };
    for (index, text) in hostile_policies().iter().enumerate() {
        let start = String::from_utf8_lossy(&text[..text.len().min(60)]);
        put(text);
        eventually(&format!("the refusal of {start:?}"), || {
            refusals() == index + 1
        });
        assert!(alarm("policy-refused"), "{start:?}");
        still(&mut client);
    }
    put(GOOD.as_bytes());
    eventually("the end of the alarm", || !alarm("policy-refused"));
    still(&mut client);
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
}
