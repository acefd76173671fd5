//! Metrics, health and readiness: what a monitoring system is answered, and who is not.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_testkit::peers::{Peer, workspace_root};
use fieldlock_testkit::ports::free_address;
use fieldlock_tests::answers::{ILLEGAL_FUNCTION, expect_exception, read_registers};
use fieldlock_tests::rig::Rig;
use fieldlock_tests::{
    DEVICE, EDGE, HEADEND, Pair, READ_ONLY_POLICY, Setup, Transport, eventually, plant, trial,
    within,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial::test("monitor::counts_and_times_what_crosses", counts),
        trial::test("monitor::says_whether_it_serves", readiness),
        trial::test(
            "monitor::a_fallback_to_tls_is_an_alarm_while_it_lasts",
            fallback,
        ),
        trial::test("monitor::devices_beyond_a_bound_share_their_series", many),
        trial::test(
            "attacks::a22_who_asks_the_monitor_for_more_is_turned_away",
            turned_away,
        ),
        trial::test("monitor::nothing_listens_unless_asked_for", off),
        trial::on_rig("monitor::every_metric_is_documented", documented),
        trial::with_peers("monitor::promtool_finds_no_fault", &["promtool"], promtool),
        trial::with_peers("monitor::the_example_alerts_hold", &["promtool"], alerts),
    ]
}

/// A pair with a listener at each end, of the edge first.
fn monitored(setup: Setup) -> (Pair, [SocketAddr; 2]) {
    let [edge, headend] = [free_address().unwrap(), free_address().unwrap()];
    let monitor = |address| format!("[monitor]\nlisten = \"{address}\"\n");
    let pair = setup.edge(&monitor(edge)).headend(&monitor(headend)).up();
    (pair, [edge, headend])
}

/// Sends a request as it stands; status and body.
fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let sent = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    // One that is turned away early may find the connection reset behind its answer.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        panic!("no answer to {request:.80?} ({sent:?}): {answer:?}");
    };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    )
}

fn metrics(address: SocketAddr) -> String {
    let (status, page) = get(address, "/metrics");
    assert_eq!(status, 200);
    page
}

/// The value of one sample, by its name and labels as they stand.
#[track_caller]
fn value(page: &str, sample: &str) -> f64 {
    let found = page.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == sample).then_some(value)
    });
    let Some(found) = found else {
        panic!("no {sample} in\n{page}");
    };
    found.parse().unwrap()
}

fn counts() {
    let (pair, [edge, headend]) = monitored(Setup::new(Transport::Quic).policy(READ_ONLY_POLICY));
    let mut client = pair.client();
    for _ in 0..5 {
        read_registers(&mut client, 0, 2);
    }
    expect_exception(&mut client, &[6, 0, 1, 0, 1], ILLEGAL_FUNCTION);
    let outcome =
        |of: &str| format!("fieldlock_requests_total{{device=\"{DEVICE}\",outcome=\"{of}\"}}");
    let duration = |of: &str| format!("fieldlock_request_duration_seconds_{of}");
    let [at_edge, at_headend] = [edge, headend].map(metrics);
    for page in [&at_edge, &at_headend] {
        assert_eq!(value(page, &outcome("answered")), 5.0);
        let count = value(page, &duration(&format!("count{{device=\"{DEVICE}\"}}")));
        assert_eq!(count, 5.0);
        let all = format!("bucket{{device=\"{DEVICE}\",le=\"+Inf\"}}");
        assert_eq!(value(page, &duration(&all)), 5.0);
        let sum = value(page, &duration(&format!("sum{{device=\"{DEVICE}\"}}")));
        assert!(sum > 0.0, "{page}");
        assert_eq!(value(page, "fieldlock_tunnels{transport=\"quic\"}"), 1.0);
        assert_eq!(value(page, "fieldlock_tunnels{transport=\"tls\"}"), 0.0);
        assert_eq!(value(page, "fieldlock_alarm{name=\"clock-wrong\"}"), 0.0);
        assert_eq!(value(page, "fieldlock_audit_writable"), 1.0);
        let now = jiff::Timestamp::now().as_second() as f64;
        let expiry = value(page, "fieldlock_certificate_expiry_timestamp_seconds");
        assert!(expiry > now, "{expiry}");
    }
    assert_eq!(value(&at_headend, &outcome("refused")), 1.0);
    assert_eq!(value(&at_headend, "fieldlock_clients"), 1.0);
    let up = format!("fieldlock_headend_up{{headend=\"{HEADEND}\"}}");
    assert_eq!(value(&at_edge, &up), 1.0);

    // An alarm is a gauge.
    let alarm = "fieldlock_alarm{name=\"policy-refused\"}";
    pair.edge.write_policy("syntax = 1\nallow = 3\n");
    eventually("the alarm", || value(&metrics(edge), alarm) == 1.0);
    pair.edge.write_policy(READ_ONLY_POLICY);
    eventually("its end", || value(&metrics(edge), alarm) == 0.0);
}

