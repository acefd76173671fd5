//! A headend with a good certificate that asks for what it should not. The edge's own policy
//! is the last word, and what breaks the protocol ends the tunnel.

use std::time::Duration;

use fieldlock_audit::{Kind, Outcome as Recorded};
use fieldlock_session::frame::CONTROL;
use fieldlock_session::{ALPN, CYCLIC_ALPN, ClientOpen, Frame, Outcome};
use fieldlock_sim::Fault;
use fieldlock_testkit::modbus::{read, write_register, write_registers};
use fieldlock_tests::answers::{BUSY, ILLEGAL_FUNCTION, exception};
use fieldlock_tests::rogue::{Credentials, Face, Rogue, RogueHeadend, hello};
use fieldlock_tests::trial::both;
use fieldlock_tests::{DEVICE, HEADEND, Hosted, Pair, Role, Setup, Site, Transport, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("negative::headend_asks_for_a_forbidden_write", forbidden),
        both(
            "negative::headend_asks_for_a_client_it_never_opened",
            unopened,
        ),
        both("negative::headend_asks_for_more_than_its_credits", credits),
        both("negative::headend_breaks_the_protocol", breaks_the_protocol),
        both("attacks::a03_headend_tries_everything", everything),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// hd-1 may read, and hmi-1 through it write the setpoint; nothing else.
const POLICY: &str = r#"
syntax = 1
[[client]]
name = "hmi-1"
address = ["10.1.1.20/32"]
[[allow]]
name = "reads"
via = ["hd-1"]
device = ["any"]
function = ["read"]
address = ["any"]
[[allow]]
name = "setpoint"
via = ["hd-1"]
client = ["hmi-1"]
device = ["any"]
function = [6]
address = ["holding 40"]
value = { min = 0, max = 100 }
[[allow]]
name = "another headend may do it all"
via = ["hd-9"]
device = ["any"]
function = ["any"]
address = ["any"]
"#;

/// An edge that dials a rogue with the headend's certificate.
pub(crate) fn edge_of_a_rogue(setup: Setup, transport: Transport) -> (Pair, RogueHeadend) {
    let identity = Site::shared().identity(Role::Headend, HEADEND);
    let face = Face {
        alpn: vec![ALPN.to_vec(), CYCLIC_ALPN.to_vec()],
        ..Face::of(Credentials::installed(&identity))
    };
    let rogue = RogueHeadend::listen(transport, face);
    let mut pair = setup.prepare();
    let config = pair
        .edge_config
        .replace(&pair.tunnel.to_string(), &rogue.address.to_string());
    pair.edge.write_config(&config);
    pair.edge.start();
    pair.edge.wait_ready();
    (pair, rogue)
}

/// States a client, with any name it likes.
fn open(rogue: &mut Rogue, client: u32, address: &str, name: &str) {
    let open = ClientOpen {
        client,
        address: address.parse().unwrap(),
        name: name.as_bytes(),
        identity: b"spiffe://plant1.example/client/hmi-1",
        role: b"Operator",
    };
    rogue.send(1, &Frame::ClientOpen(open)).unwrap();
}

fn request(rogue: &mut Rogue, id: u64, client: u32, pdu: &[u8]) {
    let frame = Frame::Request {
        id,
        client,
        within: 1000,
        unit: 1,
        pdu,
    };
    rogue.send(1, &frame).unwrap();
}

pub(crate) fn answer(rogue: &mut Rogue) -> (u64, Outcome, Vec<u8>) {
    loop {
        let frame = rogue.receive(1).unwrap();
        if let Ok(Some((1, Frame::Answer { id, outcome, pdu }, _))) = Frame::decode(&frame) {
            return (id, outcome, pdu.to_vec());
        }
    }
}

fn forbidden(transport: Transport) {
    let setup = Setup::new(transport).edge_policy(POLICY);
    let (pair, headend) = edge_of_a_rogue(setup, transport);
    let before = pair.plc().register(41);
    let mut rogue = headend.tunnel().unwrap();
    open(&mut rogue, 1, "10.9.9.9:1000", "hmi-1");
    request(&mut rogue, 1, 1, &read(3, 0, 2));
    let (id, outcome, pdu) = answer(&mut rogue);
    assert_eq!((id, outcome, pdu[0]), (1, Outcome::Answered, 3));

    // Neither a stated name nor a stated identity makes it hmi-1; its address would.
    let forbidden: [&[u8]; 4] = [
        &write_register(40, 50),
        &write_register(41, 50),
        &write_registers(40, &[1, 2]),
        &[5, 0, 0, 0xFF, 0],
    ];
    for (id, pdu) in (2..).zip(forbidden) {
        request(&mut rogue, id, 1, pdu);
        let (answered, outcome, refusal) = answer(&mut rogue);
        assert_eq!((answered, outcome), (id, Outcome::Refused));
        assert_eq!(exception(&refusal), Some(ILLEGAL_FUNCTION), "{pdu:02x?}");
    }
    // What hd-1 may do at most, it may.
    open(&mut rogue, 2, "10.1.1.20:1000", "");
    request(&mut rogue, 9, 2, &write_register(40, 50));
    assert_eq!(answer(&mut rogue).1, Outcome::Answered);
    request(&mut rogue, 10, 2, &write_register(40, 101));
    assert_eq!(answer(&mut rogue).1, Outcome::Refused);

    assert_eq!(pair.plc().write_count(), 1);
    assert_eq!(pair.plc().register(40), Some(50));
    assert_eq!(pair.plc().register(41), before);
    for id in [2, 3, 4, 5, 10] {
        let record = pair.edge.wait_record("denial", |r| {
            r.kind == Kind::Denied && r.request == Some(id)
        });
        assert_eq!(record.outcome, Some(Recorded::Refused));
        let headend = format!("spiffe://plant1.example/headend/{HEADEND}");
        assert_eq!(record.tunnel.as_deref(), Some(headend.as_str()));
        assert_eq!(record.device.as_deref(), Some(DEVICE));
    }
    assert_eq!(pair.edge.audit_kind(Kind::WriteIntent).len(), 1);
}

/// Every function there is, with bodies that fit it at addresses within and beyond the ceiling.
fn everything_there_is() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for function in 1..=127u8 {
        // As vendors and diagnostics have them, and shapes that fit nothing.
        let bodies: [&[u8]; 7] = [
            &[],
            &[0],
            &[0x01, 0x00],
            &[0, 0x01, 0xAB, 0xCD],
            &[0x0E, 1, 0],
            &[0x0D, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x55; 252],
        ];
        for body in bodies {
            requests.push([&[function], body].concat());
        }
    }
    for address in [0u16, 39, 40, 41, 9_000, 65_535] {
        let [high, low] = address.to_be_bytes();
        for value in [0u16, 100, 101, 65_535] {
            let [top, bottom] = value.to_be_bytes();
            requests.push(write_register(address, value).to_vec());
            requests.push(vec![16, high, low, 0, 1, 2, top, bottom]);
            requests.push(vec![22, high, low, 0, 0, top, bottom]);
            requests.push(vec![23, 0, 0, 0, 1, high, low, 0, 1, 2, top, bottom]);
        }
        requests.push(vec![5, high, low, 0xFF, 0]);
        requests.push(vec![15, high, low, 0, 1, 1, 1]);
        requests.push(read(3, address, 1).to_vec());
        requests.push(vec![21, 9, 6, 0, 4, high, low, 0, 1, 0xAA, 0xBB]);
        requests.push(vec![20, 7, 6, 0, 4, high, low, 0, 1]);
        requests.push(vec![24, high, low]);
    }
    for sub_function in 0..=21u8 {
        requests.push(vec![8, 0, sub_function, 0, 0]);
    }
    requests
}

