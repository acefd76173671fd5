//! Configurations that are wrong, and what `--check` does and leaves alone.

use std::fs;
use std::path::PathBuf;

use fieldlock_tests::{OPEN_POLICY, Role, Setup, Site, Transport, binary};

use super::{DONE, FAILED, POLICY, Place, WRONG, text};

const EDGE_CONFIG: &str = r#"state = "state"
policy = "policy.toml"
[[headend]]
name = "hd-1"
address = ["127.0.0.1:4433"]
[[device]]
name = "press-07"
modbus_tcp = { address = "127.0.0.1:502" }
"#;

const HEADEND_CONFIG: &str = r#"state = "state"
policy = "policy.toml"
[[device]]
name = "press-07"
listen = "127.0.0.1:5020"
[[listener]]
address = "127.0.0.1:5021"
unit = [{ unit = 7, device = "press-07" }]
"#;

/// Runs with a configuration that is wrong: nothing on standard output, code 2. `...` in `stderr` stands for
/// anything.
#[track_caller]
fn refuses_config(place: &Place, role: Role, config: &str, stderr: &str) {
    place.0.write("agent.toml", config).unwrap();
    let role = role.to_string();
    for check in [&["--check"][..], &[]] {
        let output = place.run(&[&[&role, "--config", "agent.toml"], check].concat());
        assert_eq!(output.status.code(), Some(WRONG));
        assert_eq!(text(&output.stdout), "");
        let told = text(&output.stderr);
        let mut rest = told.as_str();
        for part in stderr.split("...") {
            let at = rest.find(part);
            let at = at.unwrap_or_else(|| panic!("expected {part:?} in:\n{told}"));
            rest = &rest[at + part.len()..];
        }
        assert!(told.starts_with("error: agent.toml"), "{told}");
        assert_eq!(rest, "", "{told}");
    }
}

pub(super) fn wrong_edge_configuration() {
    let place = Place::with(&[("policy.toml", POLICY)]);
    let changed = |from: &str, to: &str| {
        assert!(EDGE_CONFIG.contains(from));
        EDGE_CONFIG.replace(from, to)
    };
    let refuses = |config: &str, stderr: &str| refuses_config(&place, Role::Edge, config, stderr);
    refuses(
        &changed("policy =", "polcy ="),
        "error: agent.toml:2:1: `polcy` is no key here; the keys are `state`, `policy`, ...\n\
         hint: did you mean `policy`?\n",
    );
    refuses(
        &changed("address = \"127.0.0.1:502\"", "adress = \"127.0.0.1:502\""),
        "error: agent.toml:8:16: `adress` is no key here; the keys are `address`, ...\n\
         hint: did you mean `address`?\n",
    );
    refuses(
        &changed("127.0.0.1:502", "127.0.0.1"),
        "error: agent.toml:8:16: device `press-07`: `address` 127.0.0.1 is not host:port \
         (IPv6 as \"[2001:db8::1]:502\")\n",
    );
    let twice = format!(
        "{EDGE_CONFIG}[[device]]\nname = \"press-07\"\nmodbus_tcp = {{ address = \"127.0.0.1:503\" }}\n"
    );
    refuses(
        &twice,
        "error: agent.toml:9:1: duplicate device `press-07`\n",
    );
    refuses(
        &format!("{EDGE_CONFIG}modbus_rtu = {{ path = \"/dev/ttyS0\" }}\n"),
        "error: agent.toml:8:1: device `press-07`: give exactly one of `modbus_tcp` and `modbus_rtu`\n",
    );
    refuses(
        &format!("{EDGE_CONFIG}answer_within = \"soon\"\n"),
        "error: agent.toml:9:17: `answer_within`: `soon` is not a length of time; write it like \"250ms\", \"1s\" \
         or \"5m\"\n",
    );
    refuses(
        &changed("hd-1", "HD_1"),
        "error: agent.toml:3:1: headend `HD_1`: \"HD_1\" is not a name: use 1 to 63 of a-z, 0-9 and \
         `-`, not beginning or ending with `-`\n",
    );
    let many: String = (0..256)
        .map(|n| format!("[[device]]\nname = \"d{n}\"\nmodbus_tcp = {{ address = \"[::1]:5\" }}\n"))
        .collect();
    refuses(
        &format!("{EDGE_CONFIG}{many}"),
        "error: agent.toml: 257 devices, allowed 256: run a second edge with an identity of its \
         own\n",
    );
    refuses(
        &format!("{EDGE_CONFIG}[[station]]\nname = \"drive-1\"\n"),
        "error: agent.toml: [[station]] without [profinet]: name the `interface` of the PROFINET \
         wire there\n",
    );
    let wire = format!("{EDGE_CONFIG}[profinet]\ninterface = \"enp3s0\"\n");
    refuses(
        &wire,
        "error: agent.toml: [profinet] without [[station]]: nothing would cross; name the \
         stations that may be reached\n",
    );
    refuses(
        &format!("{wire}[[station]]\nname = \"drive_1\"\n"),
        "error: agent.toml:12:8: `name`: `drive_1` is no name-of-station: character '_'; allowed are a-z, \
         0-9, `-` and `.`\n",
    );
    refuses(
        &format!("{wire}[[station]]\nname = \"drive-1\"\nredundnacy = 3\n"),
        "error: agent.toml:13:1: `redundnacy` is no key here; the keys are `name`, ...\n\
         hint: did you mean `redundancy`?\n",
    );
    refuses(
        &format!("{wire}[[station]]\nname = \"drive-1\"\nedge = \"press-07\"\n"),
        "error: agent.toml:13:1: station `drive-1`: `edge` belongs in headend.toml; here every station \
         is this edge's own\n",
    );
    place.expect(
        &["edge", "--config", "missing.toml", "--check"],
        WRONG,
        "",
        "error: missing.toml: No such file or directory (os error 2)\n\
         hint: `--config FILE` names another one; examples/ has commented samples\n",
    );
}

