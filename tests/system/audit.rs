//! The audit log as evidence: attacks on it are told, crashes leave it whole.

use std::fs;
use std::path::Path;
use std::process::Output;

use fieldlock_audit::{Kind, log_files, segments};
use fieldlock_testkit::modbus::write_register;
use fieldlock_testkit::process::Process;
use fieldlock_tests::answers::{read_registers, write_one};
use fieldlock_tests::trial::test;
use fieldlock_tests::{Agent, Pair, Setup, Site, Transport, audit_of, binary, eventually};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("attacks::a18_log_edited_cut_or_rolled_back", attack_18),
        test("audit::a_cut_log_is_an_alarm_at_the_other_end", cut_log),
        test("audit::kill_9_under_load_leaves_a_whole_log", killed),
        test("audit::reads_go_on_record_as_chosen", reads),
        test(
            "audit::verify_tells_a_wrong_trust_list_from_a_wrong_log",
            trust_lists,
        ),
        test("audit::queries_have_a_limit_dates_and_columns", queries),
        test(
            "audit::a_bounded_log_stays_whole_and_can_be_followed",
            bounded,
        ),
    ]
}

fn log_of(agent: &Agent) -> std::path::PathBuf {
    agent.state().join("audit")
}

fn verify(log: &Path, others: &[&Path], trust: &Path) -> Output {
    let mut command = binary::command();
    command.args(["audit", "verify"]).arg(log);
    command.arg("--trust").arg(trust);
    for other in others {
        command.arg("--against").arg(other);
    }
    command.output().unwrap()
}

/// A pair whose ends have, each, a checkpoint of the other's log on record that covers a write.
fn witnessed() -> Pair {
    let mut pair = Setup::new(Transport::Quic).up();
    let mut client = pair.client();
    for value in 0..5 {
        write_one(&mut client, 42, value);
    }
    let written = |agent: &Agent| {
        let outcomes = agent.audit_kind(Kind::WriteOutcome);
        outcomes.last().map_or(0, |record| record.seq)
    };
    eventually("the outcomes to be on record", || {
        written(&pair.edge) > 0 && written(&pair.headend) > 0
    });
    let (edge, headend) = (written(&pair.edge), written(&pair.headend));
    // What is on record at the start is signed at once, and told when the tunnel is up.
    pair.edge.terminate();
    pair.headend.terminate();
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let covers = |seq: u64| {
        move |record: &fieldlock_audit::Record| {
            let head = record.head.as_deref();
            record.kind == Kind::PeerCheckpoint && head.is_some_and(|head| head.seq > seq)
        }
    };
    pair.headend
        .wait_record("a checkpoint of the edge", covers(edge));
    pair.edge
        .wait_record("a checkpoint of the headend", covers(headend));
    pair
}

