//! Agents that are killed, stopped, started twice.

use std::fs;
use std::time::{Duration, Instant};

use fieldlock_audit::{Kind, Outcome, Record};
use fieldlock_testkit::modbus::{Client, registers, write_register};
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::Process;
use fieldlock_tests::answers::{BUSY, NO_ANSWER, NO_PATH, exception, read_one, read_registers};
use fieldlock_tests::trial::{both, test};
use fieldlock_tests::{
    Agent, DEVICE, EDGE, OPEN_POLICY, Pair, Role, SOON, Setup, Site, Transport, binary, eventually,
};
use libtest_mimic::Trial;

use super::{begin_write, carried_out, no_answer_in_time, wrote};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("faults::edge_killed_in_a_write", edge_killed),
        both("faults::headend_killed_in_a_write", headend_killed),
        both("faults::sigterm_drains_the_headend", headend_drains),
        both("faults::sigterm_drains_the_edge", edge_drains),
        both("faults::one_of_two_headends_killed", one_of_two),
        both(
            "faults::a_headend_that_stops_takes_no_new_tunnel_and_is_found_again",
            stops_and_is_found,
        ),
        both(
            "faults::what_is_asked_while_the_headend_stops_is_answered",
            asked_while_stopping,
        ),
        both(
            "faults::what_is_still_under_way_at_the_end_of_drain_is_answered",
            end_of_drain,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(test("faults::two_agents_on_one_state", two_on_one_state));
    trials.push(test(
        "faults::headend_restarted_is_noticed_at_once",
        headend_restarted,
    ));
    trials.push(test(
        "faults::an_edge_that_was_killed_has_its_place_back_at_once",
        edge_back,
    ));
    trials.push(test(
        "faults::a_state_that_was_changed_waits_for_the_next_start",
        state_stays,
    ));
    trials
}

/// The device takes so long that whatever happens falls into the middle of the write.
fn in_the_middle_of_a_write(pair: &Pair, delay: Duration) -> (Client, Instant) {
    let mut client = pair.client();
    read_registers(&mut client, 0, 1);
    pair.plc().set_answer_delay(delay);
    let asked = Instant::now();
    begin_write(&mut client, 7);
    eventually("the write to arrive", || carried_out(pair) == 1);
    (client, asked)
}

fn edge_killed(transport: Transport) {
    let mut pair = Pair::up(transport);
    let (mut client, asked) = in_the_middle_of_a_write(&pair, Duration::from_millis(900));
    pair.edge.kill();
    no_answer_in_time(&mut client, asked);
    wrote(&pair.headend, Outcome::Unknown);
    // The intent was on the disk before the write left; its end is found at the next start.
    assert_eq!(pair.edge.audit_kind(Kind::WriteIntent).len(), 1);
    assert_eq!(pair.edge.audit_kind(Kind::WriteOutcome).len(), 0);
    pair.plc().set_answer_delay(Duration::ZERO);
    pair.edge.start();
    pair.wait_served();
    wrote(&pair.edge, Outcome::Unknown);
    // The client's connection outlived all of it.
    read_registers(&mut client, 0, 1);
    assert_eq!(carried_out(&pair), 1);
    // The device has time for what the edge that was killed had sent it.
    let newer = write_register(42, 8);
    eventually("a newer write to be carried out", || {
        let answer = client.request(1, &newer).unwrap();
        assert!(
            answer == newer || exception(&answer) == Some(BUSY),
            "{answer:02x?}"
        );
        answer == newer
    });
    assert_eq!(carried_out(&pair), 2);
}

fn headend_killed(transport: Transport) {
    let mut pair = Pair::up(transport);
    let (mut client, _) = in_the_middle_of_a_write(&pair, Duration::from_millis(300));
    pair.headend.kill();
    client.read_to_close(SOON).unwrap();
    pair.headend.start();
    pair.wait_up();
    wrote(&pair.headend, Outcome::Unknown);
    wrote(&pair.edge, Outcome::Answered);
    read_registers(&mut pair.client(), 0, 1);
    assert_eq!(carried_out(&pair), 1);
}

/// The new headend ends what the edge still believes in: no waiting until it is taken for dead.
fn headend_restarted() {
    let mut pair = Pair::up(Transport::Quic);
    read_registers(&mut pair.client(), 0, 1);
    pair.headend.kill();
    pair.headend.start();
    pair.wait_up();
    read_registers(&mut pair.client(), 0, 1);
    let log = pair.edge.log();
    assert!(log.contains("tunnel down: reset by peer"), "{log}");
}

