//! Malformed Modbus, made case by case: from clients, and from devices.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fieldlock_audit::{Kind, Outcome};
use fieldlock_testkit::modbus::{Client, adu, read, registers, write_register};
use fieldlock_tests::answers::{
    BUSY, ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, NO_ANSWER, exception, read_registers,
};
use fieldlock_tests::trial::test;
use fieldlock_tests::{OPEN_POLICY, Pair, SOON, Setup, Transport, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("malformed::from_clients", from_clients),
        test("malformed::in_pieces", in_pieces),
        test("malformed::more_at_once_than_a_client_may", too_many),
        test("malformed::from_devices", from_devices),
    ]
}

/// What a client meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meets {
    Answer,
    Exception(u8),
    /// The connection ends without an answer.
    Close,
}

use Meets::{Answer, Close, Exception};

/// Framing that is wrong, in every way that the header has, and bytes of other protocols.
fn frames() -> Vec<(String, Vec<u8>, Meets)> {
    let good = adu(0x0102, 1, &read(3, 0, 1));
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let mut cases = vec![
        ("protocol 1".to_owned(), with(3, 1), Close),
        ("protocol 0x0100".to_owned(), with(2, 1), Close),
        ("length 0".to_owned(), with(5, 0), Close),
        ("length 1".to_owned(), with(5, 1), Close),
        ("length 255".to_owned(), with(5, 255), Close),
        ("length 0x0106".to_owned(), with(4, 1), Close),
        // One less cuts the request, and its last octet begins no header that could be one.
        (
            "length one less".to_owned(),
            [with(5, 5), good.clone()].concat(),
            Exception(ILLEGAL_VALUE),
        ),
    ];
    for (name, bytes) in [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: plc\r\n\r\n".to_vec()),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("ones", vec![0xFF; 64]),
    ] {
        cases.push((name.to_owned(), bytes, Close));
    }
    // The longest there is, and one more.
    let longest = [&[0x5Au8][..], &[0; 252]].concat();
    cases.push(("260 octets".to_owned(), adu(1, 1, &longest), Answer));
    let longer = [&[0x5Au8][..], &[0; 253]].concat();
    cases.push((
        "261 octets".to_owned(),
        adu(1, 1, &longer),
        Exception(ILLEGAL_VALUE),
    ));
    // UMAS does not keep to the limit, and is told so; others are no Modbus.
    let umas = |pdu: usize| adu(1, 1, &[&[0x5Au8][..], &vec![0; pdu - 1]].concat());
    cases.push((
        "UMAS, longest".to_owned(),
        umas(1022),
        Exception(ILLEGAL_VALUE),
    ));
    cases.push(("UMAS, longer".to_owned(), umas(1023), Close));
    let other = [&[0x41u8][..], &[0; 253]].concat();
    cases.push((
        "261 octets of function 65".to_owned(),
        adu(1, 1, &other),
        Close,
    ));
    cases
}

