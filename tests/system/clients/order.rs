//! Order of answers, transaction ids, and clients that give up waiting.

use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_sim::Fault;
use fieldlock_testkit::modbus::{Client, adu, read, registers, write_register};
use fieldlock_tests::answers::{
    BUSY, ILLEGAL_FUNCTION, ILLEGAL_VALUE, NO_ANSWER, NO_PATH, exception, read_one, read_registers,
};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{Hosted, Pair, SOON, Setup, Transport, eventually};
use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both(
            "clients::answers_come_in_the_order_asked_refusals_included",
            in_order,
        ),
        both(
            "clients::refusals_of_the_edge_come_in_the_order_asked",
            refused_by_the_edge,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.extend([
        test("clients::an_unmapped_unit_waits_for_nobody", unmapped_units),
        test("clients::an_id_under_way_is_not_sent_again", same_id),
        test(
            "clients::an_id_under_way_with_other_octets_is_refused",
            other_octets,
        ),
        test(
            "clients::one_lost_answer_does_not_break_a_client",
            lost_answer,
        ),
        test("clients::who_pipelines_gets_each_answer", pipelines),
    ]);
    trials
}

fn ask(client: &mut Client, requests: &[(u16, u8, &[u8])]) {
    let bytes: Vec<u8> = requests
        .iter()
        .flat_map(|(id, unit, pdu)| adu(*id, *unit, pdu))
        .collect();
    client.send(&bytes).unwrap();
}

/// Id and PDU of the next answer.
#[track_caller]
fn next(client: &mut Client) -> (u16, Vec<u8>) {
    let answer = client.read_adu(SOON).unwrap();
    (
        u16::from_be_bytes([answer[0], answer[1]]),
        answer[7..].to_vec(),
    )
}

fn in_order(transport: Transport) {
    let pair = Pair::up(transport);
    let mut client = pair.client();
    let (good, bad) = (read_one(0), read(3, 0, 0));
    for round in 0..50 {
        let first = 3 * round;
        ask(
            &mut client,
            &[
                (first, 1, &good),
                (first + 1, 1, &bad),
                (first + 2, 1, &good),
            ],
        );
        let answers = [(); 3].map(|()| next(&mut client));
        let codes = answers.each_ref().map(|(_, pdu)| exception(pdu));
        assert_eq!(answers.map(|(id, _)| id), [first, first + 1, first + 2]);
        assert_eq!(codes, [None, Some(ILLEGAL_VALUE), None]);
    }
    // As many as there may be, and those that are beyond.
    pair.plc().set_answer_delay(Duration::from_millis(5));
    let many: Vec<(u16, u8, &[u8])> = (1000..1040).map(|id| (id, 1, &good[..])).collect();
    ask(&mut client, &many);
    for (id, _, _) in many {
        let answer = next(&mut client);
        assert_eq!(answer.0, id);
        let code = exception(&answer.1);
        assert!(matches!(code, None | Some(BUSY)), "{answer:02x?}");
    }
}

fn refused_by_the_edge(transport: Transport) {
    let narrow = "syntax = 1\n[[allow]]\nname = \"reads\"\ndevice = \"any\"\n\
         function = \"read\"\naddress = \"any\"\n";
    let pair = Setup::new(transport).edge_policy(narrow).up();
    pair.plc().set_answer_delay(Duration::from_millis(20));
    let mut client = pair.client();
    let (good, refused) = (read_one(0), write_register(42, 1));
    for round in 0..10 {
        let first = 3 * round;
        ask(
            &mut client,
            &[
                (first, 1, &good),
                (first + 1, 1, &refused),
                (first + 2, 1, &good),
            ],
        );
        let answers = [(); 3].map(|()| next(&mut client));
        assert_eq!(exception(&answers[1].1), Some(ILLEGAL_FUNCTION));
        assert_eq!(answers.map(|(id, _)| id), [first, first + 1, first + 2]);
    }
}