fn headend_drains(transport: Transport) {
    let mut pair = Pair::up(transport);
    let (mut client, _) = in_the_middle_of_a_write(&pair, Duration::from_millis(500));
    let status = pair.headend.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    answered_and_on_record(&pair, &mut client);
    client.read_to_close(SOON).unwrap();
    assert!(Client::connect(pair.clients).is_err());
    assert_eq!(pair.headend.audit_kind(Kind::Stop).len(), 1);
    let down = pair
        .edge
        .wait_record("the end", |r| r.kind == Kind::TunnelDown);
    let reason = down.reason.unwrap_or_default();
    assert!(reason.contains("shutdown"), "{reason}");
}

/// Edges dial anew as soon as they hear that it stops: the one that stops is not to take them.
fn stops_and_is_found(transport: Transport) {
    let mut pair = Pair::up(transport);
    for _ in 0..3 {
        read_registers(&mut pair.client(), 0, 1);
        let status = pair.headend.terminate();
        assert_eq!(status.code(), Some(0), "{status}");
        pair.headend.start();
        pair.wait_up();
    }
    read_registers(&mut pair.client(), 0, 1);
    let kinds = [Kind::Start, Kind::TunnelUp, Kind::TunnelDown, Kind::Stop];
    let records = pair.headend.audit().into_iter().map(|record| record.kind);
    let seen: Vec<Kind> = records.filter(|kind| kinds.contains(kind)).collect();
    for life in seen.split_inclusive(|kind| *kind == Kind::Stop) {
        assert_eq!(life, &kinds[..life.len()], "{seen:?}");
    }
}

fn asked_while_stopping(transport: Transport) {
    let mut pair = Setup::new(transport).answer_within("5s").up();
    let (mut client, _) = in_the_middle_of_a_write(&pair, Duration::from_millis(900));
    pair.headend.process().terminate();
    pair.headend.wait_that("the end to begin", |headend| {
        headend.log().contains("stopping:")
    });
    let late = client.send_request(1, &read_one(0)).unwrap();
    let mut answers = [client.read_adu(SOON), client.read_adu(SOON)].map(Result::unwrap);
    // Whichever came first.
    answers.sort_by_key(|answer| answer[..2] == late.to_be_bytes());
    assert_eq!(&answers[0][7..], write_register(42, 7), "{answers:02x?}");
    assert_eq!(exception(&answers[1][7..]), Some(NO_PATH), "{answers:02x?}");
    client.read_to_close(SOON).unwrap();
    assert_eq!(pair.headend.wait_exit().code(), Some(0));
    wrote(&pair.headend, Outcome::Answered);
    wrote(&pair.edge, Outcome::Answered);
    let lost = pair.headend.audit_kind(Kind::Lost);
    let stops = |record: &&Record| record.reason.as_deref() == Some("the headend stops");
    assert_eq!(lost.iter().filter(stops).count(), 1, "{lost:?}");
}

fn end_of_drain(transport: Transport) {
    let mut pair = Setup::new(transport).answer_within("30s").up();
    // It counts at once.
    pair.headend
        .write_config(&format!("drain = \"100ms\"\n{}", pair.headend_config));
    pair.headend.wait_that("the configuration", |headend| {
        headend.log().contains("reloaded: configuration")
    });
    let (mut client, _) = in_the_middle_of_a_write(&pair, Duration::from_secs(20));
    let status = pair.headend.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    let answer = client.read_adu(SOON).unwrap();
    assert_eq!(exception(&answer[7..]), Some(NO_ANSWER), "{answer:02x?}");
    client.read_to_close(SOON).unwrap();
    wrote(&pair.headend, Outcome::Unknown);
    let log = pair.headend.log();
    assert!(log.contains("may finish within 100ms"), "{log}");
}

/// What an agent has and learns stays in its directory until the next start.
fn state_stays() {
    let mut pair = Pair::up(Transport::Quic);
    let file = pair.headend.config_file();
    let (state, other) = (pair.headend.state(), pair.headend.state().join("other"));
    let text = fs::read_to_string(&file).unwrap();
    let changed = text.replace(&format!("{state:?}"), &format!("{other:?}"));
    assert_ne!(text, changed);
    fs::write(&file, changed).unwrap();
    pair.headend.wait_that("the warning", |headend| {
        headend
            .log()
            .contains("`state` takes effect at the next start")
    });
    Site::shared().identity(Role::Edge, "state-stays");
    let crl = Site::shared().revoke(Role::Edge, "state-stays");
    pair.headend.install_crl(&crl);
    eventually("the edge to have the list", || {
        let list = |agent: &Agent| fs::read(agent.state().join("trust/list.pem")).unwrap();
        list(&pair.edge) == list(&pair.headend)
    });
    assert!(!other.exists());
    read_registers(&mut pair.client(), 0, 1);
}

