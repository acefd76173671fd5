//! The control socket of agents that run: what can be asked, and what clients can't do to them.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fieldlock_testkit::modbus::write_register;
use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_testkit::process::Directory;
use fieldlock_tests::answers::{expect_exception, read_registers, write_one};
use fieldlock_tests::trial::{test, with_peers};
use fieldlock_tests::{Agent, Pair, READ_ONLY_POLICY, Setup, Transport, binary, eventually};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("control::long_lists_come_in_pages", pages),
        test("control::an_edge_tells_of_its_devices", of_an_edge),
        test("control::the_last_events_are_told", recent),
        test("control::a_subscriber_sees_what_changes", subscriber_sees),
        test("control::a_ninth_subscriber_is_refused", ninth_subscriber),
        test(
            "control::a_subscriber_that_does_not_read_is_cut",
            deaf_subscriber,
        ),
        test("control::garbage_is_refused_and_disturbs_nobody", garbage),
        test(
            "control::a_client_of_the_first_version_is_understood",
            old_client,
        ),
        with_peers(
            "control::status_of_both_ends_fits_its_schema",
            &["jsonschema"],
            status_fits,
        ),
        with_peers(
            "control::the_examples_of_the_docs_run_as_pasted",
            &["jsonschema", "socat"],
            examples,
        ),
    ]
}

const OTHERS: usize = 4000;

/// A pair whose headend knows many more devices, each of an edge that is not there.
fn crowded() -> Pair {
    let mut others = String::new();
    for number in 0..OTHERS {
        let edge = number / 2;
        writeln!(
            others,
            "[[device]]\nname = \"pump-{number:04}\"\nedge = \"cell-{edge:04}\""
        )
        .unwrap();
    }
    Setup::new(Transport::Quic).headend(&others).up()
}

