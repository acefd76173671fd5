//! Writes that clients send again by themselves: the device carries out each call once, whatever ends
//! between. With the libraries as they are delivered, then case by case.

use std::env;
use std::net::{Shutdown, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fieldlock_audit::{Kind, Outcome, Record};
use fieldlock_testkit::modbus::{Client, adu, write_register};
use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_tests::answers::{NO_ANSWER, exception, read_registers, write_one};
use fieldlock_tests::trial::{both, test, with_peers};
use fieldlock_tests::{
    Agent, OPEN_POLICY, Pair, SOON, Setup, Transport, eventually, trial, within,
};
use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = FAULTS
        .into_iter()
        .flat_map(|(name, answer_within, fault)| {
            [
                calls(&LIBRARIES[..4], name, answer_within, fault),
                calls(&LIBRARIES[4..], name, answer_within, fault),
            ]
        })
        .collect();
    trials.extend(both(
        "clients::repeats::is_refused_until_it_is_known",
        is_refused,
    ));
    trials.extend([
        test(
            "clients::repeats::is_sent_after_the_time_that_is_set",
            after_the_hold,
        ),
        test(
            "clients::repeats::is_sent_where_the_policy_allows_it",
            allowed,
        ),
        test(
            "clients::repeats::answered_writes_are_no_repeats",
            no_repeats,
        ),
        test(
            "clients::repeats::through_another_headend_process",
            another_process,
        ),
        test(
            "clients::repeats::under_way_on_another_connection",
            under_way,
        ),
        with_peers(
            "clients::repeats::mbpoll_may_write_the_same_again",
            &["mbpoll"],
            mbpoll,
        ),
    ]);
    trials
}

/// The peer's name, and how it is called.
const LIBRARIES: [(&str, &str); 5] = [
    ("pymodbus", "pymodbus"),
    ("pymodbus", "pymodbus-async"),
    ("mbpoll", "mbpoll"),
    ("", "tokio-modbus"),
    ("tmodbus", "tmodbus"),
];

type Fault = fn(&mut Pair);

/// What happens while the writes are with the device, with `answer_within`.
const FAULTS: [(&str, &str, Fault); 9] = [
    ("nothing", "10s", |_| {}),
    ("nothing", "1s", |_| {}),
    ("the_link_is_cut", "10s", cut),
    ("the_link_is_cut", "1s", cut),
    ("the_edge_is_killed", "10s", |pair| {
        pair.edge.kill();
        pair.edge.start();
    }),
    ("the_headend_is_killed", "10s", |pair| {
        pair.headend.kill();
        pair.headend.start();
    }),
    ("the_edge_is_stopped", "10s", |pair| {
        pair.edge.terminate();
        pair.edge.start();
    }),
    ("the_headend_is_stopped", "1s", |pair| {
        pair.headend.terminate();
        pair.headend.start();
    }),
    ("the_policy_changes", "10s", |pair| {
        for agent in [&pair.headend, &pair.edge] {
            agent.write_policy(&format!("{OPEN_POLICY}# another\n"));
        }
    }),
];

fn cut(pair: &mut Pair) {
    pair.wire().cut();
    within(Duration::from_secs(10), "the headend to notice", || {
        !pair.is_connected()
    });
    pair.wire().restore();
}

/// One call of each library at the same time, each of a register of its own.
fn calls(
    libraries: &'static [(&str, &str)],
    fault_name: &str,
    answer_within: &'static str,
    fault: Fault,
) -> Trial {
    let which = if libraries.len() > 1 {
        "libraries"
    } else {
        "tmodbus"
    };
    let name = format!("clients::repeats::{which}::{fault_name}::{answer_within}");
    let peers: Vec<&str> = libraries.iter().map(|(peer, _)| *peer).collect();
    let peers: Vec<&str> = peers.into_iter().filter(|peer| !peer.is_empty()).collect();
    if peers == ["tmodbus"]
        && Peer::find("tmodbus").is_none()
        && let Some(reason) = env::var_os("FIELDLOCK_NO_TMODBUS")
    {
        return trial::ignored(&name, &reason.to_string_lossy());
    }
    with_peers(&name, &peers, move || {
        let mut pair = Setup::new(Transport::Auto)
            .wire()
            .answer_within(answer_within)
            .modbus_tcp("max_connections = 5")
            .up();
        // Longer than pymodbus waits, and mbpoll.
        pair.plc().set_answer_delay(Duration::from_millis(3500));
        let calls: Vec<Call> = (42..)
            .zip(libraries)
            .map(|(register, (_, library))| Call::start(library, pair.clients, register))
            .collect();
        eventually("the writes to be with the device", || {
            pair.plc().write_count() == calls.len() as u64
        });
        fault(&mut pair);
        pair.plc().set_answer_delay(Duration::ZERO);
        let said: Vec<String> = calls.into_iter().map(Call::end).collect();
        let mut written: Vec<u16> = pair.plc().writes().iter().map(|w| w.first).collect();
        written.sort_unstable();
        let once: Vec<u16> = (42..).take(libraries.len()).collect();
        assert_eq!(written, once, "{said:?}");
    })
}

