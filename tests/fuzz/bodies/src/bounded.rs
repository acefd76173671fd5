//! A bounded run of every body: over the committed seeds, over what the captures hold, and
//! over mutations of both that are the same each time.

use std::fs;
use std::path::{Path, PathBuf};

use fieldlock_testkit::capture::{Capture, modbus_captures};

/// Mutated inputs of each body.
const MUTATIONS: usize = 200_000;
/// Pieces taken from each capture and direction: distinct ones come early.
const PIECES_PER_CAPTURE: usize = 400;
/// Bytes; what is longer is cut.
const LONGEST: usize = 4096;

type Body = fn(&[u8]);

fn run(name: &str, body: Body) {
    let mut seeds = committed(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    seeds.extend(captured(name));
    for seed in &seeds {
        attempt(name, body, seed);
    }
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    // Seconds of two stations' lives take their time.
    let mutations = match name {
        "profinet_bridge" => MUTATIONS / 200,
        "quic_initial" | "est_http" | "monitor_http" => MUTATIONS / 20,
        "client_hello" | "certificate" | "crl" => MUTATIONS / 4,
        _ => MUTATIONS,
    };
    for _ in 0..mutations {
        attempt(name, body, &random.mutated(&seeds));
    }
}

macro_rules! bounded {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), crate::$name);
        })+

        const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

bounded!(
    mbap_stream,
    modbus_request,
    modbus_answer,
    rtu_answer,
    tunnel_frame,
    hello,
    session_ops,
    client_side,
    device_side,
    policy_parse,
    policy_bundle,
    signed_text,
    enrolment,
    trust_list,
    profinet_datagram,
    profinet_l2,
    profinet_bridge,
    profinet_rpc,
    certificate,
    crl,
    client_hello,
    quic_initial,
    audit_log,
    capture_file,
    est_http,
    monitor_http,
);

/// Not a test: writes the inputs that come from the captures where `cargo fuzz` finds them.
#[test]
#[ignore = "fills tests/fuzz/corpus from the captures"]
fn fill_corpus_from_captures() {
    for name in NAMES {
        let folder = fuzz_folder().join("corpus").join(name);
        fs::create_dir_all(&folder).unwrap();
        for (index, seed) in captured(name).iter().enumerate() {
            fs::write(folder.join(format!("capture-{index}")), seed).unwrap();
        }
    }
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn committed(name: &str) -> Vec<Vec<u8>> {
    let folder = fuzz_folder().join("seeds").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Inputs in the form of one body, from the captures that are there.
fn captured(name: &str) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for path in modbus_captures() {
        let Ok(capture) = Capture::read(&path) else {
            continue;
        };
        let mut requests = Vec::new();
        let mut answers = Vec::new();
        for connection in &capture.connections {
            requests.extend(connection.request_adus().map(|(_, adu)| adu.to_vec()));
            answers.extend(connection.answer_adus().map(|(_, adu)| adu.to_vec()));
        }
        requests.truncate(PIECES_PER_CAPTURE);
        answers.truncate(PIECES_PER_CAPTURE);
        seeds.extend(in_form(name, &requests, &answers));
    }
    seeds.sort();
    seeds.dedup();
    seeds
}

fn in_form(name: &str, requests: &[Vec<u8>], answers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let framed = |prefix: &[u8], adu: &[u8]| [prefix, adu].concat();
    let field = |bytes: &[u8]| [&[bytes.len().min(255) as u8], bytes].concat();
    match name {
        "mbap_stream" => requests
            .chunks(8)
            .chain(answers.chunks(8))
            .map(|adus| framed(&[255, 6, 0, 40], &adus.concat()))
            .collect(),
        "modbus_request" => requests.iter().map(|adu| adu[7..].to_vec()).collect(),
        "modbus_answer" => requests
            .iter()
            .zip(answers)
            .map(|(request, answer)| framed(&field(&request[7..]), &answer[7..]))
            .collect(),
        "rtu_answer" => answers.iter().map(|adu| framed(&[1], &adu[6..])).collect(),
        "client_side" => requests
            .chunks(4)
            .flat_map(|adus| {
                let operations: Vec<u8> = adus
                    .iter()
                    .flat_map(|adu| [&[0][..], &field(adu), &[5]].concat())
                    .collect();
                [0, 1, 4].map(|policy| framed(&[policy, 0, 2], &operations))
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn attempt(name: &str, body: Body, input: &[u8]) {
    let shown = ShownOnPanic { name, input };
    body(input);
    drop(shown);
}

struct ShownOnPanic<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for ShownOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self
                .input
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            eprintln!("{} fails with {hex}", self.name);
        }
    }
}

/// xorshift64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            self.mutate(&mut bytes, seeds);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        const EDGES: [u8; 8] = [0, 1, 2, 0x7F, 0x80, 0xFD, 0xFE, 0xFF];
        let at = self.below(bytes.len() + 1);
        let run = at + self.below(bytes.len() - at + 1);
        match self.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = EDGES[self.below(EDGES.len())],
            2 if at < bytes.len() => bytes[at] = self.next() as u8,
            3 => bytes.insert(at, self.next() as u8),
            4 => drop(bytes.drain(at..run)),
            5 => bytes.truncate(at),
            6 => {
                let copy = bytes[at..run].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}