#[track_caller]
fn connect(agent: &Agent) -> UnixStream {
    let stream = UnixStream::connect(agent.socket()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    stream
}

/// One that has asked, and reads lines.
#[track_caller]
fn asking(agent: &Agent, request: &Value) -> BufReader<UnixStream> {
    let mut stream = connect(agent);
    writeln!(stream, "{request}").unwrap();
    BufReader::new(stream)
}

#[track_caller]
fn next(reader: &mut impl BufRead) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// What is said to a request, of which there is one line.
#[track_caller]
fn told(agent: &Agent, request: &Value) -> Value {
    let mut reader = asking(agent, request);
    let said = next(&mut reader);
    let mut rest = String::new();
    // Reset: the agent did not read the request of one too many.
    let _ = reader.read_to_string(&mut rest);
    assert_eq!(rest, "");
    said
}

#[track_caller]
fn refused(agent: &Agent, request: &Value) -> String {
    let said = told(agent, request);
    let error = said["error"].as_str();
    error.unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn names(listing: &Value) -> Vec<&str> {
    let items = listing["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect()
}

fn pages() {
    let pair = crowded();
    let headend = &pair.headend;
    let page = told(
        headend,
        &json!({ "request": "devices", "limit": 500, "filter": { "name": "pump-" } }),
    );
    assert_eq!(
        (page["role"].as_str(), page["matching"].as_u64()),
        (Some("headend"), Some(4000))
    );
    let mut seen: Vec<String> = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = told(
            headend,
            &json!({ "request": "devices", "after": after, "limit": 499 }),
        );
        assert!(page.to_string().len() < 300_000);
        seen.extend(names(&page).into_iter().map(str::to_owned));
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(seen.len(), OTHERS + 1);
    assert!(seen.is_sorted_by(|a, b| a < b));

    let of_one = json!({ "request": "devices", "filter": { "edge": "cell-0007" } });
    assert_eq!(names(&told(headend, &of_one)), ["pump-0014", "pump-0015"]);
    let connected = json!({ "request": "devices", "filter": { "connected": true } });
    assert_eq!(names(&told(headend, &connected)), ["press-07"]);

    let edges = told(
        headend,
        &json!({ "request": "edges", "after": "cell-1998", "limit": 2 }),
    );
    assert_eq!(names(&edges), ["cell-1999", "press-07"]);
    assert_eq!(edges["matching"], OTHERS / 2 + 1);
    assert_eq!(edges["next"], Value::Null);
    let cell = &edges["items"][0];
    assert_eq!(
        (&cell["connected"], &cell["devices"]),
        (&json!(false), &json!(2))
    );
    assert_eq!(edges["items"][1]["tunnel"]["transport"], "quic");
    let connected = json!({ "request": "edges", "filter": { "connected": true } });
    assert_eq!(names(&told(headend, &connected)), ["press-07"]);

    let one = told(headend, &json!({ "request": "device", "name": "press-07" }));
    assert_eq!(one["device"], headend_device(headend, "press-07"));
    let error = refused(headend, &json!({ "request": "device", "name": "press-08" }));
    assert!(error.contains("no device of that name"), "{error}");
    read_registers(&mut pair.client(), 0, 1);
}

fn headend_device(headend: &Agent, name: &str) -> Value {
    let status = headend.status();
    let devices = status["devices"].as_array().unwrap();
    devices
        .iter()
        .find(|device| device["name"] == name)
        .unwrap()
        .clone()
}

fn of_an_edge() {
    let pair = Pair::up(Transport::Tls);
    let page = told(&pair.edge, &json!({ "request": "devices" }));
    assert_eq!(
        (page["role"].as_str(), names(&page)),
        (Some("edge"), vec!["press-07"])
    );
    assert_eq!(page["items"][0]["address"], pair.plc_address.to_string());
    for request in [
        json!({ "request": "edges" }),
        json!({ "request": "devices", "filter": { "edge": "press-07" } }),
    ] {
        let error = refused(&pair.edge, &request);
        assert!(error.contains("this is an edge"), "{error}");
    }
}

fn recent() {
    let pair = Setup::new(Transport::Quic)
        .headend_policy(READ_ONLY_POLICY)
        .up();
    expect_exception(&mut pair.client(), &write_register(40, 7), 1);
    let denied = json!({ "request": "recent", "kind": "denied", "limit": 5 });
    let mut events = Vec::new();
    eventually("the denial", || {
        let said = told(&pair.headend, &denied);
        events.clone_from(said["events"].as_array().unwrap());
        !events.is_empty()
    });
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(
        (&event["device"], &event["function"]),
        (&json!("press-07"), &json!(6))
    );
    assert_eq!(event["outcome"], "refused");
    let record = pair
        .headend
        .wait_record("it", |record| json!(record.seq) == event["seq"]);
    assert_eq!(event["kind"], record.kind.name());
    assert_eq!(event["client"], "127.0.0.1");
    let all = told(&pair.headend, &json!({ "request": "recent", "limit": 500 }));
    let seqs: Vec<_> = all["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["seq"].as_u64())
        .collect();
    assert!(
        seqs.len() >= 3 && seqs.is_sorted_by(|a, b| a > b),
        "{seqs:?}"
    );
    let socket = pair.headend.socket();
    let shown = binary::run_ok(&[&"status", &"--socket", &socket, &"--recent", &"denied"]);
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(
        shown.contains(" denied, client 127.0.0.1, device press-07, "),
        "{shown}"
    );
    let shown = binary::run_ok(&[&"status", &"--socket", &socket, &"--recent"]);
    assert!(
        shown.lines().count() >= 3 && shown.contains(" start: fieldlock "),
        "{shown}"
    );
    let output = binary::run(&[&"status", &"--socket", &socket, &"--recent", &"denials"]);
    let text = binary::text(&output);
    assert!(
        text.contains("the agent says: there is no such kind of event"),
        "{text}"
    );
}

/// Reads deltas until one has it.
#[track_caller]
fn wait_delta(reader: &mut impl BufRead, what: &str, has: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let delta = next(reader);
        assert_eq!(delta["answer"], "delta", "{delta}");
        if has(&delta) {
            return delta;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "no {what}: {delta}"
        );
    }
}

fn subscriber_sees() {
    let mut pair = Pair::up(Transport::Quic);
    let mut reader = asking(&pair.headend, &json!({ "request": "subscribe" }));
    let state = next(&mut reader);
    assert_eq!(
        (&state["answer"], &state["role"]),
        (&json!("state"), &json!("headend"))
    );
    assert_eq!(state["peers"][0]["name"], "press-07");
    assert_eq!(
        (
            &state["peers"][0]["connected"],
            &state["peers"][0]["transport"]
        ),
        (&json!(true), &json!("quic"))
    );
    assert_eq!(state["devices"][0]["answered"], 0);

    let mut at_edge = asking(&pair.edge, &json!({ "request": "subscribe" }));
    assert_eq!(next(&mut at_edge)["peers"][0]["name"], "hd-1");

    write_one(&mut pair.client(), 40, 7);
    let has_event = |delta: &Value, kind: &str| {
        let events = delta["events"].as_array();
        events.is_some_and(|events| events.iter().any(|event| event["kind"] == kind))
    };
    for reader in [&mut reader, &mut at_edge] {
        let delta = wait_delta(reader, "write", |delta| has_event(delta, "write-outcome"));
        assert_eq!(delta["devices"][0]["answered"], 1, "{delta}");
    }

    pair.edge.kill();
    let delta = wait_delta(&mut reader, "lost tunnel", |delta| {
        delta["peers"][0]["connected"] == false
    });
    assert_eq!(delta["devices"][0]["connected"], false);
    let mut end = String::new();
    let _ = at_edge.read_to_string(&mut end);

    pair.headend.write_policy("syntax = 2\n");
    pair.headend.process().hang_up();
    let delta = wait_delta(&mut reader, "alarm", |delta| !delta["alarms"].is_null());
    assert_eq!(delta["alarms"][0]["name"], "policy-refused");
    let alarms = told(&pair.headend, &json!({ "request": "alarms" }));
    assert_eq!(alarms["alarms"][0]["name"], "policy-refused");

    // Once it stops, subscribers are no reason to wait.
    let begun = Instant::now();
    assert!(pair.headend.terminate().success());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let mut end = String::new();
    reader.read_to_string(&mut end).unwrap();
}

fn ninth_subscriber() {
    let pair = Pair::up(Transport::Quic);
    let subscribe = json!({ "request": "subscribe" });
    let mut followers: Vec<_> = (0..8).map(|_| asking(&pair.headend, &subscribe)).collect();
    for follower in &mut followers {
        assert_eq!(next(follower)["answer"], "state");
    }
    let error = refused(&pair.headend, &subscribe);
    assert!(error.contains("8 subscribers"), "{error}");
    // Others are answered, and all eight go on.
    assert_eq!(
        told(&pair.headend, &json!({ "request": "alarms" }))["answer"],
        "alarms"
    );
    read_registers(&mut pair.client(), 0, 1);
    for follower in &mut followers {
        wait_delta(follower, "answer", |delta| {
            delta["devices"][0]["answered"] == 1
        });
    }
    followers.clear();
    eventually("a place", || {
        next(&mut asking(&pair.headend, &subscribe))["answer"] == "state"
    });
}

fn deaf_subscriber() {
    let pair = crowded();
    let subscribe = json!({ "request": "subscribe" });
    let mut follower = asking(&pair.headend, &subscribe);
    assert_eq!(
        next(&mut follower)["devices"].as_array().unwrap().len(),
        OTHERS + 1
    );
    // Its state is more than a socket holds.
    let mut deaf = asking(&pair.headend, &subscribe);
    let mut whole = asking(&pair.headend, &json!({ "request": "status" }));
    std::thread::sleep(Duration::from_secs(4));
    for cut in [&mut deaf, &mut whole] {
        let mut text = Vec::new();
        cut.read_to_end(&mut text).unwrap();
        assert!(!text.is_empty() && !text.ends_with(b"\n"), "{}", text.len());
    }
    read_registers(&mut pair.client(), 0, 1);
    wait_delta(&mut follower, "answer", |delta| {
        delta["devices"][0]["answered"] == 1
    });
    assert_eq!(
        pair.headend.status()["devices"].as_array().unwrap().len(),
        OTHERS + 1
    );
}

fn garbage() {
    let pair = Pair::up(Transport::Quic);
    let mut follower = asking(&pair.edge, &json!({ "request": "subscribe" }));
    assert_eq!(next(&mut follower)["answer"], "state");
    let long = vec![b'x'; 1 << 20];
    for agent in [&pair.edge, &pair.headend] {
        for (line, part) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "one line"),
            (b"\x16\x03\x01\x02\x00\n", "JSON object"),
            (
                b"{\"request\":\"reboot\"}\n",
                "there is no request `reboot`: status, edges",
            ),
            (
                b"{\"request\":\"status\",\"all\":true}\n",
                "unknown field `all`",
            ),
            (&long, "at most 4096 octets"),
        ] {
            let mut stream = connect(agent);
            // It may close before it has read all.
            let _ = stream.write_all(line);
            let mut reader = BufReader::new(stream);
            let said = next(&mut reader);
            let error = said["error"].as_str().unwrap_or_default();
            assert!(error.contains(part), "{part}: {said}");
        }
    }
    // Connections that say nothing and go, or do not end their request.
    for _ in 0..100 {
        drop(connect(&pair.edge));
    }
    let alarms = json!({ "request": "alarms" });
    eventually("those to have gone", || {
        told(&pair.edge, &alarms)["answer"] == "alarms"
    });
    let mut unfinished: Vec<_> = (0..8).map(|_| connect(&pair.edge)).collect();
    for stream in &mut unfinished {
        stream.write_all(b"{\"request\":").unwrap();
    }
    assert_eq!(told(&pair.edge, &alarms)["answer"], "alarms");
    for stream in unfinished {
        let said = next(&mut BufReader::new(stream));
        assert!(
            said["error"].as_str().unwrap().contains("did not end"),
            "{said}"
        );
    }
    read_registers(&mut pair.client(), 0, 1);
    wait_delta(&mut follower, "answer", |delta| {
        delta["devices"][0]["answered"] == 1
    });
    let mode = fs::metadata(pair.edge.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// It connects, says nothing, and reads to the end.
fn old_client() {
    let pair = Pair::up(Transport::Quic);
    for agent in [&pair.edge, &pair.headend] {
        let mut text = String::new();
        connect(agent).read_to_string(&mut text).unwrap();
        let silent: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(silent["identity"], agent.status()["identity"]);
        let asked = told(agent, &json!({ "request": "status" }));
        let keys = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(&silent), keys(&asked));
        let stream = connect(agent);
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(keys(&next(&mut reader)), keys(&silent));
    }
}

/// The schema, then documents, one a line of the file. Prints what does not fit.
const VALIDATE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator as Validator
schema = json.load(open(sys.argv[1]))
Validator.check_schema(schema)
lines = [line for line in open(sys.argv[2]) if line.strip()]
assert lines, "nothing to validate"
for line in lines:
    for error in Validator(schema).iter_errors(json.loads(line)): print(error.json_path, error.message)
# It is no schema that takes anything.
assert not Validator(schema).is_valid({}), "takes an empty object"
"#;

#[track_caller]
fn fits(schema: &Path, lines: &str) {
    let directory = Directory::new().unwrap();
    let file = directory.write("lines.json", lines).unwrap();
    let output = Command::new(Peer::find("jsonschema").unwrap())
        .args(["-c", VALIDATE])
        .args([schema, &file])
        .output()
        .unwrap();
    let text = binary::text(&output);
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{text}\n{lines}"
    );
}

fn status_fits() {
    let pair = Setup::new(Transport::Quic)
        .headend_policy(READ_ONLY_POLICY)
        .up();
    let mut client = pair.client();
    read_registers(&mut client, 0, 4);
    expect_exception(&mut client, &write_register(40, 7), 1);
    let directory = Directory::new().unwrap();
    let schema = binary::run_ok(&[&"status", &"--schema"]);
    let published = fs::read_to_string(workspace_root().join("docs/status.schema.json")).unwrap();
    assert_eq!(schema, published);
    let schema = directory.write("schema.json", &schema).unwrap();
    let mut documents = String::new();
    for agent in [&pair.edge, &pair.headend] {
        let document = binary::run_ok(&[&"status", &"--json", &"--socket", &agent.socket()]);
        let document: Value = serde_json::from_str(&document).unwrap();
        writeln!(documents, "{document}").unwrap();
    }
    fits(&schema, &documents);
    // One whose fields have other types does not fit.
    let bent = documents.replace("\"pid\":", "\"up_seconds\":\"long\",\"pid\":");
    let file = directory
        .write("bent.json", &bent.replace("\"pid\":", "\"p\":"))
        .unwrap();
    let output = Command::new(Peer::find("jsonschema").unwrap())
        .args(["-c", VALIDATE])
        .args([&schema, &file])
        .output()
        .unwrap();
    assert!(!output.stdout.is_empty(), "{}", binary::text(&output));
}

/// Blocks of `language` in a page.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let parts = page.split(begin.as_str()).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

fn examples() {
    let pair = Setup::new(Transport::Quic)
        .headend_policy(READ_ONLY_POLICY)
        .up();
    expect_exception(&mut pair.client(), &write_register(40, 7), 1);
    let root = workspace_root();
    let page = fs::read_to_string(root.join("docs/control.md")).unwrap();
    let socket = pair.headend.socket();
    let commands = blocks(&page, "sh");
    assert_eq!(commands.len(), 8);
    let (mut documents, mut answers) = (String::new(), String::new());
    for command in commands {
        let there = "/var/lib/fieldlock/headend/control.sock";
        assert!(command.contains(there), "{command}");
        let run = command
            .replace(there, socket.to_str().unwrap())
            .replace("timeout 60", "timeout 3");
        let output = Command::new("sh").args(["-c", &run]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let first: Value = serde_json::from_str(said.lines().next().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {command}{said}"));
        assert!(first["error"].is_null(), "{command}{said}");
        match command.contains("\"request\":\"status\"") {
            true => documents += &said,
            false => answers += &said,
        }
    }
    fits(&root.join("docs/status.schema.json"), &documents);
    // Those that the page shows are shortened, and name what there is.
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(root.join("docs/control.schema.json")).unwrap())
            .unwrap();
    fits(&root.join("docs/control.schema.json"), &answers);
    for line in blocks(&page, "json").into_iter().flat_map(str::lines) {
        let shown: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        known_fields(&shown, &schema);
    }
    let limits = "| subscribers | 8 | ";
    assert!(page.contains(limits));
}

/// Every name of a field stands somewhere in the schema.
fn known_fields(shown: &Value, schema: &Value) {
    match shown {
        Value::Object(fields) => {
            for (name, value) in fields {
                let text = schema.to_string();
                assert!(text.contains(&format!("\"{name}\":{{")), "{name}");
                known_fields(value, schema);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| known_fields(item, schema)),
        _ => {}
    }
}