/// What [`POLICY`] allows through hd-1, written down a second time.
fn is_within_the_ceiling(unit: u8, pdu: &[u8]) -> bool {
    let reads = matches!(pdu, [1..=4, _, _, _, _]);
    let setpoint = matches!(pdu, [6, 0, 40, 0, 0..=100]);
    unit != 0 && (reads || setpoint)
}

fn everything(transport: Transport) {
    let plc = Hosted::faulty(0, |_| Fault::None);
    let setup = Setup::new(transport)
        .edge_policy(POLICY)
        .plc(plc.address())
        .modbus_tcp("in_flight = 1");
    let (pair, headend) = edge_of_a_rogue(setup, transport);
    let mut rogue = headend.tunnel().unwrap();
    // Any client it likes: the one with the most rights, an unknown one, none that can be.
    let clients = ["10.1.1.20:1000", "192.0.2.77:1", "[2001:db8::1]:502"];
    for (client, address) in (1..).zip(clients) {
        open(&mut rogue, client, address, "hmi-1");
    }
    let requests = everything_there_is();
    let mut asked = 0;
    let mut refused = 0;
    for client in 1..=clients.len() as u32 {
        for unit in [1, 0, 255] {
            for pdu in &requests {
                asked += 1;
                let frame = Frame::Request {
                    id: asked,
                    client,
                    within: 1000,
                    unit,
                    pdu,
                };
                rogue.send(1, &frame).unwrap();
                let (id, outcome, _) = answer(&mut rogue);
                assert_eq!(id, asked);
                refused += u64::from(outcome == Outcome::Refused);
                // The device did it only if it may.
                let may = is_within_the_ceiling(unit, pdu);
                assert!(
                    may || outcome == Outcome::Refused,
                    "{outcome:?}: {pdu:02x?}"
                );
            }
        }
    }
    let received = plc.received();
    for request in &received {
        let (unit, pdu) = (request.unit, &request.pdu);
        assert!(is_within_the_ceiling(unit, pdu), "{unit}: {pdu:02x?}");
    }
    // So it was tried, and what is allowed did get through.
    assert_eq!(asked, refused + received.len() as u64);
    assert!(received.iter().any(|request| request.pdu[0] == 6));
    assert!(received.iter().any(|request| request.pdu[0] == 3));
    let counted = || -> u64 {
        let denials = pair.edge.audit_kind(Kind::Denied);
        denials.iter().map(|record| record.count.unwrap_or(1)).sum()
    };
    eventually("all refusals on record", || counted() == refused);
    let counters = pair.edge.status()["devices"][0]["counters"].clone();
    assert_eq!(counters["refused"], refused, "{counters}");
}

