//! What people meet at the command line: helps, refusals and their exit codes, word by word.

mod config;
mod policy;

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Output;

use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::Directory;

use fieldlock_tests::{Agent, EDGE, Hosted, Pair, Setup, Transport, binary, trial};
use libtest_mimic::Trial;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::test("cli::every_command_has_a_help", helps),
        trial::test("cli::wrong_usage", wrong_usage),
        trial::test(
            "cli::wrong_edge_configuration",
            config::wrong_edge_configuration,
        ),
        trial::test(
            "cli::wrong_headend_configuration",
            config::wrong_headend_configuration,
        ),
        trial::test(
            "cli::all_that_is_wrong_with_a_file_is_told_at_once",
            config::wrong_in_many_ways,
        ),
        trial::test("cli::wrong_environment", config::wrong_environment),
        trial::test("cli::no_certificate", config::no_certificate),
        trial::test("cli::check_opens_nothing", config::check_opens_nothing),
        trial::test("cli::check_dials_what_it_is_told_to", config::check_dials),
        trial::test(
            "cli::relative_paths_count_from_the_file",
            config::relative_paths,
        ),
        trial::test(
            "cli::an_edge_that_is_turned_away_is_shown",
            turned_away_is_shown,
        ),
        trial::test(
            "cli::an_edge_says_whether_it_reaches_its_device_before_anybody_asks",
            reachable_before_asked,
        ),
        trial::test(
            "cli::names_in_the_policy_that_no_configuration_has",
            config::names_that_no_configuration_has,
        ),
        trial::test("cli::policy_check", policy::check),
        trial::test("cli::policy_explain", policy::explain),
        trial::test("cli::policy_of_stations", policy::stations),
        trial::test("cli::policy_diff", policy::diff),
        trial::test("cli::sample_policies", policy::samples),
        trial::test("cli::status_without_an_agent", status_without_an_agent),
        trial::test("cli::status_of_a_pair", status_of_a_pair),
        trial::test("cli::completions", completions),
    ]
}

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
    let place = Place::with(&[]);
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
        "error: --log `a=b=c`: `b=c` is no level; a level is off, error, warn, info, debug or trace, \
         and a part of the program (a target) gets its own as in info,fieldlock=debug\n",
    );
    place.expect(
        &["edge", "--config", "edge.toml", "--log", "infoo"],
        WRONG,
        "",
        "error: --log `infoo`: `infoo` is no level; a level is off, error, warn, info, debug or trace, \
         and a part of the program (a target) gets its own as in info,fieldlock=debug\n",
    );
    // Nothing at all: the whole help, as an error.
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(WRONG));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("Usage: fieldlock <COMMAND>"));
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
             hint: is the agent running, and is this its state directory? `--state DIR` or \
             `--config FILE` names another\n",
        );
    }
    // One that has ended leaves its socket.
    drop(UnixListener::bind(place.0.path().join("control.sock")).unwrap());
    let output = place.run(&["status", "--state", "."]);
    assert_eq!(output.status.code(), Some(FAILED));
    let told = text(&output.stderr);
    assert!(told.contains("Connection refused"), "{told}");
    assert!(told.contains("hint: the agent has ended"), "{told}");
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
        let (state, config) = (agent.state(), agent.config_file());
        for way in [
            ["--state", state.to_str().unwrap()],
            ["--config", config.to_str().unwrap()],
        ] {
            let same = place.run(&[&["status"], &way[..]].concat());
            assert_eq!(same.status.code(), Some(DONE), "{}", binary::text(&same));
            assert!(text(&same.stdout).contains("device press-07: "));
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

/// Its device is bound to another edge.
fn turned_away_is_shown() {
    let mut pair = Setup::new(Transport::Quic).prepare();
    let bound = format!("edge = \"{EDGE}\"");
    assert!(pair.headend_config.contains(&bound));
    let config = pair.headend_config.replace(&bound, "edge = \"other\"");
    pair.headend.write_config(&config);
    pair.headend.start();
    pair.edge.start();
    pair.headend.wait_ready();
    pair.headend.wait_that("the refusal", |headend| {
        let refusals = headend.status()["refusals"].clone();
        refusals.as_array().is_some_and(|all| !all.is_empty())
    });
    let refusal = pair.headend.status()["refusals"][0].clone();
    let who = refusal["who"].as_str().unwrap_or_default();
    assert!(who.ends_with("/edge/press-07"), "{refusal}");
    let reason = refusal["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("is not bound to edge"), "{refusal}");
    let state = pair.headend.state();
    let told = binary::run_ok(&[&"status", &"--state", &state]);
    assert!(told.contains("TURNED AWAY: "), "{told}");
    // Once it is let in it is not turned away any more.
    pair.headend.write_config(&pair.headend_config);
    pair.headend.process().hang_up();
    pair.wait_up();
    assert_eq!(
        pair.headend.status()["refusals"].as_array().map(Vec::len),
        Some(0)
    );
}

fn reachable_before_asked() {
    let nobody = free_address().unwrap();
    let mut pair = Setup::new(Transport::Quic).plc(nobody).up();
    let is =
        |reachable: bool| move |edge: &Agent| edge.status()["devices"][0]["reachable"] == reachable;
    pair.edge.wait_that("a wrong address to be seen", is(false));
    let told = binary::run_ok(&[&"status", &"--state", &pair.edge.state()]);
    assert!(told.contains("NOT REACHABLE"), "{told}");
    assert!(
        pair.edge.log().contains("can't be reached: "),
        "{}",
        pair.edge.log()
    );
    let _plc = Hosted::plc(nobody.port());
    pair.edge.wait_that("the device to be seen", is(true));
    let told = binary::run_ok(&[&"status", &"--state", &pair.edge.state()]);
    assert!(told.contains(", reachable, 1 connections"), "{told}");

    let left_alone = TcpListener::bind("127.0.0.1:0").unwrap();
    let pair = Setup::new(Transport::Quic)
        .plc(left_alone.local_addr().unwrap())
        .device("connect_at_start = false");
    let pair = pair.up();
    assert!(pair.edge.status()["devices"][0]["reachable"].is_null());
    left_alone.set_nonblocking(true).unwrap();
    let kind = left_alone.accept().unwrap_err().kind();
    assert_eq!(kind, ErrorKind::WouldBlock);
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