/// A call of a library.
enum Call {
    Program(Child),
    /// tokio-modbus, which waits for as long as it takes.
    Thread(std::thread::JoinHandle<String>),
}

impl Call {
    fn start(library: &str, at: SocketAddr, register: u16) -> Self {
        let (host, port) = (at.ip().to_string(), at.port().to_string());
        let mut command = match library {
            "tokio-modbus" => {
                return Self::Thread(std::thread::spawn(move || tokio_modbus(at, register)));
            }
            "mbpoll" => {
                let mut command = Command::new(Peer::find("mbpoll").unwrap());
                let reference = (register + 1).to_string();
                command.args([
                    "-1", "-q", "-a", "1", "-t", "4", "-p", &port, "-r", &reference,
                ]);
                command.args([&host, "7"]);
                command
            }
            _ => {
                let module = library.split('-').next().unwrap();
                let mut command = Command::new(Peer::find(module).unwrap());
                command.arg(workspace_root().join("tests/peers/repeats.py"));
                command.args([library, &host, &port, "1", &register.to_string(), "7"]);
                command
            }
        };
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        Self::Program(command.spawn().unwrap())
    }

    /// What it said, once it has given up or is done: tmodbus repeats for a minute.
    fn end(self) -> String {
        match self {
            Self::Program(mut child) => {
                within(Duration::from_secs(120), "the call to end", || {
                    child.try_wait().unwrap().is_some()
                });
                let output = child.wait_with_output().unwrap();
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            }
            Self::Thread(thread) => thread.join().unwrap(),
        }
    }
}

fn tokio_modbus(at: SocketAddr, register: u16) -> String {
    use tokio_modbus::client::Writer;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let slave = tokio_modbus::Slave(1);
        let mut client = tokio_modbus::client::tcp::connect_slave(at, slave)
            .await
            .unwrap();
        format!("{:?}", client.write_single_register(register, 7).await)
    })
}

/// Register 42 is set to 7.
fn ask(pair: &Pair) -> Vec<u8> {
    pair.client().request(1, &write_register(42, 7)).unwrap()
}

fn is_no_answer(pdu: &[u8]) -> bool {
    exception(pdu) == Some(NO_ANSWER)
}

/// The write is carried out and its answer comes too late.
fn begin_with_unknown(pair: &Pair) {
    pair.plc().set_answer_delay(Duration::from_millis(1500));
    assert!(is_no_answer(&ask(pair)));
    pair.plc().set_answer_delay(Duration::ZERO);
    assert_eq!(carried_out(pair), 1);
}

fn carried_out(pair: &Pair) -> usize {
    let writes = pair.plc().writes();
    let of_it = writes.iter().filter(|w| w.first == 42 && w.values == [7]);
    of_it.count()
}

fn refused(agent: &Agent) -> Vec<Record> {
    let mut records = agent.audit_kind(Kind::Denied);
    records.retain(|record| record.outcome == Some(Outcome::RepeatRefused));
    records
}

fn is_refused(transport: Transport) {
    let pair = Pair::up(transport);
    begin_with_unknown(&pair);
    // On whatever connection; other values, and other clients, are their own.
    assert!(is_no_answer(&ask(&pair)));
    let mut client = pair.client();
    assert!(is_no_answer(
        &client.request(1, &write_register(42, 7)).unwrap()
    ));
    assert_eq!(carried_out(&pair), 1);
    write_one(&mut client, 43, 7);
    write_one(&mut pair.client_from([127, 0, 0, 9]), 42, 7);
    assert_eq!(carried_out(&pair), 2);
    assert!(is_no_answer(&ask(&pair)));

    let record = pair
        .headend
        .wait_record("the refusal", |r| r.outcome == Some(Outcome::RepeatRefused));
    let intents = pair.headend.audit_kind(Kind::WriteIntent);
    assert_eq!(record.repeats, intents[0].request);
    assert_eq!(record.exception, Some(NO_ANSWER));
    assert_eq!(record.device, intents[0].device);
    let device = &pair.headend.status()["devices"][0];
    assert_eq!(device["counters"]["repeats_refused"], 3, "{device}");

    // Whoever has read what he wrote knows.
    assert_eq!(read_registers(&mut client, 42, 1), [7]);
    write_one(&mut client, 42, 7);
    assert_eq!(carried_out(&pair), 3);
}

fn after_the_hold() {
    let pair = Setup::new(Transport::Quic)
        .headend("[client]\nrefuse_repeats_for = \"2s\"\n")
        .up();
    begin_with_unknown(&pair);
    let asked = std::time::Instant::now();
    eventually("the time to be over", || !is_no_answer(&ask(&pair)));
    assert!(asked.elapsed() > Duration::from_millis(1500));
    assert_eq!(carried_out(&pair), 2);
}

