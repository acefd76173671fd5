//! An agent confines itself to what its configuration named at its start.

use std::fs;

use fieldlock_testkit::process::Directory;
use fieldlock_tests::answers::read_registers;
use fieldlock_tests::{Agent, OPEN_POLICY, Pair, SOON, Setup, Site, Transport, binary, trial};
use libtest_mimic::Trial;

use crate::enroll::join;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::test("sandbox::what_lies_outside_is_refused_by_name", outside),
        trial::test("sandbox::off_lets_an_agent_read_what_its_user_may", off),
        trial::test("sandbox::confines_every_thread", every_thread),
        trial::test("sandbox::confines_the_server_of_the_ca", ca_server),
    ]
}

/// Whether this kernel confines files.
fn confines_files(agent: &Agent) -> bool {
    let status = agent.status();
    assert_ne!(status["sandbox"]["files"], "off");
    status["sandbox"]["files"] != "missing"
}

/// A policy in a directory that no file of the configuration is in.
fn elsewhere() -> (Directory, std::path::PathBuf) {
    let directory = Directory::new().unwrap();
    let policy = directory.path().join("policy.toml");
    fs::write(&policy, OPEN_POLICY).unwrap();
    (directory, policy)
}

/// Gives both agents another policy file, by a reload.
fn point_to(pair: &Pair, policy: &std::path::Path, keys: &str) {
    for (agent, config) in [
        (&pair.edge, &pair.edge_config),
        (&pair.headend, &pair.headend_config),
    ] {
        agent.write_config(&format!("{keys}{config}"));
        let file = agent.config_file();
        let text = fs::read_to_string(&file).unwrap();
        let own = format!("policy = {:?}", agent.policy_file());
        assert!(text.contains(&own));
        let new = file.with_extension("new");
        fs::write(&new, text.replace(&own, &format!("policy = {policy:?}"))).unwrap();
        fs::rename(&new, &file).unwrap();
    }
}

fn outside() {
    let mut pair = Pair::up(Transport::Quic);
    if !confines_files(&pair.edge) {
        eprintln!("this kernel has no Landlock");
        return;
    }
    let (_directory, policy) = elsewhere();
    point_to(&pair, &policy, "");
    for agent in [&mut pair.edge, &mut pair.headend] {
        agent.wait_that("the policy to be refused", |agent| {
            agent.alarms().contains(&"policy-refused".to_owned())
        });
        let log = agent.log();
        let line = log.lines().find(|line| line.contains("Permission denied"));
        assert!(
            line.is_some_and(|line| line.contains(policy.to_str().unwrap())),
            "{log}"
        );
        assert!(
            log.contains("hint: the sandbox lets this agent into"),
            "{log}"
        );
    }
    // The old one stays in force.
    read_registers(&mut pair.client(), 0, 2);
    // From its start on it is one of those that were named.
    for agent in [&mut pair.edge, &mut pair.headend] {
        agent.terminate();
        agent.start();
    }
    pair.wait_up();
    pair.wait_served();
    assert!(pair.edge.alarms().is_empty());
}

fn off() {
    let mut pair = Setup::new(Transport::Quic).prepare();
    let off = "sandbox = false\n";
    pair.edge
        .write_config(&format!("{off}{}", pair.edge_config));
    pair.headend
        .write_config(&format!("{off}{}", pair.headend_config));
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    assert_eq!(pair.edge.status()["sandbox"]["files"], "off");
    assert_eq!(pair.edge.status()["sandbox"]["calls"], "off");
    let (_directory, policy) = elsewhere();
    fs::write(&policy, format!("{OPEN_POLICY}\n# another\n")).unwrap();
    let before = pair.edge.status()["policy"].clone();
    point_to(&pair, &policy, off);
    pair.edge.wait_that("the policy to be taken", |edge| {
        edge.try_status()
            .is_some_and(|status| status["policy"] != before)
    });
}

fn every_thread() {
    let mut pair = Pair::up(Transport::Quic);
    for agent in [&mut pair.edge, &mut pair.headend] {
        let count = confined_threads(agent.process().id());
        assert!(count >= 2, "the audit log has a thread of its own");
    }
}

fn confined_threads(process: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut count = 0;
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"), "{status}");
        // 2: a filter (proc_pid_status(5)).
        assert_eq!(field("Seccomp:").as_deref(), Some("2"), "{status}");
        count += 1;
    }
    count
}

/// A link out of the CA's directory leads nowhere for the server, while a command follows it.
fn ca_server() {
    let site = Site::new();
    let mut server = site.serve();
    confined_threads(server.process.id());
    if server.process.log().contains("files=Missing") {
        eprintln!("this kernel has no Landlock");
        return;
    }
    let settings = site.ca().join("ca.toml");
    let elsewhere = Directory::new().unwrap();
    let moved = elsewhere.path().join("ca.toml");
    fs::copy(&settings, &moved).unwrap();
    let token = site.token("edge", "press-07", server.address);
    let state = elsewhere.path().join("state");
    fs::remove_file(&settings).unwrap();
    std::os::unix::fs::symlink(&moved, &settings).unwrap();
    let output = join(&state, &token);
    assert!(!output.status.success(), "{}", binary::text(&output));
    let denied = server.process.wait_log("Permission denied", SOON);
    denied.unwrap();
    fs::remove_file(&settings).unwrap();
    fs::copy(&moved, &settings).unwrap();
    let output = join(&state, &token);
    assert!(output.status.success(), "{}", binary::text(&output));
}
