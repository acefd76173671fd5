use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use fieldlock_audit::{FILE_NAME, Kind};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::*;

#[test]
fn only_what_matches_is_written_and_the_cursor_passes_all() {
    let log = Log::of(&["denied", "start", "denied"]);
    let plan = Plan {
        filter: Filter {
            kinds: vec![Kind::Denied],
            ..Filter::default()
        },
        ..plan(Form::Jsonl)
    };
    let (written, _) = log.written(&plan);
    let seqs: Vec<&str> = written.lines().map(|line| &line[7..14]).collect();
    assert_eq!(seqs, ["\"seq\":1", "\"seq\":3"]);
    assert_eq!(log.cursor().seq(), 3);
    let (again, _) = log.written(&plan);
    assert_eq!(again, "");
}

#[test]
fn each_form_has_a_line_a_record() {
    let log = Log::of(&["denied"]);
    for (form, begin) in [
        (Form::Jsonl, "{\"v\":1"),
        (Form::Cef, "CEF:0|"),
        (Form::Syslog, "<"),
    ] {
        fs::remove_file(log.cursor_path()).unwrap_or_default();
        let (written, _) = log.written(&plan(form));
        assert_eq!(written.lines().count(), 1, "{written}");
        assert!(written.starts_with(begin), "{written}");
    }
}

#[test]
fn a_gap_is_told_and_what_comes_after_it_is_written() {
    let log = Log::of(&["denied", "denied", "denied"]);
    let mut cursor = log.cursor();
    cursor.store(1).unwrap();
    let text = fs::read_to_string(log.file()).unwrap();
    let last: String = text.split_inclusive('\n').skip(2).collect();
    fs::write(log.file(), last).unwrap();
    let (written, told) = log.written(&plan(Form::Jsonl));
    assert_eq!(written.lines().count(), 1);
    assert_eq!(told, ["the records 2 to 2 are not in the log any more"]);
}

#[test]
fn output_that_breaks_keeps_the_cursor() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::of(&["denied"]);
    let result = write(log.path(), &plan(Form::Jsonl), log.cursor(), Broken, |_| {});
    assert!(matches!(result, Err(ExportError::Output(_))), "{result:?}");
    assert_eq!(log.cursor().seq(), 0);
}

#[test]
fn a_collector_that_confirms_has_got_all() {
    let log = Log::of(&["denied", "start", "denied"]);
    let (server, collector, _files) = Server::run(true, 1);
    let mut told = 0;
    send(
        log.path(),
        &plan(Form::Jsonl),
        log.cursor(),
        &collector,
        |_| told += 1,
    )
    .unwrap();
    let got = server.join().unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].matches("\"seq\":").count(), 3);
    assert_eq!((log.cursor().seq(), told), (3, 0));
}

#[test]
fn a_collector_that_never_confirms_gets_all_twice_and_is_named() {
    let log = Log::of(&["denied", "denied"]);
    // Two with the records, and one that shows that it is still there.
    let (server, collector, _files) = Server::run(false, 3);
    let mut told = Vec::new();
    let error = send(
        log.path(),
        &plan(Form::Jsonl),
        log.cursor(),
        &collector,
        |notice| {
            told.push(match notice {
                Notice::Down { done, reached, .. } => format!("down {done} {reached}"),
                Notice::NeverConfirms { first, last } => format!("never {first} {last}"),
                Notice::Up => "up".to_owned(),
                Notice::Log(oddity) => oddity.to_string(),
            });
        },
    )
    .unwrap_err();
    assert!(
        matches!(
            error,
            ExportError::Unconfirmed {
                first: 1,
                last: 2,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(told, ["down 0 2", "never 1 2", "up"]);
    let got = server.join().unwrap();
    assert_eq!(got[0], got[1]);
    assert_eq!(got[2], "");
}

#[test]
fn a_silence_counts_once_it_was_repeated() {
    let mut silence = Silence::default();
    assert_eq!(silence.handle(1, 10), Taken::Unknown);
    // Sent again, with more.
    assert_eq!(silence.handle(1, 20), Taken::AfterRepeat);
    assert_eq!(silence.handle(21, 30), Taken::AsBefore);
    assert_eq!(silence.taken, Some((1, 30)));

    // The collector moved on in between: not the same records.
    let mut silence = Silence::default();
    assert_eq!(silence.handle(1, 10), Taken::Unknown);
    assert_eq!(silence.handle(11, 20), Taken::Unknown);
}

#[test]
fn a_collector_that_cannot_be_tried_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.pem");
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let new = |address: &str, roots: Option<&Path>, own| {
        Collector::new(address, roots, own).map(|collector| collector.to_string())
    };
    let address = new("siem", None, None);
    assert!(matches!(address, Err(CollectorError::Address { .. })));
    let missing = new("siem:6514", Some(&none), None);
    assert!(matches!(missing, Err(CollectorError::Read { .. })));
    let hollow = new("siem:6514", Some(&empty), None);
    assert!(matches!(hollow, Err(CollectorError::NoCertificate { .. })));
    let keyless = new("siem:6514", None, Some((&empty, &empty)));
    assert!(matches!(keyless, Err(CollectorError::NoKey { .. })));
    assert_eq!(new("[::1]:6514", None, None).unwrap(), "[::1]:6514");
}

fn plan(form: Form) -> Plan {
    Plan {
        form,
        filter: Filter::default(),
        follow: false,
        confirm: Duration::from_secs(60),
    }
}

/// A log of records of these kinds, and a cursor beside it.
struct Log(TempDir);

impl Log {
    fn of(kinds: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lines = (1..).zip(kinds).map(|(seq, kind)| {
            format!("{{\"v\":1,\"seq\":{seq},\"agent\":\"press-07\",\"kind\":\"{kind}\"}}\n")
        });
        fs::write(folder.path().join(FILE_NAME), lines.collect::<String>()).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join(FILE_NAME)
    }

    fn cursor_path(&self) -> PathBuf {
        self.path().join("export.cursor")
    }

    fn cursor(&self) -> Cursor {
        Cursor::load(Some(&self.cursor_path())).unwrap()
    }

    /// What was written, and what was told.
    fn written(&self, plan: &Plan) -> (String, Vec<String>) {
        let (mut out, mut told) = (Vec::new(), Vec::new());
        write(self.path(), plan, self.cursor(), &mut out, |notice| {
            if let Notice::Log(oddity) = notice {
                told.push(oddity.to_string());
            }
        })
        .unwrap();
        (String::from_utf8(out).unwrap(), told)
    }
}

/// A collector that takes some connections one after another, each to its end.
struct Server;

impl Server {
    /// Gives what each of `count` connections sent; `confirms` says whether it closes as TLS wants it.
    fn run(confirms: bool, count: usize) -> (JoinHandle<Vec<String>>, Collector, TempDir) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let files = tempfile::tempdir().unwrap();
        let roots = files.path().join("ca.pem");
        fs::write(&roots, certificate.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind(("localhost", 0)).unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let collector = Collector::new(&address, Some(&roots), None).unwrap();
        let config = Arc::new(config);
        let server = thread::spawn(move || {
            let connections = (0..count).map(|_| {
                let (tcp, _) = listener.accept().unwrap();
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(tls, tcp);
                let mut got = String::new();
                // The last connection of an export is dropped, not closed.
                let _ = stream.read_to_string(&mut got);
                if confirms {
                    stream.conn.send_close_notify();
                    stream.flush().unwrap();
                }
                got
            });
            connections.collect()
        });
        (server, collector, files)
    }
}