fn attack_18() {
    let mut pair = witnessed();
    pair.edge.terminate();
    pair.headend.terminate();
    let (edge, headend) = (log_of(&pair.edge), log_of(&pair.headend));
    let trust = pair.edge.state().join("trust/list.pem");

    for (log, other) in [(&edge, &headend), (&headend, &edge)] {
        let output = verify(log, &[other], &trust);
        let text = binary::text(&output);
        assert!(output.status.success(), "{text}");
        assert!(
            text.contains("in order") && text.contains("agrees"),
            "{text}"
        );
        assert!(text.contains("spiffe://"), "{text}");
    }

    let file = pair.edge.audit_file();
    let whole = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = whole.split_inclusive('\n').collect();
    let forged = pair.directory.path().join("forged");
    fs::create_dir(&forged).unwrap();
    let refused_by = |content: &str, others: &[&Path], says: &[&str]| {
        fs::write(forged.join("audit.jsonl"), content).unwrap();
        let output = verify(&forged, others, &trust);
        let text = binary::text(&output);
        assert_eq!(output.status.code(), Some(1), "{says:?}: {text}");
        for expected in says {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    };
    let refused = |content: &str, says: &[&str]| refused_by(content, &[&headend], says);
    let intent = lines
        .iter()
        .position(|line| line.contains("\"write-intent\""))
        .unwrap();
    let at = format!("audit.jsonl:{}", intent + 1);

    // One value of one write, edited.
    let edited = whole.replacen("\"values\":[0]", "\"values\":[9]", 1);
    assert_ne!(edited, whole);
    refused(&edited, &[&at, "changed"]);
    // A line dropped, and two in each other's place.
    let mut without = lines.clone();
    without.remove(intent);
    refused(&without.concat(), &[&at, "removed"]);
    let mut swapped = lines.clone();
    swapped.swap(intent, intent + 1);
    refused(&swapped.concat(), &[&at, "moved"]);
    // The tail dropped, and an older file put in its place, are whole by themselves.
    let older = lines[..intent].concat();
    fs::write(forged.join("audit.jsonl"), &older).unwrap();
    assert!(verify(&forged, &[], &trust).status.success());
    refused(&older, &["the log ends with record", "cut off"]);
    // All of it made anew by somebody without the key: the chain fits, the signature doesn't.
    let anew = rechained(&edited);
    refused_by(
        &anew,
        &[],
        &["checkpoint", "its signature is not by the agent's key"],
    );
    // And by somebody with the key: it is not what the other end has on record.
    let unsigned: String = rechained(
        &edited
            .lines()
            .filter(|line| !line.contains("\"checkpoint\""))
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );
    refused(&unsigned, &["on record"]);
}

/// The same records under hashes that fit, numbered anew.
fn rechained(log: &str) -> String {
    let mut before = "0".repeat(64);
    let mut out = String::new();
    for (index, line) in log.lines().enumerate() {
        let content = line.rsplit_once(",\"hash\":").unwrap().0;
        let (_, rest) = content.split_once(",\"time\"").unwrap();
        let content = format!("{{\"v\":1,\"seq\":{},\"time\"{rest}", index + 1);
        let content = match content.split_once("\"head\":{\"seq\":") {
            Some((start, end)) if content.contains("\"kind\":\"checkpoint\"") => {
                let (_, end) = end.split_once("\"hash\":\"").unwrap();
                format!(
                    "{start}\"head\":{{\"seq\":{index},\"hash\":\"{before}{}",
                    &end[64..]
                )
            }
            _ => content,
        };
        let digest = sha256(format!("{before}{content}").as_bytes());
        out.push_str(&format!("{content},\"hash\":\"{digest}\"}}\n"));
        before = digest;
    }
    out
}

fn sha256(octets: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, octets);
    digest
        .as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

fn cut_log() {
    let mut pair = witnessed();
    pair.edge.kill();
    pair.edge.wait_exit();
    let file = pair.edge.audit_file();
    let whole = fs::read_to_string(&file).unwrap();
    let first: String = whole.split_inclusive('\n').take(2).collect();
    fs::write(&file, first).unwrap();
    pair.edge.start();
    eventually("the alarm at the headend", || {
        let alarms = pair.headend.alarms();
        alarms.iter().any(|alarm| alarm == "peer-log-cut press-07")
    });
    pair.headend.wait_record("the alarm", |record| {
        record.alarm.as_deref() == Some("peer-log-cut press-07")
    });
}

fn killed() {
    let mut pair = Setup::new(Transport::Quic).up();
    let trust = pair.edge.state().join("trust/list.pem");
    for round in 0..3 {
        let mut client = pair.client();
        for value in 0..20 {
            write_one(&mut client, 42, round * 100 + value);
        }
        pair.edge.kill();
        pair.edge.wait_exit();
        let output = verify(&log_of(&pair.edge), &[], &trust);
        assert!(output.status.success(), "{}", binary::text(&output));
        pair.edge.start();
        pair.wait_served();
        // An outcome may not have been on the disk: then newer writes wait for what may be under way.
        let write = write_register(42, round * 100 + 99);
        eventually("a write to be carried out", || {
            pair.client().request(1, &write).unwrap() == write
        });
    }
    let output = verify(&log_of(&pair.edge), &[&log_of(&pair.headend)], &trust);
    assert!(output.status.success(), "{}", binary::text(&output));
}

/// A root alone, a list of another plant, and the list of the plant, over the same good log.
fn trust_lists() {
    let mut pair = witnessed();
    pair.edge.terminate();
    let log = log_of(&pair.edge);
    let list = fs::read_to_string(pair.edge.state().join("trust/list.pem")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let certificates: Vec<_> = list.split_inclusive(end).collect();
    let said = |name: &str, pem: &str| {
        let file = pair.directory.path().join(name);
        fs::write(&file, pem).unwrap();
        let output = verify(&log, &[], &file);
        assert_eq!(output.status.code(), Some(2), "{}", binary::text(&output));
        let text = binary::text(&output);
        assert!(text.contains("can't judge this log"), "{text}");
        assert!(!text.contains("checkpoint"), "it accuses: {text}");
        text
    };
    let root = said("root.pem", certificates[0]);
    assert!(root.contains("it has no issuing CA"), "{root}");
    let issuing = said("issuing.pem", certificates[1]);
    assert!(issuing.contains("it has no root"), "{issuing}");
    let other = Site::new();
    let foreign_root = fs::read_to_string(other.ca().join("root.pem")).unwrap();
    let mixed = said("mixed.pem", &format!("{foreign_root}{}", certificates[1]));
    assert!(mixed.contains("signed by none of its roots"), "{mixed}");
    let good = verify(&log, &[], &pair.edge.state().join("trust/list.pem"));
    assert!(good.status.success(), "{}", binary::text(&good));
}

fn queries() {
    let mut pair = Setup::new(Transport::Quic).up();
    let mut client = pair.client();
    (0..5).for_each(|value| write_one(&mut client, 42, value));
    pair.headend.terminate();
    let log = log_of(&pair.headend);
    let query = |more: &[&str]| {
        let mut command = binary::command();
        command
            .args(["audit", "query", "--kind", "write-intent"])
            .args(more)
            .arg(&log);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", binary::text(&output));
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (last, said) = query(&["--limit", "2", "--since", "2026-01-01"]);
    assert_eq!(last.lines().count(), 2, "{last}");
    assert!(last.contains("= [3]") && last.contains("= [4]"), "{last}");
    assert!(said.contains("the last 2 of 5 records"), "{said}");
    assert_eq!(query(&["--until", "2026-01-01"]).0, "");
    let (rows, _) = query(&["--csv"]);
    let rows: Vec<_> = rows.lines().collect();
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert!(
        rows[0].starts_with("time,clock,agent,seq,kind,"),
        "{}",
        rows[0]
    );
    assert!(
        rows[5].contains(",write-intent,") && rows[5].contains(",[4],"),
        "{}",
        rows[5]
    );
}

fn reads() {
    let mut pair = Setup::new(Transport::Quic)
        .edge("[audit]\nreads = \"changed\"\n")
        .headend("[audit]\nreads = \"1h\"\n")
        .up();
    let mut client = pair.client();
    write_one(&mut client, 42, 7);
    for _ in 0..5 {
        assert_eq!(read_registers(&mut client, 42, 1), [7]);
    }
    write_one(&mut client, 42, 8);
    assert_eq!(read_registers(&mut client, 42, 1), [8]);
    pair.edge.terminate();
    pair.headend.terminate();

    let [first, changed] = &pair.edge.audit_kind(Kind::Read)[..] else {
        panic!("{:?}", pair.edge.audit_kind(Kind::Read));
    };
    let json = serde_json::to_value(changed).unwrap();
    assert_eq!((first.count, changed.count), (None, Some(5)));
    assert_eq!(json["answer"], serde_json::json!([8]));
    assert_eq!(json["address"], "holding 42");
    assert_eq!(json["rule"], "everything");
    assert_eq!(json["outcome"], "answered");
    let [sample] = &pair.headend.audit_kind(Kind::Read)[..] else {
        panic!("{:?}", pair.headend.audit_kind(Kind::Read));
    };
    assert!(sample.transaction.is_some());
    assert_eq!(sample.request, first.request);
}

fn bounded() {
    let limits = "[audit]\nsegment_size = \"64KiB\"\nmax_size = \"256KiB\"\n";
    let mut pair = Setup::new(Transport::Quic).edge(limits).up();
    let log = log_of(&pair.edge);
    let trust = pair.edge.state().join("trust/list.pem");
    let followed = pair.directory.path().join("follower.log");
    let mut follower = binary::command();
    follower
        .args(["audit", "tail", "-f", "-n", "65535", "--json"])
        .arg(&log);
    let mut follower = Process::start("follower", &mut follower, pair.directory.path()).unwrap();
    let mut client = pair.client();
    let dropped = |pair: &Pair| {
        let first = segments(&log_of(&pair.edge)).unwrap().into_iter().next();
        first.is_some_and(|segment| segment.first > 1)
    };
    let mut value = 0;
    let last_seq = |file: &Path| audit_of(file).last().map_or(0, |record| record.seq);
    while !dropped(&pair) {
        write_one(&mut client, 42, value % 1000);
        value += 1;
        if value % 40 == 0 {
            // A whole log is written in less time than the follower's pause.
            let written = last_seq(&pair.edge.audit_file());
            eventually("the follower", || last_seq(&followed) >= written);
        }
        assert!(value < 5_000, "nothing is dropped");
    }
    pair.edge.terminate();
    let bytes: u64 = log_files(&log)
        .unwrap()
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert!(bytes <= 256 * 1024, "{bytes}");
    let output = verify(&log, &[], &trust);
    assert!(output.status.success(), "{}", binary::text(&output));

    let last = fs::read_to_string(pair.edge.audit_file()).unwrap();
    let last = last.lines().last().unwrap().to_owned();
    eventually("the follower to have the last record", || {
        fs::read_to_string(&followed).unwrap().lines().last() == Some(&last)
    });
    follower.kill();
    let seqs: Vec<u64> = audit_of(&followed)
        .iter()
        .map(|record| record.seq)
        .collect();
    let expected: Vec<u64> = (1..=seqs.len() as u64).collect();
    assert_eq!(seqs, expected);
}
