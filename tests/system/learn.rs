//! `policy suggest` and `policy replay`: what is learnt from some traffic, asked about other.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use fieldlock_testkit::capture::data_folder;
use fieldlock_testkit::modbus::read;
use fieldlock_testkit::process::Directory;
use fieldlock_tests::answers::{ILLEGAL_ADDRESS, expect_exception, read_registers, write_one};
use fieldlock_tests::{Setup, Transport, binary, trial};
use libtest_mimic::Trial;
use serde_json::Value;

const BASELINE: &str = "lemay_operate_baseline_280s";

/// What is learnt from the baseline, asked about other captures of the same plant: requests
/// labelled as normal that pass and that don't, and the same of an attack.
const CASES: [(&str, [usize; 4]); 3] = [
    ("lemay_moving_two_files", [360, 0, 0, 0]),
    ("lemay_cnc_upload", [144, 1, 0, 0]),
    ("lemay_characterization_partA", [306, 1, 0, 1677]),
];

/// Learnt from the first half of the frames, asked about the second: what passes and what doesn't.
const HALVES: [(&str, u32, [usize; 2]); 2] = [
    ("iti_ModbusTCP", 7_693, [3_936, 24]),
    ("lemay_covert_channel_4d_12s", 22_488, [3_911, 0]),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial::test("learn::from_a_capture", from_a_capture),
        trial::test("learn::from_an_audit_log", from_an_audit_log),
        trial::test("learn::from_a_running_pair", from_a_running_pair),
        trial::test("learn::what_cannot_be_read", what_cannot_be_read),
    ];
    let known = CASES.map(|(capture, counts)| {
        let test = move |files: &[PathBuf]| of_one_plant(&files[0], &files[1], &files[2], counts);
        (
            capture,
            vec![
                BASELINE.to_owned() + ".pcap",
                format!("{capture}.pcap"),
                format!("{capture}_labels.csv"),
            ],
            Box::new(test) as Test,
        )
    });
    let halves = HALVES.map(|(capture, middle, counts)| {
        let test = move |files: &[PathBuf]| second_half(&files[0], middle, counts);
        (
            capture,
            vec![format!("{capture}.pcap")],
            Box::new(test) as Test,
        )
    });
    for (capture, files, test) in known.into_iter().chain(halves) {
        let name = format!("learn::captures::{capture}");
        let paths: Option<Vec<PathBuf>> = files.iter().map(|file| path_of(file)).collect();
        trials.push(match paths {
            Some(paths) => trial::test(&name, move || test(&paths)),
            None => trial::ignored(&name, "no such capture; FIELDLOCK_DATA names the folder"),
        });
    }
    trials
}

type Test = Box<dyn Fn(&[PathBuf]) + Send>;

fn path_of(file: &str) -> Option<PathBuf> {
    let path = data_folder()?.join("modbus").join(file);
    path.exists().then_some(path)
}

fn of_one_plant(baseline: &Path, capture: &Path, labels: &Path, expected: [usize; 4]) {
    let place = Directory::new().unwrap();
    let policy = suggested(&place, baseline, &[]);
    let own = replayed(&policy, baseline, &[]);
    assert!(
        own.values().all(|allowed| *allowed),
        "what was learnt passes"
    );
    let text = fs::read_to_string(labels).unwrap();
    let attack: HashSet<u64> = text
        .lines()
        .filter_map(|line| line.strip_suffix(";1")?.parse().ok())
        .collect();
    let requests = replayed(&policy, capture, &[]);
    let count = |labelled, passes| {
        let alike = requests.iter().filter(|((frame, _), allowed)| {
            attack.contains(frame) == labelled && **allowed == passes
        });
        alike.count()
    };
    let counts = [(false, true), (false, false), (true, true), (true, false)];
    assert_eq!(
        counts.map(|(labelled, passes)| count(labelled, passes)),
        expected
    );
}

fn second_half(capture: &Path, middle: u32, expected: [usize; 2]) {
    let place = Directory::new().unwrap();
    let policy = suggested(&place, capture, &["--frames", &format!("1-{middle}")]);
    let requests = replayed(&policy, capture, &["--frames", &format!("{}-", middle + 1)]);
    let count = |passes| {
        requests
            .values()
            .filter(|allowed| **allowed == passes)
            .count()
    };
    assert_eq!([count(true), count(false)], expected);
}