/// Requests whose content breaks the specification.
fn requests() -> Vec<(String, Vec<u8>, Meets)> {
    let mut cases: Vec<(String, Vec<u8>, Meets)> = Vec::new();
    let mut add = |name: String, pdu: Vec<u8>, meets| cases.push((name, pdu, meets));
    let range = |function: u8, start: u16, count: u16| {
        let [a, b] = start.to_be_bytes();
        let [c, d] = count.to_be_bytes();
        vec![function, a, b, c, d]
    };
    for (function, most) in [(1, 2000), (2, 2000), (3, 125), (4, 125)] {
        for count in [0, most + 1, u16::MAX] {
            let pdu = range(function, 0, count);
            add(
                format!("function {function}, {count}"),
                pdu,
                Exception(ILLEGAL_VALUE),
            );
        }
        let wrap = range(function, u16::MAX, 2);
        add(
            format!("function {function}, beyond the end"),
            wrap,
            Exception(ILLEGAL_ADDRESS),
        );
        let whole = range(function, 0, 1);
        for cut in 1..whole.len() {
            let pdu = whole[..cut].to_vec();
            add(
                format!("function {function}, cut at {cut}"),
                pdu,
                Exception(ILLEGAL_VALUE),
            );
        }
        let longer = [&whole[..], &[0]].concat();
        add(
            format!("function {function}, an octet too many"),
            longer,
            Exception(ILLEGAL_VALUE),
        );
    }
    for value in [0x1234u16, 0x0001, 0x00FF, 0xFFFF] {
        let pdu = range(5, 0, value);
        add(format!("coil {value:#06x}"), pdu, Exception(ILLEGAL_VALUE));
    }
    let multiple = |function: u8, start: u16, count: u16, bytes: u8, data: usize| {
        [range(function, start, count), vec![bytes], vec![0; data]].concat()
    };
    for (name, pdu) in [
        ("16, byte count one less", multiple(16, 0, 2, 3, 3)),
        ("16, byte count one more", multiple(16, 0, 2, 5, 5)),
        ("16, less data than it says", multiple(16, 0, 2, 4, 3)),
        ("16, more data than it says", multiple(16, 0, 2, 4, 5)),
        ("16, none", multiple(16, 0, 0, 0, 0)),
        ("16, 124 registers", multiple(16, 0, 124, 248, 246)),
        ("15, byte count one less", multiple(15, 0, 9, 1, 1)),
        ("15, none", multiple(15, 0, 0, 0, 0)),
        ("15, 1969 coils", multiple(15, 0, 1969, 247, 246)),
        ("22, cut", vec![22, 0, 0, 0, 0, 0]),
        (
            "23, reads none",
            [vec![23, 0, 0, 0, 0, 0, 0, 0, 1, 2], vec![0; 2]].concat(),
        ),
        (
            "23, reads 126",
            [vec![23, 0, 0, 0, 126, 0, 0, 0, 1, 2], vec![0; 2]].concat(),
        ),
        ("23, writes none", vec![23, 0, 0, 0, 1, 0, 0, 0, 0, 0]),
        (
            "23, writes 122",
            [vec![23, 0, 0, 0, 1, 0, 0, 0, 122, 244], vec![0; 242]].concat(),
        ),
        ("20, byte count 6", vec![20, 6, 6, 0, 4, 0, 1, 0]),
        (
            "21, less data than it says",
            vec![21, 9, 6, 0, 4, 0, 1, 0, 1, 0],
        ),
        ("24, cut", vec![24, 0]),
        ("43, nothing else", vec![43]),
        ("43/14, code 9", vec![43, 14, 9, 0]),
    ] {
        add(name.to_owned(), pdu, Exception(ILLEGAL_VALUE));
    }
    for (name, pdu) in [
        ("20, reference type 7", vec![20, 7, 7, 0, 4, 0, 1, 0, 1]),
        ("16, beyond the end", multiple(16, 65_535, 2, 4, 4)),
        ("15, beyond the end", multiple(15, 65_530, 9, 2, 2)),
    ] {
        add(name.to_owned(), pdu, Exception(ILLEGAL_ADDRESS));
    }
    for function in [0u8, 128, 200, 255] {
        let pdu = vec![function, 0, 0, 0, 1];
        add(
            format!("function {function}"),
            pdu,
            Exception(ILLEGAL_FUNCTION),
        );
    }
    cases
}

fn from_clients() {
    let pair = Pair::up(Transport::Quic);
    for (name, bytes, meets) in frames() {
        let mut client = pair.client();
        client.send(&bytes).unwrap();
        check(&name, &mut client, meets);
    }
    for (name, pdu, meets) in requests() {
        let mut client = pair.client();
        client.send(&adu(9, 1, &pdu)).unwrap();
        check(&name, &mut client, meets);
        // What is wrong with one request says nothing of the next on the same connection.
        assert!(read_registers(&mut client, 0, 1).len() == 1, "{name}");
    }
    assert_eq!(pair.plc().write_count(), 0);
    // The shortened one is refused twice: for itself, and for the octets that are left of it.
    let refused = |(_, _, meets): &(String, Vec<u8>, Meets)| *meets != Answer;
    let expected = frames()
        .into_iter()
        .chain(requests())
        .filter(refused)
        .count() as u64
        + 1;
    let counted = || -> u64 {
        let denials = pair.headend.audit_kind(Kind::Denied);
        denials.iter().map(|record| record.count.unwrap_or(1)).sum()
    };
    eventually("all on record", || counted() >= expected);
    assert_eq!(counted(), expected);
}

fn check(name: &str, client: &mut Client, meets: Meets) {
    match meets {
        Close => {
            let before = client.read_to_close(SOON).unwrap();
            assert!(before.is_empty(), "{name}: {before:02x?}");
        }
        Answer => {
            client.read_adu(SOON).unwrap();
        }
        Exception(code) => {
            let answer = client.read_adu(SOON);
            let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(exception(&answer[7..]), Some(code), "{name}: {answer:02x?}");
        }
    }
}

/// However the octets are cut into segments, and however many requests are in one.
fn in_pieces() {
    let pair = Pair::up(Transport::Quic);
    let one = adu(1, 1, &read(3, 0, 2));
    let two = adu(2, 1, &write_register(42, 7));
    let both = [one.clone(), two.clone()].concat();
    for cut in 1..both.len() {
        let mut client = pair.client();
        client.stream().set_nodelay(true).unwrap();
        client.send(&both[..cut]).unwrap();
        client.send(&both[cut..]).unwrap();
        let answers = [
            client.read_adu(SOON).unwrap(),
            client.read_adu(SOON).unwrap(),
        ];
        let by = |transaction: u8| {
            answers
                .iter()
                .find(|answer| answer[1] == transaction)
                .unwrap()
        };
        assert!(registers(&by(1)[7..]).is_some(), "cut at {cut}");
        assert_eq!(by(2)[7..], write_register(42, 7), "cut at {cut}");
    }
    let mut client = pair.client();
    client.stream().set_nodelay(true).unwrap();
    for octet in &one {
        client.send(&[*octet]).unwrap();
    }
    client.read_adu(SOON).unwrap();
    // A transaction id that is used twice at once is the client's own affair.
    let same = [adu(5, 1, &read(3, 0, 1)), adu(5, 1, &read(3, 1, 1))].concat();
    client.send(&same).unwrap();
    for _ in 0..2 {
        assert_eq!(client.read_adu(SOON).unwrap()[..2], [0, 5]);
    }
}