/// Its QUIC comes from the same port again: who has it has nothing to prove to who had it.
fn edge_back() {
    // The port follows from the key, and other tests have edges with the usual one.
    let setup = Setup::new(Transport::Quic);
    let mut pair = setup.named("press-again", "hd-again").up();
    read_registers(&mut pair.client(), 0, 1);
    let from = || pair.headend.status()["tunnels"][0]["address"].clone();
    let before = from();
    pair.edge.kill();
    pair.edge.start();
    pair.wait_served();
    assert_eq!(from(), before);
    let log = pair.headend.log();
    assert!(log.contains("started anew"), "{log}");
}

fn edge_drains(transport: Transport) {
    let mut pair = Pair::up(transport);
    let (mut client, _) = in_the_middle_of_a_write(&pair, Duration::from_millis(500));
    let status = pair.edge.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    answered_and_on_record(&pair, &mut client);
    assert_eq!(pair.edge.audit_kind(Kind::Stop).len(), 1);
    let down = pair
        .headend
        .wait_record("the end", |r| r.kind == Kind::TunnelDown);
    let reason = down.reason.unwrap_or_default();
    assert!(reason.contains("shutdown"), "{reason}");
}

#[track_caller]
fn answered_and_on_record(pair: &Pair, client: &mut Client) {
    let answer = client.read_adu(SOON).unwrap();
    assert_eq!(&answer[7..], write_register(42, 7), "{answer:02x?}");
    wrote(&pair.edge, Outcome::Answered);
    wrote(&pair.headend, Outcome::Answered);
    assert_eq!(carried_out(pair), 1);
}

fn one_of_two(transport: Transport) {
    let tunnel = free_address().unwrap();
    let clients = free_address().unwrap();
    let extra = format!(
        "[[headend]]\nname = \"hd-2\"\naddress = [\"{tunnel}\"]\ntransport = \"{transport}\"\n"
    );
    let mut pair = Setup::new(transport).edge(&extra).prepare();
    let config = format!(
        "[tunnel]\nlisten = [\"{tunnel}\"]\n\
         [[device]]\nname = \"{DEVICE}\"\nedge = \"{EDGE}\"\nlisten = \"{clients}\"\n"
    );
    let mut second = Agent::prepare(
        Role::Headend,
        "hd-2",
        pair.directory.path(),
        &Site::shared().identity(Role::Headend, "hd-2"),
        &config,
        OPEN_POLICY,
    );
    second.start();
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    second.wait_ready();
    second.wait_that("its device", |headend| {
        headend.status()["devices"][0]["connected"] == true
    });
    let mut killed_ones = pair.client();
    let mut others = Client::connect(clients).unwrap();
    read_registers(&mut killed_ones, 0, 1);
    read_registers(&mut others, 0, 1);
    pair.headend.kill();
    killed_ones.read_to_close(SOON).unwrap();
    // Every request of the others is served: while the edge notices, and dials in vain.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let answer = others.request(1, &read_one(0)).unwrap();
        assert!(registers(&answer).is_some(), "{answer:02x?}");
    }
    pair.headend.start();
    pair.wait_up();
    read_registers(&mut pair.client(), 0, 1);
    read_registers(&mut others, 0, 1);
    assert_eq!(second.audit_kind(Kind::TunnelUp).len(), 1);
}

fn two_on_one_state() {
    let mut pair = Pair::up(Transport::Quic);
    for (agent, role) in [(&pair.edge, Role::Edge), (&pair.headend, Role::Headend)] {
        let mut command = binary::command();
        command
            .arg(role.to_string())
            .arg("--config")
            .arg(agent.config_file());
        let name = format!("second-{role}");
        let mut second = Process::start(&name, &mut command, pair.directory.path()).unwrap();
        let status = second.wait_exit(SOON).unwrap();
        assert_eq!(status.code(), Some(1), "{}", second.log_tail());
        let log = second.log();
        assert!(log.contains("another"), "{log}");
    }
    // The first ones did not lose anything by it, their control sockets included.
    read_registers(&mut pair.client(), 0, 1);
    pair.wait_up();
    assert_eq!(pair.headend.audit_kind(Kind::Start).len(), 1);
    assert_eq!(pair.edge.audit_kind(Kind::Start).len(), 1);
}