fn unmapped_units() {
    let shared = fieldlock_testkit::ports::free_address().unwrap();
    let listener = format!(
        "[[listener]]\naddress = \"{shared}\"\nunit = [{{ unit = 1, device = \"press-07\" }}]\n"
    );
    let pair = Setup::new(Transport::Quic).headend(&listener).up();
    pair.plc().set_answer_delay(Duration::from_millis(300));
    let mut client = Client::connect(shared).unwrap();
    ask(&mut client, &[(1, 1, &read_one(0)), (2, 9, &read_one(0))]);
    let (id, pdu) = next(&mut client);
    assert_eq!((id, exception(&pdu)), (2, Some(NO_PATH)));
    assert_eq!(next(&mut client).0, 1);
}

/// As pymodbus does after its time-out of 3 s.
fn same_id() {
    let pair = Setup::new(Transport::Quic).answer_within("5s").up();
    pair.plc().set_answer_delay(Duration::from_millis(600));
    let mut client = pair.client();
    let write = write_register(42, 7);
    ask(&mut client, &[(1, 1, &write)]);
    eventually("the write to be with the PLC", || {
        pair.plc().write_count() == 1
    });
    ask(&mut client, &[(1, 1, &write), (1, 1, &write)]);
    assert_eq!(next(&mut client), (1, write.to_vec()));
    // One answer, and the id is free again.
    ask(&mut client, &[(1, 1, &read_one(42))]);
    let (id, pdu) = next(&mut client);
    assert_eq!((id, registers(&pdu)), (1, Some(vec![7])));
    assert_eq!(pair.plc().write_count(), 1);
    assert_eq!(pair.headend.status()["counters"]["repeated"], 2);
    assert_eq!(pair.headend.audit_kind(Kind::WriteIntent).len(), 1);
}

fn other_octets() {
    let pair = Pair::up(Transport::Quic);
    pair.plc().set_answer_delay(Duration::from_millis(200));
    let mut client = pair.client();
    let (first, second) = (write_register(42, 7), write_register(42, 8));
    ask(&mut client, &[(1, 1, &first), (1, 1, &second)]);
    assert_eq!(next(&mut client), (1, first.to_vec()));
    let (id, pdu) = next(&mut client);
    assert_eq!((id, exception(&pdu)), (1, Some(BUSY)));
    assert_eq!(pair.plc().register(42), Some(7));
    pair.headend.wait_record("the refusal", |record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.kind == Kind::Denied && reason.contains("transaction id")
    });
}

/// As libmodbus does, whose time-out is 0.5 s: it takes the next answer for that to its last request.
fn lost_answer() {
    let plc = Hosted::faulty(0, |request| match request {
        0 => Fault::Silent,
        _ => Fault::None,
    });
    let pair = Setup::new(Transport::Quic).plc(plc.address()).up();
    let mut client = pair.client();
    ask(&mut client, &[(1, 1, &read_one(0))]);
    client.read_adu(Duration::from_millis(500)).unwrap_err();
    // Others may have answers of theirs after the time-out; of the first there is none any more.
    for id in 2..10 {
        ask(&mut client, &[(id, 1, &read_one(0))]);
        assert_eq!(next(&mut client).0, id);
    }
    let status = pair.headend.status();
    assert_eq!(status["counters"]["given_up"], 1, "{status:#}");
    assert_eq!(status["clients"]["connections"][0]["given_up"], 1);
}

fn pipelines() {
    let plc = Hosted::faulty(0, |request| match request {
        2 => Fault::Silent,
        _ => Fault::None,
    });
    let pair = Setup::new(Transport::Quic).plc(plc.address()).up();
    let mut client = pair.client();
    ask(&mut client, &[(1, 1, &read_one(0)), (2, 1, &read_one(0))]);
    assert_eq!([next(&mut client).0, next(&mut client).0], [1, 2]);
    ask(&mut client, &[(3, 1, &read_one(0))]);
    client.read_adu(Duration::from_millis(500)).unwrap_err();
    ask(&mut client, &[(4, 1, &read_one(0))]);
    let (id, pdu) = next(&mut client);
    assert_eq!((id, exception(&pdu)), (3, Some(NO_ANSWER)));
    assert_eq!(next(&mut client).0, 4);
    read_registers(&mut pair.client(), 0, 1);
}