fn readiness() {
    let (mut pair, [edge, headend]) = monitored(Setup::new(Transport::Tls));
    for address in [edge, headend] {
        assert_eq!(get(address, "/health"), (200, "ok\n".to_owned()));
        assert_eq!(get(address, "/ready"), (200, "ok\n".to_owned()));
    }
    pair.headend.kill();
    eventually("the edge to miss its headend", || {
        get(edge, "/ready").0 == 503
    });
    assert_eq!(get(edge, "/ready").1, "no tunnel is up\n");
    assert_eq!(get(edge, "/health").0, 200);
    pair.headend.start();
    eventually("the edge to be ready again", || {
        get(edge, "/ready").0 == 200
    });
}

fn many() {
    const BOUND: usize = 1024;
    let address = free_address().unwrap();
    let mut text = String::new();
    for number in 0..BOUND + 5 {
        text += &format!("[[device]]\nname = \"d-{number}\"\n");
    }
    let monitor = format!("[monitor]\nlisten = \"{address}\"\n");
    let pair = Setup::new(Transport::Quic).headend(&(text + &monitor)).up();
    read_registers(&mut pair.client(), 0, 2);
    let page = metrics(address);
    let series = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(series("fieldlock_device_up{"), BOUND + 1);
    assert_eq!(
        series("fieldlock_request_duration_seconds_count{"),
        BOUND + 1
    );
    assert_eq!(value(&page, "fieldlock_device_up{device=\"_rest\"}"), 0.0);
    assert_eq!(
        value(
            &page,
            &format!("fieldlock_device_up{{device=\"{DEVICE}\"}}")
        ),
        1.0
    );
}

fn fallback() {
    let address = free_address().unwrap();
    let mut pair = Setup::new(Transport::Auto)
        .edge(&format!("[monitor]\nlisten = \"{address}\"\n"))
        .wire()
        .prepare();
    pair.wire().block_udp(true);
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let alarm = || {
        value(
            &metrics(address),
            "fieldlock_alarm{name=\"fallback-transport\"}",
        )
    };
    eventually("the alarm", || alarm() == 1.0);
    assert_eq!(
        pair.edge.alarms(),
        [format!("fallback-transport {HEADEND}")]
    );
    pair.wire().block_udp(false);
    // QUIC is tried again after 5, 10, 20 s, and looked at every 10.
    within(Duration::from_secs(45), "the alarm's end", || {
        alarm() == 0.0
    });
    assert_eq!(pair.transport().as_deref(), Some("quic"));
    let end = pair
        .edge
        .wait_record("the end of the alarm", |r| r.kind == Kind::AlarmEnd);
    assert_eq!(
        end.alarm.as_deref(),
        Some(&*format!("fallback-transport {HEADEND}"))
    );
}

fn turned_away() {
    let (pair, [edge, headend]) = monitored(Setup::new(Transport::Quic));
    let status = |request: String| ask(edge, &request).0;
    let host = |host: &str| status(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for own in [
        "localhost",
        "localhost:9464",
        "LOCALHOST",
        "127.0.0.1:1",
        "[::1]:9464",
    ] {
        assert_eq!(host(own), 200, "{own}");
    }
    // A page of somebody else's, whose name was made to lead here (DNS rebinding).
    for foreign in [
        "evil.example",
        "evil.example:9464",
        "localhost.evil.example",
        "",
        "a b",
    ] {
        let refused = host(foreign);
        assert!(refused == 403 || refused == 400, "{foreign}: {refused}");
    }
    let rest = "HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    assert_eq!(status("GET /metrics HTTP/1.1\r\n\r\n".into()), 403);
    assert_eq!(
        status(format!("GET http://evil.example/metrics {rest}")),
        403
    );
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "CONNECT"] {
        let target = if method == "CONNECT" {
            "a:1"
        } else {
            "/metrics"
        };
        let refused = status(format!("{method} {target} {rest}"));
        assert!(refused == 405 || refused == 403, "{method}: {refused}");
    }
    assert_eq!(status(format!("GET /elsewhere {rest}")), 404);
    let long = "a".repeat(64 * 1024);
    let refused = status(format!(
        "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nx: {long}\r\n\r\n"
    ));
    assert!((400..500).contains(&refused), "{refused}");

    // Those who say nothing hold places for a while, and nobody else up: no request of a client
    // waits for them.
    let silent: Vec<_> = (0..64)
        .filter_map(|_| TcpStream::connect(edge).ok())
        .collect();
    read_registers(&mut pair.client(), 0, 2);
    drop(silent);
    eventually("a place to be free", || {
        let mut stream = TcpStream::connect(edge).unwrap();
        let _ = write!(stream, "GET /health {rest}");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok() && answer.ends_with("ok\n")
    });
    assert_eq!(get(headend, "/health").0, 200);
}