pub(super) fn wrong_headend_configuration() {
    let place = Place::with(&[("policy.toml", POLICY)]);
    let refuses = |from: &str, to: &str, stderr: &str| {
        assert!(HEADEND_CONFIG.contains(from));
        refuses_config(
            &place,
            Role::Headend,
            &HEADEND_CONFIG.replace(from, to),
            stderr,
        );
    };
    refuses(
        "device = \"press-07\"",
        "device = \"press-08\"",
        "error: agent.toml:6:1: listener 127.0.0.1:5021, unit 7: there is no device `press-08`\n",
    );
    refuses(
        "127.0.0.1:5021",
        "127.0.0.1:5020",
        "error: agent.toml:6:1: listener 127.0.0.1:5020: another device or listener has its address\n",
    );
    refuses(
        "listen = \"127.0.0.1:5020\"",
        "listen = \"127.0.0.1\"",
        "error: agent.toml:5:10: `listen`: this is no IP address with a port\n\
         hint: write an IP address and a port, such as \"10.1.0.7:502\" or \"[::]:502\"\n",
    );
    refuses(
        "unit = 7",
        "unit = 700",
        "error: agent.toml:8:18: `unit` is the number 700, and has to be a whole number from 0 to 255\n\
         hint: write unit = 7\n",
    );
    let stations = "[profinet]\ninterface = \"enp3s0\"\n[[station]]\nname = \"drive-1.line-4\"\n";
    refuses(
        "[[device]]\n",
        &format!("{stations}[[device]]\n"),
        "error: agent.toml: [[station]] without [[controller]]: nobody may be heard; give `name` and \
         `mac` of the IO-controller\nagent.toml:5:1: station `drive-1.line-4`: `drive-1.line-4` is no \
         name of an edge (a-z, 0-9, inner hyphens); name the edge that offers it in `edge`\n",
    );
    refuses(
        "[[device]]\n",
        &format!("{stations}edge = \"cell-4\"\n[[device]]\n"),
        "error: agent.toml: [[station]] without [[controller]]: nobody may be heard; give `name` \
         and `mac` of the IO-controller\n",
    );
}

