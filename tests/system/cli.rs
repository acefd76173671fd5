//! What people meet at the command line: helps, refusals and their exit codes, word by word.

use std::fs;
use std::process::Output;

use fieldlock_testkit::process::Directory;
use fieldlock_tests::{Pair, Role, Setup, Site, Transport, binary, trial};
use libtest_mimic::Trial;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::test("cli::every_command_has_a_help", helps),
        trial::test("cli::wrong_usage", wrong_usage),
        trial::test("cli::wrong_edge_configuration", wrong_edge_configuration),
        trial::test(
            "cli::wrong_headend_configuration",
            wrong_headend_configuration,
        ),
        trial::test("cli::wrong_environment", wrong_environment),
        trial::test("cli::no_certificate", no_certificate),
        trial::test("cli::check_opens_nothing", check_opens_nothing),
        trial::test("cli::policy_check", policy_check),
        trial::test("cli::policy_explain", policy_explain),
        trial::test("cli::status_without_an_agent", status_without_an_agent),
        trial::test("cli::status_of_a_pair", status_of_a_pair),
        trial::test("cli::completions", completions),
    ]
}

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

const POLICY: &str = r#"syntax = 1
[[client]]
name = "hmi-1"
address = ["10.1.1.20/32"]
[[allow]]
name = "hmi reads"
client = ["hmi-1"]
device = ["press-07"]
unit = [1]
function = ["read"]
address = ["holding 0-99", "coil 0-15"]
[[allow]]
name = "setpoint"
client = ["hmi-1"]
device = ["press-07"]
unit = [1]
function = [6, 16]
address = ["holding 40-41"]
value = { min = 0, max = 1200 }
"#;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const WRONG: i32 = 2;

/// A folder to run commands in.
struct Place(Directory);

impl Place {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = Directory::new().unwrap();
        for (name, text) in files {
            directory.write(name, text).unwrap();
        }
        Self(directory)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = binary::command();
        command.args(arguments).current_dir(self.0.path());
        command.output().unwrap()
    }

    /// Runs and compares everything that the user meets.
    #[track_caller]
    fn expect(&self, arguments: &[&str], code: i32, stdout: &str, stderr: &str) {
        let output = self.run(arguments);
        let told = (text(&output.stdout), text(&output.stderr));
        assert_eq!(told.0, stdout, "standard output of {arguments:?}");
        assert_eq!(told.1, stderr, "standard error of {arguments:?}");
        assert_eq!(output.status.code(), Some(code), "exit of {arguments:?}");
    }

    /// The same for a configuration that is wrong: nothing on standard output, code 2.
    #[track_caller]
    fn refuses(&self, role: Role, config: &str, stderr: &str) {
        self.0.write("agent.toml", config).unwrap();
        let role = role.to_string();
        for check in [&["--check"][..], &[]] {
            let arguments = [&[&role, "--config", "agent.toml"], check].concat();
            self.expect(&arguments, WRONG, "", stderr);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn helps() {
    let mut waiting = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = waiting.pop() {
        seen += 1;
        let arguments = [&command[..], &["--help".to_owned()]].concat();
        let output =
            Place::with(&[]).run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let help = text(&output.stdout);
        assert_eq!(output.status.code(), Some(DONE), "{arguments:?}");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
        check_help(&command, &help);
        for name in subcommands(&help) {
            waiting.push([&command[..], &[name]].concat());
        }
    }
    assert!(seen >= 20, "only {seen} commands found");
}

fn check_help(command: &[String], help: &str) {
    let usage = format!("Usage: fieldlock {}", command.join(" "));
    assert!(help.contains(usage.trim_end()), "{command:?}: {help}");
    let wide = help.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None, "{command:?}: wider than a terminal");
    let first = help.lines().next().unwrap_or_default();
    assert!(
        first.chars().next().is_some_and(char::is_uppercase),
        "{command:?} says first what it does: {first}"
    );
}

/// The names under `Commands:`, without `help` itself.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let list = lines.take_while(|line| !line.is_empty());
    // What a command does may go on in the next line, further to the right.
    let name = |line: &str| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    };
    list.filter_map(name).collect()
}

