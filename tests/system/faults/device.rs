//! Devices that are gone, silent, late, or that answer something else.

use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Outcome};
use fieldlock_sim::{Fault, Plc};
use fieldlock_testkit::modbus::{read, registers, write_register};
use fieldlock_testkit::ports::free_address;
use fieldlock_tests::answers::{NO_ANSWER, exception, expect_exception, read_one, read_registers};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{Hosted, Setup, Transport, eventually};
use libtest_mimic::Trial;

use super::{ANSWER_AT_MOST, begin_write, carried_out, no_answer_in_time, wrote};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("faults::plc_gone", plc_gone),
        both("faults::plc_silent", plc_silent),
        both("faults::slow_plc_and_many_pollers", slow_and_many),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(test("faults::plc_answers_wrongly", answers_wrongly));
    trials.push(test("faults::plc_answers_late", answers_late));
    trials.push(test("faults::plc_power_cycle", power_cycle));
    trials
}

fn plc_gone(transport: Transport) {
    let pair = Setup::new(transport).plc(free_address().unwrap()).up();
    let mut client = pair.client();
    let asked = Instant::now();
    client.send_request(1, &read_one(0)).unwrap();
    no_answer_in_time(&mut client, asked);
    let asked = Instant::now();
    begin_write(&mut client, 7);
    no_answer_in_time(&mut client, asked);
    wrote(&pair.edge, Outcome::NotSent);
    wrote(&pair.headend, Outcome::NotSent);
}

fn slow_and_many(transport: Transport) {
    const CLIENTS: usize = 10;
    const ROUNDS: usize = 3;
    let pair = Setup::new(transport).answer_within("10s").up();
    pair.plc().set_answer_delay(Duration::from_millis(50));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| pair.client()).collect();
    let before = pair.plc().requests();
    for _ in 0..ROUNDS {
        for client in &mut clients {
            client.send_request(1, &read_one(0)).unwrap();
        }
        for client in &mut clients {
            let answer = client.read_adu(ANSWER_AT_MOST).unwrap();
            assert!(registers(&answer[7..]).is_some(), "{answer:02x?}");
        }
    }
    let counters = pair.edge.status()["devices"][0]["counters"].clone();
    let asked = (CLIENTS * ROUNDS) as u64;
    let shared = counters["shared"].as_u64().unwrap();
    assert!(shared > 0, "{counters}");
    assert_eq!(pair.plc().requests() - before, asked - shared);
}

fn plc_silent(transport: Transport) {
    let pair = Setup::new(transport).up();
    let mut client = pair.client();
    pair.plc().set_silent(true);
    let asked = Instant::now();
    client.send_request(1, &read_one(0)).unwrap();
    no_answer_in_time(&mut client, asked);
    pair.edge.wait_record("the lost read", |r| {
        r.kind == Kind::Lost && r.outcome == Some(Outcome::Lost)
    });
    let asked = Instant::now();
    begin_write(&mut client, 7);
    no_answer_in_time(&mut client, asked);
    wrote(&pair.edge, Outcome::Unknown);
    wrote(&pair.headend, Outcome::Unknown);
    // It happened, and nobody tried again.
    assert_eq!(carried_out(&pair), 1);
    pair.plc().set_silent(false);
    read_registers(&mut client, 0, 4);
    assert_eq!(carried_out(&pair), 1);
}

/// Every second request meets a fault; none of the requests between sees anything of it.
fn answers_wrongly() {
    const FAULTS: [Fault; 7] = [
        Fault::WrongTransaction,
        Fault::WrongUnit,
        Fault::WrongFunction,
        Fault::WrongContent,
        Fault::Torn,
        Fault::Close,
        Fault::Garbage,
    ];
    // A read whose connection is lost is asked once more: that has a test of its own.
    let of_reads = FAULTS
        .into_iter()
        .filter(|fault| !matches!(fault, Fault::Torn | Fault::Close));
    let writes = FAULTS.into_iter().map(|fault| (true, fault));
    let faulted: Vec<_> = writes.chain(of_reads.map(|fault| (false, fault))).collect();
    let script = faulted.clone();
    let plc = Hosted::faulty(0, move |number| match number % 2 {
        0 => Fault::None,
        _ => script[number as usize / 2].1,
    });
    let pair = Setup::new(Transport::Quic)
        .plc(plc.address())
        .answer_within("500ms")
        .up();
    let mut client = pair.client();
    let mut values = 1..;
    for (is_write, fault) in faulted {
        let sane = client.request(1, &read(3, 1000, 3)).unwrap();
        let sane = registers(&sane).unwrap();
        assert_eq!(sane, [1000, 1001, 1002], "before {fault:?}");
        let pdu = match is_write {
            true => write_register(42, values.next().unwrap()),
            false => read(3, 2000, 2),
        };
        let asked = Instant::now();
        let answer = client.request(1, &pdu).unwrap();
        assert_eq!(exception(&answer), Some(NO_ANSWER), "{fault:?}");
        assert!(asked.elapsed() < ANSWER_AT_MOST, "{fault:?}");
    }
    let outcomes = || pair.edge.audit_kind(Kind::WriteOutcome);
    eventually("all outcomes", || outcomes().len() == FAULTS.len());
    for outcome in outcomes() {
        assert_eq!(outcome.outcome, Some(Outcome::Unknown));
    }
    // Each write was made once.
    let received = plc.received();
    let writes: Vec<_> = received.iter().filter(|r| r.pdu[0] == 6).collect();
    let expected: Vec<_> = (1..=FAULTS.len() as u16)
        .map(|value| write_register(42, value).to_vec())
        .collect();
    let made: Vec<_> = writes.iter().map(|write| write.pdu.clone()).collect();
    assert_eq!(made, expected);
}

/// A late answer is never taken for that of the next request.
fn answers_late() {
    let plc = Hosted::faulty(0, |number| match number {
        1 => Fault::Late(Duration::from_millis(500)),
        3 => Fault::Twice,
        _ => Fault::None,
    });
    let pair = Setup::new(Transport::Quic)
        .plc(plc.address())
        .answer_within("300ms")
        .up();
    let mut client = pair.client();
    assert_eq!(read_registers(&mut client, 100, 1), [100]);
    expect_exception(&mut client, &read_one(200), NO_ANSWER);
    let until = Instant::now() + Duration::from_millis(800);
    let mut next = 300;
    while Instant::now() < until {
        assert_eq!(read_registers(&mut client, next, 1), [next]);
        next += 1;
    }
    assert!(next > 310, "{next}");
}

fn power_cycle() {
    let address = free_address().unwrap();
    let plc = Hosted::<Plc>::plc(address.port());
    let pair = Setup::new(Transport::Quic).plc(address).up();
    let mut client = pair.client();
    read_registers(&mut client, 0, 4);
    drop(plc);
    expect_exception(&mut client, &read_one(0), NO_ANSWER);
    expect_exception(&mut client, &write_register(42, 1), NO_ANSWER);
    let plc = Hosted::<Plc>::plc(address.port());
    eventually("the PLC to be served again", || {
        let answer = client.request(1, &read_one(0)).unwrap();
        registers(&answer).is_some()
    });
    // A write from before the power cycle does not come back.
    assert_eq!(plc.write_count(), 0);
    wrote(&pair.edge, Outcome::NotSent);
}