fn unopened(transport: Transport) {
    let (pair, headend) = edge_of_a_rogue(Setup::new(transport), transport);
    let mut rogue = headend.tunnel().unwrap();
    open(&mut rogue, 1, "10.1.1.20:1000", "");
    request(&mut rogue, 1, 1, &read(3, 0, 1));
    answer(&mut rogue);
    request(&mut rogue, 2, 77, &write_register(40, 50));
    rogue.wait_close(Duration::from_secs(5)).unwrap();
    assert_eq!(pair.plc().write_count(), 0);
    let down = pair
        .edge
        .wait_record("the end", |r| r.kind == Kind::TunnelDown);
    assert!(down.reason.unwrap_or_default().contains("not opened"));
    // It dials again: what one tunnel did wrong does not outlive it.
    let mut rogue = headend.tunnel().unwrap();
    open(&mut rogue, 1, "10.1.1.20:1000", "");
    request(&mut rogue, 1, 1, &read(3, 0, 1));
    assert_eq!(answer(&mut rogue).1, Outcome::Answered);
}

fn credits(transport: Transport) {
    // Two may wait and one be with the device: the hello says 3 credits.
    let setup = Setup::new(transport).device("queue = 2");
    let (pair, headend) = edge_of_a_rogue(setup, transport);
    pair.plc().set_answer_delay(Duration::from_millis(150));
    let mut rogue = headend.tunnel().unwrap();
    open(&mut rogue, 1, "10.1.1.20:1000", "");
    for id in 1..=20 {
        request(&mut rogue, id, 1, &read(3, 0, 1));
    }
    let answers: Vec<_> = (1..=20).map(|_| answer(&mut rogue)).collect();
    let busy = |(_, outcome, pdu): &&(u64, Outcome, Vec<u8>)| {
        *outcome == Outcome::Refused && exception(pdu) == Some(BUSY)
    };
    let refused = answers.iter().filter(busy).count();
    let answered = |(_, outcome, _): &&(u64, Outcome, Vec<u8>)| *outcome == Outcome::Answered;
    let served = answers.iter().filter(answered).count();
    assert_eq!(refused + served, 20, "{answers:?}");
    assert!((1..=4).contains(&served), "{served} of 20 served");
    assert!(pair.plc().requests() <= served as u64);
}

fn breaks_the_protocol(transport: Transport) {
    let (pair, headend) = edge_of_a_rogue(Setup::new(transport), transport);
    let edge_only = Frame::Answer {
        id: 1,
        outcome: Outcome::Answered,
        pdu: &[3, 2, 0, 0],
    };
    let mut wrongs: Vec<Vec<u8>> = vec![vec![0; 64], vec![0x17; 600]];
    for (channel, frame) in [
        (1, &edge_only),
        (7, &Frame::ClientClose { client: 1 }),
        (CONTROL, &Frame::Hello(&hello(&[]).encode())),
        (CONTROL, &Frame::Ready),
    ] {
        let mut bytes = Vec::new();
        frame.encode(channel, &mut bytes);
        wrongs.push(bytes);
    }
    // A PDU of 254 octets.
    let mut long = vec![0x01, 0x10, 0, 1, 0x12];
    long.extend([0; 17 + 254]);
    wrongs.push(long);
    for (index, wrong) in wrongs.iter().enumerate() {
        let mut rogue = headend.tunnel().unwrap();
        let downs = || pair.edge.audit_kind(Kind::TunnelDown).len();
        eventually("the tunnel to be up", || pair.transport().is_some());
        let _ = rogue.send_bytes(CONTROL, wrong);
        rogue
            .wait_close(Duration::from_secs(5))
            .unwrap_or_else(|error| panic!("{error}: {:02x?}", &wrong[..5]));
        eventually("the end on record", || downs() == index + 1);
    }
    assert_eq!(pair.plc().requests(), 0);
}