fn wrong_usage() {
    let place = Place::with(&[("edge.toml", EDGE_CONFIG)]);
    let more = "\nFor more information, try '--help'.\n";
    place.expect(
        &["statu"],
        WRONG,
        "",
        &format!(
            "error: unrecognized subcommand 'statu'\n\n  tip: a similar subcommand exists: 'status'\n\n\
             Usage: fieldlock <COMMAND>\n{more}"
        ),
    );
    place.expect(
        &["edge", "--confg", "x"],
        WRONG,
        "",
        &format!(
            "error: unexpected argument '--confg' found\n\n  \
             tip: a similar argument exists: '--config'\n\n\
             Usage: fieldlock edge --config <FILE>\n{more}"
        ),
    );
    place.expect(
        &["edge", "--config", "edge.toml", "--log", "a=b=c"],
        WRONG,
        "",
        "error: --log `a=b=c`: error parsing level filter: expected one of \"off\", \"error\", \
         \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5\n",
    );
    // Nothing at all: the whole help, as an error.
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(WRONG));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("Usage: fieldlock <COMMAND>"));
}

fn wrong_edge_configuration() {
    let place = Place::with(&[("policy.toml", POLICY)]);
    let changed = |from: &str, to: &str| {
        assert!(EDGE_CONFIG.contains(from));
        EDGE_CONFIG.replace(from, to)
    };
    let refuses = |config: &str, stderr: &str| place.refuses(Role::Edge, config, stderr);
    refuses(
        &changed("policy =", "polcy ="),
        "error: agent.toml:2:1: unknown field `polcy`, expected one of `state`, `policy`, \
         `headend`, `device`, `drain`\nhint: did you mean `policy`?\n",
    );
    refuses(
        &changed("address = \"127.0.0.1:502\"", "adress = \"127.0.0.1:502\""),
        "error: agent.toml:8:16: unknown field `adress`, expected one of `address`, \
         `max_connections`, `in_flight`, `connect_timeout`, `pause_after_connect`, \
         `pause_between_requests`, `idle_close`\nhint: did you mean `address`?\n",
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
    place.expect(
        &["edge", "--config", "missing.toml", "--check"],
        WRONG,
        "",
        "error: missing.toml: No such file or directory (os error 2)\n\
         hint: `--config FILE` names another one; examples/ has commented samples\n",
    );
}

fn wrong_headend_configuration() {
    let place = Place::with(&[("policy.toml", POLICY)]);
    let refuses = |from: &str, to: &str, stderr: &str| {
        assert!(HEADEND_CONFIG.contains(from));
        place.refuses(Role::Headend, &HEADEND_CONFIG.replace(from, to), stderr);
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
}

fn wrong_environment() {
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
         `policy`, `headend`, `device`, `drain`\nhint: did you mean `policy`?\n"
    );
}

fn no_certificate() {
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

fn check_opens_nothing() {
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
    pair.edge.write_policy(fieldlock_tests::OPEN_POLICY);
    let output = pair.edge.check();
    assert_ne!(
        output.status.code(),
        Some(DONE),
        "{}",
        binary::text(&output)
    );
}

fn files(folder: std::path::PathBuf) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn policy_check() {
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
                 devices    press-07\n  read-only  none\n";
    let errors = "\
        broken.toml:2:1: client: a client must be told by at least one of address, identity and role\n\
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

fn policy_explain() {
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
        "function 3 (0x03) read-holding-registers needs --address, such as --address \"holding 0\"",
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

fn status_without_an_agent() {
    let place = Place::with(&[]);
    for json in [&["--json"][..], &[]] {
        let arguments = [&["status", "--socket", "none.sock"], json].concat();
        place.expect(
            &arguments,
            FAILED,
            "",
            "error: none.sock: No such file or directory (os error 2)\n\
             hint: is the agent running?\n",
        );
    }
}

fn status_of_a_pair() {
    let pair = Pair::up(Transport::Quic);
    for agent in [&pair.edge, &pair.headend] {
        let socket = agent.state().join("control.sock");
        let socket = socket.to_str().unwrap();
        let place = Place::with(&[]);
        let output = place.run(&["status", "--socket", socket]);
        assert_eq!(output.status.code(), Some(DONE));
        assert_eq!(text(&output.stderr), "");
        let told = text(&output.stdout);
        for part in [
            "tunnel ",
            "quic",
            "X25519MLKEM768",
            "same policy",
            "device press-07: ",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let output = place.run(&["status", "--socket", socket, "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let identity = status["identity"].as_str().unwrap_or_default();
        assert!(
            identity.ends_with(&format!("/{}", agent.name())),
            "{status}"
        );
        assert_eq!(status["alarms"].as_array().map(Vec::len), Some(0));
    }
}

fn completions() {
    let place = Place::with(&[]);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = place.run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(DONE), "{shell}");
        assert!(text(&output.stdout).contains("fieldlock"), "{shell}");
        assert_eq!(text(&output.stderr), "", "{shell}");
    }
}
