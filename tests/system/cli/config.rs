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

/// Runs with a configuration that is wrong: nothing on standard output, code 2.
#[track_caller]
fn refuses_config(place: &Place, role: Role, config: &str, stderr: &str) {
    place.0.write("agent.toml", config).unwrap();
    let role = role.to_string();
    for check in [&["--check"][..], &[]] {
        let arguments = [&[&role, "--config", "agent.toml"], check].concat();
        place.expect(&arguments, WRONG, "", stderr);
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
        "error: agent.toml:2:1: unknown field `polcy`, expected one of `state`, `policy`, \
         `bundle`, `trust`, `audit`, `ca`, `headend`, `device`, `profinet`, `station`, `monitor`, `sandbox`, `drain`\nhint: did you mean `policy`?\n",
    );
    refuses(
        &changed("address = \"127.0.0.1:502\"", "adress = \"127.0.0.1:502\""),
        "error: agent.toml:8:16: unknown field `adress`, expected one of `address`, \
         `max_connections`, `in_flight`, `connect_timeout`, `pause_after_connect`, \
         `pause_between_requests`, `idle_close`, `mbaps`\nhint: did you mean `address`?\n",
    );
    refuses(
        &changed("127.0.0.1:502", "127.0.0.1"),
        "error: agent.toml: device `press-07`: `127.0.0.1` is not host:port \
         (IPv6 as \"[2001:db8::1]:502\")\n",
    );
    let twice = format!(
        "{EDGE_CONFIG}[[device]]\nname = \"press-07\"\nmodbus_tcp = {{ address = \"127.0.0.1:503\" }}\n"
    );
    refuses(
        &twice,
        "error: agent.toml: device `press-07` stands twice\n",
    );
    refuses(
        &format!("{EDGE_CONFIG}modbus_rtu = {{ path = \"/dev/ttyS0\" }}\n"),
        "error: agent.toml: device `press-07`: give exactly one of `modbus_tcp` and `modbus_rtu`\n",
    );
    refuses(
        &format!("{EDGE_CONFIG}answer_within = \"soon\"\n"),
        "error: agent.toml:9:17: `soon` is not a length of time; write it like \"250ms\", \"1s\" \
         or \"5m\"\n",
    );
    refuses(
        &changed("hd-1", "HD_1"),
        "error: agent.toml: headend `HD_1`: \"HD_1\" is not a name: use 1 to 63 of a-z, 0-9 and \
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
        "error: agent.toml:12:8: `drive_1` is no name-of-station: character '_'; allowed are a-z, \
         0-9, `-` and `.`\n",
    );
    refuses(
        &format!("{wire}[[station]]\nname = \"drive-1\"\nredundnacy = 3\n"),
        "error: agent.toml:13:1: unknown field `redundnacy`, expected one of `name`, `edge`, \
         `redundancy`, `spread`, `play_out`, `hold`, `fail_safe_limit`, `mac`\n\
         hint: did you mean `redundancy`?\n",
    );
    refuses(
        &format!("{wire}[[station]]\nname = \"drive-1\"\nedge = \"press-07\"\n"),
        "error: agent.toml: station `drive-1`: `edge` belongs in headend.toml; here every station \
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
        "error: agent.toml: listener 127.0.0.1:5021, unit 7: there is no device `press-08`\n",
    );
    refuses(
        "127.0.0.1:5021",
        "127.0.0.1:5020",
        "error: agent.toml: listener 127.0.0.1:5020: another device or listener has its address\n",
    );
    refuses(
        "listen = \"127.0.0.1:5020\"",
        "listen = \"127.0.0.1\"",
        "error: agent.toml:5:10: invalid socket address syntax\n\
         hint: write an IP address and a port, such as \"10.1.0.7:502\" or \"[::]:502\"\n",
    );
    refuses(
        "unit = 7",
        "unit = 700",
        "error: agent.toml:8:18: invalid value: integer `700`, expected u8\n",
    );
    let stations = "[profinet]\ninterface = \"enp3s0\"\n[[station]]\nname = \"drive-1.line-4\"\n";
    refuses(
        "[[device]]\n",
        &format!("{stations}[[device]]\n"),
        "error: agent.toml: station `drive-1.line-4`: `drive-1.line-4` is no name of an edge (a-z, \
         0-9, inner hyphens); name the edge that offers it in `edge`\n",
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
    assert_eq!(
        text(&output.stderr),
        "error: environment FIELDLOCK__*: unknown field `policcy`, expected one of `state`, \
         `policy`, `bundle`, `trust`, `audit`, `ca`, `headend`, `device`, `profinet`, `station`, `monitor`, `sandbox`, `drain`\nhint: did you mean `policy`?\n"
    );
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