fn off() {
    let pair = Setup::new(Transport::Quic).prepare();
    for (agent, text) in [
        (&pair.edge, "[monitor]\nlisten = \"0.0.0.0:9464\"\n"),
        (
            &pair.edge,
            "[monitor]\nlisten = \"127.0.0.1:9464\"\nallow_remote = true\n",
        ),
        (&pair.headend, "[monitor]\nlisten = \"[::]:9464\"\n"),
    ] {
        let config = if agent.name() == EDGE {
            &pair.edge_config
        } else {
            &pair.headend_config
        };
        agent.write_config(&format!("{config}{text}"));
        let output = agent.check();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}{error}");
        assert!(error.contains("monitor"), "{error}");
    }
    let remote = "[monitor]\nlisten = \"[::]:9464\"\nallow_remote = true\nnames = [\"hd-1\"]\n";
    pair.headend
        .write_config(&format!("{}{remote}", pair.headend_config));
    assert!(pair.headend.check().status.success());

    // The only port that an edge has open is the one it dials from.
    pair.edge.write_config(&pair.edge_config);
    pair.headend.write_config(&pair.headend_config);
    let mut pair = pair;
    pair.headend.start();
    pair.edge.start();
    pair.wait_up();
    let listening = listening_tcp(pair.edge.process().id());
    assert_eq!(listening, 0);
}

/// How many TCP sockets of a process listen.
fn listening_tcp(process: u32) -> usize {
    let own: BTreeSet<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            let target = target.to_str()?;
            Some(
                target
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")));
    let lines = tables
        .iter()
        .flatten()
        .flat_map(|table| table.lines().skip(1));
    // State 0A is LISTEN; the tenth field is the inode.
    let listens = lines.filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(3) == Some(&"0A") && fields.get(9).is_some_and(|inode| own.contains(*inode))
    });
    listens.count()
}

fn documented(rig: &Rig) {
    let [edge, headend] = [free_address().unwrap(), free_address().unwrap()];
    let monitors = [edge, headend].map(|at| format!("[monitor]\nlisten = \"{at}\"\n"));
    let more = [&*monitors[0], &*monitors[1]];
    let policy = plant::io_policy(rig.mac_of(&rig.controller));
    let exposed = rig.among_agents(|| {
        let _pair = plant::setup_with_more(rig, Transport::Quic, more, &policy).up();
        let pages = [edge, headend].map(metrics);
        pages
            .iter()
            .flat_map(|page| families(page))
            .collect::<BTreeSet<_>>()
    });
    let page = fs::read_to_string(workspace_root().join("docs/metrics.md")).unwrap();
    let named = page.split('`').skip(1).step_by(2);
    let named = named.filter(|name| name.starts_with("fieldlock_") || name.starts_with("process_"));
    let named: BTreeSet<String> = named
        .map(|name| name.split('{').next().unwrap_or(name).to_owned())
        .collect();
    let missing: Vec<_> = exposed.difference(&named).collect();
    let unknown: Vec<_> = named
        .difference(&exposed)
        // Only where signers of bundles are pinned.
        .filter(|name| *name != "fieldlock_policy_bundle_version")
        .collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{missing:?} {unknown:?}"
    );
}

fn families(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .collect()
}

fn promtool() {
    let (pair, addresses) = monitored(Setup::new(Transport::Quic));
    read_registers(&mut pair.client(), 0, 2);
    for address in addresses {
        let mut command = Command::new(Peer::find("promtool").unwrap());
        command.args(["check", "metrics"]);
        let mut tool = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let page = metrics(address);
        tool.stdin
            .take()
            .unwrap()
            .write_all(page.as_bytes())
            .unwrap();
        let output = tool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{said}\n{page}");
    }
}

fn alerts() {
    let examples = workspace_root().join("examples/prometheus");
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let mut command = Command::new(Peer::find("promtool").unwrap());
        let output = command
            .args(arguments)
            .current_dir(&examples)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
}
