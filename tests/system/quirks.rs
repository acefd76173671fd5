//! Devices that deviate from the specification: refused by default, with the name of the quirk that
//! bears it; with the quirk, clients get a correct answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use fieldlock_audit::{Kind, Outcome, Record, Values};
use fieldlock_tests::answers::{ILLEGAL_VALUE, NO_ANSWER};
use fieldlock_tests::trial::test;
use fieldlock_tests::{Pair, Setup, Transport, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("quirks::named_where_they_are_refused", refused),
        test("quirks::borne_by_name", borne),
        test(
            "quirks::a_refusal_without_function_is_passed_on",
            without_function,
        ),
        test("quirks::coils_take_any_value_by_name_alone", coils),
    ]
}

/// A request, and what the device sends for it.
struct Case {
    quirk: &'static str,
    unit: u8,
    request: &'static [u8],
    /// Behind the transaction id.
    answer: &'static [u8],
    id: fn([u8; 2]) -> [u8; 2],
    /// What the client gets where the quirk is borne.
    right: &'static [u8],
}

fn same(id: [u8; 2]) -> [u8; 2] {
    id
}

/// The address tells the device which case it is.
const CASES: [Case; 8] = [
    Case {
        quirk: "transaction-id-low-byte",
        unit: 1,
        request: &[3, 0, 0, 0, 1],
        answer: &[0, 0, 0, 5, 1, 3, 2, 0, 7],
        id: |[_, low]| [0, low],
        right: &[3, 2, 0, 7],
    },
    Case {
        quirk: "transaction-id-zero",
        unit: 1,
        request: &[3, 0, 1, 0, 1],
        answer: &[0, 0, 0, 5, 1, 3, 2, 0, 7],
        id: |_| [0, 0],
        right: &[3, 2, 0, 7],
    },
    Case {
        quirk: "answers-as-unit-1",
        unit: 255,
        request: &[3, 0, 2, 0, 1],
        answer: &[0, 0, 0, 5, 1, 3, 2, 0, 7],
        id: same,
        right: &[3, 2, 0, 7],
    },
    Case {
        quirk: "answers-as-unit-0",
        unit: 17,
        request: &[3, 0, 3, 0, 1],
        answer: &[0, 0, 0, 5, 0, 3, 2, 0, 7],
        id: same,
        right: &[3, 2, 0, 7],
    },
    Case {
        quirk: "exception-length-4",
        unit: 1,
        request: &[3, 0, 4, 0, 1],
        answer: &[0, 0, 0, 4, 1, 0x83, 2],
        id: same,
        right: &[0x83, 2],
    },
    Case {
        quirk: "four-byte-registers",
        unit: 1,
        request: &[3, 0x1B, 0x59, 0, 1],
        answer: &[0, 0, 0, 7, 1, 3, 4, 0x43, 0x3F, 0, 0],
        id: same,
        right: &[3, 4, 0x43, 0x3F, 0, 0],
    },
    Case {
        quirk: "write-answer-value",
        unit: 1,
        request: &[6, 0, 6, 4, 0xB0],
        answer: &[0, 0, 0, 6, 1, 6, 0, 6, 3, 0xE8],
        id: same,
        right: &[6, 0, 6, 4, 0xB0],
    },
    Case {
        quirk: "write-answer-request",
        unit: 1,
        request: &[16, 0, 7, 0, 1, 2, 4, 0xB0],
        answer: &[0, 0, 0, 9, 1, 16, 0, 7, 0, 1, 2, 4, 0xB0],
        id: same,
        right: &[16, 0, 7, 0, 1],
    },
];

/// Unit and PDU of each request that came.
type Heard = Arc<Mutex<Vec<(u8, Vec<u8>)>>>;

/// A device on TCP that answers as told: from the id and the PDU to the octets that leave.
fn device(answer: fn([u8; 2], u8, &[u8]) -> Vec<u8>) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let hears = heard.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), hears) = (stream, hears.clone()) else {
                break;
            };
            thread::spawn(move || serve(stream, &hears, answer));
        }
    });
    (address, heard)
}

fn serve(mut stream: TcpStream, heard: &Heard, answer: fn([u8; 2], u8, &[u8]) -> Vec<u8>) {
    let mut head = [0; 7];
    while stream.read_exact(&mut head).is_ok() {
        let mut pdu = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 1];
        if stream.read_exact(&mut pdu).is_err() {
            return;
        }
        heard.lock().unwrap().push((head[6], pdu.clone()));
        let octets = answer([head[0], head[1]], head[6], &pdu);
        if stream.write_all(&octets).is_err() {
            return;
        }
    }
}

fn as_the_case_says(id: [u8; 2], _: u8, pdu: &[u8]) -> Vec<u8> {
    let case = CASES.iter().find(|case| case.request == pdu).unwrap();
    [&(case.id)(id)[..], case.answer].concat()
}