fn too_many() {
    let pair = Setup::new(Transport::Quic)
        .modbus_tcp("in_flight = 32")
        .up();
    pair.plc().set_answer_delay(Duration::from_millis(200));
    let mut client = pair.client();
    let requests: Vec<[u8; 5]> = vec![read(3, 0, 1); 17];
    let requests: Vec<&[u8]> = requests.iter().map(|pdu| &pdu[..]).collect();
    let answers = client.pipeline(1, &requests).unwrap();
    let busy = |answer: &&Vec<u8>| exception(answer) == Some(BUSY);
    assert_eq!(answers.iter().filter(busy).count(), 1, "{answers:02x?}");
    assert_eq!(exception(&answers[16]), Some(BUSY));
}

/// What a case makes of the right answer.
type Mangle = fn(Vec<u8>) -> Vec<u8>;

/// A device that answers with what the case makes of the right answer.
struct Scripted {
    address: SocketAddr,
    mangle: Arc<Mutex<Mangle>>,
}

impl Scripted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mangle: Arc<Mutex<Mangle>> = Arc::new(Mutex::new(|answer| answer));
        let shared = mangle.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let mangle = shared.clone();
                thread::spawn(move || {
                    let mut request = [0; 12];
                    while stream.read_exact(&mut request).is_ok() {
                        let mut answer = request.to_vec();
                        if request[7] == 3 {
                            answer = adu(0, request[6], &[3, 4, 0, 1, 0, 2]);
                            answer[..2].copy_from_slice(&request[..2]);
                        }
                        let mangled = mangle.lock().unwrap()(answer);
                        if stream.write_all(&mangled).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, mangle }
    }
}

fn from_devices() {
    /// Its name, and what it makes of the right answer to a read of two registers.
    type Case = (&'static str, Mangle);
    let cases: [Case; 12] = [
        ("another transaction", |mut a| {
            a[1] ^= 0x40;
            a
        }),
        ("another unit", |mut a| {
            a[6] ^= 1;
            a
        }),
        ("another function", |mut a| {
            a[7] = 4;
            a
        }),
        ("an exception with a body", |mut a| {
            a[7] |= 0x80;
            a
        }),
        ("an exception without a code", |mut a| {
            a[7] |= 0x80;
            a[8] = 0;
            a.truncate(9);
            a[5] = 3;
            a
        }),
        ("a byte count too small", |mut a| {
            a[8] = 2;
            a
        }),
        ("a byte count too large", |mut a| {
            a[8] = 6;
            a
        }),
        ("one register fewer", |mut a| {
            a[8] = 2;
            a[5] = 5;
            a.truncate(11);
            a
        }),
        ("protocol 1", |mut a| {
            a[3] = 1;
            a
        }),
        ("length 0", |mut a| {
            a[5] = 0;
            a
        }),
        ("length 0xFFFF", |mut a| {
            a[4..6].fill(0xFF);
            a
        }),
        ("HTTP", |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ];
    let plc = Scripted::start();
    let pair = Setup::new(Transport::Quic)
        .policy(OPEN_POLICY)
        .plc(plc.address)
        .answer_within("400ms")
        .up();
    let mut client = pair.client();
    for (name, mangle) in cases {
        *plc.mangle.lock().unwrap() = |answer| answer;
        assert_eq!(read_registers(&mut client, 0, 2), [1, 2], "before {name}");
        *plc.mangle.lock().unwrap() = mangle;
        let answer = client.request(1, &read(3, 0, 2)).unwrap();
        assert_eq!(exception(&answer), Some(NO_ANSWER), "{name}: {answer:02x?}");
    }
    let faults = || -> u64 {
        let faults = pair.edge.audit_kind(Kind::DeviceFault);
        faults.iter().map(|record| record.count.unwrap_or(1)).sum()
    };
    eventually("each on record", || faults() == cases.len() as u64);

    // One answer more than was asked for: nobody gets it, and it is on record.
    *plc.mangle.lock().unwrap() = |answer| [answer.clone(), answer].concat();
    assert_eq!(read_registers(&mut client, 0, 2), [1, 2]);
    eventually("the unsolicited one", || faults() == cases.len() as u64 + 1);
    *plc.mangle.lock().unwrap() = |answer| answer;
    assert_eq!(read_registers(&mut client, 0, 2), [1, 2]);
    let lost = pair.edge.audit_kind(Kind::Lost);
    assert!(
        lost.iter()
            .all(|record| record.outcome == Some(Outcome::Lost))
    );
}
