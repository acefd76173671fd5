//! `policy check`, `policy explain` and `policy diff`.

use std::fs;

use fieldlock_testkit::peers::workspace_root;
use fieldlock_tests::binary;
use serde_json::Value;

use super::{DONE, FAILED, POLICY, Place, WRONG, text};

pub(super) fn check() {
    const BROKEN: &str = r#"syntax = 1
[[client]]
name = "hmi-1"
adress = ["10.1.1.20/32"]
[[allow]]
name = "reads"
client = ["hmi-2"]
device = ["press-07"]
function = ["raed"]
address = ["holding 9-3"]
"#;
    let place = Place::with(&[
        ("policy.toml", POLICY),
        ("broken.toml", BROKEN),
        ("cut.toml", "syntax = 1\n[[allow]\n"),
    ]);
    let valid = "policy.toml: valid\n  clients    1\n  rules      2 allow, 0 deny\n  \
                 devices    press-07\n  read-only  none\n  tests      none\n";
    let errors = "\
        broken.toml:2:1: client: a client must be told by at least one of address, identity and role, \
        or by its mac where it is a controller of PROFINET\n\
        broken.toml:4:1: client.adress: unknown key; did you mean \"address\"?\n\
        broken.toml:7:11: allow.client: no [[client]] is named \"hmi-2\"; did you mean \"hmi-1\"?\n\
        broken.toml:9:13: allow.function: no function or group is named \"raed\"; did you mean \"read\"?\n\
        broken.toml:10:12: allow.address: the range \"holding 9-3\" ends before it begins\n";
    place.expect(&["policy", "check", "policy.toml"], DONE, valid, "");
    place.expect(&["policy", "check", "broken.toml"], WRONG, "", errors);
    let both = ["policy", "check", "broken.toml", "policy.toml"];
    place.expect(&both, WRONG, valid, errors);
    place.expect(
        &["policy", "check", "cut.toml"],
        WRONG,
        "",
        "cut.toml:2:9: not TOML: unclosed array table, expected `]`\n",
    );
    let output = place.run(&["policy", "check", "--json", "broken.toml"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["valid"], false);
    assert_eq!(report["errors"][1]["line"], 4);
    assert_eq!(report["errors"].as_array().map(Vec::len), Some(5));
}

pub(super) fn explain() {
    let place = Place::with(&[("policy.toml", POLICY)]);
    let ask = |more: &[&str]| {
        let to = "policy explain --policy policy.toml --device press-07 --unit 1 --client";
        let to: Vec<&str> = to.split(' ').collect();
        place.run(&[&to, more].concat())
    };
    let expect = |more: &[&str], code: i32, first: &str| {
        let output = ask(more);
        let told = binary::text(&output);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {told}");
        let stream = if code == WRONG {
            &output.stderr
        } else {
            &output.stdout
        };
        assert_eq!(text(stream).lines().next(), Some(first), "{more:?}");
        let other = if code == WRONG {
            &output.stdout
        } else {
            &output.stderr
        };
        assert_eq!(text(other), "", "{more:?}");
    };
    let hmi = "10.1.1.20";
    let read = ["--function", "3", "--address", "holding 0-9"];
    expect(
        &[&[hmi], &read[..]].concat(),
        DONE,
        "allowed by rule \"hmi reads\"",
    );
    expect(
        &[&["10.9.9.9"], &read[..]].concat(),
        FAILED,
        "refused with exception 0x01: no rule for this client",
    );
    expect(
        &[
            hmi,
            "--function",
            "6",
            "--address",
            "holding 40",
            "--value",
            "1300",
        ],
        FAILED,
        "refused with exception 0x03: value 1300 above 1200",
    );
    expect(
        &[hmi, "--function", "3", "--address", "holding 100"],
        FAILED,
        "refused with exception 0x02: holding 100 outside every range",
    );
    expect(
        &[hmi, "--pdu", "0300"],
        WRONG,
        "not a valid request, so refused with exception 0x03 before any policy: \
         function 3 (0x03) read-holding-registers: PDU not 5 bytes",
    );
    expect(
        &[hmi, "--function", "3"],
        WRONG,
        "the request does not fit together: 3 (0x03) read-holding-registers needs an address, such as \"holding 0\"",
    );
    let whole = text(&ask(&[&[hmi], &read[..]].concat()).stdout);
    let expected = "allowed by rule \"hmi reads\"\n  \
        request  3 (0x03) read-holding-registers, read holding 0-9\n  \
        device   press-07, unit 1\n  client   hmi-1\nrules\n  \
        > allow \"hmi reads\": covers the request\n  \
        - allow \"setpoint\": it is for the functions 6, 16\n";
    assert_eq!(whole, expected);
    place.expect(
        &["policy", "explain", "--policy", "policy.toml", "--as-edge"],
        DONE,
        "At most, whatever clients it states, any headend can reach:\n  press-07\n    \
         unit 1: function 1 at coil 0-15  by \"hmi reads\"\n    \
         unit 1: function 3 at holding 0-99  by \"hmi reads\"\n    \
         unit 1: function 6, 16 at holding 40-41, values 0 to 1200  by \"setpoint\"\n",
        "",
    );
}

/// The samples are valid, and nothing in them looks like a mistake.
const LINE: &str = r#"syntax = 1
[[client]]
name = "plc-1"
mac = "00:1b:1b:01:02:03"
[[allow]]
name = "io"
client = "plc-1"
station = ["drive-1", "valve-2.line-1"]
service = "io"
[[allow]]
name = "parameters"
client = "plc-1"
station = "drive-1"
service = "write"
record = "0x8000-0x80ff"
slot = "1.1"
"#;

pub(super) fn stations() {
    let place = Place::with(&[
        ("line.toml", LINE),
        ("wider.toml", &LINE.replace("80ff", "81ff")),
    ]);
    let valid = "line.toml: valid\n  clients    1\n  rules      2 allow, 0 deny\n  \
                 devices    none\n  stations   drive-1, valve-2.line-1\n  read-only  none\n  \
                 tests      none\n";
    place.expect(&["policy", "check", "line.toml"], DONE, valid, "");
    let ask = |policy: &str, more: &str| {
        let start = format!("policy explain --policy {policy} --station drive-1 {more}");
        let output = place.run(&start.split(' ').collect::<Vec<_>>());
        let first = text(&output.stdout).lines().next().map(str::to_owned);
        (output.status.code(), first.unwrap_or_default())
    };
    for (more, code, first) in [
        (
            "--client-name plc-1 --service cyclic",
            DONE,
            "allowed by rule \"io\"",
        ),
        (
            "--mac 00:1b:1b:01:02:03 --called plc --service write --record 0x8001 --slot 1.1",
            DONE,
            "allowed by rule \"parameters\"",
        ),
        (
            "--client-name plc-1 --service write --record 0x8100 --slot 1.1",
            FAILED,
            "refused: record 0x8100 outside every range",
        ),
        (
            "--mac 00:1b:1b:01:02:04 --service connect",
            FAILED,
            "refused: no rule for this controller",
        ),
        ("--client-name plc-1 --service write", WRONG, ""),
        ("--client-name plc-2 --service get", WRONG, ""),
        ("--client-name plc-1 --service io", WRONG, ""),
        ("--client-name plc-1", WRONG, ""),
        ("--service get --device press-07", WRONG, ""),
    ] {
        assert_eq!(
            ask("line.toml", more),
            (Some(code), first.to_owned()),
            "{more}"
        );
    }
    let narrowed = "--client-name plc-1 --service cyclic --narrowed-by wider.toml";
    // A client by its name is one of one file.
    assert_eq!(ask("line.toml", narrowed).0, Some(WRONG));
    let narrowed = "--mac 00:1b:1b:01:02:03 --service write --record 0x8100 --slot 1.1 \
                    --narrowed-by line.toml";
    assert_eq!(ask("wider.toml", narrowed).0, Some(FAILED));
    let ceiling = "At most, whatever clients it states, any headend can reach:\n  \
                   station drive-1\n    \
                   service identify, get, hello, connect, cyclic, alarm  by \"io\"\n    \
                   service write, record 0x8000-0x80ff, slot 1.0x1  by \"parameters\"\n  \
                   station valve-2.line-1\n    \
                   service identify, get, hello, connect, cyclic, alarm  by \"io\"\n";
    let as_edge = ["policy", "explain", "--policy", "line.toml", "--as-edge"];
    place.expect(&as_edge, DONE, ceiling, "");
    let client = "allow plc-1 (00:1b:1b:01:02:03) -> station drive-1: service write";
    let changed = format!(
        "rules for stations, one by one\n  * \"parameters\": {client}, record 0x8000-0x81ff, slot 1.0x1\n      \
         was: {client}, record 0x8000-0x80ff, slot 1.0x1\n"
    );
    let both = ["policy", "diff", "line.toml", "wider.toml"];
    place.expect(&both, FAILED, &changed, "");
}

pub(super) fn samples() {
    let place = Place::with(&[]);
    let plants = fs::read_dir(workspace_root().join("examples")).unwrap();
    let policies = plants.map(|plant| plant.unwrap().path().join("policy.toml"));
    let mut checked = 0;
    for policy in policies.filter(|policy| policy.exists()) {
        let path = policy.to_str().unwrap();
        let output = place.run(&["policy", "check", path]);
        assert_eq!(
            output.status.code(),
            Some(DONE),
            "{}",
            binary::text(&output)
        );
        assert_eq!(text(&output.stderr), "");
        checked += 1;
    }
    assert!(checked > 0, "no sample policies");
}

pub(super) fn diff() {
    let wider = POLICY
        .replace("1200", "1300")
        .replace("\"holding 0-99\"", "\"holding 0-49\", \"holding 60-99\"");
    let other_form = POLICY
        .replace("\"holding 0-99\"", "\"4x00001-4x00050\", \"holding 50-99\"")
        .replace("hmi reads", "reads");
    let place = Place::with(&[
        ("policy.toml", POLICY),
        ("policy.new", &wider),
        ("same.toml", &other_form),
    ]);
    let same = ["policy", "diff", "policy.toml", "same.toml"];
    place.expect(&same, DONE, "no difference\n", "");
    let changed = "\
opens
  hmi-1 -> press-07, unit 1: function 6, 16 at holding 40-41, values 1201-1300
      such as 6 (0x06) write-single-register, write holding 40 = 1201
closes
  hmi-1 -> press-07, unit 1: function 3 at holding 50-59
      such as 3 (0x03) read-holding-registers, read holding 50
";
    let both = ["policy", "diff", "policy.toml", "policy.new"];
    place.expect(&both, FAILED, changed, "");
    let output = place.run(&[&both[..], &["--json"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["regions"][0]["change"], "opens");
    assert_eq!(report["regions"][0]["example"]["pdu"], "06002804b1");
    let missing = place.run(&["policy", "diff", "policy.toml", "none.toml"]);
    assert_eq!(missing.status.code(), Some(WRONG));
    assert!(text(&missing.stderr).starts_with("none.toml: "));
}