/// Suggests a policy from a capture, and checks it.
fn suggested(place: &Directory, capture: &Path, more: &[&str]) -> PathBuf {
    let capture = capture.to_str().unwrap();
    let output = run(&[&["policy", "suggest", "--capture", capture], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", binary::text(&output));
    place
        .write("policy.toml", &String::from_utf8(output.stdout).unwrap())
        .unwrap();
    let file = place.path().join("policy.toml");
    let checked = run(&["policy", "check", file.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", binary::text(&checked));
    file
}

/// Frame of each request, with its place among those of the frame, and whether it is allowed.
fn replayed(policy: &Path, capture: &Path, more: &[&str]) -> HashMap<(u64, usize), bool> {
    let (policy, capture) = (policy.to_str().unwrap(), capture.to_str().unwrap());
    let output = run(&[
        &["policy", "replay", capture, "--policy", policy, "--json"],
        more,
    ]
    .concat());
    let mut requests = HashMap::new();
    let mut frames: HashMap<u64, usize> = HashMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let Some(frame) = line["frame"].as_u64() else {
            continue;
        };
        let place = frames.entry(frame).or_default();
        requests.insert((frame, *place), line["decision"] == "allow");
        *place += 1;
    }
    let all_allowed = requests.values().all(|allowed| *allowed);
    assert_eq!(output.status.code(), Some(i32::from(!all_allowed)));
    requests
}

fn run(arguments: &[&str]) -> Output {
    binary::command().args(arguments).output().unwrap()
}

/// A pcap of Ethernet frames from 10.1.1.20 to 10.1.1.50:502, with one segment each.
fn pcap(payloads: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    let mut sequence = 1u32;
    for (second, payload) in (1_000..).zip(payloads) {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((40 + payload.len() as u16).to_be_bytes());
        frame.extend([
            0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 1, 20, 10, 1, 1, 50, 0x9c, 0x40, 0x01, 0xf6,
        ]);
        frame.extend(sequence.to_be_bytes());
        frame.extend([0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        sequence += payload.len() as u32;
        let length = frame.len() as u32;
        file.extend(words(&[second, 0, length, length]));
        file.extend(frame);
    }
    file
}

fn adu(transaction: u8, pdu: &[u8]) -> Vec<u8> {
    let header = [0, transaction, 0, 0, 0, pdu.len() as u8 + 1, 1];
    [&header[..], pdu].concat()
}

fn from_a_capture() {
    let place = Directory::new().unwrap();
    let read = adu(1, &[3, 0, 0, 0, 10]);
    let write = adu(2, &[6, 0, 40, 4, 176]);
    let seen = pcap(&[[read.clone(), write.clone()].concat(), read.clone()]);
    let other = adu(3, &[6, 0, 40, 5, 20]);
    let malformed = adu(4, &[3, 0, 0, 0, 0]);
    let asked = pcap(&[read, write, other, malformed]);
    let (learn, ask) = (
        place.path().join("learn.pcap"),
        place.path().join("ask.pcap"),
    );
    fs::write(&learn, seen).unwrap();
    fs::write(&ask, asked).unwrap();
    let device = ["--device", "press-07=10.1.1.50"];
    let policy = suggested(&place, &learn, &device);
    let text = fs::read_to_string(&policy).unwrap();
    assert!(
        text.contains("# 2 requests, 1970-01-01T00:16:40Z to 1970-01-01T00:16:41Z"),
        "{text}"
    );
    assert!(
        text.contains("name = \"10.1.1.20 writes press-07 holding 40\""),
        "{text}"
    );
    assert!(
        text.contains("value = { min = 1200, max = 1200 }"),
        "{text}"
    );
    let arguments = [
        "policy",
        "replay",
        ask.to_str().unwrap(),
        "--policy",
        policy.to_str().unwrap(),
    ];
    let output = run(&[&arguments[..], &device].concat());
    let table = binary::text(&output);
    assert_eq!(output.status.code(), Some(1), "{table}");
    for expected in [
        "value above 1200 \"10.1.1.20 writes press-07 holding 40\"",
        "3 requests in 4 frames: 2 allowed, 1 denied; 0 answered (0 with exceptions), 3 not; 1 malformed",
        "frame 4: request: function 3 (0x03) read-holding-registers: quantity outside 1 to 125",
    ] {
        assert!(table.contains(expected), "{expected} is not in\n{table}");
    }
    let unmapped = binary::text(&run(&arguments));
    let note = "note: no --device names 10.1.1.50:502: it is called 10-1-1-50";
    assert!(unmapped.contains(note), "{unmapped}");
}

fn from_an_audit_log() {
    const LOG: &str = r#"{"v":1,"seq":1,"kind":"start"}
{"v":1,"seq":2,"time":"2026-09-21T14:00:00Z","kind":"read","client":{"name":"hmi-1","address":"10.1.1.20"},"device":"press-07","unit":1,"function":3,"address":"holding 0-9","outcome":"answered","answer":[0],"count":600}
{"v":1,"seq":3,"kind":"write-intent","client":{"name":"hmi-1","address":"10.1.1.20"},"device":"press-07","unit":1,"function":16,"address":"holding 40-41","values":[7,900],"decision":"allow"}
{"v":1,"seq":4,"kind":"denied","client":{"address":"10.1.1.99"},"device":"press-07","unit":1,"function":6,"address":"holding 40","values":[1],"decision":"deny"}
not a record
{"v":1,"seq":5,"kind":"rea"#;
    let place = Directory::new().unwrap();
    place.write("audit.jsonl", LOG).unwrap();
    let log = place.path().join("audit.jsonl");
    let output = run(&["policy", "suggest", "--log", log.to_str().unwrap()]);
    let expected = r#"syntax = 1

[[client]]
name = "hmi-1"
address = ["10.1.1.20"]

# 600 requests, 2026-09-21T14:00:00Z
[[allow]]
name = "hmi-1 reads press-07"
client = "hmi-1"
device = "press-07"
unit = [1]
function = [3]
address = ["holding 0-9"]

# 1 request
[[allow]]
name = "hmi-1 writes press-07 holding 40-41"
client = "hmi-1"
device = "press-07"
unit = [1]
function = [16]
address = ["holding 40-41"]
value = { min = 7, max = 900 }
"#;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let warning = format!(
        "warning: 1 left out; the first: {}:5: not an audit record\n",
        log.display()
    );
    assert_eq!(String::from_utf8(output.stderr).unwrap(), warning);
}

/// Learns under the open policy with reads on record; then what was learnt is in force.
fn from_a_running_pair() {
    let mut pair = Setup::new(Transport::Quic)
        .edge("[audit]\nreads = \"all\"\n")
        .up();
    let mut client = pair.client();
    write_one(&mut client, 42, 7);
    assert_eq!(read_registers(&mut client, 42, 2).len(), 2);
    pair.edge.terminate();
    let log = pair.edge.state().join("audit");
    let output = run(&["policy", "suggest", "--log", log.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", binary::text(&output));
    let learnt = String::from_utf8(output.stdout).unwrap();
    pair.edge.write_policy(&learnt);
    pair.edge.start();
    pair.wait_up();
    let mut client = pair.client();
    write_one(&mut client, 42, 7);
    assert_eq!(read_registers(&mut client, 42, 2)[0], 7);
    expect_exception(&mut client, &read(3, 42, 3), ILLEGAL_ADDRESS);
}

fn what_cannot_be_read() {
    let place = Directory::new().unwrap();
    place.write("policy.toml", "syntax = 1\n").unwrap();
    place.write("text.pcap", "This is no capture.").unwrap();
    place.write("empty.jsonl", "").unwrap();
    std::fs::write(place.join("nothing.pcap"), pcap(&[])).unwrap();
    let expect = |arguments: &str, code: i32, error: &str| {
        let mut command = binary::command();
        command.args(arguments.split(' ')).current_dir(place.path());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with(error), "{told}");
    };
    let replay = "policy replay text.pcap --policy policy.toml";
    expect(
        replay,
        2,
        "text.pcap: neither pcap nor pcapng: the file starts with [54, 68, 69, 73]\n",
    );
    expect(
        "policy replay none.pcap --policy policy.toml",
        2,
        "none.pcap: No such file",
    );
    expect(
        &format!("{replay} --device Press=1.2.3.4"),
        2,
        "error: invalid value 'Press=1.2.3.4'",
    );
    expect(
        "policy replay nothing.pcap --policy policy.toml",
        1,
        "warning: nothing.pcap: no request to judge in 0 frames;",
    );
    expect(
        "policy suggest",
        2,
        "error: the following required arguments were not provided",
    );
    expect(
        "policy suggest --log empty.jsonl",
        1,
        "error: no allowed request was seen",
    );
    expect(
        "policy suggest --log empty.jsonl --device press=10.1.1.50",
        2,
        "error: --port, --device and --frames are for a capture",
    );
}
