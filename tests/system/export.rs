//! The log at a collector: rsyslog over TLS, which may go away at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_tests::answers::{expect_exception, write_one};
use fieldlock_tests::trial::{test, with_peers};
use fieldlock_tests::{Agent, OPEN_POLICY, Pair, Setup, Transport, binary, eventually};
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        with_peers(
            "export::nothing_is_lost_while_rsyslog_is_away",
            &["rsyslogd"],
            outage,
        ),
        with_peers(
            "export::a_collector_with_another_certificate_gets_nothing",
            &["rsyslogd"],
            other_certificate,
        ),
        test("export::forms_have_one_line_a_record", forms),
        test(
            "export::a_collector_that_never_confirms_gets_all_and_is_named",
            silent,
        ),
        test(
            "export::a_collector_that_breaks_off_gets_the_rest_later",
            breaks_off,
        ),
    ]
}

/// rsyslog, with the messages it takes in a file as they came.
struct Collector {
    directory: Directory,
    address: SocketAddr,
    process: Option<Process>,
}

impl Collector {
    fn prepare() -> Self {
        let directory = Directory::new().unwrap();
        let at = directory.path();
        let address = free_address().unwrap();
        write_certificates(at);
        let at = at.display();
        let config = format!(
            "global(workDirectory=\"{at}\" maxMessageSize=\"64k\" \
             DefaultNetstreamDriverCAFile=\"{at}/ca.pem\" \
             DefaultNetstreamDriverCertFile=\"{at}/cert.pem\" \
             DefaultNetstreamDriverKeyFile=\"{at}/key.pem\")\n\
             module(load=\"imtcp\" StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" \
             StreamDriver.AuthMode=\"anon\")\n\
             input(type=\"imtcp\" address=\"{}\" port=\"{}\")\n\
             template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
             action(type=\"omfile\" file=\"{at}/taken.log\" template=\"raw\")\n",
            address.ip(),
            address.port()
        );
        fs::write(directory.path().join("rsyslog.conf"), config).unwrap();
        Self {
            directory,
            address,
            process: None,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self) {
        let mut command = Command::new(Peer::find("rsyslogd").unwrap());
        command
            .arg("-n")
            .arg("-f")
            .arg(self.file("rsyslog.conf"))
            .arg("-i")
            .arg(self.file("pid"));
        // One that was killed leaves it behind.
        let _ = fs::remove_file(self.file("pid"));
        let process = Process::start("rsyslogd", &mut command, self.directory.path());
        self.process = Some(process.unwrap());
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill();
    }

    /// The records it took, by their number; the same one more than once is the same.
    fn taken(&self) -> BTreeMap<u64, String> {
        let text = fs::read_to_string(self.file("taken.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut taken = BTreeMap::new();
        for line in text[..whole].lines() {
            assert!(line.starts_with('<') && line.contains(">1 20"), "{line}");
            let (_, record) = line.split_once("] ").expect("structured data");
            let parsed: serde_json::Value = serde_json::from_str(record).unwrap();
            let before = taken.insert(parsed["seq"].as_u64().unwrap(), record.to_owned());
            assert!(before.is_none_or(|before| before == record), "{record}");
        }
        taken
    }
}

fn write_certificates(at: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    fs::write(at.join("ca.pem"), ca.pem()).unwrap();
    fs::write(at.join("cert.pem"), leaf.pem()).unwrap();
    fs::write(at.join("key.pem"), key.serialize_pem()).unwrap();
}

fn log_of(agent: &Agent) -> PathBuf {
    agent.state().join("audit")
}

fn exporter(pair: &Pair, to: SocketAddr, ca: &Path) -> Command {
    let mut command = binary::command();
    command
        .args(["audit", "export", "--follow", "--confirm", "1s"])
        .arg(log_of(&pair.headend))
        .args(["--to", &to.to_string()])
        .arg("--ca")
        .arg(ca)
        .arg("--cursor")
        .arg(pair.directory.path().join("export.cursor"));
    command
}

fn outage() {
    let limits = "[audit]\nsegment_size = \"64KiB\"\n";
    let mut pair = Setup::new(Transport::Quic).headend(limits).up();
    let mut collector = Collector::prepare();
    let mut command = exporter(&pair, collector.address, &collector.file("ca.pem"));
    let start = |command: &mut Command, pair: &Pair| {
        Process::start("exporter", command, pair.directory.path()).unwrap()
    };
    let mut exporter = start(&mut command, &pair);
    let mut client = pair.client();
    let mut value = 0;
    let mut write = |count: u16| {
        for _ in 0..count {
            write_one(&mut client, 42, value);
            value += 1;
        }
    };
    let last = |pair: &Pair| pair.headend.audit().last().map_or(0, |record| record.seq);
    let taken_to = |collector: &Collector| {
        collector
            .taken()
            .last_key_value()
            .map_or(0, |(seq, _)| *seq)
    };

    // Not there yet; there; killed in the middle of it; there again.
    write(60);
    collector.start();
    let written = last(&pair);
    eventually("what was written before", || {
        taken_to(&collector) >= written
    });
    for _ in 0..3 {
        write(40);
        collector.kill();
        write(40);
        collector.start();
    }
    // And the exporter itself.
    exporter.kill();
    write(40);
    let mut exporter = start(&mut command, &pair);
    pair.headend.terminate();
    let written = last(&pair);
    eventually("all that was written", || taken_to(&collector) >= written);
    exporter.kill();

    let log: Vec<String> = fieldlock_audit::log_files(&log_of(&pair.headend))
        .unwrap()
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let taken: Vec<String> = collector.taken().into_values().collect();
    assert_eq!(taken.len(), log.len());
    assert_eq!(taken, log);
    let said = fs::read_to_string(pair.directory.path().join("exporter.log")).unwrap();
    assert!(
        said.contains("are not confirmed and are sent again"),
        "{said}"
    );
}

fn other_certificate() {
    let pair = Setup::new(Transport::Quic).up();
    let mut collector = Collector::prepare();
    collector.start();
    let stranger = Directory::new().unwrap();
    write_certificates(stranger.path());
    let ca = stranger.path().join("ca.pem");
    let mut command = exporter(&pair, collector.address, &ca);
    let mut exporter = Process::start("exporter", &mut command, pair.directory.path()).unwrap();
    let log = pair.directory.path().join("exporter.log");
    eventually("the refusal", || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("a signature on its certificate")
    });
    exporter.kill();
    assert!(collector.taken().is_empty());
}

/// A collector of the test's own: reads each connection to the end of what it wants and goes away
/// without TLS's close_notify.
struct Scripted {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<u64>>>,
}

impl Scripted {
    /// Of each connection it reads so many octets, in turn; then to the end.
    fn start(certificates: &Path, octets: Vec<usize>) -> Self {
        let pem = |name: &str| fs::read(certificates.join(name)).unwrap();
        let chain = CertificateDer::pem_slice_iter(&pem("cert.pem"))
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(&pem("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (config, taken) = (Arc::new(config), Arc::new(Mutex::new(Vec::new())));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let numbers = taken.clone();
        thread::spawn(move || {
            let mut octets = octets.into_iter();
            while let Ok((tcp, _)) = listener.accept() {
                let tls = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(tls, tcp);
                let mut text = Vec::new();
                let most = octets.next().map_or(u64::MAX, |most| most as u64);
                // Not to the end: the rest is unread as it goes away.
                let _ = Read::by_ref(&mut stream).take(most).read_to_end(&mut text);
                numbers.lock().unwrap().extend(numbers_in(&text));
            }
        });
        Self { address, taken }
    }
}

/// The numbers of the records in whole messages.
fn numbers_in(text: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(text);
    let after = text.split("\"seq\":").skip(1);
    after
        .filter_map(|rest| rest.split_once(',')?.0.parse().ok())
        .collect()
}

const RECORDS: u64 = 25_000;

/// A log with more records than are sent before a confirmation is due, and how it is exported.
fn long_log(at: &Path, to: SocketAddr) -> Command {
    let lines = (1..=RECORDS).map(|seq| {
        format!(
            "{{\"v\":1,\"seq\":{seq},\"time\":\"2026-09-21T14:13:20.000000Z\",\
             \"agent\":\"press-07\",\"kind\":\"denied\"}}\n"
        )
    });
    fs::write(at.join("audit.jsonl"), lines.collect::<String>()).unwrap();
    let mut command = binary::command();
    command
        .args(["audit", "export"])
        .arg(at.join("audit.jsonl"));
    command.args(["--to", &to.to_string(), "--confirm", "1h", "--ca"]);
    command
        .arg(at.join("ca.pem"))
        .arg("--cursor")
        .arg(at.join("cursor"));
    command
}

fn all_taken(scripted: &Scripted) {
    let taken: BTreeSet<u64> = scripted.taken.lock().unwrap().iter().copied().collect();
    let expected: BTreeSet<u64> = (1..=RECORDS).collect();
    let missing: Vec<_> = expected.difference(&taken).take(5).collect();
    assert!(missing.is_empty(), "{missing:?} and {} in all", taken.len());
}

fn silent() {
    let directory = Directory::new().unwrap();
    let at = directory.path();
    write_certificates(at);
    let scripted = Scripted::start(at, Vec::new());
    let mut command = long_log(at, scripted.address);
    let output = command.output().unwrap();
    let text = binary::text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let named = format!("records 1 to {RECORDS} were sent and never confirmed");
    assert!(text.contains(&named), "{text}");
    assert!(!text.contains("nothing is lost"), "{text}");
    all_taken(&scripted);
    let cursor = fs::read_to_string(at.join("cursor")).unwrap();
    assert_eq!(cursor.trim(), RECORDS.to_string());
    // It has nothing left to send, and nothing that is not confirmed.
    let again = command.output().unwrap();
    assert!(again.status.success(), "{}", binary::text(&again));
}

fn breaks_off() {
    let directory = Directory::new().unwrap();
    let at = directory.path();
    write_certificates(at);
    let scripted = Scripted::start(at, vec![1, 100_000, 0, 700_000]);
    let output = long_log(at, scripted.address).output().unwrap();
    let text = binary::text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("are sent again"), "{text}");
    all_taken(&scripted);
}

fn forms() {
    let policy = format!(
        "{OPEN_POLICY}[[deny]]\nname = \"a|b=c\"\ndevice = \"any\"\nfunction = 6\n\
         address = \"any\"\nreason = \"x=y | z\"\n"
    );
    let mut pair = Setup::new(Transport::Quic).policy(&policy).up();
    let mut client = pair.client();
    expect_exception(&mut client, &[6, 0, 42, 0, 1], 1);
    pair.headend.terminate();
    let records = pair.headend.audit().len();
    let log = log_of(&pair.headend);
    for (format, starts) in [
        ("jsonl", "{\"v\":1,"),
        ("cef", "CEF:0|Fieldlock|fieldlock|"),
        ("syslog", "<1"),
    ] {
        let text = binary::run_ok(&[&"audit", &"export", &log, &"--format", &format]);
        assert_eq!(text.lines().count(), records, "{text}");
        assert!(text.lines().all(|line| line.starts_with(starts)), "{text}");
    }
    let denied = ["--format", "cef", "--kind", "denied"];
    let mut command = binary::command();
    command.args(["audit", "export"]).arg(&log).args(denied);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("cs1=a|b\\=c"), "{text}");
}
