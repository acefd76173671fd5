//! Many clients, greedy clients, clients that do nothing.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fieldlock_audit::Kind;
use fieldlock_testkit::modbus::{Client, adu, read, registers};
use fieldlock_tests::answers::{BUSY, exception, read_one, read_registers};
use fieldlock_tests::trial::{both, ignored, test};
use fieldlock_tests::{Pair, SOON, Setup, Transport, open_files, resident, within};
use libtest_mimic::Trial;

const CLIENTS: usize = 1000;

/// An agent with a thousand clients stays well below it; one that leaks does not.
const MEMORY: u64 = 128 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("faults::flood_beside_a_calm_client", flood),
        both("faults::client_that_never_reads", never_reads),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(test("faults::half_a_request_then_silence", half_a_request));
    trials.push(test("faults::not_modbus_is_closed", not_modbus));
    let name = "faults::a_thousand_clients";
    if open_files(2 * CLIENTS as u64 + 500) {
        trials.extend(both(name, thousand_clients));
    } else {
        trials.push(ignored(name, "needs 2,500 open files: `ulimit -n`"));
    }
    trials
}

fn thousand_clients(transport: Transport) {
    let mut pair = Pair::up(transport);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| pair.client()).collect();
    within(SOON, "all to be admitted", || {
        pair.headend.status()["clients"]["count"] == CLIENTS
    });
    // All at once: far more than the credits of one device. Nothing but "busy" may come back.
    for client in &mut clients {
        client.send_request(1, &read_one(0)).unwrap();
    }
    let mut served = 0;
    for client in &mut clients {
        let answer = client.read_adu(SOON).unwrap();
        match exception(&answer[7..]) {
            None => served += usize::from(registers(&answer[7..]).is_some()),
            code => assert_eq!(code, Some(BUSY), "{answer:02x?}"),
        }
    }
    assert!(served >= 16, "{served} of {CLIENTS} served");
    // As many at a time as there are credits: everybody is served.
    for some in clients.chunks_mut(16) {
        for client in some.iter_mut() {
            client.send_request(1, &read_one(0)).unwrap();
        }
        for client in some {
            let answer = client.read_adu(SOON).unwrap();
            assert!(registers(&answer[7..]).is_some(), "{answer:02x?}");
        }
    }
    for agent in [&mut pair.headend, &mut pair.edge] {
        let octets = resident(agent.process().id());
        assert!(octets < MEMORY, "{}: {octets} octets", agent.name());
    }
    drop(clients);
    within(SOON, "all to be forgotten", || {
        let edge = pair.edge.status();
        pair.headend.status()["clients"]["count"] == 0
            && edge["headends"][0]["tunnels"][0]["clients"] == 0
    });
    read_registers(&mut pair.client(), 0, 1);
    assert_eq!(pair.headend.audit_kind(Kind::TunnelUp).len(), 1);
}

/// Three clients ask as fast as they can. A fourth never fails and hardly waits.
fn flood(transport: Transport) {
    let pair = Setup::new(transport).up();
    pair.plc().set_answer_delay(Duration::from_millis(2));
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..3)
        .map(|_| {
            let (client, stop) = (pair.client(), stop.clone());
            thread::spawn(move || flood_until(client, &stop))
        })
        .collect();
    let mut calm = pair.client();
    let mut slowest = Duration::ZERO;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let asked = Instant::now();
        let answer = calm.request(1, &read_one(0)).unwrap();
        slowest = slowest.max(asked.elapsed());
        assert!(registers(&answer).is_some(), "{answer:02x?}");
        thread::sleep(Duration::from_millis(10));
    }
    stop.store(true, Ordering::Relaxed);
    let asked: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    assert!(asked > 1000, "a flood of {asked} requests");
    // Its turn comes after one request of each of the others, 8 ms in all.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

fn flood_until(mut client: Client, stop: &AtomicBool) -> u64 {
    let mut asked = 0;
    let burst: Vec<[u8; 5]> = vec![read(3, 0, 100); 32];
    let burst: Vec<&[u8]> = burst.iter().map(|pdu| &pdu[..]).collect();
    while !stop.load(Ordering::Relaxed) {
        client.pipeline(1, &burst).unwrap();
        asked += burst.len() as u64;
    }
    asked
}

/// It costs its own connection and nothing else.
fn never_reads(transport: Transport) {
    let setup = Setup::new(transport).headend("[client]\nidle_timeout = \"2s\"\n");
    let mut pair = setup.up();
    let greedy = pair.client();
    let mut stream = greedy.stream();
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let asked = |id| adu(id, 1, &read(3, 0, 100));
    let burst: Vec<u8> = (0..256).flat_map(asked).collect();
    let mut sent = 0_u64;
    let refused = loop {
        match stream.write(&burst) {
            Ok(count) => sent += count as u64,
            Err(error) => break error,
        }
        assert!(sent < 1 << 30, "the headend takes everything");
        // Others are served all the while.
        read_registers(&mut pair.client(), 0, 1);
    };
    assert_ne!(refused.kind(), ErrorKind::Interrupted);
    let octets = resident(pair.headend.process().id());
    assert!(octets < MEMORY, "{octets} octets");
    let closed = pair.headend.wait_record("its end", |r| {
        let reason = r.reason.as_deref().unwrap_or_default();
        r.kind == Kind::ClientClose && reason.contains("does not read")
    });
    assert!(closed.count > Some(0));
    read_registers(&mut pair.client(), 0, 1);
}

fn half_a_request() {
    let setup = Setup::new(Transport::Quic).headend("[client]\nidle_timeout = \"1s\"\n");
    let pair = setup.up();
    let whole = adu(1, 1, &read_one(0));
    let mut halves: Vec<Client> = Vec::new();
    for length in 1..whole.len() {
        let mut client = pair.client();
        client.send(&whole[..length]).unwrap();
        halves.push(client);
    }
    read_registers(&mut pair.client(), 0, 1);
    // One that goes on in time is answered.
    let mut slow = pair.client();
    for octet in &whole {
        slow.send(&[*octet]).unwrap();
    }
    let answer = slow.read_adu(SOON).unwrap();
    assert!(registers(&answer[7..]).is_some());
    for mut client in halves {
        assert!(client.read_to_close(SOON).unwrap().is_empty());
    }
}

fn not_modbus() {
    let pair = Pair::up(Transport::Quic);
    let wrongs: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: plc\r\n\r\n",
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC],
        &[0, 1, 0, 0, 0, 1, 1],
        &[0, 1, 0, 0, 0xFF, 0xFF, 1],
        &[0; 64],
    ];
    for wrong in wrongs {
        let mut client = pair.client();
        // What came before in the same write is answered.
        let mut bytes = adu(7, 1, &read_one(40));
        bytes.extend_from_slice(wrong);
        client.send(&bytes).unwrap();
        client.read_to_close(SOON).unwrap();
    }
    let counted = &pair.headend.status()["counters"]["not_modbus"];
    assert_eq!(counted, wrongs.len());
    pair.headend.wait_record("the refusal", |r| {
        r.kind == Kind::Denied && r.reason.as_deref().unwrap_or("").contains("not Modbus")
    });
    assert_eq!(pair.plc().write_count(), 0);
    read_registers(&mut pair.client(), 0, 1);
}