fn setup(address: SocketAddr, quirks: &[&str]) -> Setup {
    Setup::new(Transport::Quic)
        .plc(address)
        .answer_within("4s")
        .device(&format!("quirks = {quirks:?}"))
}

fn device_status(pair: &Pair) -> serde_json::Value {
    pair.edge.status()["devices"][0].clone()
}

fn refused() {
    let (address, heard) = device(as_the_case_says);
    let pair = setup(address, &[]).up();
    let mut client = pair.client();
    for case in &CASES {
        let answer = client.request(case.unit, case.request).unwrap();
        let expected = [case.request[0] | 0x80, NO_ANSWER];
        assert_eq!(answer, expected, "{}", case.quirk);
        let told = device_status(&pair)["last_fault"].to_string();
        let setting = format!("add quirks = [\\\"{}\\\"] to its [[device]]", case.quirk);
        assert!(told.contains(&setting), "{told}");
    }
    let first = |record: &Record| record.kind == Kind::DeviceFault;
    let fault = pair.edge.wait_record("the first fault", first);
    let reason = fault.reason.unwrap();
    assert!(reason.contains("transaction-id-low-byte"), "{reason}");
    for function in [6, 16] {
        let outcome = pair.edge.wait_record("the write", |r| {
            r.kind == Kind::WriteOutcome && r.function == Some(function)
        });
        assert_eq!(outcome.outcome, Some(Outcome::Unknown));
    }
    let sent = heard.lock().unwrap();
    let once = |case: &&Case| sent.iter().filter(|(_, pdu)| pdu == case.request).count() == 1;
    assert!(CASES.iter().all(|case| once(&case)), "{sent:02x?}");
}

fn borne() {
    let (address, heard) = device(as_the_case_says);
    let quirks: Vec<&str> = CASES.iter().map(|case| case.quirk).collect();
    let pair = setup(address, &quirks).up();
    let mut client = pair.client();
    for case in &CASES {
        let answer = client.request(case.unit, case.request).unwrap();
        assert_eq!(answer, case.right, "{}", case.quirk);
    }
    assert_eq!(heard.lock().unwrap().len(), CASES.len());
    let status = device_status(&pair);
    for case in &CASES {
        let known = status["quirks"].as_array().unwrap();
        let known = known.iter().find(|known| known["name"] == case.quirk);
        assert_eq!(known.unwrap()["borne"], 1, "{}", case.quirk);
    }
    for (function, quirk, took) in [
        (
            6,
            "write-answer-value",
            Some(Values::Registers([3, 0xE8].into())),
        ),
        (16, "write-answer-request", None),
    ] {
        let outcome = pair.edge.wait_record("the write", |r| {
            r.kind == Kind::WriteOutcome && r.function == Some(function)
        });
        assert_eq!(outcome.outcome, Some(Outcome::Answered));
        assert_eq!(outcome.quirk.as_deref(), Some(quirk));
        assert_eq!(outcome.answer, took);
    }
}

fn without_function() {
    let refuses =
        |[high, low]: [u8; 2], unit: u8, _: &[u8]| vec![high, low, 0, 0, 0, 3, unit, 0x80, 1];
    let (address, _) = device(refuses);
    let pair = setup(address, &[]).up();
    let mut client = pair.client();
    assert_eq!(client.request(1, &[3, 0, 0, 0, 1]).unwrap(), [0x83, 1]);
    assert_eq!(client.request(1, &[6, 0, 0, 0, 1]).unwrap(), [0x86, 1]);
    let outcome = pair
        .edge
        .wait_record("the write", |r| r.kind == Kind::WriteOutcome);
    assert_eq!(outcome.outcome, Some(Outcome::Exception));
    assert_eq!(outcome.quirk.as_deref(), Some("exception-without-function"));
}

fn coils() {
    let echo = |[high, low]: [u8; 2], unit: u8, pdu: &[u8]| {
        [&[high, low, 0, 0, 0, 6, unit][..], pdu].concat()
    };
    let (address, heard) = device(echo);
    let write = [5, 0, 9, 0x55, 0];
    let strict = setup(address, &[]).up();
    let answer = strict.client().request(1, &write).unwrap();
    assert_eq!(answer, [0x85, ILLEGAL_VALUE]);
    drop(strict);
    let pair = setup(address, &["coil-any-value"]).up();
    let mut client = pair.client();
    for value in [[0x55, 0], [0, 1]] {
        let write = [5, 0, 9, value[0], value[1]];
        assert_eq!(client.request(1, &write).unwrap(), write);
    }
    let heard = heard.lock().unwrap();
    let expected = [[5, 0, 9, 0x55, 0], [5, 0, 9, 0, 1]].map(|pdu| (1, pdu.to_vec()));
    assert_eq!(*heard, expected);
    let intent = pair
        .edge
        .wait_record("the write", |r| r.kind == Kind::WriteIntent);
    assert_eq!(intent.values, Some(Values::Registers([0x55, 0].into())));
    eventually("its end on record", || {
        pair.edge.audit_kind(Kind::WriteOutcome).len() == 2
    });
}
