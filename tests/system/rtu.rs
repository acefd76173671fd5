//! Modbus RTU devices at the edge, over a pair of pseudo-terminals.

mod line;

use std::time::Duration;

use fieldlock_audit::{Kind, Outcome};
use fieldlock_testkit::modbus::{Client, read, write_register, write_registers};
use fieldlock_tests::answers::{
    ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, NO_ANSWER, expect_exception, read_one, read_registers,
    write_one,
};
use fieldlock_tests::{OPEN_POLICY, Pair, SOON, Setup, Transport, trial, within};
use libtest_mimic::Trial;

use crate::interop::{PymodbusServer, run_client};
use line::{Device, Line, Reply};

pub(crate) fn trials() -> Vec<Trial> {
    let socat = |name: &str, run: fn()| trial::with_peers(&format!("rtu::{name}"), &["socat"], run);
    let mut trials = vec![
        socat("reads_writes_and_exceptions", reads_writes_and_exceptions),
        socat("several_units_on_one_line", several_units),
        socat("clients_take_turns", clients_take_turns),
        socat("a_wrong_crc_is_no_answer", wrong_crc),
        socat("a_silent_unit_holds_up_no_other", silent_unit),
        socat("a_late_answer_is_not_taken_for_the_next", late_answer),
        socat("a_broadcast_leaves_once", broadcast),
        socat("a_broadcast_needs_its_own_rule", broadcast_refused),
        socat("unplugged_and_plugged_again", unplugged),
        socat("an_echo_with_no_device_is_no_success", lone_echo),
        socat("an_adapter_that_echoes_is_borne_by_name", echo_borne),
        socat("a_zero_before_each_answer_is_borne_by_name", zero_borne),
    ];
    trials.extend([Transport::Quic, Transport::Tls].map(|transport| {
        let name = format!("rtu::pymodbus_server::{transport}");
        trial::with_peers(&name, &["socat", "pymodbus"], move || {
            pymodbus_server(transport);
        })
    }));
    trials
}

/// A deadline that a busy disk does not make a write miss, and that a test can wait for.
fn setup(line: &Line) -> Setup {
    Setup::new(Transport::Quic)
        .modbus(&rtu(line, ""))
        .answer_within("2s")
}

fn rtu(line: &Line, more: &str) -> String {
    // A pseudo-terminal has neither speed nor parity, and no answer comes sooner than its speed allows.
    let path = line.near();
    format!("modbus_rtu = {{ path = {path:?}, baud = 4000000, parity = \"none\"{more} }}")
}

/// Asks a unit and expects this exception.
#[track_caller]
fn expect(client: &mut Client, unit: u8, pdu: &[u8], code: u8) {
    let answer = client.request(unit, pdu).unwrap();
    assert_eq!(answer, [pdu[0] | 0x80, code], "unit {unit}, {pdu:02x?}");
}

fn pymodbus_server(transport: Transport) {
    let line = Line::plugged();
    let _server = PymodbusServer::serial(&line.far());
    let pair = Setup::new(transport)
        .modbus(&rtu(&line, ""))
        .answer_within("5s")
        .up();
    let on_tcp = PymodbusServer::tcp();
    for unit in [1, 2] {
        let direct = run_client(on_tcp.address, unit);
        assert_eq!(run_client(pair.clients, unit), direct, "unit {unit}");
    }
}

fn reads_writes_and_exceptions() {
    let line = Line::plugged();
    let device = Device::regular(&line.far());
    let pair = setup(&line).up();
    let mut client = pair.client();
    write_one(&mut client, 7, 0xABCD);
    let many: Vec<u16> = (0..93).collect();
    let write = write_registers(7, &many);
    assert_eq!(client.request(1, &write).unwrap(), write[..5]);
    assert_eq!(read_registers(&mut client, 7, 93), many);
    expect_exception(&mut client, &read(3, 90, 11), ILLEGAL_ADDRESS);
    expect_exception(&mut client, &read(4, 0, 1), ILLEGAL_FUNCTION);
    // Ends by silence only: no length is stated.
    expect_exception(&mut client, &[90, 1, 2, 3], ILLEGAL_FUNCTION);
    assert_eq!(device.heard().len(), 6);
    let outcome = pair
        .edge
        .wait_record("a write", |r| r.kind == Kind::WriteOutcome);
    assert_eq!(outcome.outcome, Some(Outcome::Answered));
}