pub(super) fn wrong_environment() {
    let place = Place::with(&[("edge.toml", EDGE_CONFIG), ("policy.toml", POLICY)]);
    let mut command = binary::command();
    command
        .args(["edge", "--config", "edge.toml", "--check"])
        .env("FIELDLOCK__POLICCY", "other.toml")
        .current_dir(place.0.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(WRONG));
    let told = text(&output.stderr);
    let start = "error: environment FIELDLOCK__*: `policcy` is no key here; the keys are `state`, ";
    assert!(told.starts_with(start), "{told}");
    assert!(told.ends_with("\nhint: did you mean `policy`?\n"), "{told}");
}

/// Every error of a file, not the first alone.
pub(super) fn wrong_in_many_ways() {
    let place = Place::with(&[("policy.toml", POLICY)]);
    let config = "state = \"state\"\npolicy = \"policy.toml\"\n[headend]\nname = 7\n[[device]]\n\
                  name = \"press-07\"\nanswer_wihtin = \"1s\"\nmodbus_tcp = \"192.0.2.10:502\"\n";
    refuses_config(
        &place,
        Role::Edge,
        config,
        "error: agent.toml:3:1: `headend` is a table, and has to be a list, in [ ]\n\
         hint: write [[headend]]\n\
         agent.toml:7:1: `answer_wihtin` is no key here; the keys are ...\n\
         hint: did you mean `answer_within`?\n\
         agent.toml:8:14: `modbus_tcp` is the text \"192.0.2.10:502\", and has to be a table, under \
         a [header] or in { }\nhint: write modbus_tcp = { address = \"192.0.2.10:502\" }\n",
    );
}

pub(super) fn relative_paths() {
    let place = Place::with(&[(
        "edge.toml",
        &EDGE_CONFIG.replace("policy.toml", "plicy.toml"),
    )]);
    let file = place.0.path().join("edge.toml");
    let file = file.to_str().unwrap();
    // From another directory than that of the file.
    let elsewhere = Place::with(&[("plicy.toml", POLICY)]);
    let output = elsewhere.run(&["edge", "--config", file, "--check"]);
    assert_eq!(output.status.code(), Some(WRONG));
    let told = text(&output.stderr);
    assert!(
        told.starts_with(&format!("error: {file}:2:1: `policy`: ")),
        "{told}"
    );
    assert!(told.contains("plicy.toml: No such file"), "{told}");
    place.0.write("plicy.toml", POLICY).unwrap();
    let output = elsewhere.run(&["edge", "--config", file, "--check"]);
    assert_eq!(output.status.code(), Some(FAILED));
    let key = place.0.path().join("state/identity/key.pem");
    let missing = format!("error: {} is missing", key.display());
    assert!(
        text(&output.stderr).starts_with(&missing),
        "{}",
        binary::text(&output)
    );
}

pub(super) fn check_dials() {
    let mut pair = Setup::new(Transport::Auto).prepare();
    pair.headend.start();
    pair.headend.wait_ready();
    let config = pair.edge.config_file();
    let arguments = [
        "edge",
        "--config",
        config.to_str().unwrap(),
        "--check",
        "--dial",
    ];
    let place = Place::with(&[]);
    let output = place.run(&arguments);
    assert_eq!(
        output.status.code(),
        Some(DONE),
        "{}",
        binary::text(&output)
    );
    let told = text(&output.stdout);
    for what in [
        format!("device press-07 at {}: answers", pair.plc_address),
        format!("headend hd-1 at {} over quic: answers", pair.tunnel),
        format!("headend hd-1 at {} over tls: answers", pair.tunnel),
    ] {
        assert!(told.contains(&what), "{what}\n{told}");
    }
    // It has taken nobody's place.
    assert_eq!(
        pair.headend.status()["tunnels"].as_array().map(Vec::len),
        Some(0)
    );
    pair.headend.terminate();
    let output = place.run(&arguments);
    assert_eq!(
        output.status.code(),
        Some(FAILED),
        "{}",
        binary::text(&output)
    );
    let told = text(&output.stderr);
    let what = format!("error: headend hd-1 at {} over tls: ", pair.tunnel);
    assert!(told.contains(&what), "{told}");
    let output = place.run(&["edge", "--config", config.to_str().unwrap(), "--dial"]);
    assert_eq!(output.status.code(), Some(WRONG));
}

