//! The log at a collector: rsyslog over TLS, which may go away at any time.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use fieldlock_testkit::peers::Peer;
use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};
use fieldlock_tests::answers::{expect_exception, write_one};
use fieldlock_tests::trial::{test, with_peers};
use fieldlock_tests::{Agent, OPEN_POLICY, Pair, Setup, Transport, binary, eventually};
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

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
    assert!(said.contains("trying again, nothing is lost"), "{said}");
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
        fs::read_to_string(&log).unwrap().contains("BadSignature")
    });
    exporter.kill();
    assert!(collector.taken().is_empty());
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