fn several_units() {
    let line = Line::plugged();
    let _device = Device::regular(&line.far());
    let pair = setup(&line).up();
    let mut client = pair.client();
    for unit in [1, 2, 9, 247] {
        let write = write_register(3, unit.into());
        assert_eq!(client.request(unit, &write).unwrap(), write);
    }
    for unit in [247, 9, 2, 1] {
        let answer = client.request(unit, &read_one(3)).unwrap();
        assert_eq!(answer, [3, 2, 0, unit]);
    }
}

/// One request at a time on the line, whoever asks.
fn clients_take_turns() {
    let line = Line::plugged();
    let device = Device::regular(&line.far());
    let pair = setup(&line).answer_within("5s").up();
    std::thread::scope(|scope| {
        for place in 0..4 {
            let mut client = pair.client();
            scope.spawn(move || {
                for value in 0..10 {
                    let write = write_register(place, value);
                    let answers = client.pipeline(1, &[&write, &read_one(place)]).unwrap();
                    assert_eq!(answers[0], write);
                    assert_eq!(answers[1], [3, 2, 0, value as u8]);
                }
            });
        }
    });
    assert_eq!(device.heard().len(), 80);
}

fn wrong_crc() {
    let line = Line::plugged();
    let mut faults = 2;
    let _device = Device::start(&line.far(), move |_, _, regular| match faults {
        0 => Reply::Answer(regular),
        _ => {
            faults -= 1;
            Reply::WrongCrc(regular)
        }
    });
    let pair = setup(&line).up();
    let mut client = pair.client();
    expect(&mut client, 1, &read_one(5), NO_ANSWER);
    expect(&mut client, 1, &write_register(5, 55), NO_ANSWER);
    // It was carried out: only the answer was bad, and so it is on record.
    assert_eq!(read_registers(&mut client, 5, 1), [55]);
    let outcome = pair
        .edge
        .wait_record("the write", |r| r.kind == Kind::WriteOutcome);
    assert_eq!(outcome.outcome, Some(Outcome::Unknown));
}

fn silent_unit() {
    let line = Line::plugged();
    let device = Device::start(&line.far(), |unit, _, regular| match unit {
        4 => Reply::Silence,
        _ => Reply::Answer(regular),
    });
    let pair = setup(&line).up();
    let mut client = pair.client();
    for value in 1..=2 {
        expect(&mut client, 4, &write_register(1, value), NO_ANSWER);
        let answer = client.request(2, &read_one(1)).unwrap();
        assert_eq!(answer, [3, 2, 0, 0]);
    }
    let to_silent = device
        .heard()
        .into_iter()
        .filter(|(unit, _)| *unit == 4)
        .count();
    assert_eq!(to_silent, 2, "a write is sent once");
}

fn late_answer() {
    let line = Line::plugged();
    let _device = Device::start(&line.far(), |_, pdu, regular| match pdu[2] {
        10 => Reply::Late(Duration::from_millis(2_200), regular),
        _ => Reply::Answer(regular),
    });
    let pair = setup(&line)
        .modbus(&rtu(&line, ", turnaround = \"500ms\""))
        .up();
    let mut client = pair.client();
    write_one(&mut client, 11, 1111);
    expect(&mut client, 1, &read_one(10), NO_ANSWER);
    assert_eq!(read_registers(&mut client, 11, 1), [1111]);
}

fn broadcast() {
    let line = Line::plugged();
    let device = Device::regular(&line.far());
    let pair = setup(&line).up();
    let mut client = pair.client();
    let write = write_register(8, 88);
    client.send_request(0, &write).unwrap();
    let answer = client.read_adu(Duration::from_millis(500));
    assert!(answer.is_err(), "nobody answers a broadcast: {answer:02x?}");
    for unit in [1, 9] {
        let answer = client.request(unit, &read_one(8)).unwrap();
        assert_eq!(answer, [3, 2, 0, 88]);
    }
    let broadcasts = device.heard().into_iter().filter(|(unit, _)| *unit == 0);
    assert_eq!(broadcasts.collect::<Vec<_>>(), [(0, write.to_vec())]);
    for agent in [&pair.edge, &pair.headend] {
        let outcome = agent.wait_record("the write", |r| r.kind == Kind::WriteOutcome);
        assert_eq!(
            (outcome.outcome, outcome.unit),
            (Some(Outcome::Sent), Some(0))
        );
    }
}