pub(super) fn no_certificate() {
    let place = Place::with(&[("edge.toml", EDGE_CONFIG), ("policy.toml", POLICY)]);
    place.expect(
        &["edge", "--config", "edge.toml", "--check"],
        FAILED,
        "",
        "error: state/identity/key.pem is missing: run `fieldlock enroll request --role ROLE \
         --name NAME --state state`, have the CA sign the request, then run `fieldlock enroll \
         install BUNDLE --state state`\n",
    );
}

pub(super) fn names_that_no_configuration_has() {
    let mut pair = Setup::new(Transport::Auto).prepare();
    let mistyped = OPEN_POLICY.replace(
        "[\"any\"]\nfunction",
        "[\"pres-07\"]\nvia = [\"hd-7\"]\nfunction",
    );
    pair.edge.write_policy(&mistyped);
    let output = pair.edge.check();
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(DONE), "{told}");
    let does = "that this configuration does not have, so those rules do nothing here";
    for line in [
        format!(
            "\nwarning: the policy names devices {does}: \"pres-07\" (did you mean \"press-07\"?)\n"
        ),
        format!("\nwarning: the policy names headends {does}: \"hd-7\" (did you mean \"hd-1\"?)\n"),
    ] {
        assert!(told.contains(&line), "{told}");
    }
    pair.edge.start();
    pair.edge.wait_ready();
    let warnings = |status: &serde_json::Value| status["policy_warnings"].as_array().unwrap().len();
    assert_eq!(warnings(&pair.edge.status()), 2);
    assert_eq!(pair.edge.log().matches("does not have").count(), 2);
    pair.edge.write_policy(OPEN_POLICY);
    pair.edge
        .wait_that("the right policy", |edge| warnings(&edge.status()) == 0);
    // Others may have the device, and a headend does not judge `via`.
    pair.headend.write_policy(&mistyped);
    let told = pair.headend.check();
    assert_eq!(text(&told.stdout).matches("warning: ").count(), 1);
}

pub(super) fn check_opens_nothing() {
    let pair = Setup::new(Transport::Auto).prepare();
    for agent in [&pair.headend, &pair.edge] {
        let before = files(agent.state());
        let output = agent.check();
        assert_eq!(
            output.status.code(),
            Some(DONE),
            "{}",
            binary::text(&output)
        );
        assert_eq!(text(&output.stderr), "");
        assert!(
            text(&output.stdout).contains(agent.name()),
            "{}",
            binary::text(&output)
        );
        assert_eq!(files(agent.state()), before, "files of {}", agent.name());
    }
    // Where the headend already runs, a check does not mind its ports.
    let mut pair = pair;
    pair.headend.start();
    pair.headend.wait_ready();
    assert_eq!(pair.headend.check().status.code(), Some(DONE));
    pair.edge
        .write_policy("syntax = 1\n[[allow]]\nname = \"x\"\n");
    let output = pair.edge.check();
    assert_eq!(output.status.code(), Some(WRONG));
    let place = format!("{}:2:", pair.edge.policy_file().display());
    assert!(
        text(&output.stderr).contains(&place),
        "{}",
        binary::text(&output)
    );
    // An identity of the other role.
    let site = Site::shared();
    site.install(Role::Headend, "hd-9", &pair.edge.state());
    pair.edge.write_policy(OPEN_POLICY);
    let output = pair.edge.check();
    assert_ne!(
        output.status.code(),
        Some(DONE),
        "{}",
        binary::text(&output)
    );
}

fn files(folder: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}