fn allowed() {
    let policy = OPEN_POLICY.replace("[[allow]]\n", "[[allow]]\nrepeat = \"allow\"\n");
    assert_ne!(policy, OPEN_POLICY);
    let pair = Setup::new(Transport::Quic).policy(&policy).up();
    begin_with_unknown(&pair);
    assert_eq!(ask(&pair), write_register(42, 7));
    assert_eq!(carried_out(&pair), 2);
    assert!(refused(&pair.headend).is_empty());
}

/// On one connection, on one after the other, and on several at a time.
fn no_repeats() {
    let pair = Pair::up(Transport::Quic);
    let mut client = pair.client();
    for _ in 0..20 {
        write_one(&mut pair.client(), 42, 7);
        write_one(&mut client, 42, 7);
        write_one(&mut client, 42, 7);
        // Its system acknowledges an answer by itself only after a while.
        read_registers(&mut client, 0, 1);
    }
    let mut other = pair.client();
    for _ in 0..20 {
        for client in [&mut client, &mut other] {
            write_one(client, 42, 7);
            read_registers(client, 0, 1);
        }
    }
    for _ in 0..3 {
        // Its last answer is on its way when it says that it asks nothing more.
        let mut half = pair.client();
        half.send(&adu(1, 1, &write_register(42, 7))).unwrap();
        half.stream().shutdown(Shutdown::Write).unwrap();
        let answer = half.read_to_close(SOON).unwrap();
        assert_eq!(answer, adu(1, 1, &write_register(42, 7)));
    }
    // Meant twice, since it does not wait; and always the same transaction id.
    let twice = [
        adu(9, 1, &write_register(42, 7)),
        adu(10, 1, &write_register(42, 7)),
    ];
    client.send(&twice.concat()).unwrap();
    for expected in &twice {
        assert_eq!(client.read_adu(SOON).unwrap(), *expected);
    }
    for _ in 0..5 {
        other.send(&twice[0]).unwrap();
        assert_eq!(other.read_adu(SOON).unwrap(), twice[0]);
    }
    assert_eq!(carried_out(&pair), 110);
    assert!(refused(&pair.headend).is_empty());
    assert!(refused(&pair.edge).is_empty());
}

/// A headend that was killed knows of nothing: the edge does.
fn another_process() {
    let mut pair = Pair::up(Transport::Quic);
    pair.plc().set_answer_delay(Duration::from_millis(400));
    let mut client = pair.client();
    client.send(&adu(1, 1, &write_register(42, 7))).unwrap();
    eventually("the write", || carried_out(&pair) == 1);
    pair.headend.kill();
    pair.headend.start();
    pair.wait_up();
    pair.wait_served();
    assert!(is_no_answer(&ask(&pair)));
    assert!(is_no_answer(&ask(&pair)));
    assert_eq!(carried_out(&pair), 1);
    eventually("the record", || !refused(&pair.edge).is_empty());
    let record = &refused(&pair.edge)[0];
    let intent = &pair.edge.audit_kind(Kind::WriteIntent)[0];
    assert_eq!(record.repeats, intent.request);
    let outcome = pair
        .headend
        .wait_record("the outcome", |r| r.outcome == Some(Outcome::RepeatRefused));
    assert_eq!(outcome.kind, Kind::WriteOutcome);
    assert_eq!(outcome.reason.as_deref(), Some("refused by the edge"));
    let mut client = pair.client();
    read_registers(&mut client, 42, 1);
    write_one(&mut client, 42, 7);
}

fn under_way() {
    let pair = Setup::new(Transport::Quic).answer_within("5s").up();
    pair.plc().set_answer_delay(Duration::from_millis(1500));
    let mut first: Client = pair.client();
    first.send(&adu(1, 1, &write_register(42, 7))).unwrap();
    eventually("the write", || carried_out(&pair) == 1);
    // At once, while the first still waits.
    assert!(is_no_answer(&ask(&pair)));
    // Sooner it would be meant twice.
    std::thread::sleep(Duration::from_millis(250));
    first.send(&adu(2, 1, &write_register(42, 7))).unwrap();
    let answer = first.read_adu(SOON).unwrap();
    assert_eq!(answer, adu(1, 1, &write_register(42, 7)));
    assert!(is_no_answer(&first.read_adu(SOON).unwrap()[7..]));
    assert_eq!(carried_out(&pair), 1);
}

fn mbpoll() {
    let pair = Pair::up(Transport::Quic);
    for _ in 0..3 {
        let said = Call::start("mbpoll", pair.clients, 42).end();
        assert!(said.contains("Written 1 references"), "{said}");
    }
    assert_eq!(carried_out(&pair), 3);
}