fn broadcast_refused() {
    let no_broadcast = OPEN_POLICY.replace("unit = [0]", "unit = [1]");
    assert_ne!(no_broadcast, OPEN_POLICY);
    // By each of the two alone.
    for edge_refuses in [false, true] {
        let line = Line::plugged();
        let device = Device::regular(&line.far());
        let pair = match edge_refuses {
            false => setup(&line).headend_policy(&no_broadcast).up(),
            true => setup(&line).edge_policy(&no_broadcast).up(),
        };
        let mut client = pair.client();
        expect(&mut client, 0, &write_register(8, 88), ILLEGAL_FUNCTION);
        assert_eq!(device.heard(), []);
    }
}

/// As slow a line as there is: whatever the machine does meanwhile, the echo comes too soon.
fn slow(line: &Line, quirks: &str) -> Setup {
    let path = line.near();
    Setup::new(Transport::Quic)
        .modbus(&format!(
            "modbus_rtu = {{ path = {path:?}, baud = 300, parity = \"none\" }}"
        ))
        .device(&format!("quirks = [{quirks}]"))
        .answer_within("2s")
}

fn lone_echo() {
    for quirks in ["", "\"rtu-echo\""] {
        let line = Line::plugged();
        let device = Device::start(&line.far(), |_, _, _| Reply::Echoed(None));
        let pair = slow(&line, quirks).up();
        let mut client = pair.client();
        expect(&mut client, 1, &[5, 0, 7, 0xFF, 0], NO_ANSWER);
        expect(&mut client, 2, &write_register(5, 1200), NO_ANSWER);
        assert_eq!(device.heard().len(), 2, "each is sent once");
        for function in [5, 6] {
            let outcome = pair.edge.wait_record("the write", |r| {
                r.kind == Kind::WriteOutcome && r.function == Some(function)
            });
            assert_eq!(outcome.outcome, Some(Outcome::Unknown));
            let reason = outcome.reason.unwrap();
            match quirks {
                "" => assert_eq!(reason, "echo of the request"),
                _ => assert_eq!(reason, "no answer in time"),
            }
        }
        if quirks.is_empty() {
            let fault = pair
                .edge
                .wait_record("the fault", |r| r.kind == Kind::DeviceFault);
            let reason = fault.reason.unwrap();
            assert!(reason.contains("add quirks = [\"rtu-echo\"]"), "{reason}");
        }
    }
}

fn echo_borne() {
    let line = Line::plugged();
    let device = Device::start(&line.far(), |_, _, regular| Reply::Echoed(Some(regular)));
    let pair = slow(&line, "\"rtu-echo\"").up();
    let mut client = pair.client();
    write_one(&mut client, 5, 1200);
    assert_eq!(read_registers(&mut client, 5, 1), [1200]);
    expect_exception(&mut client, &read(3, 100, 1), ILLEGAL_ADDRESS);
    assert_eq!(device.heard().len(), 3);
    let outcome = pair
        .edge
        .wait_record("the write", |r| r.kind == Kind::WriteOutcome);
    assert_eq!(outcome.quirk.as_deref(), Some("rtu-echo"));
}

fn zero_borne() {
    let line = Line::plugged();
    let _device = Device::start(&line.far(), |_, _, regular| Reply::BehindZero(regular));
    let strict = setup(&line).up();
    expect(&mut strict.client(), 1, &read_one(5), NO_ANSWER);
    let told = strict.edge.status()["devices"][0]["last_fault"].to_string();
    assert!(told.contains("rtu-leading-zero"), "{told}");
    drop(strict);
    let pair = setup(&line).device("quirks = [\"rtu-leading-zero\"]").up();
    let mut client = pair.client();
    write_one(&mut client, 5, 1200);
    assert_eq!(read_registers(&mut client, 5, 1), [1200]);
}

fn unplugged() {
    let mut line = Line::plugged();
    let _device = Device::regular(&line.far());
    let pair = setup(&line).up();
    let mut client = pair.client();
    write_one(&mut client, 2, 22);
    for _ in 0..2 {
        line.unplug();
        expect(&mut client, 1, &read_one(2), NO_ANSWER);
        line.plug();
        reads_again(&pair, &[3, 2, 0, 22]);
    }
}

fn reads_again(pair: &Pair, expected: &[u8]) {
    let mut client = pair.client();
    within(SOON, "an answer from the plugged line", || {
        client.request(1, &read_one(2)).unwrap() == expected
    });
}
