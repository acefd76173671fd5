//! What crosses is told to whoever looks on, at both ends, and only while that is wanted.

use fieldlock_tests::answers::{expect_exception, read_registers, write_one};
use fieldlock_tests::trial::test;
use fieldlock_tests::{Agent, Pair, Setup, Transport, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let carried = |transport| move || every_exchange(transport);
    vec![
        test(
            "observe::every_exchange_is_told::quic",
            carried(Transport::Quic),
        ),
        test(
            "observe::every_exchange_is_told::tls",
            carried(Transport::Tls),
        ),
    ]
}

const READS: u64 = 20;

const NO_COILS: &str = r#"
syntax = 1
[[allow]]
name = "registers"
device = ["any"]
function = [3, 6]
address = ["any"]
"#;

fn every_exchange(transport: Transport) {
    let pair = Setup::new(transport).headend_policy(NO_COILS).up();
    let mut client = pair.client();
    read_registers(&mut client, 0, 4);
    for agent in [&pair.edge, &pair.headend] {
        assert!(
            agent.status()["observations"].is_null(),
            "nobody wants them"
        );
    }
    turn(&pair, true);
    let before = [told(&pair.edge), told(&pair.headend)];
    for _ in 0..READS {
        read_registers(&mut client, 0, 4);
    }
    write_one(&mut client, 40, 7);
    // The headend refuses it: the edge hears nothing of it.
    expect_exception(&mut client, &[5, 0, 1, 0xFF, 0], 1);
    for (agent, before, count) in [
        (&pair.edge, before[0], READS + 1),
        (&pair.headend, before[1], READS + 2),
    ] {
        eventually("all are told, and read", || told(agent) == before + count);
        assert_eq!(agent.status()["observations"]["lost"], 0);
    }
    turn(&pair, false);
    read_registers(&mut client, 0, 4);
}

/// By the configuration of agents that run.
fn turn(pair: &Pair, on: bool) {
    for (agent, config) in [
        (&pair.edge, &pair.edge_config),
        (&pair.headend, &pair.headend_config),
    ] {
        agent.write_config(&format!("observe = {on}\n{config}"));
        let is_on = || !agent.status()["observations"].is_null();
        eventually("the other configuration is in force", || is_on() == on);
    }
}

/// As many as were told and read.
fn told(agent: &Agent) -> u64 {
    let status = agent.status();
    let observations = &status["observations"];
    let count = |name: &str| observations[name].as_u64().unwrap();
    match (count("taken"), count("read")) {
        (taken, read) if taken == read => taken,
        // The reader is not through.
        _ => 0,
    }
}
